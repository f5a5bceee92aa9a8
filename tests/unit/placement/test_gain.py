"""What gangs cost clusters, and which cluster that makes the best."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.engine import decide
from placement.fleet import Fleet, NodeTable, Shape
from placement.gain import COST_STEPS, COSTS_KEPT_MAX, Costs, NodeCounts, fill_costs, shapes_asked, table_cost
from placement.model import GangRequest
from placement.node_order import LearntWorth, NodeWorth
from placement.score import DEFAULT_POLICY, GAIN_MIN, Policy
from tests.builders import BUDGET, cluster, fleet, gang, node, request, role, table

ONE, EIGHT = request(role(gpus=1, cpu_milli=8_000)), request(role(gpus=8, cpu_milli=64_000))
PICKY = request(role(gpus=1, products=("H100",), cpu_milli=8_000))


def learnt(*requests: GangRequest, times: int = 10) -> NodeWorth:
    worth = LearntWorth()
    for one in requests * times:
        worth.asked(one)
    worth.look(())
    assert worth.now is not None
    return worth.now


def chosen(where: Fleet, asked: GangRequest, worth: NodeWorth | None, policy: Policy = DEFAULT_POLICY) -> str:
    item = gang("g", roles=asked.roles)
    (place,) = decide(where, [item], policy=policy, budget=BUDGET, worth=worth).decisions
    return place.cluster


def test_generic_gang_leaves_the_cluster_of_a_scarce_product_alone_however_full_it_is() -> None:
    where = fleet(
        cluster("h", node("a", product="H100", free=4), node("b", product="H100", free=4)),
        cluster("t", node("a", product="T4"), node("b", product="T4")),
    )
    assert chosen(where, ONE, None) == "h"
    assert chosen(where, ONE, learnt(ONE, PICKY)) == "t"


def test_small_gang_goes_where_no_whole_node_is_broken() -> None:
    where = fleet(
        cluster("full", node("a"), *(node(f"n{at}", free=0) for at in range(4))),
        cluster("wide", node("a", free=7), *(node(f"n{at}") for at in range(4))),
    )
    assert chosen(where, ONE, None) == "full"
    assert chosen(where, ONE, learnt(ONE, EIGHT)) == "wide"


def test_fullness_decides_between_clusters_that_lose_nearly_alike() -> None:
    where = fleet(cluster("a", node("x"), node("y")), cluster("b", node("x"), node("y", free=2)))
    assert chosen(where, EIGHT, learnt(ONE, EIGHT)) == "b"


def test_cluster_above_its_mark_gets_only_what_fits_nowhere_else() -> None:
    above = [node("a", free=1), *(node(f"n{at}", free=0) for at in range(1, 7))]  # 55 of 56 GPUs in use
    where = fleet(cluster("above", *above), cluster("empty", node("a"), node("b")))
    assert chosen(where, ONE, None) == "empty"
    assert chosen(where, ONE, None, Policy(overflow_weight=0)) == "above"
    assert chosen(fleet(cluster("above", *above)), ONE, None) == "above"


def test_mark_is_reached_at_85_percent_in_use_before_the_gang() -> None:
    below = [node("a", gpus=100, free=16)]
    at_mark = [node("a", gpus=100, free=15)]
    empty = cluster("empty", node("a", gpus=100))
    assert chosen(fleet(cluster("below", *below), empty), ONE, None) == "below"
    assert chosen(fleet(cluster("mark", *at_mark), empty), ONE, None) == "empty"


def test_terms_that_are_nothing_are_not_named() -> None:
    where = fleet(cluster("a", node("x", free=1)), cluster("b", node("x", free=4)))
    (place,) = decide(where, [gang("g", roles=ONE.roles)], policy=DEFAULT_POLICY, budget=BUDGET).decisions
    assert [dict(one.terms) for one in place.candidates] == [
        {"used_after": 6_250, "preferred_met": 0},
        {"overflow": 1, "used_after": 10_000, "preferred_met": 0},
    ]


def test_gain_is_told_in_sixteenths_of_a_gpu_lost_for_each_asked_for_down_to_a_limit() -> None:
    where, worth = fleet(cluster("a", node("x"))), learnt(EIGHT, ONE)
    (place,) = decide(
        where, [gang("g", roles=EIGHT.roles)], policy=DEFAULT_POLICY, budget=BUDGET, worth=worth
    ).decisions
    # Each GPU is worth 8 by its share; the node held a pod of 8 (half of all) or 8 of one (the other half).
    assert dict(place.candidates[0].terms)["gain"] == -(8 + 1) * 16
    assert GAIN_MIN == -4_096


def test_gang_of_many_pods_costs_what_its_cheapest_nodes_do() -> None:
    worth = learnt(EIGHT, ONE)
    where = table(node("a"), node("b", free=2), node("c", free=2))
    alone = [table_cost(table(one), request(role(pods=2, gpus=1)), worth) for one in (node("a"), node("b", free=2))]
    assert alone[1] < alone[0]
    assert table_cost(where, request(role(pods=4, gpus=1)), worth) == 2 * alone[1]
    assert table_cost(where, request(role(pods=4, gpus=1)), None) == 0


def test_roles_that_need_one_host_cost_what_one_host_does() -> None:
    asked = request(role("a", pods=2, gpus=2), role("b", pods=4, gpus=1), level_required="host")
    assert shapes_asked(asked) == ((Shape(8, 0, 0, ()), 1),)


def test_costs_are_kept_up_to_a_limit() -> None:
    counts, worth = NodeCounts([table(node("a", cpu=64))]), learnt(ONE, EIGHT)
    for milli in range(1, COSTS_KEPT_MAX + 3):
        counts.costs([(Shape(1, milli, 0, ()), 1)], worth)
        assert len(counts._costs) <= COSTS_KEPT_MAX
    assert counts.costs([(Shape(0, 0, 0, ()), 1)], worth).tolist() == [0]
    assert COST_STEPS == 1_024


def test_gangs_of_more_pods_than_a_node_holds_share_one_list_of_costs() -> None:
    """On machines of 16 GPUs and more two pods of eight are all that is told apart."""
    counts, worth = NodeCounts([table(node(str(at)) for at in range(16))]), learnt(ONE, EIGHT)
    costs = [counts.costs([(Shape(8, 0, 0, ()), pods)], worth).tolist()[0] for pods in (2, 3, 16)]
    assert len(counts._costs) == 1
    assert [2 * cost for cost in costs] == [2 * costs[0], 3 * costs[0], 16 * costs[0]]


frees = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 64), st.booleans()), min_size=3, max_size=3)


def changed(where: NodeTable, free: list[tuple[int, int, bool]]) -> NodeTable:
    rows = [
        row._replace(gpus_free=gpus, cpu_milli_free=cores * 1_000, usable=usable)
        for row, (gpus, cores, usable) in zip(where.rows(), free, strict=True)
    ]
    return where.with_changes(rows)


@pytest.mark.long
@given(st.lists(frees, min_size=1, max_size=4), st.integers(1, 20))
def test_counts_that_follow_changes_say_what_new_ones_do(turns: list[list[tuple[int, int, bool]]], pods: int) -> None:
    where = table(node("a", cpu=64), node("b", product="T4", cpu=64), node("c", cpu=64))
    other = table(node("x", free=3, cpu=64))
    counts, one_by_one, worth = NodeCounts([where, other]), NodeCounts([where, other]), learnt(ONE, EIGHT, PICKY)
    asked = request(role(pods=pods, gpus=2, cpu_milli=9_000))
    for turn in turns:
        now = changed(where, turn)
        nodes = [
            at for at in range(3) if (where.free[:, at] != now.free[:, at]).any() or where.usable[at] != now.usable[at]
        ]
        counts.change(0, now, np.array(nodes, dtype=np.int64))
        for at in nodes:
            one_by_one.change(0, now, np.array([at], dtype=np.int64))
        where = now
        want = [table_cost(one, asked, worth) for one in (where, other)]
        assert counts.costs(shapes_asked(asked), worth).tolist() == want
        assert one_by_one.costs(shapes_asked(asked), worth).tolist() == want


def filled_in_order(nodes: list[int], each: list[int], pods: list[int], count: int) -> int:
    """What one cluster pays, state by state, without leaving any out."""
    spent = placed = 0
    for have, cost, holds in zip(nodes, each, pods, strict=True):
        taken = min(have * holds, count - placed)
        spent, placed = spent + taken * cost, placed + taken
    return spent * count // max(placed, 1)


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 300), st.integers(1, 400))
def test_states_beyond_those_that_are_needed_change_no_cost(seed: int, states: int, clusters: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, (states, clusters))
    kept = np.sort(rng.permutation(states)[: states // 2 + 1])
    costs = Costs(kept, np.sort(rng.integers(-50, 50, len(kept))), rng.integers(1, 9, len(kept)), states)
    each, pods = costs.each.tolist(), costs.pods.tolist()
    want = [filled_in_order(counts[kept, at].tolist(), each, pods, count) for at in range(clusters)]
    assert fill_costs(counts, costs, count).tolist() == want
    some = np.flatnonzero(rng.integers(0, 2, clusters))
    assert fill_costs(counts, costs, count, some).tolist() == [want[at] for at in some.tolist()]


def test_cluster_whose_states_take_no_such_pod_costs_nothing() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert fill_costs(np.ones((3, 2), dtype=np.int64), Costs(none, none, none, 3), 5).tolist() == [0, 0]
