"""What a gang would cost each cluster: the node-level gain by which clusters are compared.

Nodes of one product with as many free GPUs and about as much free CPU are alike; per cluster they are only counted, so
all clusters can be compared for every gang. Which nodes a gang gets is not decided here, nor whether it fits: topology,
memory and rules of nodes are left to those who know.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np

from placement.fleet import CPU_MILLI, GPUS, NodeTable, Shape, shape_of
from placement.layout import Ints, named_level
from placement.model import PODS_PER_GROUP_MAX, GangRequest, Level
from placement.node_order import GPUS_KEPT, LOSS_STEPS, NodeWorth
from placement.refusal import on_one_host

CPU_STEP_SHIFT: Final = 14  # 16 cores: finer steps make more states to compare than differences between clusters
CPU_STEPS_MAX: Final = 1 << 10  # steps of free CPU told apart, far beyond any node
COST_STEPS: Final = 1_024  # per GPU: whole numbers, whose sums do not depend on their order
COSTS_KEPT_MAX: Final = 4_096  # shapes and numbers of pods; each a row over the states

FEW_NODES: Final = 256  # nodes whose states are looked up one by one: sorting them first costs more
CELLS_FIRST: Final = 2_048  # states times clusters filled at first: below that, looking twice costs more than it saves
STATES_FIRST: Final = 8

_STATES: Final = (GPUS_KEPT + 1) * CPU_STEPS_MAX  # of one product
_NONE: Final = -1


class Costs(NamedTuple):
    """Some states, cheapest first: what a pod costs there, and how many pods such a node holds."""

    states: Ints
    each: Ints  # in 1 / COST_STEPS of a GPU
    pods: Ints


class NodeCounts:
    """How many usable nodes each cluster has in each state that was ever seen."""

    __slots__ = ("_codes", "_costs", "_number", "_of_node", "_products", "_worth", "counts")

    def __init__(self, tables: Iterable[NodeTable]) -> None:
        known = list(tables)
        self._products: dict[str, int] = {}
        self._number: dict[int, int] = {}  # of a state, by its code: in the order in which they were first seen
        self._codes: list[int] = []
        self._of_node: list[Ints] = []
        self._worth: NodeWorth | None = None
        self._costs: dict[tuple[Shape, int], Costs] = {}
        self.counts: Ints = np.zeros((64, len(known)), dtype=np.int64)
        for table in known:
            self._of_node.append(np.full(len(table), _NONE, dtype=np.int64))
            self._count(len(self._of_node) - 1, slice(None), self._states(table, slice(None)))

    def replace(self, cluster: int, table: NodeTable) -> None:
        """Other nodes."""
        self.counts[:, cluster] = 0
        self._of_node[cluster] = np.full(len(table), _NONE, dtype=np.int64)
        self._count(cluster, slice(None), self._states(table, slice(None)))

    def change(self, cluster: int, table: NodeTable, nodes: Ints) -> None:
        """These nodes are otherwise now. O(nodes)."""
        self._count(cluster, nodes, self._states(table, nodes))

    def costs(self, asked: Iterable[tuple[Shape, int]], worth: NodeWorth | None, clusters: Ints | None = None) -> Ints:
        """Per cluster what so many pods of these shapes cost it on its cheapest nodes, in 1 / COST_STEPS of a GPU.

        0 while nothing is known of what is usually asked for, and where `clusters` are given for all others. Where the
        cluster's states hold fewer pods, those without a place cost as much as the others do. O(states x clusters), for
        as many states only as it takes to place the pods.
        """
        if worth is not self._worth:
            self._worth = worth
            self._costs.clear()
        found: Ints = np.zeros(self.counts.shape[1], dtype=np.int64)
        if worth is not None:
            for shape, count in asked:
                found += fill_costs(self.counts, self._costs_of(shape, count, worth), count, clusters)
        return found

    def _costs_of(self, shape: Shape, count: int, worth: NodeWorth) -> Costs:
        key = shape, count if shape.gpus == 0 else min(count, GPUS_KEPT)
        found = self._costs.get(key)
        if found is None:
            if len(self._costs) >= COSTS_KEPT_MAX:
                self._costs.clear()
            codes = np.array(self._codes, dtype=np.int64)
            found = self._costs[key] = pod_costs(tuple(self._products), codes, shape, count, worth)
        return found

    def _states(self, table: NodeTable, nodes: Ints | slice) -> Ints:
        """The number of each node's state; _NONE where it takes no pods."""
        codes = _codes_of(table, nodes, self._products)
        if len(codes) <= FEW_NODES:
            listed = codes.tolist()
            known = self._number
            if not known.keys() >= set(listed):
                for code in sorted(set(listed)):
                    self._number_of(code)
            found: Ints = np.array([known[code] for code in listed], dtype=np.int64)
        else:
            new, where = np.unique(codes, return_inverse=True)
            found = np.array([self._number_of(code) for code in new.tolist()], dtype=np.int64)[where]
        found[~table.usable[nodes]] = _NONE
        return found

    def _number_of(self, code: int) -> int:
        number = self._number.get(code)
        if number is None:
            number = self._number[code] = len(self._codes)
            self._codes.append(code)
            self._costs.clear()
            if number >= len(self.counts):
                self.counts = np.concatenate((self.counts, np.zeros_like(self.counts)))
        return number

    def _count(self, cluster: int, nodes: Ints | slice, now: Ints) -> None:
        before = self._of_node[cluster][nodes].copy()  # of a slice it would be a view
        self._of_node[cluster][nodes] = now
        counts = self.counts[:, cluster]
        np.subtract.at(counts, before[before != _NONE], 1)
        np.add.at(counts, now[now != _NONE], 1)


def fill_costs(counts: Ints, costs: Costs, count: int, clusters: Ints | None = None) -> Ints:
    """Per cluster (a column of `counts`, a row per state) what `count` pods cost on the cheapest states.

    Equivalent to filling all states in order, except that a cluster is left as soon as all pods have a place there:
    most of them are found on few states. Only of `clusters`, ascending, where they are given; the others cost 0.
    """
    width = counts.shape[1]
    spent: Ints = np.zeros(width, dtype=np.int64)
    filled: Ints = np.zeros(width, dtype=np.int64)
    left: Ints = np.arange(width) if clusters is None else clusters
    first, block = 0, max(STATES_FIRST, CELLS_FIRST // max(1, len(left)))
    while first < len(costs.states) and len(left):
        here = slice(first, first + block)
        states = costs.states[here]
        held = counts[states] if len(left) == width else counts[states[:, None], left]
        held *= costs.pods[here, None]
        held[0] += filled[left]
        held.cumsum(axis=0, out=held)
        np.minimum(held, count, out=held)
        spent[left] += np.diff(held, axis=0, prepend=filled[left][None]).T @ costs.each[here]
        filled[left] = held[-1]
        left = left[held[-1] < count]
        first, block = first + block, block * 2
    found: Ints = spent * count // np.maximum(filled, 1)
    return found


def pod_costs(products: tuple[str, ...], codes: Ints, shape: Shape, count: int, worth: NodeWorth) -> Costs:
    """What pods of a shape cost in each of the states that take one, if a node takes as many as it can of `count`."""
    product_ids, rest = np.divmod(codes, _STATES)
    gpus, step = np.divmod(rest, CPU_STEPS_MAX)
    cpu = (step + 1 << CPU_STEP_SHIFT) - 1
    pods = np.full(len(codes), min(count, PODS_PER_GROUP_MAX), dtype=np.int64)
    if shape.gpus:
        pods = np.minimum(pods, gpus // shape.gpus)
    if shape.cpu_milli:
        pods = np.minimum(pods, cpu // shape.cpu_milli)
    if shape.products:
        pods *= np.array([product in shape.products for product in products], dtype=np.int64)[product_ids]
    (takes,) = pods.nonzero()
    pods = pods[takes]
    exact = worth.costs(products, product_ids[takes], np.stack((gpus[takes], cpu[takes])), shape, pods)
    each = np.rint(exact * (COST_STEPS / LOSS_STEPS)).astype(np.int64)
    order = each.argsort(kind="stable")  # of equal costs it does not matter which comes first
    return Costs(takes[order], each[order], pods[order])


def table_cost(table: NodeTable, request: GangRequest, worth: NodeWorth | None) -> int:
    """What `NodeCounts.costs` says of one cluster by itself."""
    return int(NodeCounts([table]).costs(shapes_asked(request), worth)[0])


def shapes_asked(request: GangRequest) -> tuple[tuple[Shape, int], ...]:
    """The shapes of a gang with the pods of each, in the order of roles; all together where they need one host."""
    if named_level(request.level_required) == Level.HOST:
        whole = on_one_host(request)
        return ((whole, 1),) if whole is not None else ()
    pods: dict[Shape, int] = {}
    for role in request.roles:
        pods[shape_of(role)] = pods.get(shape_of(role), 0) + role.count
    return tuple(pods.items())


def _codes_of(table: NodeTable, nodes: Ints | slice, products: dict[str, int]) -> Ints:
    """The state of each node as a number that is the same whenever it is seen; `products` grows by those it lacks."""
    layout = table.layout
    ids = np.array([products.setdefault(one, len(products)) for one in layout.products], dtype=np.int64)
    gpus = np.minimum(table.free[GPUS, nodes], GPUS_KEPT)
    step = np.minimum(table.free[CPU_MILLI, nodes] >> CPU_STEP_SHIFT, CPU_STEPS_MAX - 1)
    found: Ints = ids[layout.product_ids[nodes]] * _STATES + gpus * CPU_STEPS_MAX + step
    return found
