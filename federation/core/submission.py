"""From a PodGroup to the record of its submission. Whether it is taken at all is `admission`'s."""

from __future__ import annotations

from typing import Final

import msgspec

from federation.core.events import Declined, Refused, SubmitGroup
from federation.core.records import ChildOf, Submitted, SubmittedChild
from federation.core.stored import Spec, body_digest, pack_spec
from federation.core.wishes import Wishes
from placement.model import DisconnectPolicy, PodGroup
from placement.pod_wishes import NotHonouredError
from placement.requests import TemplateError

_wishes: Final = Wishes()


def submission(request: SubmitGroup, spec: Spec, policy: DisconnectPolicy, at_ms: int) -> Submitted | Declined:
    """The record of an accepted PodGroup, or what is wrong with its templates. Nothing else is judged here."""
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
        failure_spread=group.failure_spread,
        disruption_mode=group.disruption_mode,
        disconnect_policy=policy,
        grace_s=group.grace_s,
        suspend=group.suspend,
        labels=dict(group.labels),
        workload=group.workload,
        spec=pack_spec(spec.json),
    )


def child_submission(
    request: SubmitGroup, spec: Spec, policy: DisconnectPolicy, at_ms: int, *, request_digest: str = ""
) -> SubmittedChild | Declined:
    """The same for a child of a spread group. `request_digest` is the whole group's, with the first child."""
    record = submission(request, spec, policy, at_ms)
    if isinstance(record, Declined):
        return record
    child, spread = request.group.child, request.group.spread
    assert child is not None
    assert spread is not None
    fields = msgspec.structs.asdict(record)
    where = ChildOf(child.name, child.number, child.of, child.replicas, spread.clusters.min, spread.divide.value)
    return SubmittedChild(**fields, child=where, request_digest=request_digest)
