"""`muster simulate philly`: a trace of jobs with run times, placed by the engine on a fleet of equal clusters.

Every job is a gang: all of its pods or none, in one cluster, for as long as the trace says. Order, cluster and nodes
are the placer's; nothing is preempted. Printing is the CLI's.
"""

from __future__ import annotations

import heapq
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from federation.simulate.openb_lists import ListError, Row, read_rows
from federation.simulate.plots import Line
from placement.assignment import Assignment
from placement.engine import NO_BOUND, Bounds, Pending, Policy, plan_cycle
from placement.fleet import ClusterView, Fleet, NodeRow, NodeTable
from placement.memory import Memory
from placement.model import ClusterName, GangRequest, GroupUid, Position, RoleRequest
from placement.node_order import LearntWorth
from placement.waiting import Waiting

JOB_GPUS_MAX: Final = 40_000  # a whole cluster of 5,000 nodes
RUN_S_MAX: Final = 10.0 * 366 * 24 * 3600
SAMPLES: Final = 400  # over the time in which jobs arrive
HEADER: Final = "hours,allocated_pct,waiting_groups,waiting_gpus_pct,partly_free_pct\n"

_POLICY: Final = Policy()
_SECONDS: Final = re.compile(r"\d{1,12}(\.\d{1,9})?", re.ASCII)


class Job(NamedTuple):
    """One line. `row` counts from 1; times in seconds, `submitted_s` since the first submission."""

    submitted_s: float
    row: int
    run_s: float
    gpus: int


class FleetSpec(NamedTuple):
    """Equal clusters of equal nodes."""

    clusters: int
    nodes: int
    gpus: int  # of a node

    @property
    def gpus_total(self) -> int:
        return self.clusters * self.nodes * self.gpus


class Sample(NamedTuple):
    """At one moment; shares in percent of all GPUs. Partly free: GPUs that are free on nodes that are not empty."""

    hours: float
    allocated_pct: float
    waiting_groups: int
    waiting_gpus_pct: float
    partly_free_pct: float


class WaitRow(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs of some sizes: how long they waited, in seconds."""

    gpus: str
    jobs: int
    mean_s: float
    p50_s: float
    p99_s: float
    max_s: float


class PhillyReport(msgspec.Struct, frozen=True, kw_only=True):
    """`too_large`: jobs that no cluster could hold if it were empty; they take no part. Where all jobs arrive at one
    moment there is no load, and both shares are 0."""

    gpus: int
    jobs: int
    too_large: int
    load_pct: float  # GPU time asked for over what there is while jobs arrive
    allocated_pct: float  # on average, while jobs arrive
    waits: list[WaitRow]
    evaluations: int
    seconds: float


def read_jobs(path: Path) -> tuple[Job, ...]:
    """The jobs by time of submission. ListError, or OSError, without any."""
    rows = read_rows(path, ("timestamp", "duration", "num_gpus"), _job)
    if not rows:
        raise ListError(path, 0, "no job is listed")
    first_s = min(job.submitted_s for job in rows)
    numbered = (Job(job.submitted_s - first_s, at, job.run_s, job.gpus) for at, job in enumerate(rows, 1))
    return tuple(sorted(numbered))


def _job(row: Row) -> Job:
    written, run = row.text("timestamp"), row.text("duration")
    try:
        submitted = datetime.fromisoformat(written)
    except ValueError:
        row.fail(f"timestamp {written!r} is not of the form 2017-10-09 07:01:55")
    run_s = float(run) if _SECONDS.fullmatch(run) else RUN_S_MAX + 1
    row.fail_if(run_s > RUN_S_MAX, f"duration {run!r} is not a number of seconds from 0 to ten years")
    gpus = row.amount("num_gpus", JOB_GPUS_MAX)
    row.fail_if(not gpus, "num_gpus is 0")
    utc = submitted if submitted.tzinfo is not None else submitted.replace(tzinfo=UTC)
    return Job(utc.timestamp(), 0, run_s, gpus)


def at_load(jobs: Sequence[Job], gpus: int, load: float) -> tuple[Job, ...]:
    """The same jobs, arriving so much faster or slower that they ask for `load` of the fleet's GPU time meanwhile."""
    span_s = jobs[-1].submitted_s
    wanted_s = sum(job.gpus * job.run_s for job in jobs) / (gpus * load)
    scale = wanted_s / span_s if span_s else 1.0
    return tuple(job._replace(submitted_s=job.submitted_s * scale) for job in jobs)


def run_philly(
    jobs: Sequence[Job], spec: FleetSpec, *, on_sample: Callable[[Sample], None] = lambda _sample: None
) -> PhillyReport:
    """Play the whole list: until the last job has found its place."""
    began_s = time.perf_counter()
    fitting = [job for job in jobs if job.gpus <= spec.nodes * spec.gpus]
    play = _Play(spec)
    span_s = fitting[-1].submitted_s if fitting else 0.0
    steps = iter([span_s * step / SAMPLES for step in range(1, SAMPLES + 1)])
    next_s = next(steps)
    for job in fitting:
        while next_s < job.submitted_s:
            play.until(next_s)
            on_sample(play.sample())
            next_s = next(steps, float("inf"))
        play.until(job.submitted_s)
        play.submit(job)
    available = span_s * spec.gpus_total
    allocated = play.held_gpu_s(span_s)
    play.until(float("inf"))
    assert len(play.waits) == len(fitting), "who fits an empty cluster finds a place in the end"
    asked = sum(job.gpus * job.run_s for job in fitting)
    return PhillyReport(
        gpus=spec.gpus_total,
        jobs=len(fitting),
        too_large=len(jobs) - len(fitting),
        load_pct=round(100 * asked / available, 2) if available else 0.0,
        allocated_pct=round(100 * allocated / available, 2) if available else 0.0,
        waits=_waits(play.waits),
        evaluations=play.evaluations,
        seconds=round(time.perf_counter() - began_s, 3),
    )


@dataclass(slots=True)
class _Play:
    """The fleet, who waits and who runs, at `now_s`."""

    spec: FleetSpec
    now_s: float = 0.0
    evaluations: int = 0
    waits: list[tuple[int, float]] = field(default_factory=list)  # GPUs, seconds
    _held: int = 0  # GPUs
    _held_gpu_s: float = 0.0
    _asked: dict[GroupUid, Job] = field(default_factory=dict)  # of those that wait
    _running: list[tuple[float, int, ClusterName, Assignment]] = field(default_factory=list)
    _waiting: Waiting = field(default_factory=Waiting)
    _memory: Memory = field(default_factory=Memory)
    _worth: LearntWorth = field(default_factory=LearntWorth)
    _gains: int = 0
    _tables: dict[ClusterName, NodeTable] = field(init=False)
    _fleet: Fleet = field(init=False)

    def __post_init__(self) -> None:
        nodes, gpus = self.spec.nodes, self.spec.gpus
        names = [ClusterName(f"c-{at:04}") for at in range(1, self.spec.clusters + 1)]
        self._tables = {
            name: NodeTable.build(NodeRow(f"{name}-n{at:04}", "gpu", gpus, gpus) for at in range(nodes))
            for name in names
        }
        self._fleet = Fleet(ClusterView(name, table) for name, table in self._tables.items())

    def until(self, end_s: float) -> None:
        """Let jobs end, and others start in their place, up to `end_s`."""
        while self._running and self._running[0][0] <= end_s:
            self._pass_to(self._running[0][0])
            while self._running and self._running[0][0] <= self.now_s:
                _, _, cluster, assignment = heapq.heappop(self._running)
                self._tables[cluster].give(assignment)
                self._held -= assignment.request.gpus
            self._gains += 1
            self._decide()
        if end_s != float("inf"):
            self._pass_to(end_s)

    def submit(self, job: Job) -> None:
        request = request_of(job.gpus, self.spec.gpus)
        uid = GroupUid(f"job-{job.row}")
        self._asked[uid] = job
        self._worth.asked(request)
        self._waiting.put(Pending(uid, Position(len(self.waits) + len(self._asked)), 0, request))
        self._decide()

    def _decide(self) -> None:
        self._worth.look(self._tables.values())
        self._memory.follow(self._worth.now)
        plan = plan_cycle(
            self._fleet, self._waiting, self._memory, policy=_POLICY, bounds=Bounds(NO_BOUND, self._gains)
        )
        self.evaluations += plan.evaluations
        self._gains += plan.made_room
        for place in plan.decisions:
            job = self._asked.pop(place.uid)
            self._tables[place.cluster].take(place.assignment)
            self._held += job.gpus
            self.waits.append((job.gpus, self.now_s - job.submitted_s))
            heapq.heappush(self._running, (self.now_s + job.run_s, job.row, place.cluster, place.assignment))

    def _pass_to(self, then_s: float) -> None:
        self._held_gpu_s += self._held * (then_s - self.now_s)
        self.now_s = then_s

    def held_gpu_s(self, end_s: float) -> float:
        """GPU time in use from the start to `end_s`, which is now."""
        assert end_s == self.now_s
        return self._held_gpu_s

    def sample(self) -> Sample:
        total = self.spec.gpus_total
        partly = sum(
            int(table.gpus_free[(table.gpus_free > 0) & (table.gpus_free < table.gpus_total)].sum())
            for table in self._tables.values()
        )
        waiting = sum(job.gpus for job in self._asked.values())
        shares = (round(100 * share / total, 3) for share in (self._held, waiting, partly))
        allocated, waits, loose = shares
        return Sample(round(self.now_s / 3600, 3), allocated, len(self._asked), waits, loose)


def request_of(gpus: int, node_gpus: int) -> GangRequest:
    """Pods with all GPUs of a node, and one with the rest: all of them or none."""
    full, rest = divmod(gpus, node_gpus)
    sizes = [("worker", full, node_gpus)] * bool(full) + [("rest", 1, rest)] * bool(rest)
    roles = tuple(RoleRequest(name, count, count, each) for name, count, each in sizes)
    return GangRequest(roles, sum(role.count for role in roles))


def _waits(waits: Sequence[tuple[int, float]]) -> list[WaitRow]:
    groups = (("all", 1, JOB_GPUS_MAX), ("1", 1, 1), ("2-8", 2, 8), ("9-32", 9, 32), ("33+", 33, JOB_GPUS_MAX))
    found: list[WaitRow] = []
    for name, least, most in groups:
        seconds = sorted(wait_s for gpus, wait_s in waits if least <= gpus <= most)
        if seconds:
            figures = (sum(seconds) / len(seconds), *(seconds[_rank(len(seconds), part)] for part in (0.5, 0.99, 1.0)))
            mean_s, p50_s, p99_s, max_s = (round(figure, 1) for figure in figures)
            row = WaitRow(gpus=name, jobs=len(seconds), mean_s=mean_s, p50_s=p50_s, p99_s=p99_s, max_s=max_s)
            found.append(row)
    return found


def _rank(count: int, part: float) -> int:
    """Nearest rank: the least place with at least so much of the list at or before it."""
    return max(0, -int(-count * part // 1) - 1)


def rows(samples: Sequence[Sample]) -> Iterator[str]:
    """The lines of the CSV file, its header first."""
    yield HEADER
    for sample in samples:
        yield ",".join(map(str, sample)) + "\n"


def lines(samples: Sequence[Sample]) -> dict[str, list[Line]]:
    """What there is to draw, over hours."""
    return {
        "allocated": [[(one.hours, one.allocated_pct) for one in samples]],
        "waiting": [[(one.hours, one.waiting_gpus_pct) for one in samples]],
        "free on nodes in use": [[(one.hours, one.partly_free_pct) for one in samples]],
    }
