"""The leader's placing: which waiting groups get which cluster now, as `Placed` records for the next batch.

Reads top to bottom: when a cycle is due, the cycle, the fleet it looks at (with what will be free, by `outlooks`), the
groups that wait, the records. The engine chooses, the journal makes it true, agents have the last word.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from federation.core.batch import Batch
from federation.core.brake import MOVES_PER_S, Brake, Bucket
from federation.core.breaker import Breaker, Breakers
from federation.core.failover import Failover
from federation.core.growing import Grown, Looks, growable, growths, kinds_of
from federation.core.lineup import Lineup, pending_of
from federation.core.outlooks import Outlooks
from federation.core.placing import SeenView, bundle_of, groups_left, quotas_of, together
from federation.core.poison import RESTARTS_MAX, Losses, barred, is_loss, lost_last
from federation.core.records import AnyRecord, GaveUp, IntentSet, Placed, Resized
from federation.core.refusals import Refusals
from federation.core.rows import ClusterRow, GiveUp, GroupRow, Home, Intent
from federation.core.state import State
from federation.core.tape import Looked, Moment, Tape
from federation.core.views import Views
from placement.assignment import Assignment
from placement.elastic import grows_freely
from placement.engine import Bounds, Pending, Place, Policy, plan_cycle
from placement.fleet import ClusterView, Fleet, NodeTable
from placement.memory import Memory
from placement.model import ClusterName, GroupUid, Position
from placement.node_order import NodeWorth

REPORTS_SETTLE_S: Final = 0.25  # reports of freed capacity come in flurries: decide once for all of them
NOTHING: Final = NodeTable.build(())

Decided = Placed | IntentSet | Resized


class Placer:
    """Soft state of placing; a new leader starts with an empty one."""

    def __init__(
        self, *, policy: Policy, budget: int, views: Views, failover: Failover, breakers: Breakers, tape: Tape
    ) -> None:
        self._policy = policy
        self._budget = budget
        self._views = views
        self._failover = failover
        self._breakers = breakers
        # the fleet
        self._outlooks = Outlooks(views)
        self._open: set[ClusterName] = set()  # clusters that were open in the last cycle
        self._gains = 0  # grows with whatever may let a blocked group start, beside room
        # the groups
        self._lineup = Lineup()
        self.refusals = Refusals()
        self.poison: dict[GroupUid, Losses] = {}  # those that lost too many homes by themselves
        # the cycle
        self._memory = Memory()
        self._tape = tape
        self._moves = Bucket(MOVES_PER_S, MOVES_PER_S)
        self._decided_at_s = float("-inf")
        self.evaluations_count = 0  # candidate evaluations so far: what a decision costs
        self.due_s = float("inf")  # next cycle
        # growing
        self.may_resize = False  # whether the store is of a format that has it
        self._looks = Looks()
        self._tried = 0  # how far down the groups that may grow the last cycle came, where it did not look at all

    def lead(self, state: State, now_s: float) -> None:
        """Look up who was to be quarantined when the last leader was lost, and who waits between two tries: those begin
        their wait anew, since when it began is not known here."""
        for row in state.pending_groups():
            if row.attempts > RESTARTS_MAX or lost_last(row):
                self._look_up_losses(row, now_s)
                if row.last_verdict is GiveUp.REFUSED and row.last_cluster is not None and lost_last(row):
                    self.refusals.refused(row.uid, row.last_cluster, now_s)

    # --- when to decide ---

    def poke(self, now_s: float) -> None:
        """Something changed that may let a group start: decide with the next batch."""
        self.due_s = min(self.due_s, now_s)

    def reconsider(self, now_s: float) -> None:
        """Something other than capacity changed: blocked groups are looked at again."""
        self._gains += 1
        self.poke(now_s)

    def poke_soon(self, now_s: float) -> None:
        """Capacity changed: decide shortly, unless something more urgent comes first."""
        self.due_s = min(self.due_s, max(now_s, self._decided_at_s + REPORTS_SETTLE_S))

    def breakers_change(self, now_s: float) -> None:
        """Decide when time alone changes how a breaker stands."""
        self.due_s = min(self.due_s, self._breakers.due_s(now_s))

    def not_taken(self, placed: Placed | Resized, now_s: float) -> None:
        """A decision did not make it into the batch: the group still waits, and its room is free."""
        self._outlooks.forget(ClusterName(placed.cluster))
        if isinstance(placed, Resized):
            self.poke(now_s)
            return
        self._lineup.touch(GroupUid(placed.uid))
        self._tape.not_taken(placed.uid)
        self.reconsider(now_s)

    # --- one cycle ---

    def place(self, state: State, batch: Batch, now_s: float, *, at_ms: int) -> list[tuple[Decided, ...]]:
        """Place what fits, best first, within the work budget, then give idle room to groups that run with fewer pods
        than they may have. Touches nothing that `batch` changes. What is bundled comes true together or not at all."""
        if now_s < self.due_s:
            return []
        self.due_s = float("inf")
        growing = self._growable(state, batch, now_s)
        if not state.pending and not growing:
            return []
        self._decided_at_s = now_s

        fleet = self._fleet(state, batch, now_s)
        self.breakers_change(now_s)
        self._count_gains(fleet)
        self._update_lineup(state, now_s)
        placed = self._place(state, fleet, batch, now_s, at_ms=at_ms) if state.pending else []
        return [*placed, *((one,) for one in self._grow(fleet, growing, at_ms=at_ms))]

    def _place(
        self, state: State, fleet: Fleet, batch: Batch, now_s: float, *, at_ms: int
    ) -> list[tuple[Decided, ...]]:
        held: list[GroupUid] = []
        bounds = self._bounds(batch, now_s, held)
        self._lineup.worth.look(view.table for view in fleet.values())
        self._memory.follow(self._lineup.worth.now)
        moment = Moment(state.head, at_ms, now_s)
        self._tape.begins(moment, self._lineup, whole=len(fleet) == len(state.clusters))
        plan = plan_cycle(
            fleet,
            self._lineup.waiting,
            self._memory,
            policy=self._policy,
            bounds=bounds,
            quotas=quotas_of(state),
            beside=state.beside,
        )
        seen = self._seen(plan.decisions, fleet)
        self._tape.ended(moment, Looked(fleet, bounds, held, self._lineup.shy, seen, state.clusters.keys()), plan)

        self.evaluations_count += plan.evaluations
        self._moves.spend(len(self._lineup.displaced.intersection(place.uid for place in plan.decisions)))
        self._outlooks.promise(plan.decisions)
        self._move_on(now_s)
        self._gains += plan.made_room
        if plan.exhausted or plan.made_room or self._lineup.waiting.gains < bounds.gains:
            self.poke(now_s)
        return [
            bundle_of(state, places, [seen[place.cluster] for place in places], bounds, plan, at_ms)
            for places in together(plan.decisions)
        ]

    # --- growing ---

    def _growable(self, state: State, batch: Batch, now_s: float) -> list[GroupRow]:
        if not self.may_resize or not state.small:
            return []

        def avoids(row: GroupRow) -> bool:
            assert row.home is not None
            if not grows_freely(row.request) and not self._has_room(row.home):
                return True
            self.due_s = min(self.due_s, self.refusals.next_decay_s(row.uid, now_s))
            return row.home.cluster in self.refusals.avoid(row.uid, now_s)

        return growable(state, batch, avoids)

    def _has_room(self, home: Home) -> bool:
        """Its agent says so, which alone knows where its pods stand."""
        view = self._views.get(home.cluster)
        return view is not None and str(home.token) in view.roomy

    def _grow(self, fleet: Fleet, rows: list[GroupRow], *, at_ms: int) -> list[Resized]:
        """Who is looked at later, and who found no place, could use the room: then it is not idle."""
        self._looks.keep(row.home.cluster for row in rows if row.home is not None)
        if not rows:
            return []
        worth = self._lineup.worth.now

        def look(row: GroupRow, view: ClusterView) -> Grown | None:
            return self._looks.growth(row, view, worth)

        def take(row: GroupRow, joining: Assignment) -> bool:
            assert row.home is not None
            return self._outlooks.promise_growth(row.uid, row.home.cluster, joining)

        waiting = kinds_of(self._lineup.waiting.kinds())
        start = self._tried % len(rows)
        found = growths([*rows[start:], *rows[:start]], fleet, waiting, look, take)
        self._tried = 0 if found.passed is None else start + found.passed
        return [replace(one, at_ms=at_ms, stamp=self._stamp_of(one.cluster)) for one in found.resizes]

    def _stamp_of(self, cluster: str) -> tuple[str, int, int]:
        view = self._views.get(cluster)
        assert view is not None
        return cluster, view.stamp.boot, view.stamp.seq

    # --- bounds ---

    def _bounds(self, batch: Batch, now_s: float, held: list[GroupUid]) -> Bounds:
        """`held` takes those that are passed over since the batch changes them or their queue."""

        def holds(item: Pending) -> bool:
            uids = item.spread.children if item.spread is not None else (item.uid,)
            changed = batch.changes("queue", item.queue) or any(batch.changes("group", uid) for uid in uids)
            if changed:
                held.append(item.uid)
            return changed

        return Bounds(
            budget=self._budget,
            gains=self._gains + self._outlooks.gains,
            places_max=batch.room,
            moves_max=self._moves.available(now_s, factor=self._failover.brake.rate_factor),
            held=holds,
        )

    # --- the fleet ---

    @property
    def worth(self) -> NodeWorth | None:
        """What nodes are worth to what is usually asked for, as the last cycle saw it."""
        return self._lineup.worth.now

    def fleet(self, state: State, now_s: float) -> Fleet:
        """The fleet as the next cycle would see it: what explanations are made from."""
        return self._fleet(state, Batch(), now_s)

    def _fleet(self, state: State, batch: Batch, now_s: float) -> Fleet:
        """All clusters but those that the batch changes, with their gates and what will be free."""
        return Fleet(
            self._view(state, row, now_s) for row in state.clusters.values() if not batch.changes("cluster", row.name)
        )

    def _count_gains(self, fleet: Fleet) -> None:
        """Clusters that opened are a gain; those that gained room were counted when their outlook was renewed."""
        open_now = {view.name for view in fleet.values() if _is_open(view)}
        self._gains += bool(open_now - self._open)
        self._open = open_now

    def _view(self, state: State, row: ClusterRow, now_s: float) -> ClusterView:
        gate = self._failover.gate(row, now_s)
        stand = self._breakers.stand(state, row.name, now_s)
        half_open = stand.breaker is Breaker.HALF_OPEN and not stand.probing
        outlook = self._outlooks.of(state, row)
        return ClusterView(
            name=row.name,
            table=outlook.table if outlook is not None else NOTHING,
            labels=row.labels,
            lease_class=row.lease_class,
            admitted=gate.admitted,
            cordoned=row.cordoned,
            silent=gate.silent,
            fenced=gate.fenced,
            stale=gate.stale or (outlook is not None and outlook.behind),
            view_age_s=gate.view_age_s,
            tripped=stand.breaker is not Breaker.CLOSED and not half_open,
            tried_in_s=stand.again_s,
            half_open=half_open,
            groups_left=groups_left(row, half_open=half_open),
        )

    # --- the groups ---

    def folded(self, state: State, position: Position, record: AnyRecord, now_s: float) -> None:
        """Note whom a record may have made wait, or wait no longer. Only while leading: else `place` looks at all."""
        if isinstance(record, Placed):
            self._outlooks.landed(GroupUid(record.uid))
            self.poison.pop(GroupUid(record.uid), None)
        elif isinstance(record, Resized):
            self._outlooks.resized(GroupUid(record.uid), ClusterName(record.cluster))
        elif isinstance(record, GaveUp):
            row = state.group(record.uid)
            if row is not None and is_loss(record):
                self._look_up_losses(row, now_s)
        elif isinstance(record, IntentSet) and record.intent == Intent.RUN:
            self.refusals.forget(GroupUid(record.uid))
            self.poison.pop(GroupUid(record.uid), None)
        self._lineup.folded(state, position, record)

    def _look_up_losses(self, row: GroupRow, now_s: float) -> None:
        found = self._lineup.lost.of(row)
        self.refusals.lost(row.uid, found, now_s)
        if found.too_many:
            self.poison[row.uid] = found

    def _update_lineup(self, state: State, now_s: float) -> None:
        for uid in self._breakers.spared_anew():
            self._lineup.touch(uid)
        self._lineup.update(state, lambda uid: self._avoid(state, uid, now_s))
        for uid in self._lineup.shy:
            self.due_s = min(self.due_s, self.refusals.next_decay_s(uid, now_s))

    def pending(self, state: State, row: GroupRow, now_s: float) -> Pending:
        """The group as the engine sees it."""
        children = state.siblings(row) if row.child is not None else ()
        lost = self._lineup.lost.of(row)
        item = pending_of(row, self._avoid(state, row.uid, now_s), lost, children)
        return dataclasses.replace(item, lost=lost.count)

    def _avoid(self, state: State, uid: GroupUid, now_s: float) -> frozenset[ClusterName]:
        found = self.refusals.avoid(uid, now_s, state.clusters.keys()) | self._breakers.spared(uid, now_s)
        row = state.group(uid)
        return found | barred(row, self._lineup.lost.of(row), state.clusters.keys()) if row is not None else found

    # --- the outcome ---

    def _seen(self, decisions: Iterable[Place], fleet: Fleet) -> dict[ClusterName, SeenView]:
        """The reports that the decisions stand on."""
        found: dict[ClusterName, SeenView] = {}
        for place in decisions:
            view = self._views.get(place.cluster)
            assert view is not None
            half_open = fleet[place.cluster].half_open
            found[place.cluster] = SeenView(view.stamp.boot, view.stamp.seq, view.fence_strength, half_open)
        return found

    def _move_on(self, now_s: float) -> None:
        """Moves go on as soon as their rate allows; after a full brake somebody pokes."""
        if self._lineup.displaced and self._moves.tokens < 1 and self._failover.brake < Brake.STOP:
            self.due_s = min(self.due_s, now_s + 1 / (MOVES_PER_S * self._failover.brake.rate_factor))

    def settled(self, uid: GroupUid) -> None:
        """The group runs or has ended: its refusals are history."""
        self.refusals.forget(uid)

    def sized(self, uid: GroupUid, cluster: ClusterName, now_s: float, *, declined: bool) -> None:
        """Its agent answered a resize; where it declined, it is not asked again for a while."""
        if declined:
            self.refusals.refused(uid, cluster, now_s)
        else:
            self.refusals.forget(uid)

    def refused(self, uid: GroupUid, cluster: ClusterName, now_s: float) -> None:
        self.refusals.refused(uid, cluster, now_s)


def _is_open(view: ClusterView) -> bool:
    return view.admitted and not (view.cordoned or view.silent or view.fenced or view.stale or view.tripped)
