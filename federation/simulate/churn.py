"""`muster simulate openb --churn`: pods that leave again, for any rule and any lists. What is told is what was refused.

No second try: a pod that finds no room is gone. Printing is the CLI's.
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

import msgspec

from federation.simulate.openb import Exam, PolicyName
from federation.simulate.openb_lists import PodShape, PodSpec
from federation.simulate.openb_pool import Pool, Spot

LOADS: Final = (90, 95, 98)  # percent of all GPUs that pods would hold on average if none were refused
TURNOVERS: Final = 2  # how often, on average, each place changes hands: once before it is counted, once while it is


class ChurnRow(msgspec.Struct, frozen=True, kw_only=True):
    """One load, averaged over seeds."""

    load: str
    refused_pct: float  # of the GPU time asked for
    refused_pods_pct: float
    unallocated_pct: float  # of all GPUs, on average over time
    runs: list[float]  # refused_pct by seed


class ChurnReport(msgspec.Struct, frozen=True, kw_only=True):
    policy: str
    seeds: list[int]
    loads: list[ChurnRow]
    seconds: float


class Stay(NamedTuple):
    """A pod that comes, and leaves if it found room. `counted`: whether its fate belongs to the figures."""

    from_s: float
    until_s: float
    shape: PodShape
    counted: bool


class Figures(NamedTuple):
    """GPU time in milli GPU seconds, and pods."""

    asked: float
    refused: float
    pods: int
    refused_pods: int
    held: float  # while it was counted
    span_s: float


def recorded(pods: Sequence[PodSpec]) -> list[Stay]:
    """The stays as the list tells them; empty where it tells no times."""
    return [
        Stay(float(pod.created_s), float(pod.deleted_s), pod.shape, counted=True)
        for pod in sorted(pods, key=lambda pod: (pod.created_s, pod.name))
        if 0 <= pod.created_s < pod.deleted_s
    ]


def stationary(pods: Sequence[PodSpec], capacity: int, load: float, seed: int) -> list[Stay]:
    """Pods of the list, drawn at random, whose stays are exponential with mean 1 and ask for `load` of all GPUs.

    The pool starts with as many pods as it will hold on average, so that it is in balance from the start; after one
    turnover their traces are gone, and it is counted.
    """
    dice = random.Random(f"churn-{seed}")
    originals = sorted(pods)
    mean_milli = sum(pod.shape.demand_milli for pod in originals) / len(originals)
    per_s = load * capacity / mean_milli
    stays = [Stay(0.0, dice.expovariate(1.0), dice.choice(originals).shape, counted=False) for _ in range(round(per_s))]
    now_s = 0.0
    while (now_s := now_s + dice.expovariate(per_s)) < TURNOVERS:
        shape = dice.choice(originals).shape
        stays.append(Stay(now_s, now_s + dice.expovariate(1.0), shape, counted=now_s >= TURNOVERS / 2))
    return stays


def play_stays(exam: Exam, name: PolicyName, stays: Sequence[Stay], seed: int) -> Figures:
    """Every pod in the order of arrival; those that leave at that very moment have left before."""
    pool, policy = exam.start(name, seed)
    leaving: list[tuple[float, int, Spot, PodShape]] = []
    asked = refused = held = 0.0
    pods = refused_pods = 0
    begins_s = min((stay.from_s for stay in stays if stay.counted), default=0.0)
    ends_s = max((stay.from_s for stay in stays if stay.counted), default=0.0)
    for number, stay in enumerate(stays):
        _leave(pool, leaving, stay.from_s)
        spot = policy.choose(stay.shape)
        work = stay.shape.demand_milli * (stay.until_s - stay.from_s)
        if stay.counted:
            asked, pods = asked + work, pods + 1
        if spot is None:
            refused += work * stay.counted
            refused_pods += stay.counted
            continue
        pool.take(spot, stay.shape)
        heapq.heappush(leaving, (stay.until_s, number, spot, stay.shape))
        overlap_s = min(stay.until_s, ends_s) - max(stay.from_s, begins_s)
        held += stay.shape.demand_milli * max(0.0, overlap_s)
    return Figures(asked, refused, pods, refused_pods, held, ends_s - begins_s)


def _leave(pool: Pool, leaving: list[tuple[float, int, Spot, PodShape]], now_s: float) -> None:
    while leaving and leaving[0][0] <= now_s:
        _, _, spot, shape = heapq.heappop(leaving)
        pool.give(spot, shape)


def run_churn(
    exam: Exam,
    name: PolicyName,
    seeds: Sequence[int],
    *,
    loads: Sequence[int] = LOADS,
    on_progress: Callable[[str], None] = lambda _line: None,
) -> ChurnReport:
    """The recorded stays, where the list has them, then the stationary ones at each load."""
    began_s = time.perf_counter()
    rows: list[ChurnRow] = []
    for load, of_seed in _workloads(exam, loads):
        found = [play_stays(exam, name, of_seed(seed), seed) for seed in seeds]
        rows.append(_row(load, found, exam.capacity))
        on_progress(f"{load}: {rows[-1].refused_pct:.3f} % of GPU time refused")
    return ChurnReport(policy=name, seeds=list(seeds), loads=rows, seconds=round(time.perf_counter() - began_s, 3))


def _workloads(exam: Exam, loads: Sequence[int]) -> Iterator[tuple[str, Callable[[int], list[Stay]]]]:
    as_recorded = recorded(exam.pods)
    if as_recorded:
        yield "recorded", lambda _seed: as_recorded
    for load in loads:
        yield str(load), partial(stationary, exam.pods, exam.capacity, load / 100)


def _row(load: str, found: Sequence[Figures], capacity: int) -> ChurnRow:
    shares = [100 * one.refused / one.asked if one.asked else 0.0 for one in found]
    pods, refused_pods = sum(one.pods for one in found), sum(one.refused_pods for one in found)
    held = sum(one.held for one in found) / max(1e-9, sum(one.span_s for one in found) * capacity)
    return ChurnRow(
        load=load,
        refused_pct=round(sum(shares) / len(shares), 4),
        refused_pods_pct=round(100 * refused_pods / max(1, pods), 4),
        unallocated_pct=round(100 - 100 * held, 4),
        runs=[round(share, 4) for share in shares],
    )
