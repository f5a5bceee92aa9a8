"""Names, specs and the objects the agent creates."""

import json
import zlib
from typing import Any

import pytest

from cluster_agents.core import manifests
from cluster_agents.core.intake import Intake
from cluster_agents.core.plan import Plan, PlanRole, intent_configmap, intent_name, read_intent
from cluster_agents.core.pods import Amounts, pod_view
from cluster_agents.core.spec import Spec, read_spec
from cluster_agents.simkube.apiserver.patches import strategic_patch
from federation.protocol.messages import SpecAnswer
from placement.model import Because, PodGroup, Reason


def plan(**changes: Any) -> Plan:
    fields: dict[str, Any] = {
        "uid": "20261125T101010.123Z-ab12.81920001",
        "token": "20261125T101010.123Z-ab12.819200000777",
        "namespace": "team-a",
        "name": "a.very.long-name-of-a-training-run-that-goes-on-and-on",
        "workload": "pods",
        "policy": "StopAndMove",
        "disruption_mode": "all",
        "min_count": 3,
        "grace_s": 45,
        "spec_digest": "d",
        "roles": (PlanRole("head", 1, 1, 0, 1_000, 1_024), PlanRole("worker", 2, 2, 8, 4_000, 8_192)),
        "nodes": ("n-1", "n-1", "n-2"),
    }
    return Plan(**{**fields, **changes})


def group(**template: Any) -> PodGroup:
    spec = {"containers": [{"name": "main", "env": [{"name": "MUSTER_RANK", "value": "99"}, {"name": "A"}]}]}
    role = {"metadata": template.pop("metadata", {}), "spec": {**spec, **template}}
    roles = [{"name": "head", "template": role}, {"name": "worker", "count": 2, "template": role}]
    return PodGroup.model_validate({"name": "g", "roles": roles})


def test_names_fit_host_names_and_tell_tokens_apart() -> None:
    ours = plan()
    names = {ours.pod(9_999), ours.service, ours.job}
    assert all(len(name) <= 63 and "." not in name for name in names)
    others = [
        plan(token="20261125T101010.123Z-ab12.819200000778"),
        plan(token="20261125T101010.124Z-ab12.819200000777"),
    ]
    assert len({one.pod(0) for one in (ours, *others)}) == 3
    assert len({intent_name(one.token) for one in (ours, *others)}) == 3


def test_holdings_are_what_each_node_gives_to_the_gang() -> None:
    assert plan().holdings() == {
        "n-1": Amounts(5_000, 9_216, 8, (("pods", 2),)),
        "n-2": Amounts(4_000, 8_192, 8, (("pods", 1),)),
    }


def test_parts_of_gpus_are_held_by_the_name_under_which_pods_ask_for_them() -> None:
    ours = plan(devices=("", "nvidia.com/mig-1g.10gb", "nvidia.com/gpu"))
    assert ours.holdings() == {
        "n-1": Amounts(5_000, 9_216, 8, (("nvidia.com/mig-1g.10gb", 1), ("pods", 2))),
        "n-2": Amounts(4_000, 8_192, 9, (("pods", 1),)),
    }


def test_a_pod_asks_for_the_part_that_its_template_does_not_name() -> None:
    ours = plan(devices=("", "nvidia.com/gpu.shared", "nvidia.com/gpu"))
    limits = [manifests.pod(ours, group(), rank)["spec"]["containers"][0].get("resources") for rank in range(3)]
    assert limits == [None, *({kind: {name: "1"} for kind in ("requests", "limits")} for name in ours.devices[1:])]


def test_a_part_that_the_template_names_is_asked_for_once() -> None:
    named = {"limits": {"nvidia.com/mig-1g.10gb": 1}}
    containers = [{"name": "first"}, {"name": "main", "resources": named}]
    ours = plan(devices=("nvidia.com/mig-1g.10gb",) * 3)
    made = manifests.pod(ours, group(containers=containers), 0)["spec"]["containers"]
    assert [one.get("resources") for one in made] == [None, named]


def test_an_instance_is_asked_for_by_the_name_that_the_pods_node_has_for_it() -> None:
    asked = {"cpu": "1", "nvidia.com/mig-1g.10gb": 1}
    containers = [{"name": "first"}, {"name": "main", "resources": {"limits": asked, "requests": asked}}]
    ours = plan(devices=("nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "nvidia.com/gpu"))
    made = [manifests.pod(ours, group(containers=containers), rank)["spec"]["containers"] for rank in range(2)]
    renamed = {"cpu": "1", "nvidia.com/gpu": 1}
    assert [one.get("resources") for one in made[0]] == [None, {"limits": renamed, "requests": renamed}]
    assert [one.get("resources") for one in made[1]] == [None, containers[1]["resources"]]


@pytest.mark.parametrize("main_asks", [True, False])
def test_init_containers_and_sidecars_ask_by_the_name_of_the_pods_node_as_well(*, main_asks: bool) -> None:
    """A node without the other name turns the whole pod away."""
    profile = {"resources": {"limits": {"nvidia.com/mig-1g.10gb": 1}}}
    containers, init = [{"name": "main", **(profile if main_asks else {})}], [{"name": "warm", **profile}]
    written = group(containers=containers, initContainers=init)
    made = manifests.pod(plan(devices=("nvidia.com/gpu",) * 3), written, 0)["spec"]
    ours = {"limits": {"nvidia.com/gpu": 1}}
    asked = [made[key][0].get("resources") for key in ("containers", "initContainers")]
    assert asked == [ours if main_asks else None, ours]


def test_an_amount_of_nothing_beside_the_one_that_is_asked_for_changes_nothing() -> None:
    asked = {"nvidia.com/mig-1g.10gb": 1, "nvidia.com/gpu": 0}
    ours = plan(devices=("nvidia.com/gpu",) * 3)
    made = manifests.pod(ours, group(containers=[{"name": "main", "resources": {"limits": asked}}]), 0)["spec"]
    assert made["containers"][0]["resources"] == {"limits": {"nvidia.com/gpu": 1}}
    nothing = {"limits": {"nvidia.com/mig-1g.10gb": 0}}
    made = manifests.pod(ours, group(containers=[{"name": "main", "resources": nothing}]), 0)["spec"]
    assert made["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


@pytest.mark.parametrize("devices", [(), ("", "nvidia.com/gpu", "nvidia.com/gpu")])
def test_an_intent_reads_back_as_it_was_written(devices: tuple[str, ...]) -> None:
    ours = plan(devices=devices)
    read = read_intent(intent_configmap(ours, None, "muster-system"))
    assert read is not None
    assert (read.plan, read.bound) == (ours, False)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: {**c, "data": {}},
        lambda c: {**c, "data": {"plan": "{}"}},
        lambda c: {**c, "metadata": {"labels": {"muster.io/token": "l1.1"}}},
        lambda _: intent_configmap(plan(devices=("nvidia.com/gpu",)), None, "muster-system"),
        lambda _: {},
    ],
    ids=["no data", "another shape", "another token", "a part for some", "nothing"],
)
def test_an_intent_that_cannot_be_trusted_is_none(spoil: Any) -> None:
    assert read_intent(spoil(intent_configmap(plan(), None, "muster-system"))) is None


def test_our_variables_win_over_the_templates_and_others_stay() -> None:
    made = manifests.pod(plan(), group(), 2)
    env = made["spec"]["containers"][0]["env"]
    assert [one for one in env if one["name"] == "MUSTER_RANK"] == [{"name": "MUSTER_RANK", "value": "2"}]
    assert {"name": "A"} in env


def test_a_single_pod_is_its_own_leader_and_has_no_service() -> None:
    single = plan(roles=(PlanRole("worker", 1, 1, 8, 4_000, 8_192),), nodes=("n-1",))
    made = manifests.pod(single, group(), 0)["spec"]
    assert {"name": "MUSTER_LEADER_ADDR", "value": "localhost"} in made["containers"][0]["env"]
    assert "subdomain" not in made
    assert (single.has_service, plan().has_service) == (False, True)


def test_a_template_cannot_bind_its_pods_itself_or_outlive_the_groups_grace() -> None:
    written = group(nodeName="n-9", schedulerName="default-scheduler", terminationGracePeriodSeconds=9_999)
    spec = manifests.pod(plan(), written, 1)["spec"]
    assert "nodeName" not in spec
    assert (spec["schedulerName"], spec["terminationGracePeriodSeconds"], spec["restartPolicy"]) == (
        "muster",
        45,
        "Never",
    )


@pytest.mark.parametrize(("written", "made"), [(None, "Never"), ("OnFailure", "OnFailure")])
def test_a_member_restarts_only_where_the_template_says_so(written: str | None, made: str) -> None:
    assert manifests.pod(plan(), group(restartPolicy=written), 1)["spec"]["restartPolicy"] == made


def test_foreign_finalizers_and_labels_of_a_template_are_kept() -> None:
    written = group(metadata={"finalizers": ["a.io/b"], "labels": {"team": "a", "muster.io/token": "forged"}})
    metadata = manifests.pod(plan(), written, 1)["metadata"]
    assert metadata["finalizers"] == ["a.io/b", "muster.io/outcome"]
    assert metadata["labels"]["team"] == "a"
    assert metadata["labels"]["muster.io/token"] == plan().token


def test_freeing_a_pod_takes_only_our_finalizer() -> None:
    obj = {
        "metadata": {"name": "p", "uid": "u", "finalizers": ["a.io/b", "muster.io/outcome", "c.io/d"]},
        "spec": {"containers": []},
    }
    freed = strategic_patch(obj, manifests.freed(pod_view(obj)))
    assert freed["metadata"]["finalizers"] == ["a.io/b", "c.io/d"]


def packed(**document: Any) -> bytes:
    return zlib.compress(json.dumps(document).encode())


def test_a_spec_becomes_a_group_and_its_request() -> None:
    template = {"spec": {"containers": [{"name": "m", "resources": {"limits": {"nvidia.com/gpu": "4", "cpu": "2"}}}]}}
    spec = read_spec(packed(name="g", roles=[{"count": 3, "template": template}]))
    assert isinstance(spec, Spec)
    assert (spec.request.pods, spec.request.gpus, spec.request.roles[0].cpu_milli) == (3, 12, 2_000)


def test_a_spec_is_read_only_for_who_waits_for_it() -> None:
    intake, answer = (
        Intake(),
        SpecAnswer(ask_id=1, uid="l.1", spec=packed(name="g", roles=[{"template": {"spec": {}}}])),
    )
    assert intake.spec_answered(answer, wanted=False) is None
    assert isinstance(intake.spec_answered(answer, wanted=True), Spec)


@pytest.mark.parametrize(
    "data",
    [b"", b"junk", packed(), packed(name="g", roles=[{"template": {"spec": 3}}]), zlib.compress(b" " * 2_000_000)],
    ids=["empty", "no zlib", "no group", "bad template", "a bomb"],
)
def test_a_spec_that_cannot_be_run_is_refused_with_the_reason(data: bytes) -> None:
    refused = read_spec(data)
    assert isinstance(refused, Because)
    assert refused.reason is Reason.TEMPLATE_REFUSED
    assert refused.detail
