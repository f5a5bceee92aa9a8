"""In which order nodes are filled: by what is lost to those that usually come, nearly equal ones one after another."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from placement.assign import assign
from placement.assignment import Assignment
from placement.fleet import NodeTable, Shape
from placement.mix import ClassMix
from placement.model import GangRequest
from placement.node_order import (
    CPU_SHIFT,
    CPU_STEPS,
    FIRST_GRID,
    GPUS_KEPT,
    LOOK_GPUS_MIN,
    LOSS_MAX,
    LOSS_STEPS,
    FreeNodes,
    LearntWorth,
    NodeWorth,
)
from placement.node_states import NodeStates
from placement.worth import Worth
from tests.builders import node, request, role, table


def learnt(*requests: GangRequest, times: int = 10, free_on: Iterable[NodeTable] = ()) -> NodeWorth:
    worth = LearntWorth()
    for one in requests * times:
        worth.asked(one)
    worth.look(free_on)
    assert worth.now is not None
    return worth.now


def nodes_of(where: NodeTable, asked: GangRequest, worth: NodeWorth | None) -> list[str]:
    found = assign(where, asked, worth)
    assert isinstance(found, Assignment)
    return [part.node for part in found.parts]


ONE, EIGHT = request(role(gpus=1, cpu_milli=8_000)), request(role(gpus=8, cpu_milli=64_000))


def test_nothing_is_known_before_eight_pods_were_asked_for() -> None:
    worth = LearntWorth()
    for _ in range(7):
        worth.asked(ONE)
    worth.look(())
    assert worth.empty
    assert worth.now is None
    worth.asked(ONE)
    worth.look(())
    assert not worth.empty
    assert worth.now is not None


def test_small_pod_leaves_whole_nodes_to_those_that_need_them() -> None:
    where = table(node("a"), node("b", free=5), node("c", free=3))
    assert nodes_of(where, ONE, learnt(ONE, EIGHT)) == ["b"]  # of equal losses the first in order, not the fullest


def test_generic_pod_leaves_the_scarce_product_to_those_that_can_use_nothing_else() -> None:
    picky = request(role(gpus=1, products=("H100",), cpu_milli=8_000))
    where = table(node("a", product="H100", free=4), node("b", product="T4", free=8))
    assert nodes_of(where, ONE, None) == ["a"]
    assert nodes_of(where, ONE, learnt(ONE, picky)) == ["b"]


def test_pod_without_gpu_leaves_cpu_where_gpus_are_free() -> None:
    helper = request(role(gpus=0, cpu_milli=16_000))
    where = table(node("a", free=2, cpu=24), node("b", free=0, cpu=64))
    assert nodes_of(where, helper, learnt(ONE, helper)) == ["b"]


def test_last_whole_node_is_kept_for_a_kind_that_rarely_comes() -> None:
    """Once its room is scarce: by how often it comes, it would not count."""
    halves = request(role(pods=64, gpus=4, cpu_milli=1_000))
    whole = request(role(gpus=8, cpu_milli=1_000))
    mix = [halves] * 30 + [whole]
    where = table([node("a"), *(node(f"n{at}", free=6) for at in range(400))])
    half = request(role(gpus=4, cpu_milli=1_000))
    assert nodes_of(where, half, learnt(*mix, times=1)) == ["a"]
    assert nodes_of(where, half, learnt(*mix, times=1, free_on=[where])) == ["n0"]


def test_what_is_free_is_looked_at_again_when_a_sixteenth_of_the_gpus_was_asked_for() -> None:
    where = table([node(f"n{at}") for at in range(200)])  # 1,600 GPUs
    worth = LearntWorth()
    worth.asked(request(role(pods=64, gpus=1)))
    worth.asked(request(role(pods=64, gpus=1)))
    worth.look([where])
    before = worth.now
    worth.asked(request(role(pods=33, gpus=3)))  # 99 GPUs, and less than half as many pods again
    worth.look([where])
    assert worth.now is before
    worth.asked(ONE)
    worth.look([where])
    assert worth.now is not before


def test_small_fleet_is_not_looked_at_for_every_gang() -> None:
    where = table(node("a"))
    worth = LearntWorth()
    for _ in range(4):
        worth.asked(request(role(pods=64, gpus=1)))
    worth.look([where])
    before = worth.now
    worth.asked(request(role(pods=LOOK_GPUS_MIN - 1, gpus=1)))
    worth.look([where])
    assert worth.now is before
    worth.asked(ONE)
    worth.look([where])
    assert worth.now is not before


def test_who_recalls_what_another_knew_goes_on_alike() -> None:
    where = table([node("a"), *(node(f"n{at}", free=6) for at in range(50))])
    one, other = LearntWorth(), LearntWorth()
    for _ in range(20):
        one.asked(ONE)
        one.asked(EIGHT)
    one.look([where])
    one.asked(EIGHT)
    other.recall(one.facts())
    assert other.facts() == one.facts()
    for worth in (one, other):
        for _ in range(7):
            worth.asked(EIGHT)
        worth.look([where])
    assert other.facts() == one.facts()
    assert one.now is not None
    assert one.now.scarcity == (16 * 308**3 // 308**3, 16 * 308**3 // 8**3)


def test_free_nodes_are_counted_by_state_and_those_that_take_no_pods_are_not() -> None:
    nodes = FreeNodes(
        [
            table(node("a", free=3), node("b", free=3), node("c", free=5)._replace(usable=False)),
            table(node("d", product="H100", free=8)),
        ]
    )
    assert nodes.products == ("A100", "H100")
    assert nodes.gpus_total == 32
    assert nodes.counts.tolist() == [2, 1]
    assert nodes.states.product_ids.tolist() == [0, 1]
    assert (nodes.states.free > 0).sum(axis=0).tolist() == [3, 8]


def test_gang_fills_the_node_that_loses_least_per_pod() -> None:
    pair = request(role(pods=2, gpus=4, cpu_milli=1_000))
    where = table(node("a", free=4), node("b", free=8), node("c", free=8))
    assert nodes_of(where, pair, learnt(EIGHT, ONE)) == ["a", "b"]


def test_mix_that_changes_later_changes_no_answers_given_before() -> None:
    worth = LearntWorth()
    for _ in range(8):
        worth.asked(ONE)
    worth.look(())
    before, where = worth.now, table(node("a"), node("b", free=5))
    assert before is not None
    first = nodes_of(where, ONE, before)
    for _ in range(100):
        worth.asked(EIGHT)
    assert worth.now is before
    worth.look(())
    assert worth.now is not before
    assert nodes_of(where, ONE, before) == first


@given(
    st.lists(st.tuples(st.integers(0, GPUS_KEPT), st.integers(0, CPU_STEPS - 1)), min_size=1, max_size=8),
    st.integers(0, 8),
    st.integers(0, 64),
    st.integers(1, 4),
)
def test_losses_looked_up_are_those_of_the_formula(
    free: list[tuple[int, int]], gpus: int, cores: int, pods: int
) -> None:
    """On amounts that the tables tell apart: multiples of a step of CPU."""
    mix = ClassMix()
    mix.asked(request(role("w", pods=9, gpus=8, cpu_milli=64_000), role("s", pods=5, gpus=1, cpu_milli=9_000)))
    cpu = cores << CPU_SHIFT  # free amounts are the upper ends of steps
    rows = [
        node(f"n{at}", gpus=GPUS_KEPT, free=have)._replace(
            cpu_milli_total=CPU_STEPS << CPU_SHIFT, cpu_milli_free=(have_cpu + 1 << CPU_SHIFT) - 1
        )
        for at, (have, have_cpu) in enumerate(free)
        if have >= gpus * pods and have_cpu >= cores * pods
    ]
    if not rows:
        return
    where, worth = table(rows), Worth(mix, ("A100",))
    at, counts = np.arange(len(rows)), np.full(len(rows), pods)
    found = NodeWorth(mix).losses(where, Shape(gpus, cpu, 0, ()), at, counts).tolist()
    wanted = []
    for row in range(len(rows)):
        have, have_cpu = int(where.free[0, row]), int(where.free[1, row])
        before, after = (
            worth.of(NodeStates(np.array([0]), np.array([c]), np.array([[1000]] * g + [[0]] * (16 - g))))[0]
            for g, c in ((have, have_cpu), (have - gpus * pods, have_cpu - cpu * pods))
        )
        lost = (before - after) / (1000 * worth.scale) / pods + 4 * row / 1_000
        wanted.append(min(LOSS_MAX, lost * LOSS_STEPS))
    assert all(abs(one - other) <= 0.51 for one, other in zip(found, wanted, strict=True))


def test_machines_beyond_what_is_told_apart_are_still_ordered() -> None:
    huge = node("a", gpus=4_000)._replace(cpu_milli_total=1 << 36, cpu_milli_free=1 << 36)
    assert nodes_of(table(huge, node("b", free=1)), ONE, learnt(ONE, EIGHT)) == ["a"]  # it loses nothing that counts


def test_worth_does_not_depend_on_how_large_the_nodes_seen_before_were() -> None:
    """The tables grow with what is asked; what they said stays."""
    large = table(node("a", gpus=16, cpu=500), node("b", gpus=16, free=9, cpu=300))
    small = table(node("a", free=5, cpu=40), node("b", free=3, cpu=60))
    grown, fresh = learnt(ONE, EIGHT), learnt(ONE, EIGHT)
    rows, pods = np.arange(2), np.ones(2, dtype=np.int64)
    shape = Shape(1, 8_000, 0, ())
    first = grown.losses(small, shape, rows, pods).tolist()
    assert grown.losses(large, shape, rows, pods).tolist() == fresh.losses(large, shape, rows, pods).tolist()
    assert grown.losses(small, shape, rows, pods).tolist() == first


@given(st.integers(0, 2 * GPUS_KEPT), st.integers(0, 2 * CPU_STEPS << CPU_SHIFT))
def test_grid_grows_until_it_covers_what_is_told_apart(gpus: int, cpu: int) -> None:
    grid = FIRST_GRID.grown(gpus, cpu)
    assert grid.covers(gpus, cpu)
    assert grid.gpus == min(GPUS_KEPT, max(8, 2 * 8 if gpus > 8 else 8))
    assert grid.steps <= CPU_STEPS
    assert grid.steps > min(cpu >> CPU_SHIFT, CPU_STEPS - 1)
