"""PodGroups of the KAI scheduler: `scheduling.run.ai/v2alpha2`, named by an annotation of the pods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from federation.manifests.foreign import Dialect, Terms, priority_fields
from federation.manifests.strict import Document
from federation.manifests.wishes import mapping, only, optional, texts

LINK: Final = "pod-group-name"
QUEUE_LABEL: Final = "kai.scheduler/queue"
_KNOWN: Final = frozenset(
    {"minMember", "queue", "priorityClassName", "preemptibility", "topologyConstraint", "markUnschedulable"}
)
_NO_EFFECT: Final = frozenset({"schedulingBackoff", "preemptionDelay"})  # waiting costs nothing here
_NOT_TAKEN: Final = frozenset({"subGroups", "minSubGroup", "backoff"})
_TOPOLOGY: Final = frozenset({"topology", "requiredTopologyLevel", "preferredTopologyLevel"})


def _terms_of(group: Document, context: Sequence[Document]) -> Terms:
    del context
    spec = mapping(group, "spec")
    only(spec, _KNOWN | _NO_EFFECT, "spec", not_taken=_NOT_TAKEN)
    fields: dict[str, Any] = priority_fields(spec, group)
    if spec.get("minMember") is not None:
        fields["min_count"] = spec["minMember"]
    queue = spec.get("queue") or texts(mapping(group, "metadata"), "labels").get(QUEUE_LABEL)
    if queue:
        fields["queue"] = queue
    return Terms({**fields, **_topology_of(spec)})


def _topology_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Levels are node label keys, as here; the Topology object they come from is not needed."""
    constraint = optional(spec, "topologyConstraint", "spec.topologyConstraint")
    only(constraint, _TOPOLOGY, "spec.topologyConstraint", not_taken=frozenset())
    levels = {
        name: constraint[f"{name}TopologyLevel"]
        for name in ("required", "preferred")
        if constraint.get(f"{name}TopologyLevel")
    }
    return {"topology": levels} if levels else {}


def _link_of(pod: Mapping[str, Any]) -> str:
    return str(texts(optional(pod, "metadata", "metadata"), "annotations").get(LINK, ""))


DIALECT: Final = Dialect(
    kinds=frozenset({("scheduling.run.ai/v2alpha2", "PodGroup")}),
    link=f"the annotation {LINK}",
    terms_of=_terms_of,
    link_of=_link_of,
    marks=frozenset({LINK, QUEUE_LABEL}),
)
