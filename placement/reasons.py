"""Why clusters are out of the question, for many clusters at once: reasons counted, and the one closest to a start.

Equivalent to the reasons of `placement.refusal`, without their quantities where only counts are wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from placement.fixed import POSSIBLE, never_counted
from placement.fleet import Shape
from placement.layout import Ints
from placement.memory import Memory
from placement.model import Because, Reason
from placement.refusal import gpu_reason, refusal
from placement.request_class import EVERYWHERE, RequestClass

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


def misfits_counted(memory: Memory, known: RequestClass, clusters: Ints) -> dict[Reason, int]:
    """Why a gang of one role does not fit into any of `clusters`, counted by reason.

    Equivalent to the first reason of `refusal` in each, by the same questions in the same order.
    """
    codes = memory.fixed.never(known).codes[clusters]
    counts = dict(never_counted(codes))
    left = clusters[codes == POSSIBLE]
    if len(left):
        for reason, found in _short_now(memory, known, left):
            if found:
                counts[reason] = counts.get(reason, 0) + found
    return counts


def _short_now(memory: Memory, known: RequestClass, clusters: Ints) -> Iterator[tuple[Reason, int]]:
    """Clusters in which the gang would fit if they were emptier, counted by what is short."""
    last = known.attempts[-1]
    shape = last.shape
    level = EVERYWHERE if last.on_host else last.level
    gpus_only = shape._replace(cpu_milli=0, memory_mib=0)
    short = memory.capacity(gpus_only, level)[clusters] < last.count
    if not shape.gpus:
        yield Reason.INSUFFICIENT_CPU, int(short.sum())
    elif short.any():
        one_gpu = Shape(1, 0, 0, *shape.nodes)
        free = memory.most_on_one_node(one_gpu, clusters) if last.on_host else memory.capacity(one_gpu, level)[clusters]
        in_pieces = short & (free >= last.count * shape.gpus)
        yield Reason.TOO_FRAGMENTED, int(in_pieces.sum())
        yield gpu_reason(last.level[0]), int((short & ~in_pieces).sum())
    for cluster in clusters[~short].tolist():  # few: GPUs are free, and CPU or memory beside them is not
        yield refusal(memory.rows[cluster].table, known.request)[0].reason, 1
