"""A local fleet for survival runs: three simulated clusters behind relays, and readers of what really ran."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cluster_agents.simkube.runlog import Run, RunLogEntry, decode_lines, runs
from federation.cli.local.commands import NATS, SERVER
from federation.cli.local.fleet import LocalFleet
from federation.cli.local.relay import Relay

CLUSTERS: Final = ("c-1", "c-2", "c-3")
NODES: Final = ("8xA100-80:8,clique=4", "12xH100-80:8,clique=4", "8xA100-80:8,clique=8")
API_PER_S: Final = 1_000.0  # simulated API servers stand more than real ones are asked for
POLL_S: Final = 0.25


@contextmanager
def fleet_of_three(root: Path, *, preset: str = "demo") -> Iterator[tuple[LocalFleet, dict[str, list[Relay]]]]:
    """Three unlike clusters."""
    with fleet_behind_relays(root, dict(zip(CLUSTERS, NODES, strict=True)), preset=preset) as found:
        yield found


@contextmanager
def fleet_behind_relays(
    root: Path, nodes: Mapping[str, str], *, preset: str = "demo"
) -> Iterator[tuple[LocalFleet, dict[str, list[Relay]]]]:
    """Up and Active, the clusters with these `nodes`; agents reach bus and server through relays that can be cut, by
    cluster. Nothing is left behind."""
    fleet = LocalFleet.make(root, clusters=list(nodes), nodes=list(nodes.values()), preset=preset)
    relays: dict[str, list[Relay]] = {}
    for cluster in nodes:
        relays[cluster] = [Relay(fleet.state.ports[role]) for role in (SERVER, NATS)]
        for relay in relays[cluster]:
            relay.start()
        ports = [relay.port for relay in relays[cluster]]
        fleet.state.uplinks[cluster] = dict(zip((SERVER, NATS), ports, strict=True))
    fleet.state.api_per_s = API_PER_S
    try:
        fleet.up()
        yield fleet, relays
    finally:
        fleet.down()
        for pair in relays.values():
            for relay in pair:
                relay.stop()


def run_log(fleet: LocalFleet) -> list[RunLogEntry]:
    """What the kubelets of all clusters wrote."""
    entries: list[RunLogEntry] = []
    for cluster in fleet.state.clusters:
        file = fleet.folder.cluster(cluster) / "runlog.jsonl"
        if file.exists():
            entries += decode_lines(file.read_bytes())
    return entries


def runs_by_group(entries: list[RunLogEntry]) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs(entries):
        if run.group:
            found.setdefault(run.group, []).append(run)
    return found


def wait_until(done: Callable[[], bool], what: str, within_s: float) -> float:
    """Seconds until `done`; AssertionError that names `what` when it takes longer."""
    began_s = time.monotonic()
    while not done():
        if time.monotonic() - began_s > within_s:
            raise AssertionError(f"not within {within_s:.0f} s: {what}")
        time.sleep(POLL_S)
    return time.monotonic() - began_s
