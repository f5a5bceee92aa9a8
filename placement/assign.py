"""One gang to the nodes of one cluster: all of it or none. The same code chooses in the placer and in the agent.

Whole GPUs, CPU and memory; topology levels as `placement.layout` knows them. Which cluster is best does not belong here
(see `placement.engine`), nor does the wording of refusals (see `placement.refusal`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from placement.assignment import Assignment, Part
from placement.fleet import CPU_MILLI, GPUS, NodeTable, pods_per_node
from placement.layout import IN_NO_DOMAIN, Bools, Domains, Ints, named_level
from placement.model import Because, GangRequest, Level, RoleRequest
from placement.refusal import on_one_host, refusal, static_refusal

# Domains in which the roles of a gang are tried together. Only gangs of several unlike roles ever need a second one.
DOMAINS_TRIED_MAX = 256


def assign(table: NodeTable, request: GangRequest) -> Assignment | tuple[Because, ...]:
    """A node for every pod of `request` on what is free in `table`, or why there is none, gravest reason first.

    All pods stand in one domain of the required level; if possible also in one of the preferred level. The tightest
    domain that holds the gang is taken, and in it the nodes with the fewest free GPUs; ties by clique, then node name.

    Complete for gangs whose roles ask for equal pods and for gangs on one host. Unlike roles are placed one after the
    other, most demanding first: of the ways to share nodes between them only this one is tried in each domain, so a
    gang that needs a cleverer packing is refused although it might fit. O(nodes) per role and domain tried.
    """
    if because := static_refusal(table, request):
        return because
    for level, within, preferred_met in _levels(request):
        domains = table.layout.domains(level, within)
        if domains is None:
            continue
        parts = _on_one_host(table, request, domains) if _is_host(level) else _in_one_domain(table, request, domains)
        if parts is not None:
            return Assignment(request, parts, preferred_met)
    return refusal(table, request)


def _levels(request: GangRequest) -> Iterator[tuple[str, str, bool]]:
    """(level, the level around it, whether the preference is met) in the order of trying."""
    required, preferred = request.level_required, request.level_preferred
    if preferred and preferred != required:
        if _is_host(required):
            yield required, preferred, True
        else:
            yield preferred, required, True
    yield required, "", bool(preferred) and preferred == required


def _is_host(level: str) -> bool:
    return named_level(level) == Level.HOST


def _on_one_host(table: NodeTable, request: GangRequest, domains: Domains) -> tuple[Part, ...] | None:
    """The fullest single node that holds all pods of all roles; exact, since their sum is all that counts."""
    whole = on_one_host(request)
    if whole is None:
        return None
    holds = (pods_per_node(table.free, whole) > 0) & (domains.codes != IN_NO_DOMAIN) & table.accepting(whole.products)
    rows = np.flatnonzero(holds)
    if not len(rows):
        return None
    row = int(rows[_fullest_first(table.free[:, rows], gpus_asked=whole.gpus)[0]])
    return tuple(Part(role.name, table.names[row], role.count) for role in request.roles)


def _in_one_domain(table: NodeTable, request: GangRequest, domains: Domains) -> tuple[Part, ...] | None:
    roles = sorted(_merged(request), key=_most_demanding_first)
    for code in _candidates(table, roles, domains)[:DOMAINS_TRIED_MAX]:
        rows = domains.rows(code)
        pods_by_role = _fill_roles(table, roles, rows)
        if pods_by_role is not None:
            return _parts(table, request, rows, pods_by_role)
    return None


def _merged(request: GangRequest) -> list[RoleRequest]:
    """Roles that ask for the same per pod are one while nodes are chosen: that keeps greedy counting complete."""
    merged: dict[RoleRequest, int] = {}
    for role in request.roles:
        shape = _shape(role)
        merged[shape] = merged.get(shape, 0) + role.count
    return [replace(shape, count=count) for shape, count in merged.items()]


def _shape(role: RoleRequest) -> RoleRequest:
    return replace(role, name="", count=1, min_count=1)


def _most_demanding_first(role: RoleRequest) -> tuple[bool, int, int, int, tuple[str, ...]]:
    """Roles bound to products come first: others must not take the few nodes that they can use."""
    return (not role.products, -role.gpus, -role.cpu_milli, -role.memory_mib, role.products)


def _candidates(table: NodeTable, roles: list[RoleRequest], domains: Domains) -> list[int]:
    """Domains in which every role fits by itself, tightest first."""
    possible: Bools | None = None
    capacity: Ints | None = None
    for role in roles:
        held = domains.sums(_fit(table, role))
        capacity = held if capacity is None else capacity
        possible = held >= role.count if possible is None else possible & (held >= role.count)
    assert possible is not None
    assert capacity is not None
    codes = np.flatnonzero(possible)
    if len(codes) > 1:
        accepted = table.accepting(roles[0].products)
        free = domains.sums(table.free[GPUS] * accepted) if roles[0].gpus else capacity
        total = domains.sums(table.total[GPUS] * accepted)
        codes = codes[np.lexsort((codes, -total[codes], free[codes]))]
    return [int(code) for code in codes]


def _fit(table: NodeTable, role: RoleRequest) -> Ints:
    return pods_per_node(table.free, role) * table.accepting(role.products)


def _fill_roles(table: NodeTable, roles: list[RoleRequest], rows: Ints) -> dict[RoleRequest, Ints] | None:
    """Pods per row (of `rows`) for each role, keyed by its shape; None if one role after the other does not fit."""
    free = table.free[:, rows]
    pods_by_role: dict[RoleRequest, Ints] = {}
    for role in roles:
        fit = pods_per_node(free, role) * table.accepting(role.products)[rows]
        if int(fit.sum()) < role.count:
            return None
        pods = _fill(fit, _fullest_first(free, gpus_asked=role.gpus), role.count)
        free -= np.array([[role.gpus], [role.cpu_milli], [role.memory_mib]], dtype=np.int64) * pods
        pods_by_role[_shape(role)] = pods
    return pods_by_role


def _fullest_first(free: Ints, *, gpus_asked: int) -> Ints:
    """Columns by fewest free GPUs (gangs without GPUs: then by least free CPU), then in table order."""
    if gpus_asked:
        return np.argsort(free[GPUS], kind="stable")
    return np.lexsort((free[CPU_MILLI], free[GPUS]))


def _fill(fit: Ints, order: Ints, count: int) -> Ints:
    """Pods per node when nodes are filled up in `order` until `count` pods have one.

    Equivalent to walking the order and taking min(fit, left), by cumulative sums.
    """
    filled = np.minimum(np.cumsum(fit[order]), count)
    pods = np.zeros_like(fit)
    pods[order] = np.diff(filled, prepend=0)
    return pods


def _parts(
    table: NodeTable, request: GangRequest, rows: Ints, pods_by_role: dict[RoleRequest, Ints]
) -> tuple[Part, ...]:
    """Deals the counted pods out to the roles as the request names them."""
    names = table.names
    left = {shape: _runs(rows, pods) for shape, pods in pods_by_role.items()}
    parts: list[Part] = []
    for role in request.roles:
        wanted = role.count
        runs = left[_shape(role)]
        while wanted:
            row, pods = runs.popleft()
            taken = min(pods, wanted)
            wanted -= taken
            parts.append(Part(role.name, names[row], taken))
            if taken < pods:
                runs.appendleft((row, pods - taken))
    return tuple(parts)


def _runs(rows: Ints, pods: Ints) -> deque[tuple[int, int]]:
    """(row, pods) where there are any, in table order."""
    used = np.flatnonzero(pods)
    return deque(zip(rows[used].tolist(), pods[used].tolist(), strict=True))
