"""From where a watch may begin: a server that is a little behind others is waited for, and nothing else is."""

from __future__ import annotations

import asyncio

import pytest

from federation.server import routes_meta
from federation.server.feed import Feed
from federation.server.loop import ReplicaLoop
from federation.server.problems import ProblemError
from federation.server.routes_meta import come_to
from placement.model import Position
from tests.unit.federation.pump import Pump, started


def loop_of(pump: Pump) -> ReplicaLoop:
    return ReplicaLoop(pump.replicas["server-0"], pump.store, Feed())


async def test_a_watch_from_where_the_server_is_begins_at_once() -> None:
    loop = loop_of(started())
    await come_to(loop, loop.position)


async def test_a_server_that_is_behind_the_one_that_was_watched_before_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routes_meta, "BEHIND_POLL_S", 0.0)
    loop = loop_of(started())
    ahead = Position(loop.position + 8_192)
    waiting = asyncio.create_task(come_to(loop, ahead))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    loop.replica.state.reached(ahead)
    await waiting


async def test_a_watch_from_beyond_the_journal_is_refused_with_both_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waited in silence for ever, as for a fleet that was restored from a backup."""
    monkeypatch.setattr(routes_meta, "BEHIND_MAX_S", 0.0)
    loop = loop_of(started())
    head = loop.position
    with pytest.raises(ProblemError) as caught:
        await come_to(loop, head + 1)
    assert (caught.value.status, caught.value.reason, caught.value.field) == (409, "BeyondHead", "since")
    assert caught.value.detail.startswith(f"{head + 1} is beyond {head}, ")


async def test_a_server_that_cannot_read_on_sends_its_caller_to_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes_meta, "BEHIND_MAX_S", 0.0)
    pump = started()
    pump.start("server-0")  # which has not read its journal yet
    with pytest.raises(ProblemError) as caught:
        await come_to(loop_of(pump), 8_192)
    assert (caught.value.status, caught.value.reason) == (503, "Unavailable")


def test_who_waits_for_a_server_counts_among_its_watchers() -> None:
    feed = Feed()
    with feed.expected():
        assert feed.watchers == 1
    assert feed.watchers == 0
