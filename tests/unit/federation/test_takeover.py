"""Several servers: followers answer, one leads, and whoever takes over continues where the other stopped."""

from __future__ import annotations

import pytest

from federation.core.events import Accepted, Declined, PersonAsked, Refused, ReportArrived, SetIntent, SubmitGroup
from federation.core.ids import OWN_OPS_FROM
from federation.core.records import (
    ClusterAdmitted,
    ClusterFenced,
    ClusterJoined,
    FenceDone,
    Placed,
    encode_record,
)
from federation.core.state import FoldError
from federation.protocol.messages import DesiredAnswer, DesiredAsk, Report, SpecAsk, Stamp, Verdict
from placement.model import Phase
from storage.blob import (
    BlobCreate,
    BlobEffect,
    BlobEvent,
    BlobFailed,
    BlobGet,
    BlobReplace,
    BlobWritten,
    Outcome,
    perform,
)
from storage.entry import EntryKind, entry_name, position
from storage.journal import UNCONFIRMED_MAX, Entry, EntryLanded
from tests.unit.federation.pump import TIMINGS, pod_group, started

TAKEOVER_S = 25.0  # silence, its jitter, and the election


def test_a_follower_says_who_leads() -> None:
    pump = started(servers=3)
    follower = next(name for name in pump.up if not pump.replicas[name].leading)
    answer = pump.ask(SubmitGroup(pod_group("train"), "r1", "sara"), server=follower)
    assert answer == Declined(Refused.NOT_LEADER, pump.leader.name)


def test_every_server_answers_desired_state_from_what_it_has_folded() -> None:
    pump = started(servers=3)
    pump.join("a")
    uid = pump.submit("train")
    pump.run(2.0)
    for name in pump.up:
        ask = DesiredAsk(ask_id=1, cluster="a", since=0)
        answer = pump.ask_agent("a", ask, server=name)
        assert isinstance(answer, DesiredAnswer)
        assert [group.uid for group in answer.groups] == [uid]
        assert answer.as_of == pump.replicas[name].state.head


def test_a_server_that_has_not_caught_up_answers_no_desired_state() -> None:
    pump = started()
    pump.join("a")
    for index in range(UNCONFIRMED_MAX):  # so many entries that they land in two portions
        pump.submit(f"g-{index}")
    replica = pump.start("server-9")
    while not replica.state.head:
        pump.step()
    ask = DesiredAsk(ask_id=1, cluster="a", since=0)
    assert replica.state.cluster("a") is not None
    assert pump.ask_agent("a", ask, server="server-9") is None
    pump.run(1.0)
    answer = pump.ask_agent("a", ask, server="server-9")
    assert isinstance(answer, DesiredAnswer)
    assert answer.as_of == pump.leader.state.head


def test_what_was_accepted_survives_the_death_of_the_leader() -> None:
    pump = started(servers=3)
    pump.join("a")
    uid = pump.submit("train")
    home = pump.group(uid).home
    pump.stop(pump.leader.name)
    pump.run(TAKEOVER_S)
    assert pump.leader.state.groups[pump.group(uid).uid].home == home
    assert pump.members["a"].verdict(uid, "Bound", pods=1) is not None
    assert pump.group(uid).phase is Phase.BOUND


def test_a_repeated_request_is_answered_alike_by_the_next_leader() -> None:
    pump = started(servers=3)
    request = SubmitGroup(pod_group("train"), "r1", "sara")
    first = pump.ask(request)
    pump.stop(pump.leader.name)
    pump.run(TAKEOVER_S)
    assert pump.ask(request) == first


def test_requests_in_flight_when_leadership_is_lost_get_no_false_answer() -> None:
    pump = started(servers=2)
    old = pump.leader.name
    doubt = {"on": True}

    def lose_writes(name: str, effect: BlobEffect) -> BlobEvent | None:
        if name == old and doubt["on"] and isinstance(effect, BlobCreate):
            return BlobWritten(effect.op, Outcome.UNKNOWN)  # and it never lands
        return None

    pump.on_store = lose_writes
    assert pump.ask(SubmitGroup(pod_group("train"), "r1", "sara")) is None
    in_flight = pump.last_ticket
    assert pump.ask(SubmitGroup(pod_group("other"), "r2", "sara")) is None
    queued = pump.last_ticket
    pump.run(TAKEOVER_S)
    answers = [pump.answer(in_flight), pump.answer(queued)]
    assert [answer.why for answer in answers if isinstance(answer, Declined)] == [
        Refused.UNAVAILABLE,
        Refused.NOT_LEADER,
    ]
    doubt["on"] = False
    assert pump.state.groups == {}


def test_a_write_whose_outcome_is_unknown_but_landed_is_answered_once_it_is_known() -> None:
    pump = started()
    lost = {"count": 0}

    def lose_one_reply(name: str, effect: BlobEffect) -> BlobEvent | None:
        if isinstance(effect, BlobCreate) and effect.name.startswith("journal/") and not lost["count"]:
            lost["count"] = 1
            pump.store.create(effect.name, effect.data)
            return BlobWritten(effect.op, Outcome.UNKNOWN)
        return None

    pump.on_store = lose_one_reply
    answer = pump.ask(SubmitGroup(pod_group("train"), "r1", "sara"))
    assert lost["count"] == 1
    assert isinstance(answer, Accepted)
    assert pump.state.group(answer.uid) is not None


def test_a_leader_that_was_cut_off_refuses_nothing_from_what_it_knew_before() -> None:
    pump = started(servers=2)
    old = pump.leader
    cut = {"on": True}

    def only_writes_arrive(name: str, effect: BlobEffect) -> BlobEvent | None:
        if name != old.name or not cut["on"]:
            return None
        if isinstance(effect, BlobCreate | BlobReplace):
            perform(pump.store, effect)
            return BlobWritten(effect.op, Outcome.UNKNOWN)
        return BlobFailed(effect.op, "cut off")

    pump.on_store = only_writes_arrive
    assert pump.ask(SubmitGroup(pod_group("first"), "r-1", "sara"), server=old.name) is None  # and it has landed
    first = pump.last_ticket
    pump.run(TAKEOVER_S)
    new = next(replica for replica in pump.replicas.values() if replica is not old)
    assert new.leading
    accepted = pump.ask(SubmitGroup(pod_group("second"), "r-2", "sara"), server=new.name)
    assert isinstance(accepted, Accepted)

    assert pump.ask(SetIntent(accepted.uid, "suspend", "", "r-3", "sara"), server=old.name) is None
    refused = pump.last_ticket
    assert pump.ask(SubmitGroup(pod_group("second"), "r-4", "sara"), server=old.name) is None
    cut["on"] = False
    pump.run(2.0)
    assert isinstance(pump.answer(first), Accepted)
    answers = [pump.answer(refused), pump.answer(refused + 1)]
    assert [answer.why for answer in answers if isinstance(answer, Declined)] == [
        Refused.NOT_LEADER,
        Refused.UNAVAILABLE,
    ]
    assert not old.leading


def test_a_refusal_is_said_only_after_a_look_that_found_nobody_else_writing() -> None:
    pump = started()
    looks: list[str] = []
    fails = {"left": 1}

    def fail_one_look(_: str, effect: BlobEffect) -> BlobEvent | None:
        if isinstance(effect, BlobGet) and effect.op > OWN_OPS_FROM:
            looks.append(effect.name)
            if fails["left"]:
                fails["left"] -= 1
                return BlobFailed(effect.op, "down")
        return None

    pump.on_store = fail_one_look
    next_entry = entry_name(pump.leader.journal.next_seq)
    assert pump.ask(SetIntent("nobody", "cancel", "", "r-1", "sara")) is None
    ticket = pump.last_ticket
    pump.run(0.6)
    answer = pump.answer(ticket)
    assert isinstance(answer, Declined)
    assert answer.why is Refused.UNKNOWN_GROUP
    assert looks == [next_entry, next_entry]


def test_only_the_leader_answers_verdicts() -> None:
    pump = started(servers=2)
    pump.join("a")
    uid = pump.submit("train")
    pump.run(2.0)
    follower = next(name for name in pump.up if not pump.replicas[name].leading)
    token = str(pump.group(uid).home.token)  # type: ignore[union-attr]
    verdict = Verdict(ask_id=1, cluster="a", uid=uid, token=token, verdict="Bound", pods=1)
    assert pump.ask_agent("a", verdict, server=follower) is None
    assert pump.group(uid).phase is Phase.PLACED


def test_a_takeover_restarts_the_wait_after_a_fence() -> None:
    pump = started(servers=3)
    pump.join("a", "b", "c", "d")
    uid = pump.submit("train")
    home = pump.group(uid).home
    assert home is not None
    pump.members[home.cluster].alive = False
    fence_wait_s = TIMINGS.fence_wait_s(30.0)
    pump.run(TIMINGS.window_s(30.0) + 10.0)
    assert not pump.cluster(home.cluster).admitted
    pump.run(fence_wait_s - 15.0)
    pump.stop(pump.leader.name)
    pump.run(TAKEOVER_S)
    assert pump.leader.state.group(uid).home == home  # type: ignore[union-attr]
    pump.run(fence_wait_s)
    assert pump.group(uid).home != home
    done = [line for line in pump.folded[pump.leader.name] if isinstance(line.record, FenceDone)]
    assert len(done) == 1


def test_a_new_leader_repeats_the_swap_of_an_admission_on_record_and_places_nothing_before() -> None:
    pump = started(servers=2)
    old = pump.leader.name

    def lose_swaps(name: str, effect: BlobEffect) -> BlobEvent | None:
        if name == old and isinstance(effect, BlobReplace):
            return BlobWritten(effect.op, Outcome.UNKNOWN)  # and it never lands
        return None

    pump.on_store = lose_swaps
    pump.join("a")
    uid = pump.submit("train")
    assert pump.cluster("a").admitted
    assert pump.group(uid).home is None
    pump.stop(old)
    pump.run(TAKEOVER_S + 10.0)
    assert pump.group(uid).home is not None
    kinds = [type(line.record) for line in pump.folded[pump.leader.name]]
    assert kinds.count(ClusterAdmitted) == 1


def test_a_new_leader_records_a_fence_that_it_finds_without_its_record() -> None:
    pump = started(servers=2)
    pump.join("a", "b")
    uid = pump.submit("train")
    home = pump.group(uid).home
    assert home is not None
    old = pump.leader
    pump.tell(old.name, PersonAsked(9_999, SubmitGroup(pod_group("other"), "r", "sara")))
    pump.members[home.cluster].alive = False
    pump.run(TIMINGS.window_s(30.0) - 6.0)
    pump.stop(old.name)  # it fences in its last moment, and dies before the record
    for effect in old.leases.fence(home.cluster, pump.now_s):
        assert isinstance(effect, BlobReplace)
        assert pump.store.replace(effect.name, effect.data, effect.version).outcome is Outcome.DONE
    pump.run(TAKEOVER_S)
    fenced = [line.record for line in pump.folded[pump.leader.name] if isinstance(line.record, ClusterFenced)]
    assert (fenced[-1].cluster, fenced[-1].epoch) == (home.cluster, 2)


def test_all_servers_fold_the_same_records() -> None:
    pump = started(servers=3)
    pump.join("a", "b")
    for index in range(6):
        pump.submit(f"train-{index}")
    pump.run(3.0)
    lines = [[(line.position, line.record) for line in pump.folded[name]] for name in pump.up]
    assert lines[0] == lines[1] == lines[2]
    assert sum(isinstance(record, Placed) for _, record in lines[0]) == 6


def test_nobody_speaks_for_a_cluster_but_its_own_credential() -> None:
    pump = started()
    a, b = pump.join("a", "b")
    pump.submit("train")
    for ask in (
        DesiredAsk(ask_id=1, cluster="a", since=0),
        SpecAsk(ask_id=2, cluster="a", uid=next(iter(pump.state.groups))),
        a.lease.renew(pump.now_s, nonce="n", ask_id=3),
    ):
        assert pump.ask_agent("b", ask) is None
    before = pump.leader.views.get("a")
    assert before is not None
    forged = Report(cluster="a", lineage=pump.state.lineage, stamp=Stamp(9, 9), applied=0)
    pump.tell_all(ReportArrived("b", forged))
    after = pump.leader.views.get("a")
    assert after is not None
    assert after.stamp == before.stamp
    assert b.alive
    assert {note.event for note in pump.notes} >= {"ask.wrong_principal", "report.set_aside"}


def test_a_void_entry_is_passed_over_and_nothing_in_it_is_folded() -> None:
    pump = started()
    replica = pump.leader
    record = encode_record(ClusterJoined(cluster="ghost"))
    first = position(99)
    void = Entry(99, 1, EntryKind.BATCH, "old", (record, record), first, own=False, void=True)
    replica._follow_journal([EntryLanded(void)])
    assert replica.state.cluster("ghost") is None
    assert replica.state.head == first + 1


def test_a_record_that_cannot_be_folded_stops_the_server_and_names_its_position() -> None:
    pump = started()
    replica = pump.leader
    record = encode_record(ClusterAdmitted(cluster="nowhere", epoch=1))
    first = position(99)
    with pytest.raises(FoldError, match=f"ClusterAdmitted at position {first}"):
        replica._follow_journal(
            [EntryLanded(Entry(99, 1, EntryKind.BATCH, "x", (record,), first, own=False, void=False))]
        )


def test_a_server_that_stood_still_blames_nobody_for_it() -> None:
    pump = started()
    (a,) = pump.join("a")
    pump.now_s += 100.0  # suspended, and its world with it: no renewal, no report, no tick
    a.due_s = pump.now_s + 3.0
    pump.run(2.5)
    assert not pump.leader.views.silent("a", pump.now_s)
    body = pump.leader.leases.body("a")
    assert body is not None
    assert body.state == "Active"
    pump.run(60.0)
    assert pump.cluster("a").admitted_epoch == 1
