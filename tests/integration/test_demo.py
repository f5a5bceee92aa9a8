"""`muster demo` at small size: every promise kept, stopped by ^C, and a bug planted into its agents noticed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from federation.cli.demo.perform import RESULTS
from federation.cli.local import processes, state
from federation.cli.local.commands import program
from federation.cli.local.state import FleetDir
from tests.documents import ROOT

LOOKS = 50  # each takes a good part of a second
PATIENCE_S = 500.0  # a hung demo fails the test instead of stopping the lane


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The demo's folder; whatever still runs there at the end is killed."""
    yield tmp_path / "demo"
    known = state.load(FleetDir(tmp_path / "demo" / "fleet"))
    if known is not None:
        processes.kill(list(known.processes.values()))


def start(*command: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "MUSTER_CONFIG": "/dev/null"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def muster(*arguments: str) -> tuple[int, str]:
    started = start(program("muster"), *arguments)
    out, _ = started.communicate(timeout=PATIENCE_S)
    return started.returncode, out


def states(folder: Path) -> list[list[str]]:
    """Name and state of each cluster."""
    _, out = muster("get", "clusters", "--no-headers", "--dir", str(folder / "fleet"))
    return [line.split()[:2] for line in out.splitlines()]


def test_a_kept_demo_keeps_every_promise_and_can_be_looked_at_until_it_is_taken_down(folder: Path) -> None:
    code, out = muster("demo", "--small", "--keep", "--dir", str(folder))
    assert code == 0, out
    assert "is Fenced" in out
    assert "is admitted again" in out
    assert "groups are handed over" in out
    summary = json.loads((folder / "summary.json").read_text())
    assert {code: verdict["kept"] for code, verdict in summary["promises"].items()} == {
        "S1": True,
        "S4": True,
        "S6": True,
        "S7": True,
        "L4": True,
    }
    assert summary["facts"]["acknowledged"] == 38
    assert summary["facts"]["cut"]["ran_elsewhere"] > 0
    assert summary["facts"]["cut"]["gap_s_min"] > 0
    assert [name for name in RESULTS if not (folder / name).stat().st_size] == []

    assert "takes work again" in out
    wanted = [[name, "Active"] for name in ("ap-mixed", "eu-h100", "us-a100")]
    assert any(states(folder) == wanted for _ in range(LOOKS))  # 3 s without news are Silent, on a busy machine soon
    assert muster("down", "--dir", str(folder / "fleet"))[0] == 0


def test_an_interrupted_demo_leaves_no_process_and_no_file(folder: Path) -> None:
    with start(program("muster"), "demo", "--small", "--dir", str(folder)) as demo:
        assert demo.stdout is not None
        assert any("pending" in line for line in demo.stdout)  # it plays
        running = list(_known(folder).processes.values())
        assert all(processes.alive(record) for record in running)
        demo.send_signal(signal.SIGINT)
        assert any("stopping everything" in line for line in demo.stdout)
        demo.send_signal(signal.SIGINT)  # people press it twice; nothing may be left for that
        demo.communicate(timeout=PATIENCE_S)
        assert demo.returncode == 130
        assert [record.pid for record in running if processes.alive(record)] == []
        assert not folder.exists()


def _known(folder: Path) -> state.FleetState:
    known = state.load(FleetDir(folder / "fleet"))
    assert known is not None
    return known


def test_a_demo_whose_agents_ignore_their_fence_exits_1_and_names_the_promise(folder: Path) -> None:
    demo = start(sys.executable, "-m", "tests.demo", "--bug", "fence-ignored", "--dir", str(folder))
    out, _ = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 1
    assert "S1 BROKEN: podgroup/philly-" in out
    summary = json.loads((folder / "summary.json").read_text())
    broken = summary["promises"]["S1"]["broken"]
    assert broken
    assert f"S1 BROKEN: podgroup/{broken[0]['name']} (uid {broken[0]['uid']}): {broken[0]['what']}" in out
    assert (folder / "evidence" / f"{summary['facts']['cut']['cluster']}-runlog.jsonl").is_file()
    assert not (folder / "fleet").exists()
