"""How long single answers take: why nothing fits, one huge gang, a burst. Measured on the engine alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import msgspec

from federation.simulate.workload import GPUS_PER_NODE, Workload, node_rows, oversized_group
from placement.engine import Pending, decide, order_key
from placement.explain import NOBODY, Ahead, why
from placement.fleet import ClusterView, Fleet, NodeTable
from placement.model import ClusterName, GangRequest, GpuRequest, GroupUid, PodGroup, Position, Role
from placement.quota import UNLIMITED
from placement.requests import gang_request
from placement.score import DEFAULT_POLICY

T = TypeVar("T")

FULL_NODES: Final = 500
HUGE_NODES: Final = 5_000
HUGE_PODS: Final = 10_000
BURST_CLUSTERS: Final = 10
BURST_GROUPS: Final = 1_000
PENDING: Final = 100_000
BUDGET: Final = 10_000_000  # no answer here ends for want of it


class AnswerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds on the wall; `answer`: what was said, so that the figure cannot be that of an empty answer."""

    cannot_fit_s: float
    cannot_fit_answer: str
    cannot_fit_of_many_pending_s: float
    pending: int
    huge_gang_s: float
    huge_gang_nodes: int
    burst_s: float
    burst_placed: int


def bench_answers(seed: int) -> AnswerFigures:
    """A full cluster of 500 nodes and 4,000 GPUs; a gang of 10,000 pods; 1,000 groups over 10 clusters at once."""
    full = Fleet([_view(0, 1, FULL_NODES, used=1.0, seed=seed)])
    asked = _pending(0, _gang(64, "A100-40"))
    crowd = [asked, *(_pending(number, gang_request(oversized_group(number))) for number in range(1, PENDING))]
    alone_s, answer = _timed(lambda: why(full, asked, NOBODY, UNLIMITED, DEFAULT_POLICY))
    in_crowd_s, _ = _timed(lambda: why(full, asked, _ahead_of(asked, crowd), UNLIMITED, DEFAULT_POLICY))

    empty = Fleet([_view(0, 1, HUGE_NODES, used=0.0, seed=seed)])
    huge = _pending(0, gang_request(PodGroup(name="huge", roles=(Role(count=HUGE_PODS, template={}, gpu=_one_gpu()),))))
    huge_s, plan = _timed(lambda: decide(empty, [huge], policy=DEFAULT_POLICY, budget=BUDGET))

    ten = Fleet([_view(number, BURST_CLUSTERS, FULL_NODES, used=0.3, seed=seed) for number in range(BURST_CLUSTERS)])
    workload = Workload(seed, 108, gpus_max=GPUS_PER_NODE)
    burst = [_pending(number, gang_request(workload.next())) for number in range(BURST_GROUPS)]
    burst_s, placed = _timed(lambda: decide(ten, burst, policy=DEFAULT_POLICY, budget=BUDGET))
    return AnswerFigures(
        cannot_fit_s=alone_s,
        cannot_fit_answer=f"{answer.because}; {answer.change}",
        cannot_fit_of_many_pending_s=in_crowd_s,
        pending=len(crowd),
        huge_gang_s=huge_s,
        huge_gang_nodes=len(plan.decisions[0].assignment.nodes) if plan.decisions else 0,
        burst_s=burst_s,
        burst_placed=len(placed.decisions),
    )


def _timed(answer: Callable[[], T]) -> tuple[float, T]:
    began_s = time.perf_counter()
    found = answer()
    return round(time.perf_counter() - began_s, 4), found


def _ahead_of(item: Pending, crowd: Sequence[Pending]) -> Ahead:
    before = [other for other in crowd if order_key(other) < order_key(item)]
    return Ahead(len(before), sum(other.queue == item.queue for other in before))


def _view(number: int, clusters: int, nodes: int, *, used: float, seed: int) -> ClusterView:
    rows = node_rows(number, clusters, nodes, used=used, seed=seed)
    if used >= 1.0:
        rows = [row._replace(gpus_free=0) for row in rows]
    return ClusterView(ClusterName(f"c{number:03}"), NodeTable.build(rows))


def _gang(pods: int, product: str) -> GangRequest:
    role = Role(count=pods, template={}, gpu=GpuRequest(whole=GPUS_PER_NODE), products=(product,))
    return gang_request(PodGroup(name="gang", roles=(role,)))


def _one_gpu() -> GpuRequest:
    return GpuRequest(whole=1)


def _pending(number: int, request: GangRequest) -> Pending:
    return Pending(GroupUid(f"g-{number}"), Position(1 + number), 0, request)
