"""The engine: which waiting group goes to which cluster, in one cycle over one snapshot.

order -> quota -> filter -> exact fit -> score -> take on trial. Reads top to bottom. The caller writes the decisions
down and takes the assignments from its own tables; nothing here changes the fleet it was given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from placement.assign import assign
from placement.assignment import Assignment
from placement.filters import Pending, cluster_refusal
from placement.fleet import ClusterView, Fleet, NodeTable
from placement.model import Because, ClusterName, GangRequest, GroupUid, QueueName, Reason
from placement.quota import UNLIMITED, QuotaLines, Quotas, charge, quota_refusal
from placement.score import Candidate, Policy, candidate, rank

__all__ = ["Candidate", "Decision", "Pending", "Place", "Plan", "Policy", "Wait", "decide", "order_key"]

CANDIDATES_KEPT = 3  # of each decision, for its record (DESIGN §7: records stay under 1 KiB)


@dataclass(frozen=True, slots=True)
class Place:
    """`uid` gets `cluster` for a home, where `assignment` fits in the placer's view."""

    uid: GroupUid
    cluster: ClusterName
    assignment: Assignment
    candidates: tuple[Candidate, ...]  # best first; the first is `cluster`
    refused: tuple[tuple[Reason, int], ...]  # clusters out of the question, counted by reason


@dataclass(frozen=True, slots=True)
class Wait:
    """`uid` was tried and fits nowhere now; `because` is the least grave reason, the one a wait may cure."""

    uid: GroupUid
    because: Because
    refused: tuple[tuple[Reason, int], ...]


Decision = Place


@dataclass(frozen=True, slots=True)
class Plan:
    """`evaluations` counts the clusters in which a fit was looked for; `exhausted`: the budget ended the cycle."""

    decisions: tuple[Decision, ...]
    waiting: tuple[Wait, ...]
    evaluations: int
    exhausted: bool
    policy_version: int


def order_key(item: Pending) -> tuple[int, int, str]:
    """Higher priority first, then older, then by uid: who is served before whom."""
    return -item.priority, item.submitted_at, item.uid


def decide(
    fleet: Fleet, pending: Sequence[Pending], *, policy: Policy, budget: int, quotas: Quotas = UNLIMITED
) -> Plan:
    """Give waiting groups a cluster until `budget` candidate evaluations are spent.

    Pure: equal arguments give an equal plan, whatever the order of `pending`; `fleet` and `quotas` are left as they
    were. Every decision fits together with all those before it. O(groups x clusters x nodes).
    """
    assert len({item.uid for item in pending}) == len(pending), "a group waits once"
    trial = _Trial(fleet, quotas)
    decisions: list[Decision] = []
    waiting: list[Wait] = []
    exhausted = False
    for item in sorted(pending, key=order_key):
        if trial.evaluations >= budget:
            exhausted = True
            break
        outcome = _decide_one(trial, item, policy)
        if isinstance(outcome, Place):
            trial.take(item, outcome)
            decisions.append(outcome)
        else:
            waiting.append(outcome)
    return Plan(tuple(decisions), tuple(waiting), trial.evaluations, exhausted, policy.version)


def _decide_one(trial: _Trial, item: Pending, policy: Policy) -> Place | Wait:
    """The best cluster for one group on what the trial has left, or why there is none."""
    request = item.request
    if over_quota := quota_refusal(request, item.queue, trial.quota_lines(item.queue)):
        return Wait(item.uid, over_quota[0], ((Reason.QUOTA_EXHAUSTED, len(trial.fleet)),))
    kind = (request, item.avoid)
    if kind in trial.failed:  # what is free only shrinks within a cycle: an equal request fails again
        return Wait(item.uid, *trial.failed[kind])

    fits: dict[ClusterName, _Fit] = {}
    refusals: list[Because] = []
    number = trial.number_of(request)
    for view in trial.fleet.values():
        closed = cluster_refusal(view, item)
        if closed is not None:
            refusals.append(closed)
            continue
        answer = trial.answer(view, request, number, policy)
        if isinstance(answer, _Fit):
            fits[view.name] = answer
        else:
            refusals.append(answer)

    if not fits:
        trial.failed[kind] = least_grave(refusals), _counted(refusals)
        return Wait(item.uid, *trial.failed[kind])
    best = rank(fit.candidate for fit in fits.values())[:CANDIDATES_KEPT]
    cluster = best[0].cluster
    return Place(item.uid, cluster, fits[cluster].assignment, best, _counted(refusals))


@dataclass(frozen=True, slots=True)
class _Fit:
    assignment: Assignment
    candidate: Candidate


class _Trial:
    """What would be left after the decisions so far. Tables are copied on their first change.

    Answers are kept by cluster and request until something is taken there: equivalent to asking anew each time.
    """

    __slots__ = ("_answers", "_numbers", "_quotas", "_tables", "evaluations", "failed", "fleet")

    def __init__(self, fleet: Fleet, quotas: Quotas) -> None:
        self.fleet = fleet
        self.evaluations = 0
        self.failed: dict[
            tuple[GangRequest, frozenset[ClusterName]], tuple[Because, tuple[tuple[Reason, int], ...]]
        ] = {}
        self._numbers: dict[GangRequest, int] = {}
        self._answers: dict[ClusterName, dict[int, _Fit | Because]] = {name: {} for name in fleet}
        self._quotas: dict[QueueName, QuotaLines] = dict(quotas)
        self._tables: dict[ClusterName, NodeTable] = {}

    def quota_lines(self, queue: QueueName) -> QuotaLines:
        return self._quotas.get(queue, {})

    def number_of(self, request: GangRequest) -> int:
        """One number for equal requests: they are hashed once per group, not once per cluster."""
        return self._numbers.setdefault(request, len(self._numbers))

    def answer(self, view: ClusterView, request: GangRequest, number: int, policy: Policy) -> _Fit | Because:
        """Whether `request` fits into what is left of the cluster, and how well; known answers cost no evaluation."""
        known = self._answers[view.name].get(number)
        if known is None:
            known = self._answers[view.name][number] = self._evaluate(view, request, policy)
        return known

    def _evaluate(self, view: ClusterView, request: GangRequest, policy: Policy) -> _Fit | Because:
        if view.misfits is not None and request in view.misfits:
            return view.misfits[request]  # no more is free than when it was found not to fit
        self.evaluations += 1
        table = self._tables.get(view.name, view.table)
        answer = assign(table, request)
        if isinstance(answer, Assignment):
            return _Fit(answer, candidate(view.name, table, answer, policy))
        if view.misfits is not None:
            view.misfits[request] = answer[0]
        return answer[0]

    def take(self, item: Pending, place: Place) -> None:
        if place.cluster not in self._tables:
            self._tables[place.cluster] = self.fleet[place.cluster].table.copy()
        self._tables[place.cluster].take(place.assignment)
        self._answers[place.cluster].clear()
        if item.queue in self._quotas:
            self._quotas[item.queue] = charge(item.request, self._quotas[item.queue])


def least_grave(refusals: Iterable[Because]) -> Because:
    """The reason closest to a start: what people are shown first. Without any cluster, that there is none."""
    nearest = min(refusals, key=_nearness, default=None)
    return nearest or Because(Reason.CLUSTER_NOT_ADMITTED, detail="no cluster has joined")


def _nearness(because: Because) -> tuple[int, int, str]:
    return because.reason.severity, because.needs - because.best, str(because)


def _counted(refusals: Iterable[Because]) -> tuple[tuple[Reason, int], ...]:
    """Clusters per reason, least grave reason first."""
    counts: dict[Reason, int] = {}
    for because in refusals:
        counts[because.reason] = counts.get(because.reason, 0) + 1
    return tuple(sorted(counts.items(), key=lambda item: item[0].severity))
