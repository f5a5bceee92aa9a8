"""One cluster loses its network while its kubelets run on: its gangs start elsewhere, once, after guard time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cluster_agents.simkube.runlog import RunLogEntry
from federation.protocol.presets import preset
from tests.survival.fleet import CLUSTERS, fleet_of_three, run_log, runs_by_group, wait_until
from tests.survival.kills import manifest

GRACE_S: Final = 2
RUN_S: Final = 3_600  # for as long as the run takes
PLACED_S: Final = 90.0


@dataclass(slots=True)
class CutOutcome:
    moved: int = 0
    detect_s: float = 0.0  # cut -> ClusterFenced on record
    elsewhere_s: float = 0.0  # cut -> all running elsewhere
    wait_s_min: float = 0.0  # ClusterFenced -> first FenceDone
    fence_wait_s: float = 0.0  # K
    orphans: int = 0
    faults: list[str] = field(default_factory=list)


def run_cut(root: Path, *, groups: int = 6) -> CutOutcome:
    """Cut, wait for the moves, heal, wait for re-admission; S1 over the run logs all along."""
    timings = preset("demo")
    outcome = CutOutcome(fence_wait_s=timings.fence_wait_s(GRACE_S))
    with fleet_of_three(root) as (fleet, relays), fleet.client() as client:
        for number in range(groups):
            client.submit({**manifest(f"cut-{number}", 2, 8, RUN_S), "grace_s": GRACE_S})
        wait_until(lambda: len(client.list_groups(phase="Running").items) == groups, "all to run", PLACED_S)
        homes = {view.metadata.uid: view.status.cluster for view in client.list_groups().items}
        victim = max(CLUSTERS, key=lambda name: (list(homes.values()).count(name), name))
        struck = {uid for uid, home in homes.items() if home == victim}
        outcome.moved = len(struck)
        cut_at_s = time.monotonic()
        for relay in relays[victim]:
            relay.cut()
        wait_until(lambda: client.get_cluster(victim).status.state == "Fenced", "the fence", PLACED_S)
        outcome.detect_s = time.monotonic() - cut_at_s

        def elsewhere() -> bool:
            views = [client.get_group(uid) for uid in sorted(struck)]
            return all(view.status.phase == "Running" and view.status.cluster != victim for view in views)

        wait_until(elsewhere, "the struck groups to run elsewhere", PLACED_S)
        outcome.elsewhere_s = time.monotonic() - cut_at_s
        for relay in relays[victim]:
            relay.heal()
        wait_until(lambda: client.get_cluster(victim).status.state == "Active", "re-admission", PLACED_S)
        _judge(outcome, struck, victim, run_log(fleet))
        decisions = client.list_decisions(cluster=victim).items
        fenced_ms = max(d.at_ms for d in decisions if d.kind == "ClusterFenced")
        done_ms = [d.at_ms for d in decisions if d.kind == "FenceDone" and d.at_ms >= fenced_ms]
        outcome.wait_s_min = (min(done_ms) - fenced_ms) / 1000 if done_ms else 0.0
    return outcome


def _judge(outcome: CutOutcome, struck: set[str], victim: str, entries: list[RunLogEntry]) -> None:
    by_group = runs_by_group(entries)
    for uid in sorted(struck):
        there = [run for run in by_group[uid] if run.started.cluster == victim]
        elsewhere = [run for run in by_group[uid] if run.started.cluster != victim]
        outcome.orphans += sum(run.ended_s is None for run in there)
        if not elsewhere:
            outcome.faults.append(f"{uid} never ran elsewhere")
            continue
        last_end_s = max((run.ended_s if run.ended_s is not None else float("inf")) for run in there)
        if last_end_s >= min(run.started.at_s for run in elsewhere):
            outcome.faults.append(f"S1 {uid} ran in {victim} until {last_end_s} and elsewhere before that")
