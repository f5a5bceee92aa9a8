"""Nodes for pods that join a gang which runs: near its other pods, or apart from them, as its request says.

What joins, and how much of it, is `placement.elastic`'s. Where the others stand only the agent of their cluster knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from placement.assign import assign
from placement.assignment import Assignment
from placement.fleet import NodeTable, shape_of
from placement.layout import ANYWHERE, IN_NO_DOMAIN, NodeLayout, NodePlace, named_level
from placement.model import Because, GangRequest, LabelRule, Level, NodeName, NodeRule, Reason, RoleRequest
from placement.node_order import NodeWorth

Standing = Mapping[str, Sequence[NodeName]]
"""By role, the node of each of its pods."""

Rules = tuple[LabelRule, ...]

NODE_NAME: Final = "metadata.name"
CLIQUE: Final = "nvidia.com/gpu.clique"
PLACES: Final = {  # by level, the labels that name a domain of it: see `NodeLayout`
    Level.RACK: ("topology.kubernetes.io/zone", "muster.io/block", "muster.io/rack"),
    Level.BLOCK: ("topology.kubernetes.io/zone", "muster.io/block"),
    Level.ZONE: ("topology.kubernetes.io/zone",),
}


def assign_joining(
    table: NodeTable, more: GangRequest, standing: Standing, worth: NodeWorth | None = None
) -> Assignment | tuple[Because, ...]:
    """What `assign` says of `more`, whose pods join those that stand already.

    The domain of a required level, of the gang or of all of a role, is the one where the others are, and that of the
    gang's preferred level if there is room. No host gets more pods of a role than `per_host` together with those that
    it has. Complete where `assign` is, but for several roles on hosts that may get some more of one that stands apart.
    """
    layout = table.layout
    everyone = [node for nodes in standing.values() for node in nodes]
    together = _one_domain(layout, more.level_required, everyone)
    if together is None:
        return (_scattered("its pods", more.level_required),)
    roles: list[RoleRequest] = []
    for role in more.roles:
        here = standing.get(role.name, ())
        own = _one_domain(layout, "" if role.slice_pods else role.level_required, here)
        if own is None:
            return (_scattered(f"the pods of role {role.name}", role.level_required),)
        roles.append(_narrowed(role, (*together, *own)))
    table, request = _apart(table, replace(more, roles=tuple(roles)), standing)
    near = _one_domain(layout, more.level_preferred, everyone)
    answer = assign(table, _all_narrowed(request, near), worth) if near else ()
    if not isinstance(answer, Assignment):
        answer = assign(table, request, worth)
    if isinstance(answer, Assignment):
        return replace(answer, request=more)
    return tuple(_of_what_is_left(because, more) for because in answer)


def _of_what_is_left(because: Because, more: GangRequest) -> Because:
    """The cluster is large enough, what is left of it near or apart from the others is not."""
    if because.reason not in {Reason.LARGER_THAN_CLUSTER, Reason.NO_SUITABLE_NODE}:
        return because
    apart = any(role.per_host for role in more.roles)
    reason = Reason.TOO_FEW_HOSTS if apart else Reason.NO_DOMAIN_LARGE_ENOUGH
    return replace(because, reason=reason, detail="of the nodes that are left for it beside its other pods")


def _scattered(who: str, level: str) -> Because:
    return Because(Reason.NO_DOMAIN_LARGE_ENOUGH, detail=f"{who} do not stand in one {level} any more")


def _one_domain(layout: NodeLayout, level: str, nodes: Sequence[NodeName]) -> Rules | None:
    """What nodes have in common that are in the domain of `nodes`; None if those are in several, or nobody knows."""
    domains = layout.domains(level)
    if named_level(level) == ANYWHERE or not nodes:
        return ()
    rows = [layout.row_by_name.get(node) for node in set(nodes)]
    if domains is None or None in rows:
        return None
    codes = {int(domains.codes[row]) for row in rows if row is not None}
    if len(codes) > 1 or IN_NO_DOMAIN in codes:
        return None
    return _rules_of(layout.places[layout.row_by_name[nodes[0]]], Level(named_level(level)))


def _rules_of(place: NodePlace, level: Level) -> Rules:
    if level is Level.CLIQUE and place.clique:
        return (_is(CLIQUE, place.clique),)
    if level not in PLACES:  # one host; without a label, a clique of its own
        return (_is(NODE_NAME, place.name),)
    values = (place.zone, place.block, place.rack)
    return tuple(_is(key, value) for key, value in zip(PLACES[level], values, strict=False))


def _is(key: str, value: str) -> LabelRule:
    return LabelRule(key, "In", (value,)) if value else LabelRule(key, "DoesNotExist")


def _narrowed(role: RoleRequest, rules: Iterable[LabelRule]) -> RoleRequest:
    added = tuple(rules)
    if not added:
        return role
    terms = tuple((*term, *added) for term in role.nodes.terms or ((),))
    return replace(role, nodes=NodeRule(terms, role.nodes.tolerations))


def _all_narrowed(request: GangRequest, rules: Rules) -> GangRequest:
    return replace(request, roles=tuple(_narrowed(role, rules) for role in request.roles))


# --- apart ------------------------------------------------------------------------------------------------------------


def _apart(table: NodeTable, request: GangRequest, standing: Standing) -> tuple[NodeTable, GangRequest]:
    """Hosts that have all the pods of a role that they may are closed to it; on those that may get some more, no more
    is free than these take."""
    table, roles = table.copy(), list(request.roles)
    for at, role in enumerate(roles):
        here = Counter(standing.get(role.name, ())) if role.per_host else Counter[NodeName]()
        full = [node for node, pods in here.items() if pods >= role.per_host or not _leave(table, role, node, pods)]
        if full:
            roles[at] = _narrowed(role, (LabelRule(NODE_NAME, "NotIn", tuple(sorted(full))),))
    return table, replace(request, roles=tuple(roles))


def _leave(table: NodeTable, role: RoleRequest, node: NodeName, pods: int) -> bool:
    """Leave free what the pods take that may still come; False where they take nothing, so that nothing limits them."""
    row = table.layout.row_by_name.get(node)
    if row is None:
        return True
    each = table.asked_of(shape_of(role), np.array([row]))[:, 0]
    (asked,) = each.nonzero()
    table.free[asked, row] = np.minimum(table.free[asked, row], (role.per_host - pods) * each[asked])
    return bool(len(asked))
