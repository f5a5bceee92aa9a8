"""Why clusters are out of the question, for many clusters at once: reasons counted, and the one closest to a start.

Equivalent to the reasons of `placement.refusal`, without their quantities where only counts are wanted.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from placement.fleet import Shape, shape_of
from placement.layout import KNOWN_LEVELS, Bools, Ints, named_level
from placement.memory import Memory
from placement.model import Because, Reason
from placement.refusal import gpu_reason, refusal
from placement.request_class import EVERYWHERE, Attempt, RequestClass

Counts = tuple[tuple[Reason, int], ...]


def least_grave(refusals: Iterable[Because]) -> Because:
    """The reason closest to a start: what people are shown first. Without any cluster, that there is none."""
    nearest = min(refusals, key=_nearness, default=None)
    return nearest or Because(Reason.CLUSTER_NOT_ADMITTED, detail="no cluster has joined")


def _nearness(because: Because) -> tuple[int, int, str]:
    return because.reason.severity, because.needs - because.best, str(because)


def counted(reasons: Iterable[Reason]) -> Counts:
    """Clusters per reason, least grave reason first."""
    counts: dict[Reason, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    return in_order(counts)


def in_order(counts: dict[Reason, int]) -> Counts:
    return tuple(sorted(counts.items(), key=lambda item: item[0].severity))


class _Tally:
    """Clusters whose reason is not known yet, and the reasons of the others, counted."""

    def __init__(self, clusters: Ints) -> None:
        self.left = clusters
        self.counts: dict[Reason, int] = {}

    def settle(self, reason: Reason, where: Bools) -> None:
        """`reason` is that of the clusters left `where` it is true."""
        found = int(where.sum())
        if found:
            self.counts[reason] = self.counts.get(reason, 0) + found
            self.left = self.left[~where]


def misfits_counted(memory: Memory, known: RequestClass, clusters: Ints) -> dict[Reason, int]:
    """Why a gang of one role does not fit into any of `clusters`, counted by reason.

    Equivalent to the first reason of `refusal` in each, by the same questions in the same order.
    """
    role = known.request.roles[0]
    level = named_level(known.request.level_required)
    tally = _Tally(clusters)
    if role.products:
        tally.settle(Reason.NO_SUCH_PRODUCT, ~memory.fixed.has_product(role.products)[tally.left])
    tally.settle(Reason.LARGER_THAN_CLUSTER, memory.fixed.pods_if_empty(shape_of(role))[tally.left] < role.count)
    if level in KNOWN_LEVELS:
        tally.settle(Reason.NO_DOMAIN_LARGE_ENOUGH, memory.fixed.domains_count(level)[tally.left] == 0)
    else:
        tally.settle(Reason.NO_DOMAIN_LARGE_ENOUGH, np.ones(len(tally.left), dtype=np.bool_))
    if len(tally.left):
        _settle_gpus(memory, known.attempts[-1], tally)
    for cluster in tally.left.tolist():  # few: GPUs are free, and CPU or memory beside them is not
        reason = refusal(memory.rows[cluster].table, known.request)[0].reason
        tally.counts[reason] = tally.counts.get(reason, 0) + 1
    return tally.counts


def _settle_gpus(memory: Memory, last: Attempt, tally: _Tally) -> None:
    shape = last.shape
    level = EVERYWHERE if last.on_host else last.level
    gpus_only = shape._replace(cpu_milli=0, memory_mib=0)
    if not shape.gpus:
        tally.settle(Reason.INSUFFICIENT_CPU, memory.capacity(gpus_only, level)[tally.left] < last.count)
        return
    one_gpu = Shape(1, 0, 0, shape.products)
    short = memory.capacity(gpus_only, level)[tally.left] < last.count
    free = memory.most_on_one_node(one_gpu, tally.left) if last.on_host else memory.capacity(one_gpu, level)[tally.left]
    enough = free >= last.count * shape.gpus
    short_and_not_enough = (short & ~enough)[~(short & enough)]
    tally.settle(Reason.TOO_FRAGMENTED, short & enough)
    tally.settle(gpu_reason(last.level[0]), short_and_not_enough)
