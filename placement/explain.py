"""Why a group waits: per cluster what stands in the way, the quota, the place in the order, and the smallest change.

Computed on demand from what the engine itself would look at; nothing is decided here, and nothing is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

import numpy as np

from placement.assign import assign, assign_if_it_fits
from placement.assignment import Assignment
from placement.beside import NO_KIN, Beside, Kin
from placement.change import smallest_change
from placement.elastic_assign import assign_smaller
from placement.engine import CANDIDATES_KEPT, Pending, asked_of, least_grave
from placement.filters import cluster_refusal, preferred
from placement.fleet import ClusterView, Fleet
from placement.gain import table_cost
from placement.mix import PodKind
from placement.model import Because, ClusterName, GroupUid, QueueName, Reason
from placement.node_order import NodeWorth
from placement.quota import Quotas, gpus_charged, quota_refusal
from placement.score import Candidate, Policy, candidate, rank
from placement.sites import Sites
from placement.spread import Room, Shares, divide, most_held, sized

MIX_SHOWN: Final = 5  # kinds of pods: the commonest explain most of what a node is worth


@dataclass(frozen=True, slots=True)
class ClusterAnswer:
    """What one cluster says: reasons, gravest first, or none when the group would fit there now."""

    cluster: ClusterName
    because: tuple[Because, ...]


@dataclass(frozen=True, slots=True)
class QuotaAnswer:
    """One line of the queue's quota, and what the group would add to `used`."""

    product: str
    limit: int
    used: int
    needs: int


class Ahead(NamedTuple):
    """How many groups are served before one, and how many of them are of its own queue."""

    groups_count: int
    in_queue_count: int


NOBODY: Final = Ahead(0, 0)


@dataclass(frozen=True, slots=True)
class Explanation:
    """`ahead_count` groups are served before this one, `ahead_in_queue_count` of them of its own queue.

    `because` is the reason closest to a start; None when nothing stands in the way of `would_fit`, the best cluster
    that holds the group now: the first of `candidates`. `change` says the smallest change that would let it start,
    without a full stop. `mix`: what is usually asked for, the commonest kinds first, in thousandths of all pods.
    `shares`: how a spread group would be divided now; what its clusters say is about the least of one child.
    """

    uid: GroupUid
    queue: QueueName
    ahead_count: int
    ahead_in_queue_count: int
    clusters: tuple[ClusterAnswer, ...]
    quota: tuple[QuotaAnswer, ...]
    would_fit: ClusterName | None
    because: Because | None
    change: str
    candidates: tuple[Candidate, ...] = ()
    mix: tuple[tuple[PodKind, int], ...] = ()
    shares: Shares = ()

    @property
    def summary(self) -> str:
        """One line for people."""
        if self.because is None and self.shares:
            where = ", ".join(f"{one.replicas} in {one.cluster}" for one in self.shares)
            return f"starts with the next decision: {where}"
        if self.because is None:
            return f"starts with the next decision in {self.would_fit}"
        return str(self.because)


class _Lacks(NamedTuple):
    """What is missing beside room in single clusters: lines of the quota, and what a spread group cannot do without."""

    quota: tuple[Because, ...]
    spread: Because | None


def why(
    fleet: Fleet,
    item: Pending,
    ahead: Ahead,
    quotas: Quotas,
    policy: Policy,
    *,
    worth: NodeWorth | None = None,
    beside: Beside = NO_KIN,
) -> Explanation:
    """Why `item` has no home yet, on what `fleet` has free now, with `ahead` served before it.

    One fit per cluster, as if `item` came first.
    """
    clusters, fits = _ask_clusters(fleet, item, policy, worth, beside)
    rather = preferred(item.shunned, [one.cluster for one in fits])
    candidates = rank([one for one in fits if one.cluster in rather])
    divided = _divided(fleet, item, candidates)
    missing = divided if isinstance(divided, Because) else None
    lacks = _Lacks(quota_refusal(asked_of(item), item.queue, quotas.get(item.queue, {})), missing)
    best = candidates[0].cluster if candidates and missing is None else None
    return Explanation(
        uid=item.uid,
        queue=item.queue,
        ahead_count=ahead.groups_count,
        ahead_in_queue_count=ahead.in_queue_count,
        clusters=clusters,
        quota=_quota_answers(item, quotas),
        would_fit=best,
        because=_nearest(clusters, lacks, best, ahead.groups_count),
        change=_change(fleet, item, lacks, best, ahead.groups_count),
        candidates=candidates[:CANDIDATES_KEPT],
        mix=worth.commonest(MIX_SHOWN) if worth is not None else (),
        shares=() if isinstance(divided, Because) else divided,
    )


def _divided(fleet: Fleet, item: Pending, candidates: Sequence[Candidate]) -> Shares | Because:
    """How a spread group would be divided over the clusters that hold the least of a child; () for any other group."""
    ask = item.spread
    if ask is None:
        return ()

    def holds(cluster: ClusterName, pods: int) -> bool:
        return assign_if_it_fits(fleet[cluster].table, sized(item.request, pods)) is not None

    names = [one.cluster for one in candidates]
    return divide(ask, [Room(name, most_held(ask.least, ask.room_max, partial(holds, name))) for name in names])


def _ask_clusters(
    fleet: Fleet, item: Pending, policy: Policy, worth: NodeWorth | None, beside: Beside
) -> tuple[tuple[ClusterAnswer, ...], list[Candidate]]:
    answers: list[ClusterAnswer] = []
    fits: list[Candidate] = []
    sites, kin = Sites([view.labels for view in fleet.values()]), Kin(fleet, list(fleet), beside)
    found = {view.name: _ask(view, item) for view in fleet.values()}
    if item.request.elastic and not any(isinstance(answer, Assignment) for answer in found.values()):
        found = {view.name: _ask_smaller(view, item) for view in fleet.values()}
    most = max((answer.request.pods for answer in found.values() if isinstance(answer, Assignment)), default=0)
    for number, view in enumerate(fleet.values()):
        answer = found[view.name]
        if isinstance(answer, Assignment):
            if answer.request.pods == most:  # more pods come before any score
                cost = table_cost(view.table, answer.request, worth)
                at = np.array([number])
                here = (*sites.terms(item.request.data, at), *kin.terms(item.beside, at))
                fits.append(candidate(view.name, view.table, answer, policy, cost=cost, sites=here))
            answers.append(ClusterAnswer(view.name, ()))
        else:
            answers.append(ClusterAnswer(view.name, answer))
    return tuple(answers), fits


def _ask(view: ClusterView, item: Pending) -> Assignment | tuple[Because, ...]:
    closed = cluster_refusal(view, item)
    return (closed,) if closed is not None else assign(view.table, item.request)


def _ask_smaller(view: ClusterView, item: Pending) -> Assignment | tuple[Because, ...]:
    """The largest size of an elastic gang that fits there, or why not even the smallest does."""
    closed = cluster_refusal(view, item)
    return (closed,) if closed is not None else assign_smaller(view.table, item.request)


def _quota_answers(item: Pending, quotas: Quotas) -> tuple[QuotaAnswer, ...]:
    lines = sorted(quotas.get(item.queue, {}).items())
    return tuple(
        QuotaAnswer(product, line.limit, line.used, gpus_charged(asked_of(item), product)) for product, line in lines
    )


def _nearest(
    clusters: tuple[ClusterAnswer, ...], lacks: _Lacks, best: ClusterName | None, ahead_count: int
) -> Because | None:
    if lacks.quota or lacks.spread is not None:
        return next(iter(lacks.quota), lacks.spread)
    if best is None:
        return least_grave(answer.because[0] for answer in clusters)
    if ahead_count:
        return Because(Reason.QUEUED_BEHIND, detail=f"{ahead_count} groups are decided first")
    return None


def _change(fleet: Fleet, item: Pending, lacks: _Lacks, best: ClusterName | None, ahead_count: int) -> str:
    """All that has to change, joined: the quota as well as room, where both are missing."""
    quota = [f"raise the quota of queue {item.queue} by {one.needs - one.best} {one.unit}" for one in lacks.quota]
    changes = quota
    if lacks.spread is not None and lacks.spread.reason is Reason.SPREAD_TOO_SMALL:
        changes = [*quota, f"make room for {lacks.spread.needs - lacks.spread.best} replicas more"]
    elif best is None:
        changes = [*quota, smallest_change(fleet, item)]
    if changes:
        return " and ".join(changes)
    if ahead_count:
        return f"none: it starts in {best} once the groups before it are decided, if they leave it room"
    return f"none: it starts in {best} with the next decision"
