"""The promises, held against what really happened: S1, S4, S6 and S7 of the design, and no orphans after a return.

Pure. Each check names the promise, the group and the moment; an empty list means that it was kept.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, unique
from typing import Final

from federation.cli.demo.evidence import SUCCEEDED, Evidence, Node, PodAct, Run
from federation.cli.demo.workload import Job

ENDED: Final = frozenset({"Succeeded", "Failed", "Cancelled", "Quarantined"})
NEVER_S: Final = float("inf")


@unique
class Promise(Enum):
    """What is checked; the value is shown to people."""

    ONE_HOME = ("S1", "one home: no group ran in two clusters at once")
    NO_OVERCOMMIT = ("S4", "no over-commitment: no node, GPU or product beyond what there is")
    ALL_OR_NOTHING = ("S6", "all or nothing: no gang part-bound for longer than T_undo")
    NOTHING_LOST = ("S7", "nothing acknowledged is lost: every group ran whole to its end, once")
    NO_ORPHANS = ("L4", "no orphans: nothing ran on in the cut cluster when it came back")

    @property
    def code(self) -> str:
        return self.value[0]

    @property
    def text(self) -> str:
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A submission the client was answered for."""

    uid: str
    job: Job


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that was not kept, and for which group ("" where it is no single one)."""

    promise: Promise
    uid: str
    name: str
    what: str
    at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Returned:
    """A cluster that was cut, and when it was in use again."""

    cluster: str
    cut_s: float
    admitted_s: float


def check_all(
    acknowledged: Sequence[Acknowledged],
    evidence: Evidence,
    *,
    undo_s: float,
    phases: Mapping[str, str],
    returned: Returned | None,
    finished: bool = True,
) -> dict[Promise, list[Broken]]:
    """Every promise with what broke it. `phases`: what the server answers for each uid when it is read back. Where the
    demo ran out of time, groups still under way are not held against it."""
    under_way = {uid for uid, phase in phases.items() if not finished and phase not in ENDED}
    jobs = {one.uid: one.job for one in acknowledged}
    return {
        Promise.ONE_HOME: one_home(evidence.runs, jobs),
        Promise.NO_OVERCOMMIT: no_overcommit(evidence, jobs),
        Promise.ALL_OR_NOTHING: all_or_nothing(evidence, jobs, undo_s),
        Promise.NOTHING_LOST: nothing_lost(
            [one for one in acknowledged if one.uid not in under_way],
            [run for run in evidence.runs if run.group not in under_way],
            phases,
        ),
        Promise.NO_ORPHANS: no_orphans(evidence.runs, jobs, returned),
    }


# --- S1 --------------------------------------------------------------------------------------------------------------


def one_home(runs: Sequence[Run], jobs: Mapping[str, Job]) -> list[Broken]:
    """Per group the first moment at which containers of it ran in two clusters. Touching ends do not count."""
    found: list[Broken] = []
    for uid, own in sorted(by_group(runs).items()):
        pair = _first_overlap(own)
        if pair is not None:
            first, second = pair
            longer = (
                "and never ended" if first.ended_s is None else f"and for {first.ended_s - second.started_s:.1f} s more"
            )
            what = f"{first.pod} still ran in {first.cluster} when {second.pod} started in {second.cluster}, {longer}"
            found.append(Broken(Promise.ONE_HOME, uid, _name(jobs, uid), what, second.started_s))
    return found


def _first_overlap(runs: Sequence[Run]) -> tuple[Run, Run] | None:
    """By start; only runs that may still go on are compared."""
    going_on: list[Run] = []
    for run in runs:
        going_on = [one for one in going_on if _end_s(one) > run.started_s]
        for other in going_on:
            if other.cluster != run.cluster:
                return other, run
        going_on.append(run)
    return None


# --- S4 --------------------------------------------------------------------------------------------------------------


def no_overcommit(evidence: Evidence, jobs: Mapping[str, Job]) -> list[Broken]:
    """By the kubelets no GPU is held twice; by the API servers no node is promised more GPUs than it has; and no pod is
    on a product that its group does not accept."""
    return [
        *_devices_twice(evidence, jobs),
        *(broken for cluster in sorted(evidence.acts) for broken in _promised_beyond(evidence, cluster, jobs)),
        *_wrong_product(evidence, jobs),
    ]


def _devices_twice(evidence: Evidence, jobs: Mapping[str, Job]) -> list[Broken]:
    found: list[Broken] = []
    held: dict[tuple[str, str, int], Run] = {}
    for run in evidence.runs:
        for index in run.gpus:
            device = (run.cluster, run.node, index)
            other = held.get(device)
            if other is not None and _end_s(other) > run.started_s:
                what = f"GPU {index} of {run.node} was given to {run.pod} while {other.pod} still held it"
                found.append(Broken(Promise.NO_OVERCOMMIT, run.group, _name(jobs, run.group), what, run.started_s))
            if other is None or _end_s(run) >= _end_s(other):
                held[device] = run
        node = evidence.nodes[run.cluster][run.node]
        if any(index >= node.gpus for index in run.gpus):
            what = f"{run.pod} ran on GPUs {run.gpus} of {run.node}, which has {node.gpus}"
            found.append(Broken(Promise.NO_OVERCOMMIT, run.group, _name(jobs, run.group), what, run.started_s))
    return found


def _promised_beyond(evidence: Evidence, cluster: str, jobs: Mapping[str, Job]) -> list[Broken]:
    found: list[Broken] = []
    used: dict[str, int] = {}
    ends: list[tuple[float, str, int]] = []
    for stay in _stays(evidence, cluster):
        while ends and ends[0][0] <= stay.bound_s:
            _, node, gpus = heapq.heappop(ends)
            used[node] -= gpus
        gpus = gpus_of_pod(jobs, stay.act)
        used[stay.act.node] = used.get(stay.act.node, 0) + gpus
        heapq.heappush(ends, (stay.ended_s, stay.act.node, gpus))
        has = evidence.nodes[cluster][stay.act.node].gpus
        if used[stay.act.node] > has:
            what = f"binding {stay.act.name} promised {used[stay.act.node]} GPUs of {stay.act.node}, which has {has}"
            found.append(Broken(Promise.NO_OVERCOMMIT, stay.act.group, _name(jobs, stay.act.group), what, stay.bound_s))
    return found


def _wrong_product(evidence: Evidence, jobs: Mapping[str, Job]) -> list[Broken]:
    found: list[Broken] = []
    for run in evidence.runs:
        node: Node = evidence.nodes[run.cluster][run.node]
        job = jobs.get(run.group)
        if job is not None and run.gpus and node.product not in job.products:
            what = f"{run.pod} ran on {node.product}, accepted are {', '.join(job.products)}"
            found.append(Broken(Promise.NO_OVERCOMMIT, run.group, job.name, what, run.started_s))
    return found


# --- S6 --------------------------------------------------------------------------------------------------------------


def all_or_nothing(evidence: Evidence, jobs: Mapping[str, Job], undo_s: float) -> list[Broken]:
    """Per placement how many of its pods were bound, by the API servers: 0 or all, but for up to `undo_s` at a time."""
    found: list[Broken] = []
    for cluster in sorted(evidence.acts):
        gangs: dict[tuple[str, str], list[_Stay]] = {}
        for stay in _stays(evidence, cluster):
            gangs.setdefault((stay.act.group, stay.act.token), []).append(stay)
        for (uid, _), stays in sorted(gangs.items()):
            job = jobs.get(uid)
            part = _longest_part(stays, job.pods) if job is not None else None
            if part is not None and part.lasted_s > undo_s:
                what = (
                    f"{part.bound} of {job.pods if job else 0} pods were bound in {cluster} "
                    f"for {part.lasted_s:.1f} s, allowed are {undo_s:.0f} s"
                )
                found.append(Broken(Promise.ALL_OR_NOTHING, uid, _name(jobs, uid), what, part.at_s))
    return found


@dataclass(frozen=True, slots=True)
class _Part:
    bound: int
    at_s: float
    lasted_s: float


def _longest_part(stays: Sequence[_Stay], whole: int) -> _Part | None:
    """The longest time at a stretch with some but not all bound."""
    steps = sorted([(stay.bound_s, 1) for stay in stays] + [(stay.ended_s, -1) for stay in stays])
    longest: _Part | None = None
    bound, since_s = 0, 0.0
    for at_s, step in steps:
        before, bound = bound, bound + step
        if not 0 < before < whole and 0 < bound < whole:
            since_s = at_s
        elif 0 < before < whole and not 0 < bound < whole:
            part = _Part(before, since_s, at_s - since_s)
            longest = part if longest is None or part.lasted_s > longest.lasted_s else longest
    return longest


# --- S7 --------------------------------------------------------------------------------------------------------------


def nothing_lost(acknowledged: Sequence[Acknowledged], runs: Sequence[Run], phases: Mapping[str, str]) -> list[Broken]:
    """Every acknowledged group ran whole to its end under its last token, was read back, and nothing else ran."""
    own = by_group(runs)
    known = {one.uid for one in acknowledged}
    found = [
        Broken(Promise.NOTHING_LOST, uid, "", f"{len(own[uid])} containers ran that nobody was answered for")
        for uid in sorted(set(own) - known)
    ]
    for one in acknowledged:
        what = _not_whole(one.job, own.get(one.uid, ())) or _not_read(phases.get(one.uid))
        if what:
            found.append(Broken(Promise.NOTHING_LOST, one.uid, one.job.name, what))
    return found


def _not_whole(job: Job, runs: Sequence[Run]) -> str:
    if not runs:
        return "it never ran"
    live = [run for run in runs if run.ended_s is None]
    if live:
        return f"{live[0].pod} still runs in {live[0].cluster}"
    newest = max(token_position(run.token) for run in runs)
    last = [run for run in runs if token_position(run.token) == newest]
    done = [run for run in last if run.why == SUCCEEDED]
    if len(last) != job.pods or len(done) != job.pods:
        return f"of {job.pods} pods {len(last)} ran under its last token, {len(done)} to their end"
    if max(run.started_s for run in last) >= min(_end_s(run) for run in last):
        return "its pods did not run together"
    return ""


def _not_read(phase: str | None) -> str:
    if phase is None:
        return "the server does not know it any more"
    return "" if phase == SUCCEEDED else f"it ran to its end, and the server says {phase}"


# --- the return ------------------------------------------------------------------------------------------------------


def no_orphans(runs: Sequence[Run], jobs: Mapping[str, Job], returned: Returned | None) -> list[Broken]:
    """Containers started before the cut that still ran when the cluster was used again."""
    if returned is None:
        return [Broken(Promise.NO_ORPHANS, "", "", "the cut cluster was never in use again")]
    return [
        Broken(Promise.NO_ORPHANS, run.group, _name(jobs, run.group), f"{run.pod} still ran in {run.cluster}")
        for run in runs
        if run.cluster == returned.cluster and run.started_s < returned.admitted_s and _end_s(run) > returned.admitted_s
    ]


# --- shared ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Stay:
    """A pod of ours on a node: from its binding until its containers had ended, or none of it can start any more."""

    act: PodAct
    bound_s: float
    ended_s: float


def _stays(evidence: Evidence, cluster: str) -> list[_Stay]:
    """Of one cluster, by binding."""
    ended = {run.uid: _end_s(run) for run in evidence.runs if run.cluster == cluster}
    away: dict[str, float] = {}
    for act in evidence.acts[cluster]:
        if act.act == "removed" or (act.act == "marked" and act.uid not in ended):  # kubelets start nothing marked
            away.setdefault(act.uid, act.at_s)
    return [
        _Stay(act, act.at_s, min(ended.get(act.uid, NEVER_S), away.get(act.uid, NEVER_S)))
        for act in evidence.acts[cluster]
        if act.act == "bound" and act.group
    ]


def by_group(runs: Iterable[Run]) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        if run.group:
            found.setdefault(run.group, []).append(run)
    return found


def token_position(token: str) -> int:
    return int(token.rpartition(".")[2])


def gpus_of_pod(jobs: Mapping[str, Job], act: PodAct) -> int:
    """What the pod asked for: its name ends in `<rank>-<token position>-<lineage>`."""
    job = jobs.get(act.group)
    rank = act.name.rsplit("-", 3)[1]
    return job.gpus_of_pods[int(rank)] if job is not None and rank.isdigit() and int(rank) < job.pods else 0


def _end_s(run: Run) -> float:
    return NEVER_S if run.ended_s is None else run.ended_s


def _name(jobs: Mapping[str, Job], uid: str) -> str:
    job = jobs.get(uid)
    return job.name if job is not None else ""
