"""A spread group on real processes: divided over clusters, moved when one is cut off, never beside a sibling, ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster_agents.simkube.runlog import Run, RunLogEntry, runs
from federation.cli.local.relay import Relay
from muster.results import GroupView
from tests.survival.fleet import fleet_behind_relays, run_log, wait_until

PATIENCE_S = 90.0  # a hung part fails the test instead of stopping the lane
NODES = dict.fromkeys(("c-1", "c-2", "c-3", "c-4"), "2xA100-80:8")
REPLICAS, LEAST = 9, 2


def service(name: str, **spread: Any) -> dict[str, Any]:
    """Replicas of one GPU that run until they are stopped."""
    resources = {"limits": {"cpu": "1", "nvidia.com/gpu": 1}}
    container = {"name": "main", "image": "registry.example.com/serve:1", "resources": resources}
    template = {"spec": {"terminationGracePeriodSeconds": 2, "containers": [container]}}
    roles = [{"name": "replica", "count": REPLICAS, "template": template}]
    return {"name": name, "grace_s": 2, "spread": {"min_per_cluster": LEAST} | spread, "roles": roles}


def cut(relays: Sequence[Relay]) -> None:
    for relay in relays:
        relay.cut()


def shares(view: GroupView) -> dict[str, tuple[str, int]]:
    return {child.name: (child.cluster, child.replicas) for child in view.status.children or []}


def test_a_service_is_divided_survives_a_cut_cluster_and_ends_as_one(tmp_path: Path) -> None:
    with fleet_behind_relays(tmp_path, NODES) as (fleet, relays), fleet.client() as client:
        uid = client.submit(service("web", clusters=3)).uid
        wait_until(lambda: client.get_group("web").status.phase == "Running", "all children to run", PATIENCE_S)
        view = client.get_group("web")
        assert (view.metadata.uid, view.spec.pods, view.status.pods_bound) == (uid, REPLICAS, REPLICAS)
        first = shares(view)
        assert sorted(first) == ["web-1", "web-2", "web-3"]
        assert {count for _, count in first.values()} == {3}
        assert len({cluster for cluster, _ in first.values()}) == 3

        (spare,) = set(NODES) - {cluster for cluster, _ in first.values()}
        cut(relays[first["web-2"][0]])
        moved = first | {"web-2": (spare, 3)}
        wait_until(lambda: shares(client.get_group("web")) == moved, f"web-2 to get a home in {spare}", PATIENCE_S)
        wait_until(lambda: client.get_group("web").status.phase == "Running", "it to run there", PATIENCE_S)

        cut(relays[first["web-3"][0]])
        wait_until(lambda: client.get_group("web-3").status.phase == "Pending", "web-3 to lose its home", PATIENCE_S)
        told = client.explain("web")
        assert told.summary.startswith("replicas bound: 3 of 3 in ")
        assert "; web-3 waits: " in told.summary
        reasons = {one.cluster: one.reason for one in client.explain("web-3").clusters}
        assert {reasons[first["web-1"][0]], reasons[spare]} == {"SiblingThere"}

        client.cancel("web", reason="done")
        wait_until(lambda: client.get_group("web").status.phase == "Cancelled", "all children to end", PATIENCE_S)
        acts = [line for line in client.history("web").items if line.kind == "IntentSet"]
        assert [line.name for line in acts] == ["web-1", "web-2", "web-3"]
        assert len({line.position // 8_192 for line in acts}) == 1
        wait_until(lambda: not running(run_log(fleet)), "every container to end", PATIENCE_S)
        assert beside_a_sibling(run_log(fleet)) == []


def running(entries: list[RunLogEntry]) -> list[Run]:
    return [run for run in runs(entries) if run.group and run.ended_s is None]


def beside_a_sibling(entries: list[RunLogEntry]) -> list[tuple[str, str, str]]:
    """Containers of two children that ran in one cluster at the same time, by the kubelets."""
    mine = [run for run in runs(entries) if run.group]
    return [
        (one.started.cluster, one.group, other.group)
        for one in mine
        for other in mine
        if one.started.cluster == other.started.cluster and one.group < other.group and one.overlaps(other)
    ]
