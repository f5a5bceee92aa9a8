"""Groups that choose nodes by label and tolerate taints, from the spec to containers that run, or to a reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cluster_agents.core.config import NODE_LABELS
from cluster_agents.simkube.nodespec import node_shapes
from tests.unit.cluster_agents.rig import Rig, node, template

GOLD = {"nodeSelector": {"muster.io/tier": "gold"}}


def role(name: str, *, count: int = 1, gpus: int = 1, **spec: Any) -> dict[str, Any]:
    found = template(gpus=gpus)
    return {"name": name, "count": count, "template": {**found, "spec": {**found["spec"], **spec}}}


def nodes_of(rig: Rig, token: str) -> list[str]:
    return [pod["spec"]["nodeName"] for pod in rig.pods(token)]


def test_a_gang_runs_on_the_nodes_that_its_selector_chooses() -> None:
    rig = Rig(node("n-1"), node("n-2", **{"muster.io/tier": "gold"})).ready()
    token = rig.federation.place(roles=[role("worker", count=2, **GOLD)])
    rig.ring()
    rig.advance(5.0)
    assert nodes_of(rig, token) == ["n-2", "n-2"]
    assert rig.federation.heard(token) == ["Bound", "Running"]


def test_a_helper_without_gpus_stands_on_another_node_than_its_workers_when_they_choose_so() -> None:
    rig = Rig(
        node("cpu-1", gpus=0, pool="helpers"), node("gpu-1", pool="train"), node_labels=NODE_LABELS | {"pool"}
    ).ready()
    token = rig.federation.place(
        roles=[
            role("helper", gpus=0, nodeSelector={"pool": "helpers"}),
            role("worker", count=2, gpus=4, nodeSelector={"pool": "train"}),
        ]
    )
    rig.ring()
    rig.advance(5.0)
    assert nodes_of(rig, token) == ["cpu-1", "gpu-1", "gpu-1"]
    assert rig.federation.heard(token) == ["Bound", "Running"]


def test_a_gang_that_no_node_suits_is_refused_with_the_reason_and_nothing_is_created() -> None:
    rig = Rig(node("n-1")).ready()
    token = rig.federation.place(roles=[role("worker", **GOLD)])
    rig.ring()
    rig.advance(5.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.reasons) == ("Refused", ("NoSuitableNode",))
    assert "of 1 nodes 1 lack muster.io/tier=gold" in verdict.detail
    assert rig.pods(token) == []


def test_labels_of_nodes_are_reported_once_for_all_nodes_of_a_kind() -> None:
    rig = Rig(*(node(f"n-{number}", **{"muster.io/tier": "gold"}) for number in range(3)), node("n-3")).ready()
    rig.advance(5.0)
    kinds = rig.reports[0].node_kinds
    assert [kind.labels for kind in kinds.kinds] == [(), (("muster.io/tier", "gold"),)]
    assert kinds.at == (1, 1, 1, 0)


def small(pods: int) -> dict[str, Any]:
    """A role of pods that ask for an instance each."""
    found = template(gpus=0)
    found["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/mig-1g.10gb"] = "1"
    return {"name": "worker", "count": pods, "template": found}


def test_a_gang_on_instances_runs_and_what_it_holds_is_told_until_it_ends() -> None:
    rig = Rig(*node_shapes("eu", "1xA100-80:1,mig=1g.10gb/1g.10gb/1g.10gb/3g.40gb")).ready()
    token = rig.federation.place(roles=[small(2)])
    rig.ring()
    rig.advance(5.0)
    assert rig.federation.heard(token) == ["Bound", "Running"]
    kinds = rig.reports[-1].node_kinds
    assert (kinds.devices, kinds.devices_at) == (("1g.10gb", "3g.40gb"), (((0, 3, 1), (1, 1, 1)),))
    late = rig.federation.place(roles=[small(2)])
    rig.ring()
    rig.advance(5.0)
    assert rig.federation.given_up(late).reasons == ("InsufficientDevices",)
    assert "needs 2 free instances of 1g.10gb, best is 1" in rig.federation.given_up(late).detail


def test_a_gang_on_instances_runs_on_nodes_that_call_them_gpus_and_on_others_alike() -> None:
    """Where the strategy is `single`, `nvidia.com/gpu` stands for an instance."""
    spec = "1xA100-80:1,mig=1g.10gb/1g.10gb,strategy=single+1xA100-80:1,mig=1g.10gb/3g.40gb"
    rig = Rig(*node_shapes("eu", spec)).ready()
    token = rig.federation.place(roles=[small(3)])
    rig.ring()
    rig.advance(5.0)
    assert rig.federation.heard(token) == ["Bound", "Running"]
    limits = [pod["spec"]["containers"][0]["resources"]["limits"] for pod in rig.pods(token)]
    assert sorted(name for one in limits for name in one if name.startswith("nvidia.com/")) == [
        "nvidia.com/gpu",
        "nvidia.com/gpu",
        "nvidia.com/mig-1g.10gb",
    ]
    assert parts_told(rig) == (((0, 2, 0),), ((0, 1, 0), (1, 1, 1)))
    whole = rig.federation.place(pods=1)
    rig.ring()
    rig.advance(5.0)
    assert rig.federation.given_up(whole).verdict == "Refused"


def test_pods_that_ask_for_a_share_get_a_replica_each() -> None:
    rig = Rig(*node_shapes("eu", "1xA100-80:1,shared=4")).ready()
    share = {"name": "worker", "count": 3, "gpu": {"milli": 200}, "template": template(gpus=0)}
    token = rig.federation.place(roles=[share])
    rig.ring()
    rig.advance(5.0)
    assert rig.federation.heard(token) == ["Bound", "Running"]
    limits = [pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] for pod in rig.pods(token)]
    assert limits == ["1", "1", "1"]
    assert rig.reports[-1].node_kinds.devices_at == (((0, 4, 1),),)


def parts_told(rig: Rig) -> tuple[tuple[tuple[int, int, int], ...], ...]:
    """What was told last of the parts of GPUs of all nodes."""
    return next(report.node_kinds.devices_at for report in reversed(rig.reports) if report.rows.name)


def test_a_restarted_agent_still_holds_the_instances_of_its_gangs() -> None:
    rig = Rig(*node_shapes("eu", "1xA100-80:1,mig=1g.10gb/1g.10gb/1g.10gb/3g.40gb")).ready()
    token = rig.federation.place(roles=[small(2)])
    rig.ring()
    rig.advance(5.0)
    rig.restart()
    rig.advance(30.0)
    assert rig.federation.heard(token)[:2] == ["Bound", "Running"]
    assert parts_told(rig) == (((0, 3, 1), (1, 1, 1)),)


def shared_job(rig: Rig) -> str:
    """A Job of two pods that ask for a share each."""
    roles = [{"name": "worker", "count": 2, "gpu": {"milli": 250}, "template": template(gpus=0)}]
    return rig.federation.place(roles=roles, workload="job", workload_object={"spec": {"completionMode": "Indexed"}})


def test_the_pods_of_a_job_get_their_shares_from_its_template() -> None:
    rig = Rig(*node_shapes("eu", "1xA100-80:1,shared=4")).ready()
    token = shared_job(rig)
    rig.ring()
    rig.advance(10.0)
    assert rig.federation.heard(token) == ["Bound", "Running"]
    assert parts_told(rig) == (((0, 4, 2),),)


def test_a_job_is_refused_where_its_nodes_call_their_replicas_by_different_names() -> None:
    plain, renamed = node_shapes("eu", "2xA100-80:1,shared=4")
    half_taken = replace(plain, gpus=1)
    rig = Rig(half_taken, replace(renamed, gpus=0, mig={"nvidia.com/gpu.shared": 1})).ready()
    token = shared_job(rig)
    rig.ring()
    rig.advance(10.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.reasons) == ("Refused", ("NoSuitableNode",))
    assert "call their parts of GPUs by different names" in verdict.detail
