"""A fleet that goes on from a backup hears every cluster first, takes up what runs, and only then places anything."""

from __future__ import annotations

from typing import Any

import pytest

from federation.core.events import Accepted, ConfirmDead, Declined, Refused, SubmitGroup
from federation.core.snapshots import SnapshotRhythm
from federation.protocol.lease import LeaseState
from federation.protocol.messages import DesiredAsk
from placement.model import Phase
from storage.backup import view
from storage.election import JournalTimings
from storage.reading import read_root
from storage.verify import verify
from tests.unit.federation.pump import pod_group
from tests.unit.federation.restores import backup_of, fleet, kinds, moved, restored


def test_what_runs_goes_on_under_its_token_and_the_clusters_are_admitted() -> None:
    pump, (agent,) = fleet("c-1")
    uid = pump.submit("train")
    pump.run(3.0)
    token = agent.starts(uid)
    again = restored(backup_of(pump), pump)
    deadline_s = agent.lease.deadline_s
    again.run(40.0)
    row = again.group(uid)
    assert row.home is not None
    assert (str(row.home.token), row.phase) == (token, Phase.BOUND)
    assert kinds(again) == ["Restored", "Recovered"]
    assert again.cluster("c-1").admitted
    assert agent.lease.live(again.now_s)
    assert agent.lease.deadline_s is not None
    assert deadline_s is not None
    assert agent.lease.deadline_s > deadline_s
    assert agent.lease.floor == again.cluster("c-1").admitted_at


def test_a_group_that_moved_after_the_backup_is_found_where_it_runs_now() -> None:
    pump, (one, other) = fleet("c-1", "c-2")
    other.gpus_free = [0] * other.nodes
    pump.run(6.0)
    uid = pump.submit("train")
    pump.run(3.0)
    one.starts(uid)
    place = backup_of(pump)
    token = moved(pump, uid, one, other)
    again = restored(place, pump)
    again.run(40.0)
    home = again.group(uid).home
    assert home is not None
    assert (home.cluster, str(home.token)) == ("c-2", token)
    assert kinds(again) == ["Restored", "Unheld", "Adopted", "Recovered"]


def test_a_group_that_waited_in_the_backup_and_runs_now_is_taken_up() -> None:
    pump, (agent,) = fleet("c-1")
    agent.gpus_free = [0] * agent.nodes
    pump.run(6.0)
    uid = pump.submit("train")
    pump.run(3.0)
    place = backup_of(pump)
    agent.gpus_free = [8] * agent.nodes
    pump.run(10.0)
    token = agent.starts(uid)
    again = restored(place, pump)
    again.run(40.0)
    home = again.group(uid).home
    assert home is not None
    assert str(home.token) == token
    assert kinds(again) == ["Restored", "Adopted", "Recovered"]


def test_a_group_that_waits_in_the_backup_is_not_at_home_by_a_token_from_before_its_end() -> None:
    """The backup would know that home: a cluster that says so takes what was not given to it."""
    pump, (agent,) = fleet("c-1")
    agent.gpus_free = [0] * agent.nodes
    pump.run(6.0)
    uid = pump.submit("train")
    pump.run(3.0)
    made_up = f"{pump.state.lineage}.{pump.state.head}"
    again = restored(backup_of(pump), pump)
    agent.holds, agent.groups, agent.gpus_free = {made_up}, {made_up: uid}, [8] * agent.nodes
    again.run(20.0)
    assert kinds(again) == ["Restored", "Recovered"]
    agent.holds.clear()  # it is not wanted there, so its agent stops it
    again.run(20.0)
    home = again.group(uid).home
    assert home is not None
    assert home.token.lineage == again.state.lineage


def test_a_home_that_nobody_holds_ends_also_where_something_is_left_of_an_earlier_one() -> None:
    pump, (one, other) = fleet("c-1", "c-2")
    other.gpus_free = [0] * other.nodes
    pump.run(6.0)
    uid = pump.submit("train")
    pump.run(3.0)
    old = one.starts(uid)
    moved(pump, uid, one, other)
    again = restored(backup_of(pump), pump)
    one.holds, other.holds = {old}, set()
    again.run(40.0)
    assert kinds(again) == ["Restored", "Unheld", "Recovered"]


def test_a_group_that_nobody_holds_any_more_is_placed_anew_after_the_recovery() -> None:
    pump, (agent,) = fleet("c-1")
    uid = pump.submit("train")
    pump.run(3.0)
    agent.starts(uid)
    agent.holds.clear()
    again = restored(backup_of(pump), pump)
    again.run(40.0)
    assert kinds(again) == ["Restored", "Unheld", "Recovered"]
    home = again.group(uid).home
    assert home is not None
    assert home.token.lineage == again.state.lineage
    assert home.token.position > again.cluster("c-1").admitted_at


@pytest.mark.parametrize(
    "said",
    [{"uids": (), "keeps_records": False, "recovers": ""}, {"recovers": "an-earlier-restore"}],
    ids=["when its old lease had run out", "to an earlier recovery"],
)
def test_what_an_agent_said_before_this_recovery_is_not_its_word(said: dict[str, Any]) -> None:
    pump, (agent,) = fleet("c-1")
    uid = pump.submit("train")
    pump.run(3.0)
    token = agent.starts(uid)
    again = restored(backup_of(pump), pump)
    agent.alive = False
    again.run(10.0)
    for _ in range(3):
        agent.renew()
        agent.report(**said)
        again.run(5.0)
    assert agent.lease.recovers == again.state.lineage
    assert kinds(again) == ["Restored"]
    agent.alive = True
    again.run(40.0)
    home = again.group(uid).home
    assert home is not None
    assert (str(home.token), kinds(again)) == (token, ["Restored", "Recovered"])


def test_agents_that_do_not_name_the_recovery_are_heard_by_the_groups_they_name_or_the_records_they_keep() -> None:
    pump, (one, other) = fleet("c-1", "c-2")
    other.gpus_free = [0] * other.nodes
    pump.run(6.0)
    uid = pump.submit("train")
    pump.run(3.0)
    one.starts(uid)
    one.keeps_records = one.names_lineage = other.names_lineage = False
    again = restored(backup_of(pump), pump)
    again.run(40.0)
    assert kinds(again) == ["Restored", "Recovered"]


def test_a_cluster_that_was_dead_at_the_backup_and_came_back_is_heard_too() -> None:
    pump, (one, other) = fleet("c-1", "c-2")
    other.gpus_free, one.gpus_free = [0] * other.nodes, [0] * one.nodes
    pump.run(6.0)
    uid = pump.submit("train")
    other.alive = False
    pump.run(120.0)
    pump.ask(ConfirmDead("c-2", "power is off", "confirm", "olga"))
    pump.run(20.0)
    assert pump.cluster("c-2").dead_at
    place = backup_of(pump)
    other.alive, other.gpus_free = True, [8] * other.nodes
    pump.run(60.0)
    token = other.starts(uid)
    one.gpus_free = [8] * one.nodes
    again = restored(place, pump)
    other.alive = False
    again.run(60.0)
    assert kinds(again) == ["Restored"]
    other.alive = True
    again.run(40.0)
    home = again.group(uid).home
    assert home is not None
    assert (home.cluster, str(home.token), kinds(again)) == ("c-2", token, ["Restored", "Adopted", "Recovered"])


def test_a_home_whose_token_is_held_by_pods_without_an_intent_is_held() -> None:
    pump, (agent,) = fleet("c-1")
    uid = pump.submit("train")
    pump.run(3.0)
    token = agent.starts(uid)
    agent.groups[token] = ""
    again = restored(backup_of(pump), pump)
    again.run(40.0)
    assert kinds(again) == ["Restored", "Recovered"]


def test_a_group_that_the_backup_lacks_and_whose_agent_kept_no_record_of_it_is_wanted_nowhere() -> None:
    pump, (agent,) = fleet("c-1")
    agent.keeps_records = False
    place = backup_of(pump)
    uid = pump.submit("train")
    pump.run(3.0)
    agent.starts(uid)
    again = restored(place, pump)
    again.run(40.0)
    assert again.state.group(uid) is None
    desired = agent.desired()
    assert desired is not None
    assert (desired.full, desired.groups) == (True, ())


def test_nothing_is_placed_answered_or_taken_before_every_cluster_has_told() -> None:
    pump, (one, other) = fleet("c-1", "c-2")
    uid = pump.submit("train")
    pump.run(3.0)
    other.alive = False
    again = restored(backup_of(pump), pump)
    again.run(200.0)
    assert kinds(again) == ["Restored"]
    assert not again.cluster("c-1").admitted
    assert again.ask_agent("c-1", DesiredAsk(ask_id=9_999, cluster="c-1", since=0)) is None
    again.ask(SubmitGroup(pod_group("new"), "submit-new", "sara"))
    ticket = again.last_ticket
    again.run(1.0)
    refused = again.answer(ticket)
    assert isinstance(refused, Declined)
    assert refused.why is Refused.UNAVAILABLE
    assert refused.detail == "the fleet recovers from a backup: waiting for c-2"
    assert one.lease.live(again.now_s), "what runs there may go on"
    assert again.group(uid).home == pump.group(uid).home


def test_a_cluster_that_will_not_tell_is_confirmed_dead_and_its_groups_start_elsewhere() -> None:
    pump, (one, other) = fleet("c-1", "c-2")
    one.gpus_free = [0] * one.nodes
    pump.run(6.0)
    uid = pump.submit("train")
    pump.run(3.0)
    other.starts(uid)
    other.alive = False
    one.gpus_free = [8] * one.nodes
    again = restored(backup_of(pump), pump)
    again.run(60.0)
    again.ask(ConfirmDead("c-2", "burnt", "dead-c-2", "olga"))
    ticket = again.last_ticket
    again.run(60.0)
    assert isinstance(again.answer(ticket), Accepted)
    body = again.leader.leases.body("c-2")
    assert body is not None
    assert body.state == LeaseState.FENCED
    home = again.group(uid).home
    assert home is not None
    assert home.cluster == "c-1"


def test_the_next_leader_goes_on_with_the_recovery() -> None:
    pump, (one, other) = fleet("c-1", "c-2", servers=2)
    uid = pump.submit("train")
    pump.run(3.0)
    home = pump.group(uid).home
    assert home is not None
    agent = one if home.cluster == "c-1" else other
    token = agent.starts(uid)
    other.alive = False
    again = restored(backup_of(pump), pump, servers=2)
    again.run(60.0)
    again.stop(again.leader.name)
    other.alive = True
    again.run(120.0)
    after = again.group(uid).home
    assert after is not None
    assert str(after.token) == token
    assert [again.cluster(name).admitted for name in ("c-1", "c-2")] == [True, True]


def test_a_fleet_that_takes_snapshots_is_backed_up_and_restored_like_any_other() -> None:
    often = SnapshotRhythm(every_s=10.0, entries_min=1, idle_every_s=20.0, archive=False)
    short = JournalTimings(silence_s=0, jitter_s=0, keep_s=30.0, keep_entries=2)
    pump, (agent,) = fleet("c-1", snapshots=often, journal_timings=short)
    uid = pump.submit("train")
    pump.run(3.0)
    token = agent.starts(uid)
    pump.run(200.0)
    root = read_root(pump.store)
    assert root.snapshot is not None
    assert root.gc_floor > 0
    place = backup_of(pump)
    assert verify(view(place)).bad is None
    again = restored(place, pump)
    again.run(40.0)
    home = again.group(uid).home
    assert home is not None
    assert str(home.token) == token
    assert kinds(again) == ["Restored", "Recovered"]
    restored_again = restored(backup_of(again), again, nonce="abd")
    restored_again.run(40.0)
    after = restored_again.group(uid).home
    assert after is not None
    assert str(after.token) == token


@pytest.mark.parametrize("nonces", [("abc", "abd")])
def test_a_backup_restored_twice_gives_two_lineages(nonces: tuple[str, str]) -> None:
    pump, _ = fleet("c-1")
    place = backup_of(pump)
    lineages = []
    for nonce in nonces:
        again = restored(place, pump, nonce=nonce)
        again.run(30.0)
        lineages.append(again.state.lineage)
    assert len({*lineages, pump.state.lineage}) == 3
