"""The exam over several clusters: a placer chooses the cluster on a view that may be old, the cluster chooses the node.

Both by the same scores. A cluster without room says so, and the next best one is asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import StrEnum, unique
from typing import Final

import numpy as np

from federation.simulate.openb_lists import NodeSpec, PodShape
from federation.simulate.openb_pool import Ints, Pool, Spot
from federation.simulate.policies import NO_ROOM, Scored

CLUSTERS_MAX: Final = 1_000  # as many as a fleet may have
VIEW_AGE_MAX: Final = 100_000  # arrivals


@unique
class Split(StrEnum):
    RANDOM = "random"
    MODEL = "model"


def split(order: Sequence[NodeSpec], clusters: int, how: Split) -> tuple[tuple[NodeSpec, ...], Ints]:
    """The nodes cluster by cluster, and the cluster of each: `order` as it is, or sorted by model, cut into shares of
    equal GPUs."""
    assert 1 <= clusters <= CLUSTERS_MAX, "a fleet has clusters"
    nodes = tuple(order) if how is Split.RANDOM else tuple(sorted(order, key=lambda node: (node.model, node.name)))
    gpus = np.array([node.gpus for node in nodes], dtype=np.int64)
    middle = 2 * gpus.cumsum() - gpus  # of each node's GPUs, twice: a node is where most of it is
    return nodes, middle * clusters // (2 * int(gpus.sum()))


class Federated:
    """`view_age`: how many arrivals ago the placer's view of all nodes was true."""

    def __init__(self, pool: Pool, view: Pool, agents: Scored, placer: Scored, of_node: Ints, view_age: int) -> None:
        """`view` is another pool of the same nodes for the placer's rule; `pool` itself where the view is fresh."""
        self._pool = pool
        self._view = view
        self._agents = agents
        self._placer = placer
        self._starts = np.flatnonzero(np.diff(of_node, prepend=-1))
        self._ends = np.append(self._starts[1:], len(of_node))
        self._view_age = view_age
        self._unseen: deque[tuple[PodShape, Spot] | None] = deque()  # by arrival, oldest first
        self.refused_count = 0  # by clusters asked because of an old view

    def choose(self, shape: PodShape) -> Spot | None:
        """Where the pod goes; None if it fits nowhere at all."""
        self._see()
        self._placer.arrived(shape)
        if self._agents is not self._placer:
            self._agents.arrived(shape)
        found = self._ask_clusters(shape)
        if self._view is not self._pool:
            self._unseen.append(None if found is None else (shape, found))
        return found

    def _see(self) -> None:
        """What happened long enough ago comes into view."""
        while len(self._unseen) > self._view_age:
            seen = self._unseen.popleft()
            if seen is not None:
                self._view.take(seen[1], seen[0])

    def _ask_clusters(self, shape: PodShape) -> Spot | None:
        best = np.maximum.reduceat(self._placer.row(shape), self._starts)
        row = self._agents.row(shape)
        for cluster in _ranked(best):
            start, end = int(self._starts[cluster]), int(self._ends[cluster])
            node = start + int(row[start:end].argmax())
            if row[node] != NO_ROOM:
                return Spot(node, self._agents.devices(node, shape))
            self.refused_count += 1
        return None


def _ranked(best: Ints) -> list[int]:
    """Clusters with room in view, best first, ties by number. In an older view there is never less room than now."""
    return sorted(np.flatnonzero(best != NO_ROOM).tolist(), key=lambda cluster: (-int(best[cluster]), cluster))
