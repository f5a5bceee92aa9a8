"""The placer's benchmark at toy size: that it measures what it says, and what a decision costs beside time."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest

from federation.cli.main import run
from federation.core.records import Placed, decode_record
from federation.simulate.placer_run import PENDING_AT_ONCE, SETTLE_S, Measured, PlacerRun, RunSettings
from placement.model import Position
from storage.backends.memory import MemoryStore
from storage.entry import decode_entry, entry_name

SETTINGS = RunSettings(clusters=4, nodes_per_cluster=256, groups=300, shapes=36, pending=20, live=40, seed=1)


@dataclass
class Bench:
    store: MemoryStore
    run: PlacerRun
    fast: Measured
    steady: Measured


@pytest.fixture(scope="module")
def bench() -> Bench:
    store = MemoryStore()
    played = PlacerRun(SETTINGS, store, event_takes_s=0.001)
    played.set_up()
    played.fill()
    return Bench(store, played, played.full_speed(), played.at_rate(100.0))


def test_every_decision_counted_is_a_record_in_the_store(bench: Bench) -> None:
    placed = 0
    for seq in range(1, bench.run.replica.journal.next_seq):
        blob = bench.store.get(entry_name(seq))
        assert blob is not None
        records = decode_entry(blob.data, seq).records
        placed += sum(isinstance(decode_record(data, Position(1)), Placed) for data in records)
    assert placed == bench.run.decisions_count
    assert bench.fast.decisions >= SETTINGS.groups


def test_groups_end_while_others_are_placed(bench: Bench) -> None:
    assert bench.steady.departures >= SETTINGS.groups / 2
    assert sum(member.refused_count for member in bench.run.members.values()) <= bench.run.decisions_count * 0.02


def test_waits_are_from_submission_to_the_landed_decision(bench: Bench) -> None:
    assert len(bench.steady.waits_s) >= SETTINGS.groups * 0.8
    assert all(wait_s > 0 for wait_s in bench.steady.waits_s)


def test_decision_costs_few_looks_few_bytes_and_a_fraction_of_a_store_call(bench: Bench) -> None:
    """Limits some way above what is measured: a change that passes one of them costs time everywhere."""
    fast = bench.fast
    assert fast.evaluations / fast.decisions <= 5
    assert fast.costs.store_bytes / fast.decisions <= 400
    assert fast.costs.store_calls / fast.decisions <= 0.2


def test_groups_that_fit_nowhere_cost_nothing_while_nothing_is_gained(bench: Bench) -> None:
    bench.run.pause(SETTLE_S)
    before = bench.run.replica.placer.evaluations_count
    bench.run.pause(10.0)
    assert len(bench.run.replica.state.pending) >= SETTINGS.pending
    assert bench.run.replica.placer.evaluations_count == before


def test_more_groups_wait_than_a_server_takes_at_once() -> None:
    settings = replace(SETTINGS, clusters=1, nodes_per_cluster=64, pending=PENDING_AT_ONCE + 1)
    played = PlacerRun(settings, MemoryStore(), event_takes_s=0.0001)
    played.set_up()
    assert len(played.replica.state.pending) == PENDING_AT_ONCE + 1
    played.fill()
    assert played.decisions_count >= played.live


def test_command_prints_the_rate_and_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    fleet = ["--clusters", "2,3", "--nodes-per-cluster", "128", "--groups", "20", "--live", "10", "--shapes", "8"]
    assert run(["bench", "placer", *fleet, "-o", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["decisions_per_second"] == shown["table"][-1]["decisions_per_second"] > 0
    assert [row["clusters"] for row in shown["table"]] == [2, 3]
    assert shown["machine"]["cpus"] >= 1
    assert shown["answers"]["cannot_fit_answer"].startswith("InsufficientGpus: needs 512 free A100-40 GPUs, best is 0")
    assert shown["answers"]["burst_placed"] == 1_000


def test_number_of_clusters_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "placer", "--clusters", "10,x"]) == 2
    assert "--clusters 10,x is not a list of numbers" in capsys.readouterr().err


def test_fleet_too_small_for_what_is_measured_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    fleet = ["--clusters", "1", "--nodes-per-cluster", "1", "--groups", "1", "--live", "1"]
    assert run(["bench", "placer", *fleet]) == 1
    told = capsys.readouterr().err
    assert "the benchmark came to a standstill: nothing more happens within 3600.0 s" in told
    assert "try more --groups or more nodes" in told
