"""From a driver to the placer, on real processes: a node's guard reads that a GPU fell sick, and gangs keep away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from federation.cli.local import processes, state
from federation.cli.local.state import FleetDir
from federation.cli.main import run
from federation.cli.session import World
from tests.integration.fleets import until
from tests.unit.cluster_agents.gpu.stub import Stub, build

PATIENCE_S: Final = 90.0
NODE: Final = "c-1-0001"
GROUP: Final = """
apiVersion: muster.io/v1
kind: PodGroup
metadata: {{name: {name}}}
spec:
  grace_s: 2
  roles:
  - count: 1
    template:
      spec:
        restartPolicy: Never
        terminationGracePeriodSeconds: 2
        containers:
        - name: main
          image: registry.example.com/train:1
          resources: {{limits: {{cpu: "1", nvidia.com/gpu: "8"}}}}
"""


@dataclass
class Fleet:
    """Two clusters of one node with eight GPUs each."""

    folder: Path
    world: World
    read: Callable[[], str]
    guards: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def muster(self, *arguments: str) -> tuple[int, str]:
        code = run(arguments, self.world)
        return code, self.read()

    def shown(self, *arguments: str) -> dict[str, Any]:
        return dict(json.loads(self.muster("get", *arguments, "-o", "json")[1])["status"])

    def submit(self, name: str) -> None:
        path = self.folder / f"{name}.yaml"
        path.write_text(GROUP.format(name=name))
        code, said = self.muster("submit", "-f", str(path))
        assert code == 0, said

    def phase(self, name: str) -> str:
        return str(self.shown("pg", name)["phase"])

    def home(self, name: str) -> str:
        return str(self.shown("pg", name)["cluster"])

    def gpus(self, cluster: str) -> dict[str, int]:
        return dict(self.shown("cluster", cluster)["gpus"].get("H200-141", {}))

    def guard(self, stub: Stub) -> None:
        """The guard of a real node, for one that is simulated: it has no runtime, and an agent to ask."""
        known = state.load(FleetDir(self.folder / "fleet"))
        assert known is not None
        agent = f"http://127.0.0.1:{known.ports['agent/c-1']}"
        words = ("--node", NODE, "--agent", agent, "--preset", "fast", "--state-dir", str(self.folder / "state"))
        command = (sys.executable, "-m", "cluster_agents.node_guard.main", *words)
        socket = ("--nri-socket", str(self.folder / "nri.sock"))
        with (self.folder / "guard.log").open("ab") as log:
            self.guards.append(subprocess.Popen((*command, *socket), env=stub.environment, stdout=log, stderr=log))


@pytest.fixture
def fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Fleet]:
    world = World({**os.environ, "MUSTER_DIR": str(tmp_path / "fleet"), "MUSTER_CONFIG": "/dev/null"})
    one = Fleet(tmp_path, world, lambda: "".join(capsys.readouterr()))
    code, said = one.muster("up", "--clusters", "2", "--nodes", "1xH200-141:8", "--preset", "fast")
    assert code == 0, said
    yield one
    for guard in one.guards:
        guard.kill()
        guard.wait()
    known = state.load(FleetDir(tmp_path / "fleet"))
    if known is not None:
        processes.kill(list(known.processes.values()))


def test_a_gpu_that_falls_sick_is_shown_and_gangs_that_need_it_go_elsewhere_or_wait_until_it_is_well(
    fleet: Fleet, tmp_path: Path
) -> None:
    stub = Stub(build(tmp_path / "nvml"), tmp_path / "answers")
    stub.set(gpus=8, failed_5=1)
    fleet.guard(stub)
    until(lambda: fleet.gpus("c-1") == {"total": 8, "free": 7, "unhealthy": 1}, "it is not shown", PATIENCE_S)
    assert fleet.gpus("c-2") == {"total": 8, "free": 8, "unhealthy": 0}

    fleet.submit("first")
    until(lambda: fleet.phase("first") == "Running", "it does not go elsewhere", PATIENCE_S)
    assert fleet.home("first") == "c-2"
    fleet.submit("second")
    want = "needs 8 free GPUs"
    until(lambda: want in fleet.muster("explain", "second")[1], "it does not wait for GPUs", PATIENCE_S)
    assert fleet.phase("second") == "Pending"

    stub.set(failed_5=0)
    until(lambda: fleet.phase("second") == "Running", "it does not start once the GPU is well", PATIENCE_S)
    assert fleet.home("second") == "c-1"

    stub.happens(2, 79)
    until(lambda: fleet.gpus("c-1").get("unhealthy") == 1, "the Xid is not shown", PATIENCE_S)
    assert (fleet.phase("second"), fleet.home("second")) == ("Running", "c-1")  # what runs is nobody's to stop
    assert "xid-79" in (tmp_path / "guard.log").read_text()
