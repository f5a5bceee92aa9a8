"""PodGroups of scheduler-plugins' coscheduling: `scheduling.x-k8s.io/v1alpha1`, named by a label of the pods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from federation.manifests.foreign import Dialect, Terms
from federation.manifests.strict import Document
from federation.manifests.wishes import mapping, only, optional, texts

LABEL: Final = "scheduling.x-k8s.io/pod-group"
LABEL_OLD: Final = "pod-group.scheduling.sigs.k8s.io"
# What the templates say counts; a gang is bound at once, so there is no permit to wait for.
_NO_EFFECT: Final = frozenset({"minResources", "scheduleTimeoutSeconds"})


def _terms_of(group: Document, context: Sequence[Document]) -> Terms:
    del context
    spec = mapping(group, "spec")
    only(spec, _NO_EFFECT | {"minMember"}, "spec", not_taken=frozenset())
    return Terms({"min_count": spec["minMember"]} if "minMember" in spec else {})


def _link_of(pod: Mapping[str, Any]) -> str:
    labels = texts(optional(pod, "metadata", "metadata"), "labels")
    return str(labels.get(LABEL) or labels.get(LABEL_OLD) or "")


DIALECT: Final = Dialect(
    kinds=frozenset({("scheduling.x-k8s.io/v1alpha1", "PodGroup")}),
    link=f"the label {LABEL}",
    terms_of=_terms_of,
    link_of=_link_of,
    marks=frozenset({LABEL, LABEL_OLD}),
)
