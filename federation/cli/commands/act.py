"""`cancel`, `suspend`, `resume`, `resize`: what people want of PodGroups that are there."""

from __future__ import annotations

import click

from federation.cli.completion import group_names
from federation.cli.errors import ExitCode
from federation.cli.options import PODGROUP_KINDS, named
from federation.cli.session import Session, connected, namespaced


def _act(session: Session, names: tuple[str, ...], act: str, done: str, reason: str) -> int:
    for name in names:
        ref = named(name, *PODGROUP_KINDS)
        landed = session.client.act_on_group(ref, act, reason, namespace=session.namespace)
        click.echo(f"podgroup/{ref} {done} (position {landed.position})")
    return ExitCode.OK


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=group_names)
@click.option("--reason", default="", help="Kept in the decision log.")
@namespaced
@connected
def cancel(session: Session, *, names: tuple[str, ...], reason: str) -> int:
    """End PodGroups for good.

    Their place is free once their last container ended.
    """
    return _act(session, names, "cancel", "is being cancelled", reason)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=group_names)
@click.option("--reason", default="", help="Kept in the decision log.")
@namespaced
@connected
def suspend(session: Session, *, names: tuple[str, ...], reason: str) -> int:
    """Stop PodGroups and keep them for `resume`."""
    return _act(session, names, "suspend", "is being suspended", reason)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=group_names)
@click.option("--reason", default="", help="Kept in the decision log.")
@namespaced
@connected
def resume(session: Session, *, names: tuple[str, ...], reason: str) -> int:
    """Queue suspended PodGroups again.

    One that waits after failures is looked at anew, wherever it failed.
    """
    return _act(session, names, "resume", "is to run", reason)


@click.command()
@click.argument("name", metavar="NAME", shell_complete=group_names)
@click.option("--role", default="", help="Whose pods; may be left out where there is one role.")
@click.option("--count", type=int, required=True, help="So many pods, from its min_count to its count in the manifest.")
@namespaced
@connected
def resize(session: Session, *, name: str, role: str, count: int) -> int:
    """Give an elastic PodGroup more or fewer pods where it runs.

    Those of the highest ranks leave first. It does not grow beyond this by itself, until it starts again elsewhere.
    """
    ref = named(name, *PODGROUP_KINDS)
    landed = session.client.resize(ref, count, role=role, namespace=session.namespace)
    pods = f"{count} pods of role {role}" if role else f"{count} pods"
    click.echo(f"podgroup/{ref} is to have {pods} (position {landed.position})")
    return ExitCode.OK
