"""The checkers know sizes: a home may have the one or the other while it is resized, and never a third."""

from __future__ import annotations

import msgspec
import pytest

from federation.core.records import Bound, ClusterAdmitted, ClusterJoined, Resized, Sized
from tests.unit.world.test_checkers import GROUP, Log, broken, gave_up, name, placed, submitted
from tests.world.checkers import BoundChecker


def resized(counts: int, token: int = 200) -> Resized:
    return Resized(uid=GROUP, token=name(token), cluster="c-1", counts=(counts,), count=counts)


def sized(counts: int, resized_at: int, token: int = 200) -> Sized:
    return Sized(uid=GROUP, token=name(token), cluster="c-1", counts=(counts,), resized_at=resized_at)


@pytest.fixture
def elastic() -> Log:
    """A group of four pods, at least two, that is bound with three."""
    log = Log()
    log.add(10, ClusterJoined(cluster="c-1"))
    log.add(12, ClusterAdmitted(cluster="c-1", epoch=1))
    log.add(100, msgspec.structs.replace(submitted(pods=4), min_count=2, elastic=True))
    log.add(200, msgspec.structs.replace(placed(), counts=(3,)))
    log.add(201, Bound(uid=GROUP, token=name(200), cluster="c-1", pods=3))
    return log


def test_a_resize_and_its_outcome_keep_s6(elastic: Log) -> None:
    elastic.add(300, resized(4))
    elastic.add(301, sized(4, 300))
    elastic.add(302, resized(2))
    elastic.add(303, sized(4, 302))
    assert elastic.history.tokens[name(200)].pods == 4


@pytest.mark.parametrize("counts", [1, 5])
def test_a_resize_to_fewer_pods_than_the_least_or_more_than_all_breaks_s6(elastic: Log, counts: int) -> None:
    broken("S6", lambda: elastic.add(300, resized(counts)))


def test_a_resize_before_the_one_before_is_answered_breaks_s6(elastic: Log) -> None:
    elastic.add(300, resized(4))
    broken("S6", lambda: elastic.add(301, resized(2)))


def test_a_resize_of_a_home_that_is_not_bound_breaks_s6(elastic: Log) -> None:
    elastic.add(202, gave_up(200))
    elastic.add(203, placed())
    broken("S6", lambda: elastic.add(300, resized(2, 203)))


def test_a_resize_of_a_token_that_is_no_home_breaks_s3(elastic: Log) -> None:
    elastic.add(300, gave_up(200))
    broken("S3", lambda: elastic.add(301, resized(4)))


def test_an_outcome_that_is_neither_size_breaks_s6(elastic: Log) -> None:
    elastic.add(300, resized(4))
    broken("S6", lambda: elastic.add(301, sized(2, 300)))


WHY = ("InsufficientGpus",)


def test_some_of_the_pods_that_were_to_join_are_an_outcome_where_it_is_said_why_not_all(elastic: Log) -> None:
    elastic.add(300, resized(2))
    elastic.add(301, sized(2, 300))
    elastic.add(302, resized(4))
    elastic.add(303, msgspec.structs.replace(sized(3, 302), reasons=WHY))
    assert elastic.history.tokens[name(200)].counts == (3,)


@pytest.mark.parametrize(
    ("before", "asked", "outcome", "reasons"),
    [
        pytest.param(2, 4, 3, (), id="some join, and nobody says why not all"),
        pytest.param(3, 4, 2, WHY, id="fewer than before where some were to join"),
        pytest.param(4, 2, 3, WHY, id="some of those that were to leave"),
    ],
)
def test_no_other_size_between_is_an_outcome(
    elastic: Log, before: int, asked: int, outcome: int, reasons: tuple[str, ...]
) -> None:
    elastic.add(300, resized(before))
    elastic.add(301, sized(before, 300))
    elastic.add(302, resized(asked))
    broken("S6", lambda: elastic.add(303, msgspec.structs.replace(sized(outcome, 302), reasons=reasons)))


def test_an_outcome_of_another_resize_breaks_s6(elastic: Log) -> None:
    elastic.add(300, resized(4))
    broken("S6", lambda: elastic.add(301, sized(4, 299)))


def test_a_gang_may_have_the_larger_of_both_sizes_bound_until_it_has_answered(elastic: Log) -> None:
    checker = BoundChecker(elastic.history, 60.0)
    elastic.add(300, resized(2))
    for pod in "abc":
        checker.acted("c-1", "bound", pod, "n-1", GROUP, name(200), 1.0)
    elastic.add(301, sized(2, 300))
    checker.acted("c-1", "removed", "c", "", GROUP, name(200), 2.0)
    broken("S6", lambda: checker.acted("c-1", "bound", "d", "n-1", GROUP, name(200), 3.0))
