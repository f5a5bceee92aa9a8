"""A fleet restored from a backup while its clusters run on: nothing runs twice, and what runs is taken up again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import muster
from federation.cli.local.commands import SERVER
from federation.cli.local.fleet import LocalFleet
from federation.cli.main import run
from federation.cli.session import World
from muster.results import GroupView
from storage.open import open_store
from storage.reading import read_root
from tests.integration.fleets import until

CLUSTERS: Final = ("c-1", "c-2")
RECOVERY: Final = frozenset({"Restored", "Unheld", "Adopted", "Recreated", "Recovered"})
LATE: Final = 200  # groups that come after the backup


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[LocalFleet]:
    found = LocalFleet.make(tmp_path / "fleet", clusters=CLUSTERS, nodes=["6xA100-80:8"] * 2, preset="fast")
    try:
        found.up()
        yield found
    finally:
        found.down()


def command(fleet: LocalFleet, *arguments: str) -> None:
    assert run(arguments, World({"HOME": str(fleet.folder.root), "MUSTER_DIR": str(fleet.folder.root)})) == 0


def pinned(name: str, policy: str, **more: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "train", "resources": {"limits": {"nvidia.com/gpu": 4}}}
    template = {
        "metadata": {"annotations": {"simkube/run-seconds": "600"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
    }
    roles = [{"count": 2, "template": template}]
    return {"name": name, "grace_s": 1, "disconnect_policy": policy, "roles": roles, **more}


def running(client: muster.Client, name: str) -> GroupView:
    until(lambda: client.get_group(name).status.phase == "Running", f"{name} does not run")
    return client.get_group(name)


def spans(fleet: LocalFleet, name: str) -> dict[str, list[tuple[float, float]]]:
    """When containers of the group ran, by cluster, from the kubelets' own logs; those that run on end at infinity."""
    found: dict[str, list[tuple[float, float]]] = {}
    for cluster in CLUSTERS:
        began: dict[str, float] = {}
        for line in (fleet.folder.cluster(cluster) / "runlog.jsonl").read_text().splitlines():
            entry = json.loads(line)
            if not entry.get("pod", "").rpartition("/")[2].startswith(f"{name}-"):
                continue
            key = f"{entry['pod']}/{entry.get('container', '')}"
            if entry["event"] == "started":
                began[key] = entry["at_s"]
            elif entry["event"] == "ended" and key in began:
                found.setdefault(cluster, []).append((began.pop(key), entry["at_s"]))
        for started_s in began.values():
            found.setdefault(cluster, []).append((started_s, float("inf")))
    return found


def test_running_groups_are_adopted_and_nothing_runs_twice(fleet: LocalFleet, tmp_path: Path) -> None:
    place, target = f"file://{tmp_path}/backup", f"sqlite:///{tmp_path}/restored.db"
    with fleet.client() as client:
        client.act_on_cluster("c-2", "cordon")
        for name, policy in (("stays", "StopAndMove"), ("holds", "HoldInPlace"), ("moves", "StopAndMove")):
            client.submit(pinned(name, policy))
        before = {name: running(client, name).status for name in ("stays", "holds", "moves")}
        assert {status.cluster for status in before.values()} == {"c-1"}
        command(fleet, "store", "backup", "--to", place)
        client.act_on_cluster("c-2", "uncordon")
        client.act_on_cluster("c-1", "cordon")
        moved = move(fleet, client, "moves")
        client.submit(pinned("later", "StopAndMove"), request_id="submit-later")
        later = running(client, "later")
    fleet.kill(SERVER)
    command(fleet, "store", "restore", place, target)
    fleet.state.store = target
    fleet.start(SERVER)
    with fleet.client(attempts_max=30) as client:
        until(lambda: not fleet.inactive(), "the clusters are not admitted")
        stays, holds, moves = (client.get_group(name).status for name in ("stays", "holds", "moves"))
        assert (stays.cluster, stays.token) == ("c-1", before["stays"].token)
        assert (holds.cluster, holds.token) == ("c-1", before["holds"].token)
        assert (moves.cluster, moves.token) == ("c-2", moved.token)
        assert {stays.phase, holds.phase} == {"Running"}
        known = running(client, "later")
        assert (known.metadata.uid, known.status.token, known.status.phase) == (
            later.metadata.uid,
            later.status.token,
            "Running",
        )
        again = client.submit(pinned("later", "StopAndMove"), request_id="submit-later")
        assert again.uid == later.metadata.uid
        client.submit(pinned("after", "StopAndMove"))
        running(client, "after")
        kinds = [item.kind for item in client.list_decisions().items]
        assert [kind for kind in kinds if kind in RECOVERY] == [
            "Restored",
            "Unheld",
            "Adopted",
            "Recreated",
            "Recovered",
        ]
    for name, cluster in (("stays", "c-1"), ("holds", "c-1"), ("later", "c-2")):
        assert {where: [end for _, end in parts] for where, parts in spans(fleet, name).items()} == {
            cluster: [float("inf")] * 2
        }
    parts = spans(fleet, "moves")
    assert max(end for _, end in parts["c-1"]) <= min(start for start, _ in parts["c-2"])
    assert [end for _, end in parts["c-2"]] == [float("inf")] * 2


def move(fleet: LocalFleet, client: muster.Client, name: str) -> Any:
    """Out of c-1, into c-2: suspended there, and resumed."""
    client.act_on_group(name, "suspend")
    until(lambda: client.get_group(name).status.phase == "Suspended", f"{name} does not stop")
    client.act_on_group(name, "resume")
    status = running(client, name).status
    assert status.cluster == "c-2"
    return status


def test_a_backup_restored_twice_gives_two_lineages(fleet: LocalFleet, tmp_path: Path) -> None:
    place = f"file://{tmp_path}/backup"
    command(fleet, "store", "backup", "--to", place)
    lineages = []
    for number in (1, 2):
        url = f"file://{tmp_path}/restored-{number}"
        command(fleet, "store", "restore", place, url)
        store = open_store(url)
        lineages.append(read_root(store).lineage)
        store.close()
    manifest = json.loads((next((tmp_path / "backup").rglob("MANIFEST.blob"))).read_bytes().partition(b"\n")[2])
    assert len({manifest["lineage"], *lineages}) == 3
    assert min(lineages) > manifest["lineage"]


# --- groups that the backup lacks -------------------------------------------------------------------------------------


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[LocalFleet]:
    """Two clusters with room for one group of `LATE` each."""
    found = LocalFleet.make(tmp_path / "fleet", clusters=CLUSTERS, nodes=["16xA100-80:8"] * 2, preset="fast")
    try:
        found.up()
        yield found
    finally:
        found.down()


def single(name: str) -> dict[str, Any]:
    """One pod with one GPU; it outlives the test."""
    found = pinned(name, "StopAndMove")
    (role,) = found["roles"]
    role["count"] = 1
    role["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = 1
    return found


def all_running(client: muster.Client) -> dict[str, tuple[str, str, str]]:
    """(uid, cluster, token) of each group by name, once `LATE` of them run."""
    seen: list[Any] = []

    def done() -> bool:
        seen[:] = client.list_groups(phase="Running", limit=LATE + 10).items
        return len(seen) == LATE

    until(done, f"not all of {LATE} groups run")
    return {one.metadata.name: (one.metadata.uid, one.status.cluster, one.status.token) for one in seen}


def restore(fleet: LocalFleet, place: str, target: str) -> None:
    """The store is lost; the fleet goes on from the backup, on another one."""
    fleet.kill(SERVER)
    command(fleet, "store", "restore", place, target)
    fleet.state.store = target
    fleet.start(SERVER)
    until(lambda: not fleet.inactive(), "the clusters are not admitted")


def containers(fleet: LocalFleet) -> list[tuple[str, str, str]]:
    """(cluster, event, pod) of all that the kubelets ever started and ended, in order of pods."""
    return sorted(
        (cluster, entry["event"], entry["pod"].rpartition("/")[2])
        for cluster in CLUSTERS
        for line in (fleet.folder.cluster(cluster) / "runlog.jsonl").read_text().splitlines()
        for entry in [json.loads(line)]
        if entry["event"] in {"started", "ended"} and "late-" in entry.get("pod", "")
    )


def test_groups_that_the_backup_lacks_are_known_again_and_run_on_however_often_it_is_restored(
    roomy: LocalFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"file://{tmp_path}/backup"
    command(roomy, "store", "backup", "--to", place)
    with roomy.client() as client:
        client.submit_many([single(f"late-{number:03d}") for number in range(LATE)])
        before = all_running(client)
    started = containers(roomy)
    assert [event for _, event, _ in started] == ["started"] * LATE
    lineages = []
    for number in (1, 2):
        capsys.readouterr()
        restore(roomy, place, f"sqlite:///{tmp_path}/restored-{number}.db")
        assert "later groups that run are known again" in capsys.readouterr().out
        with roomy.client(attempts_max=30) as client:
            assert all_running(client) == before
            decisions = client.list_decisions(limit=LATE + 50).items
            told = [item for item in decisions if item.kind in RECOVERY]
            assert [item.kind for item in told] == ["Restored", *["Recreated"] * LATE, "Recovered"]
            assert (told[-1].detail["recreated"], told[-1].detail.get("stopped", 0)) == (LATE, 0)
            assert [item.kind for item in client.history("late-007").items] == ["Recreated", "Running"]
            lineages.append(told[0].detail["lineage"])
        assert containers(roomy) == started
    assert len(set(lineages)) == 2
    with roomy.client() as client:  # and each is a group like any other
        client.act_on_group("late-000", "cancel")
        until(lambda: client.get_group("late-000").status.phase == "Cancelled", "it cannot be cancelled")
        client.submit(single("next"))
        running(client, "next")
