"""The fold: what all records of the journal so far amount to. `State.apply` is its only mutator.

Deterministic and without judgement: what may be recorded is decided before (`admission`, `verdicts`, `failover`,
`placer`), against this very state. A record that cannot follow from it raises `FoldError`, and the server stops.
"""

from __future__ import annotations

from typing import ClassVar, Final

import msgspec

from federation.core.books import DEFAULT_QUEUE, FoldError, Folds
from federation.core.fold_sizes import SizeFold
from federation.core.records import (
    AnyRecord,
    Bound,
    ChildOf,
    ClusterAdmitted,
    ClusterConfirmedDead,
    ClusterCordoned,
    ClusterFenced,
    ClusterJoined,
    ClusterRemoved,
    FenceDone,
    GaveUp,
    IntentSet,
    Placed,
    Quarantined,
    QueueApplied,
    Recreated,
    Running,
    Submitted,
    SubmittedChild,
    encode_record,
    encode_without_spec,
)
from federation.core.rows import (
    GIVE_UPS,
    POLICIES,
    ClusterRow,
    GiveUp,
    GroupRow,
    Home,
    Intent,
    QueueRow,
    RequestRow,
    ends_with_fence,
)
from federation.core.stored import request_digest
from placement.model import (
    NOWHERE,
    ClusterName,
    DisconnectPolicy,
    LeaseClass,
    Phase,
    Position,
    QueueName,
    Token,
    group_uid,
)
from placement.spread import sized

# As in `books`: looked up once.
_PENDING: Final = Phase.PENDING
_PLACED: Final = Phase.PLACED
_REFUSED: Final = GiveUp.REFUSED
_FINISHED: Final = GiveUp.FINISHED

__all__ = ["DEFAULT_QUEUE", "FoldError", "State"]

_WITH_MANIFEST: Final = frozenset({Submitted, SubmittedChild, Recreated})  # which is not kept in the history
_WITH_REQUEST: Final = frozenset({Submitted, SubmittedChild})  # remembered with the group already


class State(SizeFold):
    """Everything that is true at `head`. Read by everyone, changed by `apply` alone."""

    # --- the fold ---

    def reached(self, position: Position) -> None:
        """Note that everything up to `position` was folded (an entry may hold no record)."""
        assert position >= self.head
        self.head = position

    def apply(self, position: Position, record: AnyRecord, encoded: bytes = b"") -> None:
        """Fold the record at `position`. FoldError, and the state as it was, if it contradicts the state.

        `encoded` is the record as the journal has it, where that is at hand: then it is not encoded again.
        """
        if position <= self.head:
            raise FoldError(position, record, f"the state is at {self.head} already")
        kind = type(record)
        row = _FOLDS[kind](self, position, record)  # the group whose history the record belongs to, if it is about one
        if row is not None:
            if kind in _WITH_MANIFEST:
                encoded = encode_without_spec(record, encoded)
            self._note(row, position, encoded or encode_record(record))
        self.head = position
        if record.cause and kind not in _WITH_REQUEST:
            uid = getattr(record, "uid", "")
            self._remember(RequestRow(record.cause, request_digest(record), position, uid, record.at_ms))
        if record.at_ms > self.clock_ms or self.crowded:
            self._pass_time(record.at_ms)

    # --- groups ---

    def _submitted(self, position: Position, record: Submitted) -> GroupRow:
        row = self._enter(position, record, record, group_uid(self.lineage, position))
        if row.phase is _PENDING:
            self._enter_pending(row)
        return row

    def _placed(self, position: Position, record: Placed) -> GroupRow:
        row = self._row(position, record, record.uid)
        cluster = self._cluster(position, record, record.cluster)
        if row.home is not None:
            raise FoldError(position, record, f"its home is {row.home.cluster}, not none")
        if row.phase is not _PENDING:
            raise FoldError(position, record, f"the group is {row.phase}")
        if not cluster.admitted:
            raise FoldError(position, record, f"cluster {cluster.name} is not admitted")
        if row.child is not None:
            self._place_child(position, record, row, row.child)
        self._leave_pending(row)
        row.home = Home(cluster.name, Token(self.lineage, position))
        row.effective_policy = POLICIES[record.effective_policy]
        row.bound_at = row.running_at = NOWHERE
        row.pods_bound = 0
        row.counts = record.counts if row.child is None else ()
        if row.counts:
            self.small.add(row.uid)
        row.attempts += 1
        row.displaced = False
        row.phase = _PLACED
        cluster.tokens[position] = row.uid
        self._charge(row, sign=1)
        return row

    def _place_child(self, position: Position, record: Placed, row: GroupRow, child: ChildOf) -> None:
        """It is never beside a sibling, and from its first placement on it asks for its share, no more and no less."""
        for sibling in self.siblings(row):
            if sibling.home is not None and sibling.home.cluster == record.cluster:
                raise FoldError(position, record, f"its sibling {sibling.uid} is at home in {record.cluster}")
        if not child.share:
            share = record.counts[0] if record.counts else row.request.pods
            row.child = msgspec.structs.replace(child, share=share)
            row.request, row.charge = self.class_of(sized(row.request, share))

    def _progressed(self, position: Position, record: Bound | Running) -> GroupRow:
        row = self._row(position, record, record.uid)
        self._expect_home(position, record, row, record.token)
        if type(record) is Bound:
            row.bound_at = position
            row.failures = 0
        else:
            row.running_at = position
            row.bound_at = row.bound_at or position
        row.pods_bound = max(row.pods_bound, record.pods)  # `Running` may come before all that are bound run
        row.phase = self._phase_of(row)
        return row

    def _gave_up(self, position: Position, record: GaveUp) -> GroupRow:
        row = self._row(position, record, record.uid)
        if record.late:
            return row
        self._expect_home(position, record, row, record.token)
        verdict = GIVE_UPS[record.verdict]
        row.last_verdict = verdict
        row.last_reasons = record.reasons
        row.failures += verdict is _REFUSED
        self._end_home(position, row, record.token)
        if verdict is _FINISHED:
            row.phase = Phase.SUCCEEDED if record.succeeded else Phase.FAILED
        self._settle(row)
        return row

    def _intent_set(self, position: Position, record: IntentSet) -> GroupRow:
        row = self._row(position, record, record.uid)
        if row.phase.terminal:
            raise FoldError(position, record, f"the group is {row.phase}")
        if row.intent is Intent.CANCEL:
            raise FoldError(position, record, "the group is being cancelled")
        if row.phase is Phase.PENDING:
            self._leave_pending(row)
        row.intent = Intent(record.intent)
        row.intent_reason = record.reason
        row.phase = self._phase_of(row)
        self._settle(row)
        return row

    def _quarantined(self, position: Position, record: Quarantined) -> GroupRow:
        """Suspended by nobody: it leaves as a suspended one does, resumed or cancelled."""
        row = self._row(position, record, record.uid)
        if row.phase is not _PENDING:
            raise FoldError(position, record, f"the group is {row.phase}")
        self._leave_pending(row)
        row.intent = Intent.SUSPEND
        row.intent_reason = f"lost {record.losses} homes in a row, in {', '.join(record.clusters)}"
        row.phase = Phase.QUARANTINED
        return row

    # --- queues and clusters ---

    def _queue_applied(self, position: Position, record: QueueApplied) -> None:
        name = QueueName(record.name)
        row = self.queues.setdefault(name, QueueRow(name))
        row.weight = record.weight
        row.gpu_quota = dict(record.gpu_quota)
        row.disconnect_policy = DisconnectPolicy(record.disconnect_policy) if record.disconnect_policy else None
        row.applied_at = position

    def _cluster_joined(self, position: Position, record: ClusterJoined) -> None:
        name = ClusterName(record.cluster)
        lease_class = LeaseClass(record.lease_class)
        row = self.clusters.get(name)
        if row is None:
            row = ClusterRow(name, lease_class, record.labels, record.accept_unguarded, position)
            self.clusters[name] = row
        row.lease_class = lease_class
        row.labels = record.labels
        row.accept_unguarded = record.accept_unguarded
        row.changed_at = position

    def _cluster_cordoned(self, position: Position, record: ClusterCordoned) -> None:
        row = self._cluster(position, record, record.cluster)
        row.cordoned = record.cordoned
        row.drain = record.cordoned and record.drain
        row.cordon_reason = record.reason
        row.changed_at = position

    def _cluster_fenced(self, position: Position, record: ClusterFenced) -> None:
        row = self._cluster(position, record, record.cluster)
        if record.epoch <= row.fenced_epoch:
            raise FoldError(position, record, f"epoch {row.fenced_epoch} is fenced already")
        row.fenced_epoch = record.epoch
        row.fenced_at = position
        row.fence_done = ()
        row.changed_at = position
        for group in self.homes_in(row):
            if group.effective_policy is DisconnectPolicy.MOVE_ANYWAY:
                self._displace(position, group, record)
        self._rephase(row)

    def _fence_done(self, position: Position, record: FenceDone) -> None:
        row = self._cluster(position, record, record.cluster)
        if row.admitted or record.epoch != row.fenced_epoch:
            raise FoldError(position, record, f"the fence is of epoch {row.fenced_epoch}, admitted {row.admitted}")
        row.fence_done = (*row.fence_done, record.grace_s)
        row.changed_at = position
        for group in self.homes_in(row):
            if group.grace_s <= record.grace_s and ends_with_fence(group):
                self._displace(position, group, record)

    def _cluster_admitted(self, position: Position, record: ClusterAdmitted) -> None:
        row = self._cluster(position, record, record.cluster)
        if row.admitted or record.epoch != row.fenced_epoch:
            raise FoldError(position, record, f"the fence is of epoch {row.fenced_epoch}, admitted {row.admitted}")
        row.admitted_epoch = record.epoch
        row.admitted_at = position
        row.dead_at = NOWHERE
        row.changed_at = position
        self._rephase(row)

    def _confirmed_dead(self, position: Position, record: ClusterConfirmedDead) -> None:
        row = self._cluster(position, record, record.cluster)
        if row.admitted:
            raise FoldError(position, record, "the cluster is admitted: its lease must be fenced first")
        row.dead_at = position
        row.recovering = False
        row.changed_at = position
        for group in self.homes_in(row):
            self._displace(position, group, record)

    def _cluster_removed(self, position: Position, record: ClusterRemoved) -> None:
        row = self._cluster(position, record, record.cluster)
        if row.homes:
            raise FoldError(position, record, f"{len(row.homes)} groups are at home there")
        if row.recovering or (row.admitted_epoch and not row.dead_at):
            raise FoldError(position, record, "the cluster was admitted, and is not confirmed dead")
        if self.keeper is not None:
            self.keeper.ends_change(row)  # who joins under its name next has ends of its own
        del self.clusters[row.name]

    FOLDS: ClassVar[Folds] = {
        **SizeFold.FOLDS,
        Submitted: _submitted,
        SubmittedChild: _submitted,
        Placed: _placed,
        Bound: _progressed,
        Running: _progressed,
        GaveUp: _gave_up,
        IntentSet: _intent_set,
        Quarantined: _quarantined,
        QueueApplied: _queue_applied,
        ClusterJoined: _cluster_joined,
        ClusterCordoned: _cluster_cordoned,
        ClusterFenced: _cluster_fenced,
        FenceDone: _fence_done,
        ClusterAdmitted: _cluster_admitted,
        ClusterConfirmedDead: _confirmed_dead,
        ClusterRemoved: _cluster_removed,
    }


_FOLDS: Final = State.FOLDS
