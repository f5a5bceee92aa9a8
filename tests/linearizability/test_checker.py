"""The checker itself: what it must accept, and what it must not."""

import dataclasses
import random

import pytest

from storage.backends.memory import MemoryStore
from tests.linearizability.checker import Answer, Kind, Operation, is_linearizable
from tests.linearizability.workload import History, history_of

DONE, REFUSED, UNKNOWN = Answer.DONE, Answer.REFUSED, Answer.UNKNOWN


def create(called: int, returned: int, wrote: str, answer: Answer = DONE) -> Operation:
    return Operation("a", Kind.CREATE, called, returned, answer, wrote=wrote)


def replace(called: int, returned: int, expected: str, wrote: str, answer: Answer = DONE) -> Operation:
    return Operation("b", Kind.REPLACE, called, returned, answer, wrote=wrote, expected=expected)


def get(called: int, returned: int, read: str | None) -> Operation:
    return Operation("c", Kind.GET, called, returned, DONE, read=read)


def delete(called: int, returned: int) -> Operation:
    return Operation("d", Kind.DELETE, called, returned, DONE)


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([], id="nothing happened"),
        pytest.param([get(1, 2, None), create(3, 4, "x"), get(5, 6, "x")], id="one after the other"),
        pytest.param([create(1, 9, "x"), get(2, 3, "x"), get(4, 5, "x")], id="a read sees a write that is under way"),
        pytest.param([create(1, 9, "x"), get(2, 3, None), get(4, 5, "x")], id="or does not see it yet"),
        pytest.param([create(1, 9, "x"), create(1, 9, "y", REFUSED)], id="of two creates one is refused"),
        pytest.param([create(1, 2, "x", UNKNOWN), get(3, 4, None), get(5, 6, "x")], id="an unknown one lands late"),
        pytest.param([create(1, 2, "x", UNKNOWN), get(3, 4, None), create(5, 6, "y")], id="an unknown one never lands"),
        pytest.param(
            [create(1, 2, "x"), replace(3, 4, "x", "y", UNKNOWN), replace(5, 6, "y", "z"), get(7, 8, "z")],
            id="an unknown one landed, for its content was replaced",
        ),
        pytest.param(
            [create(1, 2, "x"), delete(3, 4), get(5, 6, None), create(7, 8, "y")], id="deleted and made again"
        ),
        pytest.param([create(5, 5, "x"), get(5, 5, None)], id="at the same instant either may be first"),
    ],
)
def test_what_some_order_explains_is_accepted(history: list[Operation]) -> None:
    assert is_linearizable(history)


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([create(1, 2, "x"), get(3, 4, None)], id="a stale read"),
        pytest.param([create(1, 9, "x"), get(2, 3, "x"), get(4, 5, None)], id="a read goes back"),
        pytest.param([create(1, 9, "x"), create(1, 9, "y")], id="two creates win"),
        pytest.param([create(1, 2, "x"), replace(3, 4, "x", "y"), replace(3, 4, "x", "z")], id="two replaces win"),
        pytest.param([create(1, 2, "x"), replace(3, 4, "y", "z")], id="a replace of what was never there"),
        pytest.param([create(1, 2, "x"), delete(3, 4), replace(5, 6, "x", "y")], id="a replace of what is deleted"),
        pytest.param([create(1, 2, "x", REFUSED), get(3, 4, None)], id="a create is refused with nothing there"),
        pytest.param([create(1, 2, "x"), replace(3, 4, "x", "y", REFUSED)], id="a replace is refused without reason"),
        pytest.param([create(1, 2, "x", REFUSED), get(3, 4, "x")], id="a refused write is read"),
        pytest.param([get(1, 2, "x"), create(3, 4, "x")], id="a read sees the future"),
        pytest.param([create(1, 2, "x", UNKNOWN), get(3, 4, "x"), get(5, 6, None)], id="an unknown one vanishes again"),
        pytest.param([create(1, 2, "x"), replace(3, 4, "x", "y"), get(5, 6, "x")], id="an acknowledged write is lost"),
    ],
)
def test_what_no_order_explains_is_flagged(history: list[Operation]) -> None:
    assert not is_linearizable(history)


@pytest.fixture(scope="module")
def good() -> History:
    return history_of([MemoryStore()], seed=3)


def test_clients_do_overlap_and_some_answers_are_unknown(good: History) -> None:
    operations = [operation for each in good.values() for operation in each]
    assert len(good) == 20
    assert min(len(each) for each in good.values()) >= 200
    assert sum(operation.answer is UNKNOWN for operation in operations) > 100
    assert sum(operation.answer is REFUSED for operation in operations) > 100


def test_one_impossible_read_anywhere_in_a_long_history_is_flagged(good: History) -> None:
    rng = random.Random(1)
    for each in good.values():
        reads = [n for n, operation in enumerate(each) if operation.kind is Kind.GET]
        spoilt = list(each)
        where = rng.choice(reads)
        spoilt[where] = dataclasses.replace(each[where], read="never written")
        assert is_linearizable(each)
        assert not is_linearizable(spoilt)


def test_one_stale_read_at_the_end_of_a_long_history_is_flagged() -> None:
    rng = random.Random(2)
    history = history_of([MemoryStore()], seed=4, faulty=False)
    for each in history.values():
        replaced = rng.choice([one.expected for one in each if one.kind is Kind.REPLACE and one.answer is DONE])
        end = max(one.returned for one in each)
        assert is_linearizable(each)
        assert not is_linearizable([*each, get(end + 1, end + 2, replaced)])
