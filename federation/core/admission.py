"""What becomes of a person's request: a record to append, an answer at once, or a refusal with its reason.

Judged on committed state only, so that the answer never depends on a record that may not land. Writing the record and
answering after it landed is `replica`'s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, assert_never

from federation.core.batch import BATCH_BYTES_MAX
from federation.core.events import (
    Accepted,
    ApplyQueue,
    ConfirmDead,
    CordonCluster,
    Declined,
    JoinCluster,
    PersonRequest,
    Refused,
    RemoveCluster,
    ResizeGroup,
    SetIntent,
    SubmitGroup,
)
from federation.core.formats import REMOVAL, SPREAD
from federation.core.records import (
    ACTOR_CHARS_MAX,
    DETAIL_CHARS_MAX,
    RECORD_BYTES_MAX,
    AnyRecord,
    ClusterConfirmedDead,
    ClusterCordoned,
    ClusterJoined,
    ClusterRemoved,
    IntentSet,
    QueueApplied,
    encode_record,
)
from federation.core.resizes import resize, wish_of_resize
from federation.core.rows import GroupRow, Intent, RequestRow
from federation.core.spreads import children_count, children_of, spread_uid, spread_uid_of, uids_of
from federation.core.state import State
from federation.core.stored import (
    SPEC_JSON_BYTES_MAX,
    Spec,
    body_digest,
    request_digest,
    spec_of,
)
from federation.core.submission import child_submission, submission
from placement.model import LABELS_MAX, ClusterName, DisconnectPolicy, GroupUid, LeaseClass, Phase, PodGroup
from storage.root import FORMAT

PENDING_MAX: Final = 1_000_000  # DESIGN §15
CLUSTERS_MAX: Final = 1_000  # DESIGN §15
QUEUES_MAX: Final = 10_000  # ten per cluster of the largest fleet
REQUEST_ID_CHARS_MAX: Final = 128  # a UUID, or a name with a date
_CLUSTER_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")  # no dots: it is one token of a bus subject
NO_SPEC: Final = Spec({}, b"")


@dataclass(frozen=True, slots=True)
class FenceFirst:
    """The cluster may still act: its lease has to be fenced before it can be recorded as dead."""

    cluster: ClusterName


Admission = tuple[AnyRecord, ...] | Accepted | Declined | FenceFirst
"""Records land together or not at all; there is at least one."""


def admit(
    state: State, request: PersonRequest, *, at_ms: int, pending_extra: int = 0, store_format: int = FORMAT
) -> Admission:
    """Judge one request. `pending_extra`: submissions of the batch being formed, which the state does not show yet."""
    try:
        return _admit(state, request, at_ms, pending_extra, store_format)
    except UnicodeEncodeError as error:  # half of a pair: JSON can say it, and no record can hold it
        return Declined(Refused.INVALID, f"a text is not Unicode: {error}"[:DETAIL_CHARS_MAX])


def _admit(state: State, request: PersonRequest, at_ms: int, pending_extra: int, store_format: int) -> Admission:
    fault = written_badly(request)
    if fault is not None:
        return fault
    spec = _spec_of(request)
    if isinstance(spec, Declined):
        return spec
    known = state.requests.get(request.request_id)
    if known is not None:
        return _repeated(request, spec, known, at_ms)
    outcome = _judge(state, request, spec, at_ms, pending_extra, store_format)
    if isinstance(outcome, Accepted | Declined | FenceFirst):
        return outcome
    records = outcome if isinstance(outcome, tuple) else (outcome,)
    return _within_limits(records) or records


def _within_limits(records: tuple[AnyRecord, ...]) -> Declined | None:
    sizes = [len(encode_record(record)) for record in records]
    if max(sizes) > RECORD_BYTES_MAX:
        return Declined(Refused.LIMIT, f"the request makes a record of more than {RECORD_BYTES_MAX} bytes")
    if sum(sizes) > BATCH_BYTES_MAX:
        of = f"{len(records)} records of {sum(sizes)} bytes, at most {BATCH_BYTES_MAX} land together"
        return Declined(Refused.LIMIT, f"the request makes {of}", "spread")
    return None


def _spec_of(request: PersonRequest) -> Spec | Declined:
    """What a submission says, written once for all that look at it; nothing for other requests."""
    if not isinstance(request, SubmitGroup):
        return NO_SPEC
    try:
        return spec_of(request.group)
    except (ValueError, RecursionError) as error:  # NaN, lone surrogates, nesting without end: no JSON
        return Declined(Refused.BAD_TEMPLATE, f"a template is not JSON: {error}"[:DETAIL_CHARS_MAX], "roles")


def _repeated(request: PersonRequest, spec: Spec, known: RequestRow, at_ms: int) -> Accepted | Declined:
    """A request id that was used lately settles it."""
    if known.digest in _digests_of(request, spec, at_ms):
        uid = known.uid
        if isinstance(request, SubmitGroup) and request.group.spread is not None:
            uid = spread_uid(GroupUid(uid), children_count(request.group.spread, request.group.pods))
        return Accepted(known.position, uid)
    return Declined(
        Refused.REQUEST_ID_CONFLICT,
        f"request id {request.request_id!r} was used for another request, at position {known.position}",
        "request_id",
    )


def _judge(
    state: State, request: PersonRequest, spec: Spec, at_ms: int, pending_extra: int, store_format: int
) -> AnyRecord | Admission:
    match request:
        case SubmitGroup():
            return _submit(state, request, spec, at_ms, pending_extra, store_format)
        case SetIntent():
            return _set_intent(state, request, at_ms)
        case ResizeGroup():
            return resize(state, request, at_ms)
        case ApplyQueue():
            if len(state.queues) >= QUEUES_MAX and state.queue(request.queue.name) is None:
                return Declined(Refused.LIMIT, f"at most {QUEUES_MAX} queues are allowed", "queue")
            return _queue_record(request, at_ms)
        case JoinCluster():
            return _join(state, request, at_ms)
        case CordonCluster():
            if state.cluster(request.cluster) is None:
                return _no_cluster(request.cluster)
            return _cordon_record(request, at_ms)
        case ConfirmDead():
            return _confirm_dead(state, request, at_ms)
        case RemoveCluster():
            return _remove(state, request, at_ms, store_format)
        case _:
            assert_never(request)


def written_badly(request: PersonRequest) -> Declined | None:
    """Limits that hold for every request."""
    if len(request.request_id) > REQUEST_ID_CHARS_MAX:
        return _too_long("request_id", REQUEST_ID_CHARS_MAX, len(request.request_id))
    if len(request.actor) > ACTOR_CHARS_MAX:
        return _too_long("actor", ACTOR_CHARS_MAX, len(request.actor))
    if (
        isinstance(request, SetIntent | CordonCluster | ConfirmDead | RemoveCluster)
        and len(request.reason) > DETAIL_CHARS_MAX
    ):
        return _too_long("reason", DETAIL_CHARS_MAX, len(request.reason))
    return None


def _too_long(field: str, limit: int, actual: int) -> Declined:
    return Declined(Refused.LIMIT, f"{field} has {actual} characters, at most {limit} are allowed", field)


def _digests_of(request: PersonRequest, spec: Spec, at_ms: int) -> set[str]:
    """The digest of the record that this request makes, whatever the state is now; of an act on a spread group, which
    is remembered with the first child that it changed, those of all."""
    if isinstance(request, SetIntent):
        uids = uids_of(request.uid) or (request.uid,)
        return {request_digest(_intent_record(replace(request, uid=uid), at_ms)) for uid in uids}
    return {_digest_of(request, spec, at_ms)}


def _digest_of(
    request: SubmitGroup | ResizeGroup | ApplyQueue | JoinCluster | CordonCluster | ConfirmDead | RemoveCluster,
    spec: Spec,
    at_ms: int,
) -> str:
    match request:
        case SubmitGroup():
            return body_digest(spec.json)
        case ResizeGroup():
            return request_digest(wish_of_resize(request, at_ms))
        case ApplyQueue():
            return request_digest(_queue_record(request, at_ms))
        case JoinCluster():
            return request_digest(_join_record(request, at_ms))
        case CordonCluster():
            return request_digest(_cordon_record(request, at_ms))
        case ConfirmDead():
            return request_digest(_dead_record(request, at_ms))
        case RemoveCluster():
            return request_digest(_removed_record(request, at_ms))
        case _:
            assert_never(request)


# --- submissions -----------------------------------------------------------------------------------------------------


def _submit(
    state: State, request: SubmitGroup, spec: Spec, at_ms: int, pending_extra: int, store_format: int
) -> AnyRecord | Admission:
    group = request.group
    if group.child is not None:
        return Declined(Refused.NOT_TAKEN, "children are made by the server: say spread", "child")
    queue = state.queue(group.queue)
    if queue is None:
        return Declined(Refused.UNKNOWN_QUEUE, f"there is no queue {group.queue!r}", "queue")
    children = children_of(group) if group.spread is not None else ()
    for name in (group.name, *(child.name for child in children)):
        taken_by = state.name_taken_by(group.namespace, name)
        if taken_by is not None:
            return Declined(Refused.NAME_TAKEN, f"{group.namespace}/{name} is {taken_by}, which has not ended", "name")
    if len(state.pending) + pending_extra + max(1, len(children)) > PENDING_MAX:
        return Declined(Refused.LIMIT, f"{PENDING_MAX} groups are pending, which is the limit")
    if len(spec.json) > SPEC_JSON_BYTES_MAX:
        return Declined(
            Refused.LIMIT, f"the manifest has {len(spec.json)} bytes, at most {SPEC_JSON_BYTES_MAX} are allowed"
        )
    policy = group.disconnect_policy
    if queue.disconnect_policy is not None and "disconnect_policy" not in group.model_fields_set:
        policy = queue.disconnect_policy
    if not children:
        return submission(request, spec, policy, at_ms)
    if store_format < SPREAD:
        why = f"the store is of format {store_format}, and spread groups came with {SPREAD}: muster store upgrade"
        return Declined(Refused.NOT_TAKEN, why, "spread")
    return _submit_children(request, spec, children, policy, at_ms)


def _submit_children(
    request: SubmitGroup, spec: Spec, children: tuple[PodGroup, ...], policy: DisconnectPolicy, at_ms: int
) -> tuple[AnyRecord, ...] | Declined:
    """All of them, in order; the request id goes with the first."""
    digest = body_digest(spec.json)
    records: list[AnyRecord] = []
    for number, child in enumerate(children):
        one = SubmitGroup(child, "" if number else request.request_id, request.actor)
        child_spec = spec_of(child)
        if len(child_spec.json) > SPEC_JSON_BYTES_MAX:  # else its agent's word could not bring it back after a restore
            of = f"the manifest of each child has up to {len(child_spec.json)} bytes, at most {SPEC_JSON_BYTES_MAX}"
            return Declined(Refused.LIMIT, f"{of} are allowed", "spread")
        record = child_submission(one, child_spec, policy, at_ms, request_digest="" if number else digest)
        if isinstance(record, Declined):
            return record
        records.append(record)
    return tuple(records)


# --- intents ---------------------------------------------------------------------------------------------------------


def _set_intent(state: State, request: SetIntent, at_ms: int) -> AnyRecord | Admission:
    if request.intent not in set(Intent):
        return Declined(
            Refused.INVALID, f"{request.intent!r} is none of {', '.join(intent.value for intent in Intent)}", "intent"
        )
    uids = uids_of(request.uid)
    rows = [row for row in map(state.group, uids or (request.uid,)) if row is not None]
    if uids is not None:  # whoever miscounts the children means no group that stands behind them
        rows = [row for row in rows if row.child is not None and spread_uid_of(row) == request.uid]
    if not rows:
        return Declined(Refused.UNKNOWN_GROUP, f"there is no group {request.uid!r}", "uid")
    child = rows[0].child
    if uids is None and child is not None:
        why = f"{rows[0].name} is a child of {child.name}: act on that, which goes to all of its children"
        return Declined(Refused.INVALID, why, "name")
    return _intents(rows, request, at_ms)


def _intents(rows: list[GroupRow], request: SetIntent, at_ms: int) -> tuple[AnyRecord, ...] | Accepted | Declined:
    """A record for each group that wants it otherwise so far: one, or the children of a spread group."""
    intent, last = Intent(request.intent), rows[-1]
    living = [row for row in rows if not row.phase.terminal]
    if not living:
        if intent is Intent.CANCEL:
            return Accepted(last.changed_at, last.uid)  # what was asked for is so already
        ended = f"{last.namespace}/{last.child.name if last.child is not None else last.name} is {last.phase}"
        return Declined(Refused.GROUP_FINISHED, ended, "name")
    changed = [row for row in living if not _holds_already(row, intent)]
    if not changed:
        return Accepted(living[0].changed_at, living[0].uid)
    for row in changed:
        if row.intent is Intent.CANCEL:
            return Declined(Refused.INVALID, f"{row.namespace}/{row.name} is being cancelled, which is final", "intent")
    return tuple(
        _intent_record(replace(request, uid=row.uid, request_id="" if number else request.request_id), at_ms)
        for number, row in enumerate(changed)
    )


def _holds_already(row: GroupRow, intent: Intent) -> bool:
    """Quarantined is not suspended: nobody asked for it. Who says `run` of a group that waits after a home it had wants
    it looked at anew, wherever it failed."""
    match intent:
        case Intent.SUSPEND:
            return row.intent is intent and row.phase is not Phase.QUARANTINED
        case Intent.RUN:
            return row.intent is intent and not (row.phase is Phase.PENDING and row.attempts)
        case Intent.MOVE:
            return row.intent is intent or row.home is None
        case _:
            return row.intent is intent


def _intent_record(request: SetIntent, at_ms: int) -> IntentSet:
    return IntentSet(
        actor=request.actor,
        at_ms=at_ms,
        cause=request.request_id,
        uid=request.uid,
        intent=request.intent,
        reason=request.reason,
    )


# --- queues and clusters ---------------------------------------------------------------------------------------------


def _queue_record(request: ApplyQueue, at_ms: int) -> QueueApplied:
    queue = request.queue
    return QueueApplied(
        actor=request.actor,
        at_ms=at_ms,
        cause=request.request_id,
        name=queue.name,
        weight=queue.weight,
        gpu_quota=dict(sorted(queue.gpu_quota.items())),
        disconnect_policy=queue.disconnect_policy or "",
    )


def _join(state: State, request: JoinCluster, at_ms: int) -> AnyRecord | Declined:
    if not _CLUSTER_NAME.match(request.cluster):
        return Declined(Refused.INVALID, f"{request.cluster!r} is not a DNS label of at most 63 characters", "cluster")
    if request.lease_class not in set(LeaseClass):
        classes = ", ".join(one.value for one in LeaseClass)
        return Declined(Refused.INVALID, f"{request.lease_class!r} is none of {classes}", "lease_class")
    if len(request.labels) > LABELS_MAX:
        return Declined(Refused.LIMIT, f"{len(request.labels)} labels, at most {LABELS_MAX} are allowed", "labels")
    if len(state.clusters) >= CLUSTERS_MAX and state.cluster(request.cluster) is None:
        return Declined(Refused.LIMIT, f"at most {CLUSTERS_MAX} clusters are allowed", "cluster")
    return _join_record(request, at_ms)


def _join_record(request: JoinCluster, at_ms: int) -> ClusterJoined:
    return ClusterJoined(
        actor=request.actor,
        at_ms=at_ms,
        cause=request.request_id,
        cluster=request.cluster,
        lease_class=request.lease_class,
        labels=dict(sorted(request.labels)),
        accept_unguarded=request.accept_unguarded,
    )


def _cordon_record(request: CordonCluster, at_ms: int) -> ClusterCordoned:
    return ClusterCordoned(
        actor=request.actor,
        at_ms=at_ms,
        cause=request.request_id,
        cluster=request.cluster,
        cordoned=request.cordoned,
        drain=request.cordoned and request.drain,
        reason=request.reason,
    )


def _confirm_dead(state: State, request: ConfirmDead, at_ms: int) -> AnyRecord | Declined | FenceFirst:
    row = state.cluster(request.cluster)
    if row is None:
        return _no_cluster(request.cluster)
    if not request.reason.strip():
        return Declined(Refused.INVALID, "say how it is known that nothing runs there", "reason")
    if row.admitted or (row.recovering and row.fenced_at <= state.recovering_since):
        return FenceFirst(row.name)
    return _dead_record(request, at_ms)


def _dead_record(request: ConfirmDead, at_ms: int) -> ClusterConfirmedDead:
    return ClusterConfirmedDead(
        actor=request.actor, at_ms=at_ms, cause=request.request_id, cluster=request.cluster, reason=request.reason
    )


def _remove(state: State, request: RemoveCluster, at_ms: int, store_format: int) -> AnyRecord | Declined:
    """Only of a cluster in which nothing of ours can run: one that never might, or whose death somebody vouches for."""
    row = state.cluster(request.cluster)
    if row is None:
        return _no_cluster(request.cluster)
    if store_format < REMOVAL:
        why = f"the store is of format {store_format}, and removing came with {REMOVAL}: muster store upgrade"
        return Declined(Refused.NOT_TAKEN, why, "name")
    if row.homes:
        return Declined(Refused.CLUSTER_IN_USE, f"{len(row.homes)} groups are at home in {row.name}", "name")
    if row.recovering or (row.admitted_epoch and not row.dead_at):
        why = f"{row.name} was admitted, and nobody has confirmed that nothing runs there"
        return Declined(Refused.CLUSTER_IN_USE, why, "name")
    return _removed_record(request, at_ms)


def _removed_record(request: RemoveCluster, at_ms: int) -> ClusterRemoved:
    return ClusterRemoved(
        actor=request.actor, at_ms=at_ms, cause=request.request_id, cluster=request.cluster, reason=request.reason
    )


def _no_cluster(name: str) -> Declined:
    return Declined(Refused.UNKNOWN_CLUSTER, f"there is no cluster {name!r}", "cluster")
