"""The `muster` command: finds the sub-command, and turns every error into at most two lines and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

import click

from federation.cli.errors import CliError, ExitCode, line
from federation.cli.session import World
from federation.protocol.packages import refuse_strangers

COMMANDS: Final = {
    "up": "local",
    "down": "local",
    "submit": "submit",
    "apply": "submit",
    "get": "get",
    "describe": "describe",
    "explain": "explain",
    "history": "history",
    "logs": "logs",
    "top": "top",
    "cancel": "act",
    "suspend": "act",
    "resume": "act",
    "resize": "act",
    "cluster": "cluster",
    "doctor": "doctor",
    "store": "store",
    "bench": "bench",
    "simulate": "simulate",
    "demo": "demo",
    "version": "meta",
    "completion": "meta",
}


class LazyCommands(click.Group):
    """Imports the module of a command when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"federation.cli.commands.{COMMANDS[cmd_name]}")
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def muster() -> None:
    """One queue for a fleet of Kubernetes GPU clusters: whole PodGroups, in one cluster at a time, all or nothing."""


def run(arguments: Sequence[str], world: World | None = None, *, program: str = "muster") -> int:
    """Carry out one command line; the exit code. Never raises for what people or servers did."""
    try:
        code = muster.main(list(arguments), prog_name=program, obj=world or World(), standalone_mode=False)
    except CliError as error:
        return _fail(error)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else program
        return _fail(CliError(error.format_message(), f"see `{path} --help`", ExitCode.USAGE))
    except click.ClickException as error:
        return _fail(CliError(error.format_message()))
    except (click.Abort, KeyboardInterrupt):
        return 130  # as shells do for SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
        return ExitCode.OK
    except Exception as error:
        known = _known(error)
        if known is None:
            raise
        return _fail(known)
    return int(code) if isinstance(code, int) else ExitCode.OK


def _known(error: Exception) -> CliError | None:
    """Errors of the client and the system as people see them; None for bugs, which keep their traceback."""
    from muster.errors import MusterError

    if isinstance(error, MusterError):
        from federation.cli.failures import from_server

        return from_server(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return CliError(f"{where}{error.strerror or error}")
    if isinstance(error, UnicodeEncodeError) and error.encoding == "utf-8":  # bytes of an argument that are no text
        return CliError(f"{error.object!a} is not UTF-8", "write it as UTF-8; nothing was sent", ExitCode.REFUSED)
    return None


def _fail(error: CliError) -> int:
    click.echo(f"error: {line(error.what)}", err=True)
    if error.remedy:
        click.echo(f"  {line(error.remedy)}", err=True)
    return error.code


def main() -> NoReturn:
    """Entry point of `muster` and `kubectl-muster`."""
    refuse_strangers("muster", sys.argv[1:])
    plugin = Path(sys.argv[0]).name.startswith("kubectl-")
    sys.exit(run(sys.argv[1:], program="kubectl muster" if plugin else "muster"))


if __name__ == "__main__":
    main()
