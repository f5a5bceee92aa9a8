"""`version` and `completion`."""

from __future__ import annotations

import click

from federation.cli.errors import CliError, ExitCode

VARIABLE = "_MUSTER_COMPLETE"

# kubectl asks a plugin's completer with the words as arguments, and wants one candidate a line and a last line that
# says "no file names" (4, as cobra writes it).
KUBECTL = """\
#!/bin/sh
COMP_WORDS="muster $*" COMP_CWORD=$# _MUSTER_COMPLETE=bash_complete muster | sed 's/^[a-z]*,//'
echo ":4"
"""


@click.command()
def version() -> None:
    """Print the version of this client."""
    import muster

    click.echo(f"muster {muster.__version__}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish", "kubectl"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a completion script.

    For bash: source <(muster completion bash). For `kubectl muster`, save what `completion kubectl` prints as an
    executable kubectl_complete-muster on the PATH.
    """
    if shell == "kubectl":
        click.echo(KUBECTL, nl=False)
        return
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise CliError(f"no completion for {shell}", "bash, zsh and fish have one", ExitCode.USAGE)
    click.echo(kind(ctx.find_root().command, {}, "muster", VARIABLE).source())
