"""`muster bench placer`: durable gang decisions per second of one federation server, and how long a decision takes.

The server's whole core runs (`Replica`: admission, fold, placer, journal) over a real store; agents and submitters are
played (`member`, `workload`). HTTP, NATS and binding have benchmarks of their own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from federation.protocol import collector
from federation.simulate.bench_answers import AnswerFigures, bench_answers
from federation.simulate.machine import Machine, machine, memory_peak_mib
from federation.simulate.placer_run import PlacerRun, RunSettings
from storage.open import open_store

LIVE_GROUPS: Final = 6_000  # about a tenth of the GPUs of 100 clusters


class PlacerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Rates count decisions whose record has landed. `*_per_decision` are costs that no machine changes."""

    clusters: int
    nodes: int
    gpus: int
    shapes: int
    classes: int
    gpus_per_group_mean: float
    pending_blocked: int
    live_groups: int
    gpus_used_share: float
    decisions: int
    decisions_per_second: float
    decisions_per_cpu_second: float
    cpu_wait_share: float  # of the time: this process was ready to run and others had the cores; 0 on a quiet machine
    submission_to_decision_p50_s: float  # at half that rate
    submission_to_decision_p99_s: float
    changed_rows_per_second: float
    departures: int
    refused_by_members: int
    evaluations_per_decision: float
    store_calls_per_decision: float
    store_bytes_per_decision: float
    store_seconds_share: float
    tape_bytes_per_decision: float
    tape_seconds_share: float  # of the server's time; a server spends it in the background
    why_pending_s: float  # one answer to "why does it wait?", with all that is pending; 0 where nothing is blocked
    memory_peak_mib: int


class PlacerReport(msgspec.Struct, frozen=True, kw_only=True):
    decisions_per_second: float  # of the largest fleet in `table`
    conditions: str
    machine: Machine
    table: list[PlacerFigures]
    answers: AnswerFigures


CONDITIONS: Final = (
    "durable: every submission, decision and departure is a record of the real journal, committed in batches; one "
    "server, one core; agents and submitters cost nothing; a report per cluster and second; departures on"
)


def bench_placer(
    settings: RunSettings, cluster_counts: list[int], *, on_progress: Callable[[str], None] = lambda _line: None
) -> PlacerReport:
    """One run per fleet size, smallest first, each over a SQLite file of its own in a temporary folder."""
    facts = machine()
    on_progress("single answers")
    answers = bench_answers(settings.seed)
    table: list[PlacerFigures] = []
    for clusters in sorted(set(cluster_counts)):
        with tempfile.TemporaryDirectory(prefix="muster-bench-") as folder:
            store = open_store(f"sqlite:///{Path(folder).resolve()}/bench.db")
            try:
                table.append(_figures(PlacerRun(replace(settings, clusters=clusters), store), on_progress))
            finally:
                store.close()
    return PlacerReport(
        decisions_per_second=table[-1].decisions_per_second,
        conditions=CONDITIONS,
        machine=facts,
        table=table,
        answers=answers,
    )


def _figures(run: PlacerRun, on_progress: Callable[[str], None]) -> PlacerFigures:
    settings = run.settings
    on_progress(f"{settings.clusters} clusters of {settings.nodes_per_cluster} nodes join and report")
    run.set_up()
    on_progress(f"{run.live} groups are placed, so that others can end")
    run.fill()
    with collector.calmly():
        on_progress(f"{settings.groups} decisions at full speed")
        fast = run.full_speed()
        rate = fast.decisions / fast.seconds
        on_progress(f"{settings.groups} decisions at {rate / 2:.0f} submissions a second")
        half = run.at_rate(rate / 2)
    return PlacerFigures(
        clusters=settings.clusters,
        nodes=settings.clusters * settings.nodes_per_cluster,
        gpus=run.gpus,
        shapes=settings.shapes,
        classes=len(run.workload.seen),
        gpus_per_group_mean=round(run.workload.gpus_sum / run.workload.count, 1),
        pending_blocked=settings.pending,
        live_groups=run.live,
        gpus_used_share=round(run.used_share, 3),
        decisions=fast.decisions,
        decisions_per_second=round(rate, 1),
        decisions_per_cpu_second=round(fast.decisions / fast.costs.cpu_s, 1),
        cpu_wait_share=round(fast.cpu_wait_share, 3),
        submission_to_decision_p50_s=_share(half.waits_s, 0.50),
        submission_to_decision_p99_s=_share(half.waits_s, 0.99),
        changed_rows_per_second=round(fast.changed_rows / fast.seconds),
        departures=fast.departures,
        refused_by_members=sum(member.refused_count for member in run.members.values()),
        evaluations_per_decision=round(fast.evaluations / fast.decisions, 1),
        store_calls_per_decision=round(fast.costs.store_calls / fast.decisions, 3),
        store_bytes_per_decision=round(fast.costs.store_bytes / fast.decisions, 1),
        store_seconds_share=round(fast.costs.store_s / fast.costs.busy_s, 3),
        tape_bytes_per_decision=round(fast.costs.tape_bytes / fast.decisions, 1),
        tape_seconds_share=round(fast.costs.tape_s / fast.costs.busy_s, 3),
        why_pending_s=round(run.why_pending_s(), 4),
        memory_peak_mib=memory_peak_mib(),
    )


def _share(ordered: tuple[float, ...], share: float) -> float:
    """The value that `share` of all do not exceed."""
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 4)
