"""The leader's placing: which waiting groups get which cluster now, as `Placed` records for the next batch.

Reads top to bottom: the fleet as it will be once everything placed has arrived, the groups that may be placed, the
engine's plan, its records. The engine chooses, the journal makes it true, agents have the last word.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from federation.core.batch import Batch
from federation.core.brake import MOVES_PER_S, Brake, Bucket
from federation.core.failover import Failover
from federation.core.records import Candidate, Placed
from federation.core.refusals import Refusals
from federation.core.rows import ClusterRow, GiveUp, GroupRow
from federation.core.state import State
from federation.core.views import Views
from federation.protocol.messages import Stamp
from placement.assign import assign
from placement.assignment import Assignment
from placement.engine import Pending, Place, Policy, Wait, decide
from placement.fleet import ClusterView, Fleet, NodeTable
from placement.model import (
    Because,
    ClusterName,
    DisconnectPolicy,
    FenceStrength,
    GangRequest,
    GroupUid,
    Position,
    QueueName,
)
from placement.quota import QuotaLine, QuotaLines

ACTOR: Final = "muster:placer"
REPORTS_SETTLE_S: Final = 0.25  # reports of freed capacity come in flurries: decide once for all of them
BLOCKED_KEPT_MIN: Final = 1_000  # memory of groups that wait no more is swept when it is worth it
NOTHING: Final = NodeTable.build(())


@dataclass(slots=True)
class _Outlook:
    """A cluster's nodes as reported, less what was placed there that the report does not show yet."""

    stamp: Stamp  # of the rows it was built on
    counted: tuple[Position, ...]  # tokens subtracted, in order
    table: NodeTable
    misfits: dict[GangRequest, Because]  # what does not fit there, as long as nothing is freed


@dataclass(frozen=True, slots=True)
class _Blocked:
    """A group found to fit nowhere: not looked at again before something was gained, or it avoids less."""

    gains: int
    avoid: frozenset[ClusterName]


class Placer:
    """Soft state of placing; a new leader starts with an empty one."""

    def __init__(self, *, policy: Policy, budget: int, views: Views, failover: Failover) -> None:
        self._policy = policy
        self._budget = budget
        self._views = views
        self._failover = failover
        self._outlooks: dict[ClusterName, _Outlook] = {}
        self._moves = Bucket(MOVES_PER_S, MOVES_PER_S)
        self.refusals = Refusals()
        self._tried_elsewhere: set[GroupUid] = set()  # found no other cluster than the one that refused last
        self._gains = 0  # grows with whatever may let a blocked group start
        self._open: set[ClusterName] = set()  # clusters that were open in the last cycle
        self._blocked: dict[GroupUid, _Blocked] = {}
        self._decided_at_s = float("-inf")
        self.evaluations_count = 0  # candidate evaluations so far: what a decision costs
        self.due_s = float("inf")  # next cycle

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

    def not_taken(self, now_s: float) -> None:
        """A decision did not make it into the batch: what was found not to fit beside it may fit after all."""
        self._outlooks.clear()
        self.reconsider(now_s)

    # --- one cycle ---

    def place(self, state: State, batch: Batch, now_s: float, *, at_ms: int) -> list[Placed]:
        """Place what fits, best first, within the work budget. Touches nothing that `batch` changes."""
        if now_s < self.due_s:
            return []
        self.due_s = float("inf")
        if not state.pending:
            return []
        self._decided_at_s = now_s

        fleet = self._fleet(state, batch, now_s)
        self._count_gains(fleet)
        waiting = self._waiting(state, batch, now_s)
        if not waiting:
            return []
        plan = decide(fleet, waiting, policy=self._policy, budget=self._budget, quotas=self.quotas(state))
        self.evaluations_count += plan.evaluations
        chosen = plan.decisions[: batch.room]

        moves_count = sum(state.groups[place.uid].displaced for place in chosen)
        self._moves.spend(moves_count)
        self._keep(state, waiting, plan.waiting, now_s)
        if plan.exhausted:
            self.poke(now_s)
        if len(chosen) < len(plan.decisions):
            self.not_taken(now_s)
        return [self._record(state, place, at_ms) for place in chosen]

    # --- the fleet ---

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

    def fleet(self, state: State, now_s: float) -> Fleet:
        """The fleet as the next cycle would see it: what explanations are made from."""
        return self._fleet(state, Batch(), now_s)

    def _view(self, state: State, row: ClusterRow, now_s: float) -> ClusterView:
        gate = self._failover.gate(row, now_s)
        outlook = self._outlook(state, row)
        return ClusterView(
            name=row.name,
            table=outlook.table if outlook is not None else NOTHING,
            labels=row.labels,
            lease_class=row.lease_class,
            admitted=gate.admitted,
            cordoned=row.cordoned,
            silent=gate.silent,
            fenced=gate.fenced,
            stale=gate.stale,
            view_age_s=gate.view_age_s,
            misfits=outlook.misfits if outlook is not None else {},
        )

    def _outlook(self, state: State, row: ClusterRow) -> _Outlook | None:
        """What will be free in the cluster; built on the newest report and kept until that changes."""
        view = self._views.get(row.name)
        if view is None:
            return None
        unseen = _tokens_above(row, view.applied)
        known = self._outlooks.get(row.name)
        if known is None or known.stamp != view.rows_stamp or unseen[: len(known.counted)] != known.counted:
            table = view.table().copy()  # a new report, or a group not yet in it has ended: its room is free again
            counted: tuple[Position, ...] = ()
        else:
            table, counted = known.table, known.counted
        for position in unseen[len(counted) :]:
            _subtract(table, state.groups[row.tokens[position]])
        if known is not None and not table.gained_room(known.table):
            misfits = known.misfits
        else:
            misfits = {}
            self._gains += 1
        self._outlooks[row.name] = outlook = _Outlook(view.rows_stamp, unseen, table, misfits)
        return outlook

    # --- the groups ---

    def _waiting(self, state: State, batch: Batch, now_s: float) -> list[Pending]:
        """Pending groups in order that the batch does not touch; moves after a fence no faster than their rate."""
        moves_left = self._moves.available(now_s, factor=self._failover.brake.rate_factor)
        waiting: list[Pending] = []
        for row in state.pending_groups():
            if batch.changes("group", row.uid) or batch.changes("queue", row.queue):
                continue
            item = self.pending(row, now_s)
            self.due_s = min(self.due_s, self.refusals.next_decay_s(row.uid, now_s))
            if self._blocked.get(row.uid) == _Blocked(self._gains, item.avoid):
                continue
            if row.displaced:
                if moves_left <= 0:
                    self._move_later(now_s)
                    continue
                moves_left -= 1
            waiting.append(item)
        return waiting

    def pending(self, row: GroupRow, now_s: float) -> Pending:
        """The group as the engine sees it; never to the cluster that refused it last if another one fits."""
        avoid = self.refusals.avoid(row.uid, now_s)
        if row.last_verdict is GiveUp.REFUSED and row.last_cluster and row.uid not in self._tried_elsewhere:
            avoid |= {row.last_cluster}
        return Pending(row.uid, row.submitted_at, row.priority, row.request, row.queue, avoid)

    def quotas(self, state: State) -> dict[QueueName, QuotaLines]:
        return {
            queue.name: {line: QuotaLine(limit, queue.used(line)) for line, limit in queue.gpu_quota.items()}
            for queue in state.queues.values()
            if queue.gpu_quota
        }

    # --- the outcome ---

    def _record(self, state: State, place: Place, at_ms: int) -> Placed:
        view = self._views.get(place.cluster)
        assert view is not None
        self._tried_elsewhere.discard(place.uid)
        self._blocked.pop(place.uid, None)
        return Placed(
            actor=ACTOR,
            at_ms=at_ms,
            uid=place.uid,
            cluster=place.cluster,
            effective_policy=effective_policy(
                state.groups[place.uid], view.fence_strength, accept_unguarded=_accepts(state, place.cluster)
            ),
            candidates=tuple(Candidate(one.cluster, one.score, one.terms) for one in place.candidates),
            reasons=tuple((reason.code, count) for reason, count in place.refused),
            stamp=(place.cluster, view.stamp.boot, view.stamp.seq),
            budget=self._budget,
            policy_version=self._policy.version,
        )

    def _keep(self, state: State, waiting: list[Pending], found_blocked: Iterable[Wait], now_s: float) -> None:
        """Remember who was blocked; whose last cluster was held back gets it considered in the next cycle."""
        avoid_by_uid = {item.uid: item.avoid for item in waiting}
        for wait in found_blocked:
            self._blocked[wait.uid] = _Blocked(self._gains, avoid_by_uid[wait.uid])
            if state.groups[wait.uid].last_verdict is GiveUp.REFUSED and wait.uid not in self._tried_elsewhere:
                self._tried_elsewhere.add(wait.uid)
                self.poke(now_s)
        if len(self._blocked) > 2 * len(state.pending) + BLOCKED_KEPT_MIN:
            pending = {uid for _, _, uid in state.pending}
            self._blocked = {uid: blocked for uid, blocked in self._blocked.items() if uid in pending}
            self._tried_elsewhere &= pending

    def _move_later(self, now_s: float) -> None:
        """The rate of moves is used up: come back when it allows the next one (after a full brake somebody pokes)."""
        if self._failover.brake < Brake.STOP:
            self.due_s = min(self.due_s, now_s + 1 / (MOVES_PER_S * self._failover.brake.rate_factor))

    def settled(self, uid: GroupUid) -> None:
        """The group runs or has ended: its refusals are history."""
        self.refusals.forget(uid)
        self._tried_elsewhere.discard(uid)
        self._blocked.pop(uid, None)

    def refused(self, uid: GroupUid, cluster: ClusterName, now_s: float) -> None:
        self.refusals.refused(uid, cluster, now_s)
        self._tried_elsewhere.discard(uid)


def effective_policy(row: GroupRow, strength: FenceStrength, *, accept_unguarded: bool) -> DisconnectPolicy:
    """What holds for this placement for good: nothing moves by itself from where nobody surely stops it."""
    wanted = row.disconnect_policy
    if wanted is DisconnectPolicy.STOP_AND_MOVE and strength is not FenceStrength.GUARD and not accept_unguarded:
        return DisconnectPolicy.HOLD_IN_PLACE
    return wanted


def _is_open(view: ClusterView) -> bool:
    return view.admitted and not (view.cordoned or view.silent or view.fenced or view.stale)


def _accepts(state: State, cluster: ClusterName) -> bool:
    return state.clusters[cluster].accept_unguarded


def _tokens_above(row: ClusterRow, applied: int) -> tuple[Position, ...]:
    """Present tokens that the report does not show yet, in order. O(those)."""
    newest_first: list[Position] = []
    for position in reversed(row.tokens):
        if position <= applied:
            break
        newest_first.append(position)
    return tuple(reversed(newest_first))


def _subtract(table: NodeTable, group: GroupRow) -> None:
    """Take what the agent will take; what does not fit (any more) it will refuse, and nothing is taken."""
    assignment = assign(table, group.request)
    if isinstance(assignment, Assignment):
        table.take(assignment)
