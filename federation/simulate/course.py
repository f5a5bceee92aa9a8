"""The course of an openb exam: what is allocated, refused and fragmented at every whole percent of arrived load.

Fragmentation is that of Weng et al., USENIX ATC 2023: GPUs that are free and that a pod drawn from the list could not
use where they are, whatever rule placed the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from federation.simulate.openb import Arrival, Exam
from federation.simulate.openb_lists import GPU_MILLI
from federation.simulate.openb_pool import Pool
from federation.simulate.plots import Line
from federation.simulate.policies_fgd import Classes, fragments

HEADER: Final = "seed,load_pct,allocated_pct,refused_pct,fragmented_pct\n"


class Sample(NamedTuple):
    """After the last arrival that fell on this percent of load; all figures in percent of all GPUs."""

    seed: int
    load_pct: int
    allocated_pct: float
    refused_pct: float  # asked for so far and turned away: no arrival is tried twice
    fragmented_pct: float


@dataclass(slots=True)
class _Seed:
    number: int
    classes: Classes
    arrived: int = 0
    allocated: int = 0


class Course:
    """Samples of one seed after another; `add` every arrival, in order."""

    def __init__(self, exam: Exam) -> None:
        self._exam = exam
        self._seed: _Seed | None = None
        self.samples: list[Sample] = []

    def add(self, seed: int, arrival: Arrival, pool: Pool) -> None:
        run = self._seed
        if run is None or run.number != seed:
            run = self._seed = _Seed(seed, Classes(self._exam.pods, pool))
        demand = arrival.pod.shape.demand_milli
        before = self._load_pct(run.arrived)
        run.arrived += demand
        run.allocated += demand if arrival.spot is not None else 0
        load = self._load_pct(run.arrived)
        if load > before:  # a sample costs a look at every node: one per percent, never one per arrival
            self.samples.append(self._sample(run, load, pool))

    def _load_pct(self, arrived: int) -> int:
        return 100 * arrived // self._exam.capacity

    def _sample(self, run: _Seed, load: int, pool: Pool) -> Sample:
        lost = int(fragments(run.classes, pool.cpu, pool.free, pool.model_ids).sum())
        fragmented = lost / (run.classes.total * GPU_MILLI)
        gpus = self._exam.capacity / GPU_MILLI
        return Sample(
            run.number,
            load,
            round(100 * run.allocated / self._exam.capacity, 4),
            round(100 * (run.arrived - run.allocated) / self._exam.capacity, 4),
            round(100 * fragmented / gpus, 4),
        )


def rows(samples: Sequence[Sample]) -> Iterator[str]:
    """The lines of the CSV file, its header first."""
    yield HEADER
    for sample in samples:
        yield ",".join(map(str, sample)) + "\n"


def lines(samples: Sequence[Sample]) -> dict[str, list[Line]]:
    """What there is to draw: a line per seed of each figure, over arrived load."""
    seeds = sorted({sample.seed for sample in samples})
    return {
        name: [
            [(one.load_pct, float(getattr(one, f"{name}_pct"))) for one in samples if one.seed == seed]
            for seed in seeds
        ]
        for name in ("allocated", "refused", "fragmented")
    }
