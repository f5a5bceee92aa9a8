"""Prices of the best packing: against packings that one can work out by hand, and what they must never do."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from placement.prices import PRICE_SCALE, UNITS, prices, units_of, worth_of_shares

WHOLE = PRICE_SCALE


def test_sizes_that_fill_a_gpu_exactly_cost_their_share() -> None:
    assert prices({25: 4, 50: 2, 100: 1}) == {25: WHOLE // 4, 50: WHOLE // 2, 100: WHOLE}


def test_share_that_leaves_a_hole_nobody_fills_costs_the_whole_gpu() -> None:
    assert prices({81: 10}) == {81: WHOLE}
    assert prices({40: 7}) == {40: WHOLE // 2}


def test_small_pods_are_free_where_there_are_more_holes_than_of_them() -> None:
    assert prices({81: 100, 10: 5}) == {10: 0, 81: WHOLE}


def test_small_pods_have_their_price_where_they_are_more_than_the_holes() -> None:
    assert prices({81: 5, 10: 100}) == {10: WHOLE // 10, 81: WHOLE - WHOLE // 10}


def test_partners_share_the_price_of_a_gpu() -> None:
    found = prices({70: 10, 30: 10})
    assert found[70] + found[30] == WHOLE


def test_nothing_asked_for_has_no_price() -> None:
    assert prices({}) == {}
    assert prices({50: 0}) == {}


def test_size_is_rounded_up_so_that_what_fits_really_fits() -> None:
    assert (units_of(1), units_of(10), units_of(11), units_of(1000)) == (1, 1, 2, UNITS)


def test_worth_of_a_share_is_the_best_that_fits_into_it() -> None:
    worth = worth_of_shares({25: 250_000, 60: 700_000, UNITS: WHOLE})
    assert [int(worth[units]) for units in (0, 24, 25, 59, 60, 74, 84, 85, 99, 100)] == [
        0, 0, 250_000, 500_000, 700_000, 700_000, 750_000, 950_000, 950_000, WHOLE,
    ]  # fmt: skip


demands = st.dictionaries(st.integers(1, UNITS), st.integers(0, 5_000), max_size=25)


def lower_bound_by_prices(demand: Mapping[int, int], found: Mapping[int, int]) -> float:
    """GPUs that the pods need at least, by the prices: exactly that many if the prices are optimal."""
    return sum(count * found.get(size, 0) for size, count in demand.items()) / PRICE_SCALE


@given(demands)
def test_no_filling_of_one_gpu_costs_more_than_a_gpu(demand: dict[int, int]) -> None:
    worth = worth_of_shares(prices(demand))
    assert int(worth[UNITS]) <= WHOLE + UNITS  # each price is rounded by half a millionth


@given(demands)
def test_prices_say_at_least_as_much_as_the_sizes_alone(demand: dict[int, int]) -> None:
    """The sum of sizes is a bound on the GPUs needed; that of the best packing's prices is no worse."""
    by_size = sum(size * count for size, count in demand.items()) / UNITS
    pods = sum(demand.values())
    assert lower_bound_by_prices(demand, prices(demand)) >= by_size - 1e-5 * pods


@given(demands)
def test_free_share_never_loses_worth_by_being_larger(demand: dict[int, int]) -> None:
    worth = worth_of_shares(prices(demand)).tolist()
    assert worth == sorted(worth)
    assert worth[0] == 0


@given(demands, st.integers(2, 9))
def test_prices_depend_on_proportions_only_up_to_ties(demand: dict[int, int], times: int) -> None:
    more = {size: count * times for size, count in demand.items()}
    one = lower_bound_by_prices(demand, prices(demand))
    assert abs(lower_bound_by_prices(demand, prices(more)) - one) <= 1e-5 * max(1.0, one)
