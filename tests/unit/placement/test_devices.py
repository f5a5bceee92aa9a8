"""Parts of GPUs: what suits whom, how they are counted per node, and what they cost a quota."""

from __future__ import annotations

from fractions import Fraction

import pytest

from placement.assign import assign
from placement.assignment import Assignment, Part
from placement.devices import (
    KINDS_PER_CLUSTER_MAX,
    KINDS_PER_NODE_MAX,
    Device,
    gpus_worth,
    joined,
    replicas_of,
    suits,
    well_told,
)
from placement.engine import decide
from placement.fleet import NodeRow, NodeTable, UnknownDeviceError
from placement.model import GangRequest, NodeName
from placement.quota import gpus_charged
from placement.score import DEFAULT_POLICY
from tests.builders import BUDGET, cluster, fleet, gang, node, request, role, table

CUT = (("1g.10gb", 7, 7), ("3g.40gb", 1, 1))


def cut(name: str, **free: int) -> NodeRow:
    """A node of instances and replicas, all of them free: `cut("a", mig_1g_10gb=3, shared_4=8)`."""
    kinds = {
        key.replace("mig_", "").replace("_", "/" if "shared" in key else "."): count for key, count in free.items()
    }
    return node(name, gpus=0)._replace(product="A100", devices=tuple((kind, n, n) for kind, n in kinds.items()))


def small(pods: int = 1) -> GangRequest:
    return request(role(pods=pods, gpus=0, mig_profile="1g.10gb"))


def share(milli: int, pods: int = 1) -> GangRequest:
    return request(role(pods=pods, gpus=0, gpu_milli=milli))


@pytest.mark.parametrize(
    ("kind", "asked", "whether"),
    [
        ("1g.10gb", Device("1g.10gb"), True),
        ("1g.10gb+me", Device("1g.10gb"), False),
        ("2g.20gb", Device("1g.10gb"), False),
        ("shared/4", Device(milli=250), True),
        ("shared/4", Device(milli=251), False),
        ("shared/4", Device(milli=1), True),
        ("shared/2", Device(milli=500), True),
        ("shared/3", Device(milli=333), True),
        ("shared/3", Device(milli=334), False),
        ("shared/1", Device(milli=500), False),
        ("shared/04", Device(milli=1), False),
        ("1g.10gb", Device(milli=1), False),
    ],
)
def test_an_instance_suits_its_profile_and_a_replica_every_share_that_it_covers(
    kind: str, asked: Device, whether: bool
) -> None:
    assert suits(kind, asked) is whether


@pytest.mark.parametrize(
    ("kind", "replicas"), [("shared/4", 4), ("shared/0", None), ("1g.10gb", None), ("shared/", None)]
)
def test_replicas_are_read_from_the_kind(kind: str, replicas: int | None) -> None:
    assert replicas_of(kind) == replicas


def test_shares_on_one_node_are_as_many_replicas_of_which_each_covers_the_largest() -> None:
    asked = [(Device(milli=100), 2), (Device("1g.10gb"), 1), (Device(milli=250), 3), (Device("1g.10gb"), 4)]
    assert joined(asked) == ((Device(milli=250), 5), (Device("1g.10gb"), 5))


def test_a_node_shares_its_gpus_in_one_way_and_has_no_more_kinds_than_the_limit() -> None:
    profiles = [(f"1g.{gb}gb", 1, 1) for gb in range(10, 10 + KINDS_PER_NODE_MAX)]
    assert len(list(well_told(profiles))) == KINDS_PER_NODE_MAX
    assert len(list(well_told([*profiles, ("7g.80gb", 1, 1)]))) == KINDS_PER_NODE_MAX
    assert list(well_told([("shared/4", 8, 8), ("shared/2", 4, 4)])) == [("shared/2", 4, 4)]


def test_instances_are_taken_from_the_node_that_has_the_fewest_left() -> None:
    where = table(cut("a", mig_1g_10gb=7), cut("b", mig_1g_10gb=3), cut("c", mig_2g_20gb=1))
    found = assign(where, small(pods=4))
    assert isinstance(found, Assignment)
    assert found.parts == (Part("worker", NodeName("a"), 1), Part("worker", NodeName("b"), 3))


def test_what_is_taken_is_taken_of_its_own_kind_and_given_back() -> None:
    where = table(cut("a", mig_1g_10gb=2, mig_3g_40gb=1), cut("b", shared_4=8))
    before = list(where.rows())
    both = request(role("x", pods=2, gpus=0, mig_profile="1g.10gb"), role("y", pods=3, gpus=0, gpu_milli=200))
    found = assign(where, both)
    assert isinstance(found, Assignment)
    undo = where.take(found)
    assert [row.devices for row in where.rows()] == [(("1g.10gb", 2, 0), ("3g.40gb", 1, 1)), (("shared/4", 8, 5),)]
    assert not isinstance(assign(where, small()), Assignment)
    undo()
    assert list(where.rows()) == before


def test_larger_shares_come_first_where_few_nodes_can_give_them() -> None:
    where = table(cut("a", shared_2=2), cut("b", shared_4=2))
    found = assign(where, request(role("x", pods=2, gpus=0, gpu_milli=100), role("y", pods=2, gpus=0, gpu_milli=500)))
    assert isinstance(found, Assignment)
    assert found.parts == (Part("x", NodeName("b"), 2), Part("y", NodeName("a"), 2))


def test_all_shares_of_a_gang_on_one_host_need_a_host_that_covers_the_largest() -> None:
    where = table(cut("a", shared_4=8), cut("b", shared_2=4))
    both = request(role("x", pods=2, gpus=0, gpu_milli=100), role("y", gpus=0, gpu_milli=500), level_required="host")
    found = assign(where, both)
    assert isinstance(found, Assignment)
    assert found.nodes == ("b",)
    where.take(found)
    assert [row.devices[0][2] for row in where.rows()] == [8, 1]


def test_an_assignment_of_another_state_is_not_taken_where_the_node_was_cut_otherwise() -> None:
    found = assign(table(cut("a", mig_1g_10gb=2)), small())
    assert isinstance(found, Assignment)
    recut = table(cut("a", mig_2g_20gb=2))
    with pytest.raises(UnknownDeviceError, match=r"node 'a' has no instances of 1g\.10gb"):
        recut.take(found)


def test_a_table_learns_a_new_kind_and_forgets_what_is_no_longer_there() -> None:
    where = table(cut("a", mig_1g_10gb=7), node("b"))
    recut = where.with_changes([cut("a", mig_3g_40gb=2)])
    assert [row.devices for row in recut.rows()] == [(("3g.40gb", 2, 2),), ()]
    assert where.with_changes([cut("a", mig_1g_10gb=3)]).layout is where.layout
    assert recut.layout is not where.layout


def test_counts_out_of_bounds_are_cut_and_the_node_is_named() -> None:
    where = NodeTable.build([cut("a")._replace(devices=(("1g.10gb", 2, 3), ("3g.40gb", 2**70, -(2**70))))])
    assert [row.devices for row in where.rows()] == [(("1g.10gb", 2, 2), ("3g.40gb", 4096, 0))]
    assert where.clamped == {"a"}


def test_whole_gpus_are_no_parts_and_parts_no_whole_gpus() -> None:
    assert not isinstance(assign(table(cut("a", mig_7g_80gb=8, shared_2=16)), request(role(gpus=1))), Assignment)
    assert not isinstance(assign(table(node("a")), share(100)), Assignment)


@pytest.mark.parametrize(
    ("device", "worth"),
    [
        (Device("1g.10gb"), Fraction(1, 7)),
        (Device("3g.40gb+me"), Fraction(3, 7)),
        (Device("7g.80gb"), Fraction(1)),
        (Device("1g.6gb"), Fraction(1, 4)),
        (Device("4g.24gb"), Fraction(1)),
        (Device("1g.99gb"), Fraction(1, 7)),
        (Device(milli=250), Fraction(1, 4)),
    ],
)
def test_a_part_is_worth_its_share_of_the_compute(device: Device, worth: Fraction) -> None:
    assert gpus_worth(device) == worth


def test_parts_are_charged_by_role_and_rounded_up_to_whole_gpus() -> None:
    asked = request(
        role("x", pods=8, gpus=0, mig_profile="1g.10gb", products=("A100",)),
        role("y", pods=4, gpus=0, gpu_milli=250, products=("T4",)),
        role("z", pods=1, gpus=4, products=("A100",)),
    )
    assert {line: gpus_charged(asked, line) for line in ("A100", "T4", "*")} == {"A100": 6, "T4": 1, "*": 7}


def test_what_the_engine_chose_is_taken_from_other_tables_of_the_cluster_with_parts_or_without() -> None:
    where = cluster("eu", node("a", gpus=4), cut("b", mig_1g_10gb=2, shared_4=8))
    mixed = request(role("x", gpus=0, mig_profile="1g.10gb"), role("y", gpus=1))
    items = [gang("whole", gpus=2), gang("small", roles=small(pods=1).roles), gang("mixed", roles=mixed.roles)]
    plan = decide(fleet(where), items, policy=DEFAULT_POLICY, budget=BUDGET)
    assert [place.uid for place in plan.decisions] == ["whole", "mixed", "small"]
    table_of_the_placer = where.table.copy()
    for place in plan.decisions:
        assert place.choice is not None
        table_of_the_placer.take_rows(place.choice.nodes, place.choice.amounts)
    left = {row.name: (row.gpus_free, row.devices) for row in table_of_the_placer.rows()}
    assert left == {"a": (1, ()), "b": (0, (("1g.10gb", 2, 0), ("shared/4", 8, 8)))}


def test_slices_on_instances_stand_in_one_rack_each() -> None:
    racks = [cut(f"{rack}{at}", mig_1g_10gb=3)._replace(rack=rack) for rack in "xy" for at in range(2)]
    sliced = role(pods=8, gpus=0, mig_profile="1g.10gb", level_required="rack", slice_pods=4)
    found = assign(table(racks), request(sliced))
    assert isinstance(found, Assignment)
    racks_of = [pod.node[0] for pod in found.pods]
    assert [len(set(racks_of[:4])), len(set(racks_of[4:]))] == [1, 1]
    where = table(racks)
    where.take(found)
    where.check_invariants()
    because = assign(
        table(racks), request(role(pods=12, gpus=0, mig_profile="1g.10gb", level_required="rack", slice_pods=4))
    )
    unit = "slices of 4 pods of 1 instances of 1g.10gb, each in one rack"
    assert str(because[0]) == f"NoDomainLargeEnough: needs 3 {unit}, best is 2 (role worker)"


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_cluster_tells_so_many_kinds_and_those_beyond_are_left_out(beyond: int) -> None:
    kinds = [f"1g.{gib:03}gb" for gib in range(KINDS_PER_CLUSTER_MAX + beyond)]
    rows = [node(f"n{kind}", gpus=0)._replace(devices=((kind, 7, 3),)) for kind in kinds]
    first, *others = rows
    grown = NodeTable.build([first]).with_changes(others)
    assert grown.layout.kinds == tuple(kinds[:KINDS_PER_CLUSTER_MAX])
    told = [row.devices for row in rows]
    assert [row.devices for row in grown.rows()] == [*told[:KINDS_PER_CLUSTER_MAX], *[()] * beyond]
    grown.check_invariants()
