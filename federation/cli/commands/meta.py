"""`version` and `completion`."""

from __future__ import annotations

import click

from federation.cli.errors import CliError, ExitCode

VARIABLE = "_MUSTER_COMPLETE"


@click.command()
def version() -> None:
    """Print the version of this client."""
    import muster

    click.echo(f"muster {muster.__version__}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a completion script.

    For bash: source <(muster completion bash)
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise CliError(f"no completion for {shell}", "bash, zsh and fish have one", ExitCode.USAGE)
    click.echo(kind(ctx.find_root().command, {}, "muster", VARIABLE).source())
