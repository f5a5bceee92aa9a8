"""What is left of a node by its guard's reading: whole GPUs, GPUs that are shared, and instances."""

from __future__ import annotations

from typing import Any

import pytest

from cluster_agents.core.gpus_heard import FAULTS_NOTED_MAX, READINGS_COUNT_FOR_S, GpusHeard, reading_of
from cluster_agents.core.inventory import Inventory
from federation.protocol.gpus import Gpu, GpuInstance
from tests.unit.cluster_agents.test_inventory import inventory, node

SICK = ("xid-48",)
WELL, ILL = Gpu(uuid="w"), Gpu(uuid="i", faults=SICK)


def cut(*profiles: str, faults: tuple[str, ...] = (), sick: tuple[int, ...] = ()) -> Gpu:
    instances = tuple(GpuInstance(at, profile, SICK if at in sick else ()) for at, profile in enumerate(profiles))
    return Gpu(uuid="c", cut=True, faults=faults, instances=instances)


def mig(strategy: str, gpus: str = "0", **allocatable: str) -> Inventory:
    """A node whose GPUs are cut; of capacity nothing is said."""
    product = {"nvidia.com/gpu.product": "H200-MIG-1g.18gb"} if strategy == "single" else {}
    one = node(gpus=gpus, labels={"nvidia.com/mig.strategy": strategy, **product})
    one["status"]["allocatable"] |= {
        f"nvidia.com/mig-{key.replace('_', '.')}": count for key, count in allocatable.items()
    }
    return inventory(one)


def devices(found: Inventory) -> dict[str, int]:
    row = found.row("n-1")
    assert row is not None
    assert all(total == free for _, total, free in row.devices)
    return {kind: total for kind, total, _ in row.devices}


def read(found: Inventory, *gpus: Gpu) -> Inventory:
    found.gpus_read("n-1", gpus, 0.0)
    return found


MIXED: Any = {"1g_18gb": "4", "3g_71gb": "2"}
ONE = ("1g.18gb", "1g.18gb", "3g.71gb")


def test_instances_that_are_well_are_what_the_kubelet_says() -> None:
    found = read(mig("mixed", **MIXED), cut(*ONE), cut(*ONE))
    assert devices(found) == {"1g.18gb": 4, "3g.71gb": 2}


def test_a_gpu_that_is_sick_takes_all_its_instances_along() -> None:
    found = read(mig("mixed", **MIXED), cut(*ONE), cut(*ONE, faults=SICK))
    assert devices(found) == {"1g.18gb": 2, "3g.71gb": 1}


def test_an_instance_that_is_sick_is_missed_alone() -> None:
    found = read(mig("mixed", **MIXED), cut(*ONE), cut(*ONE, sick=(1,)))
    assert devices(found) == {"1g.18gb": 3, "3g.71gb": 2}


def test_an_instance_that_kubelet_and_guard_have_both_given_up_is_missed_once() -> None:
    found = read(mig("mixed", **MIXED | {"1g_18gb": "3"}), cut(*ONE), cut(*ONE, sick=(1,)))
    assert devices(found) == {"1g.18gb": 3, "3g.71gb": 2}


def test_instances_that_go_by_the_name_of_gpus_are_bounded_alike() -> None:
    found = read(mig("single", gpus="4"), cut("1g.18gb", "1g.18gb"), cut("1g.18gb", "1g.18gb", sick=(0,)))
    assert devices(found) == {"1g.18gb": 3}


@pytest.mark.parametrize(
    "gpu",
    [Gpu(uuid="c", cut=True, instances=None), cut("1g.18gb", "")],
    ids=["nothing is told", "a profile is not"],
)
def test_where_nobody_knows_how_gpus_are_cut_the_kubelets_word_stands(gpu: Gpu) -> None:
    found = read(mig("mixed", **MIXED), gpu, cut(*ONE, faults=SICK))
    assert devices(found) == {"1g.18gb": 4, "3g.71gb": 2}


def whole(found: Inventory) -> tuple[int, int]:
    row = found.row("n-1")
    assert row is not None
    return row.gpus_total, found.gpus_unhealthy("n-1")


def test_beside_gpus_that_are_cut_whole_ones_are_counted_by_themselves() -> None:
    found = read(mig("mixed", gpus="2", **MIXED), WELL, ILL, cut(*ONE), cut(*ONE))
    assert (whole(found), devices(found)) == ((1, 1), {"1g.18gb": 4, "3g.71gb": 2})


def test_where_gpus_are_given_away_whole_although_mig_is_on_they_count_as_whole() -> None:
    found = read(mig("none", gpus="3"), cut(), cut(), cut("7g.141gb", faults=SICK))
    assert whole(found) == (2, 1)
    found = read(mig("none", gpus="1"), cut("7g.141gb", sick=(0,)))
    assert whole(found) == (0, 1)


def shared(gpus: str, replicas: str = "4") -> Inventory:
    labels = {
        "nvidia.com/gpu.sharing-strategy": "mps",
        "nvidia.com/gpu.replicas": replicas,
        "nvidia.com/gpu.count": "2",
    }
    return inventory(node(gpus=gpus, labels=labels))


def test_of_gpus_that_are_shared_a_sick_one_takes_all_its_shares_along() -> None:
    assert devices(read(shared("8"), WELL, WELL)) == {"shared/4": 8}
    found = read(shared("8"), WELL, ILL)
    assert (devices(found), whole(found)) == ({"shared/4": 4}, (1, 1))
    assert devices(read(shared("4"), WELL, ILL)) == {"shared/4": 4}


def test_what_a_kubelet_takes_for_unhealthy_is_told_without_a_guard() -> None:
    one = node(gpus="6")
    one["status"]["capacity"] = {"nvidia.com/gpu": "8"}
    assert whole(inventory(one)) == (6, 2)
    one["status"]["capacity"] = {"nvidia.com/gpu": "4"}  # less than allocatable: it says nonsense
    assert whole(inventory(one)) == (6, 0)
    assert inventory(one).gpus_unhealthy("ghost") == 0


# --- how long readings count ------------------------------------------------------------------------------------------


def test_readings_count_for_so_long_each() -> None:
    found = GpusHeard()
    assert found.heard("n-1", reading_of([WELL]), 0.0)
    assert found.heard("n-2", reading_of([WELL]), 5.0)
    assert not found.heard("n-1", reading_of([WELL]), 10.0)
    assert found.due_s == 5.0 + READINGS_COUNT_FOR_S
    assert found.pass_time(4.9 + READINGS_COUNT_FOR_S) == []
    assert found.pass_time(5.0 + READINGS_COUNT_FOR_S) == ["n-2"]
    assert (found.healthy("n-2"), found.healthy("n-1")) == (None, (1, 0, ()))
    found.gone("n-1")
    assert (found.due_s, found.pass_time(1e9)) == (float("inf"), [])


def test_only_so_many_gpus_are_named_in_a_note() -> None:
    sick = [Gpu(uuid=f"g-{number}", faults=SICK) for number in range(FAULTS_NOTED_MAX)]
    assert reading_of(sick).faults == "g-0: xid-48; g-1: xid-48; g-2: xid-48; g-3: xid-48"
    more = reading_of([*sick, cut("1g.18gb", sick=(0,))])
    assert more.faults.endswith("; g-3: xid-48; and 1 more")
    assert reading_of([Gpu(faults=("gpu-lost",))]).faults == "?: gpu-lost"
