"""`muster bench bind`: how fast one agent binds in one large simulated cluster: a large gang, and many single pods."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from federation.cli.benches.fleet import PATIENCE_S, READY_S, Phase, measured
from federation.cli.benches.load import Load, gang, submit_all, until_bound
from federation.cli.local.commands import SERVER
from federation.cli.local.fleet import LocalFleet
from federation.protocol import eventloop
from federation.simulate.machine import Machine, machine

RUN_S: Final = 3_600.0  # nothing ends meanwhile: binding alone is measured
CONNECTIONS: Final = 32


@dataclass(frozen=True, slots=True)
class BindSettings:
    nodes: int
    gang_pods: int
    gang_gpus: int
    pods: int
    api_per_s: float


class BindReport(msgspec.Struct, frozen=True, kw_only=True):
    bench: str = "bind"
    nodes: int
    gpus: int
    api_budget_per_s: float
    phases: list[Phase]
    machine: Machine


def bench_bind(root: Path, settings: BindSettings, say: Callable[[str], None]) -> BindReport:
    """One cluster of `nodes` x 8 GPUs in `root`, gone when this returns."""
    facts = machine()
    fleet = LocalFleet.make(root, clusters=["c-1"], nodes=[f"{settings.nodes}xA100-80:8,clique=8"], preset="fast")
    fleet.state.api_per_s = settings.api_per_s
    phases = []
    try:
        fleet.up(say, within_s=READY_S)
        phases = eventloop.run(_phases(fleet, settings, facts, say))
    finally:
        fleet.down()
    return BindReport(
        nodes=settings.nodes,
        gpus=settings.nodes * 8,
        api_budget_per_s=settings.api_per_s,
        phases=phases,
        machine=facts,
    )


async def _phases(fleet: LocalFleet, settings: BindSettings, facts: Machine, say: Callable[[str], None]) -> list[Phase]:
    async with Load(fleet.state.ports[SERVER], fleet.token, connections=CONNECTIONS) as load:
        await submit_all(load.wires, [gang("warm", pods=2, gpus=8, run_s=1)], load.times, run_id="warm")
        await until_bound(load.times, 1, PATIENCE_S)
        found = []
        if settings.gang_pods:
            say(f"a gang of {settings.gang_pods} pods")
            large = gang("large", pods=settings.gang_pods, gpus=settings.gang_gpus, run_s=RUN_S)
            found.append(await measured(fleet, load, f"gang of {settings.gang_pods} pods", [large], facts))
            await _emptied(fleet)
        if settings.pods:
            say(f"{settings.pods} groups of one pod")
            jobs = [gang(f"pod-{number}", pods=1, gpus=1, run_s=RUN_S) for number in range(settings.pods)]
            found.append(await measured(fleet, load, f"{settings.pods} groups of one pod", jobs, facts))
        return found


async def _emptied(fleet: LocalFleet) -> None:
    """The gang has gone and the cluster is free again, by what its agent reports."""
    with fleet.client() as client:
        client.act_on_group("large", "cancel", "measured", namespace="default")
        for _ in range(int(PATIENCE_S)):
            (view,) = client.list_clusters().items
            if view.status.groups == 0 and all(count.free == count.total for count in view.status.gpus.values()):
                return
            await asyncio.sleep(1.0)
