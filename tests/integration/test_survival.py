"""A fleet of real processes keeps its promises while parts of it are killed or cut (issue rows "real processes survive"
and "a cut cluster"); small here, full size by `python -m tests.survival`."""

from __future__ import annotations

from pathlib import Path

from cluster_agents.failpoints import Failpoint
from cluster_agents.simkube.runlog import RunLogEntry
from tests.survival.books import Promise, Verdict, ran_whole
from tests.survival.cut import run_cut
from tests.survival.fleet import runs_by_group
from tests.survival.kills import SMALL, run_kills


def test_every_acknowledged_gang_runs_once_andran_whole_though_server_agents_and_bus_are_killed(tmp_path: Path) -> None:
    outcome = run_kills(tmp_path, seed=1, size=SMALL)
    assert outcome.verdict.faults == []
    assert outcome.verdict.acknowledged == SMALL.groups
    assert outcome.server_kills == SMALL.server_kills
    assert outcome.agent_kills == [point.value for point in Failpoint]


def test_gangs_of_a_cut_cluster_start_elsewhere_after_guard_time_and_it_returns_without_orphans(tmp_path: Path) -> None:
    outcome = run_cut(tmp_path)
    assert outcome.faults == []
    assert outcome.moved > 0
    assert outcome.wait_s_min >= outcome.fence_wait_s
    assert outcome.orphans == 0


def entry(pod: str, event: str, at_s: float, *, cluster: str = "c-1", token: str = "l.1") -> RunLogEntry:
    return RunLogEntry(
        cluster=cluster,
        node="n",
        namespace="default",
        pod=pod,
        uid=f"{token}/{pod}",
        group="g",
        token=token,
        event="started" if event == "started" else "ended",
        at_s=at_s,
    )


def faults_of(*entries: RunLogEntry, pods: int = 2) -> list[str]:
    verdict = Verdict()
    ran_whole(Promise("g", "train", pods), runs_by_group(list(entries)).get("g", []), verdict)
    return verdict.faults


def test_the_books_notice_a_gang_that_ran_in_part() -> None:
    assert faults_of(entry("a", "started", 1), entry("a", "ended", 5)) == [
        "S6 train: 1 of 2 pods ran under its last token"
    ]


def test_the_books_notice_pods_that_did_not_run_together() -> None:
    log = [entry("a", "started", 1), entry("a", "ended", 2), entry("b", "started", 3), entry("b", "ended", 4)]
    assert faults_of(*log) == ["S6 train: its pods did not run together"]


def test_the_books_notice_a_container_left_behind() -> None:
    assert faults_of(entry("a", "started", 1), entry("b", "started", 1), entry("b", "ended", 4)) == [
        "L4 train still has a container"
    ]


def test_the_books_notice_a_group_that_never_ran() -> None:
    assert faults_of() == ["S6 train never ran"]
