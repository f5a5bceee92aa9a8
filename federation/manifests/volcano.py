"""Volcano: PodGroups (`scheduling.volcano.sh/v1beta1`), named by an annotation of the pods, and its own Job.

A Volcano Job is read as bare pods, one role per task: the member cluster needs no Volcano.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from federation.manifests import batch_job
from federation.manifests.foreign import Dialect, Terms, priority_fields
from federation.manifests.strict import Document, ManifestError
from federation.manifests.wishes import mapping, only, optional, own_labels, sequence, texts, wishes_of
from placement.model import PodGroup

LINKS: Final = ("scheduling.k8s.io/group-name", "scheduling.volcano.sh/group-name")
TASK: Final = "volcano.sh/task-spec"
JOB: Final = ("batch.volcano.sh/v1alpha1", "Job")
_GROUP: Final = frozenset({"minMember", "minTaskMember", "minResources", "queue", "priorityClassName"})
_GROUP_NOT: Final = frozenset({"networkTopology", "subGroupPolicy"})
_JOB: Final = frozenset({"minAvailable", "tasks", "queue", "priorityClassName", "schedulerName", "maxRetry"})
_JOB_NOT: Final = frozenset({"plugins", "policies", "volumes", "networkTopology", "minSuccess", "runningEstimate"})
_TASK: Final = frozenset({"name", "replicas", "minAvailable", "template", "maxRetry"})
_TASK_NOT: Final = frozenset({"policies", "dependsOn", "topologyPolicy", "partitionPolicy"})


def _terms_of(group: Document, context: Sequence[Document]) -> Terms:
    del context
    spec = mapping(group, "spec")
    only(spec, _GROUP, "spec", not_taken=_GROUP_NOT)
    fields = _named(spec, minMember="min_count", queue="queue")
    return Terms({**fields, **priority_fields(spec, group)}, optional(spec, "minTaskMember", "spec.minTaskMember"))


def _named(spec: Mapping[str, Any], **names: str) -> dict[str, Any]:
    """Fields under the model's names, where they are set."""
    return {ours: spec[theirs] for theirs, ours in names.items() if spec.get(theirs) is not None}


def _link_of(pod: Mapping[str, Any]) -> str:
    notes = texts(optional(pod, "metadata", "metadata"), "annotations")
    return str(next((notes[link] for link in LINKS if notes.get(link)), ""))


def _role_of(pod: Mapping[str, Any]) -> str:
    return str(texts(optional(pod, "metadata", "metadata"), "annotations").get(TASK, ""))


def read_job(document: Document) -> PodGroup:
    """A Volcano Job: its tasks are roles, its `minAvailable` the gang."""
    metadata, spec = mapping(document, "metadata"), mapping(document, "spec")
    only(spec, _JOB, "spec", not_taken=_JOB_NOT)
    tasks = sequence(spec, "tasks", "spec.tasks")
    if not tasks:
        raise ManifestError("MissingField", "a Job has at least one task", "spec.tasks")
    roles = [_role(task, f"spec.tasks[{index}]") for index, task in enumerate(tasks)]
    wishes = wishes_of(metadata)
    products = wishes.pop("products", None)
    graces = [batch_job.grace_of(role["template"], "template") for role in roles]
    return PodGroup.model_validate(
        {
            "name": metadata.get("name"),
            "namespace": metadata.get("namespace", "default"),
            "labels": own_labels(metadata),
            "roles": [{**role, "products": products} if products is not None else role for role in roles],
            "grace_s": max(graces, key=lambda grace: grace if isinstance(grace, int) else 0),
            **_named(spec, minAvailable="min_count", queue="queue"),
            **priority_fields(spec, document),
            **wishes,
        }
    )


def _role(task: Mapping[str, Any], where: str) -> dict[str, Any]:
    only(task, _TASK, where, not_taken=_TASK_NOT)
    template = mapping(task, "template", f"{where}.template")
    spec = {
        key: value
        for key, value in mapping(template, "spec", f"{where}.template.spec").items()
        if key != "schedulerName"
    }
    role = {
        "name": task.get("name", "worker"),
        "count": task.get("replicas", 1),
        "template": {**template, "spec": spec},
    }
    return {**role, **_named(task, minAvailable="min_count")}


DIALECT: Final = Dialect(
    kinds=frozenset({("scheduling.volcano.sh/v1beta1", "PodGroup")}),
    link=f"the annotation {LINKS[0]}",
    terms_of=_terms_of,
    link_of=_link_of,
    role_of=_role_of,
    marks=frozenset({*LINKS, TASK}),
)
