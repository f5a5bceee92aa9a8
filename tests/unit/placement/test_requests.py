"""What a pod asks for, read from its template as the scheduler would count it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from placement.model import (
    GPUS_PER_POD_MAX,
    ClusterChoice,
    GangRequest,
    GpuRequest,
    LeaseClass,
    PodGroup,
    Role,
    Topology,
)
from placement.requests import AMOUNT_MAX, TemplateError, check_devices, gang_request, quantity


def container(requests: dict[str, Any] | None = None, limits: dict[str, Any] | None = None, **fields: Any) -> Any:
    return {"name": "main", "resources": {"requests": requests or {}, "limits": limits or {}}, **fields}


def request(spec: dict[str, Any], **role: Any) -> GangRequest:
    return gang_request(PodGroup(name="g", roles=(Role(template={"spec": spec}, **role),)))


def asked(spec: dict[str, Any]) -> tuple[int, int, int]:
    role = request(spec).roles[0]
    return role.cpu_milli, role.memory_mib, role.gpus


@pytest.mark.parametrize(
    ("written", "amount"),
    [
        ("1", Fraction(1)),
        (2, Fraction(2)),
        (0.5, Fraction(1, 2)),
        ("100m", Fraction(1, 10)),
        ("1.5Gi", Fraction(3 * 2**29)),
        ("1e3", Fraction(1000)),
        ("1E", Fraction(10**18)),
        (".5k", Fraction(500)),
        ("12E-1", Fraction(12, 10)),
    ],
)
def test_quantities_are_exact(written: object, amount: Fraction) -> None:
    assert quantity(written, "x") == amount


@pytest.mark.parametrize(
    "written", ["", "-1", "1 Gi", "1Gib", "one", "\u0661", "1\n", True, None, [1], "1" * 65, "nan"]
)
def test_what_is_no_quantity_is_refused(written: object) -> None:
    with pytest.raises(TemplateError):
        quantity(written, "x")


def test_containers_add_up_and_a_limit_stands_for_a_missing_request() -> None:
    spec = {"containers": [container({"cpu": "1"}, {"cpu": "4"}), container(limits={"cpu": "500m", "memory": "1Gi"})]}
    assert asked(spec) == (1500, 1024, 0)


def test_the_largest_init_step_counts_if_it_is_more_than_all_containers() -> None:
    small, large = container({"cpu": "1"}), container({"cpu": "8"})
    assert asked({"containers": [small, small], "initContainers": [large, small]})[0] == 8000
    assert asked({"containers": [large, small], "initContainers": [large]})[0] == 9000


def test_sidecars_run_beside_the_containers_and_the_later_init_steps() -> None:
    sidecar = container({"cpu": "2"}, restartPolicy="Always")
    step, main = container({"cpu": "4"}), container({"cpu": "1"})
    assert asked({"containers": [main], "initContainers": [sidecar, step]})[0] == 6000
    assert asked({"containers": [main], "initContainers": [step, sidecar]})[0] == 4000


def test_overhead_is_added() -> None:
    assert asked({"containers": [container({"memory": "1Gi"})], "overhead": {"memory": "100Mi"}})[1] == 1124


def test_what_the_pod_asks_for_as_a_whole_counts_instead_of_what_its_containers_do() -> None:
    whole = {"requests": {"cpu": "6"}, "limits": {"memory": "8Gi"}}
    assert asked({"containers": [container({"cpu": "1", "memory": "1Gi"})], "resources": whole})[:2] == (6000, 1024)
    assert asked({"containers": [container({})], "resources": whole})[:2] == (6000, 8192)
    assert asked({"containers": [container({})], "resources": whole, "overhead": {"cpu": "1"}})[0] == 7000


def test_part_of_a_unit_counts_as_a_whole_one() -> None:
    assert asked({"containers": [container({"cpu": "1.0001", "memory": "1"})]}) == (1001, 1, 0)


@pytest.mark.parametrize(("gpus", "fits"), [(GPUS_PER_POD_MAX, True), (GPUS_PER_POD_MAX + 1, False)])
def test_gpus_of_one_pod_are_limited(gpus: int, fits: bool) -> None:
    spec = {"containers": [container(limits={"nvidia.com/gpu": gpus})]}
    if fits:
        assert asked(spec)[2] == gpus
    else:
        with pytest.raises(TemplateError, match="at most 16"):
            request(spec)


def test_a_part_of_a_gpu_cannot_be_a_limit() -> None:
    with pytest.raises(TemplateError, match="only whole ones"):
        request({"containers": [container(limits={"nvidia.com/gpu": "0.5"})]})


@pytest.mark.parametrize(("amount", "fits"), [(AMOUNT_MAX, True), (AMOUNT_MAX + 1, False)])
def test_amounts_are_limited(amount: int, fits: bool) -> None:
    spec = {"containers": [container({"memory": f"{amount}Mi"})]}
    if fits:
        assert asked(spec)[1] == amount
    else:
        with pytest.raises(TemplateError, match="more than any node has"):
            request(spec)


def test_gpus_written_beside_the_template_must_agree_with_it() -> None:
    spec = {"containers": [container(limits={"nvidia.com/gpu": 4})]}
    assert request(spec, gpu=GpuRequest(whole=4)).roles[0].gpus == 4
    with pytest.raises(TemplateError, match="says 2 whole GPUs"):
        request(spec, gpu=GpuRequest(whole=2))
    assert request({"containers": []}, gpu=GpuRequest(milli=500)).roles[0].gpu_milli == 500


def test_products_come_from_the_role_or_from_the_node_selector() -> None:
    selecting = {"containers": [], "nodeSelector": {"nvidia.com/gpu.product": "H100"}}
    assert request(selecting).roles[0].products == ("H100",)
    assert request(selecting, products=("B200", "A100")).roles[0].products == ("A100", "B200")


def test_the_group_says_how_it_wants_to_be_placed() -> None:
    group = PodGroup(
        name="g",
        roles=(Role(name="a", count=3, min_count=2, template={}), Role(name="b", count=2, template={})),
        topology=Topology(required="clique", preferred="rack"),
        clusters=ClusterChoice(affinity={"region": ("us", "eu")}, lease_classes=(LeaseClass.FAST,)),
    )
    wanted = gang_request(group)
    assert wanted.min_count == 4
    assert (wanted.level_required, wanted.level_preferred) == ("clique", "rack")
    assert wanted.cluster_labels == (("region", ("eu", "us")),)
    assert wanted.lease_classes == ("fast",)


@pytest.mark.parametrize(
    "template",
    [
        {"spec": []},
        {"spec": {"containers": {}}},
        {"spec": {"containers": ["x"]}},
        {"spec": {"containers": [{"resources": {"requests": 1}}]}},
        {"spec": {"nodeSelector": {"nvidia.com/gpu.product": 7}}},
    ],
)
def test_a_template_of_another_shape_is_refused_by_name(template: dict[str, Any]) -> None:
    with pytest.raises(TemplateError) as caught:
        gang_request(PodGroup(name="g", roles=(Role(template=template),)))
    assert caught.value.field.startswith("roles[0].template.spec")


def test_a_mig_profile_is_read_from_the_template() -> None:
    found = request({"containers": [container(limits={"nvidia.com/mig-1g.5gb.me": "1", "cpu": "2"})]}).roles[0]
    assert (found.mig_profile, found.gpus, found.gpu_milli, found.cpu_milli) == ("1g.5gb+me", 0, 0, 2_000)


def test_a_mig_profile_may_be_written_beside_the_template_that_asks_for_it() -> None:
    spec = {"containers": [container(limits={"nvidia.com/mig-3g.40gb": 1})]}
    assert request(spec, gpu=GpuRequest(mig="3g.40gb")) == request(spec)


@pytest.mark.parametrize(
    ("limits", "gpu", "why"),
    [
        ({"nvidia.com/mig-1g.5gb": 2}, None, "asks for 2 of nvidia.com/mig-1g.5gb, a pod may have 1"),
        (
            {"nvidia.com/mig-1g.5gb": 1, "nvidia.com/mig-2g.10gb": 1},
            None,
            "nvidia.com/mig-1g.5gb and nvidia.com/mig-2g.10gb; a pod may have one kind",
        ),
        ({"nvidia.com/mig-9g.5gb": 1}, None, "nvidia.com/mig-9g.5gb is not nvidia.com/mig-<slices>g.<memory>gb"),
        ({"nvidia.com/mig-1g.5gb.shared": 1}, None, "mig-1g.5gb.shared is not nvidia.com/mig-<slices>g.<memory>gb"),
        ({"nvidia.com/mig-1g.5gb": 1, "nvidia.com/gpu": 1}, None, "says 1 whole GPUs, the template's limits say 1 nv"),
        ({"nvidia.com/mig-1g.5gb": 1}, GpuRequest(milli=500), "says 500 milli of a GPU, the template's limits say"),
        ({"nvidia.com/mig-1g.5gb": 1}, GpuRequest(mig="2g.10gb"), "says MIG profile 2g.10gb, the template's limits"),
    ],
)
def test_a_mig_request_no_pod_may_make_is_refused(limits: dict[str, Any], gpu: GpuRequest | None, why: str) -> None:
    with pytest.raises(TemplateError) as caught:
        request({"containers": [container(limits=limits)]}, gpu=gpu)
    assert caught.value.field == "roles[0].gpu"
    assert why in caught.value.why


def test_two_containers_with_an_instance_each_are_one_too_many() -> None:
    one = container(limits={"nvidia.com/mig-1g.5gb": 1})
    with pytest.raises(TemplateError, match="asks for 2 of"):
        request({"containers": [one, one]})


def test_a_mig_resource_of_none_asks_for_nothing() -> None:
    assert request({"containers": [container(limits={"nvidia.com/mig-1g.5gb": 0})]}).roles[0].mig_profile == ""


@pytest.mark.parametrize(
    ("gpu", "why"),
    [
        (GpuRequest(whole=2), "says 2 whole GPUs, and no container of the template has a limit of nvidia.com/gpu"),
        (
            GpuRequest(mig="1g.5gb+me"),
            "says MIG profile 1g.5gb+me, and no container of the template has a limit of nvidia.com/mig-1g.5gb.me",
        ),
    ],
)
def test_devices_that_no_container_asks_for_would_not_be_given(gpu: GpuRequest, why: str) -> None:
    spec = {"containers": [container(limits={"cpu": 1})]}
    group = PodGroup(name="g", roles=(Role(name="a", template={}), Role(name="b", template={"spec": spec}, gpu=gpu)))
    with pytest.raises(TemplateError) as caught:
        check_devices(group)
    assert (caught.value.field, caught.value.why) == ("roles[1].gpu", why)


@pytest.mark.parametrize(
    ("limits", "gpu"),
    [
        ({"nvidia.com/gpu": 2}, GpuRequest(whole=2)),
        ({"nvidia.com/gpu": 2}, None),
        ({"nvidia.com/mig-1g.5gb": 1}, GpuRequest(mig="1g.5gb")),
        ({}, GpuRequest()),
        ({}, GpuRequest(milli=500)),
        ({}, None),
    ],
)
def test_devices_that_the_template_says_too_are_taken(limits: dict[str, Any], gpu: GpuRequest | None) -> None:
    role = Role(template={"spec": {"containers": [container(limits=limits)]}}, gpu=gpu)
    check_devices(PodGroup(name="g", roles=(role,)))
