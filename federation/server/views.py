"""Resources as the API shows them: rows of the folded state and records, as JSON-ready mappings.

Read only; the shapes are the API's contract (`docs/api.md`), tested against the OpenAPI document.
"""

from __future__ import annotations

from typing import Any, Final

from federation.core.records import ChildOf
from federation.core.rows import ClusterRow, GroupRow, QueueRow
from placement.explain import ClusterAnswer, Explanation
from placement.model import Phase, RoleRequest

API_VERSION: Final = "muster.io/v1"
View = dict[str, Any]  # JSON edge
ANY_PRODUCT_SHOWN: Final = "any"  # GPUs of groups that accept every product


def group_view(row: GroupRow) -> View:
    request = row.request
    return {
        "apiVersion": API_VERSION,
        "kind": "PodGroup",
        "metadata": {
            "name": row.name,
            "namespace": row.namespace,
            "uid": row.uid,
            "labels": dict(row.labels),
            "resourceVersion": str(row.changed_at),
            "submitted_ms": row.at_ms,
            "actor": row.actor,
        },
        "spec": {
            "queue": row.queue,
            "priority": row.priority,
            "pods": request.pods,
            "min_count": request.min_count,
            **({"elastic": True} if request.elastic else {}),
            **({"failure_spread": row.failure_spread} if row.failure_spread else {}),
            **({"child": _child(row.child)} if row.child is not None else {}),
            "gpus": request.gpus,
            "grace_s": row.grace_s,
            "disconnect_policy": row.disconnect_policy.value,
            "disruption_mode": row.disruption_mode.value,
            "topology": {"required": request.level_required, "preferred": request.level_preferred},
            "roles": [role_view(role) for role in request.roles],
            "workload": row.workload,
        },
        "status": {
            "phase": row.phase.value,
            "cluster": row.home.cluster if row.home else "",
            "token": str(row.home.token) if row.home else "",
            "effective_policy": row.effective_policy.value if row.effective_policy and row.home else "",
            "pods_bound": row.pods_bound if row.home else 0,
            **({"pods_placed": sum(row.counts)} if row.counts else {}),
            **({"resizing": True} if row.resizing else {}),
            "attempts": row.attempts,
            "intent": row.intent.value,
            "last_cluster": row.last_cluster or "",
            "reasons": _unplaced_for(row),
            **({"message": quarantined(row)} if row.phase is Phase.QUARANTINED else {}),
            "conditions": _conditions(row),
        },
    }


def _child(child: ChildOf) -> View:
    """`replicas`: its share of them, 0 before they are divided."""
    return {"spread": child.name, "number": child.number, "of": child.of, "replicas": child.share}


def role_view(role: RoleRequest) -> View:
    return {
        "name": role.name,
        "count": role.count,
        "min_count": role.min_count,
        "gpus": role.gpus,
        **({"gpu_milli": role.gpu_milli} if role.gpu_milli else {}),
        **({"mig_profile": role.mig_profile} if role.mig_profile else {}),
        "cpu_milli": role.cpu_milli,
        "memory_mib": role.memory_mib,
        "products": list(role.products),
        **({"topology": _levels(role)} if role.nested or role.per_host else {}),
    }


def _levels(role: RoleRequest) -> View:
    """As people write it: `slice` and `per_host` only where they say something."""
    numbers = {"slice": role.slice_pods, "per_host": role.per_host}
    said = {name: number for name, number in numbers.items() if number}
    return {"required": role.level_required, "preferred": role.level_preferred, **said}


def _unplaced_for(row: GroupRow) -> list[str]:
    """Why its last home ended, for as long as it has no other one: then that is history."""
    return [] if row.home is not None else list(row.last_reasons)


def _conditions(row: GroupRow) -> list[View]:
    """Kubernetes conventions; upstream's name for the scheduling condition."""
    scheduled = bool(row.bound_at) or row.phase in {Phase.SUCCEEDED, Phase.FAILED}
    why = next(iter(_unplaced_for(row)), row.phase.value)
    return [
        {
            "type": "PodGroupInitiallyScheduled",
            "status": "True" if scheduled else "False",
            "reason": "Scheduled" if scheduled else why,
        },
        {"type": "Placed", "status": "True" if row.home else "False", "reason": row.phase.value},
    ]


def explanation_view(row: GroupRow, why: Explanation) -> View:
    """Why a group waits, per cluster; for one with a home, where it is."""
    waits = row.home is None and not row.phase.terminal and row.phase is not Phase.QUARANTINED
    return {
        "kind": "Explanation",
        "uid": row.uid,
        "name": row.name,
        "phase": row.phase.value,
        "cluster": row.home.cluster if row.home else "",
        "summary": why.summary if waits else _where(row),
        "change": why.change if waits else "",
        "queue": {"name": why.queue, "ahead": why.ahead_count, "ahead_in_queue": why.ahead_in_queue_count},
        "quota": [
            {"product": line.product, "limit": line.limit, "used": line.used, "needs": line.needs} for line in why.quota
        ],
        "would_fit": why.would_fit or "",
        **({"shares": {one.cluster: one.replicas for one in why.shares}} if why.shares else {}),
        "clusters": [_cluster_answer(answer) for answer in why.clusters] if waits else [],
        "candidates": [
            {"cluster": one.cluster, "score": one.score, "terms": dict(one.terms)}
            for one in (why.candidates if waits else ())
        ],
        "mix": [{**kind._asdict(), "per_mille": share} for kind, share in why.mix],
        "last": {"cluster": row.last_cluster or "", "reasons": list(row.last_reasons)},
    }


def _where(row: GroupRow) -> str:
    if row.home is not None:
        size = f" with {row.placed.pods} of {row.request.pods} pods" if row.counts or row.resizing else ""
        return f"{row.phase.value.lower()} on {row.home.cluster}{size}{', being resized' if row.resizing else ''}"
    return quarantined(row) if row.phase is Phase.QUARANTINED else f"ended: {row.phase.value}"


def quarantined(row: GroupRow) -> str:
    return f"{row.intent_reason}: it waits for `muster resume`, or for `muster cancel`"


def _cluster_answer(answer: ClusterAnswer) -> View:
    """The gravest reason in the open, all of them behind it."""
    reasons = [
        {
            "reason": because.reason.code,
            "needs": because.needs,
            "best": because.best,
            "unit": because.unit,
            "detail": because.detail,
            "text": str(because),
        }
        for because in answer.because
    ]
    first = (
        reasons[0]
        if reasons
        else {"reason": "Fits", "needs": 0, "best": 0, "unit": "", "detail": "", "text": "fits now"}
    )
    return {"cluster": answer.cluster, **first, "because": reasons}


def queue_view(row: QueueRow) -> View:
    return {
        "apiVersion": API_VERSION,
        "kind": "Queue",
        "metadata": {"name": row.name, "resourceVersion": str(row.applied_at)},
        "spec": {
            "weight": row.weight,
            "gpu_quota": dict(sorted(row.gpu_quota.items())),
            "disconnect_policy": row.disconnect_policy.value if row.disconnect_policy else "",
        },
        "status": {
            "pending": row.pending_count,
            "running": row.homes_count,
            "gpus_used": {product or ANY_PRODUCT_SHOWN: gpus for product, gpus in sorted(row.gpus_used.items())},
        },
    }


def cluster_view(row: ClusterRow, status: View) -> View:
    return {
        "apiVersion": API_VERSION,
        "kind": "Cluster",
        "metadata": {"name": row.name, "labels": dict(row.labels), "resourceVersion": str(row.changed_at)},
        "spec": {
            "lease_class": row.lease_class.value,
            "cordoned": row.cordoned,
            "drain": row.drain,
            "cordon_reason": row.cordon_reason,
            "accept_unguarded": row.accept_unguarded,
        },
        "status": {
            "groups": len(row.homes),
            "admitted_epoch": row.admitted_epoch,
            "fenced_epoch": row.fenced_epoch,
            **status,
        },
    }
