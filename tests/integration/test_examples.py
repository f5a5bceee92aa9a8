"""Every example that ships, handed to a real fleet by the command: each is bound whole in a simulated cluster; and what
else needs a running fleet: logs and doctor."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from federation.cli.local.fleet import LocalFleet
from federation.cli.main import run
from federation.cli.session import World

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PODS = {
    "gang.yaml": 4,
    "job.yaml": 2,
    "elastic.yaml": 8,
    "spread.yaml": 6,
    "dialects/upstream-v1alpha1.yaml": 2,
    "dialects/upstream-v1alpha2.yaml": 2,
    "dialects/upstream-v1beta1.yaml": 2,
    "dialects/upstream-minmember.yaml": 3,
    "dialects/scheduler-plugins.yaml": 2,
    "dialects/volcano.yaml": 3,
    "dialects/volcano-job.yaml": 3,
    "dialects/kai.yaml": 2,
    "dialects/jobset.yaml": 5,
    "dialects/kueue-job.yaml": 2,
}
PATIENCE = "90s"  # a hung part fails the test instead of stopping the lane


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A fleet of one cluster that holds all the examples at once."""
    root = tmp_path_factory.mktemp("fleet")
    fleet = LocalFleet.make(root, clusters=["c-1"], nodes=["40xA100-80:8,clique=4"], preset="fast")
    try:
        fleet.up()
        yield World({**os.environ, "MUSTER_DIR": str(root), "MUSTER_CONFIG": "/dev/null"})
    finally:
        fleet.down()


@pytest.mark.parametrize("name", PODS)
def test_an_example_is_bound_whole(world: World, capsys: pytest.CaptureFixture[str], name: str) -> None:
    wait = ("--wait", "--for", "bound", "--timeout", PATIENCE)
    code = run(("submit", "-f", str(EXAMPLES / name), "-o", "json", *wait), world)
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    uid = json.loads(out)["uid"]
    assert run(("get", "pg", uid, "-o", "json"), world) == 0
    view = json.loads(capsys.readouterr().out)
    assert (view["status"]["pods_bound"], view["spec"]["pods"]) == (PODS[name], PODS[name])


def test_the_logs_of_a_gangs_pods_are_shown_by_rank(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(EXAMPLES / "gang.yaml")
    run(("submit", "-f", path, "--request-id", "for-its-logs", "--wait", "--timeout", PATIENCE), world)
    run(("logs", "train"), world)
    lines = capsys.readouterr().out.splitlines()[-4:]
    assert [line.partition(": ")[0] for line in lines] == ["0", "1", "2", "3"]
    assert ["MUSTER_WORLD_SIZE=4" in line for line in lines] == [True] * 4
    assert run(("logs", "train", "--rank", "2"), world) == 0
    assert "MUSTER_RANK=2" in capsys.readouterr().out
    assert run(("logs", "train", "--rank", "9"), world) == 3
    assert capsys.readouterr().err == "error: no pod of rank 9 is there\n  ranks: 0 to 3\n"


def test_a_log_is_followed_until_its_pod_has_ended(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "short.yaml"
    text = (EXAMPLES / "gang.yaml").read_text()
    path.write_text(text.replace("name: train", "name: short").replace('run-seconds: "60"', 'run-seconds: "3"'))
    run(("submit", "-f", str(path), "--wait", "--for", "bound", "--timeout", PATIENCE), world)
    capsys.readouterr()
    assert run(("logs", "short", "-f"), world) == 0
    began, ended = capsys.readouterr().out.splitlines()
    assert " main runs on " in began
    assert ended.endswith("main ended: exit code 0 Completed")


def test_doctor_finds_a_running_fleet_well(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(("doctor", "-o", "json"), world) == 0
    found = {item["check"]: item["level"] for item in json.loads(capsys.readouterr().out)["items"]}
    roles = {"nats", "server", "apiserver/c-1", "agent/c-1", "kubelets/c-1", "store", "bus", "cluster/c-1"}
    assert {role: found[role] for role in sorted(roles)} == dict.fromkeys(sorted(roles), "ok")


def test_a_queue_is_applied_and_applied_again(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert run(("apply", "-f", str(EXAMPLES / "queue.yaml")), world) == 0
        assert capsys.readouterr().out == "queue/research applied\n"


def test_every_example_is_tried_here() -> None:
    manifests = {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.glob("**/*.yaml")}
    others = ("philly/", "kubernetes/")  # the demo's own, and what tests/kubernetes applies
    shipped = {name for name in manifests if not name.startswith(others)}
    assert shipped == {*PODS, "queue.yaml"}
