"""Node and Pod objects to rows of free capacity."""

from typing import Any

import pytest

from cluster_agents.core import inventory as inventory_module
from cluster_agents.core.config import NODE_LABELS_MAX, AgentConfig
from cluster_agents.core.inventory import Inventory
from cluster_agents.core.pods import Amounts, MalformedObjectError, PodBook, PodChange, pod_view
from placement.model import Taint


def node(name: str = "n-1", *, gpus: str = "8", version: str = "5", **parts: Any) -> dict[str, Any]:
    labels = {"nvidia.com/gpu.product": "A100", "nvidia.com/gpu.clique": "q1", "muster.io/rack": "r1"}
    obj: dict[str, Any] = {
        "metadata": {"name": name, "resourceVersion": version, "labels": labels | parts.get("labels", {})},
        "spec": parts.get("spec", {}),
        "status": {
            "allocatable": {"cpu": "64", "memory": "256Gi", "nvidia.com/gpu": gpus},
            "conditions": [{"type": "Ready", "status": "True"}, *parts.get("conditions", [])],
        },
    }
    return obj


def pod(name: str, *, node: str = "n-1", phase: str = "Running", version: str = "9", **spec: Any) -> dict[str, Any]:
    containers = spec.pop("containers", [container("1", "1Gi", "2")])
    return {
        "metadata": {"name": name, "namespace": "default", "uid": f"u-{name}", "resourceVersion": version},
        "spec": {"nodeName": node, "containers": containers, **spec},
        "status": {"phase": phase},
    }


def container(cpu: str, memory: str, gpus: str = "0", **more: Any) -> dict[str, Any]:
    return {"resources": {"requests": {"cpu": cpu, "memory": memory, "nvidia.com/gpu": gpus}}, **more}


def inventory(*nodes: dict[str, Any]) -> Inventory:
    found = Inventory(AgentConfig(cluster="c-1", boot_nonce="b"))
    for one in nodes or (node(),):
        found.put_node(one)
    return found


def test_a_row_says_what_the_node_has_and_where_it_stands() -> None:
    row = inventory().row("n-1")
    assert row is not None
    assert (row.product, row.gpus_total, row.gpus_free, row.cpu_milli_free, row.memory_mib_free) == (
        "A100",
        8,
        8,
        64_000,
        262_144,
    )
    assert (row.clique, row.rack, row.zone, row.usable) == ("q1", "r1", "", True)


def test_a_node_takes_so_many_pods_less_those_of_others_and_of_gangs() -> None:
    small = node()
    small["status"]["allocatable"]["pods"] = "4"
    found, book = inventory(small, node("n-2")), PodBook()
    for phase, left in (("Running", 3), ("Succeeded", 4)):
        found.pod_changed(book.put(pod_view(pod("stranger", phase=phase, version=f"{left}"))) or unchanged())
        assert found.pods_left("n-1") == left
    found.hold({"n-1": Amounts(devices=(("pods", 3),))})
    assert found.pods_left("n-1") == 1
    assert found.pods_left("n-2") > 1_000  # it does not say
    assert found.pods_left("gone") == 0


def test_devices_that_are_reserved_or_ill_do_not_count() -> None:
    ill = node(gpus="6")
    ill["status"]["capacity"] = {"cpu": "64", "memory": "256Gi", "nvidia.com/gpu": "8"}
    row = inventory(ill).row("n-1")
    assert row is not None
    assert (row.gpus_total, row.gpus_free) == (6, 6)


def test_other_peoples_pods_and_our_holdings_are_subtracted_and_given_back() -> None:
    found, book = inventory(), PodBook()
    change = book.put(pod_view(pod("stranger")))
    assert change is not None
    found.pod_changed(change)
    found.hold({"n-1": Amounts(1_000, 1_024, 4)})
    row = found.row("n-1")
    assert row is not None
    assert (row.gpus_free, row.cpu_milli_free, row.memory_mib_free) == (2, 62_000, 260_096)
    ended = book.put(pod_view(pod("stranger", phase="Succeeded", version="10")))
    assert ended is not None
    found.pod_changed(ended)
    found.release({"n-1": Amounts(1_000, 1_024, 4)})
    row = found.row("n-1")
    assert row is not None
    assert row.gpus_free == 8
    found.check_invariants()


def test_giving_back_more_than_was_held_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        inventory().release({"n-1": Amounts(0, 0, 1)})


def test_free_is_never_negative_when_a_gpu_dies_under_its_pods() -> None:
    found = inventory()
    found.hold({"n-1": Amounts(0, 0, 8)})
    found.put_node(node(gpus="6", version="6"))
    row = found.row("n-1")
    assert row is not None
    assert (row.gpus_total, row.gpus_free) == (6, 0)
    found.table().check_invariants()


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"spec": {"unschedulable": True}}, "cordoned"),
        ({"spec": {"taints": [{"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"}]}}, "in a bad state"),
        ({"conditions": [{"type": "GpuNvlinkWatch", "status": "True"}]}, "a GPU fault"),
        ({"conditions": [{"type": "Ready", "status": "Unknown"}]}, "not ready"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nodes_that_may_take_nothing_new_are_not_usable(parts: dict[str, Any], why: str) -> None:
    row = inventory(node(**parts)).row("n-1")
    assert row is not None
    assert not row.usable, why


def test_the_usual_gpu_taint_and_a_preference_keep_nobody_away() -> None:
    taints = [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}, {"key": "x", "effect": "PreferNoSchedule"}]
    row = inventory(node(spec={"taints": taints})).row("n-1")
    assert row is not None
    assert row.usable


def test_a_row_names_the_taints_that_a_pod_may_tolerate() -> None:
    taints = [
        {"key": "team", "value": "vision", "effect": "NoExecute"},
        {"key": "spot", "effect": "NoSchedule"},
        {"key": "nvidia.com/gpu", "effect": "NoSchedule"},
    ]
    row = inventory(node(spec={"taints": taints})).row("n-1")
    assert row is not None
    assert (row.usable, row.taints) == (True, (Taint("spot", "", "NoSchedule"), Taint("team", "vision", "NoExecute")))


def test_a_row_names_the_labels_by_which_pods_usually_choose_and_ours() -> None:
    labels = {"node.kubernetes.io/instance-type": "p5", "muster.io/tier": "gold", "someone/else": "x"}
    row = inventory(node(labels=labels)).row("n-1")
    assert row is not None
    assert row.labels == (("muster.io/tier", "gold"), ("node.kubernetes.io/instance-type", "p5"))


@pytest.mark.parametrize(("more", "kept"), [(0, NODE_LABELS_MAX), (1, NODE_LABELS_MAX)])
def test_a_row_names_so_many_labels_at_most(more: int, kept: int) -> None:
    row = inventory(node(labels={f"muster.io/l{number:02}": "v" for number in range(NODE_LABELS_MAX + more)})).row(
        "n-1"
    )
    assert row is not None
    assert [key for key, _ in row.labels] == [f"muster.io/l{number:02}" for number in range(kept)]


def test_a_time_sliced_node_counts_physical_gpus_and_gives_none_away_whole() -> None:
    labels = {"nvidia.com/gpu.sharing-strategy": "time-slicing", "nvidia.com/gpu.count": "8"}
    row = inventory(node(gpus="80", labels=labels)).row("n-1")
    assert row is not None
    assert (row.gpus_total, row.gpus_free) == (8, 0)


def test_replicas_are_not_whole_gpus_even_where_no_strategy_is_named() -> None:
    row = inventory(node(gpus="32", labels={"nvidia.com/gpu.replicas": "4", "nvidia.com/gpu.count": "8"})).row("n-1")
    assert row is not None
    assert (row.gpus_total, row.gpus_free) == (8, 0)
    row = inventory(node(labels={"nvidia.com/gpu.replicas": "1", "nvidia.com/gpu.count": "8"})).row("n-1")
    assert row is not None
    assert row.gpus_free == 8


def test_instances_under_the_name_of_whole_gpus_are_counted_by_the_profile_that_the_product_names() -> None:
    sliced = {"nvidia.com/mig.strategy": "single", "nvidia.com/gpu.product": "A100-SXM4-40GB-MIG-1g.5gb.me"}
    found = inventory(node(gpus="56", labels={**sliced, "nvidia.com/gpu.count": "56"}))
    found.pod_changed(PodBook().put(pod_view(pod("other", containers=[asks(gpu="3")]))) or unchanged())
    found.hold({"n-1": Amounts(gpus=2)})
    row = found.row("n-1")
    assert row is not None
    assert (row.gpus_total, row.gpus_free, row.devices) == (0, 0, (("1g.5gb+me", 56, 51),))
    assert found.resource_of("n-1", "1g.5gb+me") == "nvidia.com/gpu"
    for odd in ({"nvidia.com/gpu.product": "A100-MIG-huge"}, {"nvidia.com/gpu.sharing-strategy": "mps"}):
        row = inventory(node(gpus="56", labels={**sliced, "nvidia.com/gpu.count": "56", **odd})).row("n-1")
        assert row is not None
        assert (row.gpus_total, row.gpus_free, row.devices) == (0, 0, ())


def test_gpus_that_are_not_cut_are_whole_whatever_the_strategy_is() -> None:
    uncut = {"nvidia.com/mig.strategy": "single", "nvidia.com/gpu.product": "A100-SXM4-40GB"}
    row = inventory(node(labels=uncut)).row("n-1")
    assert row is not None
    assert row.gpus_free == 8


def sharing(*, gpus: str = "32", **labels: str) -> dict[str, Any]:
    """A node of 8 GPUs that four pods share each."""
    told = {"sharing-strategy": "time-slicing", "count": "8", "replicas": "4", **labels}
    return node(gpus=gpus, labels={f"nvidia.com/gpu.{key}": value for key, value in told.items()})


def asks(**resources: str) -> dict[str, Any]:
    named = {key.replace("__", "."): value for key, value in resources.items()}
    return {
        "resources": {"limits": {f"nvidia.com/{key.replace('mig_', 'mig-')}": value for key, value in named.items()}}
    }


def test_replicas_are_counted_by_how_many_share_a_gpu_and_those_in_use_are_not_free() -> None:
    found = inventory(sharing())
    found.pod_changed(PodBook().put(pod_view(pod("other", containers=[asks(gpu="3")]))) or unchanged())
    found.hold({"n-1": Amounts(gpus=2)})
    row = found.row("n-1")
    assert row is not None
    assert (row.devices, row.gpus_free) == ((("shared/4", 32, 27),), 0)
    assert found.resource_of("n-1", "shared/4") == "nvidia.com/gpu"


def test_replicas_are_counted_under_the_name_that_the_plug_in_gives_them() -> None:
    renamed = sharing(gpus="0")
    renamed["status"]["allocatable"]["nvidia.com/gpu.shared"] = "32"
    found = inventory(renamed)
    found.hold({"n-1": Amounts(devices=(("nvidia.com/gpu.shared", 5),))})
    row = found.row("n-1")
    assert row is not None
    assert row.devices == (("shared/4", 32, 27),)
    assert found.resource_of("n-1", "shared/4") == "nvidia.com/gpu.shared"
    found.release({"n-1": Amounts(devices=(("nvidia.com/gpu.shared", 5),))})
    assert found.held() == {}


@pytest.mark.parametrize(
    "labels",
    [
        {"replicas": "1"},
        {"replicas": ""},
        {"product": "A100-MIG-1g.5gb"} | {"sharing-strategy": "none"},
    ],
    ids=["one replica", "not told", "slices under the name of GPUs"],
)
def test_what_nobody_knows_the_size_of_is_given_to_nobody(labels: dict[str, str]) -> None:
    obj = sharing(**labels)
    obj["metadata"]["labels"]["nvidia.com/mig.strategy"] = "single"
    row = inventory(obj).row("n-1")
    assert row is not None
    assert row.devices == ()


def test_instances_are_counted_by_profile_beside_whole_gpus() -> None:
    cut = node(gpus="4")
    cut["status"]["allocatable"] |= {"nvidia.com/mig-1g.10gb": "7", "nvidia.com/mig-1g.10gb.me": "1"}
    found = inventory(cut)
    found.pod_changed(PodBook().put(pod_view(pod("other", containers=[asks(mig_1g__10gb="3")]))) or unchanged())
    row = found.row("n-1")
    assert row is not None
    assert row.devices == (("1g.10gb", 7, 4), ("1g.10gb+me", 1, 1))
    assert row.gpus_free == 4


def test_instances_that_pods_share_are_given_to_nobody() -> None:
    cut = node(labels={"nvidia.com/mig-1g.10gb.replicas": "2"})
    cut["status"]["allocatable"]["nvidia.com/mig-1g.10gb"] = "14"
    row = inventory(cut).row("n-1")
    assert row is not None
    assert row.devices == ()


def test_more_parts_than_were_held_are_never_given_back() -> None:
    with pytest.raises(AssertionError, match="more was given back"):
        inventory().release({"n-1": Amounts(devices=(("nvidia.com/mig-1g.10gb", 1),))})


def unchanged() -> PodChange:
    raise AssertionError("the pod is new")


def test_a_node_is_proven_dead_by_its_absence_or_its_operator_only() -> None:
    unreachable = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}
    out_of_service = {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}
    found = inventory(node("a", spec={"taints": [unreachable]}), node("b", spec={"taints": [out_of_service]}))
    assert [found.proven_dead(name) for name in ("a", "b", "never-seen")] == [False, True, True]


def test_only_changed_rows_are_reported_and_each_once() -> None:
    found = inventory(node("a"), node("b"))
    assert [row.name for row in found.take_all()] == ["a", "b"]
    found.put_node(node("b", version="6"))
    assert not found.unreported, "an equal node is no change"
    found.put_node(node("b", gpus="7", version="7"))
    found.drop_node("a")
    rows, gone = found.take_changes()
    assert ([row.name for row in rows], gone) == (["b"], ["a"])
    assert not found.unreported


def test_an_older_version_of_a_node_is_ignored() -> None:
    found = inventory(node(gpus="8", version="9"))
    found.put_node(node(gpus="4", version="7"))
    row = found.row("n-1")
    assert row is not None
    assert row.gpus_total == 8


def test_the_table_follows_the_rows() -> None:
    found = inventory(node("a"), node("b"))
    assert found.table().gpus_free.tolist() == [8, 8]
    found.hold({"b": Amounts(0, 0, 3)})
    found.drop_node("a")
    assert found.table().names == ("b",)
    assert found.table().gpus_free.tolist() == [5]


def test_pod_amounts_count_init_steps_sidecars_and_overhead_as_the_scheduler_does() -> None:
    view = pod_view(
        pod(
            "p",
            containers=[container("1", "1Gi", "1"), container("500m", "1536Mi")],
            initContainers=[
                container("1", "1Gi", restartPolicy="Always"),
                container("4", "1Gi"),
            ],
            overhead={"cpu": "100m", "memory": "64Mi"},
        )
    )
    assert view.amounts == Amounts(5_100, 3_648, 1)


def test_limits_stand_for_requests_that_are_absent() -> None:
    limits = {"resources": {"limits": {"cpu": "2", "memory": "1000", "nvidia.com/gpu": "4"}}}
    assert pod_view(pod("p", containers=[limits])).amounts == Amounts(2_000, 1, 4)


@pytest.mark.parametrize("junk", [{}, {"metadata": {"name": "x"}}, {"metadata": "no"}, {"metadata": {"uid": 3}}])
def test_objects_without_identity_are_malformed(junk: dict[str, Any]) -> None:
    with pytest.raises(MalformedObjectError):
        pod_view(junk)


def test_nonsense_inside_an_object_reads_as_nothing() -> None:
    view = pod_view(pod("p", containers=[{"resources": {"requests": {"cpu": "lots", "memory": []}}}, 7]))
    assert view.amounts == Amounts(0, 0, 0)


def test_a_node_above_the_limit_takes_nothing_and_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet of 5,000 has more for a moment when nodes are replaced: what runs on those must not count as over."""
    monkeypatch.setattr(inventory_module, "NODES_PER_CLUSTER_MAX", 2)
    found = inventory(node("n-1"), node("n-2"), node("n-3"))
    assert (found.row("n-2") is None, found.row("n-3") is None) == (False, True)
    assert [found.proven_dead(name) for name in ("n-2", "n-3", "n-4")] == [False, False, True]
    assert found.nodes() == ["n-1", "n-2", "n-3"]
    assert found.drop_node("n-3"), "whoever has a pod there is to look again"
    assert found.proven_dead("n-3")


def test_a_node_above_the_limit_is_taken_in_once_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory_module, "NODES_PER_CLUSTER_MAX", 1)
    found = inventory(node("n-1"), node("n-2"))
    found.drop_node("n-1")
    assert found.put_node(node("n-2", version="6"))
    assert found.nodes() == ["n-2"]
    assert found.row("n-2") is not None
    found.drop_node("n-2")
    assert found.proven_dead("n-2")
