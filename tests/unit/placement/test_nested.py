"""Roles and slices with levels of their own: exact on tiny fleets, bounded on large ones, and always explained."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.assign import assign
from placement.assignment import Assignment
from placement.change import smallest_change
from placement.fleet import Fleet, NodeRow, NodeTable, shape_of
from placement.model import GangRequest, PodGroup, RoleRequest
from placement.nested import STEPS_MAX, allotments, place_nested, slices_of
from placement.pod_templates import TemplateError
from placement.request_class import request_class
from placement.requests import gang_request
from tests.builders import cluster, gang, node, pod_group, request, role, table

checked = settings(deadline=None, max_examples=60, derandomize=True)

BLOCK = (
    node("a1", rack="r1", block="b1"),
    node("a2", rack="r1", block="b1"),
    node("a3", rack="r2", block="b1", free=4),
    node("a4", rack="r2", block="b1", free=4),
)


def said(rows: tuple[NodeRow, ...], asked: GangRequest) -> str:
    """The first reason why it does not fit."""
    answer = assign(table(*rows), asked)
    assert not isinstance(answer, Assignment)
    return str(answer[0])


def nodes_of(rows: tuple[NodeRow, ...], asked: GangRequest) -> dict[str, dict[str, int]]:
    """Pods by node, role by role."""
    answer = assign(table(*rows), asked)
    assert isinstance(answer, Assignment)
    found: dict[str, dict[str, int]] = {}
    for part in answer.parts:
        found.setdefault(part.role, {})[part.node] = part.pods
    return found


# --- what is taken ----------------------------------------------------------------------------------------------------


def test_a_role_stands_in_the_tightest_domain_of_its_level() -> None:
    asked = request(role(pods=2, gpus=4, level_required="rack"), level_required="block")
    assert nodes_of(BLOCK, asked) == {"worker": {"a3": 1, "a4": 1}}


def test_a_role_that_finds_no_domain_makes_the_one_before_it_try_its_next() -> None:
    """The tightest host of the first role stands in the only rack of the second one."""
    small = role("small", pods=1, gpus=8, cpu_milli=1, level_required="host")
    wide = role("wide", pods=2, gpus=8, level_required="rack")
    rows = (node("a1", rack="r1"), node("a2", rack="r1"), node("z", gpus=16))
    assert nodes_of(rows, request(small, wide)) == {"small": {"z": 1}, "wide": {"a1": 1, "a2": 1}}


def test_a_large_pod_that_may_stand_anywhere_leaves_the_only_rack_to_the_role_that_needs_one() -> None:
    asked = request(role("driver", gpus=8), role("worker", pods=4, gpus=4, level_required="rack"))
    rows = (node("a1", rack="r1"), node("a2", rack="r1"), node("z"))
    assert nodes_of(rows, asked) == {"driver": {"z": 1}, "worker": {"a1": 2, "a2": 2}}


def test_pods_of_a_slice_are_neighbours_in_rank() -> None:
    rows = (
        node("n1", free=3, clique="c1", rack="r1"),
        node("n2", free=3, clique="c2", rack="r2"),
        node("n3", free=3, clique="c3", rack="r1"),
        node("n4", free=3, clique="c4", rack="r2"),
    )
    answer = assign(table(*rows), request(role(pods=8, gpus=1, level_required="rack", slice_pods=4)))
    assert isinstance(answer, Assignment)
    assert [pod.node for pod in answer.pods[:4]] == ["n1", "n1", "n1", "n3"]
    assert [pod.node for pod in answer.pods[4:]] == ["n2", "n2", "n2", "n4"]


def test_slices_of_pods_with_mig_instances_stand_on_one_host_each() -> None:
    rows = tuple(node(name)._replace(devices=(("1g.10gb", 7, free),)) for name, free in (("a", 7), ("b", 3), ("c", 4)))
    asked = request(role(pods=8, gpus=0, mig_profile="1g.10gb", level_required="host", slice_pods=4))
    assert nodes_of(rows, asked) == {"worker": {"a": 4, "c": 4}}


def test_a_role_that_cannot_have_the_level_it_prefers_is_tried_at_its_wider_ones() -> None:
    asked = request(
        role("a", pods=3, gpus=4, level_preferred="host"),
        role("b", pods=2, gpus=4, level_preferred="host"),
        level_required="block",
    )
    answer = assign(table(*BLOCK), asked)
    assert isinstance(answer, Assignment)
    assert nodes_of(BLOCK, asked) == {"a": {"a2": 1, "a3": 1, "a4": 1}, "b": {"a1": 2}}
    assert not answer.preferred_met


def test_preferences_are_met_when_every_role_has_its_own() -> None:
    asked = request(role("a", pods=2, gpus=4, level_preferred="host"), level_required="block")
    answer = assign(table(*BLOCK), asked)
    assert isinstance(answer, Assignment)
    assert answer.preferred_met


def test_who_prefers_nothing_has_no_preference_met() -> None:
    answer = assign(table(*BLOCK), request(role(pods=1, gpus=4, level_required="host")))
    assert isinstance(answer, Assignment)
    assert not answer.preferred_met


def test_no_nested_gang_is_answered_by_counting() -> None:
    assert not request_class(request(role(pods=2, gpus=1, level_required="host"))).quick
    assert request_class(request(role(pods=2, gpus=1))).quick


# --- why not ----------------------------------------------------------------------------------------------------------


def test_a_refusal_names_the_role_its_level_what_it_needs_and_the_best() -> None:
    asked = request(role("leader", gpus=1), role("decode", pods=3, gpus=8, level_required="rack"), level_required="")
    rows = (*BLOCK, node("a5", rack="r2", block="b1"))
    assert said(rows, asked) == ("NoDomainLargeEnough: needs 24 free GPUs in one rack, best is 16 (role decode)")


def test_a_refusal_counts_slices() -> None:
    asked = request(role(pods=12, gpus=2, level_required="host", slice_pods=3), level_required="block")
    assert said(BLOCK, asked) == (
        "NoDomainLargeEnough: needs 4 slices of 3 pods of 2 GPUs, each in one host, best is 2 (role worker)"
    )


def test_a_refusal_says_that_roles_fit_one_by_one_only() -> None:
    asked = request(
        role("a", pods=2, gpus=8, level_required="rack"),
        role("b", pods=1, gpus=8, level_required="host"),
        level_required="block",
    )
    rows = (*BLOCK, node("z1", free=4, rack="r3", block="b1"), node("z2", free=4, rack="r3", block="b1"))
    assert said(rows, asked).startswith("TooFragmented")


def test_a_refusal_says_that_no_node_has_the_level() -> None:
    asked = request(role(gpus=1, level_required="rack"))
    assert said((node("a"),), asked) == "NoDomainLargeEnough (no node is in a rack, which role worker requires)"


def test_cpu_that_is_missing_for_slices_is_told() -> None:
    rows = tuple(node(name)._replace(cpu_milli_free=5_000) for name in ("a", "b", "c", "d"))
    asked = request(role(pods=4, gpus=1, cpu_milli=3_000, level_required="host", slice_pods=2))
    assert said(rows, asked) == (
        "InsufficientCpu: needs 2 slices of 2 pods of 1 GPUs, each in one host, best is 0 (role worker)"
    )


def test_the_smallest_change_says_what_lacks_where_the_gang_could_ever_fit() -> None:
    item = gang("g", roles=(role(pods=4, gpus=4, level_required="host", slice_pods=2),))
    busy = Fleet([cluster("c-1", node("a"), node("b", free=4), node("c", free=4))])
    assert smallest_change(busy, item) == (
        "make room in c-1 (NoDomainLargeEnough: needs 2 slices of 2 pods of 4 GPUs, each in one host, best is 1 "
        "(role worker))"
    )


# --- what people write ------------------------------------------------------------------------------------------------


def written(role_topology: dict[str, object], **fields: object) -> PodGroup:
    one = pod_group("train").roles[0].model_dump()
    return pod_group("train", roles=[{**one, "count": 4, "topology": role_topology}], **fields)


def test_levels_of_a_role_reach_its_request() -> None:
    (asked,) = gang_request(written({"required": "host", "slice": 2}, topology={"required": "block"})).roles
    assert (asked.level_required, asked.level_preferred, asked.slice_pods) == ("host", "", 2)


@pytest.mark.parametrize("field", ["required", "preferred"])
def test_a_level_wider_than_the_groups_is_refused_by_name(field: str) -> None:
    with pytest.raises(TemplateError, match="block is wider than rack") as caught:
        gang_request(written({field: "block"}, topology={"required": "rack"}))
    assert caught.value.field == f"roles[0].topology.{field}"


def test_a_level_as_wide_as_the_groups_is_taken_also_by_its_label() -> None:
    group = written({"required": "topology.kubernetes.io/zone"}, topology={"required": "zone"})
    assert gang_request(group).nested


@pytest.mark.parametrize(
    ("topology", "says"),
    [
        pytest.param({"required": "host", "slice": 3}, "count 4 is no multiple of slice 3", id="pods left over"),
        pytest.param({"slice": 2}, "slices are of a level", id="no level"),
        pytest.param({"required": "host", "slice": 0}, "greater than or equal to 1", id="no pods"),
    ],
)
def test_slices_that_cannot_be_are_refused(topology: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        written(topology)


# --- against every way there is ---------------------------------------------------------------------------------------


@st.composite
def fleets(draw: st.DrawFn) -> list[NodeRow]:
    return [
        node(f"n{at}", free=draw(st.integers(0, 4)), rack=draw(st.sampled_from(("r1", "r2"))), block="b1")
        for at in range(draw(st.integers(1, 4)))
    ]


@st.composite
def equal_roles(draw: st.DrawFn) -> GangRequest:
    """At most one role is cut into slices: how many of them go to which domain is then all the same to the others."""
    roles = [
        role(f"r{at}", pods=draw(st.integers(1, 4)), gpus=1, level_required=draw(st.sampled_from(("", "host", "rack"))))
        for at in range(draw(st.integers(0, 2)))
    ]
    size, level = draw(st.integers(1, 3)), draw(st.sampled_from(("host", "rack")))
    cut = role("cut", pods=size * draw(st.integers(1, 3)), gpus=1, level_required=level, slice_pods=size)
    return request(cut, *roles, level_required=draw(st.sampled_from(("", "block", "rack"))))


def fits_somehow(rows: list[NodeRow], asked: GangRequest) -> bool:
    """Every slice of every role on every domain of its level; pods of one GPU only need enough GPUs in it."""
    groups = {"": [rows], "block": [rows]}.get(asked.level_required) or [
        [row for row in rows if row.rack == rack] for rack in ("r1", "r2")
    ]
    return any(_fits_in(group, asked) for group in groups)


def _fits_in(rows: list[NodeRow], asked: GangRequest) -> bool:
    slices = [(one, slices_of(one)[0]) for one in asked.roles for _ in range(slices_of(one)[1])]
    return any(_dealt(rows, slices, choice) for choice in product(("r1", "r2"), repeat=_racks_asked(slices)))


def _racks_asked(slices: list[tuple[RoleRequest, int]]) -> int:
    return sum(one.level_required == "rack" for one, _ in slices)


def _dealt(rows: list[NodeRow], slices: list[tuple[RoleRequest, int]], racks: tuple[str, ...]) -> bool:
    """Hosts are tried one after the other for slices that need one; what racks then have left must do for the rest."""
    chosen = iter(racks)
    by_rack = {"r1": 0, "r2": 0}
    anywhere = 0
    hosts: list[int] = []
    for one, pods in slices:
        if one.level_required == "host":
            hosts.append(pods)
        elif one.level_required == "rack":
            by_rack[next(chosen)] += pods
        else:
            anywhere += pods
    for places in product(range(len(rows)), repeat=len(hosts)):
        left = [row.gpus_free for row in rows]
        for pods, place in zip(hosts, places, strict=True):
            left[place] -= pods
        if min(left, default=0) < 0:
            continue
        in_rack = {rack: sum(n for n, row in zip(left, rows, strict=True) if row.rack == rack) for rack in by_rack}
        if all(in_rack[rack] >= pods for rack, pods in by_rack.items()):
            return sum(left) >= sum(by_rack.values()) + anywhere
    return False


@checked
@given(fleets(), equal_roles())
def test_a_place_is_found_exactly_where_there_is_one(rows: list[NodeRow], asked: GangRequest) -> None:
    answer = assign(NodeTable.build(rows), asked)
    assert isinstance(answer, Assignment) == fits_somehow(rows, asked)
    if isinstance(answer, Assignment):
        check_levels(rows, asked, answer)


def check_levels(rows: list[NodeRow], asked: GangRequest, answer: Assignment) -> None:
    """Every slice in one domain of its level, the gang in one of its own, nothing over-committed."""
    NodeTable.build(rows).take(answer)
    where = {row.name: {"host": row.name, "rack": row.rack, "block": row.block, "": ""} for row in rows}
    assert len({where[pod.node][asked.level_required] for pod in answer.pods}) == 1
    for one in asked.roles:
        nodes = [pod.node for pod in answer.pods if pod.role == one.name]
        assert len(nodes) == one.count
        size = slices_of(one)[0]
        for at in range(0, len(nodes), size):
            assert len({where[name][one.level_required] for name in nodes[at : at + size]}) == 1


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_every_way_to_deal_out_is_tried_once_fullest_first() -> None:
    assert list(allotments([2, 1, 2], 3)) == [[2, 1, 0], [2, 0, 1], [1, 1, 1], [1, 0, 2], [0, 1, 2]]
    assert list(allotments([1, 1], 3)) == []


def test_the_search_ends_after_its_steps() -> None:
    """Two hosts hold three roles only in the last of the ways that are tried: one step fewer finds none."""
    rows = table(node("a", free=4), node("b", free=5))
    asked = request(
        role("x", pods=2, gpus=1, level_required="host"),
        role("y", pods=2, gpus=1, cpu_milli=1, level_required="host"),
        role("z", pods=5, gpus=1, memory_mib=1, level_required="host"),
    )
    domains = rows.layout.domains("")
    assert domains is not None
    needed = next(n for n in range(STEPS_MAX) if place_nested(rows, asked, domains, None, steps_max=n) is not None)
    assert place_nested(rows, asked, domains, None, steps_max=needed - 1) is None
    assert needed <= 6


def test_shapes_ask_in_the_order_of_demand() -> None:
    assert shape_of(role(gpus=8)).demand < shape_of(role(gpus=4)).demand
