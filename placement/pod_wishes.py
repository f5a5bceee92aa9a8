"""What a pod template asks for that nobody would give it: refused at submission by name, never left out in silence.

Pods are bound directly, so no scheduler in the member cluster looks at these either. What is only preferred may stay.
Asked once, when a group is admitted: groups admitted by an older version are carried out as they were.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from placement.model import PodGroup
from placement.pod_templates import REQUIRED, TemplateError, mapping_of, mappings_of
from placement.requests import GPU_SHARED_RESOURCE, check_devices, resources_named

ONLY_PREFERRED: Final = "ScheduleAnyway"
DEVICES_NOT_COUNTED: Final = frozenset(
    {
        *(GPU_SHARED_RESOURCE, "amd.com/gpu", "gpu.intel.com/i915", "gpu.intel.com/xe", "habana.ai/gaudi"),
        *("google.com/tpu", "aws.amazon.com/neuron", "aws.amazon.com/neuroncore", "huawei.com/Ascend910"),
    }
)
"""Resource names of accelerators, as their device plug-ins give them, that a template may not name: who asks for one
would be placed as if for none, and turned away by the kubelet. Network devices and the like are left to it."""

WHY_NOT_COUNTED: Final[Mapping[str, str]] = {
    GPU_SHARED_RESOURCE: "replicas have other names elsewhere; ask for a share by the role's `gpu: {milli: ...}`"
}

RESTART_POLICIES: Final = ("Always", "OnFailure", "Never")
NAME_CHARS_MAX: Final = 63  # a DNS label, as Kubernetes wants it
_DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")

# Whole fields of a pod spec, and what would become of them.
_FIELDS: Final[Mapping[str, str]] = {
    "nodeName": "the agent chooses the node; ask for it by a node selector or a required node affinity",
    "resourceClaims": "no driver is asked to allocate them, and the kubelet would wait without end",
    "schedulingGates": "nobody here opens them, and a gated pod cannot be bound",
}


class NotHonouredError(TemplateError):
    """A pod template requires what Kubernetes knows and Muster does not do."""


def check_honoured(group: PodGroup) -> None:
    """Nothing that the roles require is left out. NotHonouredError names the first that would be, TemplateError a field
    of another form than Kubernetes', or devices that no container asks for."""
    check_devices(group)
    for index, role in enumerate(group.roles):
        where = f"roles[{index}].template.spec"
        spec = mapping_of(role.template.get("spec") or {}, where)
        _check(spec, where)
        _check_containers(spec, where)


def _check(spec: Mapping[str, object], where: str) -> None:
    for name, why in _FIELDS.items():
        if spec.get(name):
            raise NotHonouredError(f"{where}.{name}", why)
    for resource, field in resources_named(spec, where):
        if resource in DEVICES_NOT_COUNTED:
            raise NotHonouredError(f"{field}.{resource}", WHY_NOT_COUNTED.get(resource, "such devices are not counted"))
    affinity = mapping_of(spec.get("affinity") or {}, f"{where}.affinity")
    for kind in ("podAffinity", "podAntiAffinity"):
        field = f"{where}.affinity.{kind}"
        if mapping_of(affinity.get(kind) or {}, field).get(REQUIRED):
            why = "required affinity between pods is not looked at; ask for a `topology` level or `per_host`"
            raise NotHonouredError(f"{field}.{REQUIRED}", why)
    for one, field in mappings_of(spec.get("topologySpreadConstraints"), f"{where}.topologySpreadConstraints"):
        if one.get("whenUnsatisfiable") != ONLY_PREFERRED:
            why = (
                f"pods are not spread; whenUnsatisfiable must be {ONLY_PREFERRED}, is {one.get('whenUnsatisfiable')!r}"
            )
            raise NotHonouredError(f"{field}.whenUnsatisfiable", why)


def _check_containers(spec: Mapping[str, object], where: str) -> None:
    """What every API server refuses: the group would be turned away by cluster after cluster."""
    if not spec.get("containers"):
        raise TemplateError(f"{where}.containers", "a pod has at least one container")
    policy = spec.get("restartPolicy")
    if policy is not None and policy not in RESTART_POLICIES:
        raise TemplateError(f"{where}.restartPolicy", f"{policy!r} is none of {', '.join(RESTART_POLICIES)}")
    seen: set[str] = set()
    for kind in ("containers", "initContainers"):
        for one, field in mappings_of(spec.get(kind), f"{where}.{kind}"):
            name = one.get("name")
            if not isinstance(name, str) or len(name) > NAME_CHARS_MAX or not _DNS_LABEL.fullmatch(name):
                raise TemplateError(f"{field}.name", f"{name!r} is no name of a container, such as main")
            if name in seen:
                raise TemplateError(f"{field}.name", f"two containers are called {name}")
            seen.add(name)
