"""`muster up` and what people do with it, on real processes: one fleet, followed through its life in order."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from federation.cli.local import processes, state
from federation.cli.local.commands import program
from federation.cli.local.fleet import LocalFleet
from federation.cli.local.state import FleetDir
from federation.cli.main import run
from federation.cli.session import World
from federation.protocol import subjects
from federation.protocol.bus import connect_nats

PATIENCE_S = 90.0  # a hung part fails the test instead of stopping the lane

GANG = """
apiVersion: muster.io/v1
kind: PodGroup
metadata: {name: NAME}
spec:
  grace_s: 2
  roles:
  - count: COUNT
    template:
      metadata: {annotations: {simkube/run-seconds: "SECONDS"}}
      spec:
        restartPolicy: Never
        terminationGracePeriodSeconds: 2
        containers:
        - name: main
          image: registry.example.com/train:1
          resources: {limits: {cpu: "1", memory: 1Gi, nvidia.com/gpu: "8"}}
"""


def gang(folder: Path, name: str, *, count: int, seconds: int = 600) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(GANG.replace("NAME", name).replace("COUNT", str(count)).replace("SECONDS", str(seconds)))
    return str(path)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def first(self) -> str:
        return (self.err or self.out).partition("\n")[0]


Muster = Callable[..., Outcome]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the fleet; whatever still runs there at the end is killed."""
    folder = tmp_path_factory.mktemp("fleet")
    yield folder
    known = state.load(FleetDir(folder))
    if known is not None:
        processes.kill(list(known.processes.values()))


@pytest.fixture
def muster(root: Path, capsys: pytest.CaptureFixture[str]) -> Muster:
    world = World({**os.environ, "MUSTER_DIR": str(root), "MUSTER_CONFIG": "/dev/null"})

    def muster(*arguments: str) -> Outcome:
        code = run(arguments, world)
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return muster


def eventually(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def phase(muster: Muster, name: str) -> str:
    return str(json.loads(muster("get", "pg", name, "-o", "json").out)["status"]["phase"])


def uids(muster: Muster) -> list[str]:
    return [item["metadata"]["uid"] for item in json.loads(muster("get", "pg", "-A", "-o", "json").out)["items"]]


def test_one_command_starts_a_fleet(muster: Muster, root: Path) -> None:
    shown = muster("up", "--clusters", "1", "--nodes", "2xA100-80:8,clique=2", "--preset", "fast")
    assert shown.code == 0, shown.err
    assert shown.out.startswith(f"muster is up in {root}\n")
    assert muster("get", "clusters", "-o", "name").out == "cluster/c-1\n"
    assert muster("get", "queues", "-o", "name").out == "queue/default\n"


def test_up_again_leaves_what_runs_alone(muster: Muster, root: Path) -> None:
    before = LocalFleet.open(root).state.processes
    shown = muster("up")
    assert (shown.code, shown.err) == (0, "")
    assert LocalFleet.open(root).state.processes == before


def test_secrets_are_readable_by_their_owner_only(muster: Muster, root: Path) -> None:
    folder = FleetDir(root)
    secrets = [folder.tokens, folder.seed("c-1"), folder.seed("server"), folder.token("agent-c-1"), folder.up]
    assert {str(path): path.stat().st_mode & 0o77 for path in secrets} == {str(path): 0 for path in secrets}


def test_a_gang_runs_and_its_history_tells_how(muster: Muster, tmp_path: Path) -> None:
    shown = muster("submit", "-f", gang(tmp_path, "train", count=2), "--wait", "--timeout", f"{PATIENCE_S}s")
    assert (shown.code, shown.out.splitlines()[-1]) == (0, "podgroup/train Running on c-1")
    kinds = [item["kind"] for item in json.loads(muster("history", "train", "-o", "json").out)["items"]]
    assert kinds == ["Submitted", "Placed", "Bound", "Running"]
    row = muster("get", "pg", "train", "--no-headers").out.split()
    assert row[:8] == ["train", "Running", "c-1", "2/2", "16", "default", "0", "<none>"]


def test_the_same_request_id_is_the_same_group(muster: Muster, tmp_path: Path) -> None:
    path = gang(tmp_path, "again", count=2)
    first = muster("submit", "-f", path, "--request-id", "nightly-7", "-o", "json")
    second = muster("submit", "-f", path, "--request-id", "nightly-7", "-o", "json")
    assert json.loads(first.out)["uid"] == json.loads(second.out)["uid"]
    Path(path).write_text(Path(path).read_text().replace("count: 2", "count: 1"))
    assert muster("submit", "-f", path, "--request-id", "nightly-7").code == 4


def test_what_does_not_fit_now_says_why(muster: Muster, tmp_path: Path) -> None:
    shown = muster("submit", "-f", gang(tmp_path, "later", count=1), "--wait", "--timeout", "1s")
    assert (shown.code, shown.first[:43]) == (5, "error: podgroup/later does not fit now: Ins")
    assert "c-1" in muster("explain", "later").out
    assert muster("explain", "later", "--exit-code").code == 5


def test_a_cancelled_gang_makes_room_for_the_next(muster: Muster) -> None:
    assert muster("cancel", "again", "train", "--reason", "test").code == 0
    eventually(lambda: phase(muster, "later") == "Running")
    assert (phase(muster, "train"), phase(muster, "again")) == ("Cancelled", "Cancelled")


def test_decisions_are_made_again_beside_the_running_server(muster: Muster) -> None:
    def replayed() -> dict[str, Any]:
        shown = muster("simulate", "journal", "-o", "json")
        assert (shown.code, shown.err) == (0, "")
        report: dict[str, Any] = json.loads(shown.out)
        return report

    eventually(lambda: not replayed()["not_covered"])  # a decision is on tape five seconds later
    found = replayed()
    assert (found["decisions"], found["equal"], found["different"], found["terms"]) == (2, 2, 0, 1)
    lines = muster("simulate", "journal").out.splitlines()
    assert lines[3:] == ["equal       2", "different   0"]


def test_what_was_seen_when_a_group_was_placed_is_shown_later(muster: Muster) -> None:
    history = json.loads(muster("history", "train", "-o", "json").out)["items"]
    at = next(str(item["position"]) for item in history if item["kind"] == "Placed")
    seen = json.loads(muster("simulate", "journal", "--at", at, "-o", "json").out)
    assert (seen["record"], seen["name"]) == ("Placed", "default/train")
    (cluster,) = seen["clusters"]
    assert (cluster["answer"], cluster["gpus_free"], cluster["gpus"]) == ("chosen", 16, 16)
    assert muster("simulate", "journal", "--at", at).out.startswith(f"position {at}: Placed default/train\n")
    before = muster("simulate", "journal", "--at", "1")
    assert (before.code, before.first) == (3, "error: no tape tells what was seen before position 1")


def test_a_cordoned_cluster_gets_nothing_new(muster: Muster, tmp_path: Path) -> None:
    assert muster("cluster", "cordon", "c-1", "--reason", "cooling").code == 0
    assert "cordoned" in muster("get", "cl", "c-1").out
    muster("submit", "-f", gang(tmp_path, "kept-out", count=1))
    assert "ClusterCordoned" in muster("explain", "kept-out").out
    assert muster("cluster", "uncordon", "c-1").code == 0
    eventually(lambda: phase(muster, "kept-out") == "Running")


def test_what_was_acknowledged_survives_kill_9_of_the_server(muster: Muster, root: Path) -> None:
    before = uids(muster)
    LocalFleet.open(root).kill("server")
    assert muster("up").err.startswith("started server (pid ")
    assert uids(muster) == before
    assert phase(muster, "train") == "Cancelled"
    eventually(lambda: phase(muster, "later") == "Running")  # a starved guard may have stopped it: then it starts again


def test_a_fleet_keeps_the_shape_it_was_made_with(muster: Muster) -> None:
    shown = muster("up", "--clusters", "2")
    assert (shown.code, shown.first.partition(" was made")[2]) == (4, " with --clusters 1, not 2")


def test_two_owners_of_a_folder_are_refused(muster: Muster, root: Path) -> None:
    with state.locked(FleetDir(root)):
        assert muster("up").code == 4
        assert muster("down").code == 4


async def test_an_agents_credential_opens_its_own_subjects_only(root: Path) -> None:
    fleet = LocalFleet.open(root)
    url, seed = f"nats://127.0.0.1:{fleet.state.ports['nats']}", fleet.folder.seed("c-1").read_text().strip()
    bus = await connect_nats(url, name="intruder", inbox_prefix=subjects.inbox("c-1"), nkey_seed=seed)
    try:
        await bus.publish(subjects.report("c-2"), b"")
        await bus.failed.wait()
        assert 'publish to "muster.v1.c-2.report"' in bus.failure
    finally:
        await bus.close()


NAMES = "podgroup/train\npodgroup/again\npodgroup/later\npodgroup/kept-out\n"


def test_down_stops_all_and_keeps_the_state(muster: Muster, root: Path) -> None:
    fleet = LocalFleet.open(root)
    assert muster("get", "pg", "-o", "name").out == NAMES
    shown = muster("down")
    assert (shown.code, shown.out) == (0, f"stopped 5 processes; state stays in {root}\n")
    assert [role for role in fleet.roles if fleet.alive(role)] == []
    assert muster("down").out.startswith("stopped 0 processes")


def test_the_tape_of_a_server_that_stopped_in_good_order_is_whole(muster: Muster, root: Path) -> None:
    shown = muster("simulate", "journal", "--store", f"sqlite:///{root}/journal.db", "-o", "json")
    found = json.loads(shown.out)
    assert (shown.code, found["different"]) == (0, 0)
    assert found["equal"] >= 2
    wrong = muster("simulate", "journal", "--store", "nowhere://x")
    assert (wrong.code, wrong.first[:27]) == (2, "error: store address 'nowhe")
    assert muster("simulate", "journal", "--from", "9", "--to", "8").code == 2


def test_a_fleet_in_the_foreground_restarts_what_dies_and_ends_with_down(muster: Muster, root: Path) -> None:
    before = LocalFleet.open(root).state.ports
    command = [program("muster"), "up", "--foreground"]
    with subprocess.Popen(
        command, env={**os.environ, "MUSTER_DIR": str(root)}, stdout=subprocess.PIPE, text=True
    ) as owner:
        try:
            assert owner.stdout is not None
            assert owner.stdout.readline() == f"muster is up in {root}\n"
            assert LocalFleet.open(root).state.ports == before
            assert muster("get", "pg", "-o", "name").out == NAMES
            eventually(lambda: LocalFleet.open(root).state.owner is not None)
            fleet = LocalFleet.open(root)
            first = fleet.pid("agent/c-1")
            fleet.signal("agent/c-1", signal.SIGKILL)
            eventually(lambda: LocalFleet.open(root).pid("agent/c-1") != first)
            assert muster("down").code == 0
            assert owner.wait(PATIENCE_S) == 0
        finally:
            owner.kill()
    fleet = LocalFleet.open(root)
    assert [role for role in fleet.roles if fleet.alive(role)] == []


def test_without_a_fleet_the_server_is_unavailable(muster: Muster) -> None:
    assert muster("get", "pg").code == 6


def test_the_installed_command_answers() -> None:
    shown = subprocess.run([program("muster"), "version"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("muster ")
