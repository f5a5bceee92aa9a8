"""Fragmentation gradient descent: the pod goes where the least becomes useless to the pods of the given list.

Weng et al., "Beware of Fragmentation", USENIX ATC 2023, with the constants of
hkust-adsl/kubernetes-scheduler-simulator (pkg/utils/frag.go). Written from its description.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from federation.simulate.openb_lists import GPU_MILLI, PodShape, PodSpec
from federation.simulate.openb_pool import Ints, Pool
from federation.simulate.policies import NO_ROOM, SCORE_SCALE, ScoreRows

COVERED_PCT: Final = 95  # rarer classes of pods than those that make up so many are left out

_ClassKey = tuple[int, int, int, tuple[str, ...]]  # CPU, milli per GPU, GPUs, models: memory does not count


class Classes:
    """The commonest classes of a list, a column each. Those without GPUs are kept for their share only."""

    def __init__(self, pods: Sequence[PodSpec], pool: Pool) -> None:
        counted = Counter(_class_of(pod.shape) for pod in pods)
        kept: list[tuple[_ClassKey, int]] = []
        covered = 0
        for key, count in sorted(counted.items(), key=lambda item: (-item[1], item[0])):
            if covered * 100 >= len(pods) * COVERED_PCT:
                break
            kept.append((key, count))
            covered += count
        with_gpus = [(key, count) for key, count in kept if key[2]]
        self.total = covered
        self.without_gpus = covered - sum(count for _, count in with_gpus)
        self.cpu: Ints = np.array([key[0] for key, _ in with_gpus], dtype=np.int64)
        self.gpus: Ints = np.array([key[2] for key, _ in with_gpus], dtype=np.int64)
        self.counts: Ints = np.array([count for _, count in with_gpus], dtype=np.int64)
        self.accepts = np.array([pool.accepts(key[3]) for key, _ in with_gpus], dtype=np.bool_).reshape(
            len(with_gpus), len(pool.models)
        )
        # Few different needs per GPU: what they leave over is worked out once for each.
        self.needs, self.need_of = np.unique(np.array([key[1] for key, _ in with_gpus]), return_inverse=True)


def _class_of(shape: PodShape) -> _ClassKey:
    return shape.cpu_milli, shape.gpu_milli, shape.gpus, shape.models


class Fgd:
    """Scores are cut to 0..100, and the first of equal nodes wins: as published, and much of why it works."""

    def __init__(self, pool: Pool, pods: Sequence[PodSpec]) -> None:
        self._pool = pool
        self._classes = Classes(pods, pool)
        self._rows = ScoreRows(pool, self._score)

    def arrived(self, shape: PodShape) -> None:
        """Nothing is learnt: the list is known."""

    def row(self, shape: PodShape) -> Ints:
        return self._rows.row(shape)

    def devices(self, node: int, shape: PodShape) -> tuple[int, ...]:
        if not _shared(shape):
            return self._pool.tightest(node, shape)
        return (int(self._device_scores(shape, np.array([node]))[:, 0].argmax()),)

    def _score(self, shape: PodShape, nodes: Ints) -> Ints:
        if _shared(shape):
            scores: Ints = self._device_scores(shape, nodes).max(axis=0)
            return np.where(self._pool.fits(shape, nodes), scores, NO_ROOM)
        pool = self._pool
        free, model_ids = pool.free[:, nodes], pool.model_ids[nodes]
        before = fragments(self._classes, pool.cpu[nodes], free, model_ids)
        after = fragments(self._classes, pool.cpu[nodes] - shape.cpu_milli, _without_tightest(free, shape), model_ids)
        return np.where(pool.fits(shape, nodes), self._scaled(before - after), NO_ROOM)

    def _device_scores(self, shape: PodShape, nodes: Ints) -> Ints:
        """A row per device, NO_ROOM where it has none."""
        pool = self._pool
        free, model_ids = pool.free[:, nodes], pool.model_ids[nodes]
        devices, count = free.shape
        after = np.repeat(free[:, None, :], devices, axis=1)  # [device, the one that is taken, node]
        taken = np.arange(devices)
        after[taken, taken] -= shape.gpu_milli
        room = free >= shape.gpu_milli
        cpu = np.tile(pool.cpu[nodes] - shape.cpu_milli, devices)
        left = fragments(self._classes, cpu, after.reshape(devices, -1), np.tile(model_ids, devices))
        before = fragments(self._classes, pool.cpu[nodes], free, model_ids)
        return np.where(room, self._scaled(before - left.reshape(devices, count)), NO_ROOM)

    def _scaled(self, gained: Ints) -> Ints:
        """`gained` fragments, summed over the classes' counts, as a published score."""
        gpus = gained / (self._classes.total * GPU_MILLI)
        scores: Ints = (SCORE_SCALE / (1.0 + np.exp(-gpus))).astype(np.int64)
        return scores


def _shared(shape: PodShape) -> bool:
    return shape.gpus == 1 and shape.gpu_milli < GPU_MILLI


def _without_tightest(free: Ints, shape: PodShape) -> Ints:
    """What is free per device when the pod has the devices it leaves the least on; anything where it does not fit."""
    if not shape.gpus:
        return free
    room = free >= shape.gpu_milli
    order = np.where(room, free, GPU_MILLI + 1).argsort(axis=0, kind="stable")
    taken = np.zeros_like(room)
    np.put_along_axis(taken, order[: shape.gpus], values=True, axis=0)
    return free - shape.gpu_milli * (taken & room)


def fragments(classes: Classes, cpu: Ints, free: Ints, model_ids: Ints) -> Ints:
    """Per node the free milli that a pod of the list cannot use, summed over the classes' counts.

    All that is free where the class cannot run at all, or asks for no GPU; else what is free on devices with less than
    it needs. Memory does not count.
    """
    held = np.maximum(free, 0)
    total = held.sum(axis=0)
    enough = free[None] >= classes.needs[:, None, None]  # [need, device, node]
    devices = enough.sum(axis=1)
    leftover = total - (held[None] * enough).sum(axis=1)
    runs = (devices[classes.need_of] >= classes.gpus[:, None]) & (cpu >= classes.cpu[:, None])
    runs &= classes.accepts[:, model_ids]
    lost = np.where(runs, leftover[classes.need_of], total)
    found: Ints = (classes.counts[:, None] * lost).sum(axis=0) + classes.without_gpus * total
    return found
