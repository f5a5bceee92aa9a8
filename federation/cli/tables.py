"""The columns of each noun, and the words people may use for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from federation.cli.output import Column, Noun, age, duration

if TYPE_CHECKING:
    from muster.results import ClusterView, Decision, GroupView, QueueView

NOUN_OF: Final = {
    **dict.fromkeys(("podgroups", "podgroup", "pg", "pgs"), "podgroups"),
    **dict.fromkeys(("clusters", "cluster", "cl"), "clusters"),
    **dict.fromkeys(("queues", "queue", "q"), "queues"),
    **dict.fromkeys(("decisions", "decision"), "decisions"),
}


def reason_text(reasons: Iterable[Any]) -> str:
    """The codes of the reasons a group was refused for, most important first."""
    return ",".join(
        str(reason.get("reason", reason)) if isinstance(reason, Mapping) else str(reason) for reason in reasons
    )


def waiting(view: GroupView) -> str:
    """Why it is not running, as far as the listing knows; `explain` tells all."""
    return reason_text(view.status.reasons) or view.status.message


PODGROUPS: Final[Noun[GroupView]] = Noun(
    "PodGroup",
    (
        Column("NAME", lambda view, _: view.metadata.name),
        Column("PHASE", lambda view, _: view.status.phase),
        Column("CLUSTER", lambda view, _: view.status.cluster or ""),
        Column("PODS", lambda view, _: f"{view.status.pods_bound}/{view.spec.pods}"),
        Column("GPUS", lambda view, _: str(view.spec.gpus)),
        Column("QUEUE", lambda view, _: view.spec.queue),
        Column("PRIORITY", lambda view, _: str(view.spec.priority)),
        Column("REASON", lambda view, _: waiting(view)),
        Column("AGE", lambda view, now_ms: age(view.metadata.submitted_ms, now_ms)),
        Column("NAMESPACE", lambda view, _: view.metadata.namespace, wide=True),
        Column("POLICY", lambda view, _: view.status.effective_policy or view.spec.disconnect_policy, wide=True),
        Column("ATTEMPTS", lambda view, _: str(view.status.attempts), wide=True),
        Column("INTENT", lambda view, _: view.status.intent or "", wide=True),
        Column("TOKEN", lambda view, _: view.status.token or "", wide=True),
        Column("UID", lambda view, _: view.metadata.uid, wide=True),
    ),
    lambda view: f"podgroup/{view.metadata.name}",
)


def gpu_total(view: ClusterView, part: str) -> str:
    return str(sum(getattr(count, part) for count in view.status.gpus.values()))


def mode(view: ClusterView) -> str:
    if view.spec.drain:
        return "draining"
    return "cordoned" if view.spec.cordoned else ""


CLUSTERS: Final[Noun[ClusterView]] = Noun(
    "Cluster",
    (
        Column("NAME", lambda view, _: view.metadata.name),
        Column("STATE", lambda view, _: ",".join(part for part in (view.status.state, mode(view)) if part)),
        Column("NODES", lambda view, _: str(view.status.nodes)),
        Column("GPUS", lambda view, _: gpu_total(view, "total")),
        Column("FREE", lambda view, _: gpu_total(view, "free")),
        Column("UNHEALTHY", lambda view, _: gpu_total(view, "unhealthy")),
        Column("GROUPS", lambda view, _: str(view.status.groups)),
        Column("FENCE", lambda view, _: view.status.fence_strength or ""),
        Column("LEASE", lambda view, _: view.spec.lease_class),
        Column("REPORT", lambda view, _: duration(view.status.report_age_s)),
        Column("PRODUCTS", lambda view, _: ",".join(sorted(view.status.gpus)), wide=True),
        Column("EPOCH", lambda view, _: str(view.status.lease_epoch), wide=True),
        Column("SILENT", lambda view, _: duration(view.status.silence_s), wide=True),
        Column("LABELS", lambda view, _: pairs(view.metadata.labels), wide=True),
    ),
    lambda view: f"cluster/{view.metadata.name}",
)


def pairs(values: Mapping[str, object]) -> str:
    """`a=1,b=2`, by key."""
    return ",".join(f"{key}={value}" for key, value in sorted(values.items()))


QUEUES: Final[Noun[QueueView]] = Noun(
    "Queue",
    (
        Column("NAME", lambda view, _: view.metadata.name),
        Column("WEIGHT", lambda view, _: str(view.spec.weight)),
        Column("PENDING", lambda view, _: str(view.status.pending)),
        Column("RUNNING", lambda view, _: str(view.status.running)),
        Column("GPUS-USED", lambda view, _: pairs(view.status.gpus_used)),
        Column("QUOTA", lambda view, _: pairs(view.spec.gpu_quota)),
        Column("POLICY", lambda view, _: view.spec.disconnect_policy or "", wide=True),
    ),
    lambda view: f"queue/{view.metadata.name}",
)


def clock(at_ms: int) -> str:
    """UTC, so that logs of several places compare."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


DECISIONS: Final[Noun[Decision]] = Noun(
    "Decision",
    (
        Column("POSITION", lambda item, _: str(item.position)),
        Column("TIME", lambda item, _: clock(item.at_ms)),
        Column("KIND", lambda item, _: item.kind),
        Column("PODGROUP", lambda item, _: item.name or ""),
        Column("CLUSTER", lambda item, _: item.cluster or ""),
        Column("ACTOR", lambda item, _: item.actor),
        Column("SUMMARY", lambda item, _: item.summary),
        Column("TOKEN", lambda item, _: item.token or "", wide=True),
        Column("UID", lambda item, _: item.uid or "", wide=True),
        Column("CAUSE", lambda item, _: item.cause or "", wide=True),
    ),
    lambda item: f"decision/{item.position}",
)
