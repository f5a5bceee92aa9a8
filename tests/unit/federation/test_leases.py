"""The leases as one replica sees them: silence that was watched, writes that are resolved by looking."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from federation.core.ids import Ids
from federation.core.leases import Leases, Look, lease_name
from federation.protocol.lease import Timings
from federation.protocol.messages import LeaseBody, decode_lease, encode_lease
from placement.model import ClusterName
from storage.backends.memory import MemoryStore
from storage.blob import BlobEffect, BlobEvent, BlobFailed, BlobGet, BlobWritten, Outcome, perform

A = ClusterName("a")
NAME = lease_name("l", "a")
ACTIVE = LeaseBody(cluster="a", state="Active", epoch=3, floor=5, ttl_s=30.0, renew_seq=1)
W_S = Timings().window_s(30.0)


class Watch:
    def __init__(self, body: LeaseBody | None = ACTIVE) -> None:
        self.store = MemoryStore()
        self.leases = Leases(Timings(), Ids("boot"))
        self.leases.begin("l", 0.0)
        if body is not None:
            self.store.create(NAME, encode_lease(body))

    def look(self, now_s: float, *, fails: bool = False, answered_at_s: float | None = None) -> bool:
        """One read; whether it brought news."""
        (effect,) = self.leases.read(A, now_s)
        assert isinstance(effect, BlobGet)
        event: BlobEvent = BlobFailed(effect.op, "down") if fails else perform(self.store, effect)
        _, _, news = self.leases.handle(event, answered_at_s or now_s)
        return news

    def put(self, **changes: Any) -> None:
        blob = self.store.get(NAME)
        assert blob is not None
        body = msgspec.structs.replace(decode_lease(blob.data), **changes)
        self.store.replace(NAME, encode_lease(body), blob.version)

    def stands(self) -> LeaseBody:
        blob = self.store.get(NAME)
        assert blob is not None
        return decode_lease(blob.data)

    def carry_out(self, effects: list[BlobEffect], now_s: float, outcome: Outcome | None = None) -> None:
        """Do what is asked and what follows; the first write may be answered with `outcome`, whatever it did."""
        while effects:
            effect = effects.pop(0)
            event = perform(self.store, effect)
            if outcome is not None and isinstance(event, BlobWritten):
                event, outcome = BlobWritten(effect.op, outcome), None
            effects += self.leases.handle(event, now_s)[0]

    def lost(self) -> list[str]:
        return [lease.cluster for lease in self.leases.lost()]


@pytest.mark.parametrize(("last_look_s", "lost"), [(W_S - 0.1, []), (W_S, ["a"])])
def test_a_lease_is_lost_after_its_whole_window_without_a_renewal(last_look_s: float, lost: list[str]) -> None:
    watch = Watch()
    watch.look(0.0)
    watch.look(last_look_s)
    assert watch.lost() == lost


def test_the_window_counts_from_the_answer_of_the_first_look_to_the_asking_of_the_last() -> None:
    watch = Watch()
    watch.look(0.0, answered_at_s=4.0)
    watch.look(W_S + 3.9, answered_at_s=W_S + 60.0)
    assert watch.lost() == []
    watch.look(W_S + 4.0)
    assert watch.lost() == ["a"]


def test_a_renewal_a_failed_look_and_a_pause_each_begin_the_window_anew() -> None:
    for disturb in ("renewal", "failed look", "pause"):
        watch = Watch()
        watch.look(0.0)
        match disturb:
            case "renewal":
                watch.put(renew_seq=2)
                watch.look(20.0)
            case "failed look":
                watch.look(20.0, fails=True)
            case _:
                watch.leases.was_paused(20.0)
        watch.look(W_S + 19.9)
        assert watch.lost() == [], disturb
        watch.look(W_S + 20.0)
        assert watch.lost() == ["a"], disturb


def test_an_older_sighting_that_arrives_late_changes_nothing() -> None:
    watch = Watch()
    watch.put(renew_seq=7)
    watch.look(0.0)
    assert not watch.leases.saw(ACTIVE, "old", asked_at_s=0.0, now_s=1.0)
    assert watch.leases.body("a") == watch.stands()


def test_a_fence_goes_against_the_version_whose_silence_was_measured() -> None:
    watch = Watch()
    watch.look(0.0)
    watch.put(renew_seq=2)  # renewed meanwhile, and not seen
    watch.carry_out(watch.leases.fence(A, 50.0), 50.0)
    assert (watch.stands().state, watch.stands().renew_seq) == ("Active", 2)
    assert watch.leases.body("a") == watch.stands()
    assert not watch.leases.busy(A)


def test_a_fence_raises_the_epoch_and_is_news() -> None:
    watch = Watch()
    watch.look(0.0)
    watch.carry_out(watch.leases.fence(A, 50.0), 50.0)
    assert (watch.stands().state, watch.stands().epoch, watch.stands().floor) == ("Fenced", 4, 5)
    assert watch.leases.body("a") == watch.stands()


@pytest.mark.parametrize("lands", [True, False])
def test_an_unknown_fence_is_resolved_by_what_stands(lands: bool) -> None:
    watch = Watch()
    watch.look(0.0)
    effects = watch.leases.fence(A, 50.0)
    if lands:
        watch.carry_out(effects, 50.0, Outcome.UNKNOWN)
    else:
        (effect,) = effects
        again, _, _ = watch.leases.handle(BlobWritten(effect.op, Outcome.UNKNOWN), 50.0)
        watch.carry_out(again, 50.0)
    assert watch.stands().state == ("Fenced" if lands else "Active")
    assert watch.leases.body("a") == watch.stands()


def test_an_admission_keeps_epoch_and_count_and_sets_the_floor() -> None:
    watch = Watch(msgspec.structs.replace(ACTIVE, state="Fenced"))
    watch.look(0.0)
    watch.carry_out(watch.leases.admit(A, 99, 1.0), 1.0)
    stands = watch.stands()
    assert (stands.state, stands.epoch, stands.renew_seq, stands.floor) == ("Active", 3, 1, 99)


def test_a_missing_lease_is_created_fenced() -> None:
    watch = Watch(None)
    assert watch.look(0.0)
    assert watch.leases.look("a") is Look.ABSENT
    watch.carry_out(watch.leases.create_fenced(A, 1, 30.0, 1.0), 1.0)
    assert (watch.stands().state, watch.stands().epoch) == ("Fenced", 1)
    assert watch.leases.look("a") is Look.SEEN


def test_a_lease_that_cannot_be_read_is_neither_lost_nor_absent() -> None:
    watch = Watch(None)
    watch.store.create(NAME, b"garbage")
    watch.look(0.0)
    watch.look(W_S + 1.0)
    assert watch.leases.look("a") is Look.UNREADABLE
    assert watch.lost() == []


def test_one_read_is_in_flight_at_a_time_and_a_wish_meanwhile_is_kept() -> None:
    watch = Watch()
    (first,) = watch.leases.read(A, 0.0)
    assert watch.leases.read(A, 0.0) == []
    again, _, _ = watch.leases.handle(perform(watch.store, first), 0.0)
    assert len(again) == 1
    assert watch.leases.handle(perform(watch.store, again[0]), 0.0)[0] == []


@pytest.mark.parametrize(("failing", "doubt"), [(1, False), (2, True)])
def test_failing_reads_of_most_leases_are_a_doubt_about_ourselves(failing: int, doubt: bool) -> None:
    leases = Leases(Timings(), Ids("boot"))
    leases.begin("l", 0.0)
    for index, cluster in enumerate((ClusterName("a"), ClusterName("b"), ClusterName("c"))):
        (effect,) = leases.read(cluster, 0.0)
        event: BlobEvent = BlobFailed(effect.op, "down") if index < failing else perform(MemoryStore(), effect)
        leases.handle(event, 0.0)
    assert leases.mostly_unreadable() == doubt


def test_a_lease_that_was_seen_while_relaying_is_not_read_until_a_period_has_passed() -> None:
    watch = Watch()
    period_s = Timings().lease_read_s
    watch.carry_out(watch.leases.read_due([A], 0.0), 0.0)
    relayed = msgspec.structs.replace(ACTIVE, renew_seq=2)
    watch.leases.saw(relayed, "2", asked_at_s=0.1, now_s=0.2)
    assert watch.leases.read_due([A], period_s) == []
    assert len(watch.leases.read_due([A], 2 * period_s)) == 1


def test_after_a_pause_every_lease_is_read_whatever_was_seen_before() -> None:
    watch = Watch()
    period_s = Timings().lease_read_s
    watch.carry_out(watch.leases.read_due([A], 0.0), 0.0)
    watch.leases.saw(msgspec.structs.replace(ACTIVE, renew_seq=2), "2", asked_at_s=4.9, now_s=4.9)
    watch.leases.was_paused(5.0)
    assert len(watch.leases.read_due([A], period_s)) == 1
