"""Nodes as columns of what is free on them, and how many pods of a use their devices hold.

A *use* is what a pod does with devices: how many, and how much of each. Many kinds of pods differ in CPU only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from placement.layout import Ints
from placement.mix import GPU_MILLI, PodKind

Use = tuple[int, int]
"""(devices, milli of each)"""


@dataclass(frozen=True, slots=True)
class NodeStates:
    """Columns of nodes: number of the product, free CPU, and free milli of each device (0 or less: no such device)."""

    product_ids: Ints
    cpu: Ints
    free: Ints  # a row per device

    def __len__(self) -> int:
        return len(self.cpu)

    def part(self, where: slice) -> NodeStates:
        return NodeStates(self.product_ids[where], self.cpu[where], self.free[:, where])


class Uses:
    """The different uses of some kinds, ascending."""

    __slots__ = ("_several", "_single", "all")

    def __init__(self, kinds: Iterable[PodKind]) -> None:
        self.all: tuple[Use, ...] = tuple(sorted({use_of(kind) for kind in kinds}))
        milli = np.arange(GPU_MILLI + 1, dtype=np.int64)
        single = [milli // each for gpus, each in self.all if gpus == 1]
        self._single: Ints = np.array(single, dtype=np.int64).reshape(len(single), GPU_MILLI + 1)
        self._several = self.all[len(single) :]

    def pods(self, free: Ints) -> Ints:
        """Per use and node how many pods the devices hold, whatever CPU says."""
        held = np.maximum(free, 0)
        rows = [self._single[:, held].sum(axis=1)]
        rows.extend(((held >= each).sum(axis=0) // gpus)[None] for gpus, each in self._several)
        found: Ints = np.concatenate(rows)
        return found


def use_of(kind: PodKind) -> Use:
    return kind.gpus, kind.gpu_milli
