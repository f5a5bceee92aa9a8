"""Why a gang does not fit into one cluster, with quantities: asked before `assign` looks, and after it found nothing.

What people could change about it is said in `placement.explain`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from placement.devices import joined, replicas_of
from placement.fleet import (
    CPU_MILLI,
    GPUS,
    KINDS_FROM,
    MEMORY_MIB,
    NodeTable,
    Shape,
    device_of,
    kind_rows,
    pods_per_node,
    rules_of,
    shape_of,
)
from placement.layout import Domains, Ints, NodeLayout, named_level
from placement.mix import GPU_MILLI
from placement.model import ANY_NODE, Because, GangRequest, Level, Reason, RoleRequest
from placement.node_rules import shortfall


def static_refusal(table: NodeTable, request: GangRequest) -> tuple[Because, ...]:
    """What speaks against `request` whatever is free: products that are not there, labels and taints of all nodes, and
    parts of GPUs that no node gives away."""
    found: list[Because] = []
    for role in request.roles:
        device = device_of(role)
        if device is not None and not table.has(device).any():
            detail = f"role {role.name} asks for {device}; {_parts_given(table)}"
            found.append(Because(Reason.SHARE_NOT_ENFORCED, detail=detail))
        if role.products and not any(product in table.layout.products for product in role.products):
            found.append(Because(Reason.NO_SUCH_PRODUCT, detail=" or ".join(role.products)))
        elif len(table) and not table.layout.accepts(role.products, rules_of(role)).any():
            found.append(Because(Reason.NO_SUITABLE_NODE, detail=_shortfall(table.layout, role)))
    return gravest_first(found)


def _parts_given(table: NodeTable) -> str:
    """Which parts of GPUs the cluster's nodes give away."""
    given = table.total[KINDS_FROM:].sum(axis=1).tolist()
    kinds = [kind for kind, count in zip(table.layout.kinds, given, strict=True) if count]
    words = [f"shares of {GPU_MILLI // replicas} milli" if (replicas := replicas_of(kind)) else kind for kind in kinds]
    return f"nodes here give {', '.join(words)}" if words else "no node here gives parts of GPUs"


def _shortfall(layout: NodeLayout, role: RoleRequest) -> str:
    of_product = np.isin(layout.product_ids, [at for at, one in enumerate(layout.products) if one in role.products])
    among = of_product if role.products else np.ones(len(layout), dtype=np.bool_)
    return shortfall(layout, rules_of(role), among)


def refusal(table: NodeTable, request: GangRequest) -> tuple[Because, ...]:
    """Why `assign` found no place now, gravest reason first; never empty. Levels of single roles are not looked at."""
    return lacking(table, request) or (roles_compete(table, request),)


def lacking(table: NodeTable, request: GangRequest) -> tuple[Because, ...]:
    """What some role lacks in every domain of the gang's level, even by itself; empty where each alone would fit."""
    if larger := _larger_than_cluster(table, request):
        return larger
    level = named_level(request.level_required)
    domains = table.layout.domains(level)
    if domains is None or domains.count == 0:
        return (Because(Reason.NO_DOMAIN_LARGE_ENOUGH, detail=f"no node is in a {request.level_required}"),)
    wanted: list[tuple[Shape, int]] = [(shape_of(role), role.count) for role in request.roles]
    if level == Level.HOST:
        whole = on_one_host(request)
        if whole is None:
            return (Because(Reason.NO_DOMAIN_LARGE_ENOUGH, detail="no one host has all the products asked for"),)
        wanted = [(whole, 1)]
    found = [short_of(table, shape, count, level, domains) for shape, count in wanted]
    return gravest_first(because for because in found if because is not None)


def on_one_host(request: GangRequest) -> Shape | None:
    """The whole gang as a single pod: on one host only the sum counts. None if no product suits all roles, or some
    have to stand apart."""
    if any(0 < role.per_host < role.count for role in request.roles):
        return None
    accepted = [set(role.products) for role in request.roles if role.products]
    common = set.intersection(*accepted) if accepted else set()
    if accepted and not common:
        return None
    cpu_milli = sum(role.count * role.cpu_milli for role in request.roles)
    memory_mib = sum(role.count * role.memory_mib for role in request.roles)
    rules = {role.nodes for role in request.roles}
    asked = tuple(sorted(rules)) if rules != {ANY_NODE} else ()
    parts = joined((device, role.count) for role in request.roles if (device := device_of(role)) is not None)
    return Shape(request.gpus, cpu_milli, memory_mib, tuple(sorted(common)), asked, parts)


def _larger_than_cluster(table: NodeTable, request: GangRequest) -> tuple[Because, ...]:
    """What would not fit even if the whole cluster were empty and healthy, topology aside."""
    found: list[Because] = []
    for role in request.roles:
        fits = pods_per_node(table.total, shape_of(role), table.layout.kinds)
        held = int((fits * table.layout.accepts(role.products, rules_of(role))).sum())
        if held < role.count:
            unit = _whole_pods(shape_of(role))
            found.append(Because(Reason.LARGER_THAN_CLUSTER, role.count, held, unit, f"role {role.name}"))
    gpus = int(table.total[GPUS].sum())
    if not found and gpus < request.gpus:
        found.append(Because(Reason.LARGER_THAN_CLUSTER, request.gpus, gpus, "GPUs", "all roles together"))
    return gravest_first(found)


def short_of(table: NodeTable, shape: Shape, count: int, level: str, domains: Domains) -> Because | None:
    """The first resource for lack of which `count` pods do not fit by themselves; None if they do."""
    if shape.apart is not None:
        loose = shape._replace(apart=None)
        return short_of(table, loose, count, level, domains) or _short_of_hosts(table, shape, count, level, domains)
    gpus_only = shape._replace(cpu_milli=0, memory_mib=0, devices=())
    if _best(table, gpus_only, domains) < count and (shape.gpus or not shape.devices):
        return _short_of_gpus(table, gpus_only, count, level, domains)
    with_parts = shape._replace(cpu_milli=0, memory_mib=0)
    if shape.devices and _best(table, with_parts, domains) < count:
        return _short_of_parts(table, with_parts, count, level, domains)
    best = _best(table, shape._replace(memory_mib=0), domains)
    if best < count:
        unit = f"{pods_said(shape)} with {shape.cpu_milli}m CPU each{_where(level)}"
        return Because(Reason.INSUFFICIENT_CPU, count, best, unit)
    best = _best(table, shape, domains)
    if best < count:
        unit = f"{pods_said(shape)} with {shape.memory_mib} MiB each{_where(level)}"
        return Because(Reason.INSUFFICIENT_MEMORY, count, best, unit)
    return None


def _short_of_hosts(table: NodeTable, shape: Shape, count: int, level: str, domains: Domains) -> Because | None:
    """What pods that stand apart lack where there is room for all of them."""
    assert shape.apart is not None
    best = _best(table, shape, domains)
    unit = f"{pods_said(shape)}{_where(level)}"
    return Because(Reason.TOO_FEW_HOSTS, count, best, unit) if best < count else None


def _best(table: NodeTable, shape: Shape, domains: Domains) -> int:
    """The most pods of `shape` that any one domain holds now."""
    return _max(domains.sums(pods_per_node(table.free, shape, table.layout.kinds) * table.accepting(*shape.nodes)))


def _short_of_gpus(table: NodeTable, shape: Shape, count: int, level: str, domains: Domains) -> Because:
    best = _best(table, shape, domains)
    if not shape.gpus:
        return Because(Reason.INSUFFICIENT_CPU, count, best, f"pods on usable nodes{_where(level)}")
    needs = count * shape.gpus
    accepted = table.accepting(*shape.nodes)
    free = _max(domains.sums(table.free[GPUS] * accepted))
    if free >= needs:
        detail = f"{free} GPUs are free, in too small pieces"
        return Because(Reason.TOO_FRAGMENTED, count, best, pods_said(shape) + _where(level), detail)
    total = _max(domains.sums(table.total[GPUS] * accepted))
    detail = f"the largest has {total} in all" if level and total < needs else ""
    return Because(gpu_reason(level), needs, free, f"free {_product(shape)}GPUs{_where(level)}", detail)


def _short_of_parts(table: NodeTable, shape: Shape, count: int, level: str, domains: Domains) -> Because:
    """The kind of which fewest pods find theirs: `count` pods, or on one host the whole gang as one pod."""
    alone = shape._replace(gpus=0)
    best = {device: _best(table, alone._replace(devices=((device, 1),)), domains) for device, _ in shape.devices}
    lacking = [(best[device] - count * each, device, each) for device, each in shape.devices]
    _, device, each = min(lacking)
    if best[device] >= count * each:
        return Because(Reason.TOO_FRAGMENTED, count, _best(table, shape, domains), pods_said(shape) + _where(level))
    return Because(parts_reason(level), count * each, best[device], f"free {device.counted}{_where(level)}")


def parts_reason(level: str) -> Reason:
    return gpu_reason(level) if level else Reason.INSUFFICIENT_DEVICES


def roles_compete(table: NodeTable, request: GangRequest) -> Because:
    """Each role fits by itself, together they do not."""
    level = named_level(request.level_required)
    domains = table.layout.domains(level)
    assert domains is not None, "a level without domains is lacking"
    usable = table.accepting(*shape_of(request.roles[0]).nodes)
    for role in request.roles[1:]:
        usable = usable | table.accepting(*shape_of(role).nodes)
    whole = (
        (GPUS, gpu_reason(level), request.gpus, "free GPUs"),
        (CPU_MILLI, Reason.INSUFFICIENT_CPU, sum(r.count * r.cpu_milli for r in request.roles), "milli CPU free"),
        (MEMORY_MIB, Reason.INSUFFICIENT_MEMORY, sum(r.count * r.memory_mib for r in request.roles), "MiB free"),
    )
    parts = joined((device, role.count) for role in request.roles if (device := device_of(role)) is not None)
    for device, needs in parts:
        rows = kind_rows(table.layout.kinds, device)
        free = _max(domains.sums(table.free[rows].sum(axis=0) * usable))
        if free < needs:
            return Because(
                parts_reason(level), needs, free, f"free {device.counted}{_where(level)}", "all roles together"
            )
    for resource, reason, needs, unit in whole:
        free = _max(domains.sums(table.free[resource] * usable))
        if free < needs:
            return Because(reason, needs, free, unit + _where(level), "all roles together")
    return Because(Reason.TOO_FRAGMENTED, detail=f"the roles fit one by one{_where(level)}, but not side by side")


def gpu_reason(level: str) -> Reason:
    match level:
        case "":
            return Reason.INSUFFICIENT_GPUS
        case Level.CLIQUE:
            return Reason.NO_CLIQUE_LARGE_ENOUGH
        case _:
            return Reason.NO_DOMAIN_LARGE_ENOUGH


def pods_said(shape: Shape) -> str:
    parts = [f"{shape.gpus} {_product(shape)}GPUs"] if shape.gpus else []
    parts += [f"{each} {_product(shape)}{device.counted}" for device, each in shape.devices]
    apart = f", {shape.apart[1]} on a host at most" if shape.apart is not None else ""
    return (f"pods of {' and '.join(parts)}" if parts else "pods") + apart


def _whole_pods(shape: Shape) -> str:
    amounts = [pods_said(shape)]
    if shape.cpu_milli:
        amounts.append(f"{shape.cpu_milli}m CPU")
    if shape.memory_mib:
        amounts.append(f"{shape.memory_mib} MiB")
    return " with ".join((amounts[0], " and ".join(amounts[1:]))) if amounts[1:] else amounts[0]


def _product(shape: Shape) -> str:
    return "/".join(shape.products) + " " if shape.products else ""


def _where(level: str) -> str:
    return f" in one {level}" if level else ""


def _max(sums: Ints) -> int:
    return int(np.max(sums)) if len(sums) else 0


def gravest_first(found: Iterable[Because]) -> tuple[Because, ...]:
    return tuple(sorted(dict.fromkeys(found), key=lambda because: (-because.reason.severity, str(because))))
