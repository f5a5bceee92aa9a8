"""In which order nodes are filled: by what is lost to those that usually come, nearly equal ones one after another."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from placement.assign import assign
from placement.assignment import Assignment
from placement.fleet import NodeTable, Shape
from placement.mix import ClassMix
from placement.model import GangRequest
from placement.node_order import CPU_SHIFT, CPU_STEPS, GPUS_KEPT, LOSS_MAX, LOSS_STEPS, LearntWorth, NodeWorth
from placement.worth import NodeStates, Worth
from tests.builders import node, request, role, table


def learnt(*requests: GangRequest, times: int = 10) -> NodeWorth:
    worth = LearntWorth()
    for one in requests * times:
        worth.asked(one)
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
    assert worth.now is None
    worth.asked(ONE)
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


def test_gang_fills_the_node_that_loses_least_per_pod() -> None:
    pair = request(role(pods=2, gpus=4, cpu_milli=1_000))
    where = table(node("a", free=4), node("b", free=8), node("c", free=8))
    assert nodes_of(where, pair, learnt(EIGHT, ONE)) == ["a", "b"]


def test_mix_that_changes_later_changes_no_answers_given_before() -> None:
    worth = LearntWorth()
    for _ in range(8):
        worth.asked(ONE)
    before, where = worth.now, table(node("a"), node("b", free=5))
    assert before is not None
    first = nodes_of(where, ONE, before)
    for _ in range(100):
        worth.asked(EIGHT)
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
