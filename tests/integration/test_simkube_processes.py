"""simkube as processes: what survives which death, and guards that ask over HTTP."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster_agents.simkube.runlog import runs
from tests.contract.kube_api import pod
from tests.integration.simkube_process import FakeAgent, SimCluster, alive, until

PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SimCluster]:
    found = SimCluster(tmp_path)
    found.start()
    yield found
    found.stop()


@pytest.fixture
def agent() -> Iterator[FakeAgent]:
    found = FakeAgent()
    yield found
    found.close()


def phase(cluster: SimCluster, name: str) -> str:
    status, body = cluster.request("GET", f"{PODS}/{name}")
    return str(body["status"]["phase"]) if status == 200 else "absent"


def run_pod(cluster: SimCluster, body: dict[str, Any], node: str = "c-1-0001") -> None:
    assert cluster.request("POST", PODS, body)[0] == 201
    name = body["metadata"]["name"]
    assert cluster.request("POST", f"{PODS}/{name}/binding", {"target": {"name": node}})[0] == 201


def test_every_acknowledged_write_survives_a_killed_api_server(cluster: SimCluster) -> None:
    api = cluster.api()
    for i in range(50):
        assert api.request("POST", PODS, body=pod(f"p-{i}"))[0] == 201
    version = int(api.request("GET", PODS)[1]["metadata"]["resourceVersion"])
    api.close()
    cluster.kill("apiserver")
    cluster.start("apiserver")
    _, listed = cluster.request("GET", PODS)
    assert len(listed["items"]) == 50
    assert int(listed["metadata"]["resourceVersion"]) >= version
    _, made = cluster.request("POST", PODS, pod("after"))
    assert made["metadata"]["uid"] not in {item["metadata"]["uid"] for item in listed["items"]}


def test_containers_outlive_their_api_server_and_are_told_of_when_it_returns(cluster: SimCluster) -> None:
    run_pod(cluster, pod("stays"))
    run_pod(cluster, pod("ends", run_s=0.5))
    until(lambda: phase(cluster, "stays") == "Running" and phase(cluster, "ends") != "Pending", "both started")
    cluster.kill("apiserver")
    until(lambda: [e for e in cluster.run_log() if e.pod == "ends" and e.event == "ended"], "one ends meanwhile")
    cluster.start("apiserver")
    until(lambda: phase(cluster, "ends") == "Succeeded", "the outcome is reported late")
    assert [run.ended_s for run in runs(cluster.run_log()) if run.started.pod == "stays"] == [None]


def test_killed_kubelets_close_their_log_and_fail_what_cannot_have_survived(cluster: SimCluster) -> None:
    run_pod(cluster, pod("p"))
    until(lambda: phase(cluster, "p") == "Running", "running")
    cluster.kill("kubelets")
    cluster.start("kubelets")
    until(lambda: phase(cluster, "p") == "Failed", "failed")
    assert [(e.event, e.why) for e in cluster.run_log()] == [("started", ""), ("ended", "KubeletsKilled")]


def test_a_node_cut_from_its_api_server_keeps_its_containers(cluster: SimCluster) -> None:
    run_pod(cluster, pod("p"))
    until(lambda: phase(cluster, "p") == "Running", "running")
    cluster.node_act("c-1-0001", "cut")
    cluster.request("DELETE", f"{PODS}/p")
    run_pod(cluster, pod("q"), "c-1-0002")
    until(lambda: phase(cluster, "q") == "Running", "the other node goes on")
    assert [e.event for e in cluster.run_log() if e.pod == "p"] == ["started"]
    cluster.node_act("c-1-0001", "heal")
    until(lambda: phase(cluster, "p") == "absent", "deleted after the heal")
    assert [e.event for e in cluster.run_log() if e.pod == "p"] == ["started", "ended"]


def test_a_lost_reply_leaves_the_pod_bound(cluster: SimCluster) -> None:
    cluster.request("POST", PODS, pod("p"))
    rule = {"verb": "create", "label": "pods/binding", "status": 504, "applied": True}
    assert cluster.request("POST", "/simkube/faults", {"rules": [rule]})[0] == 200
    with pytest.raises(ConnectionError):
        cluster.request("POST", f"{PODS}/p/binding", {"target": {"name": "c-1-0001"}})
    _, found = cluster.request("GET", f"{PODS}/p")
    assert found["spec"]["nodeName"] == "c-1-0001"


def test_agents_can_be_cut_off_while_kubelets_go_on(cluster: SimCluster) -> None:
    run_pod(cluster, pod("p", run_s=0.3))
    cluster.request("POST", "/simkube/faults", {"cut": "agents"})
    with pytest.raises(ConnectionError):
        cluster.request("GET", PODS)
    until(lambda: [e for e in cluster.run_log() if e.event == "ended"], "the pod ran to its end")
    cluster.request("POST", "/simkube/faults", {"clear": True})
    until(lambda: phase(cluster, "p") == "Succeeded", "reported")


def test_guards_ask_over_http_and_fence_when_the_agent_falls_silent(tmp_path: Path, agent: FakeAgent) -> None:
    cluster = SimCluster(tmp_path, guard_url=agent.url)
    agent.lease_until_s = time.monotonic() + 3_600
    agent.hold = ("L.2",)
    cluster.start()
    try:
        for name, token in (("moves", "L.1"), ("holds", "L.2")):
            run_pod(cluster, pod(name, labels={"muster.io/group-uid": name, "muster.io/token": token}))
        run_pod(cluster, pod("theirs"))
        until(lambda: {e.pod for e in cluster.run_log()} == {"moves", "holds", "theirs"}, "all run")
        agent.lease_until_s = None
        cluster.node_act("c-1-0001", "guard-restart")
        until(lambda: [e for e in cluster.run_log() if e.event == "ended"], "fenced")
        assert [(e.pod, e.why) for e in cluster.run_log() if e.event == "ended"] == [("moves", "GuardFenced")]
        assert {ask.node for ask in agent.asks} == {"c-1-0001", "c-1-0002"}
    finally:
        cluster.stop()


def test_run_starts_both_again_when_killed_and_stops_both_when_told(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    command = [sys.executable, "-m", "cluster_agents.simkube.main", "run", "--dir", str(tmp_path)]
    process = subprocess.Popen([*command, "--nodes", "1xcpu:0", "--ports-file", str(file)])
    try:
        until(file.exists, "ports")
        first = json.loads(file.read_text())
        cluster = SimCluster(tmp_path, port=first["api"])
        until(lambda: len(cluster.request("GET", "/api/v1/nodes")[1]["items"]) == 1, "node registered")
        subprocess.run(["kill", "-9", str(first["apiserver_pid"])], check=True)
        second = until(lambda: _changed(file, first), "started again")
        assert second["kubelets_pid"] == first["kubelets_pid"]
        until(lambda: len(cluster.request("GET", "/api/v1/nodes")[1]["items"]) == 1, "serving again")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert not alive(second["apiserver_pid"])
    assert not alive(second["kubelets_pid"])


def _changed(file: Path, before: dict[str, int]) -> dict[str, int] | None:
    now: dict[str, int] = json.loads(file.read_text())
    return now if now["apiserver_pid"] != before["apiserver_pid"] else None


def test_a_wrong_node_specification_is_a_usage_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cluster_agents.simkube.main", "apiserver", "--dir", str(tmp_path)]
    done = subprocess.run([*command, "--nodes", "eight"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "node specification 'eight'" in done.stderr
