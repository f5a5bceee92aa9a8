"""What the server's loop does with what it cannot answer, has no room for, or gets no answer to."""

from __future__ import annotations

import asyncio

import pytest

from federation.core.config import ReplicaConfig
from federation.core.events import HintArrived, ReportArrived
from federation.core.replica import Replica
from federation.core.taped import Reel, WriteReel
from federation.protocol.lease import RenewalResult
from federation.protocol.messages import (
    AgentAsk,
    Claims,
    DesiredAsk,
    JournalHint,
    Renewal,
    RenewalAnswer,
    Report,
    SpecAsk,
    Stamp,
    Verdict,
)
from federation.server import loop as loop_module
from federation.server.feed import Feed
from federation.server.loop import ReplicaLoop, _write_reel
from storage.backends.memory import MemoryStore
from storage.blob import Blob, BlobFailed, BlobName, OpId, Written
from storage.tape import ReelName

RENEWAL = Renewal(ask_id=1, cluster="c-1", epoch=1, renew_seq=1, ttl_s=30, holder_uid="u", holder_boot="b", nonce="n")
REPORT = Report(cluster="c-1", lineage="l", stamp=Stamp(1, 1), applied=0)
HINT = HintArrived(JournalHint(seq=1))


def loop_on(store: MemoryStore) -> ReplicaLoop:
    return ReplicaLoop(Replica(ReplicaConfig(name="s-1", seed="x")), store, Feed())


@pytest.mark.parametrize(
    "ask",
    [
        Verdict(ask_id=1, cluster="c-1", uid="l.1", token="l.2", verdict="Running"),
        Claims(ask_id=1, cluster="c-1"),
        DesiredAsk(ask_id=1, cluster="c-1", since=0),
        SpecAsk(ask_id=1, cluster="c-1", uid="l.1"),
    ],
    ids=["verdict", "claims", "desired", "spec"],
)
async def test_who_has_no_answer_says_so_at_once(ask: AgentAsk) -> None:
    """An agent has a few connections for all it says: held for eight seconds each, renewals found none."""
    loop = loop_on(MemoryStore())
    asking = asyncio.create_task(loop.ask_for_agent("c-1", ask))
    await asyncio.sleep(0)
    loop._turn()
    for _ in range(10):  # so that whoever waits for the answer sees it
        await asyncio.sleep(0)
    assert asking.done()
    assert list(await asking) == []


async def test_of_what_is_said_again_only_so_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "EVENTS_QUEUED_MAX", 2)
    loop = loop_on(MemoryStore())
    assert [loop.offer(HINT), loop.offer(ReportArrived("c-1", REPORT)), loop.offer(HINT)] == [True, True, False]
    assert await loop.ask_for_agent("c-1", SpecAsk(ask_id=1, cluster="c-1", uid="l.1")) == ()
    assert loop.counters.shed == 2


@pytest.mark.parametrize("turns", range(4))
async def test_it_ends_though_an_event_comes_as_it_is_asked_to(turns: int) -> None:
    """A server that was stopped at that moment went on for ever."""
    loop = loop_on(MemoryStore())
    running = asyncio.create_task(loop.run())
    await asyncio.sleep(0.05)  # by then it waits
    loop.feed(HINT)
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    done, _ = await asyncio.wait([running], timeout=5)
    assert done, "it goes on"


async def test_a_renewal_is_taken_however_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "EVENTS_QUEUED_MAX", 0)
    loop = loop_on(MemoryStore())
    asking = asyncio.create_task(loop.ask_for_agent("c-1", RENEWAL))
    await asyncio.sleep(0)
    loop._turn()
    (answer,) = await asking
    assert isinstance(answer, RenewalAnswer)
    assert answer.result == RenewalResult.UNAVAILABLE, "it has read no journal yet"


class Broken(MemoryStore):
    """A client library with a bug."""

    def get(self, name: BlobName) -> Blob | None:
        raise KeyError(name)


async def test_a_store_that_raises_what_is_no_answer_ends_the_server_which_would_wait_for_ever() -> None:
    with pytest.raises(KeyError, match="root"):
        await asyncio.wait_for(loop_on(Broken()).run(), 600.0)


class Unwritable(MemoryStore):
    """A client library with a bug in what it sends."""

    def create(self, name: BlobName, data: bytes) -> Written:
        raise TypeError("no bytes")


def test_a_reel_of_the_tape_that_cannot_be_written_ends_no_server() -> None:
    reel = Reel(ReelName(seq=1, wall_ms=1, term=1, number=1, kind="more"), "l", (), 0, 0)
    answer = _write_reel(Unwritable(), WriteReel(OpId(7), reel))
    assert answer == BlobFailed(OpId(7), "TypeError('no bytes')")
