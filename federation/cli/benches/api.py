"""`muster bench api`: durable acknowledgements per second of one server on SQLite, with nothing behind it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from federation.cli.benches import usage
from federation.cli.benches.load import Load, gang, percentile, submit_all
from federation.cli.benches.usage import Part
from federation.cli.local.commands import NATS, SERVER
from federation.cli.local.fleet import QUEUE, LocalFleet
from federation.protocol import eventloop
from federation.simulate.machine import Machine, machine

WARM_UP: Final = 200  # submissions before the clock starts: imports, caches, first pages of the journal
READY_S: Final = 60.0


class ApiReport(msgspec.Struct, frozen=True, kw_only=True):
    """`per_second` counts answers after the record landed on disk."""

    bench: str = "api"
    submissions: int
    connections: int
    wall_s: float
    per_second: float
    answer_p50_ms: float
    answer_p99_ms: float
    refused: int
    parts: dict[str, Part]
    limit: str
    machine: Machine


def bench_api(root: Path, *, submissions: int, connections: int, say: Callable[[str], None]) -> ApiReport:
    """A server and a broker in `root`, nothing else; gone when this returns."""
    fleet = LocalFleet.make(root, clusters=["c-1"], nodes=["1xA100-80:8"], preset="fast")
    facts = machine()
    try:
        fleet.start_only([NATS, SERVER], say, within_s=READY_S)
        with fleet.client() as client:
            client.apply_queue(QUEUE, {"weight": 1})
        return eventloop.run(_measure(fleet, submissions, connections, facts))
    finally:
        fleet.down()


async def _measure(fleet: LocalFleet, submissions: int, connections: int, facts: Machine) -> ApiReport:
    async with Load(fleet.state.ports[SERVER], fleet.token, connections=connections, watch=False) as load:
        warm = [gang(f"warm-{number}", pods=1, gpus=1, run_s=60) for number in range(WARM_UP)]
        await submit_all(load.wires, warm, load.times, run_id="warm")
        load.forget()
        manifests = [gang(f"api-{number}", pods=8, gpus=8, run_s=60) for number in range(submissions)]
        before, began_s = usage.readings(fleet), time.monotonic()
        await submit_all(load.wires, manifests, load.times, run_id="api")
        wall_s = time.monotonic() - began_s
        after = usage.readings(fleet)
    answers = load.times.answer_s()
    return ApiReport(
        submissions=submissions,
        connections=connections,
        wall_s=round(wall_s, 2),
        per_second=round(len(answers) / wall_s, 1),
        answer_p50_ms=round(percentile(answers, 0.5) * 1000, 1),
        answer_p99_ms=round(percentile(answers, 0.99) * 1000, 1),
        refused=len(load.times.refused),
        parts=usage.parts(before, after, fleet),
        limit=usage.limit(before, after, facts.cpus),
        machine=facts,
    )
