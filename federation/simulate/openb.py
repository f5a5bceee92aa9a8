"""`muster simulate openb`: the FGD exam, for any rule and any lists: arrivals one by one, no departures, no second try.

Protocol and metric: Weng et al., USENIX ATC 2023. Printing is the CLI's.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final, TextIO

import msgspec
import numpy as np

from federation.simulate.openb_arrivals import arrivals, capacity_milli, node_order
from federation.simulate.openb_clusters import Federated, Split, split
from federation.simulate.openb_lists import NodeSpec, PodSpec
from federation.simulate.openb_pool import Pool, Spot
from federation.simulate.policies import BestFit, ByScore, Policy, Random, Scored
from federation.simulate.policies_fgd import Fgd
from federation.simulate.policies_muster import Muster

LOADS: Final = (95, 100, 110, 120, 130)  # percent of all GPUs, asked for by those that have arrived
ASSIGNMENTS_HEADER: Final = ("seed", "order", "pod", "node", "gpus", "gpu_milli")


@unique
class PolicyName(StrEnum):
    MUSTER = "muster"
    FGD = "fgd"
    BESTFIT = "bestfit"
    RANDOM = "random"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One seed: per load the GPUs that are not allocated, in percent of all."""

    seed: int
    unallocated_pct: Mapping[str, float]


class OpenbReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What stands below `seconds` is told of runs over several clusters only."""

    policy: str
    runs: list[Run]
    mean: Mapping[str, float]
    seconds: float
    clusters: int = 1
    split: str = ""
    view_age: int = 0
    refusals_per_run: float = 0.0  # clusters asked in vain, because the view was old


@dataclass(frozen=True, slots=True)
class FleetShape:
    """How the nodes are shared out, and how many arrivals ago the placer's view of them was true."""

    clusters: int
    split: Split
    view_age: int = 0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One pod's fate. `order` counts from 0."""

    order: int
    pod: PodSpec
    spot: Spot | None


class Exam:
    """The lists, and how rules are set up for them."""

    def __init__(
        self,
        nodes: Sequence[NodeSpec],
        pods: Sequence[PodSpec],
        *,
        mix_given: bool = False,
        fleet: FleetShape | None = None,
    ) -> None:
        """`mix_given`: our own rule knows the list from the start, as FGD does, instead of learning from arrivals."""
        self.mix_given = mix_given
        self.fleet = fleet
        self.nodes = tuple(nodes)
        self.pods = tuple(pods)
        self.capacity = capacity_milli(nodes)

    def rule(self, name: PolicyName, pool: Pool) -> Scored:
        """A rule that compares nodes by a score: all but `random`."""
        match name:
            case PolicyName.MUSTER:
                return Muster(pool, given=self.pods if self.mix_given else ())
            case PolicyName.FGD:
                return Fgd(pool, self.pods)
            case PolicyName.BESTFIT:
                return BestFit(pool)
            case PolicyName.RANDOM:
                raise AssertionError("random has no scores")

    def start(self, name: PolicyName, seed: int) -> tuple[Pool, Policy]:
        """An empty pool, and what chooses on it."""
        order = node_order(self.nodes, seed)
        if self.fleet is not None:
            return self._federated(name, order, self.fleet)
        pool = Pool(order)
        return pool, Random(pool, seed) if name is PolicyName.RANDOM else ByScore(self.rule(name, pool))

    def _federated(self, name: PolicyName, order: Sequence[NodeSpec], fleet: FleetShape) -> tuple[Pool, Policy]:
        nodes, cluster_of = split(order, fleet.clusters, fleet.split)
        place = {node.name: rank for rank, node in enumerate(order)}
        ranks = np.array([place[node.name] for node in nodes], dtype=np.int64)  # clusters are filled side by side
        pool = Pool(nodes, ranks)
        agents = self.rule(name, pool)
        if not fleet.view_age:
            return pool, Federated(pool, pool, agents, agents, cluster_of, 0)
        view = Pool(nodes, ranks)
        return pool, Federated(pool, view, agents, self.rule(name, view), cluster_of, fleet.view_age)


def play(exam: Exam, pool: Pool, policy: Policy, seed: int) -> Iterator[Arrival]:
    """Every arrival of one seed with what became of it."""
    for order, pod in enumerate(arrivals(exam.pods, exam.capacity, seed)):
        spot = policy.choose(pod.shape)
        if spot is not None:
            pool.take(spot, pod.shape)
        yield Arrival(order, pod, spot)


class Curve:
    """Allocated GPUs by arrived load, as published: averaged over the arrivals that fall on one whole percent."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._arrived = self._allocated = 0
        self._sums: dict[int, tuple[int, int]] = {}  # percent -> (allocated milli summed, arrivals)

    def add(self, arrival: Arrival) -> None:
        demand = arrival.pod.shape.demand_milli
        self._arrived += demand
        self._allocated += demand if arrival.spot is not None else 0
        load = round(100 * self._arrived / self._capacity)
        allocated, count = self._sums.get(load, (0, 0))
        self._sums[load] = allocated + self._allocated, count + 1

    def unallocated_pct(self, load: int) -> float:
        """At the whole percent itself or, where no arrival fell on it, at the last one before it."""
        reached = [one for one in self._sums if one <= load]
        allocated, count = self._sums[max(reached)] if reached else (0, 1)
        return 100.0 - 100.0 * allocated / (count * self._capacity)


def run_openb(
    exam: Exam,
    name: PolicyName,
    seeds: Sequence[int],
    *,
    assignments: TextIO | None = None,
    on_arrival: Callable[[int, Arrival, Pool], None] | None = None,
    on_progress: Callable[[str], None] = lambda _line: None,
) -> OpenbReport:
    """One run per seed; every arrival is written to `assignments` and told, with the pool as it is then."""
    began_s = time.perf_counter()
    rows = csv.writer(assignments, lineterminator="\n") if assignments is not None else None
    if rows is not None:
        rows.writerow(ASSIGNMENTS_HEADER)
    runs: list[Run] = []
    refusals = 0
    for seed in seeds:
        pool, policy = exam.start(name, seed)
        curve = Curve(exam.capacity)
        for arrival in play(exam, pool, policy, seed):
            curve.add(arrival)
            if on_arrival is not None:
                on_arrival(seed, arrival, pool)
            if rows is not None:
                rows.writerow(_row(seed, arrival, pool))
        refusals += policy.refused_count if isinstance(policy, Federated) else 0
        runs.append(
            Run(seed=seed, unallocated_pct={str(load): round(curve.unallocated_pct(load), 4) for load in LOADS})
        )
        on_progress(f"seed {seed}: {runs[-1].unallocated_pct['100']:.2f} % unallocated at 100 % load")
    mean = {key: round(sum(run.unallocated_pct[key] for run in runs) / len(runs), 4) for key in map(str, LOADS)}
    report = OpenbReport(policy=name, runs=runs, mean=mean, seconds=round(time.perf_counter() - began_s, 3))
    if exam.fleet is None:
        return report
    fleet, per_run = exam.fleet, round(refusals / len(runs), 1)
    return msgspec.structs.replace(
        report, clusters=fleet.clusters, split=fleet.split, view_age=fleet.view_age, refusals_per_run=per_run
    )


def _row(seed: int, arrival: Arrival, pool: Pool) -> tuple[int, int, str, str, str, int]:
    spot, pod = arrival.spot, arrival.pod
    node = pool.nodes[spot.node].name if spot is not None else ""
    devices = "|".join(map(str, spot.devices)) if spot is not None else ""
    return seed, arrival.order, pod.name, node, devices, pod.shape.gpu_milli
