"""The leader's placing: which waiting groups get which cluster now, as `Placed` records for the next batch.

Reads top to bottom: when a cycle is due, the cycle, the fleet it looks at (with what will be free, by `outlooks`), the
groups that wait, the records. The engine chooses, the journal makes it true, agents have the last word.
"""

from __future__ import annotations

from typing import Final

from federation.core.batch import Batch
from federation.core.brake import MOVES_PER_S, Brake, Bucket
from federation.core.failover import Failover
from federation.core.outlooks import Outlooks
from federation.core.records import (
    AnyRecord,
    Candidate,
    ClusterConfirmedDead,
    ClusterFenced,
    FenceDone,
    Placed,
    Submitted,
)
from federation.core.refusals import Refusals
from federation.core.rows import ClusterRow, GiveUp, GroupRow
from federation.core.state import State
from federation.core.views import Views
from placement.engine import Bounds, Pending, Place, Policy, plan_cycle
from placement.fleet import ClusterView, Fleet, NodeTable
from placement.memory import Memory
from placement.model import (
    ClusterName,
    DisconnectPolicy,
    FenceStrength,
    GroupUid,
    Phase,
    Position,
    QueueName,
    group_uid,
)
from placement.node_order import LearntWorth
from placement.quota import QuotaLine, QuotaLines
from placement.waiting import Waiting

ACTOR: Final = "muster:placer"
REPORTS_SETTLE_S: Final = 0.25  # reports of freed capacity come in flurries: decide once for all of them
NOTHING: Final = NodeTable.build(())


class Placer:
    """Soft state of placing; a new leader starts with an empty one."""

    def __init__(self, *, policy: Policy, budget: int, views: Views, failover: Failover) -> None:
        self._policy = policy
        self._budget = budget
        self._views = views
        self._failover = failover
        # the fleet
        self._outlooks = Outlooks(views)
        self._open: set[ClusterName] = set()  # clusters that were open in the last cycle
        self._gains = 0  # grows with whatever may let a blocked group start, beside room
        # the groups
        self._waiting = Waiting()
        self._touched: dict[GroupUid, None] | None = None  # groups that may wait or not since the last cycle; None: all
        self._shy: dict[GroupUid, None] = {}  # waiting groups that avoid a cluster for a while
        self._displaced: set[GroupUid] = set()  # waiting groups whose placement is a move
        self.refusals = Refusals()
        # the cycle
        self._memory = Memory()
        self._worth = LearntWorth()
        self._moves = Bucket(MOVES_PER_S, MOVES_PER_S)
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

    def not_taken(self, placed: Placed, now_s: float) -> None:
        """A decision did not make it into the batch: the group still waits, and its room is free."""
        self._outlooks.forget(ClusterName(placed.cluster))
        self._touch(GroupUid(placed.uid))
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
        self._update_waiting(state, now_s)
        bounds = self._bounds(batch, now_s)
        self._memory.follow(self._worth.now)
        plan = plan_cycle(
            fleet, self._waiting, self._memory, policy=self._policy, bounds=bounds, quotas=self.quotas(state)
        )

        self.evaluations_count += plan.evaluations
        self._moves.spend(len(self._displaced.intersection(place.uid for place in plan.decisions)))
        self._outlooks.promise(plan.decisions)
        self._move_on(now_s)
        if plan.exhausted:
            self.poke(now_s)
        return [self._record(state, place, at_ms) for place in plan.decisions]

    def _bounds(self, batch: Batch, now_s: float) -> Bounds:
        return Bounds(
            budget=self._budget,
            gains=self._gains + self._outlooks.gains,
            places_max=batch.room,
            moves_max=self._moves.available(now_s, factor=self._failover.brake.rate_factor),
            held=lambda item: batch.changes("group", item.uid) or batch.changes("queue", item.queue),
        )

    # --- the fleet ---

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
        )

    # --- the groups ---

    def folded(self, state: State, position: Position, record: AnyRecord) -> None:
        """Note whom a record may have made wait, or wait no longer. Only while leading: else `place` looks at all."""
        match record:
            case FenceDone() | ClusterFenced() | ClusterConfirmedDead():
                self._touched = None
            case Submitted():
                uid = group_uid(state.lineage, position)
                self._learn(state, uid)
                self._touch(uid)
            case Placed(uid=uid):
                self._outlooks.landed(GroupUid(uid))
                self._touch(GroupUid(uid))
            case _:
                row = state.group(getattr(record, "uid", ""))
                if row is not None and (row.phase is Phase.PENDING or row.uid in self._waiting):
                    self._touch(row.uid)

    def _learn(self, state: State, uid: GroupUid) -> None:
        """What is asked for says which free parts of nodes are worth keeping."""
        row = state.group(uid)
        if row is not None:
            self._worth.asked(row.request)

    def _touch(self, uid: GroupUid) -> None:
        if self._touched is not None:
            self._touched[uid] = None

    def _update_waiting(self, state: State, now_s: float) -> None:
        """Bring the waiting groups in step with the state, and with what refusals still keep them from."""
        if self._touched is None:
            self._waiting = Waiting()
            self._shy.clear()
            self._displaced.clear()
            self._touched = {uid: None for _, _, uid in state.pending}
            if self._worth.now is None:
                for uid in self._touched:
                    self._learn(state, uid)
        touched = {**self._shy, **self._touched}
        self._touched.clear()
        for uid in touched:
            row = state.group(uid)
            if row is not None and row.phase is Phase.PENDING:
                self._wait(row, now_s)
            else:
                self._waiting.remove(uid)
                self._shy.pop(uid, None)
                self._displaced.discard(uid)

    def _wait(self, row: GroupRow, now_s: float) -> None:
        item = self.pending(row, now_s)
        self._waiting.put(item)
        if item.avoid:
            self._shy[row.uid] = None
            self.due_s = min(self.due_s, self.refusals.next_decay_s(row.uid, now_s))
        else:
            self._shy.pop(row.uid, None)
        if row.displaced:
            self._displaced.add(row.uid)

    def pending(self, row: GroupRow, now_s: float) -> Pending:
        """The group as the engine sees it; never to the cluster that refused it last if another one fits."""
        return Pending(
            uid=row.uid,
            submitted_at=row.submitted_at,
            priority=row.priority,
            request=row.request,
            queue=row.queue,
            avoid=self.refusals.avoid(row.uid, now_s),
            displaced=row.displaced,
            shunned=row.last_cluster if row.last_verdict is GiveUp.REFUSED else None,
        )

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

    def _move_on(self, now_s: float) -> None:
        """Moves go on as soon as their rate allows; after a full brake somebody pokes."""
        if self._displaced and self._moves.tokens < 1 and self._failover.brake < Brake.STOP:
            self.due_s = min(self.due_s, now_s + 1 / (MOVES_PER_S * self._failover.brake.rate_factor))

    def settled(self, uid: GroupUid) -> None:
        """The group runs or has ended: its refusals are history."""
        self.refusals.forget(uid)

    def refused(self, uid: GroupUid, cluster: ClusterName, now_s: float) -> None:
        self.refusals.refused(uid, cluster, now_s)


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
