"""JobSet (`jobset.x-k8s.io/v1alpha2`): all its Jobs together are one gang, each replicated Job a role.

Read as bare pods with Muster's environment; the member cluster needs no JobSet controller. What only that controller
could do is refused, not dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from federation.manifests import batch_job, kueue
from federation.manifests.strict import Document, ManifestError
from federation.manifests.wishes import mapping, only, own_labels, sequence, wishes_of
from placement.model import PodGroup

KIND: Final = ("jobset.x-k8s.io/v1alpha2", "JobSet")
_KNOWN: Final = frozenset({"replicatedJobs", "suspend"})
_NO_EFFECT: Final = frozenset({"network", "ttlSecondsAfterFinished"})  # gangs find one another by MUSTER_LEADER_ADDR
_NOT_TAKEN: Final = frozenset({"successPolicy", "failurePolicy", "startupPolicy", "managedBy", "coordinator"})
_REPLICATED: Final = frozenset({"name", "replicas", "template"})


def read(document: Document) -> PodGroup:
    """A PodGroup of bare pods: `replicas` x `parallelism` of each replicated Job, all of them or none."""
    asked = kueue.wishes_of(document) if kueue.labelled(document) else {}
    metadata, spec = mapping(kueue.unmarked(document), "metadata"), mapping(document, "spec")
    only(spec, _KNOWN | _NO_EFFECT, "spec", not_taken=_NOT_TAKEN)
    jobs = sequence(spec, "replicatedJobs", "spec.replicatedJobs")
    if not jobs:
        raise ManifestError("MissingField", "a JobSet has at least one replicated Job", "spec.replicatedJobs")
    wishes = wishes_of(metadata)
    products = wishes.pop("products", None)
    labelled = kueue.labelled(document)
    roles = [_role(job, f"spec.replicatedJobs[{index}]", labelled=labelled) for index, job in enumerate(jobs)]
    graces = [batch_job.grace_of(role["template"], "template") for role in roles]
    return PodGroup.model_validate(
        {
            "name": metadata.get("name"),
            "namespace": metadata.get("namespace", "default"),
            "labels": own_labels(metadata),
            "roles": [{**role, "products": products} if products is not None else role for role in roles],
            "grace_s": max(graces, key=lambda grace: grace if isinstance(grace, int) else 0),
            "suspend": False if asked else spec.get("suspend", False),  # Kueue's users write true and let it start
            **asked,
            **wishes,
        }
    )


def _role(job: Mapping[str, Any], where: str, *, labelled: bool) -> dict[str, Any]:
    only(job, _REPLICATED, where, not_taken=frozenset({"dependsOn", "groupName"}))
    job_spec = mapping(mapping(job, "template", f"{where}.template"), "spec", f"{where}.template.spec")
    size = batch_job.gang_size(job_spec, f"{where}.template.spec")
    written = mapping(job_spec, "template", f"{where}.template.spec.template")
    levels = kueue.levels_of_role(written, f"{where}.template.spec.template") if labelled else {}
    replicas = job.get("replicas", 1)
    if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 1:
        detail = f"replicas is a whole number of at least 1, not {replicas!r}"
        raise ManifestError("BadValue", detail, f"{where}.replicas")
    return {"name": job.get("name"), "count": replicas * size, "template": kueue.unmarked(written), **levels}
