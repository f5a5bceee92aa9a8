"""A real node: its kubelet and its runtime start containers of gangs, and its guard keeps them to the lease."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import pytest

from federation.cli.local import commands
from tests.integration.fleets import until
from tests.integration.server_process import gang
from tests.kubernetes.cluster import cluster
from tests.kubernetes.member import ROLE, Member, member
from tests.kubernetes.real_node.image import NAME as IMAGE
from tests.kubernetes.real_node.machine import Machine, machine

PRESET: Final = "demo"  # leases of 6 s
OVER: Final = {"Succeeded", "Failed"}
AGAIN_WITHIN_S: Final = 120.0
"""A kubelet whose API server was gone tries again at intervals that double."""

JsonObject = dict[str, Any]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Of a cluster that has no other, which any worker may share with the cases of other files."""
    with (
        cluster(tmp_path_factory.mktemp("alone")) as alone,
        machine(alone, tmp_path_factory.mktemp("machine")) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def fleet(node: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    with member(node.cluster, tmp_path_factory.mktemp("member"), preset=PRESET, simulated=False) as found:
        node.start_guard(found.guards_ask_at, PRESET)
        yield found


@contextlib.contextmanager
def group(
    fleet: Member, script: str, *, name: str, restart: str = "Never", memory: str = "64Mi", **fields: Any
) -> Iterator[str]:
    """A group whose containers do this; its uid. Nothing of it is left when the block ends."""
    manifest: JsonObject = gang(name, **{"grace_s": 1, "gpus": 1, **fields})
    (role,) = manifest["roles"]
    pod = role["template"]["spec"]
    pod["restartPolicy"] = restart
    pod["securityContext"] = {"runAsUser": 1000}  # not the guard's own user
    pod["containers"][0] |= {"image": IMAGE, "command": ["/bin/sh", "-c", f"{script}; exit $?"]}
    pod["containers"][0]["resources"]["limits"]["memory"] = memory
    with fleet.client() as client:
        uid = client.submit(manifest).uid
        try:
            yield uid
        finally:
            if client.get_group(name).status.phase not in OVER:
                client.cancel(name)
    until(lambda: not pods(fleet, uid), f"the pods of {name} are still there")


@contextlib.contextmanager
def no_server(fleet: Member) -> Iterator[None]:
    """Nobody renews the cluster's lease."""
    fleet.fleet.stop(commands.SERVER)
    try:
        yield
    finally:
        fleet.fleet.start_only([commands.SERVER])


def pods(fleet: Member, uid: str) -> list[JsonObject]:
    status, listed = fleet.cluster.call("GET", f"/api/v1/pods?labelSelector=muster.io/group-uid={uid}")
    assert status == 200, listed
    return list(listed["items"])


def started(node: Machine, name: str, count: int = 2) -> set[str]:
    """The tokens by which it runs, when so many containers of it do."""
    until(lambda: len(node.running(name)) >= count, f"the containers of {name} do not start", AGAIN_WITHIN_S)
    return set(node.running(name))


def test_the_api_server_takes_what_is_published_for_guards(fleet: Member) -> None:
    fleet.cluster.apply(ROLE.with_name("guard.yaml"))
    path = "/apis/apps/v1/namespaces/muster-guard/daemonsets/muster-guard"
    status, published = fleet.cluster.call("GET", path)
    assert status == 200, published
    assert fleet.cluster.call("DELETE", path)[0] == 200


def test_a_gang_runs_in_real_containers_and_leaves_nothing_behind(fleet: Member, node: Machine) -> None:
    with group(fleet, 'test "$MUSTER_WORLD_SIZE" = 2 && sleep 3', name="real"):
        started(node, "real")
        fleet.wait_for("real", "Succeeded")
        until(lambda: not node.running("real"), "its containers are still there")


def test_a_container_that_fails_is_a_failure(fleet: Member) -> None:
    with group(fleet, "exit 3", name="fails"):
        fleet.wait_for("fails", "Failed")


def test_when_the_lease_runs_out_the_guard_ends_what_runs_though_the_api_server_is_gone(
    fleet: Member, node: Machine
) -> None:
    with group(fleet, "sleep 600", name="lost"):
        (token,) = started(node, "lost")
        node.cluster.stop_api()
        with no_server(fleet):
            until(lambda: not node.running("lost"), "its containers run on")
        node.cluster.start_api()
        assert token not in started(node, "lost")


def test_what_ends_well_when_the_guard_ends_it_has_not_succeeded(fleet: Member, node: Machine) -> None:
    """The agent is gone while it happens, so that what the kubelet reports is all there is to know."""
    with group(fleet, "trap 'exit 0' TERM; while true; do sleep 0.1; done", name="polite", grace_s=20):
        (token,) = started(node, "polite")
        fleet.kill(fleet.agents[0])
        until(lambda: not node.running("polite"), "its containers run on")
        fleet.start_agent()
        assert token not in started(node, "polite")
        fleet.wait_for("polite", "Running")


def test_a_group_that_holds_in_place_runs_on_without_a_lease(fleet: Member, node: Machine) -> None:
    with (
        group(fleet, "sleep 600", name="holds", disconnect_policy="HoldInPlace") as uid,
        group(fleet, "sleep 600", name="moves"),
    ):
        (token,) = started(node, "holds")
        started(node, "moves")
        fleet.wait_for("holds", "Running")
        before = {one["metadata"]["uid"] for one in pods(fleet, uid)}
        with no_server(fleet):
            until(lambda: not node.running("moves"), "what may not be held runs on")
            assert set(node.running("holds")) == {token}
        fleet.wait_for("moves", "Running")
        assert {one["metadata"]["uid"] for one in pods(fleet, uid)} == before


def test_without_a_guard_the_runtime_creates_no_container_of_ours(fleet: Member, node: Machine) -> None:
    with group(fleet, "sleep 600", name="waits") as uid:
        started(node, "waits")
        node.kill_guard()
        assert len(set(node.running("waits"))) == 1  # what runs runs on
    with group(fleet, "sleep 600", name="gated") as uid:
        until(lambda: "muster-guard" in waiting_for(fleet, uid), "its containers are not refused")
        assert not node.running("gated")
        node.start_guard(fleet.guards_ask_at, PRESET)
        started(node, "gated")


def waiting_for(fleet: Member, uid: str) -> str:
    """What the kubelet says of containers that do not start."""
    statuses = [one for pod in pods(fleet, uid) for one in pod["status"].get("containerStatuses", [])]
    return " ".join(one["state"].get("waiting", {}).get("message", "") for one in statuses)


def test_a_guard_that_starts_anew_stops_what_an_earlier_one_let_start(fleet: Member, node: Machine) -> None:
    with group(fleet, "sleep 600", name="orphan"):
        (token,) = started(node, "orphan")
        node.kill_guard()
        node.start_guard(fleet.guards_ask_at, PRESET)
        assert set(node.running("orphan")) == {token}
        with no_server(fleet):
            until(lambda: not node.running("orphan"), "its containers run on")
        assert token not in started(node, "orphan")


def test_the_guard_ends_what_runs_though_the_runtime_is_gone(fleet: Member, node: Machine) -> None:
    with group(fleet, "sleep 600", name="headless"):
        (token,) = started(node, "headless")
        node.kill_runtime()
        with no_server(fleet):
            until(lambda: not node.running("headless"), "its containers run on")
        assert not node.guard_state()["registered"]
        node.start_runtime()
        assert token not in started(node, "headless")
        assert node.guard_state()["registered"]


def test_a_job_runs_in_real_containers_that_know_their_ranks(fleet: Member, node: Machine) -> None:
    script = 'case "$MUSTER_RANK$JOB_COMPLETION_INDEX" in 00|11|01|10) sleep 2;; *) exit 5;; esac'
    container = {"name": "main", "image": IMAGE, "command": ["/bin/sh", "-c", script]}
    container["resources"] = {"limits": {"nvidia.com/gpu": 1}}
    template = {"spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]}}
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "ranked"},
        "spec": {"completions": 2, "parallelism": 2, "completionMode": "Indexed", "template": template},
    }
    with fleet.client() as client:
        uid = client.submit(manifest).uid
    fleet.wait_for("ranked", "Succeeded")
    until(lambda: not pods(fleet, uid), "its pods are still there")


def test_a_container_that_needs_more_memory_than_it_has_is_a_failure(fleet: Member, node: Machine) -> None:
    with group(fleet, "x=$(busybox head -c 100000000 /dev/zero | busybox tr '\\0' a)", name="greedy", memory="16Mi"):
        fleet.wait_for("greedy", "Failed")
    assert "TaskOOM event" in (node.folder / "containerd.log").read_text()


def test_a_container_that_may_start_again_asks_the_guard_each_time(fleet: Member, node: Machine) -> None:
    with group(fleet, "sleep 2; exit 1", name="again", restart="OnFailure") as uid:
        started(node, "again")
        fleet.kill(fleet.agents[0])
        until(lambda: "no leave" in waiting_for(fleet, uid), "its containers start without a lease", AGAIN_WITHIN_S)
        fleet.start_agent()
        started(node, "again")
