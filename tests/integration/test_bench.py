"""`muster bench` of running processes, at the smallest size: everything is measured, nothing is left running."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from federation.cli.local import commands, processes, state
from federation.cli.local.state import FleetDir
from federation.cli.main import run
from federation.cli.session import World
from storage.open import open_store

NODES = "2xA100-80:8"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Temporary folders are made here."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(("bench", *arguments, "-o", "json"), World()) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_api_counts_durable_answers(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    found = report(capsys, "api", "--submissions", "50", "--connections", "4")
    assert (found["bench"], found["submissions"], found["refused"]) == ("api", 50, 0)
    assert set(found["parts"]) == {"client", "nats", "server"}
    assert found["per_second"] > 0
    assert found["limit"]
    assert found["machine"]["cpus"] >= 1
    assert list(folder.glob("muster-bench-*")) == []


def test_fleet_sees_every_job_bound(capsys: pytest.CaptureFixture[str]) -> None:
    size = ("--clusters", "1", "--nodes", NODES, "--rate", "5", "--seconds", "1", "--burst", "6")
    found = report(capsys, "fleet", *size)
    assert [(one["submitted"], one["bound"], one["refused"]) for one in found["phases"]] == [(5, 5, 0), (6, 6, 0)]
    assert {"agent", "apiserver", "client", "kubelets", "nats", "server"} == set(found["phases"][0]["parts"])


def test_bind_sees_a_gang_and_then_single_pods_bound(capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys, "bind", "--nodes", "2", "--gang-pods", "4", "--pods", "3")
    assert [(one["what"], one["bound"]) for one in found["phases"]] == [
        ("gang of 4 pods", 1),
        ("3 groups of one pod", 3),
    ]
    assert found["api_budget_per_s"] == 1000


def test_store_compares_batches_and_leaves_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store"
    found = report(capsys, "store", "--url", url, "--seconds", "0.3", "--offered", "500")
    assert (found["bench"], found["store"], found["writers_count"]) == ("store", "file", 64)
    assert (found["batch_1"]["records_per_commit"], found["batch_64"]["records_per_commit"]) == (1.0, 64.0)
    assert found["batch_64"]["bytes_per_record"] < found["batch_1"]["bytes_per_record"] / 5
    assert found["batch_64"]["store_calls_per_commit"] <= 2.0
    assert found["offered"]["records_per_second"] > 0
    left = open_store(url)
    assert list(left.list("")) == []
    left.close()


def test_a_bench_that_is_told_to_end_stops_its_fleet_first(tmp_path: Path) -> None:
    command = [commands.program("muster"), "bench", "fleet", "--clusters", "1", "--nodes", NODES, "--seconds", "600"]
    with subprocess.Popen(command, env=os.environ | {"TMPDIR": str(tmp_path)}, stderr=subprocess.PIPE) as bench:
        assert bench.stderr is not None
        for line in bench.stderr:
            if line.startswith(b"started kubelets"):
                break
        (folder,) = tmp_path.glob("muster-bench-*")
        known = state.load(FleetDir(folder))
        assert known is not None
        started = list(known.processes.values())
        assert started
        bench.terminate()
        bench.communicate()
    assert bench.returncode == 130
    assert not any(processes.alive(one) for one in started)
