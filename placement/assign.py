"""One gang to the nodes of one cluster: all of it or none. The same code chooses in the placer and in the agent.

Whole GPUs and parts of them, CPU and memory; topology levels as `placement.layout` knows them. Which cluster is best
does not belong here (see `placement.engine`), nor does the wording of refusals (see `placement.refusal`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import repeat

import numpy as np

from placement.assignment import Assignment, Part
from placement.devices import Device
from placement.filling import fill, tightest_first
from placement.fleet import KINDS_FROM, NodeTable, Shape, kind_rows, pods_per_node, shape_of
from placement.layout import IN_NO_DOMAIN, Domains, Ints, levels_in_order, named_level
from placement.model import Because, GangRequest, Level
from placement.nested import place_nested
from placement.nested_refusal import nested_refusal
from placement.node_order import NodeWorth, fullest_first, node_order
from placement.packing import pack
from placement.refusal import on_one_host, refusal, static_refusal

# Domains in which the roles of a gang are tried together. Only gangs of several unlike roles ever need a second one.
DOMAINS_TRIED_MAX = 256
DOMAINS_PACKED_MAX = 4  # in which, where that has failed, ways to share nodes are searched for: see `packing.STEPS_MAX`


def assign(table: NodeTable, request: GangRequest, worth: NodeWorth | None = None) -> Assignment | tuple[Because, ...]:
    """A node for every pod of `request` on what is free in `table`, or why there is none, gravest reason first.

    All pods stand in one domain of the required level; if possible also in one of the preferred level. The tightest
    domain that holds the gang is taken, and in it the nodes that lose the least by it, as far as `worth` knows what is
    usually asked for; without it those with the fewest free GPUs. Ties by clique, then node name.

    Inside it each role that has levels of its own stands in one domain of them, or each of its slices does: see
    `placement.nested`.

    Complete for gangs whose roles ask for equal pods and for gangs on one host. Unlike roles are placed one after the
    other, most demanding first; where that fails in all domains, other ways to share nodes are searched for in the
    tightest ones, within bounds (`placement.packing`): a gang that needs a cleverer packing still is refused although
    it might fit. O(nodes) per role and domain tried.
    """
    if because := static_refusal(table, request):
        return because
    found = _assigned(table, request, worth)
    if found is not None:
        return found
    return nested_refusal(table, request) if request.nested else refusal(table, request)


def assign_if_it_fits(table: NodeTable, request: GangRequest, worth: NodeWorth | None = None) -> Assignment | None:
    """What `assign` finds, for those who do not ask why there is nothing: the reasons cost as much as the search."""
    return None if static_refusal(table, request) else _assigned(table, request, worth)


def _assigned(table: NodeTable, request: GangRequest, worth: NodeWorth | None) -> Assignment | None:
    for level, within, preferred_met in levels_tried(request):
        domains = table.layout.domains(level, within)
        if domains is None:
            continue
        if request.nested:
            seated = place_nested(table, request, domains, worth)
            if seated is not None:
                met = preferred_met or not request.level_preferred
                return Assignment(request, seated.parts, request.prefers and met and not seated.preferred_missed)
            continue
        place = _on_one_host if named_level(level) == Level.HOST else _in_one_domain
        parts = place(table, request, domains, worth)
        if parts is not None:
            return Assignment(request, parts, preferred_met)
    return None


def levels_tried(request: GangRequest) -> Iterator[tuple[str, str, bool]]:
    """(level, the level around it, whether the preference is met) in the order of trying."""
    return levels_in_order(request.level_required, request.level_preferred)


def _on_one_host(
    table: NodeTable, request: GangRequest, domains: Domains, worth: NodeWorth | None
) -> tuple[Part, ...] | None:
    """The best single node that holds all pods of all roles; exact, since their sum is all that counts."""
    whole = on_one_host(request)
    if whole is None:
        return None
    fits = pods_per_node(table.free, whole, table.layout.kinds)
    holds = (fits > 0) & (domains.codes != IN_NO_DOMAIN) & table.accepting(*whole.nodes)
    rows = np.flatnonzero(holds)
    if not len(rows):
        return None
    row = int(rows[node_order(table, whole, rows, np.ones_like(rows), worth)[0]])
    return tuple(Part(role.name, table.names[row], role.count) for role in request.roles)


def _in_one_domain(
    table: NodeTable, request: GangRequest, domains: Domains, worth: NodeWorth | None
) -> tuple[Part, ...] | None:
    wanted = _pods_by_shape(request)
    kinds = table.layout.kinds
    fits = [pods_per_node(table.free, shape, kinds) * table.accepting(*shape.nodes) for shape, _ in wanted]
    codes = _candidates(table, wanted, fits, domains)[:DOMAINS_TRIED_MAX]
    for code in codes:
        chosen = _fill_shapes(table, wanted, fits[0], domains.rows(code), worth)
        if chosen is not None:
            return _parts(table, request, chosen)
    for code in codes[:DOMAINS_PACKED_MAX] if len(wanted) > 1 else ():
        chosen = _packed(table, wanted, fits, domains.rows(code))
        if chosen is not None:
            return _parts(table, request, chosen)
    return None


def _pods_by_shape(request: GangRequest) -> list[tuple[Shape, int]]:
    """Pods per shape, most demanding first. Roles of one shape are one here: that keeps greedy counting complete."""
    pods: dict[Shape, int] = {}
    for role in request.roles:
        shape = shape_of(role)
        pods[shape] = pods.get(shape, 0) + role.count
    return sorted(pods.items(), key=lambda item: item[0].demand) if len(pods) > 1 else list(pods.items())


def _candidates(table: NodeTable, wanted: list[tuple[Shape, int]], fits: list[Ints], domains: Domains) -> list[int]:
    """Codes of the domains in which every shape fits by itself, tightest first."""
    capacities = [domains.sums(fit) for fit in fits]
    possible = capacities[0] >= wanted[0][1]
    for capacity, (_, pods) in zip(capacities[1:], wanted[1:], strict=True):
        possible &= capacity >= pods
    codes = np.flatnonzero(possible)
    found: list[int] = tightest_first(table, wanted[0][0], domains, codes, capacities[0]).tolist()
    return found


def _fill_shapes(
    table: NodeTable, wanted: list[tuple[Shape, int]], first_fit: Ints, rows: Ints, worth: NodeWorth | None
) -> dict[Shape, deque[tuple[int, int]]] | None:
    """(row, pods) per shape within `rows`; None if, one shape after the other, not all fit side by side."""
    left = table.copy() if len(wanted) > 1 else table
    chosen: dict[Shape, deque[tuple[int, int]]] = {}
    for shape, count in wanted:
        fit = (
            pods_per_node(left.free[:, rows], shape, table.layout.kinds) * table.accepting(*shape.nodes)[rows]
            if chosen
            else first_fit[rows]
        )
        if chosen and int(fit.sum()) < count:
            return None
        (room,) = fit.nonzero()
        order = node_order(left, shape, rows[room], np.minimum(fit[room], count), worth)
        used, pods = fill(fit, room[order], count)
        chosen[shape] = deque(sorted(zip(rows[used].tolist(), pods.tolist(), strict=True)))
        if len(chosen) < len(wanted):
            left.free[:, rows[used]] -= table.asked_of(shape, rows[used]) * pods
    return chosen


def _packed(
    table: NodeTable, wanted: list[tuple[Shape, int]], fits: list[Ints], rows: Ints
) -> dict[Shape, deque[tuple[int, int]]] | None:
    """The same by trying how to share nodes, fullest first, if there is enough of everything in all."""
    useful = rows[np.array([fit[rows] for fit in fits]).any(axis=0)]
    useful = useful[fullest_first(table.free[:, useful], gpus_asked=wanted[0][0].gpus)]
    free, asked = _counted_together(table, wanted, useful)
    counts = [count for _, count in wanted]
    if (free.sum(axis=1) < np.array(asked, dtype=np.int64).T @ counts).any():
        return None
    allowed = np.array([fit[useful] > 0 for fit in fits]).T.tolist()
    found = pack([tuple(column) for column in free.T.tolist()], allowed, asked, counts)
    if found is None:
        return None
    chosen: dict[Shape, deque[tuple[int, int]]] = {}
    for number, (shape, _) in enumerate(wanted):
        here = [(row, pods[number]) for row, pods in zip(useful.tolist(), found, strict=True) if pods[number]]
        chosen[shape] = deque(sorted(here))
    return chosen


def _counted_together(
    table: NodeTable, wanted: list[tuple[Shape, int]], rows: Ints
) -> tuple[Ints, list[tuple[int, ...]]]:
    """What is free on `rows`, and what one pod of each shape takes of it: the resources, then parts of GPUs (a node has
    shares of one kind only), then places for pods that stand apart."""
    free = [*table.free[:KINDS_FROM, rows]]
    asked = [[shape.gpus, shape.cpu_milli, shape.memory_mib] for shape, _ in wanted]
    for profile in sorted({device.profile for shape, _ in wanted for device, _ in shape.devices}):
        kinds = kind_rows(table.layout.kinds, Device(profile))  # without a profile: all that are shared
        free.append(table.free[kinds][:, rows].sum(axis=0))
        for one, (shape, _) in zip(asked, wanted, strict=True):
            one.append(sum(count for device, count in shape.devices if device.profile == profile))
    for number, (shape, _) in enumerate(wanted):
        if shape.apart is not None:
            free.append(np.full(len(rows), shape.apart[1]))
            for other, one in enumerate(asked):
                one.append(int(other == number))
    return np.array(free, dtype=np.int64), [tuple(one) for one in asked]


def parts_of(
    table: NodeTable, request: GangRequest, shape: Shape, rows: list[int], pods: list[int]
) -> tuple[Part, ...]:
    """The parts of a gang whose roles all ask for `shape`, with so many pods on so many rows, ascending."""
    if len(request.roles) == 1:
        name, names = request.roles[0].name, table.names
        return tuple(map(Part._make, zip(repeat(name), map(names.__getitem__, rows), pods)))
    return _parts(table, request, {shape: deque(zip(rows, pods, strict=True))})


def _parts(table: NodeTable, request: GangRequest, chosen: dict[Shape, deque[tuple[int, int]]]) -> tuple[Part, ...]:
    """Deals the counted pods out to the roles, as the request names them and in table order."""
    names = table.names
    parts: list[Part] = []
    for role in request.roles:
        left, wanted = chosen[shape_of(role)], role.count
        while wanted:
            row, pods = left.popleft()
            taken = min(pods, wanted)
            wanted -= taken
            parts.append(Part(role.name, names[row], taken))
            if taken < pods:
                left.appendleft((row, pods - taken))
    return tuple(parts)
