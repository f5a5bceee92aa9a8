"""Prices, carbon and data: what clusters say of themselves, and how it weighs against everything else."""

from __future__ import annotations

import numpy as np
import pytest

from placement.engine import decide
from placement.explain import NOBODY, why
from placement.fleet import Fleet
from placement.model import GangRequest
from placement.node_order import LearntWorth, NodeWorth
from placement.score import DEFAULT_POLICY, Policy
from placement.sites import DATA_UNSAID_GIB, MISSING_GIB_MAX, NUMBER_MAX, Sites, SiteTerm, number_in
from tests.builders import BUDGET, cluster, fleet, gang, node, nodes, request, role
from tests.unit.placement.oracle import decide_slowly

PRICE, CARBON = "muster.io/gpu-hour-cents", "muster.io/carbon-g-per-kwh"
LAION = "data.muster.io/laion"
HERE: dict[str, str] = {LAION: ""}


def two(east: dict[str, str], west: dict[str, str], *, free: int = 64) -> Fleet:
    """Two clusters that differ in labels, and in that `east`, the first by name, is fuller."""
    return fleet(cluster("east", nodes(64, free=32), labels=east), cluster("west", nodes(64, free=free), labels=west))


def home(where: Fleet, *, data: tuple[tuple[str, int], ...] = (), policy: Policy = DEFAULT_POLICY) -> str:
    (place,) = decide(where, [gang("g", data=data)], policy=policy, budget=BUDGET).decisions
    return place.cluster


def learnt(asked: GangRequest) -> NodeWorth:
    worth = LearntWorth()
    for _ in range(10):
        worth.asked(asked)
    worth.look(())
    assert worth.now is not None
    return worth.now


@pytest.mark.parametrize(
    ("east", "west", "chosen"),
    [
        ({}, {}, "east"),
        ({PRICE: "250"}, {PRICE: "200"}, "west"),
        ({PRICE: "250"}, {PRICE: "250"}, "east"),
        ({PRICE: "250"}, {}, "east"),
        ({CARBON: "400"}, {CARBON: "30"}, "west"),
        ({CARBON: "400", PRICE: "200"}, {CARBON: "30", PRICE: "250"}, "east"),
        ({PRICE: "a lot"}, {PRICE: "250"}, "east"),
    ],
    ids=[
        "fullness decides where nobody says anything",
        "the cheaper of two",
        "equal prices change nothing",
        "silence is no way to be chosen",
        "the cleaner of two",
        "50 cents weigh more than 370 grams",
        "what is no number is not said",
    ],
)
def test_of_clusters_that_lose_alike_the_cheaper_and_cleaner_one(
    east: dict[str, str], west: dict[str, str], chosen: str
) -> None:
    assert home(two(east, west)) == chosen


def test_gang_goes_where_its_data_lie() -> None:
    assert home(two({}, HERE), data=(("laion", 500),)) == "west"
    assert home(two(HERE, HERE), data=(("laion", 500),)) == "east"
    assert home(two({}, HERE)) == "east"


def test_gang_goes_where_most_of_its_data_lie() -> None:
    data = (("imagenet", 150), ("laion", 500))
    assert home(two({"data.muster.io/imagenet": "yes"}, HERE), data=data) == "west"


def test_large_data_outweigh_a_cheap_gpu_and_small_data_do_not() -> None:
    where = two({PRICE: "100"}, {PRICE: "150", **HERE})
    assert home(where, data=(("laion", 100),)) == "east"
    assert home(where, data=(("laion", 1_000),)) == "west"


def test_data_and_price_never_send_a_gang_above_the_mark_of_a_full_cluster() -> None:
    where = two({}, {PRICE: "1", **HERE}, free=8)
    assert home(where, data=(("laion", 100_000),)) == "east"


def test_whole_nodes_are_not_broken_for_some_cents() -> None:
    asked = request(role(gpus=1, cpu_milli=8_000))
    worth = learnt(request(role(gpus=8, cpu_milli=64_000)))
    broken = [node("a", free=7), *(node(f"n{at}") for at in range(4))]

    def chosen(cents: int) -> str:
        where = fleet(
            cluster("broken", *broken, labels={PRICE: str(100 + cents)}),
            cluster("whole", *(node(f"n{at}") for at in range(5)), labels={PRICE: "100"}),
        )
        item = gang("g", roles=asked.roles)
        (place,) = decide(where, [item], policy=DEFAULT_POLICY, budget=BUDGET, worth=worth).decisions
        return place.cluster

    assert chosen(200) == "broken"
    assert chosen(10_000) == "whole"


def test_terms_are_told_in_their_own_units_and_left_out_where_they_are_0() -> None:
    where = two({PRICE: "250", CARBON: "400"}, {PRICE: "240", CARBON: "30", **HERE})
    (place,) = decide(where, [gang("g", data=(("laion", 500),))], policy=DEFAULT_POLICY, budget=BUDGET).decisions
    terms = {one.cluster: dict(one.terms) for one in place.candidates}
    assert terms["east"] == {"price": 10, "carbon": 370, "data_missing": 500, "used_after": 6_250, "preferred_met": 0}
    assert terms["west"] == {"used_after": 1_250, "preferred_met": 0}


def test_weights_are_policy() -> None:
    where = two({PRICE: "250"}, {PRICE: "100"})
    assert home(where, policy=Policy(price_weight=0)) == "east"


def test_explanation_scores_like_the_decision() -> None:
    where = two({PRICE: "250"}, {PRICE: "240", **HERE})
    for roles in ((role(pods=2),), (role("a"), role("b", gpus=4))):
        item = gang("g", roles=roles, data=(("laion", 0),))
        (place,) = decide(where, [item], policy=DEFAULT_POLICY, budget=BUDGET).decisions
        assert why(where, item, NOBODY, {}, DEFAULT_POLICY).candidates == place.candidates
        (plainly,), _ = decide_slowly(where, [item], policy=DEFAULT_POLICY, quotas={}, worth=None)
        assert plainly.candidates == place.candidates


def test_data_without_a_size_count_as_some_and_no_distance_is_more_than_far() -> None:
    sites = Sites([{}, HERE])
    assert sites.missing_gib((("laion", 0),)).tolist() == [DATA_UNSAID_GIB, 0]
    assert sites.missing_gib((("laion", MISSING_GIB_MAX),)).tolist() == [MISSING_GIB_MAX, 0]
    assert sites.missing_gib((("laion", MISSING_GIB_MAX + 1),)).tolist() == [MISSING_GIB_MAX, 0]


def test_terms_that_nobody_says_anything_of_cost_nothing() -> None:
    assert Sites([{}, {"region": "eu"}]).terms((), np.array([0, 1])) == ()
    ((term, column),) = Sites([{PRICE: "3"}, {PRICE: "5"}, {}]).terms((), np.array([1, 2]))
    assert (term, column.tolist()) == (SiteTerm.PRICE, [2, 2])


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), (str(NUMBER_MAX), NUMBER_MAX), (str(NUMBER_MAX + 1), None), ("-1", None), ("1.5", None), ("", None)],
)
def test_numbers_are_whole_and_within_their_limit(text: str, number: int | None) -> None:
    assert number_in(text) == number
