"""Kubelets under any sequence of faults: no over-commitment meanwhile, and agreement once they are over."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster_agents.simkube.kubelet import NodeShape
from cluster_agents.simkube.kubelet import types as kt
from cluster_agents.simkube.runlog import device_conflicts
from tests.unit.simkube.mini import PODS, PROMPT, MiniCluster, pod

NODES = [NodeShape("n-1", cpu_milli=4_000, memory_mib=8_192, gpus=4, pods_max=6), NodeShape("n-2", gpus=2)]
node_names = st.sampled_from(["n-1", "n-2"])
pod_names = st.sampled_from([f"p-{i}" for i in range(6)])
statuses = st.sampled_from([409, 429, 500, 504])

acts = st.one_of(
    st.tuples(st.just("create"), pod_names, node_names, st.integers(0, 4), st.sampled_from(["Never", "OnFailure"])),
    st.tuples(st.just("delete"), pod_names, st.sampled_from([0, 5, 30])),
    st.tuples(st.just("cut"), node_names),
    st.tuples(st.just("heal"), node_names),
    st.tuples(st.just("crash"), node_names),
    st.tuples(st.just("boot"), node_names),
    st.tuples(st.just("fail"), st.sampled_from(["patch", "delete", "create", "list"]), statuses, st.booleans()),
    st.tuples(st.just("api"), st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 3.0, 20.0, 100.0])),
)


def carry_out(c: MiniCluster, act: tuple[Any, ...]) -> None:
    match act:
        case ("create", name, node, gpus, policy) if c.api_up:
            annotations = {"simkube/run-seconds": "40"} if gpus % 2 else {}
            c.request("POST", PODS, pod(name, node=node, gpus=gpus, policy=policy, annotations=annotations))
        case ("delete", name, grace_s) if c.api_up:
            c.request("DELETE", f"{PODS}/{name}", query={"gracePeriodSeconds": str(grace_s)})
        case ("cut", node):
            c.tell(kt.NodeCut(node))
        case ("heal", node):
            c.tell(kt.NodeHealed(node))
        case ("crash", node):
            c.tell(kt.NodeCrashed(node))
        case ("boot", node):
            c.tell(kt.NodeBooted(node))
        case ("fail", verb, status, applied):
            c.api.faults.fail(verb, "*", status, applied=applied)
        case ("api", False):
            c.api_up = False
        case ("api", True) if not c.api_up:
            c.api_returns()
        case ("wait", seconds):
            c.advance(seconds)
        case _:
            pass


def heal(c: MiniCluster) -> None:
    c.api.faults.clear()
    if not c.api_up:
        c.api_returns()
    for shape in NODES:
        c.tell(kt.NodeBooted(shape.name))
        c.tell(kt.NodeHealed(shape.name))
    c.advance(200.0)


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(st.lists(acts, max_size=40))
def test_after_any_faults_kubelets_and_api_server_agree_again(sequence: list[tuple[Any, ...]]) -> None:
    c = MiniCluster(NODES, PROMPT)
    for act in sequence:
        carry_out(c, act)  # the room and the run log are checked after every event
    heal(c)
    assert device_conflicts(c.kubelets.run_log) == []
    stored = {item["metadata"]["name"]: item for _, item in c.api.store.each("pods")}
    assert c.live() == sorted(name for name, item in stored.items() if item["status"]["phase"] == "Running")
    assert [name for name, item in stored.items() if item["status"]["phase"] == "Pending"] == []
    assert [name for name, item in stored.items() if "deletionTimestamp" in item["metadata"]] == []


@pytest.mark.parametrize("applied", [False, True], ids=["refused", "reply lost"])
@pytest.mark.parametrize("verb", ["create", "patch", "delete"])
def test_a_kubelet_tries_again_until_it_is_heard(verb: str, applied: bool) -> None:
    c = MiniCluster(NODES, PROMPT)
    for _ in range(3):
        c.api.faults.fail(verb, "*", 500, applied=applied)
    c.tell(kt.NodeCrashed("n-1"))
    c.tell(kt.NodeBooted("n-1"))
    c.advance(20.0)
    c.api.faults.clear()
    c.request("POST", PODS, pod("p", node="n-1"))
    c.advance(5.0)
    c.api.faults.fail(verb, "*", 500, applied=applied)
    c.request("DELETE", f"{PODS}/p", query={"gracePeriodSeconds": "5"})
    c.request("DELETE", f"{PODS}/p", query={"gracePeriodSeconds": "5"})
    c.advance(60.0)
    assert (c.phase("p"), c.live()) == ("absent", [])


def test_a_node_that_is_back_says_that_it_is_ready_only_under_a_renewed_lease() -> None:
    c = MiniCluster(NODES)
    c.advance(10.0)
    c.tell(kt.NodeCrashed("n-1"))
    c.now_s += 1.0
    back = [effect for effect in c.kubelets.handle(kt.NodeBooted("n-1"), c.now_s) if isinstance(effect, kt.ApiCall)]
    lease = next(call for call in back if "leases" in call.request.path)
    assert [call.request.path for call in back if call.request.path.endswith("/status")] == []
    then = c.kubelets.handle(kt.ApiReply(lease.call_id, 200, {}), c.now_s)
    said = [effect.request for effect in then if isinstance(effect, kt.ApiCall)]
    assert [(one.method, one.path) for one in said] == [("PATCH", "/api/v1/nodes/n-1/status")]
