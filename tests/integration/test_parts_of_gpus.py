"""Gangs on MIG instances and on shares, on real processes: bound, or waiting with what is lacking."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster_agents.simkube.runlog import decode_lines, device_conflicts
from federation.cli.local import processes, state
from federation.cli.local.state import FleetDir
from federation.cli.main import run
from federation.cli.session import World
from tests.integration.fleets import until

PATIENCE_S = 90.0  # a hung part fails the test instead of stopping the lane
NODES = "1xA100-80:1,mig=1g.10gb/1g.10gb/1g.10gb/3g.40gb+1xA100-80:1,shared=4+1xA100-80:2"
ROLE = """
apiVersion: muster.io/v1
kind: PodGroup
metadata: {{name: {name}}}
spec:
  grace_s: 2
  roles:
  - count: {count}
    {gpu}
    template:
      spec:
        restartPolicy: Never
        terminationGracePeriodSeconds: 2
        containers:
        - {{name: main, image: registry.example.com/serve:1, resources: {{limits: {{cpu: "1"{limit}}}}}}}
"""
SMALL = ', nvidia.com/mig-1g.10gb: "1"'


@dataclass(frozen=True)
class Fleet:
    folder: Path
    world: World
    read: Callable[[], str]

    def muster(self, *arguments: str) -> tuple[int, str]:
        code = run(arguments, self.world)
        return code, self.read()

    def submit(self, name: str, *, count: int, gpu: str = "", limit: str = "") -> None:
        path = self.folder / f"{name}.yaml"
        path.write_text(ROLE.format(name=name, count=count, gpu=gpu, limit=limit))
        code, said = self.muster("submit", "-f", str(path))
        assert code == 0, said

    def phase(self, name: str) -> str:
        return str(json.loads(self.muster("get", "pg", name, "-o", "json")[1])["status"]["phase"])


@pytest.fixture
def fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Fleet]:
    world = World({**os.environ, "MUSTER_DIR": str(tmp_path / "fleet"), "MUSTER_CONFIG": "/dev/null"})
    one = Fleet(tmp_path, world, lambda: "".join(capsys.readouterr()))
    code, said = one.muster("up", "--clusters", "1", "--nodes", NODES, "--preset", "fast")
    assert code == 0, said
    yield one
    known = state.load(FleetDir(tmp_path / "fleet"))
    if known is not None:
        processes.kill(list(known.processes.values()))


def test_gangs_on_instances_and_on_shares_run_and_one_too_many_waits_with_what_it_lacks(fleet: Fleet) -> None:
    fleet.submit("small", count=2, limit=SMALL)
    fleet.submit("shares", count=3, gpu="gpu: {milli: 200}")
    fleet.submit("whole", count=2, limit=', nvidia.com/gpu: "1"')
    first = ("small", "shares", "whole")
    until(lambda: [fleet.phase(name) for name in first] == ["Running"] * 3, "not all of them run", PATIENCE_S)
    fleet.submit("late", count=2, limit=SMALL)
    fleet.submit("large", count=1, gpu="gpu: {milli: 500}")
    want = "InsufficientDevices: needs 2 free instances of 1g.10gb, best is 1"
    until(lambda: want in fleet.muster("explain", "late")[1], "it does not wait for an instance", PATIENCE_S)
    assert "free 1 instances of 1g.10gb in c-1" in fleet.muster("explain", "late")[1]
    assert "nodes here give 1g.10gb, 3g.40gb, shares of 250 milli" in fleet.muster("explain", "large")[1]
    assert fleet.muster("cancel", "small")[0] == 0
    until(lambda: fleet.phase("late") == "Running", "it does not start once there is room", PATIENCE_S)
    assert fleet.phase("large") == "Pending"
    fleet.submit("apart", count=3, gpu="topology: {per_host: 1}")
    fleet.submit("too-many", count=4, gpu="topology: {per_host: 1}")
    until(lambda: fleet.phase("apart") == "Running", "pods that stand apart do not run", PATIENCE_S)
    assert "needs 4 pods, 1 on a host at most" in fleet.muster("explain", "too-many")[1]
    log = decode_lines((FleetDir(fleet.folder / "fleet").cluster("c-1") / "runlog.jsonl").read_bytes())
    assert device_conflicts(log) == []
    apart = [entry.node for entry in log if entry.event == "started" and entry.pod.startswith("apart")]
    assert len(set(apart)) == len(apart) == 3
    small = [entry.instances for entry in log if entry.event == "started" and entry.instances]
    assert len(small) == 4
