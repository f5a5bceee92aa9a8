"""What free parts of nodes are worth: against the formula written out plainly, and in cases one can see."""

from __future__ import annotations

import random

import numpy as np
import pytest

from placement.mix import COUNTED_MAX, KINDS_MAX, PODS_PER_ARRIVAL_MAX, ClassMix, PodKind
from placement.model import GangRequest, RoleRequest
from placement.node_states import NodeStates
from placement.prices import PRICE_SCALE, UNITS, prices, units_of, worth_of_shares
from placement.scarcity import SCARCITY_PARTS, kinds_with_gpus
from placement.worth import NEVER, NodePolicy, Worth, device_gains, gains, order_costs

PRODUCTS = ("A100", "T4")


def mix_of(*counted: tuple[PodKind, int]) -> ClassMix:
    mix = ClassMix()
    for kind, count in counted:
        mix.arrived(kind, count)
    return mix


def kind(gpus: int, milli: int = 1000, *, cpu: int = 8_000, products: tuple[str, ...] = ()) -> PodKind:
    return PodKind(cpu, gpus, milli if gpus else 0, products)


def states(*nodes: tuple[str, int, tuple[int, ...]]) -> NodeStates:
    """(product, free CPU, free milli of each device)"""
    return NodeStates(
        np.array([PRODUCTS.index(product) for product, _, _ in nodes]),
        np.array([cpu for _, cpu, _ in nodes]),
        np.array([free for _, _, free in nodes]).T,
    )


def plainly(
    mix: ClassMix, policy: NodePolicy, product: str, cpu: int, free: tuple[int, ...], scarcity: dict[PodKind, int]
) -> float:
    """The worth of one node, in milli GPU, as the documentation gives it."""
    hosted = 0.0
    demand: dict[int, int] = {}
    for one_kind, count in mix.counts.items():
        asked, gpus, milli, products = one_kind
        if not gpus or (products and product not in products):
            continue
        demand[units_of(milli)] = demand.get(units_of(milli), 0) + count * gpus
        by_gpu = sum(one // milli for one in free) if gpus == 1 else sum(one >= milli for one in free) // gpus
        if cpu >= asked:
            scarce = scarcity[one_kind] / SCARCITY_PARTS
            hosted += scarce * count / mix.total * gpus * milli * min(by_gpu, cpu / asked if asked else by_gpu)
    worth = worth_of_shares({UNITS: PRICE_SCALE} | prices(demand))
    shares = sum(int(worth[one // 10]) for one in free) * 1000 / PRICE_SCALE
    return policy.hosted_weight * hosted + policy.shares_weight * shares


@pytest.mark.parametrize("seed", range(20))
def test_worth_is_the_documented_formula(seed: int) -> None:
    dice = random.Random(seed)
    mix, policy = ClassMix(), NodePolicy(dice.choice((0, 1, 3)), dice.choice((0, 4, 8)), 4)
    for _ in range(dice.randrange(1, 12)):
        gpus = dice.choice((0, 1, 1, 1, 2, 4))
        milli = dice.choice((100, 190, 460, 500, 810, 1000)) if gpus == 1 else 1000
        products = dice.choice(((), (), ("T4",), ("A100", "T4"), ("H100",)))
        asked = dice.choice((0, 1_000, 8_000, 11_400))
        mix.arrived(kind(gpus, milli, cpu=asked, products=products), dice.randrange(1, 400))
    nodes = [
        (
            dice.choice(PRODUCTS),
            dice.choice((0, 999, 8_000, 30_000, 96_000)),
            tuple(dice.choice((0, 190, 540, 810, 1000, 1000)) for _ in range(4)),
        )
        for _ in range(40)
    ]
    scarcity = {one: dice.choice((16, 16, 40, 16_000)) for one in kinds_with_gpus(mix)}
    worth = Worth(mix, PRODUCTS, policy, list(scarcity.values()))
    found = (worth.of(states(*nodes)) / worth.scale).tolist()
    assert found == pytest.approx([plainly(mix, policy, *node, scarcity) for node in nodes], abs=0.5, rel=1e-6)


def test_pod_prefers_the_hole_it_fills_to_a_fresh_gpu() -> None:
    worth = Worth(mix_of((kind(1, 810), 20), (kind(1, 190), 5), (kind(1), 20)), PRODUCTS)
    found = gains(worth, states(("T4", 96_000, (1000, 1000)), ("T4", 96_000, (190, 1000))), kind(1, 190))
    assert found[1] > found[0]


def test_device_is_chosen_by_what_it_leaves() -> None:
    worth = Worth(mix_of((kind(1, 500), 20), (kind(1, 300), 10)), PRODUCTS)
    found = device_gains(worth, states(("T4", 96_000, (1000, 300, 500, 200))), kind(1, 300))[:, 0]
    assert int(found.argmax()) == 1
    assert found[3] == NEVER


def test_device_like_a_lower_numbered_one_is_not_tried() -> None:
    worth = Worth(mix_of((kind(1, 500), 20)), PRODUCTS)
    assert device_gains(worth, states(("T4", 9_000, (700, 1000, 700))), kind(1, 500))[2, 0] == NEVER


def test_generic_pod_leaves_the_product_that_others_need_alone() -> None:
    mix = mix_of((kind(1), 20), (kind(1, products=("A100",)), 20))
    found = gains(Worth(mix, PRODUCTS), states(("A100", 96_000, (1000,)), ("T4", 96_000, (1000,))), kind(1))
    assert found[1] > found[0]


def test_pod_without_gpu_goes_where_cpu_is_not_needed_beside_gpus() -> None:
    worth = Worth(mix_of((kind(1, cpu=8_000), 20), (kind(0, cpu=4_000), 5)), PRODUCTS)
    nodes = states(("T4", 16_000, (1000, 1000)), ("T4", 96_000, (1000, 1000)), ("T4", 16_000, (0, 0)))
    found = gains(worth, nodes, kind(0, cpu=4_000)).tolist()
    assert found[0] < found[1] <= found[2] == 0


def test_nothing_learnt_keeps_whole_gpus_whole() -> None:
    found = gains(Worth(ClassMix(), PRODUCTS), states(("T4", 9_000, (1000,)), ("T4", 9_000, (600,))), kind(1, 500))
    assert found[1] > found[0]


@pytest.mark.parametrize(
    ("nodes", "steps_per_node"),
    [pytest.param(4, 4, id="few nodes"), pytest.param(1_000, 4, id="a thousand"), pytest.param(2_000, 2, id="more")],
)
def test_equal_nodes_are_filled_in_their_order(nodes: int, steps_per_node: int) -> None:
    worth = Worth(mix_of((kind(1), 9)), PRODUCTS)
    costs = order_costs(worth, nodes)
    assert costs.tolist() == [steps_per_node * worth.scale * at for at in range(nodes)]


def test_order_of_arrivals_does_not_matter_to_what_was_learnt() -> None:
    kinds = [(kind(1, 500), 5), (kind(2), 3), (kind(0), 7), (kind(1, products=("T4",)), 2)]
    nodes = states(("T4", 50_000, (500, 1000, 1000)), ("A100", 50_000, (500, 400, 1000)))
    one, other = Worth(mix_of(*kinds), PRODUCTS), Worth(mix_of(*kinds[::-1]), PRODUCTS)
    assert one.of(nodes).tolist() == other.of(nodes).tolist()


# --- learning ---


def test_mix_is_looked_at_after_8_arrivals_and_then_whenever_half_as_many_again_have_come() -> None:
    mix, looks = ClassMix(), []
    for number in range(1, 70):
        mix.arrived(kind(1))
        if mix.version > len(looks):
            looks.append(number)
    assert looks == [8, 13, 20, 31, 47]


def test_old_arrivals_fade_once_enough_is_known() -> None:
    mix = mix_of((kind(1), COUNTED_MAX - 1))
    mix.arrived(kind(2))
    assert mix.total == COUNTED_MAX
    mix.arrived(kind(2))
    assert mix.counts == {kind(1): (COUNTED_MAX - 1) // 2, kind(2): 1}
    assert mix.total == sum(mix.counts.values())


def test_kinds_are_limited_and_those_that_came_once_make_room() -> None:
    mix = ClassMix()
    mix.arrived(kind(1), 2)
    for cpu in range(1, KINDS_MAX):
        mix.arrived(kind(1, cpu=cpu))
    assert len(mix.counts) == KINDS_MAX
    mix.arrived(kind(4))
    assert mix.counts == {kind(1): 1, kind(4): 1}


def test_gang_counts_its_pods_of_each_role_up_to_a_limit() -> None:
    roles = (
        RoleRequest("w", PODS_PER_ARRIVAL_MAX + 1, 1, gpus=8, cpu_milli=100),
        RoleRequest("s", 2, 1, gpu_milli=250, products=("T4",)),
        RoleRequest("h", 1, 1, cpu_milli=500),
    )
    mix = ClassMix()
    mix.asked(GangRequest(roles, 1))
    assert mix.counts == {
        PodKind(100, 8, 1000, ()): PODS_PER_ARRIVAL_MAX,
        PodKind(0, 1, 250, ("T4",)): 2,
        PodKind(500, 0, 0, ()): 1,
    }
