"""Why a gang whose roles have levels of their own does not fit: which role, which level, what it needs, and the best.

What holds for the gang as a whole is `placement.refusal`'s and comes first.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from placement.fleet import NodeTable, pods_per_node, shape_of
from placement.layout import Domains, named_level
from placement.model import Because, GangRequest, Reason, RoleRequest
from placement.nested import joint, slices_held, slices_of
from placement.refusal import gpu_reason, gravest_first, lacking, pods_said, roles_compete, short_of


def nested_refusal(table: NodeTable, request: GangRequest) -> tuple[Because, ...]:
    """Why `assign` found no place now, gravest reason first; never empty."""
    if because := lacking(table, request):
        return because
    outer = table.layout.domains(request.level_required)
    assert outer is not None, "a level without domains is lacking"
    found = [_role_refusal(table, role, outer) for role in request.roles if role.level_required]
    return gravest_first(one for one in found if one is not None) or (roles_compete(table, request),)


def _role_refusal(table: NodeTable, role: RoleRequest, outer: Domains) -> Because | None:
    """What the role lacks by itself at its own level inside every domain of the gang's; None if it would fit."""
    level = named_level(role.level_required)
    inner = table.layout.domains(level)
    if inner is None or inner.count == 0:
        return Because(
            Reason.NO_DOMAIN_LARGE_ENOUGH, detail=f"no node is in a {level}, which role {role.name} requires"
        )
    if slices_of(role)[1] > 1:
        return _slices_refusal(table, role, level, inner, outer)
    because = short_of(table, shape_of(role), role.count, level, joint(inner, outer))
    if because is None:
        return None
    return replace(because, detail="; ".join(part for part in (f"role {role.name}", because.detail) if part))


def _slices_refusal(table: NodeTable, role: RoleRequest, level: str, inner: Domains, outer: Domains) -> Because | None:
    """The first resource for lack of which there are too few domains for its slices."""
    shape, (pods, slices) = shape_of(role), slices_of(role)
    asked = (
        (
            shape._replace(cpu_milli=0, memory_mib=0),
            gpu_reason(level) if shape.gpus or shape.devices else Reason.INSUFFICIENT_CPU,
        ),
        (shape._replace(memory_mib=0), Reason.INSUFFICIENT_CPU),
        (shape, Reason.INSUFFICIENT_MEMORY),
    )
    accepted = table.accepting(*shape.nodes)
    for part, reason in asked:
        held = slices_held(pods_per_node(table.free, part, table.layout.kinds) * accepted, pods, inner, outer)
        best = int(np.max(held, initial=0))
        if best < slices:
            unit = f"slices of {pods} {pods_said(shape)}, each in one {level}"
            return Because(reason, slices, best, unit, f"role {role.name}")
    return None
