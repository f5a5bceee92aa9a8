"""Pods per topology domain of one level, for every cluster and every shape that is asked for at that level.

Follows what `placement.rows` says has changed. Which level a gang wants is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from placement.layout import IN_NO_DOMAIN, Domains, Ints
from placement.rows import ClusterRows, Gains

Sums = npt.NDArray[np.int32]  # 5,000 nodes of at most 10,000 pods each fit

FIRST_ROOM: Final = 4  # shapes; most are asked for at no level at all
NEVER: Final = -1


class LevelSums:
    """`sums[cluster, slot, code]`: pods of a shape in one domain. The best domain is looked for when somebody asks."""

    __slots__ = ("_best", "_seen", "_shapes", "domains", "slots", "sums")

    def __init__(self, domains: Sequence[Domains]) -> None:
        """`domains` of each cluster, in the order of clusters."""
        self.domains = list(domains)
        self.slots: dict[int, int] = {}  # number of a shape -> slot
        self._shapes: Ints = np.zeros(0, dtype=np.int64)  # slot -> number of a shape
        width = max((one.count for one in domains), default=0) + 1
        self.sums: Sums = np.zeros((len(domains), FIRST_ROOM, width), dtype=np.int32)
        self._best: Ints = np.zeros((FIRST_ROOM, len(domains)), dtype=np.int64)
        self._seen: Ints = np.full((FIRST_ROOM, len(domains)), NEVER, dtype=np.int64)

    def track(self, shape: int, rows: Sequence[ClusterRows]) -> int:
        """The slot of a shape; from now on its sums are kept."""
        slot = self.slots.get(shape)
        if slot is None:
            slot = self.slots[shape] = len(self.slots)
            self._shapes = np.append(self._shapes, shape)
            if slot == self.sums.shape[1]:
                self._double()
            for cluster, one in enumerate(rows):
                self._fill(cluster, slot, one.pods[shape])
        return slot

    def replace(self, cluster: int, domains: Domains, rows: ClusterRows) -> None:
        """The cluster has other nodes now."""
        self.domains[cluster] = domains
        missing = domains.count + 1 - self.sums.shape[2]
        if missing > 0:
            self.sums = np.pad(self.sums, ((0, 0), (0, 0), (0, missing)))
        self.sums[cluster] = 0
        self._seen[:, cluster] = NEVER
        for shape, slot in self.slots.items():
            self._fill(cluster, slot, rows.pods[shape])

    def change(self, cluster: int, nodes: Ints, gained: Gains) -> None:
        """`gained` pods per (shape, node)."""
        if not self.slots:
            return
        sums = self.sums[cluster, : len(self.slots)]
        if len(nodes) == 1:
            code = self.domains[cluster].codes[nodes[0]]
            if code != IN_NO_DOMAIN:
                sums[:, code] += gained[:, 0].take(self._shapes)
            return
        codes, mine = self.domains[cluster].codes.take(nodes), gained.take(self._shapes, axis=0)
        listed = codes.tolist()
        if listed.count(listed[0]) == len(listed):  # as often: who asks for nodes near to each other gets them
            sums[:, listed[0]] += np.add.reduce(mine, axis=1)
        else:
            ascending = sorted(listed)
            if listed != ascending:
                listed, mine = ascending, mine.take(codes.argsort(kind="stable"), axis=1)
            starts = [at for at, code in enumerate(listed) if not at or code != listed[at - 1]]
            sums[:, [listed[at] for at in starts]] += np.add.reduceat(mine, starts, axis=1)
        sums[:, IN_NO_DOMAIN] = 0  # nodes in no domain count nowhere

    def best(self, slot: int, versions: Ints) -> Ints:
        """Per cluster the most pods that any one domain holds; looks again only where `versions` have moved on."""
        (stale,) = (self._seen[slot] != versions).nonzero()
        if len(stale):
            self._best[slot, stale] = self.sums[stale, slot].max(axis=1)
            self._seen[slot, stale] = versions[stale]
        best: Ints = self._best[slot]
        return best

    def of(self, cluster: int, slot: int) -> Ints:
        """Pods per domain of one cluster, indexed by code."""
        found: Ints = self.sums[cluster, slot, : self.domains[cluster].count + 1].astype(np.int64)
        return found

    def _fill(self, cluster: int, slot: int, pods: npt.NDArray[np.uint16]) -> None:
        found = self.domains[cluster].sums(pods.astype(np.int64))
        self.sums[cluster, slot, : len(found)] = found

    def _double(self) -> None:
        room = self.sums.shape[1]
        self.sums = np.pad(self.sums, ((0, 0), (0, room), (0, 0)))
        self._best = np.pad(self._best, ((0, room), (0, 0)))
        self._seen = np.pad(self._seen, ((0, room), (0, 0)), constant_values=NEVER)
