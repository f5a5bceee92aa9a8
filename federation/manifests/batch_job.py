"""`batch/v1` Job, as it is: one role of `parallelism` pods, all or nothing.

The Job object goes to the member cluster as submitted, with its pod template patched there; Muster's own wishes are
annotations `muster.io/<wish>` on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from federation.manifests import kueue
from federation.manifests.strict import Document, ManifestError
from federation.manifests.wishes import mapping, own_labels, wishes_of
from placement.model import PodGroup

JOB_CONTROLLER: Final = "kubernetes.io/job-controller"
GRACE_S_DEFAULT: Final = 30  # Kubernetes' own default of terminationGracePeriodSeconds


def read(document: Document) -> PodGroup:
    """A PodGroup with workload `job`. ManifestError names what a gang cannot be made of."""
    return PodGroup.model_validate(fields_of(document))


def fields_of(document: Document) -> dict[str, Any]:
    """The model's fields, for whoever adds to them."""
    wanted = kueue.wishes_of_job(document)
    plain = kueue.without_kueue(document)
    metadata = mapping(plain, "metadata")
    spec = mapping(plain, "spec")
    template = mapping(spec, "template", "spec.template")
    role: dict[str, Any] = {"name": "worker", "count": gang_size(spec), "template": template}
    if kueue.labelled(document):
        role |= kueue.slices_of(mapping(mapping(document, "spec"), "template", "spec.template"), "spec.template")
    _check_controller(spec)
    wishes = wishes_of(metadata)
    if "products" in wishes:
        role["products"] = wishes.pop("products")
    return {
        "name": metadata.get("name"),
        "namespace": metadata.get("namespace", "default"),
        "labels": own_labels(metadata),
        "grace_s": grace_of(template, "spec.template"),
        "suspend": _suspend(spec),
        "workload": "job",
        "workload_object": {**plain, "spec": {key: value for key, value in spec.items() if key != "template"}},
        "roles": [role],
        **wanted,
        **wishes,
    }


def grace_of(template: Mapping[str, Any], where: str) -> Any:
    return mapping(template, "spec", f"{where}.spec").get("terminationGracePeriodSeconds", GRACE_S_DEFAULT)


def gang_size(spec: Mapping[str, Any], where: str = "spec") -> int:
    """Pods that must run together: `parallelism`; fewer or more completions would not be one gang."""
    parallelism = spec.get("parallelism", 1)
    completions = spec.get("completions", parallelism)
    if not isinstance(parallelism, int) or isinstance(parallelism, bool) or parallelism < 1:
        raise ManifestError(
            "BadValue", f"parallelism is a whole number of at least 1, not {parallelism!r}", f"{where}.parallelism"
        )
    if completions != parallelism:
        detail = f"completions {completions} differs from parallelism {parallelism}: a gang runs all its pods at once"
        raise ManifestError("NotAGang", detail, f"{where}.completions")
    return parallelism


def _check_controller(spec: Mapping[str, Any]) -> None:
    """Pods are made by Kubernetes' own controller in the member cluster; it leaves alone what another one manages."""
    manager = spec.get("managedBy")
    if manager not in (None, JOB_CONTROLLER):
        raise ManifestError("NotTaken", f"{manager!r} would make no pods in the member cluster", "spec.managedBy")


def _suspend(spec: Mapping[str, Any]) -> bool:
    suspend = spec.get("suspend")
    if suspend is not None and not isinstance(suspend, bool):
        raise ManifestError("BadType", f"suspend is true or false, not {suspend!r}", "spec.suspend")
    return bool(suspend)
