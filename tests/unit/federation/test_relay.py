"""Renewals through a relay: it answers what the store came to hold, and never wakes a fenced lease."""

from __future__ import annotations

import msgspec
import pytest

from federation.core.ids import Ids
from federation.core.leases import lease_name
from federation.core.relay import TRIES_MAX, Relay, RelayAnswer, RelayEffect, Sighting
from federation.protocol.messages import LeaseBody, Renewal, RenewalAnswer, decode_lease, encode_lease
from storage.backends.memory import MemoryStore
from storage.blob import BlobFailed, BlobGet, BlobReplace, BlobWritten, Outcome, perform

NAME = lease_name("l", "a")
ACTIVE = LeaseBody(cluster="a", state="Active", epoch=2, floor=77, renew_seq=5, holder_uid="kube-a")
RENEWAL = Renewal(
    ask_id=9, cluster="a", epoch=2, renew_seq=6, ttl_s=30.0, holder_uid="kube-a", holder_boot="b", nonce="n-6"
)


class Desk:
    """A relay over a memory store, step by step."""

    def __init__(self, body: LeaseBody = ACTIVE) -> None:
        self.store = MemoryStore()
        self.store.create(NAME, encode_lease(body))
        ids = Ids("boot")
        self.relay = Relay(ids.op, ids.nonce)
        self.answers: list[RenewalAnswer] = []
        self.todo: list[RelayEffect] = []
        self.seen: list[Sighting] = []

    def ask(self, renewal: Renewal = RENEWAL) -> None:
        self._sort(self.relay.ask(1, renewal, NAME, 0.0))

    def step(self, outcome: Outcome | None = None, *, lands: bool = True) -> None:
        """Carry out what is to do; a write may be answered with `outcome` whether it lands or not."""
        effect = self.todo.pop(0)
        assert isinstance(effect, BlobGet | BlobReplace)
        event = perform(self.store, effect) if lands else None
        if outcome is not None or event is None:
            event = BlobWritten(effect.op, outcome or Outcome.UNKNOWN)
        self._sort(self.relay.handle(event, 0.0))

    def fail(self) -> None:
        effect = self.todo.pop(0)
        assert isinstance(effect, BlobGet)
        self._sort(self.relay.handle(BlobFailed(effect.op, "down"), 0.0))

    def stands(self) -> LeaseBody:
        blob = self.store.get(NAME)
        assert blob is not None
        return decode_lease(blob.data)

    def put(self, body: LeaseBody) -> None:
        blob = self.store.get(NAME)
        assert blob is not None
        assert self.store.replace(NAME, encode_lease(body), blob.version).outcome is Outcome.DONE

    def _sort(self, effects: list[RelayEffect]) -> None:
        for effect in effects:
            match effect:
                case RelayAnswer(answer=answer):
                    self.answers.append(answer)
                case Sighting():
                    self.seen.append(effect)
                case _:
                    self.todo.append(effect)

    @property
    def results(self) -> list[str]:
        return [answer.result for answer in self.answers]


def test_a_renewal_is_answered_after_its_swap_with_the_body_that_stands() -> None:
    desk = Desk()
    desk.ask()
    desk.step()
    assert desk.answers == []
    desk.step()
    assert desk.results == ["renewed"]
    assert desk.answers[0].body == desk.stands()
    assert (desk.stands().renew_seq, desk.stands().floor) == (6, 77)
    assert [sighting.body.renew_seq for sighting in desk.seen] == [5, 6]


@pytest.mark.parametrize(
    ("change", "result"),
    [
        ({"state": "Fenced"}, "fenced"),
        ({"epoch": 3}, "stale"),
        ({"renew_seq": 7}, "stale"),
        ({"renew_seq": 6, "renewal_nonce": "n-6"}, "renewed"),
        ({"renew_seq": 6, "renewal_nonce": "another"}, "stale"),
        ({"holder_uid": "kube-b"}, "wrong-holder"),
    ],
)
def test_what_needs_no_write_is_answered_from_the_lease_as_read(change: dict[str, object], result: str) -> None:
    body = msgspec.structs.replace(ACTIVE, **change)
    desk = Desk(body)
    desk.ask()
    desk.step()
    assert desk.results == [result]
    assert desk.stands() == body


def test_a_lost_reply_of_an_applied_swap_is_found_out_by_reading_back() -> None:
    desk = Desk()
    desk.ask()
    desk.step()
    desk.step(Outcome.UNKNOWN)
    desk.step()
    assert desk.results == ["renewed"]
    assert desk.stands().renew_seq == 6


def test_a_swap_that_did_not_land_is_repeated_and_never_answered_before() -> None:
    desk = Desk()
    desk.ask()
    desk.step()
    desk.step(Outcome.UNKNOWN, lands=False)
    assert desk.answers == []
    desk.step()
    desk.step()
    assert desk.results == ["renewed"]
    assert desk.stands().renew_seq == 6


def test_a_fence_between_read_and_swap_wins() -> None:
    desk = Desk()
    desk.ask()
    desk.step()
    desk.put(msgspec.structs.replace(ACTIVE, state="Fenced", epoch=3))
    desk.step()
    desk.step()
    assert desk.results == ["fenced"]
    assert desk.stands().state == "Fenced"


def test_a_relay_gives_up_after_its_tries() -> None:
    desk = Desk()
    desk.ask()
    for _ in range(TRIES_MAX):
        desk.step()
        desk.step(Outcome.REFUSED, lands=False)
    desk.step()
    assert desk.results == ["unavailable"]


def test_a_store_that_does_not_answer_is_unavailable_and_so_is_a_lease_that_is_not_there() -> None:
    desk = Desk()
    desk.ask()
    desk.fail()
    desk.store.delete(NAME)
    desk.ask()
    desk.step()
    assert desk.results == ["unavailable", "unavailable"]
