"""Kubernetes' own gangs, `scheduling.k8s.io`: Workload in v1alpha1 (1.35), PodGroup from v1alpha2 (1.36) on.

The versions differ in how a pod names its group and in the shape of single fields, and each is read as it is written.
A Workload beside a PodGroup is the template the PodGroup was made from: it must be there if named, and adds defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from federation.manifests.foreign import Dialect, Terms, priority_fields
from federation.manifests.strict import Document, ManifestError
from federation.manifests.wishes import mapping, only, optional, sequence

GROUP: Final = "scheduling.k8s.io"
EMBEDDED: Final = (f"{GROUP}/v1alpha1", "Workload")  # groups within the Workload; later versions have PodGroups
PODGROUPS: Final = frozenset((f"{GROUP}/{version}", "PodGroup") for version in ("v1alpha2", "v1alpha3", "v1beta1"))
WORKLOADS: Final = frozenset((f"{GROUP}/{version}", "Workload") for version in ("v1alpha2", "v1alpha3", "v1beta1"))
_POLICY: Final = frozenset({"basic", "gang"})
_TEMPLATE: Final = frozenset(
    {
        *("schedulingPolicy", "schedulingConstraints", "disruptionMode", "priorityClassName", "priority"),
        *("preemptionPolicy",),
    }
)
_PODGROUP: Final = _TEMPLATE | {"workloadRef", "podGroupTemplateRef", "minMember"}
_NOT_TAKEN: Final = frozenset({"resourceClaims", "parentCompositePodGroupName"})
_MODES: Final = {"Pod": "single", "PodGroup": "all"}  # as v1alpha2 spells them
BASIC_MIN: Final = 1  # pods of a basic group do not wait for one another


def _terms_of(group: Document, context: Sequence[Document]) -> Terms:
    spec = mapping(group, "spec")
    only(spec, _PODGROUP, "spec", not_taken=_NOT_TAKEN)
    spec = {**_template_of(spec, context), **spec}
    fields = {"disruption_mode": _mode(spec.get("disruptionMode")), **priority_fields(spec, group)}
    if spec.get("preemptionPolicy"):
        fields["preemption_policy"] = spec["preemptionPolicy"]
    return Terms({**fields, "min_count": _min_count(spec), **_topology(spec)})


def _template_of(spec: Mapping[str, Any], context: Sequence[Document]) -> dict[str, Any]:
    """The Workload's template that the PodGroup names, if the Workload came along."""
    ref = _workload_ref(spec)
    workload = str(ref.get("workloadName", ""))
    wanted = str(ref.get("templateName", ref.get("podGroupTemplateName", "")))
    found = [one for one in context if mapping(one, "metadata").get("name") == workload]
    if not found:
        return {}
    templates = sequence(mapping(found[0], "spec"), "podGroupTemplates", "spec.podGroupTemplates")
    named = [template for template in templates if template.get("name") == wanted]
    if not named:
        where = "spec.workloadRef" if "workloadRef" in spec else "spec.podGroupTemplateRef"
        raise ManifestError("BadValue", f"Workload {workload!r} has no template {wanted!r}", where)
    template = {key: value for key, value in named[0].items() if key != "name"}
    only(template, _TEMPLATE, "spec.podGroupTemplates", not_taken=_NOT_TAKEN)
    return template


def workload_of(group: Document) -> str:
    """The Workload that a PodGroup says it was made from; empty for none."""
    return str(_workload_ref(optional(group, "spec", "spec")).get("workloadName", ""))


def _workload_ref(spec: Mapping[str, Any]) -> dict[str, Any]:
    old = optional(spec, "podGroupTemplateRef", "spec.podGroupTemplateRef")
    return optional(spec, "workloadRef", "spec.workloadRef") or optional(
        old, "workload", "spec.podGroupTemplateRef.workload"
    )


def _min_count(spec: Mapping[str, Any], where: str = "spec.schedulingPolicy") -> Any:
    """`gang.minCount`, or its alias `minMember`."""
    policy = optional(spec, "schedulingPolicy", where)
    only(policy, _POLICY, where, not_taken=frozenset())
    alias = spec.get("minMember")
    if not policy:
        if alias is None:
            raise ManifestError("MissingField", "a group says how many pods it needs", f"{where}.gang.minCount")
        return alias
    if len(policy) > 1:
        raise ManifestError("BadValue", "a policy is basic or gang, not both", where)
    gang = optional(policy, "gang", f"{where}.gang")
    count = gang.get("minCount") if "gang" in policy else BASIC_MIN
    if count is None:
        raise ManifestError("MissingField", "a gang says how many pods it needs", f"{where}.gang.minCount")
    if alias is not None and alias != count:
        raise ManifestError("BadValue", f"minMember {alias} differs from gang.minCount {count}", "spec.minMember")
    return count


def _mode(mode: Any) -> str:
    """Upstream's default is that single pods may be disrupted."""
    where = "spec.disruptionMode"
    if mode is None:
        return "single"
    if isinstance(mode, str):
        if mode not in _MODES:
            raise ManifestError("BadValue", f"{mode!r} is none of {', '.join(_MODES)}", where)
        return _MODES[mode]
    if not isinstance(mode, dict) or len(mode) != 1 or next(iter(mode)) not in {"single", "all"}:
        raise ManifestError("BadValue", "disruptionMode is {single: {}} or {all: {}}", where)
    return str(next(iter(mode)))


def _topology(spec: Mapping[str, Any]) -> dict[str, Any]:
    """At most one level, which is hard."""
    where = "spec.schedulingConstraints.topology"
    constraints = optional(spec, "schedulingConstraints", "spec.schedulingConstraints")
    only(constraints, frozenset({"topology"}), "spec.schedulingConstraints", not_taken=frozenset())
    levels = sequence(constraints, "topology", where)
    if len(levels) > 1:
        raise ManifestError("OutOfRange", f"{len(levels)} levels, at most 1 is allowed", where)
    if not levels:
        return {}
    only(levels[0], frozenset({"key"}), f"{where}[0]", not_taken=frozenset())
    return {"topology": {"required": levels[0].get("key", "")}}


def _link_of(pod: Mapping[str, Any]) -> str:
    link = optional(optional(pod, "spec", "spec"), "schedulingGroup", "spec.schedulingGroup")
    return str(link.get("podGroupName", ""))


# --- v1alpha1: groups within the Workload ----------------------------------------------------------------------------


def groups_within(workload: Document) -> list[tuple[str, Document]]:
    """The groups of a v1alpha1 Workload: how pods name each, and a Workload that holds only it."""
    metadata, spec = mapping(workload, "metadata"), mapping(workload, "spec")
    groups = sequence(spec, "podGroups", "spec.podGroups")
    if not groups:
        raise ManifestError("MissingField", "a Workload has at least one group", "spec.podGroups")
    only(spec, frozenset({"podGroups", "controllerRef"}), "spec", not_taken=frozenset())
    return [
        (f"{metadata.get('name', '')}/{one.get('name', '')}", {**workload, "spec": {"podGroups": [one]}})
        for one in groups
    ]


def only_group(workload: Document) -> Document:
    """The one group of a Workload as a PodGroup would stand there."""
    (group,) = sequence(mapping(workload, "spec"), "podGroups", "spec.podGroups")
    metadata = mapping(workload, "metadata")
    name = f"{metadata.get('name', '')}-{group.get('name', '')}"
    return {**workload, "metadata": {**metadata, "name": name}, "spec": group}


def _embedded_terms_of(group: Document, context: Sequence[Document]) -> Terms:
    del context
    spec = mapping(group, "spec")
    only(spec, frozenset({"name", "policy"}), "spec.podGroups", not_taken=frozenset())
    policy = {"schedulingPolicy": optional(spec, "policy", "spec.podGroups.policy")}
    return Terms({"disruption_mode": "single", "min_count": _min_count(policy, "spec.podGroups.policy")})


def _embedded_link_of(pod: Mapping[str, Any]) -> str:
    link = optional(optional(pod, "spec", "spec"), "workloadRef", "spec.workloadRef")
    if link.get("podGroupReplicaKey"):
        raise ManifestError(
            "NotTaken", "write each replica as a group of its own", "spec.workloadRef.podGroupReplicaKey"
        )
    return f"{link.get('name', '')}/{link.get('podGroup', '')}" if link else ""


DIALECT: Final = Dialect(
    kinds=PODGROUPS, link="spec.schedulingGroup.podGroupName", terms_of=_terms_of, link_of=_link_of
)
DIALECT_EMBEDDED: Final = Dialect(
    kinds=frozenset({EMBEDDED}), link="spec.workloadRef", terms_of=_embedded_terms_of, link_of=_embedded_link_of
)
