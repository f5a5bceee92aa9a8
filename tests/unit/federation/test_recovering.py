"""A fleet that goes on from a backup hears every cluster first, takes up what runs, and only then places anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from federation.cli.store.restoring import Facts, fold, write
from federation.core.events import Accepted, ConfirmDead, Declined, Refused, SubmitGroup
from federation.core.records import Adopted, Recovered, Restored, Unheld
from federation.core.snapshots import SnapshotRhythm
from federation.protocol.lease import LeaseState
from federation.protocol.messages import DesiredAsk
from placement.model import Phase
from storage.backends.memory import MemoryStore
from storage.backup import back_up, read_manifest, view
from storage.blob import BlobStore
from storage.election import JournalTimings
from storage.reading import read_root
from storage.verify import verify
from tests.unit.federation.pump import Member, Pump, pod_group

AT_MS = 1_800_000_000_000


@dataclass
class Agent(Member):
    """A member that knows the groups of its tokens, and of which lineage it heard last."""

    groups: dict[str, str] = field(default_factory=dict)
    heard: str = ""

    def starts(self, uid: str) -> str:
        """The group runs here under its present token."""
        home = self.pump.group(uid).home
        assert home is not None
        assert home.cluster == self.name
        token = str(home.token)
        self.holds.add(token)
        self.groups[token] = uid
        self.heard = self.pump.state.lineage
        self.verdict(uid, "Bound", pods=1)
        return token

    def report(self, **fields: Any) -> None:
        recovering = self.lease.recovering
        live = self.lease.live(self.pump.now_s) and not recovering
        tokens = None if live else tuple(sorted(self.holds))
        uids = tuple(self.groups[token] for token in tokens or ()) if recovering else ()
        lineage = self.heard if recovering else self.pump.state.lineage
        super().report(lineage=lineage, live=live, tokens=tokens, uids=uids, **fields)


def fleet(*names: str, servers: int = 1, **config: Any) -> tuple[Pump, list[Agent]]:
    """A fleet of these clusters, all of them admitted."""
    pump = Pump(servers=servers, **config)
    agents = [Agent(name, pump) for name in names]
    pump.members |= {agent.name: agent for agent in agents}
    pump.run(25.0)
    pump.join(*names)
    return pump, agents


def backup_of(pump: Pump) -> MemoryStore:
    place = MemoryStore()
    back_up(pump.store, place, made_ms=AT_MS)
    return place


def restored(place: BlobStore, before: Pump, *, nonce: str = "abc", servers: int = 1) -> Pump:
    """A new store from the backup, servers on it, and the same agents, which know nothing of that."""
    manifest, target = read_manifest(place), MemoryStore()
    assert manifest is not None
    state = fold(view(place), nonce)
    lineage = max(f"{AT_MS}-{nonce}", f"{int(manifest.lineage.partition('-')[0]) + 1:013d}-{nonce}")
    write(target, state, manifest, lineage, Facts(AT_MS, nonce), term=verify(view(place)).term)
    pump = Pump(servers=servers, store=target)
    pump.now_s = before.now_s
    for agent in before.members.values():
        agent.pump = pump
        agent.due_s = pump.now_s
    pump.members = before.members
    return pump


def kinds(pump: Pump) -> list[str]:
    after = (Restored, Unheld, Adopted, Recovered)
    folded = next(iter(pump.folded.values()))
    return [type(one.record).__name__ for one in folded if isinstance(one.record, after)]


def moved(pump: Pump, uid: str, source: Agent, target: Agent) -> str:
    """The group leaves one cluster and runs in the other; its new token."""
    source.gpus_free = [0] * source.nodes
    target.gpus_free = [8] * target.nodes
    pump.run(6.0)
    source.verdict(uid, "Released", token=source.holds.pop())
    pump.run(40.0)
    return target.starts(uid)


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


def test_a_group_that_the_backup_lacks_is_wanted_nowhere() -> None:
    pump, (agent,) = fleet("c-1")
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
