"""Lease rules, one by one: what an agent, a relay and an observer may conclude (DESIGN §9, §11)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from federation.protocol.lease import (
    FORMAT_UNDERSTOOD,
    RENEWALS_PENDING_MAX,
    TTL_S_MAX,
    AgentLease,
    LeaseNews,
    LeaseObserver,
    LeaseState,
    RenewalResult,
    Timings,
    apply_renewal,
)
from federation.protocol.messages import LeaseBody, Renewal, RenewalAnswer

ACTIVE = LeaseBody(
    cluster="eu", state=LeaseState.ACTIVE, epoch=3, floor=100, ttl_s=60.0, renew_seq=7, renewal_nonce="n7"
)
FENCED = msgspec.structs.replace(ACTIVE, state=LeaseState.FENCED, epoch=4)


def renewal(*, epoch: int = 3, seq: int = 8, nonce: str = "n8", uid: str = "uid-eu", ttl_s: float = 60.0) -> Renewal:
    return Renewal(
        ask_id=1, cluster="eu", epoch=epoch, renew_seq=seq, ttl_s=ttl_s, holder_uid=uid, holder_boot="b1", nonce=nonce
    )


def agent(*, started_at_s: float = 0.0) -> AgentLease:
    return AgentLease(cluster="eu", holder_uid="uid-eu", holder_boot="b1", ttl_s=60.0, started_at_s=started_at_s)


def live_agent(*, asked_at_s: float = 0.0) -> AgentLease:
    lease = agent()
    lease.epoch, lease.renew_seq = 3, 7
    ask = lease.renew(asked_at_s, nonce="n8", ask_id=1)
    body = apply_renewal(ACTIVE, ask, nonce="w")
    assert isinstance(body, LeaseBody)
    assert lease.answered(RenewalAnswer(ask_id=1, result="renewed", body=body)) is LeaseNews.RENEWED
    return lease


# --- relay -----------------------------------------------------------------------------------------------------------


def test_a_relay_writes_a_higher_number_of_the_right_epoch() -> None:
    body = apply_renewal(ACTIVE, renewal(), nonce="w")
    assert isinstance(body, LeaseBody)
    assert (body.renew_seq, body.renewal_nonce, body.floor, body.epoch) == (8, "n8", 100, 3)


def test_a_relay_never_turns_a_fenced_lease_active() -> None:
    assert apply_renewal(FENCED, renewal(epoch=4, seq=99), nonce="w") is RenewalResult.FENCED


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"seq": 6, "nonce": "n6"}, RenewalResult.STALE),
        ({"seq": 7, "nonce": "n7"}, RenewalResult.RENEWED),
        ({"seq": 7, "nonce": "of-another-boot"}, RenewalResult.STALE),
        ({"epoch": 2}, RenewalResult.STALE),
        ({"epoch": 9}, RenewalResult.STALE),
    ],
    ids=[
        "lower number",
        "the same on the other path",
        "same number of another boot",
        "older epoch",
        "epoch unheard of",
    ],
)
def test_a_relay_answers_without_writing(changes: dict[str, object], answer: RenewalResult) -> None:
    assert apply_renewal(ACTIVE, renewal(**changes), nonce="w") is answer  # type: ignore[arg-type]


def test_a_renewal_from_another_cluster_behind_the_same_name_is_refused() -> None:
    held = msgspec.structs.replace(ACTIVE, holder_uid="uid-eu")
    assert apply_renewal(held, renewal(uid="uid-impostor"), nonce="w") is RenewalResult.WRONG_HOLDER


@pytest.mark.parametrize(("ttl_s", "stored_s"), [(TTL_S_MAX, TTL_S_MAX), (TTL_S_MAX + 1, TTL_S_MAX)], ids=["n", "n+1"])
def test_a_relay_bounds_the_ttl(ttl_s: float, stored_s: float) -> None:
    body = apply_renewal(ACTIVE, renewal(ttl_s=ttl_s), nonce="w")
    assert isinstance(body, LeaseBody)
    assert body.ttl_s == stored_s


# --- agent -----------------------------------------------------------------------------------------------------------


def test_a_starting_agent_has_no_right_to_start_anything() -> None:
    assert not agent().live(0.0)
    assert agent().remaining_s(0.0) == 0.0


def test_the_deadline_counts_from_before_the_renewal_was_sent() -> None:
    lease = live_agent(asked_at_s=1_000.0)
    assert lease.deadline_s == 1_060.0
    assert lease.live(1_059.9)
    assert not lease.live(1_060.0)


def test_an_answer_to_an_older_renewal_does_not_shorten_the_deadline() -> None:
    lease = live_agent(asked_at_s=0.0)
    first = lease.renew(10.0, nonce="n9", ask_id=2)
    second = lease.renew(20.0, nonce="n10", ask_id=3)
    for ask in (second, first):
        body = msgspec.structs.replace(ACTIVE, renew_seq=ask.renew_seq)
        lease.answered(RenewalAnswer(ask_id=ask.ask_id, result="renewed", body=body))
    assert lease.deadline_s == 80.0


def test_a_new_boot_continues_the_numbers_of_the_one_before() -> None:
    lease = agent()
    ask = lease.renew(0.0, nonce="a", ask_id=1)
    assert apply_renewal(ACTIVE, ask, nonce="w") is RenewalResult.STALE
    lease.answered(RenewalAnswer(ask_id=1, result="stale", body=ACTIVE))
    again = lease.renew(1.0, nonce="b", ask_id=2)
    assert (again.epoch, again.renew_seq) == (3, 8)


def test_a_new_boot_never_announces_less_time_than_the_one_before_may_still_hold() -> None:
    lease = AgentLease(cluster="eu", holder_uid="u", holder_boot="b2", ttl_s=30.0, started_at_s=100.0)
    lease.renew(100.0, nonce="a", ask_id=1)
    body = msgspec.structs.replace(ACTIVE, holder_boot="b1", ttl_s=600.0)
    lease.answered(RenewalAnswer(ask_id=1, result="stale", body=body))
    assert lease.renew(101.0, nonce="b", ask_id=2).ttl_s == 599.0


def test_a_fenced_agent_loses_its_deadline_and_learns_the_epoch() -> None:
    lease = live_agent()
    lease.renew(5.0, nonce="n9", ask_id=2)
    assert lease.answered(RenewalAnswer(ask_id=2, result="fenced", body=FENCED)) is LeaseNews.FENCED
    assert lease.deadline_s is None
    assert lease.epoch == 4


def test_a_late_answer_of_an_older_epoch_changes_nothing() -> None:
    lease = live_agent()
    lease.renew(5.0, nonce="n9", ask_id=2)
    lease.renew(6.0, nonce="n10", ask_id=3)
    lease.answered(RenewalAnswer(ask_id=3, result="fenced", body=FENCED))
    assert lease.answered(RenewalAnswer(ask_id=2, result="renewed", body=ACTIVE)) is LeaseNews.NOTHING
    assert lease.deadline_s is None


def test_an_admitted_agent_learns_its_floor_with_the_renewal() -> None:
    lease = agent()
    lease.epoch, lease.renew_seq = 4, 7
    ask = lease.renew(0.0, nonce="x", ask_id=1)
    admitted = msgspec.structs.replace(FENCED, state=LeaseState.ACTIVE, floor=4_242)
    body = apply_renewal(admitted, ask, nonce="w")
    assert isinstance(body, LeaseBody)
    lease.answered(RenewalAnswer(ask_id=1, result="renewed", body=body))
    assert lease.floor == 4_242


@pytest.mark.parametrize(
    ("later", "news"), [(RENEWALS_PENDING_MAX - 1, LeaseNews.RENEWED), (RENEWALS_PENDING_MAX, LeaseNews.NOTHING)]
)
def test_an_answer_counts_only_while_its_question_is_remembered(later: int, news: LeaseNews) -> None:
    lease = agent()
    lease.epoch = 3
    lease.renew(0.0, nonce="first", ask_id=0)
    for number in range(1, later + 1):
        lease.renew(float(number), nonce=str(number), ask_id=number)
    assert lease.answered(RenewalAnswer(ask_id=0, result="renewed", body=ACTIVE)) is news


# --- observer --------------------------------------------------------------------------------------------------------

TIMINGS = Timings(ttl_s=60.0)
WINDOW_S = 72.4  # 60 * 1.04 + 10


def watched(*reads_s: float, body: LeaseBody = ACTIVE) -> LeaseObserver:
    observer = LeaseObserver(TIMINGS)
    for at_s in reads_s:
        observer.saw(body, "v1", asked_at_s=at_s, now_s=at_s)
    return observer


def test_a_lease_is_lost_after_a_whole_window_of_confirmed_silence() -> None:
    assert watched(0.0, WINDOW_S - 0.1).lost() == []
    assert [lost.cluster for lost in watched(0.0, WINDOW_S).lost()] == ["eu"]


def test_silence_is_confirmed_only_up_to_when_the_last_read_was_sent() -> None:
    observer = watched(0.0)
    observer.saw(ACTIVE, "v1", asked_at_s=50.0, now_s=500.0)
    assert observer.lost() == []


def test_a_renewal_seen_starts_the_window_anew() -> None:
    observer = watched(0.0, 70.0)
    observer.saw(msgspec.structs.replace(ACTIVE, renew_seq=8), "v2", asked_at_s=71.0, now_s=71.0)
    observer.saw(msgspec.structs.replace(ACTIVE, renew_seq=8), "v2", asked_at_s=100.0, now_s=100.0)
    assert observer.lost() == []


@pytest.mark.parametrize("trouble", ["could not look", "was paused"])
def test_the_window_starts_anew_when_the_observer_itself_was_blind(trouble: str) -> None:
    observer = watched(0.0, 60.0)
    if trouble == "could not look":
        observer.could_not_look("eu", 65.0)
    else:
        observer.was_paused(65.0)
    observer.saw(ACTIVE, "v1", asked_at_s=100.0, now_s=100.0)
    assert observer.lost() == []
    observer.saw(ACTIVE, "v1", asked_at_s=65.0 + WINDOW_S, now_s=65.0 + WINDOW_S)
    assert [lost.version for lost in observer.lost()] == ["v1"]


def test_a_fenced_lease_is_not_lost_again() -> None:
    assert watched(0.0, 1_000.0, body=FENCED).lost() == []


def test_the_window_is_that_of_the_ttl_in_the_lease_itself() -> None:
    short = msgspec.structs.replace(ACTIVE, ttl_s=6.0)
    assert [lost.cluster for lost in watched(0.0, 7.3, body=short).lost()] == ["eu"]


# --- after a restore -------------------------------------------------------------------------------------------------


def recovering(**fields: Any) -> LeaseBody:
    return LeaseBody(cluster="c-1", state=LeaseState.RECOVERING, **{"epoch": 2, "ttl_s": 3_600.0, **fields})


def test_a_recovering_lease_takes_the_epoch_that_the_agent_knows() -> None:
    lease = AgentLease("c-1", "uid", "boot", 30.0, 0.0, epoch=5, floor=900, renew_seq=70)
    renewal = lease.renew(10.0, nonce="r-1", ask_id=1)
    body = apply_renewal(recovering(), renewal, nonce="w-1")
    assert isinstance(body, LeaseBody)
    assert (body.state, body.epoch, body.renew_seq, body.ttl_s) == (LeaseState.RECOVERING, 5, 71, 30.0)
    assert apply_renewal(body, renewal, nonce="w-2") is RenewalResult.RENEWED
    assert lease.answered(RenewalAnswer(ask_id=1, result=RenewalResult.RENEWED, body=body)) is LeaseNews.RENEWED
    assert (lease.recovering, lease.deadline_s, lease.live(39.0)) == (True, 40.0, True)


def test_an_agent_of_an_epoch_before_the_backups_follows() -> None:
    lease = AgentLease("c-1", "uid", "boot", 30.0, 0.0, epoch=1)
    assert apply_renewal(recovering(), lease.renew(10.0, nonce="r", ask_id=1), nonce="w") is RenewalResult.STALE


def test_a_server_of_before_the_restore_does_not_end_the_recovery_and_the_admission_does() -> None:
    lease = AgentLease("c-1", "uid", "boot", 30.0, 0.0, epoch=5, floor=900)
    for ask_id in (1, 2, 3):
        lease.renew(10.0, nonce="r", ask_id=ask_id)
    lease.answered(RenewalAnswer(ask_id=1, result=RenewalResult.RENEWED, body=recovering(epoch=5, renew_seq=1)))
    old = LeaseBody(cluster="c-1", state=LeaseState.ACTIVE, epoch=5, floor=900)
    assert lease.answered(RenewalAnswer(ask_id=2, result=RenewalResult.RENEWED, body=old)) is LeaseNews.NOTHING
    assert lease.recovering
    admitted = LeaseBody(cluster="c-1", state=LeaseState.ACTIVE, epoch=5, floor=901)
    assert lease.answered(RenewalAnswer(ask_id=3, result=RenewalResult.RENEWED, body=admitted)) is LeaseNews.RENEWED
    assert (lease.recovering, lease.floor) == (False, 901)


def test_a_late_answer_from_before_the_admission_does_not_bring_the_recovery_back_and_a_second_restore_does() -> None:
    lease = AgentLease("c-1", "uid", "boot", 30.0, 0.0, epoch=2)
    for ask_id in (1, 2, 3):
        lease.renew(10.0, nonce="r", ask_id=ask_id)
    admitted = LeaseBody(cluster="c-1", state=LeaseState.ACTIVE, epoch=2, floor=900, renew_seq=2)
    lease.answered(RenewalAnswer(ask_id=2, result=RenewalResult.RENEWED, body=admitted))
    late = recovering(renew_seq=1, lineage="l-1")
    assert lease.answered(RenewalAnswer(ask_id=1, result=RenewalResult.RENEWED, body=late)) is LeaseNews.NOTHING
    assert (lease.recovering, lease.recovers) == (False, "")
    again = recovering(renew_seq=3, lineage="l-2")
    assert lease.answered(RenewalAnswer(ask_id=3, result=RenewalResult.RENEWED, body=again)) is LeaseNews.RENEWED
    assert (lease.recovering, lease.recovers) == (True, "l-2")


def test_a_lease_says_what_the_agent_that_renewed_it_understands() -> None:
    lease = AgentLease("c-1", "uid", "boot", 30.0, 0.0, epoch=1)
    renewal = lease.renew(10.0, nonce="r", ask_id=1)
    body = LeaseBody(cluster="c-1", state=LeaseState.ACTIVE, epoch=1)
    renewed = apply_renewal(body, renewal, nonce="w-1")
    older = apply_renewal(body, msgspec.structs.replace(renewal, understands=1), nonce="w-1")
    assert isinstance(renewed, LeaseBody)
    assert isinstance(older, LeaseBody)
    assert (renewal.understands, renewed.understands, older.understands) == (FORMAT_UNDERSTOOD, FORMAT_UNDERSTOOD, 1)
