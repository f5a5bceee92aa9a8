"""How scarce room is: in cases one can see, and against the same written out plainly."""

from __future__ import annotations

import random

import numpy as np
import pytest

from placement.mix import ClassMix, PodKind
from placement.node_states import NodeStates
from placement.scarcity import SCARCITY_MAX, SCARCITY_PARTS, kinds_with_gpus, scarcities

PRODUCTS = ("A100", "T4")


def kind(gpus: int, milli: int = 1000, *, cpu: int = 0, products: tuple[str, ...] = ()) -> PodKind:
    return PodKind(cpu, gpus, milli if gpus else 0, products)


def scarcity_of(one: PodKind, *nodes: tuple[str, int, tuple[int, ...]], power: int = 1, times: int = 1) -> float:
    """Of a kind that alone comes; nodes as (product, free CPU, free milli of each device), each `times`."""
    mix = ClassMix()
    mix.arrived(one, 3)
    (found,) = scarcities(mix, PRODUCTS, states(*nodes), np.full(len(nodes), times), power)
    return found / SCARCITY_PARTS


def states(*nodes: tuple[str, int, tuple[int, ...]]) -> NodeStates:
    return NodeStates(
        np.array([PRODUCTS.index(product) for product, _, _ in nodes]),
        np.array([cpu for _, cpu, _ in nodes]),
        np.array([free for _, _, free in nodes]).T,
    )


WHOLE, BROKEN = ("T4", 96_000, (1000, 1000)), ("T4", 96_000, (500, 500))


def test_kind_that_could_use_all_that_is_free_is_not_scarce() -> None:
    assert scarcity_of(kind(1), WHOLE, WHOLE, power=3) == 1
    assert scarcity_of(kind(1, 500), WHOLE, BROKEN, power=3) == 1


def test_scarcity_is_all_that_is_free_by_what_the_kind_could_use_of_it() -> None:
    assert scarcity_of(kind(2), WHOLE, BROKEN, BROKEN) == 2
    assert scarcity_of(kind(2), WHOLE, BROKEN, BROKEN, power=3) == 8
    assert scarcity_of(kind(2), WHOLE, BROKEN, BROKEN, power=0) == 1
    assert scarcity_of(kind(2), WHOLE, BROKEN, BROKEN, power=3, times=700) == 8


def test_room_on_products_that_the_kind_does_not_accept_is_none() -> None:
    assert scarcity_of(kind(1, products=("A100",)), WHOLE, ("A100", 96_000, (1000, 0))) == 3


def test_room_without_cpu_is_none_and_cpu_counts_before_it_runs_out() -> None:
    picky = kind(1, cpu=64_000)
    assert scarcity_of(picky, WHOLE, ("T4", 63_999, (1000, 1000))) == pytest.approx(4_000 / 1_500, abs=1 / 16)


@pytest.mark.parametrize(
    ("others", "wanted"),
    [
        pytest.param(SCARCITY_MAX - 1, SCARCITY_MAX, id="at the limit"),
        pytest.param(SCARCITY_MAX, SCARCITY_MAX, id="beyond it"),
        pytest.param(SCARCITY_MAX - 2, SCARCITY_MAX - 1, id="below it"),
    ],
)
def test_scarcity_ends_at_its_limit(others: int, wanted: int) -> None:
    """Room on one node; the others have no CPU left."""
    mix = ClassMix()
    mix.arrived(kind(2, cpu=1))
    found = scarcities(mix, PRODUCTS, states(WHOLE, ("T4", 0, (1000, 1000))), np.array([1, others]), 1)
    assert found == (SCARCITY_PARTS * wanted,)


def test_no_room_at_all_is_as_scarce_as_can_be_and_a_full_fleet_says_nothing() -> None:
    assert scarcity_of(kind(2), BROKEN, power=3) == SCARCITY_MAX
    assert scarcity_of(kind(2), ("T4", 9_000, (0, 0)), power=3) == 1


def test_kinds_without_gpus_have_no_scarcity() -> None:
    mix = ClassMix()
    mix.arrived(kind(0, cpu=1_000), 9)
    assert scarcities(mix, PRODUCTS, states(WHOLE), np.array([1]), 3) == ()


@pytest.mark.parametrize("seed", range(10))
def test_scarcity_is_the_documented_formula(seed: int) -> None:
    dice = random.Random(seed)
    mix = ClassMix()
    for _ in range(12):
        gpus = dice.choice((1, 1, 2, 4))
        milli = dice.choice((100, 460, 810, 1000)) if gpus == 1 else 1000
        mix.arrived(kind(gpus, milli, cpu=dice.choice((0, 8_000, 11_400)), products=dice.choice(((), ("T4",)))))
    nodes = [
        (dice.choice(PRODUCTS), dice.choice((0, 9_000, 96_000)), tuple(dice.choice((0, 540, 1000)) for _ in range(4)))
        for _ in range(30)
    ]
    counts = [dice.randrange(1, 5) for _ in nodes]
    found = scarcities(mix, PRODUCTS, states(*nodes), np.array(counts), 2)
    all_free = sum(sum(free) * count for (_, _, free), count in zip(nodes, counts, strict=True))
    for one, parts in zip(kinds_with_gpus(mix), found, strict=True):
        room = 0.0
        for (product, cpu, free), count in zip(nodes, counts, strict=True):
            by_gpu = (
                sum(have // one.gpu_milli for have in free)
                if one.gpus == 1
                else sum(f == 1000 for f in free) // one.gpus
            )
            if cpu >= one.cpu_milli and (not one.products or product in one.products):
                pods = min(by_gpu, cpu / one.cpu_milli) if one.cpu_milli else by_gpu
                room += count * pods * one.gpus * one.gpu_milli
        wanted = (all_free / room) ** 2 if room else SCARCITY_MAX
        assert parts / SCARCITY_PARTS == pytest.approx(wanted, rel=1e-3, abs=1 / 16)
