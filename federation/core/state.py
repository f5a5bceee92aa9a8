"""The fold: what all records of the journal so far amount to. `State.apply` is its only mutator.

Deterministic and without judgement: what may be recorded is decided before (`admission`, `verdicts`, `failover`,
`placer`), against this very state. A record that cannot follow from it raises `FoldError`, and the server stops.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from typing import Final, assert_never

import msgspec

from federation.core.history import (
    HISTORY_BYTES_MAX,
    HISTORY_PER_GROUP_MAX,
    RecordSummary,
    pack_line,
    without_second,
)
from federation.core.records import (
    Adopted,
    AnyRecord,
    Bound,
    ClusterAdmitted,
    ClusterConfirmedDead,
    ClusterCordoned,
    ClusterFenced,
    ClusterJoined,
    FenceDone,
    GaveUp,
    IntentSet,
    Placed,
    QueueApplied,
    Recovered,
    Restored,
    Running,
    Submitted,
    Unheld,
)
from federation.core.rows import (
    ClusterRow,
    GiveUp,
    GroupRow,
    Home,
    Intent,
    Keeper,
    PendingKey,
    QueueRow,
    RequestRow,
    ends_with_fence,
    pending_key,
)
from federation.core.stored import ClassKey, charge_of, class_key, request_digest, request_of
from placement.model import (
    NOWHERE,
    ClusterName,
    DisconnectPolicy,
    DisruptionMode,
    GangRequest,
    GroupUid,
    LeaseClass,
    Lineage,
    Phase,
    Position,
    QueueName,
    Token,
    group_uid,
)

DEFAULT_QUEUE: Final = QueueName("default")  # exists without a record, so that a first submission just works
FINISHED_KEPT_MAX: Final = 100_000  # DESIGN §15: finished groups in memory, then only in the journal
REQUESTS_KEPT_MAX: Final = 1_000_000  # as many as may be pending: bounds the window where a clock is wrong
WINDOW_MS: Final = 24 * 3_600 * 1_000  # DESIGN §15: how long request ids and finished groups are remembered
ENDED_PER_CLUSTER_MAX: Final = 40_000  # as many as may be desired; an agent further behind asks for everything


class FoldError(Exception):
    """A record contradicts the state before it. Nobody may skip it: the server stops and names it."""

    def __init__(self, position: Position, record: AnyRecord, why: str) -> None:
        super().__init__(f"{type(record).__name__} at position {position} cannot be folded: {why}")
        self.position = position
        self.record = record
        self.why = why


class State:
    """Everything that is true at `head`. Read by everyone, changed by `apply` alone."""

    def __init__(self, lineage: str = "") -> None:
        self.lineage = Lineage(lineage)
        self.head: Position = NOWHERE
        self.recovering_since: Position = NOWHERE  # of the `Restored` record until `Recovered`
        self.clock_ms = 0  # highest wall time on record: what windows are measured with
        self.groups: dict[GroupUid, GroupRow] = {}
        self.clusters: dict[ClusterName, ClusterRow] = {}
        self.queues: dict[QueueName, QueueRow] = {DEFAULT_QUEUE: QueueRow(DEFAULT_QUEUE)}
        self.names: dict[tuple[str, str], GroupUid] = {}  # (namespace, name) of groups that have not ended
        self.names_last: dict[tuple[str, str], GroupUid] = {}  # the newest of each name, ended or not
        self.requests: dict[str, RequestRow] = {}
        self.pending: list[PendingKey] = []  # sorted
        self.finished: deque[tuple[int, GroupUid]] = deque()  # (when, who) of ended groups still in memory
        self.specs: dict[str, tuple[bytes, int]] = {}  # digest -> (bytes, groups that share them)
        self.keeper: Keeper | None = None  # sees rows before they change, while a snapshot is taken
        self._classes: dict[GangRequest, tuple[GangRequest, tuple[tuple[str, int], ...]]] = {}
        self._class_of_key: dict[ClassKey, tuple[GangRequest, tuple[tuple[str, int], ...]]] = {}

    # --- questions ---

    def group(self, uid: str) -> GroupRow | None:
        return self.groups.get(GroupUid(uid))

    def cluster(self, name: str) -> ClusterRow | None:
        return self.clusters.get(ClusterName(name))

    def queue(self, name: str) -> QueueRow | None:
        return self.queues.get(QueueName(name))

    def spec(self, uid: str) -> bytes | None:
        """The stored manifest of a group: zlib of canonical JSON."""
        row = self.group(uid)
        return self.specs[row.spec_digest][0] if row is not None else None

    def history(self, uid: str) -> tuple[RecordSummary, ...]:
        """The newest records about a group, oldest first, at most `HISTORY_PER_GROUP_MAX`."""
        row = self.group(uid)
        return row.history if row is not None else ()

    def pending_groups(self) -> Iterator[GroupRow]:
        """Pending groups by priority, then age."""
        return (self.groups[uid] for _, _, uid in self.pending)

    # --- the fold ---

    def reached(self, position: Position) -> None:
        """Note that everything up to `position` was folded (an entry may hold no record)."""
        assert position >= self.head
        self.head = position

    def apply(self, position: Position, record: AnyRecord) -> None:  # noqa: PLR0912  one arm per kind of record
        """Fold the record at `position`. FoldError, and the state as it was, if it contradicts the state."""
        if position <= self.head:
            raise FoldError(position, record, f"the state is at {self.head} already")
        match record:
            case Submitted():
                self._submitted(position, record)
            case Placed():
                self._placed(position, record)
            case Bound() | Running():
                self._progressed(position, record)
            case GaveUp():
                self._gave_up(position, record)
            case IntentSet():
                self._intent_set(position, record)
            case QueueApplied():
                self._queue_applied(position, record)
            case ClusterJoined():
                self._cluster_joined(position, record)
            case ClusterCordoned():
                self._cluster_cordoned(position, record)
            case ClusterFenced():
                self._cluster_fenced(position, record)
            case FenceDone():
                self._fence_done(position, record)
            case ClusterAdmitted():
                self._cluster_admitted(position, record)
            case ClusterConfirmedDead():
                self._confirmed_dead(position, record)
            case Restored():
                self._restored(position, record)
            case Adopted():
                self._adopted(position, record)
            case Unheld():
                self._unheld(position, record)
            case Recovered():
                self._recovered(position, record)
            case _:
                assert_never(record)
        self.head = position
        self._remember_request(position, record)
        self._pass_time(record.at_ms)

    # --- groups ---

    def _submitted(self, position: Position, record: Submitted) -> None:
        key = (record.namespace, record.name)
        if key in self.names:
            raise FoldError(position, record, f"the name {record.namespace}/{record.name} is taken")
        queue = self.queue(record.queue)
        if queue is None:
            raise FoldError(position, record, f"there is no queue {record.queue}")
        uid = group_uid(self.lineage, position)
        request, charge = self._class_of(record)
        row = GroupRow(
            uid=uid,
            name=record.name,
            namespace=record.namespace,
            queue=queue.name,
            priority=record.priority,
            submitted_at=position,
            request=request,
            charge=charge,
            disconnect_policy=DisconnectPolicy(record.disconnect_policy),
            disruption_mode=DisruptionMode(record.disruption_mode),
            grace_s=record.grace_s,
            labels=record.labels,
            workload=record.workload,
            spec_digest=self._keep_spec(record),
            actor=record.actor,
            at_ms=record.at_ms,
            phase=Phase.SUSPENDED if record.suspend else Phase.PENDING,
            intent=Intent.SUSPEND if record.suspend else Intent.RUN,
            changed_at=position,
        )
        self.groups[uid] = row
        self.names[key] = uid
        self.names_last[key] = uid
        if row.phase is Phase.PENDING:
            self._enter_pending(row)
        self._note(row, position, msgspec.structs.replace(record, spec=b""))

    def _placed(self, position: Position, record: Placed) -> None:
        row = self._row(position, record, record.uid)
        cluster = self._cluster(position, record, record.cluster)
        if row.home is not None:
            raise FoldError(position, record, f"its home is {row.home.cluster}, not none")
        if row.phase is not Phase.PENDING:
            raise FoldError(position, record, f"the group is {row.phase}")
        if not cluster.admitted:
            raise FoldError(position, record, f"cluster {cluster.name} is not admitted")
        self._leave_pending(row)
        row.home = Home(cluster.name, Token(self.lineage, position))
        row.effective_policy = DisconnectPolicy(record.effective_policy)
        row.bound_at = row.running_at = NOWHERE
        row.pods_bound = 0
        row.attempts += 1
        row.displaced = False
        row.phase = Phase.PLACED
        cluster.tokens[position] = row.uid
        self._charge(row, sign=1)
        self._note(row, position, record)

    def _progressed(self, position: Position, record: Bound | Running) -> None:
        row = self._row(position, record, record.uid)
        self._expect_home(position, record, row, record.token)
        if isinstance(record, Bound):
            row.bound_at = position
            row.failures = 0
        else:
            row.running_at = position
            row.bound_at = row.bound_at or position
        row.pods_bound = record.pods
        row.phase = self._phase_of(row)
        self._note(row, position, record)

    def _gave_up(self, position: Position, record: GaveUp) -> None:
        row = self._row(position, record, record.uid)
        if record.late:
            self._note(row, position, record)
            return
        self._expect_home(position, record, row, record.token)
        verdict = GiveUp(record.verdict)
        row.last_verdict = verdict
        row.last_reasons = record.reasons
        row.failures += verdict is GiveUp.REFUSED
        self._end_home(position, row)
        if verdict is GiveUp.FINISHED:
            row.phase = Phase.SUCCEEDED if record.succeeded else Phase.FAILED
        self._settle(row)
        self._note(row, position, record)

    def _intent_set(self, position: Position, record: IntentSet) -> None:
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
        self._note(row, position, record)

    def _end_home(self, position: Position, row: GroupRow) -> None:
        """The home ends here: quota returns, and the cluster's feed tells its agent."""
        home = row.home
        assert home is not None
        cluster = self.clusters[home.cluster]
        del cluster.homes[row.uid]
        del cluster.tokens[home.token.position]
        if self.keeper is not None:
            self.keeper.ends_change(cluster)
        cluster.ended[str(home.token)] = position
        while len(cluster.ended) > ENDED_PER_CLUSTER_MAX:
            oldest = next(iter(cluster.ended))
            cluster.ended_pruned = cluster.ended.pop(oldest)
        cluster.changed_at = position
        self._charge(row, sign=-1)
        row.home = None
        row.last_token = home.token
        row.last_cluster = home.cluster
        row.effective_policy = None
        row.bound_at = row.running_at = NOWHERE
        row.pods_bound = 0
        row.phase = Phase.PENDING

    def _displace(self, position: Position, row: GroupRow, record: AnyRecord) -> None:
        """End the home without its agent's word."""
        self._about_to_change(row)
        row.last_verdict = None
        row.last_reasons = ()
        self._end_home(position, row)
        row.displaced = True
        self._settle(row)
        self._note(row, position, record)

    def _settle(self, row: GroupRow) -> None:
        """Bring a group without home to where its intent wants it."""
        if row.home is not None:
            return
        if not row.phase.terminal:
            match row.intent:
                case Intent.CANCEL:
                    row.phase = Phase.CANCELLED
                case Intent.SUSPEND:
                    row.phase = Phase.SUSPENDED
                case Intent.RUN | Intent.MOVE:
                    row.intent = Intent.RUN
                    row.intent_reason = ""
                    row.phase = Phase.PENDING
                    self._enter_pending(row)
                case _:
                    assert_never(row.intent)
        if row.phase.terminal:
            row.displaced = False
            self.names.pop((row.namespace, row.name), None)
            self.finished.append((self.clock_ms, row.uid))

    def _phase_of(self, row: GroupRow) -> Phase:
        if row.home is None:
            return Phase.PENDING
        if row.intent is not Intent.RUN:
            return Phase.EVICTING
        held = row.effective_policy is DisconnectPolicy.HOLD_IN_PLACE and row.bound_at
        if held and not self.clusters[row.home.cluster].admitted:
            return Phase.STRANDED
        if row.running_at:
            return Phase.RUNNING
        return Phase.BOUND if row.bound_at else Phase.PLACED

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

    def _restored(self, position: Position, record: Restored) -> None:
        if record.lineage != self.lineage:
            raise FoldError(position, record, f"the lineage is {self.lineage}")
        self.recovering_since = position
        for row in self.clusters.values():
            row.recovering = not row.dead_at
            row.changed_at = position
            self._rephase(row)

    def _adopted(self, position: Position, record: Adopted) -> None:
        """The cluster's word for it is all there is: such a home ends by a give-up or `confirm-dead` only."""
        row = self._row(position, record, record.uid)
        cluster = self._cluster(position, record, record.cluster)
        if not cluster.recovering:
            raise FoldError(position, record, f"cluster {cluster.name} does not recover")
        token = Token.parse(record.token)
        if row.phase.terminal:
            raise FoldError(position, record, f"the group is {row.phase}")
        if row.home is None:
            if row.last_token is not None and token <= row.last_token:
                raise FoldError(position, record, f"its last token was {row.last_token}")
            if row.phase is Phase.PENDING:
                self._leave_pending(row)
            row.home = Home(cluster.name, token)
            row.effective_policy = DisconnectPolicy.HOLD_IN_PLACE
            row.attempts += 1
            row.displaced = False
            cluster.tokens[token.position] = row.uid
            self._charge(row, sign=1)
        self._expect_home(position, record, row, record.token)
        row.bound_at = row.bound_at or position
        row.pods_bound = row.pods_bound or row.request.min_count
        row.phase = self._phase_of(row)
        self._note(row, position, record)

    def _unheld(self, position: Position, record: Unheld) -> None:
        row = self._row(position, record, record.uid)
        self._expect_home(position, record, row, record.token)
        if not self.recovering_since:
            raise FoldError(position, record, "there is no recovery")
        self._displace(position, row, record)

    def _recovered(self, position: Position, record: Recovered) -> None:
        waiting = {row.name for row in self.clusters.values() if row.recovering}
        if waiting != record.epochs.keys():
            raise FoldError(position, record, f"the clusters that recover are {sorted(waiting)}")
        for name, epoch in record.epochs.items():
            row = self.clusters[ClusterName(name)]
            row.recovering = False
            row.fenced_epoch = row.admitted_epoch = epoch
            row.admitted_at = row.changed_at = position
            row.fence_done = ()
            self._rephase(row)
        self.recovering_since = NOWHERE

    def homes_in(self, cluster: ClusterRow) -> list[GroupRow]:
        """Groups whose home is there, by token."""
        return [self.groups[uid] for uid in cluster.tokens.values()]

    def _rephase(self, cluster: ClusterRow) -> None:
        for group in self.homes_in(cluster):
            self._about_to_change(group)
            group.phase = self._phase_of(group)

    # --- bookkeeping ---

    def _row(self, position: Position, record: AnyRecord, uid: str) -> GroupRow:
        row = self.group(uid)
        if row is None:
            raise FoldError(position, record, f"there is no group {uid}")
        self._about_to_change(row)
        return row

    def _about_to_change(self, row: GroupRow) -> None:
        if self.keeper is not None:
            self.keeper.group_changes(row)

    def _cluster(self, position: Position, record: AnyRecord, name: str) -> ClusterRow:
        row = self.cluster(name)
        if row is None:
            raise FoldError(position, record, f"there is no cluster {name}")
        return row

    def _expect_home(self, position: Position, record: AnyRecord, row: GroupRow, token: str) -> None:
        if row.home is None or str(row.home.token) != token:
            raise FoldError(position, record, f"its home is {row.home}, not token {token}")

    def _class_of(self, record: Submitted) -> tuple[GangRequest, tuple[tuple[str, int], ...]]:
        """Of most records the class is known; then it need not be made to find it."""
        key = class_key(record)
        known = self._class_of_key.get(key)
        if known is None:
            known = self._class_of_key[key] = self.class_of(request_of(record))
        return known

    def class_of(self, request: GangRequest) -> tuple[GangRequest, tuple[tuple[str, int], ...]]:
        """The one copy of this request that all groups share, and what a home of it is charged."""
        known = self._classes.get(request)
        if known is None:
            known = self._classes[request] = (request, charge_of(request))
        return known

    def _keep_spec(self, record: Submitted) -> str:
        spec, shares = self.specs.get(record.body_digest, (record.spec, 0))
        self.specs[record.body_digest] = (spec, shares + 1)
        return record.body_digest

    def _note(self, row: GroupRow, position: Position, record: AnyRecord) -> None:
        """The group changed here: history, and its place in the cluster's feed of changes."""
        row.changed_at = position
        row.history_packed += pack_line(position, record)
        row.history_count += 1
        while row.history_count > HISTORY_PER_GROUP_MAX or len(row.history_packed) > HISTORY_BYTES_MAX:
            row.history_packed = without_second(row.history_packed, row.history_count)
            row.history_count -= 1
            row.history_cut += 1
        if row.home is not None:
            cluster = self.clusters[row.home.cluster]
            cluster.homes.pop(row.uid, None)
            cluster.homes[row.uid] = position
            cluster.changed_at = position

    def _enter_pending(self, row: GroupRow) -> None:
        insort(self.pending, pending_key(row))
        self.queues[row.queue].pending_count += 1

    def _leave_pending(self, row: GroupRow) -> None:
        key = pending_key(row)
        at = bisect_left(self.pending, key)
        assert self.pending[at] == key
        del self.pending[at]
        self.queues[row.queue].pending_count -= 1

    def _charge(self, row: GroupRow, *, sign: int) -> None:
        queue = self.queues[row.queue]
        queue.homes_count += sign
        for product, gpus in row.charge:
            queue.gpus_used[product] = queue.gpus_used.get(product, 0) + sign * gpus
            assert queue.gpus_used[product] >= 0

    def _remember_request(self, position: Position, record: AnyRecord) -> None:
        request_id = record.request_id if isinstance(record, Submitted) else record.cause
        if not request_id:
            return
        uid = group_uid(self.lineage, position) if isinstance(record, Submitted) else getattr(record, "uid", "")
        self.requests.pop(request_id, None)
        self.requests[request_id] = RequestRow(request_digest(record), position, uid, record.at_ms)

    def _pass_time(self, at_ms: int) -> None:
        """Forget request ids and finished groups that are past their window."""
        many = len(self.requests) > REQUESTS_KEPT_MAX or len(self.finished) > FINISHED_KEPT_MAX
        if at_ms <= self.clock_ms and not many:
            return  # no time has passed
        self.clock_ms = max(self.clock_ms, at_ms)
        oldest_ms = self.clock_ms - WINDOW_MS
        while self.requests:
            request_id, known = next(iter(self.requests.items()))
            if known.at_ms >= oldest_ms and len(self.requests) <= REQUESTS_KEPT_MAX:
                break
            del self.requests[request_id]
        while self.finished and (self.finished[0][0] < oldest_ms or len(self.finished) > FINISHED_KEPT_MAX):
            self._archive(self.finished.popleft()[1])

    def _archive(self, uid: GroupUid) -> None:
        row = self.groups.pop(uid)
        assert row.phase.terminal
        if self.names_last.get((row.namespace, row.name)) == uid:
            del self.names_last[row.namespace, row.name]
        spec, shares = self.specs[row.spec_digest]
        if shares > 1:
            self.specs[row.spec_digest] = (spec, shares - 1)
        else:
            del self.specs[row.spec_digest]
