"""What becomes of a person's request: a record to append, an answer at once, or a refusal with its reason.

Judged on committed state only, so that the answer never depends on a record that may not land. Writing the record and
answering after it landed is `replica`'s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, assert_never

from federation.core.events import (
    Accepted,
    ApplyQueue,
    ConfirmDead,
    CordonCluster,
    Declined,
    JoinCluster,
    PersonRequest,
    Refused,
    SetIntent,
    SubmitGroup,
)
from federation.core.records import (
    ACTOR_CHARS_MAX,
    DETAIL_CHARS_MAX,
    RECORD_BYTES_MAX,
    AnyRecord,
    ClusterConfirmedDead,
    ClusterCordoned,
    ClusterJoined,
    IntentSet,
    QueueApplied,
    Record,
    Submitted,
    encode_record,
)
from federation.core.rows import GroupRow, Intent
from federation.core.state import State
from federation.core.stored import (
    SPEC_JSON_BYTES_MAX,
    Spec,
    body_digest,
    pack_spec,
    request_digest,
    spec_of,
)
from federation.core.wishes import Wishes
from placement.model import LABELS_MAX, ClusterName, DisconnectPolicy, LeaseClass, PodGroup
from placement.pod_wishes import NotHonouredError
from placement.requests import TemplateError

PENDING_MAX: Final = 1_000_000  # DESIGN §15
CLUSTERS_MAX: Final = 1_000  # DESIGN §15
QUEUES_MAX: Final = 10_000  # ten per cluster of the largest fleet
REQUEST_ID_CHARS_MAX: Final = 128  # a UUID, or a name with a date
_CLUSTER_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")  # no dots: it is one token of a bus subject
NO_SPEC: Final = Spec({}, b"")
_wishes: Final = Wishes()


@dataclass(frozen=True, slots=True)
class FenceFirst:
    """The cluster may still act: its lease has to be fenced before it can be recorded as dead."""

    cluster: ClusterName


Admission = AnyRecord | Accepted | Declined | FenceFirst


def admit(state: State, request: PersonRequest, *, at_ms: int, pending_extra: int = 0) -> Admission:
    """Judge one request. `pending_extra`: submissions of the batch being formed, which the state does not show yet."""
    fault = written_badly(request)
    if fault is not None:
        return fault
    spec = _spec_of(request)
    if isinstance(spec, Declined):
        return spec
    outcome = _answer_or_judge(state, request, spec, at_ms, pending_extra)
    if isinstance(outcome, Record) and len(encode_record(outcome)) > RECORD_BYTES_MAX:
        return Declined(Refused.LIMIT, f"the request makes a record of more than {RECORD_BYTES_MAX} bytes")
    return outcome


def _spec_of(request: PersonRequest) -> Spec | Declined:
    """What a submission says, written once for all that look at it; nothing for other requests."""
    if not isinstance(request, SubmitGroup):
        return NO_SPEC
    try:
        return spec_of(request.group)
    except (ValueError, RecursionError) as error:  # NaN, lone surrogates, nesting without end: no JSON
        return Declined(Refused.BAD_TEMPLATE, f"a template is not JSON: {error}"[:DETAIL_CHARS_MAX], "roles")


def _answer_or_judge(state: State, request: PersonRequest, spec: Spec, at_ms: int, pending_extra: int) -> Admission:
    """A request id that was used lately settles it; else the request is judged."""
    known = state.requests.get(request.request_id)
    if known is None:
        return _judge(state, request, spec, at_ms, pending_extra)
    if known.digest == _digest_of(request, spec, at_ms):
        return Accepted(known.position, known.uid)
    return Declined(
        Refused.REQUEST_ID_CONFLICT,
        f"request id {request.request_id!r} was used for another request, at position {known.position}",
        "request_id",
    )


def _judge(state: State, request: PersonRequest, spec: Spec, at_ms: int, pending_extra: int) -> Admission:
    match request:
        case SubmitGroup():
            return _submit(state, request, spec, at_ms, pending_extra)
        case SetIntent():
            return _set_intent(state, request, at_ms)
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
        case _:
            assert_never(request)


def written_badly(request: PersonRequest) -> Declined | None:
    """Limits that hold for every request."""
    if len(request.request_id) > REQUEST_ID_CHARS_MAX:
        return _too_long("request_id", REQUEST_ID_CHARS_MAX, len(request.request_id))
    if len(request.actor) > ACTOR_CHARS_MAX:
        return _too_long("actor", ACTOR_CHARS_MAX, len(request.actor))
    if isinstance(request, SetIntent | CordonCluster | ConfirmDead) and len(request.reason) > DETAIL_CHARS_MAX:
        return _too_long("reason", DETAIL_CHARS_MAX, len(request.reason))
    return None


def _too_long(field: str, limit: int, actual: int) -> Declined:
    return Declined(Refused.LIMIT, f"{field} has {actual} characters, at most {limit} are allowed", field)


def _digest_of(request: PersonRequest, spec: Spec, at_ms: int) -> str:
    """The digest of the record this request makes, whatever the state is now."""
    match request:
        case SubmitGroup():
            return body_digest(spec.json)
        case SetIntent():
            return request_digest(_intent_record(request, at_ms))
        case ApplyQueue():
            return request_digest(_queue_record(request, at_ms))
        case JoinCluster():
            return request_digest(_join_record(request, at_ms))
        case CordonCluster():
            return request_digest(_cordon_record(request, at_ms))
        case ConfirmDead():
            return request_digest(_dead_record(request, at_ms))
        case _:
            assert_never(request)


# --- submissions -----------------------------------------------------------------------------------------------------


def _submit(state: State, request: SubmitGroup, spec: Spec, at_ms: int, pending_extra: int) -> Admission:
    group = request.group
    queue = state.queue(group.queue)
    if queue is None:
        return Declined(Refused.UNKNOWN_QUEUE, f"there is no queue {group.queue!r}", "queue")
    taken_by = state.names.get((group.namespace, group.name))
    if taken_by is not None:
        return Declined(
            Refused.NAME_TAKEN, f"{group.namespace}/{group.name} is {taken_by}, which has not ended", "name"
        )
    if len(state.pending) + pending_extra >= PENDING_MAX:
        return Declined(Refused.LIMIT, f"{PENDING_MAX} groups are pending, which is the limit")
    if len(spec.json) > SPEC_JSON_BYTES_MAX:
        return Declined(
            Refused.LIMIT, f"the manifest has {len(spec.json)} bytes, at most {SPEC_JSON_BYTES_MAX} are allowed"
        )
    policy = group.disconnect_policy
    if queue.disconnect_policy is not None and "disconnect_policy" not in group.model_fields_set:
        policy = queue.disconnect_policy
    return submission(request, spec, policy, at_ms)


def submission(request: SubmitGroup, spec: Spec, policy: DisconnectPolicy, at_ms: int) -> Submitted | Declined:
    group: PodGroup = request.group
    try:
        wanted, shapes, extras = _wishes.of(group, spec.fields)
    except NotHonouredError as error:
        return Declined(Refused.NOT_TAKEN, error.why, error.field)
    except TemplateError as error:
        return Declined(Refused.BAD_TEMPLATE, error.why, error.field)
    return Submitted(
        actor=request.actor,
        at_ms=at_ms,
        cause=request.request_id,
        name=group.name,
        namespace=group.namespace,
        queue=group.queue,
        priority=group.priority,
        request_id=request.request_id,
        body_digest=body_digest(spec.json),
        roles=shapes,
        role_extras=extras,
        min_count=wanted.min_count,
        level_required=wanted.level_required,
        level_preferred=wanted.level_preferred,
        cluster_labels=wanted.cluster_labels,
        cluster_labels_not=wanted.cluster_labels_not,
        lease_classes=wanted.lease_classes,
        data=wanted.data,
        elastic=wanted.elastic,
        disruption_mode=group.disruption_mode,
        disconnect_policy=policy,
        grace_s=group.grace_s,
        suspend=group.suspend,
        labels=dict(group.labels),
        workload=group.workload,
        spec=pack_spec(spec.json),
    )


# --- intents ---------------------------------------------------------------------------------------------------------


def _set_intent(state: State, request: SetIntent, at_ms: int) -> Admission:
    row = state.group(request.uid)
    if row is None:
        return Declined(Refused.UNKNOWN_GROUP, f"there is no group {request.uid!r}", "uid")
    if request.intent not in set(Intent):
        return Declined(
            Refused.INVALID, f"{request.intent!r} is none of {', '.join(intent.value for intent in Intent)}", "intent"
        )
    intent = Intent(request.intent)
    if row.phase.terminal:
        if intent is Intent.CANCEL:
            return Accepted(row.changed_at, row.uid)  # what was asked for is so already
        return Declined(Refused.GROUP_FINISHED, f"{row.namespace}/{row.name} is {row.phase}", "name")
    if _holds_already(row, intent):
        return Accepted(row.changed_at, row.uid)
    if row.intent is Intent.CANCEL:
        return Declined(Refused.INVALID, f"{row.namespace}/{row.name} is being cancelled, which is final", "intent")
    return _intent_record(request, at_ms)


def _holds_already(row: GroupRow, intent: Intent) -> bool:
    return row.intent is intent or (intent is Intent.MOVE and row.home is None)


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


def _join(state: State, request: JoinCluster, at_ms: int) -> Admission:
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


def _confirm_dead(state: State, request: ConfirmDead, at_ms: int) -> Admission:
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


def _no_cluster(name: str) -> Declined:
    return Declined(Refused.UNKNOWN_CLUSTER, f"there is no cluster {name!r}", "cluster")
