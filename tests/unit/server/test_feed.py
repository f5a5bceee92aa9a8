"""The decision log as a feed: what a watcher gets, and when its stream ends."""

from __future__ import annotations

import asyncio

import pytest

from federation.core.events import EntryFolded
from federation.core.records import QueueApplied
from federation.server.feed import (
    QUIET,
    TOGETHER_MAX,
    WATCHER_LAG_MAX,
    WATCHERS_MAX,
    Feed,
    Quiet,
    TooManyWatchersError,
)
from federation.server.routes_meta import start_of

NEVER_S = 3_600.0


@pytest.mark.parametrize(
    ("last_event_id", "start"),
    [("8192", 8192), ("", 5), ("\u00b2", 5), ("9" * 20, 10**20 - 1), ("9" * 21, 5), ("x", 5)],
)
def test_a_watch_goes_on_behind_the_last_event_that_its_reader_names(last_event_id: str, start: int) -> None:
    assert start_of(last_event_id, 5) == start


def fed(*positions: int) -> Feed:
    feed = Feed()
    for position in positions:
        feed.folded(entry(position))
    return feed


def entry(first: int, records: int = 1) -> EntryFolded:
    return EntryFolded(first, (QueueApplied(name="q"),) * records)


async def taken(feed: Feed, since: int, count: int, *, quiet_s: float = NEVER_S) -> list[list[int] | Quiet]:
    """The positions of so many handfuls."""
    watch = feed.watch(since, quiet_s=quiet_s)
    handfuls = [await anext(watch) for _ in range(count)]
    return [one if isinstance(one, Quiet) else [position for position, _ in one] for one in handfuls]


@pytest.mark.parametrize(
    ("before", "since", "limit", "found"),
    [
        (100, 0, 2, [6, 8]),
        (8, 0, 2, [4, 6]),
        (8, 4, 5, [6]),
        (2, 0, 5, []),
        (0, 0, 5, []),
        (100, 0, 100, [2, 4, 6, 8]),
    ],
)
def test_the_last_ones_before_a_position_come_in_order(before: int, since: int, limit: int, found: list[int]) -> None:
    feed = fed(*range(1, 10))
    even = feed.before(before, limit, lambda item: item[0] % 2 == 0, since=since)
    assert [position for position, _ in even] == found


async def test_a_watcher_gets_what_it_missed_and_then_what_comes() -> None:
    feed = fed(1, 2, 3)
    watching = asyncio.create_task(taken(feed, 1, 2))
    await asyncio.sleep(0)
    feed.folded(entry(4))
    assert await watching == [[2, 3], [4]]


async def test_a_watcher_that_is_ahead_of_this_server_is_told_nothing_twice() -> None:
    """It saw those at another server, which had read further."""
    feed = fed(1)
    watching = asyncio.create_task(taken(feed, 3, 1))
    await asyncio.sleep(0)
    for position in (2, 3, 4):
        feed.folded(entry(position))
    assert await watching == [[4]]


async def test_what_is_there_comes_at_once_up_to_a_limit() -> None:
    assert [len(one) for one in await taken(fed(*range(TOGETHER_MAX)), -1, 1) if not isinstance(one, Quiet)] == [256]
    one_more = await taken(fed(*range(TOGETHER_MAX + 1)), -1, 2)
    assert [len(one) for one in one_more if not isinstance(one, Quiet)] == [256, 1]


async def test_a_quiet_stream_says_that_it_lives_again_and_again() -> None:
    assert await taken(fed(), 0, 2, quiet_s=0.0) == [QUIET, QUIET]


async def test_every_watch_ends_when_the_feed_is_closed_and_none_begins_after() -> None:
    feed = fed()
    watching = asyncio.create_task(taken(feed, 0, 1))
    await asyncio.sleep(0)
    feed.close()
    with pytest.raises(StopAsyncIteration):
        await watching
    with pytest.raises(StopAsyncIteration):
        await anext(feed.watch(0, quiet_s=NEVER_S))
    assert feed.watchers == 0


async def test_a_watcher_that_fell_too_far_behind_is_cut_off() -> None:
    feed = fed(1)
    watch = feed.watch(0, quiet_s=NEVER_S)
    assert await anext(watch) == [(1, QueueApplied(name="q"))]
    feed.folded(entry(2, WATCHER_LAG_MAX + 1))
    assert [item async for item in watch] == []


async def test_a_watcher_that_fell_as_far_behind_as_it_may_gets_it_all() -> None:
    feed = fed(1)
    watch = feed.watch(0, quiet_s=NEVER_S)
    await anext(watch)
    feed.folded(entry(2, WATCHER_LAG_MAX))
    got: list[int] = []
    while len(got) < WATCHER_LAG_MAX:
        handful = await anext(watch)
        assert not isinstance(handful, Quiet)
        got += [position for position, _ in handful]
    assert got == list(range(2, 2 + WATCHER_LAG_MAX))


async def test_who_asks_for_more_than_a_watcher_may_lag_is_not_cut_off_for_that() -> None:
    """At every new record it was, and what it got before is less than what came meanwhile: it never caught up."""
    feed = Feed()
    feed.folded(entry(1, 2 * WATCHER_LAG_MAX))
    watch = feed.watch(0, quiet_s=NEVER_S)
    await anext(watch)
    for number in range(TOGETHER_MAX):
        feed.folded(entry(1 + 2 * WATCHER_LAG_MAX + number))
    got = TOGETHER_MAX
    while got < 2 * WATCHER_LAG_MAX + TOGETHER_MAX:
        handful = await anext(watch)
        assert not isinstance(handful, Quiet)
        got += len(handful)
    assert got == 2 * WATCHER_LAG_MAX + TOGETHER_MAX


async def test_one_watcher_too_many_is_refused() -> None:
    feed = fed(1)
    watches = [feed.watch(0, quiet_s=NEVER_S) for _ in range(WATCHERS_MAX)]
    for watch in watches:
        await anext(watch)
    with pytest.raises(TooManyWatchersError):
        await anext(feed.watch(0, quiet_s=NEVER_S))
