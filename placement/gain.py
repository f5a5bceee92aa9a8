"""What a gang would cost each cluster: the node-level gain by which clusters are compared.

Nodes of one product with as many free GPUs and about as much free CPU are alike; per cluster they are only counted, so
all clusters can be compared for every gang. Which nodes a gang gets is not decided here, nor whether it fits: topology,
memory and rules of nodes are left to those who know.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np

from placement.fleet import CPU_MILLI, GPUS, NodeTable, Shape, device_of, shape_of
from placement.layout import Ints, named_level
from placement.model import PODS_PER_GROUP_MAX, GangRequest, Level
from placement.node_order import GPUS_KEPT, LOSS_STEPS, NodeWorth
from placement.refusal import on_one_host

CPU_STEP_SHIFT: Final = 14  # 16 cores: finer steps make more states to compare than differences between clusters
CPU_STEPS_MAX: Final = 1 << 10  # steps of free CPU told apart, far beyond any node
COST_STEPS: Final = 1_024  # per GPU: whole numbers, whose sums do not depend on their order
COSTS_KEPT_MAX: Final = 4_096  # shapes and numbers of pods on a node; each a row over the states

VERY_FEW_NODES: Final = 8  # of which one by one is faster than all at once
FEW_NODES: Final = 256  # nodes whose states are looked up one by one: sorting them first costs more
CELLS_FIRST: Final = 2_048  # states times clusters filled at first: below that, looking twice costs more than it saves
STATES_FIRST: Final = 8

_STATES: Final = (GPUS_KEPT + 1) * CPU_STEPS_MAX  # of one product
_NONE: Final = -1
_NO_NODES: Final = np.zeros(0, dtype=np.int64)


class Costs(NamedTuple):
    """Some of the first `known` states, cheapest first: what a pod costs there, and how many pods such a node holds."""

    states: Ints
    each: Ints  # in 1 / COST_STEPS of a GPU
    pods: Ints
    known: int

    def after(self, others: Costs | None) -> Costs:
        """Both together; these states are counted from where those of `others` end. Of equal costs those come first."""
        if others is None:
            return self
        known = others.known + self.known
        if not len(self.states):
            return others._replace(known=known)
        each = np.concatenate((others.each, self.each))
        order = each.argsort(kind="stable")
        states = np.concatenate((others.states, self.states + others.known))[order]
        return Costs(states, each[order], np.concatenate((others.pods, self.pods))[order], known)


class NodeCounts:
    """How many usable nodes each cluster has in each state that was ever seen."""

    __slots__ = ("_codes", "_costs", "_number", "_of_node", "_of_product", "_products", "_worth", "counts")

    def __init__(self, tables: Iterable[NodeTable]) -> None:
        known = list(tables)
        self._products: dict[str, int] = {}
        self._number: dict[int, int] = {}  # of a state, by its code: in the order in which they were first seen
        self._codes: list[int] = []
        self._of_node: list[Ints] = []
        self._of_product: list[Ints] = []  # what a node's code begins with
        self._worth: NodeWorth | None = None
        self._costs: dict[tuple[Shape, int], Costs] = {}
        self.counts: Ints = np.zeros((64, len(known)), dtype=np.int64)
        for cluster, table in enumerate(known):
            self._of_node.append(_NO_NODES)
            self._of_product.append(_NO_NODES)
            self.replace(cluster, table)

    def replace(self, cluster: int, table: NodeTable) -> None:
        """Other nodes."""
        self.counts[:, cluster] = 0
        self._of_node[cluster] = np.full(len(table), _NONE, dtype=np.int64)
        products = self._products
        ids = np.array([products.setdefault(one, len(products)) for one in table.layout.products], dtype=np.int64)
        self._of_product[cluster] = ids.take(table.layout.product_ids) * _STATES if len(ids) else _NO_NODES
        every = np.arange(len(table))
        self._count(cluster, every, self._states(cluster, table, every))

    def change(self, cluster: int, table: NodeTable, nodes: Ints) -> None:
        """These nodes are otherwise now. O(nodes)."""
        if len(nodes) == 1:
            self._change_one(cluster, table, int(nodes[0]))
        else:
            self._count(cluster, nodes, self._states(cluster, table, nodes))

    def _change_one(self, cluster: int, table: NodeTable, node: int) -> None:
        """What `change` does, for the most usual case."""
        gpus = min(int(table.free[GPUS, node]), GPUS_KEPT)
        step = min(int(table.free[CPU_MILLI, node]) >> CPU_STEP_SHIFT, CPU_STEPS_MAX - 1)
        now = self._number_of(int(self._of_product[cluster][node]) + gpus * CPU_STEPS_MAX + step)
        if not table.usable[node]:
            now = _NONE
        before = int(self._of_node[cluster][node])
        self._of_node[cluster][node] = now
        if before != _NONE:
            self.counts[before, cluster] -= 1
        if now != _NONE:
            self.counts[now, cluster] += 1

    def costs(self, asked: Iterable[tuple[Shape, int]], worth: NodeWorth | None, clusters: Ints | None = None) -> Ints:
        """Per cluster what so many pods of these shapes cost it on its cheapest nodes, in 1 / COST_STEPS of a GPU.

        Only of `clusters`, ascending, where they are given. 0 while nothing is known of what is usually asked for.
        Where the cluster's states hold fewer pods, those without a place cost as much as the others do. O(states x
        clusters), for as many states only as it takes to place the pods.
        """
        if worth is not self._worth:
            self._worth = worth
            self._costs.clear()
        found: Ints | None = None
        if worth is not None:
            for shape, count in asked:
                cost = fill_costs(self.counts, self._costs_of(shape, count, worth), count, clusters)
                found = cost if found is None else found + cost
        if found is None:
            found = np.zeros(self.counts.shape[1] if clusters is None else len(clusters), dtype=np.int64)
        return found

    def _costs_of(self, shape: Shape, count: int, worth: NodeWorth) -> Costs:
        """Kept until `worth` changes; states that were seen first since then are put among the others."""
        most = count if shape.gpus == 0 else min(count, GPUS_KEPT // shape.gpus)  # on one node: larger gangs are alike
        key = shape, most
        found = self._costs.get(key)
        states = len(self._codes)
        if found is None or found.known < states:
            if len(self._costs) >= COSTS_KEPT_MAX:
                self._costs.clear()
            known = found.known if found is not None else 0
            codes = np.array(self._codes[known:], dtype=np.int64)
            found = self._costs[key] = pod_costs(tuple(self._products), codes, shape, most, worth).after(found)
        return found

    def _states(self, cluster: int, table: NodeTable, nodes: Ints) -> Ints:
        """The number of each node's state; _NONE where it takes no pods."""
        codes = self._of_product[cluster].take(nodes)
        codes += np.minimum(table.free[GPUS].take(nodes), GPUS_KEPT) * CPU_STEPS_MAX
        codes += np.minimum(table.free[CPU_MILLI].take(nodes) >> CPU_STEP_SHIFT, CPU_STEPS_MAX - 1)
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
        usable = table.usable.take(nodes)
        if not usable.all():
            found[~usable] = _NONE
        return found

    def _number_of(self, code: int) -> int:
        number = self._number.get(code)
        if number is None:
            number = self._number[code] = len(self._codes)
            self._codes.append(code)
            if number >= len(self.counts):
                self.counts = np.concatenate((self.counts, np.zeros_like(self.counts)))
        return number

    def _count(self, cluster: int, nodes: Ints, now: Ints) -> None:
        before = self._of_node[cluster].take(nodes)
        self._of_node[cluster][nodes] = now
        counts = self.counts[:, cluster]
        if len(nodes) <= VERY_FEW_NODES:
            for lost, gained in zip(before.tolist(), now.tolist(), strict=True):
                if lost != _NONE:
                    counts[lost] -= 1
                if gained != _NONE:
                    counts[gained] += 1
        else:
            np.subtract.at(counts, before[before != _NONE], 1)
            np.add.at(counts, now[now != _NONE], 1)


def fill_costs(counts: Ints, costs: Costs, count: int, clusters: Ints | None = None) -> Ints:
    """Per cluster (a column of `counts`, a row per state) what `count` pods cost on the cheapest states.

    Equivalent to filling all states in order, except that a cluster is left as soon as all pods have a place there:
    most of them are found on few states. Only of `clusters`, ascending, where they are given: a row for each.
    """
    left: Ints = np.arange(counts.shape[1]) if clusters is None else clusters
    first, block = 0, max(STATES_FIRST, CELLS_FIRST // max(1, len(left)))
    spent: Ints = np.zeros(len(left), dtype=np.int64)
    filled: Ints = np.zeros(len(left), dtype=np.int64)
    places: Ints | None = None  # of `left` among the clusters asked for, once some are done
    while first < len(costs.states) and len(left):
        here = slice(first, first + block)
        before = filled if places is None else filled[places]
        nodes = counts.take(costs.states[here], axis=0)
        if len(left) < counts.shape[1]:
            nodes = nodes.take(left, axis=1)
        now, each = _filled(nodes, costs.pods[here], costs.each[here], count, before)
        if places is None:
            spent, filled = each, now
        else:
            spent[places] += each
            filled[places] = now
        (short,) = (now < count).nonzero()
        places = short if places is None else places[short]
        left = left[short]
        first, block = first + block, block * 2
    found: Ints = spent * count // np.maximum(filled, 1)
    return found


def _filled(nodes: Ints, pods: Ints, each: Ints, count: int, before: Ints) -> tuple[Ints, Ints]:
    """Some more states, of which each cluster has so many `nodes`: pods placed with them, and what they cost there."""
    if count == 1:  # it costs what it costs on the first state that the cluster has
        has = nodes > 0
        first = has.argmax(axis=0)
        placed: Ints = np.logical_or.reduce(has, axis=0).astype(np.int64)
        return placed, each.take(first) * placed  # those that are looked at have no place yet
    held = nodes * pods[:, None]
    held[0] += before
    held.cumsum(axis=0, out=held)
    np.minimum(held, count, out=held)
    # sum of each * (held - held by the states before), with the differences taken of `each`, which is shorter
    now: Ints = held[-1]
    cost: Ints = now * each[-1] - before * each[0]
    cost -= (each[1:] - each[:-1]) @ held[:-1]
    return now, cost


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
    exact = worth.costs(products, product_ids[takes], (gpus[takes], cpu[takes]), shape, pods)
    each = np.rint(exact * (COST_STEPS / LOSS_STEPS)).astype(np.int64)
    order = each.argsort(kind="stable")  # of equal costs it does not matter which comes first
    return Costs(takes[order], each[order], pods[order], len(codes))


def table_cost(table: NodeTable, request: GangRequest, worth: NodeWorth | None) -> int:
    """What `NodeCounts.costs` says of one cluster by itself."""
    return int(NodeCounts([table]).costs(shapes_asked(request), worth)[0])


def shapes_asked(request: GangRequest) -> tuple[tuple[Shape, int], ...]:
    """The shapes of a gang with the pods of each, in the order of roles; all together where they need one host.

    Those that ask for parts of GPUs are left out: nobody knows what such parts are worth to others.
    """
    if named_level(request.level_required) == Level.HOST:
        whole = on_one_host(request)
        return ((whole, 1),) if whole is not None and not whole.devices else ()
    pods: dict[Shape, int] = {}
    for role in request.roles:
        if device_of(role) is not None:
            continue
        pods[shape_of(role)] = pods.get(shape_of(role), 0) + role.count
    return tuple(pods.items())
