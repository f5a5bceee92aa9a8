"""After a run: what the client was promised against what the kubelets logged. Reads nothing that Muster says of itself,
except that an acknowledged group can be read back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import muster
from cluster_agents.simkube.runlog import Run, RunLogEntry, device_conflicts, overlaps_between_clusters
from tests.survival.fleet import runs_by_group


@dataclass(slots=True)
class Promise:
    """One acknowledged submission."""

    uid: str
    name: str
    pods: int


@dataclass(slots=True)
class Verdict:
    """What a run shows; `faults` is empty when every promise was kept."""

    acknowledged: int = 0
    tokens: int = 0  # placements that had a container
    moved: int = 0  # groups with more than one of them
    faults: list[str] = field(default_factory=list)


def compare(promises: list[Promise], client: muster.Client, entries: list[RunLogEntry]) -> Verdict:
    """S1, S5, S6 and S7 over a finished run, where every group was meant to succeed."""
    verdict = Verdict(acknowledged=len(promises))
    by_group = runs_by_group(entries)
    _readable_once(promises, client, verdict)
    verdict.faults += [
        f"S1 {o.first.group} ran in two clusters at once: {o}" for o in overlaps_between_clusters(entries)
    ]
    verdict.faults += [f"S5 one device twice: {o}" for o in device_conflicts(entries)]
    known = {promise.uid for promise in promises}
    verdict.faults += [f"S7 {uid} ran but was never acknowledged" for uid in sorted(set(by_group) - known)]
    for promise in promises:
        ran_whole(promise, by_group.get(promise.uid, []), verdict)
    return verdict


def _readable_once(promises: list[Promise], client: muster.Client, verdict: Verdict) -> None:
    seen: Counter[str] = Counter()
    phases: dict[str, str] = {}
    mark = ""
    while True:
        page = client.list_groups(limit=500, continue_=mark)
        for view in page.items:
            seen[view.metadata.name] += 1
            phases[view.metadata.uid] = view.status.phase
        mark = page.metadata.continue_ or ""
        if not mark:
            break
    for promise in promises:
        if seen[promise.name] != 1:
            verdict.faults.append(f"S7 {promise.name} is there {seen[promise.name]} times")
        if phases.get(promise.uid) != "Succeeded":
            verdict.faults.append(f"S7 {promise.name} is {phases.get(promise.uid, 'lost')}, not Succeeded")


def ran_whole(promise: Promise, found: list[Run], verdict: Verdict) -> None:
    """Its last placement ran all of its pods together, and nothing of it runs any more."""
    tokens = sorted({run.started.token for run in found}, key=lambda token: int(token.rpartition(".")[2]))
    verdict.tokens += len(tokens)
    verdict.moved += len(tokens) > 1
    if not tokens:
        verdict.faults.append(f"S6 {promise.name} never ran")
        return
    if any(run.ended_s is None for run in found):
        verdict.faults.append(f"L4 {promise.name} still has a container")
        return
    last = [run for run in found if run.started.token == tokens[-1]]
    if len(last) != promise.pods:
        verdict.faults.append(f"S6 {promise.name}: {len(last)} of {promise.pods} pods ran under its last token")
        return
    if max(run.started.at_s for run in last) >= min(run.ended_s or 0.0 for run in last):
        verdict.faults.append(f"S6 {promise.name}: its pods did not run together")
