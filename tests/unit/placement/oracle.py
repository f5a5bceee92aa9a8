"""The engine without its memory: every group asks `assign` in every cluster. What the fast one must agree with.

Of spread groups it knows only the children that wait by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from placement.assign import assign
from placement.assignment import Assignment
from placement.beside import Kin
from placement.elastic import largest, sizes_of
from placement.engine import CANDIDATES_KEPT, Pending, Place, Wait, order_key
from placement.filters import cluster_refusal
from placement.fleet import CPU_MILLI, GPUS, Fleet, NodeTable, shape_of
from placement.gain import table_cost
from placement.memory import Choice
from placement.model import Because, ClusterName, GangRequest, GroupUid, Reason
from placement.node_order import NodeWorth
from placement.quota import Quotas, charge, quota_refusal
from placement.reasons import least_grave
from placement.repacking import MOVED_MAX, WORK_MAX
from placement.request_class import request_class
from placement.score import Policy, candidate, rank
from placement.sites import Sites

_Answers = Mapping[ClusterName, Assignment | Because | tuple[Because, ...]]


def decide_slowly(
    fleet: Fleet,
    pending: Sequence[Pending],
    *,
    policy: Policy,
    quotas: Quotas,
    worth: NodeWorth | None = None,
    packed_anew: bool = True,
) -> tuple[tuple[Place, ...], tuple[Wait, ...]]:
    """What `decide` says with a budget that never ends. Who is like one that found no place is told the same."""
    cycle = _Cycle(fleet, policy, quotas, worth)
    waiting: list[Wait] = []
    said: dict[tuple[object, ...], Wait] = {}  # what others like it were told
    for item in sorted(pending, key=order_key):
        kind = item.request, item.queue, item.avoid, item.siblings, item.apart, item.beside != ""
        if kind not in said:
            found = cycle.decide(item)
            if isinstance(found, Place) or (packed_anew and cycle.pack_anew(item, found)):
                continue
            said[kind] = found
        waiting.append(replace(said[kind], uid=item.uid))
    return tuple(cycle.placed.values()), tuple(waiting)


class _Cycle:
    """`placed`: the decisions so far, in their order. All else follows from them."""

    def __init__(self, fleet: Fleet, policy: Policy, quotas: Quotas, worth: NodeWorth | None) -> None:
        self._fleet, self._policy, self._quotas, self._worth = fleet, policy, quotas, worth
        self._sites = Sites([view.labels for view in fleet.values()])
        self._at = {name: number for number, name in enumerate(fleet)}
        self._left = WORK_MAX
        self._in_vain: set[tuple[GangRequest, frozenset[ClusterName], tuple[GroupUid, ...]]] = set()
        self._items: dict[GroupUid, Pending] = {}
        self._begin_with({})

    def _begin_with(self, placed: dict[GroupUid, Place]) -> None:
        """As if only these had been decided."""
        self.placed: dict[GroupUid, Place] = {}
        self._views = dict(self._fleet)
        self._tables = {name: view.table.copy() for name, view in self._fleet.items()}
        self._lines = {queue: dict(limits) for queue, limits in self._quotas.items()}
        for uid, place in placed.items():
            self._take(self._items[uid], place)

    def _take(self, item: Pending, place: Place) -> None:
        self._items[item.uid], self.placed[item.uid] = item, place
        view = self._views[place.cluster]
        self._tables[place.cluster].take(place.assignment)
        self._views[place.cluster] = replace(view, groups_left=view.groups_left - 1)
        if item.queue in self._lines:
            self._lines[item.queue] = charge(item.request, self._lines[item.queue])

    def decide(self, item: Pending) -> Place | Wait:
        over = quota_refusal(item.request, item.queue, self._lines.get(item.queue, {}))
        if over:
            return Wait(item.uid, over[0], ((Reason.QUOTA_EXHAUSTED, len(self._fleet)),))
        item = replace(item, apart=item.apart | self._clusters_of_siblings(item))
        answers, fits = self._largest_that_fits(item)
        refusals = [_first(one) for one in answers.values() if not isinstance(one, Assignment)]
        if not fits:
            return Wait(item.uid, least_grave(refusals), _counted(refusals))
        wanted = {name: one for name, one in fits.items() if name not in item.shunned}
        wanted = wanted or {name: one for name, one in fits.items() if name != item.shunned[0]} or fits
        kin = self._kin_of(item)
        best = rank(
            candidate(
                name,
                self._tables[name],
                one,
                self._policy,
                cost=table_cost(self._tables[name], one.request, self._worth),
                sites=(
                    *self._sites.terms(item.request.data, np.array([self._at[name]])),
                    *kin.terms(item.beside, np.array([self._at[name]])),
                ),
            )
            for name, one in wanted.items()
        )[:CANDIDATES_KEPT]
        cluster = best[0].cluster
        choice = Choice(fits[cluster], *self._tables[cluster].amounts_of(fits[cluster]))
        place = Place(item.uid, cluster, fits[cluster], best, _counted(refusals), choice)
        self._take(item, place)
        return place

    def _largest_that_fits(self, item: Pending) -> tuple[_Answers, dict[ClusterName, Assignment]]:
        """What clusters say of the whole gang, the largest size that fits, or the smallest; and those that fit."""
        sizes = sizes_of(item.request)
        answers = self._answers(item, item.request)
        if sizes.steps and not _fitting(answers):
            smaller = largest(sizes, lambda size: found if _fitting(found := self._answers(item, size)) else None)
            answers = smaller or self._answers(item, sizes.smallest)
        return answers, _fitting(answers)

    def _answers(self, item: Pending, request: GangRequest) -> _Answers:
        return {
            name: closed
            if (closed := cluster_refusal(view, item))
            else assign(self._tables[name], request, self._worth)
            for name, view in self._views.items()
        }

    def _clusters_of_siblings(self, item: Pending) -> frozenset[ClusterName]:
        placed = ((self._items[uid], place) for uid, place in self.placed.items())
        return frozenset(place.cluster for one, place in placed if item.siblings and one.siblings == item.siblings)

    def _kin_of(self, item: Pending) -> Kin:
        """Where those stand that it should rather stay away from."""
        kin = Kin(self._fleet, list(self._fleet), {})
        for uid, place in self.placed.items():
            if self._items[uid].beside == item.beside:
                kin.took(item.beside, place.cluster)
        return kin

    def pack_anew(self, item: Pending, wait: Wait) -> bool:
        """Whether it has a place when some of the others are decided after or before it, largest first."""
        if not _may_move(item):
            return False
        if wait.because is not None and wait.because.reason is Reason.QUOTA_EXHAUSTED:
            return False
        asked = item.request, item.avoid, tuple(self.placed)
        if not self._left or asked in self._in_vain:
            return False
        self._in_vain.add(asked)
        self._left -= 1
        before = dict(self.placed)
        back = self._to_take_back(item)
        if not back or len(back) >= self._left or not self._enough_in_all(back, item):
            return False
        self._left -= len(back) + 1
        self._begin_with({uid: place for uid, place in before.items() if uid not in back})
        fits = _fitting(self._answers(item, sizes_of(item.request).smallest))
        if fits and self._all_decided([*(self._items[uid] for uid in back), item], before):
            return True
        self._begin_with(before)
        return False

    def _to_take_back(self, item: Pending) -> list[GroupUid]:
        known = request_class(sizes_of(item.request).smallest)
        resource = GPUS if item.request.gpus else CPU_MILLI
        found: list[GroupUid] = []
        here = {name: self._after_who_stays(name) for name in self._fleet}
        for name in sorted(here, key=lambda name: (len(here[name]), name)):
            last = here[name][-MOVED_MAX:]
            if not last or cluster_refusal(self._views[name], item) is not None:
                continue
            if len(found) + len(last) > MOVED_MAX:
                break
            table = self._tables[name]
            may_use = table.accepting(*shape_of(item.request.roles[0]).nodes) if known.quick else True
            free = int((table.free[resource] * may_use).sum()) + sum(_taken(table, one, resource) for one in last)
            if free >= known.asked:
                found += [one.uid for one in last]
        return found

    def _enough_in_all(self, back: list[GroupUid], item: Pending) -> bool:
        """Whether enough GPUs are free on all nodes that any of them may use, in clusters that are open to any."""
        wanted = [*(self._items[uid] for uid in back), item]
        filters = {shape_of(role).nodes for one in wanted for role in one.request.roles if role.gpus}
        there = {self.placed[uid].cluster for uid in back}
        free = 0
        for name, view in self._views.items():
            if name in there or any(cluster_refusal(view, one, lasting_only=True) is None for one in wanted):
                table = self._tables[name]
                free += sum(int((table.free[GPUS] * table.accepting(*nodes)).sum()) for nodes in filters)
        return free >= sizes_of(item.request).smallest.gpus

    def _after_who_stays(self, cluster: ClusterName) -> list[Place]:
        """What was placed there after the last one that may not move."""
        here = [one for one in self.placed.values() if one.cluster == cluster]
        staying = [number for number, one in enumerate(here) if not _may_move(self._items[one.uid])]
        return here[staying[-1] + 1 :] if staying else here

    def _all_decided(self, items: list[Pending], before: dict[GroupUid, Place]) -> bool:
        for item in sorted(items, key=_hardest_first):
            place = self.decide(item)
            if isinstance(place, Wait) or (item.uid in before and _worse(item, place, before[item.uid])):
                return False
        return True


def _may_move(item: Pending) -> bool:
    return not item.beside and item.siblings is None


def _fitting(answers: _Answers) -> dict[ClusterName, Assignment]:
    return {name: one for name, one in answers.items() if isinstance(one, Assignment)}


def _hardest_first(item: Pending) -> tuple[object, ...]:
    request = item.request
    return -request.gpus, request.level_required == "", -max(role.gpus for role in request.roles), order_key(item)


def _worse(item: Pending, place: Place, before: Place) -> bool:
    if place.assignment.request.pods < before.assignment.request.pods:
        return True
    if place.cluster != before.cluster and place.cluster in item.shunned:
        return True
    now, then = dict(place.candidates[0].terms), dict(before.candidates[0].terms)
    against = ("price", "carbon", "data_missing")
    return now["preferred_met"] < then["preferred_met"] or any(now.get(one, 0) > then.get(one, 0) for one in against)


def _taken(table: NodeTable, place: Place, resource: int) -> int:
    _, amounts = table.amounts_of(place.assignment)
    return int(amounts[resource].sum())


def _first(answer: Because | tuple[Because, ...]) -> Because:
    return answer if isinstance(answer, Because) else answer[0]


def _counted(refusals: Iterable[Because]) -> tuple[tuple[Reason, int], ...]:
    reasons = [because.reason for because in refusals]
    found = sorted(set(reasons), key=lambda reason: reason.severity)
    return tuple((reason, reasons.count(reason)) for reason in found)
