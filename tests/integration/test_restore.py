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
        client.submit(pinned("later", "StopAndMove"))
        running(client, "later")
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
        with pytest.raises(muster.NotFoundError):
            client.get_group("later")
        until(lambda: all(end < float("inf") for _, end in spans(fleet, "later")["c-2"]), "the lost group runs on")
        client.submit(pinned("after", "StopAndMove"))
        running(client, "after")
        kinds = [item.kind for item in client.list_decisions().items]
        assert [kind for kind in kinds if kind in {"Restored", "Unheld", "Adopted", "Recovered"}] == [
            "Restored",
            "Unheld",
            "Adopted",
            "Recovered",
        ]
    for name in ("stays", "holds"):
        assert {cluster: [end for _, end in parts] for cluster, parts in spans(fleet, name).items()} == {
            "c-1": [float("inf")] * 2
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
