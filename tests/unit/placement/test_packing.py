"""Unlike roles side by side where filling one after the other finds no way, and how long that is searched for."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.assign import assign
from placement.assignment import Assignment
from placement.fleet import NodeTable
from placement.model import GangRequest, Reason
from placement.packing import NODES_MAX, WAYS_MAX, pack
from tests.builders import node, request, role, table

ANYWHERE = (True, True)


def pods_of(rows: NodeTable, asked: GangRequest) -> dict[tuple[str, str], int]:
    found = assign(rows, asked)
    assert isinstance(found, Assignment), found
    rows.take(found)
    return {(part.role, part.node): part.pods for part in found.parts}


def test_three_gpu_pods_leave_the_node_of_four_to_pods_of_two() -> None:
    rows = table(node("a", gpus=4), node("b", gpus=6))
    asked = request(role("threes", pods=2, gpus=3), role("twos", pods=2, gpus=2))
    assert pods_of(rows, asked) == {("threes", "b"): 2, ("twos", "a"): 2}


def test_roles_that_need_cpu_beside_gpus_share_nodes_so_that_both_fit() -> None:
    rows = table(node("a", gpus=8, cpu=10), node("b", gpus=8, cpu=40))
    asked = request(role("thirsty", gpus=4, cpu_milli=10_000), role("plain", pods=2, gpus=4, cpu_milli=5_000))
    assert sum(pods_of(rows, asked).values()) == 3


def test_roles_share_nodes_with_others_that_ask_for_parts_of_gpus() -> None:
    rows = table(
        node("a", gpus=4)._replace(devices=(("1g.10gb", 1, 1), ("shared/4", 1, 1))),
        node("b", gpus=6)._replace(devices=(("1g.10gb", 2, 1), ("shared/2", 2, 2))),
    )
    whole = role("threes", pods=2, gpus=3), role("twos", pods=2, gpus=2)
    parts = (
        role("large", gpus=0, gpu_milli=500),
        role("small", pods=2, gpus=0, gpu_milli=250),
        role("cut", pods=2, gpus=0, mig_profile="1g.10gb"),
    )
    found = pods_of(rows, request(*whole, *parts))
    assert {key for key, pods in found.items() if pods == 2} == {("threes", "b"), ("twos", "a")}
    assert {key for key, pods in found.items() if pods == 1} == {
        ("large", "b"),
        *(("small", "a"), ("small", "b")),
        *(("cut", "a"), ("cut", "b")),
    }


def test_roles_of_which_one_stands_apart_share_nodes_so_that_both_fit() -> None:
    rows = table(node("a", gpus=4), node("b", gpus=6), node("c", gpus=3))
    asked = request(role("threes", pods=3, gpus=3, per_host=2), role("twos", pods=2, gpus=2))
    assert pods_of(rows, asked) == {("threes", "b"): 2, ("threes", "c"): 1, ("twos", "a"): 2}


def test_pods_stand_apart_also_where_a_host_had_room_for_more_of_them() -> None:
    rows = table(node("a", gpus=8), node("b", gpus=4), node("c", gpus=4))
    asked = request(role("threes", pods=3, gpus=3, per_host=1), role("four", gpus=4))
    assert pods_of(rows, asked) == {("threes", "a"): 1, ("threes", "b"): 1, ("threes", "c"): 1, ("four", "a"): 1}


def test_a_gang_for_which_there_is_no_way_is_refused_as_before() -> None:
    rows = table(node("a", gpus=5), node("b", gpus=5))
    found = assign(rows, request(role("threes", pods=2, gpus=3), role("fours", gpus=4)))
    assert not isinstance(found, Assignment)
    assert found[0].reason is Reason.TOO_FRAGMENTED


def test_as_few_steps_as_it_takes_are_enough_and_one_less_is_not() -> None:
    nodes, shapes, counts = [(4,), (6,)], [(3,), (2,)], [2, 2]
    assert pack(nodes, [ANYWHERE] * 2, shapes, counts, steps_max=5) == [(0, 2), (2, 0)]
    assert pack(nodes, [ANYWHERE] * 2, shapes, counts, steps_max=4) is None


def test_pods_stand_only_where_they_may() -> None:
    allowed = [(True, False), (False, True)]
    assert pack([(4,), (4,)], allowed, [(2,), (4,)], [2, 1]) == [(2, 0), (0, 1)]
    assert pack([(4,), (4,)], allowed, [(2,), (4,)], [3, 1]) is None


@pytest.mark.parametrize(("nodes", "found"), [(NODES_MAX, True), (NODES_MAX + 1, False)])
def test_so_many_nodes_are_looked_at_and_no_more(nodes: int, found: bool) -> None:
    way = pack([(5,)] * nodes, [ANYWHERE] * nodes, [(3,), (2,)], [nodes, nodes])
    assert (way == [(1, 1)] * nodes) is found
    assert (way is None) is not found


@pytest.mark.parametrize(("most", "found"), [(WAYS_MAX - 1, True), (WAYS_MAX, False)])
def test_so_many_ways_to_fill_a_node_are_looked_at_and_no_more(most: int, found: bool) -> None:
    """The one that is needed is the last: none of the first shape, which has a node of its own."""
    allowed = [(True, True), (True, False)]
    way = pack([(2 * WAYS_MAX,), (most,)], allowed, [(1,), (2,)], [most, WAYS_MAX])
    assert (way == [(0, WAYS_MAX), (most, 0)]) is found
    assert (way is None) is not found


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), min_size=2, max_size=2),
    st.lists(st.integers(0, 3), min_size=2, max_size=2),
)
def test_a_way_is_found_exactly_where_there_is_one(
    nodes: list[tuple[int, int]], shapes: list[tuple[int, int]], counts: list[int]
) -> None:
    found = pack(nodes, [ANYWHERE] * len(nodes), shapes, counts)
    ways = [
        [way for way in product(range(counts[0] + 1), range(counts[1] + 1)) if _fits(free, shapes, way)]
        for free in nodes
    ]
    possible = any(
        all(sum(column) >= count for column, count in zip(zip(*chosen, strict=True), counts, strict=True))
        for chosen in product(*ways)
    )
    assert (found is not None) == possible
    if found is not None:
        assert all(_fits(free, shapes, way) for free, way in zip(nodes, found, strict=True))
        assert [sum(column) for column in zip(*found, strict=True)] == counts


def _fits(free: tuple[int, int], shapes: list[tuple[int, int]], way: tuple[int, ...]) -> bool:
    return all(
        sum(pods * shape[resource] for pods, shape in zip(way, shapes, strict=True)) <= free[resource]
        for resource in (0, 1)
    )


@pytest.mark.parametrize("level", ["clique", "rack", "block"])
def test_ways_are_searched_for_in_one_domain_at_a_time(level: str) -> None:
    rows = table(*(node(name, gpus=gpus, **{level: "x"}) for name, gpus in (("a", 4), ("b", 6))), node("c", gpus=6))
    asked = request(role("threes", pods=2, gpus=3), role("twos", pods=2, gpus=2), level_required=level)
    assert {name for _, name in pods_of(rows, asked)} == {"a", "b"}
