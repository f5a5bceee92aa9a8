"""The smallest change that would give a group room, as a sentence. Every proposal is checked against the tables.

Only for groups that fit nowhere now; quotas are `explain`'s.
"""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from placement.assign import assign, assign_if_it_fits
from placement.assignment import Assignment
from placement.elastic import sizes_of
from placement.engine import least_grave
from placement.filters import Pending, cluster_refusal
from placement.fleet import GPUS, ClusterView, Fleet, NodeTable, Shape, pods_per_node, shape_of
from placement.layout import Domains, named_level
from placement.model import Because, GangRequest, Level, Reason
from placement.refusal import on_one_host


class Effort(IntEnum):
    """How much a change asks of people; the least is proposed."""

    WAIT = 0
    UNCORDON = 1
    FREE_GPUS = 2
    FREE_OTHER = 3
    REPAIR_CLUSTER = 4
    CHANGE_REQUEST = 5


class _Proposal(NamedTuple):
    effort: Effort
    size: int
    sentence: str


_NOTHING = _Proposal(Effort.WAIT, 0, "")

GPU_REASONS = frozenset(
    {
        Reason.INSUFFICIENT_GPUS,
        Reason.TOO_FRAGMENTED,
        Reason.TOO_FEW_HOSTS,
        Reason.NO_CLIQUE_LARGE_ENOUGH,
        Reason.NO_DOMAIN_LARGE_ENOUGH,
    }
)
FREE_OTHER_REASONS = frozenset({Reason.INSUFFICIENT_CPU, Reason.INSUFFICIENT_MEMORY})


def smallest_change(fleet: Fleet, item: Pending) -> str:
    """What would let `item` start, smallest effort first, then fewest GPUs, then by cluster name. An elastic gang
    starts when its smallest size fits."""
    item = replace(item, request=sizes_of(item.request).smallest)
    proposals: list[_Proposal] = []
    refusals: list[Because] = []
    if item.spread is not None:
        fleet = Fleet(view for view in fleet.values() if not _holds(view, item))
    for view in fleet.values():
        answer = assign(view.table, item.request)
        opening = _opening(view, item)
        if isinstance(answer, Assignment):
            proposals.extend(opening)
            continue
        refusals.append(answer[0])
        room = _room(view, item.request, answer[0])
        proposals.extend(_both(one, other) for one in opening or [_NOTHING] for other in room)
    if proposals:
        return min(proposals).sentence
    return f"change the request: {least_grave(refusals)}" if fleet else "join a cluster"


def _holds(view: ClusterView, item: Pending) -> bool:
    """A spread group needs more room than there is in clusters that hold the least of one child, or other clusters."""
    return cluster_refusal(view, item) is None and assign_if_it_fits(view.table, item.request) is not None


def _opening(view: ClusterView, item: Pending) -> list[_Proposal]:
    """What opens the cluster to the group, if it is closed."""
    closed = cluster_refusal(view, item)
    if closed is None:
        return []
    match closed.reason:
        case Reason.SIBLING_THERE:
            return [_Proposal(Effort.CHANGE_REQUEST, 0, f"join another cluster: {view.name} runs a sibling")]
        case Reason.REFUSED_LATELY:
            return [_Proposal(Effort.WAIT, 0, f"wait until {view.name} is tried again: {closed.detail}")]
        case Reason.VIEW_STALE:
            return [_Proposal(Effort.WAIT, 0, f"wait for the next report of {view.name}")]
        case Reason.CLUSTER_FAILING:
            return [_Proposal(Effort.WAIT, 0, f"wait until {view.name}, where most groups failed, is well again")]
        case Reason.CLUSTER_CORDONED:
            return [_Proposal(Effort.UNCORDON, 0, f"uncordon {view.name}")]
        case Reason.CLUSTER_NOT_WANTED | Reason.LEASE_CLASS_NOT_ACCEPTED:
            return [_Proposal(Effort.CHANGE_REQUEST, 0, f"accept {view.name} ({closed.detail})")]
        case _:
            return [_Proposal(Effort.REPAIR_CLUSTER, 0, f"bring {view.name} back ({closed.reason.code})")]


def _room(view: ClusterView, request: GangRequest, because: Because) -> list[_Proposal]:
    """What has to end in a cluster that is too full; nothing if it is too small."""
    where = f"one {request.level_required} of {view.name}" if request.level_required else view.name
    if request.nested:
        return _room_for_nested(view, request, because)
    if because.reason in FREE_OTHER_REASONS:
        what = "CPU" if because.reason is Reason.INSUFFICIENT_CPU else "memory"
        missing = because.needs - because.best
        return [_Proposal(Effort.FREE_OTHER, missing, f"free {what} in {where} ({because})")]
    if because.reason is Reason.INSUFFICIENT_DEVICES:
        missing = because.needs - because.best
        return [
            _Proposal(Effort.FREE_OTHER, missing, f"free {missing} {because.unit.removeprefix('free ')} in {where}")
        ]
    gpus = gpus_to_free(view.table, request) if because.reason in GPU_REASONS else None
    if not gpus:
        return []
    products = "/".join(sorted({product for role in request.roles for product in role.products}))
    return [_Proposal(Effort.FREE_GPUS, gpus, f"free {gpus} {products + ' ' if products else ''}GPUs in {where}")]


def _room_for_nested(view: ClusterView, request: GangRequest, because: Because) -> list[_Proposal]:
    """How many GPUs have to end is not worked out where roles have levels of their own: what lacks says it best. Only
    where the gang would fit if nothing ran there."""
    table = view.table
    empty = NodeTable(table.layout, table.total.copy(), table.total, table.usable)
    if because.reason not in GPU_REASONS | FREE_OTHER_REASONS or assign_if_it_fits(empty, request) is None:
        return []
    return [_Proposal(Effort.FREE_OTHER, because.needs - because.best, f"make room in {view.name} ({because})")]


def _both(one: _Proposal, other: _Proposal) -> _Proposal:
    sentence = " and ".join(part for part in (one.sentence, other.sentence) if part)
    return _Proposal(max(one.effort, other.effort), one.size + other.size, sentence)


def gpus_to_free(table: NodeTable, request: GangRequest) -> int | None:
    """The fewest GPUs that have to become free, on the right nodes, before `request` fits; None if it never will.

    Exact as far as GPUs go: CPU and memory are taken to be freed with the GPUs. For gangs of unlike roles it is the
    number missing in all, a lower bound.
    """
    domains = table.layout.domains(request.level_required)
    if domains is None:
        return None
    if named_level(request.level_required) == Level.HOST:
        whole = on_one_host(request)
        return _cheapest_domain(table, whole, 1, domains) if whole is not None and whole.gpus else None
    shape, *others = {shape_of(role) for role in request.roles}
    if others:
        return _missing_in_all(table, request)
    return _cheapest_domain(table, shape, request.pods, domains) if shape.gpus else None


def _cheapest_domain(table: NodeTable, shape: Shape, count: int, domains: Domains) -> int | None:
    """The fewest GPUs to free in any one domain so that it holds `count` pods; None where none could.

    On a node, the first further pod costs what its free rest lacks, each one after that the GPUs of a whole pod: taking
    the cheapest first is therefore best.
    """
    usable = table.accepting(*shape.nodes)
    most = pods_per_node(table.total, shape, table.layout.kinds) * usable
    now = np.minimum(table.free[GPUS] // shape.gpus * usable, most)
    lacking = count - domains.sums(now)
    possible = domains.sums(most) >= count
    if not possible.any():
        return None
    nodes = np.flatnonzero(most > now)
    first_cost = shape.gpus - table.free[GPUS, nodes] % shape.gpus
    order = np.lexsort((first_cost, domains.codes[nodes]))
    codes, paid = domains.codes[nodes][order], np.concatenate(([0], first_cost[order].cumsum()))
    every = np.arange(domains.count + 1)
    start, stop = np.searchsorted(codes, every, side="left"), np.searchsorted(codes, every, side="right")
    cheap = np.clip(lacking, 0, stop - start)
    costs = paid[start + cheap] - paid[start] + np.maximum(lacking - cheap, 0) * shape.gpus
    return int(costs[possible].min())


def _missing_in_all(table: NodeTable, request: GangRequest) -> int | None:
    missing = request.gpus - int(table.free[GPUS].sum(where=table.usable))
    return missing if 0 < missing <= int((table.total[GPUS] - table.free[GPUS]).sum(where=table.usable)) else None
