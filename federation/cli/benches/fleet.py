"""`muster bench fleet`: from HTTP submission to `Bound` landed, through a real broker, on simulated clusters.

Two measurements on one fleet: submissions at an even rate for a while, and a burst as fast as answers come.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from federation.cli.benches import usage
from federation.cli.benches.load import Load, Times, gang, percentile, submit_all, until_bound
from federation.cli.benches.usage import Part
from federation.cli.local.commands import SERVER
from federation.cli.local.fleet import LocalFleet
from federation.protocol import eventloop
from federation.simulate.machine import Machine, machine

CONNECTIONS: Final = 32
WARM_UP: Final = 50
READY_S: Final = 180.0  # ten clusters are 32 processes
PATIENCE_S: Final = 120.0
RUN_S: Final = 2.0  # how long a job's pod runs at an even rate: ends and releases are part of that load
BURST_RUN_S: Final = 60.0  # ... and in a burst, which is over before any has ended


@dataclass(frozen=True, slots=True)
class FleetSettings:
    clusters: int
    nodes: str
    per_s: float
    seconds: float
    burst: int
    gpus: int
    api_per_s: float


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement. `bound_per_second` runs from the first submission to the last group that was bound."""

    what: str
    submitted: int
    refused: int
    bound: int
    wall_s: float
    bound_per_second: float
    answer_p50_ms: float
    answer_p99_ms: float
    bound_p50_ms: float
    bound_p99_ms: float
    parts: dict[str, Part]
    limit: str


class FleetReport(msgspec.Struct, frozen=True, kw_only=True):
    bench: str = "fleet"
    clusters: int
    nodes: str
    api_budget_per_s: float
    phases: list[Phase]
    machine: Machine


def bench_fleet(root: Path, settings: FleetSettings, say: Callable[[str], None]) -> FleetReport:
    """A whole fleet in `root`, gone when this returns."""
    facts = machine()
    names = [f"c-{number}" for number in range(1, settings.clusters + 1)]
    fleet = LocalFleet.make(root, clusters=names, nodes=[settings.nodes] * settings.clusters, preset="fast")
    fleet.state.api_per_s = settings.api_per_s
    try:
        fleet.up(say, within_s=READY_S)
        phases = eventloop.run(_phases(fleet, settings, facts, say))
    finally:
        fleet.down()
    return FleetReport(
        clusters=settings.clusters,
        nodes=settings.nodes,
        api_budget_per_s=settings.api_per_s,
        phases=phases,
        machine=facts,
    )


async def _phases(
    fleet: LocalFleet, settings: FleetSettings, facts: Machine, say: Callable[[str], None]
) -> list[Phase]:
    async with Load(fleet.state.ports[SERVER], fleet.token, connections=CONNECTIONS) as load:
        await submit_all(load.wires, _jobs("warm", WARM_UP, settings.gpus, RUN_S), load.times, run_id="warm")
        await until_bound(load.times, WARM_UP, PATIENCE_S)
        found = []
        count = int(settings.per_s * settings.seconds)
        if count:
            say(f"{count} jobs at {settings.per_s:.0f}/s")
            jobs = _jobs("even", count, settings.gpus, RUN_S)
            found.append(await measured(fleet, load, f"{settings.per_s:.0f} jobs/s", jobs, facts, settings.per_s))
        if settings.burst:
            say(f"a burst of {settings.burst} jobs")
            jobs = _jobs("burst", settings.burst, settings.gpus, BURST_RUN_S)
            found.append(await measured(fleet, load, f"burst of {settings.burst}", jobs, facts))
        return found


def _jobs(name: str, count: int, gpus: int, run_s: float) -> list[dict[str, Any]]:
    return [gang(f"{name}-{number}", pods=1, gpus=gpus, run_s=run_s) for number in range(count)]


async def measured(
    fleet: LocalFleet, load: Load, what: str, manifests: list[dict[str, Any]], facts: Machine, per_s: float = 0.0
) -> Phase:
    """Submit all of them, wait until all are bound, and say how it went and what it cost."""
    load.forget()
    times = load.times
    before, began_s = usage.readings(fleet), time.monotonic()
    await submit_all(load.wires, manifests, times, per_s=per_s, run_id=manifests[0]["name"])
    await until_bound(times, len(times.sent_s), PATIENCE_S)
    after = usage.readings(fleet)
    return phase(what, times, began_s, usage.parts(before, after, fleet), usage.limit(before, after, facts.cpus))


def phase(what: str, times: Times, began_s: float, parts: dict[str, Part], limit: str) -> Phase:
    """The figures of one measurement."""
    answers, bindings = times.answer_s(), times.binding_s()
    wall_s = max((at_s for uid, at_s in times.bound_s.items() if uid in times.sent_s), default=began_s) - began_s
    return Phase(
        what=what,
        submitted=len(times.sent_s),
        refused=len(times.refused),
        bound=len(bindings),
        wall_s=round(wall_s, 2),
        bound_per_second=round(len(bindings) / wall_s, 1) if wall_s else 0.0,
        answer_p50_ms=round(percentile(answers, 0.5) * 1000, 1),
        answer_p99_ms=round(percentile(answers, 0.99) * 1000, 1),
        bound_p50_ms=round(percentile(bindings, 0.5) * 1000, 1),
        bound_p99_ms=round(percentile(bindings, 0.99) * 1000, 1),
        parts=parts,
        limit=limit,
    )
