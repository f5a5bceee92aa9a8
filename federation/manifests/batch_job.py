"""`batch/v1` Job, as it is: one role of `parallelism` pods, all or nothing.

The Job object goes to the member cluster as submitted, with its pod template patched there; Muster's own wishes are
annotations `muster.io/<wish>` on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from federation.manifests.strict import Document, ManifestError, read_json
from placement.model import PodGroup

ANNOTATION_PREFIX: Final = "muster.io/"
GRACE_S_DEFAULT: Final = 30  # Kubernetes' own default of terminationGracePeriodSeconds
_WISHES: Final = frozenset(
    {
        *("queue", "priority", "min_count", "products", "clusters", "topology_required", "topology_preferred"),
        *("disruption_mode", "preemption_policy", "disconnect_policy"),
        *("max_run_s", "run_time_estimate_s", "ready_within_s", "start_by_s"),
    }
)
_INTEGERS: Final = ("priority", "min_count", "max_run_s", "run_time_estimate_s", "ready_within_s", "start_by_s")


def read(document: Document) -> PodGroup:
    """A PodGroup with workload `job`. ManifestError names what a gang cannot be made of."""
    metadata = _mapping(document, "metadata")
    spec = _mapping(document, "spec")
    template = _mapping(spec, "template", "spec.template")
    count = _count(spec)
    wishes = _wishes(metadata)
    job_spec = {key: value for key, value in spec.items() if key != "template"}
    role: dict[str, Any] = {"name": "worker", "count": count, "template": template}
    if "products" in wishes:
        role["products"] = [part for part in str(wishes.pop("products")).split(",") if part]
    return PodGroup.model_validate(
        {
            "name": metadata.get("name"),
            "namespace": metadata.get("namespace", "default"),
            "labels": {k: v for k, v in _texts(metadata, "labels").items() if not k.startswith(ANNOTATION_PREFIX)},
            "grace_s": _mapping(template, "spec", "spec.template.spec").get(
                "terminationGracePeriodSeconds", GRACE_S_DEFAULT
            ),
            "suspend": _suspend(spec),
            "workload": "job",
            "workload_object": {**document, "spec": job_spec},
            "roles": [role],
            **wishes,
        }
    )


def _count(spec: Mapping[str, Any]) -> int:
    """Pods that must run together: `parallelism`; fewer or more completions would not be one gang."""
    parallelism = spec.get("parallelism", 1)
    completions = spec.get("completions", parallelism)
    if not isinstance(parallelism, int) or isinstance(parallelism, bool) or parallelism < 1:
        raise ManifestError(
            "BadValue", f"parallelism is a whole number of at least 1, not {parallelism!r}", "spec.parallelism"
        )
    if completions != parallelism:
        detail = f"completions {completions} differs from parallelism {parallelism}: a gang runs all its pods at once"
        raise ManifestError("NotAGang", detail, "spec.completions")
    return parallelism


def _suspend(spec: Mapping[str, Any]) -> bool:
    suspend = spec.get("suspend")
    if suspend is not None and not isinstance(suspend, bool):
        raise ManifestError("BadType", f"suspend is true or false, not {suspend!r}", "spec.suspend")
    return bool(suspend)


def _wishes(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Muster's annotations as model fields, e.g. `muster.io/priority: "5"`."""
    annotations = _texts(metadata, "annotations")
    wishes: dict[str, Any] = {}
    for key, value in sorted({**annotations, **_texts(metadata, "labels")}.items()):
        name = key.removeprefix(ANNOTATION_PREFIX).replace("-", "_")
        if key.startswith(ANNOTATION_PREFIX) and name not in _WISHES:
            known = ", ".join(sorted(_WISHES)).replace("_", "-")
            raise ManifestError("UnknownField", f"unknown wish; known: {known}", f"metadata.annotations.{key}")
        if key.startswith(ANNOTATION_PREFIX):
            wishes[name] = value
    for name in _INTEGERS:
        if name in wishes:
            wishes[name] = _integer(name, wishes[name])
    topology = {
        name: wishes.pop(f"topology_{name}") for name in ("required", "preferred") if f"topology_{name}" in wishes
    }
    if topology:
        wishes["topology"] = topology
    if "clusters" in wishes:
        wishes["clusters"] = read_json(str(wishes["clusters"]).encode())
    return wishes


def _integer(name: str, text: object) -> int:
    try:
        return int(str(text))
    except ValueError:
        where = f"metadata.annotations.{ANNOTATION_PREFIX}{name.replace('_', '-')}"
        raise ManifestError("BadValue", f"{text!r} is not a whole number", where) from None


def _texts(metadata: Mapping[str, Any], key: str) -> dict[str, str]:
    """Labels or annotations; absent and null are none. What the values are is the model's business."""
    texts = metadata.get(key)
    if texts is None:
        return {}
    if not isinstance(texts, dict):
        raise ManifestError("BadType", f"{key} is a mapping", f"metadata.{key}")
    return texts


def _mapping(parent: Mapping[str, Any], key: str, where: str = "") -> dict[str, Any]:
    value = parent.get(key)
    if not isinstance(value, dict):
        raise ManifestError("MissingField", f"{where or key} is a mapping", where or key)
    return value
