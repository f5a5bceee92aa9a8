"""From a PodGroup as written to the request class the engine and the agents compute with.

Server and agent derive it here, from the same bytes, so that they never disagree about what a pod asks for. Which
cluster or node satisfies a request is `assign`'s and `engine`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Final

from placement.elastic import sizes_of
from placement.layout import wider_than
from placement.mig import MIG_PER_POD_MAX, MIG_RESOURCE_PREFIX, profile_of, resource_of
from placement.model import GPUS_PER_POD_MAX, GangRequest, GpuRequest, Level, PodGroup, Role, RoleRequest
from placement.pod_templates import PRODUCT_LABEL, TemplateError, mapping_of, node_rule

__all__ = [
    "AMOUNT_MAX",
    "GPU_RESOURCE",
    "GPU_SHARED_RESOURCE",
    "TemplateError",
    "check_devices",
    "gang_request",
    "quantity",
    "resources_named",
]

GPU_RESOURCE: Final = "nvidia.com/gpu"
GPU_SHARED_RESOURCE: Final = "nvidia.com/gpu.shared"  # what replicas are called where the plug-in renames them
POD_LEVEL: Final = frozenset({"cpu", "memory"})  # that a pod may ask for as a whole; huge pages are not counted
AMOUNT_MAX: Final = 2**40  # milli CPUs or MiB of one pod: beyond any node, and 10,000 of them still add up exactly

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:([eE][+-]?[0-9]{1,2})|(n|u|m|k|Ki|[MGTPE]i?))?")
_QUANTITY_CHARS_MAX: Final = 64  # longer ones are no amounts that people write
_QUANTITIES_KEPT_MAX: Final = 4_096  # people write the same few again and again
_SUFFIXES: Final[Mapping[str, Fraction]] = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
    "Ki": Fraction(2**10),
    "Mi": Fraction(2**20),
    "Gi": Fraction(2**30),
    "Ti": Fraction(2**40),
    "Pi": Fraction(2**50),
    "Ei": Fraction(2**60),
}
_MIB: Final = 2**20
_NOTHING: Final = Fraction(0)


def quantity(value: object, field: str) -> Fraction:
    """A Kubernetes quantity ("500m", "2", "1.5Gi", 3) as an exact number; TemplateError for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TemplateError(field, f"{value!r} is not a quantity")
    text = str(value)
    amount = _parsed(text) if len(text) <= _QUANTITY_CHARS_MAX else None
    if amount is None:
        raise TemplateError(field, f"{value!r} is not a quantity")
    return amount


@lru_cache(maxsize=_QUANTITIES_KEPT_MAX)
def _parsed(text: str) -> Fraction | None:
    found = _QUANTITY.fullmatch(text)
    if found is None:
        return None
    number, exponent, suffix = found.groups()
    amount = Fraction(number)
    if exponent:
        amount *= Fraction(10) ** int(exponent[1:])
    if suffix:
        amount *= _SUFFIXES[suffix]
    return amount


def gang_request(group: PodGroup) -> GangRequest:
    """The request class of `group`; equal groups give equal classes. TemplateError when a template cannot be read."""
    roles = tuple(_role_request(role, f"roles[{index}]") for index, role in enumerate(group.roles))
    _check_levels(group)
    request = GangRequest(
        roles=roles,
        min_count=group.min_count if group.min_count is not None else sum(role.min_count for role in roles),
        level_required=group.topology.required,
        level_preferred=group.topology.preferred,
        cluster_labels=_by_label(group.clusters.affinity),
        cluster_labels_not=_by_label(group.clusters.anti_affinity),
        lease_classes=tuple(sorted(group.clusters.lease_classes)),
        data=tuple(sorted((one.name, one.size_gib) for one in group.data)),
        elastic=group.elastic,
    )
    if request.elastic and not sizes_of(request).steps:
        why = (
            "no role may have fewer pods: give one (or, where there is only one, the group) a min_count below its count"
        )
        raise TemplateError("elastic", why)
    return request


def check_devices(group: PodGroup) -> None:
    """What a role writes under `gpu` its template asks for as well: the kubelet gives a container no other devices.
    TemplateError otherwise. Shares are left out: no resource of Kubernetes says them."""
    for index, role in enumerate(group.roles):
        written, where = role.gpu, f"roles[{index}]"
        if written is None or not (written.whole or written.mig):
            continue
        resource = resource_of(written.mig) if written.mig else GPU_RESOURCE
        spec = mapping_of(role.template.get("spec") or {}, f"{where}.template.spec")
        if not _amount(spec, resource, f"{where}.template.spec"):
            why = f"says {_said(written)}, and no container of the template has a limit of {resource}"
            raise TemplateError(f"{where}.gpu", why)


def _by_label(values: Mapping[str, tuple[str, ...]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((label, tuple(sorted(set(accepted)))) for label, accepted in sorted(values.items()))


def _role_request(role: Role, where: str) -> RoleRequest:
    spec = mapping_of(mapping_of(role.template, f"{where}.template").get("spec", {}), f"{where}.template.spec")
    where_spec = f"{where}.template.spec"
    gpu = _with_mig(_gpu(role.gpu, _amount(spec, GPU_RESOURCE, where_spec), f"{where}.gpu"), spec, where)
    return RoleRequest(
        name=role.name,
        count=role.count,
        min_count=role.count if role.min_count is None else role.min_count,
        gpus=gpu.whole,
        gpu_milli=gpu.milli,
        mig_profile=gpu.mig,
        cpu_milli=_whole(_amount(spec, "cpu", where_spec) * 1000, f"{where_spec}: cpu"),
        memory_mib=_whole(_amount(spec, "memory", where_spec) / _MIB, f"{where_spec}: memory"),
        products=_products(role, spec, where_spec),
        nodes=node_rule(spec, where_spec, product_elsewhere=not role.products),
        level_required=role.topology.required,
        level_preferred=role.topology.preferred,
        slice_pods=role.topology.slice or 0,
        per_host=role.topology.per_host or 0,
    )


def _check_levels(group: PodGroup) -> None:
    """A role stands inside the group's domain: a wider level of its own would say nothing, or be meant otherwise."""
    around = group.topology.required
    for index, role in enumerate(group.roles):
        for field, level in (("required", role.topology.required), ("preferred", role.topology.preferred)):
            if wider_than(level, around):
                why = f"{level} is wider than {around}, which the whole group requires"
                raise TemplateError(f"roles[{index}].topology.{field}", why)
        most, together = role.topology.per_host or role.count, Level.HOST in (around, role.topology.required)
        if together and most < role.count:
            why = f"its {role.count} pods must stand on one host, and {most} may"
            raise TemplateError(f"roles[{index}].topology.per_host", why)


def _gpu(written: GpuRequest | None, in_template: Fraction, field: str) -> GpuRequest:
    """The GPU request, derived from the template if not written; both must say the same."""
    if in_template.denominator != 1:
        raise TemplateError(field, f"the template asks for {in_template} GPUs; only whole ones can be limits")
    whole = int(in_template)
    if whole > GPUS_PER_POD_MAX:
        raise TemplateError(field, f"the template asks for {whole} GPUs, at most {GPUS_PER_POD_MAX} are in one node")
    if written is None:
        return GpuRequest(whole=whole)
    if whole and whole != written.whole:
        raise TemplateError(field, f"says {written.whole} whole GPUs, the template's limits say {whole}")
    return written


def _with_mig(gpu: GpuRequest, spec: Mapping[str, object], where: str) -> GpuRequest:
    """`gpu` with the MIG profile that the template asks for; what is written beside it must say the same."""
    where_spec = f"{where}.template.spec"
    asked = {name: _amount(spec, name, where_spec) for name in _mig_resources(spec, where_spec)}
    if not any(asked.values()):
        return gpu
    if len(asked) > 1:
        raise TemplateError(f"{where}.gpu", f"the template asks for {' and '.join(asked)}; a pod may have one kind")
    ((resource, amount),) = asked.items()
    profile = profile_of(resource)
    if profile is None:
        raise TemplateError(f"{where}.gpu", f"{resource} is not {MIG_RESOURCE_PREFIX}<slices>g.<memory>gb")
    if amount != MIG_PER_POD_MAX:
        why = f"the template asks for {amount} of {resource}, a pod may have {MIG_PER_POD_MAX}"
        raise TemplateError(f"{where}.gpu", why)
    if gpu not in (GpuRequest(), GpuRequest(mig=profile)):
        raise TemplateError(f"{where}.gpu", f"says {_said(gpu)}, the template's limits say 1 {resource}")
    return GpuRequest(mig=profile)


def _said(gpu: GpuRequest) -> str:
    if gpu.mig:
        return f"MIG profile {gpu.mig}"
    return f"{gpu.milli} milli of a GPU" if gpu.milli else f"{gpu.whole} whole GPUs"


def _mig_resources(spec: Mapping[str, object], where: str) -> list[str]:
    """The MIG resources that any container names, in order."""
    return sorted({name for name, _ in resources_named(spec, where) if name.startswith(MIG_RESOURCE_PREFIX)})


def resources_named(spec: Mapping[str, object], where: str) -> Iterator[tuple[str, str]]:
    """The resources that containers name in requests and limits, and the field that holds each."""
    for key in ("containers", "initContainers"):
        for one, field in _containers(spec, key, where):
            resources = mapping_of(one.get("resources") or {}, f"{field}.resources")
            for kind in ("requests", "limits"):
                for name in mapping_of(resources.get(kind) or {}, f"{field}.resources.{kind}"):
                    yield name, f"{field}.resources.{kind}"


def _products(role: Role, spec: Mapping[str, object], where: str) -> tuple[str, ...]:
    if role.products:
        return tuple(sorted(set(role.products)))
    selected = mapping_of(spec.get("nodeSelector") or {}, f"{where}.nodeSelector").get(PRODUCT_LABEL)
    if selected is None:
        return ()
    if not isinstance(selected, str):
        raise TemplateError(f"{where}.nodeSelector", f"{PRODUCT_LABEL} must be a string")
    return (selected,)


def _amount(spec: Mapping[str, object], resource: str, where: str) -> Fraction:
    """What the scheduler counts for one pod: containers and sidecars together, or the largest init step if more."""
    amounts = [_of_container(one, resource, field) for one, field in _containers(spec, "containers", where)]
    running = sum(amounts[1:], amounts[0]) if amounts else _NOTHING
    if not spec.keys() & {"initContainers", "overhead", "resources"}:
        return running
    sidecars = init_peak = _NOTHING
    for one, field in _containers(spec, "initContainers", where):
        amount = _of_container(one, resource, field)
        if one.get("restartPolicy") == "Always":
            sidecars += amount
            init_peak = max(init_peak, sidecars)
        else:
            init_peak = max(init_peak, sidecars + amount)
    overhead = mapping_of(spec.get("overhead") or {}, f"{where}.overhead")
    extra = quantity(overhead[resource], f"{where}.overhead.{resource}") if resource in overhead else _NOTHING
    return _of_pod(spec, resource, where, max(running + sidecars, init_peak)) + extra


def _of_pod(spec: Mapping[str, object], resource: str, where: str, containers: Fraction) -> Fraction:
    """What the pod as a whole asks for, where it says so, whatever its containers do; its limit stands for that if they
    ask for nothing."""
    resources = mapping_of(spec.get("resources") or {}, f"{where}.resources")
    if resource not in POD_LEVEL:
        return containers
    for kind in ("requests", "limits"):
        amounts = mapping_of(resources.get(kind) or {}, f"{where}.resources.{kind}")
        if resource in amounts and (kind == "requests" or not containers):
            return quantity(amounts[resource], f"{where}.resources.{kind}.{resource}")
    return containers


def _of_container(container: Mapping[str, object], resource: str, where: str) -> Fraction:
    """A container's request; where absent its limit stands for it, as the API server defaults it."""
    resources = mapping_of(container.get("resources") or {}, f"{where}.resources")
    for kind in ("requests", "limits"):
        amounts = mapping_of(resources.get(kind) or {}, f"{where}.resources.{kind}")
        if resource in amounts:
            return quantity(amounts[resource], f"{where}.resources.{kind}.{resource}")
    return _NOTHING


def _containers(spec: Mapping[str, object], key: str, where: str) -> Iterable[tuple[Mapping[str, object], str]]:
    listed = spec.get(key)
    if listed is None:
        return
    if not isinstance(listed, list):
        raise TemplateError(f"{where}.{key}", "must be a list")
    for index, one in enumerate(listed):
        field = f"{where}.{key}[{index}]"
        yield mapping_of(one, field), field


def _whole(amount: Fraction, field: str) -> int:
    """Rounded up, as the scheduler counts it."""
    rounded = -(-amount.numerator // amount.denominator)
    if rounded > AMOUNT_MAX:
        raise TemplateError(field, f"{rounded} is more than any node has, at most {AMOUNT_MAX} is allowed")
    return rounded
