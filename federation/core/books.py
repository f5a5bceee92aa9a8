"""What the fold keeps and how it keeps its books: rows, the indices over them, and what follows where a home ends.

`state.State` says what each kind of record does; nothing else calls what begins with an underscore here.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Final, assert_never

from federation.core.history import (
    HISTORY_BYTES_MAX,
    HISTORY_PER_GROUP_MAX,
    RecordSummary,
    with_line,
    without_second,
)
from federation.core.records import AnyRecord, Archived, Record, Restored, Submitted, SubmittedChild, encode_record
from federation.core.rows import (
    DISRUPTION_MODES,
    POLICIES,
    ClusterRow,
    GroupRow,
    Intent,
    Keeper,
    PendingKey,
    QueueRow,
    RequestRow,
    pending_key,
)
from federation.core.spreads import first_uid
from federation.core.stored import ClassKey, charge_of, class_key, request_of
from placement.model import (
    NOWHERE,
    TERMINAL_PHASES,
    ClusterName,
    DisconnectPolicy,
    GangRequest,
    GroupUid,
    Lineage,
    Phase,
    Position,
    QueueName,
)

DEFAULT_QUEUE: Final = QueueName("default")  # exists without a record, so that a first submission just works
FINISHED_KEPT_MAX: Final = 100_000  # DESIGN §15: finished groups in memory, then only in the journal
REQUESTS_KEPT_MAX: Final = 1_000_000  # as many as may be pending: bounds the window where a clock is wrong
WINDOW_MS: Final = 24 * 3_600 * 1_000  # DESIGN §15: how long request ids and finished groups are remembered
LEAVING_MAX: Final = 20_000  # groups that wait for the archive: a store that takes no part for so long loses the oldest
PARTS_KEPT_MAX: Final = 10_000  # parts in which groups are found: 10 MB of keys, about two million groups
SORTED_IN_SHARE: Final = 16  # fewer arrivals than that share are put in one by one; for more, one sort is cheaper
CLASSES_KEPT_MAX: Final = 100_000  # hundreds of times those of a fleet; else a server would keep all that ever were
ENDED_PER_CLUSTER_MAX: Final = 40_000  # as many as may be desired; an agent further behind asks for everything


# In Python 3.11 every look into an enumeration costs a call; these are made for every record.
_PENDING: Final = Phase.PENDING
_PLACED: Final = Phase.PLACED
_BOUND: Final = Phase.BOUND
_RUNNING: Final = Phase.RUNNING
_RUN: Final = Intent.RUN
_HOLD_IN_PLACE: Final = DisconnectPolicy.HOLD_IN_PLACE


class FoldError(Exception):
    """A record contradicts the state before it. Nobody may skip it: the server stops and names it."""

    def __init__(self, position: Position, record: AnyRecord, why: str) -> None:
        super().__init__(f"{type(record).__name__} at position {position} cannot be folded: {why}")
        self.position = position
        self.record = record
        self.why = why


Folds = Mapping[type[Record], Callable[..., GroupRow | None]]
"""What each kind of record does. A table, since a replay asks for it some hundred thousand times a second."""


class Books:
    """Everything that is true at `head`, and the steps of which the fold is made."""

    def __init__(self, lineage: str = "") -> None:
        self.lineage = Lineage(lineage)
        self.head: Position = NOWHERE
        self.recovering_since: Position = NOWHERE  # of the `Restored` record until `Recovered`
        self.restored: Restored | None = None  # that record, meanwhile
        self.restored_again = False  # and whether the backup was of a fleet that recovered itself
        self.clock_ms = 0  # highest wall time on record: what windows are measured with
        self.groups: dict[GroupUid, GroupRow] = {}
        self.clusters: dict[ClusterName, ClusterRow] = {}
        self.queues: dict[QueueName, QueueRow] = {DEFAULT_QUEUE: QueueRow(DEFAULT_QUEUE)}
        self.names: dict[tuple[str, str], GroupUid] = {}  # (namespace, name) of groups that have not ended
        self.names_ended: dict[tuple[str, str], GroupUid] = {}  # of names that are free, the newest that had it
        self.spreads: dict[tuple[str, str], list[GroupUid]] = {}  # the children of the newest spread group of that name
        self.beside: dict[str, dict[ClusterName, int]] = {}  # homes of those that rather do not fail together, by key
        self.requests: OrderedDict[str, RequestRow] = OrderedDict()  # oldest first; taking that off costs O(1)
        self._waiting: list[PendingKey] = []  # sorted
        self._arrived: dict[GroupUid, PendingKey] = {}  # and those that wait since somebody looked at `pending`
        self.small: set[GroupUid] = set()  # at home with fewer pods than all
        self.finished: deque[tuple[int, GroupUid]] = deque()  # (when, who) of ended groups still in memory
        self.leaving: OrderedDict[GroupUid, GroupRow] = OrderedDict()  # ended, past their window, in no part yet
        self.leaving_bytes = 0  # of their histories
        self.parts: deque[Archived] = deque()  # the archive as far as anything is found in it, oldest first
        self.parts_count = 0  # number of the newest
        self.specs: dict[str, tuple[bytes, int]] = {}  # digest -> (bytes, groups that share them)
        self.crowded = False  # more is remembered than may be: the record that brought it is not folded to its end yet
        self.keeper: Keeper | None = None  # sees rows before they change, while a snapshot is taken
        self._classes: dict[GangRequest, tuple[GangRequest, tuple[tuple[str, int], ...]]] = {}
        self._class_of_key: dict[ClassKey, tuple[GangRequest, tuple[tuple[str, int], ...]]] = {}

    # --- questions ---

    @property
    def pending(self) -> list[PendingKey]:
        """All that wait, sorted. A replay puts most of them nowhere: they are placed before anybody looks."""
        waiting, arrived = self._waiting, self._arrived
        if arrived:
            if len(arrived) < len(waiting) // SORTED_IN_SHARE:
                for key in arrived.values():
                    insort(waiting, key)
            else:
                waiting += arrived.values()
                waiting.sort()
            arrived.clear()
        return waiting

    def group(self, uid: str) -> GroupRow | None:
        return self.groups.get(GroupUid(uid))

    def newest(self, namespace: str, name: str) -> GroupRow | None:
        """The newest group of that name that is still here, ended or not."""
        uid = self.names.get((namespace, name)) or self.names_ended.get((namespace, name))
        return self.groups[uid] if uid is not None else None

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

    def homes_in(self, cluster: ClusterRow) -> list[GroupRow]:
        """Groups whose home is there, by token."""
        return [self.groups[uid] for uid in cluster.tokens.values()]

    def class_of(self, request: GangRequest) -> tuple[GangRequest, tuple[tuple[str, int], ...]]:
        """The one copy of this request that all groups share, unless there were too many meanwhile, and what a home of
        it is charged."""
        known = self._classes.get(request)
        if known is None:
            if len(self._classes) >= CLASSES_KEPT_MAX:
                self._classes.clear()
                self._class_of_key.clear()
            known = self._classes[request] = (request, charge_of(request))
        return known

    def siblings(self, row: GroupRow) -> list[GroupRow]:
        """A child of a spread group and its siblings, as far as they are still here, in order."""
        assert row.child is not None
        uids = self.spreads.get((row.namespace, row.child.name), [])
        return [self.groups[uid] for uid in uids] if row.uid in uids else [row]

    def spread(self, namespace: str, name: str) -> list[GroupRow]:
        """The children of the newest spread group of that name that are still here; none if there is none."""
        return [self.groups[uid] for uid in self.spreads.get((namespace, name), [])]

    def name_taken_by(self, namespace: str, name: str) -> GroupUid | None:
        """The group, or the first child that lives of a spread group, to which the name belongs."""
        living = (row.uid for row in self.spread(namespace, name) if not row.phase.terminal)
        return self.names.get((namespace, name)) or next(living, None)

    def note_child(self, row: GroupRow) -> None:
        """It can be found with its siblings."""
        assert row.child is not None
        key = (row.namespace, row.child.name)
        known = self.spreads.get(key, [])
        same = bool(known) and self._first_of(known[0]) == self._first_of(row.uid)
        self.spreads[key] = [*known, row.uid] if same else [row.uid]

    # --- where a home ends ---

    def _end_home(self, position: Position, row: GroupRow, token: str) -> None:
        """The home ends here, and with it its token: quota returns, and the cluster's feed tells its agent."""
        home = row.home
        assert home is not None
        cluster = self.clusters[home.cluster]
        del cluster.homes[row.uid]
        del cluster.tokens[home.token.position]
        if row.sizing is not None:
            del cluster.resizes[row.sizing.at]
        if self.keeper is not None:
            self.keeper.ends_change(cluster)
        cluster.ended[token] = position
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
        if row.counts:
            self.small.discard(row.uid)
        row.counts, row.sizing = (), None
        row.phase = _PENDING

    def _displace(self, position: Position, row: GroupRow, record: AnyRecord) -> None:
        """End the home without its agent's word."""
        self._about_to_change(row)
        row.last_verdict = None
        row.last_reasons = ()
        assert row.home is not None
        self._end_home(position, row, str(row.home.token))
        row.displaced = True
        self._settle(row)
        self._note(row, position, encode_record(record))

    def _settle(self, row: GroupRow) -> None:
        """Bring a group without home to where its intent wants it."""
        if row.home is not None:
            return
        if row.phase not in TERMINAL_PHASES:
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
        if row.phase in TERMINAL_PHASES:
            row.displaced = False
            self.names_ended[row.namespace, row.name] = self.names.pop((row.namespace, row.name))
            self.finished.append((self.clock_ms, row.uid))
            if len(self.finished) > FINISHED_KEPT_MAX:
                self.crowded = True

    def _phase_of(self, row: GroupRow) -> Phase:
        if row.home is None:
            return _PENDING
        if row.intent is not _RUN:
            return Phase.EVICTING
        held = row.effective_policy is _HOLD_IN_PLACE and row.bound_at
        if held and not self.clusters[row.home.cluster].admitted:
            return Phase.STRANDED
        if row.running_at:
            return _RUNNING
        return _BOUND if row.bound_at else _PLACED

    def _rephase(self, cluster: ClusterRow) -> None:
        for group in self.homes_in(cluster):
            self._about_to_change(group)
            group.phase = self._phase_of(group)

    # --- bookkeeping ---

    def _enter(self, position: Position, record: AnyRecord, submitted: Submitted, uid: GroupUid) -> GroupRow:
        """A group joins, under a name that is free; it waits for nothing yet."""
        name, namespace, digest = submitted.name, submitted.namespace, submitted.body_digest
        key = (namespace, name)
        child = submitted.child if type(submitted) is SubmittedChild else None
        if child is not None or key in self.names or key in self.spreads:
            self._expect_names(position, record, submitted, uid)
        queue = self.queue(submitted.queue)
        if queue is None:
            raise FoldError(position, record, f"there is no queue {submitted.queue}")
        request, charge = self._class_of(submitted)
        row = GroupRow(  # by place, which is found in half the time
            position,
            uid,
            name,
            namespace,
            queue.name,
            submitted.priority,
            request,
            POLICIES[submitted.disconnect_policy],
            DISRUPTION_MODES[submitted.disruption_mode],
            submitted.grace_s,
            submitted.labels,
            submitted.workload,
            digest,
            submitted.actor,
            submitted.at_ms,
            Phase.SUSPENDED if submitted.suspend else _PENDING,
            Intent.SUSPEND if submitted.suspend else _RUN,
            changed_at=position,
            child=child,
            failure_spread=submitted.failure_spread,
            charge=charge,
        )
        known = self.specs.get(digest)
        self.specs[digest] = (submitted.spec, 1) if known is None else (known[0], known[1] + 1)
        self.groups[uid] = row
        self.names[key] = uid
        self.names_ended.pop(key, None)
        if child is not None:
            self.note_child(row)
        asked = child is not None and isinstance(submitted, SubmittedChild) and submitted.request_digest
        self._remember(RequestRow(submitted.request_id, asked or digest, position, uid, record.at_ms))
        return row

    def _expect_names(self, position: Position, record: AnyRecord, submitted: Submitted, uid: GroupUid) -> None:
        """Nobody else has the name, nor, if it is a child's, that of its spread group but its siblings."""
        taken = self.name_taken_by(submitted.namespace, submitted.name)
        if taken is not None:
            raise FoldError(position, record, f"the name {submitted.namespace}/{submitted.name} is taken")
        if not isinstance(submitted, SubmittedChild):
            return
        child = submitted.child
        taken = self.name_taken_by(submitted.namespace, child.name)
        if taken is not None and self._first_of(taken) != first_uid(uid, child.number):
            raise FoldError(position, record, f"the name {submitted.namespace}/{child.name} is taken")

    def _first_of(self, uid: GroupUid) -> GroupUid | None:
        """The first child of the spread group that a group is of."""
        child = self.groups[uid].child
        return first_uid(uid, child.number) if child is not None else None

    def _row(self, position: Position, record: AnyRecord, uid: str) -> GroupRow:
        row: GroupRow | None = self.groups.get(uid)  # type: ignore[call-overload]  # a new type is a call more
        if row is None:
            raise FoldError(position, record, f"there is no group {uid}")
        if self.keeper is not None:
            self.keeper.group_changes(row)
        return row

    def _about_to_change(self, row: GroupRow) -> None:
        if self.keeper is not None:
            self.keeper.group_changes(row)

    def _cluster(self, position: Position, record: AnyRecord, name: str) -> ClusterRow:
        row: ClusterRow | None = self.clusters.get(name)  # type: ignore[call-overload]  # as above
        if row is None:
            raise FoldError(position, record, f"there is no cluster {name}")
        return row

    def _expect_home(self, position: Position, record: AnyRecord, row: GroupRow, token: str) -> None:
        home = row.home
        if home is None or f"{home.token.lineage}.{home.token.position}" != token:  # as `str`, without its call
            raise FoldError(position, record, f"its home is {home}, not token {token}")

    def _class_of(self, record: Submitted) -> tuple[GangRequest, tuple[tuple[str, int], ...]]:
        """Of most records the class is known; then it need not be made to find it."""
        key = class_key(record)
        known = self._class_of_key.get(key)
        if known is None:
            known = self._class_of_key[key] = self.class_of(request_of(record))
        return known

    def _note(self, row: GroupRow, position: Position, encoded: bytes) -> None:
        """The group changed here: history, and its place in the cluster's feed of changes."""
        row.changed_at = position
        packed, count = with_line(row.history_packed, position, encoded), row.history_count + 1
        while count > HISTORY_PER_GROUP_MAX or len(packed) > HISTORY_BYTES_MAX:
            packed = without_second(packed, count)
            count -= 1
            row.history_cut += 1
        row.history_packed, row.history_count = packed, count
        home = row.home
        if home is not None:
            cluster, uid = self.clusters[home.cluster], row.uid
            homes = cluster.homes
            homes.pop(uid, None)
            homes[uid] = position
            cluster.changed_at = position

    def _enter_pending(self, row: GroupRow) -> None:
        self._arrived[row.uid] = pending_key(row)
        self.queues[row.queue].pending_count += 1

    def _leave_pending(self, row: GroupRow) -> None:
        if self._arrived.pop(row.uid, None) is None:
            key = pending_key(row)
            at = bisect_left(self._waiting, key)
            assert self._waiting[at] == key
            del self._waiting[at]
        self.queues[row.queue].pending_count -= 1

    def _charge(self, row: GroupRow, *, sign: int) -> None:
        queue = self.queues[row.queue]
        queue.homes_count += sign
        used = queue.gpus_used
        for product, gpus in row.charge:
            now = used.get(product, 0) + sign * gpus
            assert now >= 0
            used[product] = now
        if row.failure_spread:
            self.count_beside(row, sign=sign)

    def count_beside(self, row: GroupRow, *, sign: int) -> None:
        """A group that should rather not fail with others begins or ends a home."""
        assert row.home is not None
        homes = self.beside.setdefault(row.beside, {})
        homes[row.home.cluster] = homes.get(row.home.cluster, 0) + sign
        if not homes[row.home.cluster]:
            del homes[row.home.cluster]
        if not homes:
            del self.beside[row.beside]

    def _remember(self, request: RequestRow) -> None:
        """A request without an id cannot be repeated."""
        request_id = request.request_id
        if request_id:
            requests = self.requests
            if request_id in requests:
                requests.move_to_end(request_id)
            requests[request_id] = request
            if len(requests) > REQUESTS_KEPT_MAX:
                self.crowded = True

    def _pass_time(self, at_ms: int) -> None:
        """Forget request ids and finished groups that are past their window, or more than are kept."""
        self.crowded = False
        self.clock_ms = max(self.clock_ms, at_ms)
        oldest_ms = self.clock_ms - WINDOW_MS
        while self.requests:
            known = self.requests[next(iter(self.requests))]
            if known.at_ms >= oldest_ms and len(self.requests) <= REQUESTS_KEPT_MAX:
                break
            self.requests.popitem(last=False)
        while self.finished and (self.finished[0][0] < oldest_ms or len(self.finished) > FINISHED_KEPT_MAX):
            self._leave(self.finished.popleft()[1])

    def _leave(self, uid: GroupUid) -> None:
        """From here on the group is not among those that can change; its manifest is in the journal only."""
        row = self.groups.pop(uid)
        assert row.phase.terminal
        if self.names_ended.get((row.namespace, row.name)) == uid:
            del self.names_ended[row.namespace, row.name]
        if row.child is not None:
            self._forget_child(row, row.child.name)
        spec, shares = self.specs[row.spec_digest]
        if shares > 1:
            self.specs[row.spec_digest] = (spec, shares - 1)
        else:
            del self.specs[row.spec_digest]
        self.leaving[uid] = row
        self.leaving_bytes += len(row.history_packed)
        if len(self.leaving) > LEAVING_MAX:
            self._drop_leaving()

    def _forget_child(self, row: GroupRow, name: str) -> None:
        left = [uid for uid in self.spreads.get((row.namespace, name), []) if uid != row.uid]
        if left:
            self.spreads[row.namespace, name] = left
        else:
            self.spreads.pop((row.namespace, name), None)

    def _drop_leaving(self) -> GroupUid:
        uid, row = self.leaving.popitem(last=False)
        self.leaving_bytes -= len(row.history_packed)
        return uid

    def _archived(self, position: Position, record: Archived) -> None:
        if record.part != self.parts_count + 1:
            raise FoldError(position, record, f"the newest part is {self.parts_count}")
        self.parts_count = record.part
        self.parts.append(record)
        if len(self.parts) > PARTS_KEPT_MAX:
            self.parts.popleft()
        if GroupUid(record.last) in self.leaving:
            while self._drop_leaving() != record.last:
                pass

    FOLDS: ClassVar[Folds] = {Archived: _archived}
