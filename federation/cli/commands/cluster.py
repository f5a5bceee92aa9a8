"""`cluster …`: what operators do to member clusters."""

from __future__ import annotations

import sys

import click

from federation.cli.completion import cluster_names
from federation.cli.errors import CliError, ExitCode
from federation.cli.options import CLUSTER_KINDS, labels_of, named
from federation.cli.session import Session, connected


@click.group()
def cluster() -> None:
    """Join, cordon, drain or remove member clusters."""


@cluster.command()
@click.argument("name")
@click.option("--lease-class", type=click.Choice(["fast", "default", "careful"]), default="default", show_default=True)
@click.option("-l", "--label", "labels", multiple=True, metavar="KEY=VALUE", help="E.g. region=eu-1; may be repeated.")
@click.option("--accept-unguarded", is_flag=True, help="Move groups off it although nothing proves that they stopped.")
@connected
def join(session: Session, *, name: str, lease_class: str, labels: tuple[str, ...], accept_unguarded: bool) -> int:
    """Make a cluster part of the fleet, or change how it takes part."""
    session.client.join_cluster(
        name, lease_class=lease_class, labels=labels_of(labels), accept_unguarded=accept_unguarded
    )
    click.echo(f"cluster/{name} joined; it gets work once its agent was admitted")
    return ExitCode.OK


@cluster.command()
@click.argument("name", shell_complete=cluster_names)
@click.option("--reason", default="", help="Kept in the decision log.")
@connected
def cordon(session: Session, *, name: str, reason: str) -> int:
    """No new PodGroups there; present ones stay."""
    return _act(session, name, "cordon", "cordoned", reason)


@cluster.command()
@click.argument("name", shell_complete=cluster_names)
@click.option("--reason", default="", help="Kept in the decision log.")
@connected
def uncordon(session: Session, *, name: str, reason: str) -> int:
    """Take the cluster back into use."""
    return _act(session, name, "uncordon", "uncordoned", reason)


@cluster.command()
@click.argument("name", shell_complete=cluster_names)
@click.option("--reason", default="", help="Kept in the decision log.")
@connected
def drain(session: Session, *, name: str, reason: str) -> int:
    """Cordon it and move its PodGroups elsewhere."""
    return _act(session, name, "drain", "is being drained", reason)


@cluster.command()
@click.argument("name", shell_complete=cluster_names)
@click.option("--reason", default="", help="Kept in the decision log.")
@connected
def remove(session: Session, *, name: str, reason: str) -> int:
    """It is no part of the fleet any more: one that was never admitted, or that is confirmed dead."""
    return _act(session, name, "remove", "is no part of the fleet any more", reason)


@cluster.command("confirm-dead")
@click.argument("name", shell_complete=cluster_names)
@click.option("--reason", required=True, help="How you know that nothing runs there any more. Kept with your name.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected
def confirm_dead(session: Session, *, name: str, reason: str, yes: bool) -> int:
    """Vouch that nothing runs there any more: its PodGroups start elsewhere at once.

    If something does still run there, it runs twice. The same if pods that are bound there start again with the
    power, which only guards on the nodes prevent.
    """
    cluster_name = named(name, *CLUSTER_KINDS)
    if not yes:
        _ask(cluster_name)
    return _act(session, cluster_name, "confirm-dead", "is taken for dead", reason)


def _ask(name: str) -> None:
    if sys.stdin is None or not sys.stdin.isatty():
        raise CliError("confirm-dead asks before it acts, and nobody is there to answer", "add --yes", ExitCode.USAGE)
    click.echo(f"Groups of {name} will start elsewhere at once. If anything still runs there, it runs twice.", err=True)
    if click.prompt(f"Type {name} to go on", err=True) != name:
        raise CliError("not confirmed; nothing was done", "", ExitCode.REFUSED)


def _act(session: Session, name: str, act: str, done: str, reason: str) -> int:
    ref = named(name, *CLUSTER_KINDS)
    landed = session.client.act_on_cluster(ref, act, reason)
    click.echo(f"cluster/{ref} {done} (position {landed.position})")
    return ExitCode.OK
