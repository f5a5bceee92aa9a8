"""`up` and `down`: a whole fleet on this machine."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from federation.cli.errors import CliError, ExitCode
from federation.cli.options import Duration
from federation.cli.session import World
from federation.cli.settings import default_dir

if TYPE_CHECKING:
    from federation.cli.local.fleet import LocalFleet
    from federation.cli.local.state import FleetDir, FleetState

CLUSTERS_DEFAULT: Final = 3
CLUSTERS_MAX: Final = 50  # three processes each
REPLICAS_MAX: Final = 9  # more cost the store more reads and make nothing safer
ONE_PROCESS: Final = ("sqlite:", "memory:")
NODES_DEFAULT: Final = "8xA100-80:8,clique=4"
WATCH_S: Final = 0.5
OWNER_STOP_S: Final = 30.0


@click.command()
@click.option(
    "--dir", "folder", default="", metavar="DIR", help="Where it lives. [MUSTER_DIR, else ~/.local/share/muster]"
)
@click.option("--clusters", type=click.IntRange(1, CLUSTERS_MAX), default=None, help=f"[{CLUSTERS_DEFAULT}]")
@click.option(
    "--nodes", multiple=True, metavar="SPEC", help=f"Of every cluster, or once per cluster. [{NODES_DEFAULT}]"
)
@click.option("--preset", type=click.Choice(["default", "fast", "careful", "demo"]), default=None, help="[fast]")
@click.option("--replicas", type=click.IntRange(1, REPLICAS_MAX), default=None, help="Servers; one leads. [1]")
@click.option("--store", default=None, metavar="URL", help="The servers' store. [a SQLite file in DIR]")
@click.option("--foreground", is_flag=True, help="Stay, restart what dies, stop all on ^C.")
@click.option("--timeout", type=Duration(), default=90.0, metavar="90s", help="How long to wait until all is ready.")
@click.pass_obj
def up(
    world: World,
    /,
    *,
    folder: str,
    clusters: int | None,
    nodes: tuple[str, ...],
    foreground: bool,
    timeout: float,
    **shape: Any,
) -> int:
    """Start a fleet on this machine.

    A broker, a server, and simulated clusters with their agents. Again: restarts what is dead, in the same state.
    Several servers need a store that admits them: a folder (file:///DIR), a bucket or an etcd.
    """
    from federation.cli.local import commands, state
    from federation.cli.local.fleet import LocalFleet

    where = state.FleetDir(_folder(folder, world))
    where.make()
    with state.locked(where):
        known = state.load(where)
        names = [f"c-{number}" for number in range(1, (clusters or CLUSTERS_DEFAULT) + 1)]
        if known is not None:
            kept = {name: shape[name] for name in ("preset", "replicas")}
            _check_same(known, where.root, clusters, nodes, kept)
            _change_store(known, where, shape["store"])
        else:
            _check_store(where.root, shape["replicas"] or 1, shape["store"] or "")
            for spec in dict.fromkeys(nodes):
                commands.check_nodes(spec)
        fleet = LocalFleet.make(
            where.root,
            clusters=names,
            nodes=_nodes_of_each(nodes, len(names)),
            preset=shape["preset"] or "fast",
            replicas=shape["replicas"] or 1,
            store=shape["store"] or "",
        )
        fleet.up(lambda line: click.echo(line, err=True), within_s=timeout)
        click.echo(_summary(fleet, named=bool(folder)))
        if foreground:
            _stay(fleet)
    return ExitCode.OK


@click.command()
@click.option(
    "--dir", "folder", default="", metavar="DIR", help="Where it lives. [MUSTER_DIR, else ~/.local/share/muster]"
)
@click.pass_obj
def down(world: World, *, folder: str) -> int:
    """Stop the fleet on this machine.

    Its state stays, and `muster up` goes on from there.
    """
    from federation.cli.local import state
    from federation.cli.local.fleet import LocalFleet

    fleet = LocalFleet.open(_folder(folder, world))
    _dismiss_owner(fleet)
    with state.locked(fleet.folder):
        fleet = LocalFleet.open(fleet.folder.root)
        count = fleet.down()
    click.echo(f"stopped {count} processes; state stays in {fleet.folder.root}")
    return ExitCode.OK


def _folder(folder: str, world: World) -> Path:
    return (Path(folder).expanduser() if folder else default_dir(world.environment)).resolve()


def _nodes_of_each(nodes: tuple[str, ...], clusters: int) -> list[str]:
    if len(nodes) <= 1:
        return [nodes[0] if nodes else NODES_DEFAULT] * clusters
    if len(nodes) != clusters:
        raise CliError(f"{len(nodes)} --nodes for {clusters} clusters", "give one, or one per cluster", ExitCode.USAGE)
    return list(nodes)


def _check_store(root: Path, replicas: int, store: str) -> None:
    if replicas > 1 and (not store or store.startswith(ONE_PROCESS)):
        what = f"{store.partition(':')[0] or 'sqlite'} admits one server, not {replicas}"
        raise CliError(what, f"give a store that admits several: --store file://{root}/store", ExitCode.REFUSED)


def _change_store(known: FleetState, where: FleetDir, store: str | None) -> None:
    """Another store, as after a move or a restore, is taken while no server runs."""
    from federation.cli.local import commands, processes, state

    if store is None or store == known.store:
        return
    _check_store(where.root, known.replicas, store)
    running = [role for role in commands.servers(known) if processes.alive(known.processes.get(role))]
    if running:
        what = f"{running[0]} runs on {known.store or 'the store in the folder'}"
        raise CliError(what, "stop it before you give another --store", ExitCode.REFUSED)
    known.store = store
    state.save(where, known)


def _check_same(
    known: FleetState,
    root: Path,
    clusters: int | None,
    nodes: tuple[str, ...],
    others: Mapping[str, str | int | None],
) -> None:
    """A fleet keeps the shape it was made with; asking for another is a mistake better told than ignored."""
    asked = {
        "--clusters": (clusters, len(known.clusters)),
        "--nodes": (_nodes_of_each(nodes, len(known.clusters)) if nodes else None, known.nodes),
        **{f"--{name}": (wanted, getattr(known, name)) for name, wanted in others.items()},
    }
    for flag, (wanted, made) in asked.items():
        if wanted is not None and wanted != made:
            what = f"the fleet in {root} was made with {flag} {made or 'left out'}, not {wanted}"
            raise CliError(what, "leave the flag out, or use another --dir", ExitCode.REFUSED)


def _summary(fleet: LocalFleet, *, named: bool) -> str:
    lines = [f"muster is up in {fleet.folder.root}", f"  server    {fleet.server_url.replace(',', ', ')}"]
    lines.append(f"  clusters  {', '.join(fleet.state.clusters)}, all Active")
    if named:
        lines.append(f"  use it    export MUSTER_DIR={fleet.folder.root}")
    lines.append("  next      muster submit -f MANIFEST --wait; muster get pg; muster down")
    return "\n".join(lines)


def _stay(fleet: LocalFleet) -> None:
    """Until a signal: restart what ended, at most so often; then stop all."""
    import os

    from federation.cli.local import processes, state

    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: stopping.append(received))
    fleet.state.owner = processes.ProcessRecord(os.getpid(), processes.began(os.getpid()) or "")
    state.save(fleet.folder, fleet.state)
    restarts: dict[str, list[float]] = {}
    while not stopping:
        time.sleep(WATCH_S)
        for role in (role for role in fleet.roles if not stopping and not fleet.alive(role)):
            _restart(fleet, role, restarts.setdefault(role, []))
    click.echo("stopping", err=True)
    fleet.down()


RESTARTS_MAX: Final = 5  # within RESTARTS_WITHIN_S; more often it will not help
RESTARTS_WITHIN_S: Final = 60.0


def _restart(fleet: LocalFleet, role: str, times: list[float]) -> None:
    now_s = time.monotonic()
    times[:] = [at_s for at_s in times if now_s - at_s < RESTARTS_WITHIN_S]
    if len(times) >= RESTARTS_MAX:
        return
    times.append(now_s)
    click.echo(f"{role} ended; starting it again (log: {fleet.folder.log(role)})", err=True)
    try:
        fleet.start(role)
    except CliError as error:
        click.echo(f"{role} cannot be started now: {error.what}", err=True)


def _dismiss_owner(fleet: LocalFleet) -> None:
    """Ask a `muster up --foreground` to stop all; it does so before it ends."""
    from federation.cli.local import processes

    owner = fleet.state.owner
    if owner is not None and processes.send(owner, signal.SIGTERM):
        processes.wait_ended([owner], OWNER_STOP_S)
