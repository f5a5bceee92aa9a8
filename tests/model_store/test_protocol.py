"""Every order of events within bounds: no promise is broken, and without any one rule some promise is."""

import pytest

from tests.model_store.protocol import ALL_RULES, Bounds, Rule
from tests.model_store.search import search

SMALL = [
    Bounds(depth=1, numbers=4, terms=3, records=1, collections=1, restarts=0),
    Bounds(depth=1, numbers=4, terms=2, records=1, collections=0, restarts=1),
    Bounds(depth=2, numbers=4, terms=2, records=1, collections=1, restarts=0),
    Bounds(depth=2, numbers=5, terms=2, records=2, collections=0, restarts=0),
    Bounds(depth=1, numbers=4, terms=2, records=1, collections=1, restarts=0, ticks=2),
]


@pytest.mark.parametrize("bounds", SMALL, ids=repr)
def test_no_order_of_events_breaks_a_promise(bounds: Bounds) -> None:
    found = search(bounds, ALL_RULES)
    assert found.broken is None
    assert found.states > 20_000


ONE = Bounds(depth=1, numbers=4, terms=3, records=1, collections=1, restarts=0)
TIMED = Bounds(depth=1, numbers=4, terms=2, records=2, collections=1, restarts=0, ticks=2)
TWO = Bounds(depth=2, numbers=5, terms=3, records=2, collections=1, restarts=0)


@pytest.mark.parametrize(
    ("rule", "bounds", "broken"),
    [
        (Rule.FLOOR_OF_RECORDS, ONE, "a10 was acknowledged and is not in the journal ()"),
        (Rule.FLOOR_OF_TERMS, ONE, "an entry is of a term that nobody has won"),
        (Rule.FLOOR_OF_LOSSES, ONE, "a10 was called lost and is in the journal ('a10',)"),
        (Rule.FLOOR_OF_READERS, ONE, "a server has seen ('a10',) and the journal is ()"),
        (Rule.NONCE, ONE, "a10 was acknowledged and is not in the journal ()"),
        (Rule.RESOLVE, ONE, "a10 was called lost and is in the journal ('a10',)"),
        (Rule.AGE, TIMED, "a10 was acknowledged and is not in the journal ()"),
        (Rule.SHORTLY, TIMED, "a10 was acknowledged and is not in the journal ()"),
        (Rule.FLOOR_OF_RECORDS, TWO, "a10 was acknowledged and is not in the journal ()"),
        (Rule.FLOOR_OF_SEALS, TWO, "a10 was acknowledged and is not in the journal ()"),
        (Rule.SEAL, TWO, "two records of one leader have changed places: ('b21', 'b20')"),
        (Rule.TERM, TWO, "a11 was called lost and is in the journal ('a11',)"),
        (Rule.IN_ORDER, TWO, "a11 was acknowledged and is not in the journal ()"),
    ],
    ids=lambda value: value.name.lower() if isinstance(value, Rule) else None,
)
def test_without_a_rule_a_promise_is_broken(rule: Rule, bounds: Bounds, broken: str) -> None:
    assert search(bounds, ALL_RULES - {rule}).broken == broken


def test_with_one_entry_in_flight_no_entry_is_ever_void() -> None:
    bounds = Bounds(depth=1, numbers=4, terms=2, records=1, collections=1, restarts=0)
    assert search(bounds, ALL_RULES - {Rule.TERM, Rule.SEAL, Rule.FLOOR_OF_SEALS, Rule.IN_ORDER}).broken is None
