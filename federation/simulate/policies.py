"""Rules that choose a node and devices for one pod: best-fit and random as published; what all rules have in common.

The published rules: hkust-adsl/kubernetes-scheduler-simulator, pkg/simulator/plugin. FGD is `policies_fgd`'s, our own
rule `policies_muster`'s.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, Protocol

import numpy as np

from federation.simulate.openb_lists import PodShape
from federation.simulate.openb_pool import Ints, Pool, Spot

NO_ROOM: Final = int(np.iinfo(np.int64).min)  # score of a node where the pod does not fit

CPU_SCALE: Final = 128_000  # milli; the largest node of the trace, a constant of the published rule
GPU_SCALE: Final = 8_000  # milli
SCORE_SCALE: Final = 100  # published scores are cut to whole numbers up to this


class Policy(Protocol):
    """A rule on one pool. It is asked for every arrival, in order, and sees what was taken by the pool's changes."""

    def choose(self, shape: PodShape) -> Spot | None:
        """Where the pod goes; None only if it fits nowhere."""
        ...


class Scored(Protocol):
    """A rule that gives every node a score: so it can compare clusters, too."""

    def arrived(self, shape: PodShape) -> None:
        """A pod has arrived, wherever it will go."""
        ...

    def row(self, shape: PodShape) -> Ints:
        """The score of every node now, NO_ROOM where the pod does not fit; to be read only."""
        ...

    def devices(self, node: int, shape: PodShape) -> tuple[int, ...]:
        """The best devices of a node with room."""
        ...


class ByScore:
    """The node with the highest score; of equal ones the first."""

    def __init__(self, rule: Scored) -> None:
        self._rule = rule

    def choose(self, shape: PodShape) -> Spot | None:
        self._rule.arrived(shape)
        row = self._rule.row(shape)
        node = int(row.argmax())
        return Spot(node, self._rule.devices(node, shape)) if row[node] != NO_ROOM else None


class ScoreRows:
    """The score of every node for every shape, brought up to date where nodes have changed since it last came.

    `score(shape, nodes)` gives whole numbers, NO_ROOM where the pod does not fit, and depends on nothing else.
    """

    __slots__ = ("_pool", "_read", "_rows", "_score")

    def __init__(self, pool: Pool, score: Callable[[PodShape, Ints], Ints]) -> None:
        self._pool = pool
        self._score = score
        self._rows: dict[PodShape, Ints] = {}
        self._read: dict[PodShape, int] = {}  # how many changes each row knows

    def row(self, shape: PodShape) -> Ints:
        """The scores of all nodes as of now."""
        pool = self._pool
        row = self._rows.get(shape)
        if row is None:
            row = self._rows[shape] = self._score(shape, np.arange(len(pool)))
        else:
            nodes = pool.changes.since(self._read[shape])
            if len(nodes):
                row[nodes] = self._score(shape, nodes)
        self._read[shape] = len(pool.changes.nodes)
        return row

    def forget(self) -> None:
        """Scores mean something else from now on."""
        self._rows.clear()
        self._read.clear()


class Random:
    """Any node with room, any device with room."""

    def __init__(self, pool: Pool, seed: int) -> None:
        self._pool = pool
        self._dice = random.Random(seed)

    def choose(self, shape: PodShape) -> Spot | None:
        nodes = np.flatnonzero(self._pool.fits(shape))
        if not len(nodes):
            return None
        node = int(nodes[self._dice.randrange(len(nodes))])
        if shape.gpus != 1:
            return Spot(node, self._pool.tightest(node, shape))
        devices = np.flatnonzero(self._pool.free[:, node] >= shape.gpu_milli)
        return Spot(node, (int(devices[self._dice.randrange(len(devices))]),))


class BestFit:
    """The node that is left with the least CPU and GPU, each weighed by the largest node; then the tightest device."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._rows = ScoreRows(pool, self._score)

    def arrived(self, shape: PodShape) -> None:
        """Nothing is learnt."""

    def row(self, shape: PodShape) -> Ints:
        return self._rows.row(shape)

    def devices(self, node: int, shape: PodShape) -> tuple[int, ...]:
        return self._pool.tightest(node, shape)

    def _score(self, shape: PodShape, nodes: Ints) -> Ints:
        pool = self._pool
        gpu_free = np.maximum(pool.free[:, nodes], 0).sum(axis=0)
        left = (pool.cpu[nodes] - shape.cpu_milli) / CPU_SCALE + (gpu_free - shape.demand_milli) / GPU_SCALE
        scores = (SCORE_SCALE * (1.0 - left / 2)).astype(np.int64)  # below 0 on nodes larger than the scales
        return np.where(pool.fits(shape, nodes), scores, NO_ROOM)
