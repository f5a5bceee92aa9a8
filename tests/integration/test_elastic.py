"""An elastic group on real processes: it starts small, grows when room becomes idle, and shrinks when it is told to."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster_agents.simkube.runlog import RunLogEntry, decode_lines
from federation.cli.local import processes, state
from federation.cli.local.state import FleetDir
from federation.cli.main import run
from federation.cli.session import World
from tests.integration.fleets import until

PATIENCE_S = 90.0  # a hung part fails the test instead of stopping the lane
GROUP = """
apiVersion: muster.io/v1
kind: PodGroup
metadata: {{name: {name}}}
spec:
  grace_s: 2
  {elastic}
  roles:
  - count: {count}
    template:
      spec:
        restartPolicy: Never
        terminationGracePeriodSeconds: 2
        containers:
        - {{name: main, image: registry.example.com/train:1, resources: {{limits: {{cpu: "1", nvidia.com/gpu: "1"}}}}}}
"""


@dataclass(frozen=True)
class Fleet:
    folder: Path
    world: World
    read: Callable[[], str]

    def muster(self, *arguments: str) -> tuple[int, str]:
        code = run(arguments, self.world)
        return code, self.read()

    def submit(self, name: str, *, count: int, elastic: str = "") -> None:
        path = self.folder / f"{name}.yaml"
        path.write_text(GROUP.format(name=name, count=count, elastic=elastic))
        code, said = self.muster("submit", "-f", str(path))
        assert code == 0, said

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.muster("get", "pg", name, "-o", "json")[1])["status"]
        return found

    def runs(self, name: str) -> list[RunLogEntry]:
        """What began and ended of the group, by the kubelets' own log."""
        log = decode_lines((FleetDir(self.folder / "fleet").cluster("c-1") / "runlog.jsonl").read_bytes())
        return [entry for entry in log if entry.pod.startswith(f"{name}-")]

    def live(self, name: str) -> dict[str, str]:
        """Pods with a live container: uid by rank."""
        found: dict[str, str] = {}
        for entry in self.runs(name):
            rank = entry.pod.split("-")[1]
            if entry.event == "started":
                found[rank] = entry.uid
            else:
                found.pop(rank, None)
        return found


@pytest.fixture
def fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Fleet]:
    world = World({**os.environ, "MUSTER_DIR": str(tmp_path / "fleet"), "MUSTER_CONFIG": "/dev/null"})
    one = Fleet(tmp_path, world, lambda: "".join(capsys.readouterr()))
    code, said = one.muster("up", "--clusters", "1", "--nodes", "2xA100-80:2", "--preset", "fast")
    assert code == 0, said
    yield one
    known = state.load(FleetDir(tmp_path / "fleet"))
    if known is not None:
        processes.kill(list(known.processes.values()))


def test_a_group_that_started_small_grows_into_idle_room_and_shrinks_when_it_is_told_to(fleet: Fleet) -> None:
    fleet.submit("other", count=2)
    until(lambda: fleet.status("other")["phase"] == "Running", "the other does not run", PATIENCE_S)
    rack = "topology: {required: rack}"  # so that its agent has to say that there is room
    fleet.submit("tune", count=4, elastic=f"elastic: true\n  min_count: 2\n  {rack}")
    until(lambda: fleet.status("tune")["phase"] == "Running", "it does not start small", PATIENCE_S)
    small, began = fleet.status("tune"), fleet.live("tune")
    assert (small["pods_placed"], sorted(began)) == (2, ["0", "1"])

    assert fleet.muster("cancel", "other")[0] == 0
    until(lambda: len(fleet.live("tune")) == 4, "it does not grow", PATIENCE_S)
    until(lambda: fleet.status("tune")["pods_bound"] == 4, "the journal does not hear of it", PATIENCE_S)
    grown = fleet.status("tune")
    assert grown["token"] == small["token"]
    assert {rank: uid for rank, uid in fleet.live("tune").items() if rank in began} == began
    assert "ended" not in [entry.event for entry in fleet.runs("tune")]

    code, said = fleet.muster("resize", "tune", "--count", "2")
    assert (code, said.split(" (")[0]) == (0, "podgroup/tune is to have 2 pods")
    until(lambda: fleet.live("tune") == began, "the highest ranks do not leave, or others do", PATIENCE_S)
    until(lambda: fleet.status("tune")["pods_bound"] == 2, "the journal does not hear of that", PATIENCE_S)
    assert fleet.status("tune")["token"] == small["token"]

    told = fleet.muster("history", "tune")[1]
    for words in (
        "placed on c-1 with 2 pods",
        "grows to 4 pods on c-1, where there is idle room",
        "has 4 pods now",
        "to have 2 pods, 2 in all, on c-1",
        "has 2 pods now",
    ):
        assert words in told
    assert "running on c-1 with 2 of 4 pods" in fleet.muster("explain", "tune")[1]
    assert "2 of 4" in fleet.muster("describe", "pg", "tune")[1]

    refused = fleet.muster("resize", "tune", "--count", "1")
    assert refused[0] == 4
    assert "at least 2 and at most 4 are allowed" in refused[1]
