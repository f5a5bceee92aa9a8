"""Nodes take so many pods and no more, whatever else is free on them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from cluster_agents.simkube.kubelet.types import NodeShape
from tests.unit.cluster_agents.rig import Rig, node, template


def taking(pods: int, name: str, **fields: Any) -> NodeShape:
    return replace(node(name, **fields), pods_max=pods)


def helpers(count: int, name: str = "helper") -> dict[str, Any]:
    return {"name": name, "count": count, "template": template(gpus=0)}


def by_node(rig: Rig, token: str) -> dict[str, int]:
    return dict(Counter(pod["spec"]["nodeName"] for pod in rig.pods(token)))


def placed(rig: Rig, *roles: dict[str, Any]) -> str:
    token = rig.federation.place(roles=list(roles))
    rig.ring()
    rig.advance(5.0)
    return token


def test_pods_that_one_node_does_not_take_stand_on_the_next() -> None:
    rig = Rig(taking(4, "n-1"), taking(4, "n-2")).ready()
    token = placed(rig, helpers(6))
    assert by_node(rig, token) == {"n-1": 4, "n-2": 2}
    assert rig.federation.heard(token) == ["Bound", "Running"]


def test_pods_of_other_gangs_are_counted() -> None:
    rig = Rig(taking(4, "n-1"), taking(4, "n-2")).ready()
    first, second = placed(rig, helpers(3)), placed(rig, helpers(4))
    assert by_node(rig, first) == {"n-1": 3}
    assert by_node(rig, second) == {"n-1": 1, "n-2": 3}
    assert rig.federation.heard(second) == ["Bound", "Running"]


def test_helpers_leave_a_place_to_the_worker_that_needs_the_nodes_gpus() -> None:
    rig = Rig(taking(3, "n-1"), taking(3, "n-2", gpus=0)).ready()
    token = placed(rig, helpers(5), {"name": "worker", "count": 1, "template": template(gpus=8)})
    assert by_node(rig, token) == {"n-1": 3, "n-2": 3}
    assert rig.federation.heard(token) == ["Bound", "Running"]


def test_gang_for_which_there_are_too_few_places_is_refused_with_quantities_and_nothing_is_created() -> None:
    rig = Rig(taking(4, "n-1"), taking(4, "n-2")).ready()
    token = placed(rig, helpers(9))
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.reasons) == ("Refused", ("InsufficientPods",))
    assert "needs 9 places for pods on nodes that it may use, best is 8" in verdict.detail
    assert rig.pods(token) == []


def test_gang_that_needs_one_host_is_told_that_none_takes_so_many() -> None:
    rig = Rig(taking(4, "n-1"), taking(4, "n-2")).ready()
    token = rig.federation.place(roles=[helpers(6)], topology={"required": "host"})
    rig.ring()
    rig.advance(5.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.reasons) == ("Refused", ("InsufficientPods",))


def test_as_many_pods_join_an_elastic_gang_as_the_nodes_take() -> None:
    rig = Rig(taking(3, "n-1")).ready()
    token = rig.federation.place(pods=4, elastic=True, min_count=2)
    rig.federation.change(token, counts=(2,))
    rig.run(token)
    position = rig.federation.resize(token, 4)
    rig.ring()
    rig.advance(30.0)
    assert rig.federation.sized(token) == [((3,), position)]
    assert by_node(rig, token) == {"n-1": 3}


def test_pods_of_others_take_places_too() -> None:
    rig = Rig(taking(4, "n-1"), taking(4, "n-2")).ready()
    for number in range(3):
        spec = {"nodeName": "n-1", "containers": [{"name": "m", "image": "x"}]}
        metadata = {"name": f"stranger-{number}", "labels": {"app": "other"}}
        stranger = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        assert rig.request("POST", "/api/v1/namespaces/default/pods", stranger) == 201
    rig.advance(1.0)
    token = placed(rig, helpers(4))
    assert by_node(rig, token) == {"n-1": 1, "n-2": 3}
