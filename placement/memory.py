"""What all clusters hold, kept from cycle to cycle: the answers that `assign` would give, without asking it again.

Equivalent to `assign` on every cluster for every group, except that pods per node, per domain and per cluster are
remembered and only followed where nodes change. A memory never decides: it answers for the tables it was shown last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from placement.assign import assign, parts_of
from placement.assignment import Assignment, Part
from placement.domains import LevelSums
from placement.fixed import Fixed
from placement.fleet import GPUS, KINDS_FROM, RESOURCES, Fleet, NodeTable, Shape
from placement.gain import NodeCounts
from placement.layout import Bools, Ints, NodeFilter
from placement.model import Because, ClusterName, GangRequest
from placement.node_order import NodeWorth, first_node, node_order
from placement.request_class import EVERYWHERE, Attempt, LevelKey, RequestClass, request_class
from placement.rows import ClusterRows, Counts, Gains, ShapeIndex
from placement.sites import Sites

SHAPES_MAX: Final = 512  # 1 GiB of rows at a million nodes; a fleet's users ask for some hundred shapes at a time
LISTS_MAX: Final = 128  # filters of nodes: people write few different ones
TRACKED_MAX: Final = 20_000  # request classes
ASKED_MAX: Final = 1_000  # requests whose answers are kept by cluster: those that counting cannot answer


@dataclass(frozen=True, slots=True)
class Choice:
    """Where a gang goes in one cluster, and what it takes from which nodes: a row per resource of `amounts`."""

    assignment: Assignment
    nodes: Ints
    amounts: Ints

    def sum_of(self, resource: int) -> int:
        """What it takes of one resource."""
        return int(self.amounts[resource].sum())


@dataclass(frozen=True, slots=True, eq=False)
class Tracked:
    """An attempt and where its sums are kept: by domain where `sums` are, else per cluster only."""

    attempt: Attempt
    shape: int
    sums: LevelSums | None
    slot: int


class Memory:
    """Arrays run over clusters in the order of their names, over all that were ever shown."""

    def __init__(self) -> None:
        self.names: list[ClusterName] = []
        self.at: dict[ClusterName, int] = {}
        self.rows: list[ClusterRows] = []
        self._asked: dict[GangRequest, dict[int, tuple[int, Assignment | tuple[Because, ...]]]] = {}
        self.fixed = Fixed(self.rows)
        self._classes: dict[GangRequest, RequestClass] = {}
        self._worth: NodeWorth | None = None
        self._sites = Sites()
        self._forget_shapes()

    def follow(self, worth: NodeWorth | None) -> None:
        """From now on nodes are chosen by `worth`; what was asked before may be answered otherwise."""
        if worth is not self._worth:
            self._worth = worth
            self._asked.clear()

    def sites_of(self, fleet: Fleet) -> Sites:
        """What the clusters say by their labels; those that the fleet lacks say nothing."""
        labels = [fleet[name].labels if name in fleet else {} for name in self.names]
        if not self._sites.are_of(labels):
            self._sites = Sites(labels)
        return self._sites

    # --- following the fleet ---

    def sync(self, fleet: Fleet) -> None:
        """From now on answers are about the tables of `fleet`. O(nodes) per changed cluster, small otherwise."""
        if not fleet.keys() <= self.at.keys():
            self._meet(fleet)
        if len(self._index) > SHAPES_MAX or len(self._index.lists) > LISTS_MAX:
            self._forget_shapes()
        for view in fleet.values():
            cluster = self.at[view.name]
            self._sync_one(cluster, view.table, self.rows[cluster])

    def _sync_one(self, cluster: int, table: NodeTable, rows: ClusterRows) -> None:
        mine = rows.table
        if table.layout is not mine.layout or (
            table.total is not mine.total and not np.array_equal(table.total, mine.total)
        ):
            self._replace(cluster, table)
            return
        followed = rows.sync(table)
        if followed is not None:
            nodes, lists_gained, gained = followed
            self._free[:, : len(lists_gained), cluster] += lists_gained.T
            if rows.table is not mine:
                self._sum_totals(cluster)
            self._count(cluster, nodes, gained)

    def _meet(self, fleet: Fleet) -> None:
        """Clusters joined: arrays are made anew for all."""
        known = dict(zip(self.names, self.rows, strict=True))
        self.names = sorted(fleet.keys() | known.keys())
        self.at = {name: cluster for cluster, name in enumerate(self.names)}
        tables = {name: view.table for name, view in fleet.items()}
        self.rows = [known.get(name) or ClusterRows(tables[name], self._index) for name in self.names]
        self._asked.clear()
        self.fixed = Fixed(self.rows)
        self._gather()

    def _replace(self, cluster: int, table: NodeTable) -> None:
        """Other nodes, or other totals."""
        rows = self.rows[cluster] = ClusterRows(table, self._index)
        self._versions[cluster] += 1
        self.fixed.forget()
        self._sum_up(cluster)
        self._nodes.replace(cluster, table)
        for key, level in self._levels.items():
            domains = table.layout.domains(*key)
            assert domains is not None
            level.replace(cluster, domains, rows)

    def _forget_shapes(self) -> None:
        """Begin anew: shapes that are still asked for come back when they are."""
        self._index = ShapeIndex()
        self.rows = [ClusterRows(one.table, self._index) for one in self.rows]
        self._asked.clear()
        self._gather()

    def _gather(self) -> None:
        clusters = len(self.names)
        self._versions: Ints = np.zeros(clusters, dtype=np.int64)
        self._held: Ints = np.zeros((max(1, len(self._index.list_of)), clusters), dtype=np.int64)
        self._free: Ints = np.zeros((len(RESOURCES), len(self._index.lists), clusters), dtype=np.int64)
        self._total: Ints = np.zeros_like(self._free)
        self._levels: dict[LevelKey, LevelSums] = {}
        self._tracked: dict[RequestClass, tuple[Tracked, ...]] = {}
        for cluster in range(clusters):
            self._sum_up(cluster)
        self._nodes = NodeCounts([one.table for one in self.rows])

    def _sum_up(self, cluster: int) -> None:
        rows = self.rows[cluster]
        shapes = len(self._index)
        self._held[:shapes, cluster] = rows.pods[:shapes].sum(axis=1, dtype=np.int64)
        self._free[:, :, cluster] = (rows.masks @ rows.table.free[:KINDS_FROM].T).T
        self._sum_totals(cluster)

    def _sum_totals(self, cluster: int) -> None:
        rows = self.rows[cluster]
        self._total[:, :, cluster] = (rows.masks @ rows.table.total[:KINDS_FROM].T).T

    def _count(self, cluster: int, nodes: Ints, gained: Gains) -> None:
        """`gained` pods per (shape, node)."""
        self._versions[cluster] += 1
        self._held[: len(gained), cluster] += np.add.reduce(gained, axis=1)
        for level in self._levels.values():
            level.change(cluster, nodes, gained)
        self._nodes.change(cluster, self.rows[cluster].table, nodes)

    # --- what is known of requests ---

    def _shape(self, shape: Shape) -> int:
        number = self._index.shapes.get(shape)
        if number is None:
            self._list(shape.nodes)
            number = self._index.add(shape)
            if number >= len(self._held):
                self._held = np.concatenate((self._held, np.zeros_like(self._held)))
            self._held[number] = [rows.add_shape(number) for rows in self.rows]
        return number

    def _list(self, nodes: NodeFilter) -> int:
        number = self._index.lists.get(nodes)
        if number is None:
            number = self._index.lists[nodes] = len(self._index.lists)
            masks = [rows.add_list(nodes) for rows in self.rows]
            tables = [rows.table for rows in self.rows]
            free = np.array(
                [table.free[:KINDS_FROM] @ mask for table, mask in zip(tables, masks, strict=True)], dtype=np.int64
            )
            total = np.array(
                [table.total[:KINDS_FROM] @ mask for table, mask in zip(tables, masks, strict=True)], dtype=np.int64
            )
            shape = (len(self.rows), len(RESOURCES))
            self._free = np.concatenate((self._free, free.reshape(shape).T[:, None, :]), axis=1)
            self._total = np.concatenate((self._total, total.reshape(shape).T[:, None, :]), axis=1)
        return number

    def _level(self, key: LevelKey) -> LevelSums:
        found = self._levels.get(key)
        if found is None:
            domains = [rows.table.layout.domains(*key) for rows in self.rows]
            found = self._levels[key] = LevelSums([one for one in domains if one is not None])
        return found

    # --- answers ---

    def capacity(self, shape: Shape, level: LevelKey) -> Ints:
        """Per cluster how many pods of `shape` the best domain of `level` holds now."""
        number = self._shape(shape)
        if level == EVERYWHERE:
            held: Ints = self._held[number]
            return held
        sums = self._level(level)
        return sums.best(sums.track(number, self.rows), self._versions)

    def class_of(self, request: GangRequest) -> RequestClass:
        """The class of a request that nobody waits with by itself; the same one for as long as it is tracked."""
        found = self._classes.get(request)
        if found is None:
            if len(self._classes) >= TRACKED_MAX:
                self._classes.clear()
            found = self._classes[request] = request_class(request)
        return found

    def tracked(self, known: RequestClass) -> tuple[Tracked, ...]:
        """The attempts of `known`, with where their sums are kept."""
        found = self._tracked.get(known)
        if found is None:
            if len(self._tracked) >= TRACKED_MAX:
                self._tracked.clear()
            found = self._tracked[known] = tuple(self._track(attempt) for attempt in known.attempts)
        return found

    def _track(self, attempt: Attempt) -> Tracked:
        shape = self._shape(attempt.shape)
        if attempt.on_host or attempt.level == EVERYWHERE:  # one pod on one host: somewhere is enough
            return Tracked(attempt, shape, None, 0)
        sums = self._level(attempt.level)
        return Tracked(attempt, shape, sums, sums.track(shape, self.rows))

    def holds(self, tracked: Tracked) -> Bools:
        """Per cluster whether the attempt would succeed there now."""
        held = self._held[tracked.shape]
        if tracked.sums is not None:
            held = tracked.sums.best(tracked.slot, self._versions)
        found: Bools = held >= tracked.attempt.count
        return found

    def most_on_one_node(self, shape: Shape, clusters: Ints) -> Ints:
        """Of each of `clusters` the most pods of `shape` that one node holds now. O(nodes)."""
        number = self._shape(shape)
        most = [int(self.rows[cluster].pods[number].max(initial=0)) for cluster in clusters.tolist()]
        return np.array(most, dtype=np.int64)

    def amounts(self, known: RequestClass) -> tuple[Ints, Ints]:
        """Per cluster what is free and what there is in all, of the resource and on the nodes that `known` may use."""
        number = self._list(known.nodes)
        return self._free[known.resource, number], self._total[known.resource, number]

    def gpus_free(self, nodes: NodeFilter) -> Ints:
        """Per cluster how many GPUs are free on nodes that pass a filter."""
        number = self._list(nodes)
        found: Ints = self._free[GPUS, number]
        return found

    def costs(self, known: RequestClass, clusters: Ints) -> Ints:
        """What the gang would cost each of `clusters` on its cheapest nodes: see `placement.gain`."""
        return self._nodes.costs(known.shapes, self._worth, clusters)

    def choose(self, cluster: int, known: RequestClass, tracked: Tracked) -> Choice:
        """The nodes for a gang in a cluster where the attempt holds; what `assign` would choose there."""
        attempt, shape = tracked.attempt, tracked.attempt.shape
        rows = self.rows[cluster]
        pods = rows.pods[tracked.shape]
        candidates = (pods > 0).nonzero()[0] if tracked.sums is None else self._in_domain(cluster, tracked, pods)
        if attempt.count == 1:
            node = int(candidates[first_node(rows.table, shape, candidates, self._worth)])
            name, chosen, counts = rows.table.names[node], np.array([node], dtype=np.int64), _ONE
            parts = tuple(Part(role.name, name, role.count) for role in known.request.roles)
        else:
            held = np.minimum(pods.take(candidates), attempt.count).astype(np.int64)
            order = node_order(rows.table, shape, candidates, held, self._worth)[: attempt.count]
            chosen, counts = _fill(candidates.take(order), held.take(order), attempt.count)
            parts = parts_of(rows.table, known.request, shape, chosen.tolist(), counts.tolist())
        amounts = np.array(shape[:KINDS_FROM], dtype=np.int64)[:, None] * counts
        return Choice(Assignment(known.request, parts, attempt.preferred_met), chosen, amounts)

    def _in_domain(self, cluster: int, tracked: Tracked, pods: Counts) -> Ints:
        """Nodes with room in the tightest domain that holds all, ascending."""
        assert tracked.sums is not None
        shape = tracked.attempt.shape
        held = tracked.sums.of(cluster, tracked.slot)
        (codes,) = (held >= tracked.attempt.count).nonzero()
        domains = tracked.sums.domains[cluster]
        code = int(codes[0])
        if len(codes) > 1:
            table = self.rows[cluster].table
            accepted = self.rows[cluster].masks[self._list(shape.nodes)]
            free = (domains.sums(table.free[GPUS] * accepted) if shape.gpus else held).take(codes)
            tightest = codes[free == free.min()]
            code = int(tightest[0])
            if len(tightest) > 1:  # the largest of them, then the first
                total = domains.sums(table.total[GPUS] * accepted)
                code = int(tightest[total.take(tightest).argmax()])
        inside = domains.rows(code)
        return inside[pods[inside] > 0]

    def take(self, cluster: int, choice: Choice) -> None:
        """What was chosen is no longer free here; the tables shown are left alone, and the next `sync` sees theirs."""
        self._take(cluster, choice.nodes, choice.amounts)

    def give(self, cluster: int, choice: Choice) -> None:
        """What was taken is free again here: all is as it was before, to the bit."""
        self._take(cluster, choice.nodes, -choice.amounts)

    def _take(self, cluster: int, nodes: Ints, amounts: Ints) -> None:
        gained, lists_lost = self.rows[cluster].take(nodes, amounts)
        self._free[:, :, cluster] -= lists_lost.T
        self._count(cluster, nodes, gained)

    def ask(self, cluster: int, request: GangRequest) -> Assignment | tuple[Because, ...]:
        """What `assign` says, asked anew only after the cluster has changed: for requests that are not quick, and for
        reasons with their quantities."""
        if request not in self._asked and len(self._asked) >= ASKED_MAX:
            self._asked.clear()
        answers = self._asked.setdefault(request, {})
        version = int(self._versions[cluster])
        answer = answers.get(cluster)
        if answer is None or answer[0] != version:
            answer = answers[cluster] = version, assign(self.rows[cluster].table, request, self._worth)
        return answer[1]

    def choice_of(self, cluster: int, assignment: Assignment) -> Choice:
        """An assignment made by `ask` as a choice."""
        rows, amounts = self.rows[cluster].table.amounts_of(assignment)
        nodes, where = np.unique(rows, return_inverse=True)
        summed = np.zeros((len(amounts), len(nodes)), dtype=np.int64)
        for resource in range(len(amounts)):
            np.add.at(summed[resource], where, amounts[resource])
        return Choice(assignment, nodes, summed)


_ONE: Final = np.ones(1, dtype=np.int64)


def _fill(ordered: Ints, held: Ints, count: int) -> tuple[Ints, Ints]:
    """Nodes, ascending, and their pods when they are filled up in order until `count` pods have one."""
    filled = held.cumsum()
    last = int(filled.searchsorted(count))
    held[last] -= filled[last] - count
    used, counts = ordered[: last + 1], held[: last + 1]
    order = used.argsort()
    return used[order], counts[order]
