"""A cluster leaves the fleet, and one joins under its name later (`docs/operating.md`, a cluster that leaves)."""

from __future__ import annotations

import pytest

from federation.core.breaker import Breaker
from federation.core.events import Accepted, ConfirmDead, Declined, JoinCluster, Refused, RemoveCluster
from federation.core.snapshots import SnapshotRhythm
from federation.protocol.lease import AgentLease
from federation.protocol.messages import COUNT_MAX, decode_lease
from placement.model import ClusterName, GroupUid
from storage.election import JournalTimings
from tests.unit.federation.pump import Member, Pump, started

A = ClusterName("a")


def remove(pump: Pump, cluster: str, request_id: str = "remove-1") -> Accepted | Declined | None:
    return pump.ask(RemoveCluster(cluster, "sold", request_id, "olga"))


def lease(pump: Pump, cluster: str) -> tuple[str, int]:
    blob = pump.store.get(f"leases/{pump.state.lineage}/{cluster}")  # type: ignore[arg-type]
    assert blob is not None
    body = decode_lease(blob.data)
    return body.state, body.epoch


def dead(pump: Pump, cluster: str) -> None:
    """Its agent is stopped, and an operator says so."""
    pump.members[cluster].alive = False
    pump.run(20.0)
    pump.ask(ConfirmDead(cluster, "switched off", f"dead-{cluster}-{pump.now_s}", "olga"))
    pump.run(2.0)
    assert pump.cluster(cluster).dead_at


def test_a_cluster_that_joined_by_mistake_is_gone_at_once() -> None:
    pump = started()
    assert isinstance(pump.ask(JoinCluster("typo", "fast", (), False, "join-typo", "olga")), Accepted)
    pump.run(5.0)  # its first lease is made
    assert lease(pump, "typo") == ("Fenced", 1)
    assert isinstance(remove(pump, "typo"), Accepted)
    assert pump.state.clusters == {}
    pump.run(30.0)
    assert lease(pump, "typo") == ("Fenced", 1)


def test_a_cluster_that_is_part_of_the_fleet_is_not_removed() -> None:
    pump = started()
    pump.join("a")
    answer = remove(pump, "a")
    assert isinstance(answer, Declined)
    assert answer.why is Refused.CLUSTER_IN_USE
    assert pump.cluster("a").admitted


def test_a_dead_cluster_leaves_and_nothing_of_it_is_remembered() -> None:
    pump = started()
    pump.join("a", "b")
    dead(pump, "a")
    first = remove(pump, "a")
    assert isinstance(first, Accepted)
    assert remove(pump, "a") == first  # a repeat of the same request
    assert isinstance(remove(pump, "a", "remove-2"), Declined)
    assert list(pump.state.clusters) == ["b"]
    leader = pump.leader
    assert leader.views.get("a") is None
    assert leader.leases.body("a") is None
    pump.members["a"].alive = True  # somebody forgot to take the agent away
    pump.run(60.0)
    assert list(pump.state.clusters) == ["b"]
    assert leader.views.get("a") is None
    assert lease(pump, "a") == ("Fenced", 2)
    assert pump.group(pump.submit("train")).home.cluster == "b"  # type: ignore[union-attr]


def test_who_joins_under_its_name_begins_under_the_lease_that_was_left() -> None:
    pump = started()
    pump.join("a")
    dead(pump, "a")
    assert isinstance(remove(pump, "a"), Accepted)
    pump.members["a"].alive = True
    assert isinstance(pump.ask(JoinCluster("a", "fast", (), False, "join-again", "olga")), Accepted)
    pump.run(60.0)
    row = pump.cluster("a")
    assert row.admitted
    assert lease(pump, "a") == ("Active", row.admitted_epoch) == ("Active", 2)
    assert pump.group(pump.submit("train")).home.cluster == "a"  # type: ignore[union-attr]


def test_another_cluster_may_join_under_the_name_of_one_that_was_removed() -> None:
    pump = started()
    pump.join("a")
    dead(pump, "a")
    assert isinstance(remove(pump, "a"), Accepted)
    rebuilt = pump.members["a"]
    rebuilt.lease = AgentLease("a", "uid-rebuilt", "boot-1", pump.timings.ttl_s, pump.now_s)
    rebuilt.alive = True
    assert isinstance(pump.ask(JoinCluster("a", "fast", (), False, "join-again", "olga")), Accepted)
    pump.run(60.0)
    assert pump.cluster("a").admitted
    assert pump.group(pump.submit("train")).home.cluster == "a"  # type: ignore[union-attr]


def test_an_agent_that_has_seen_later_epochs_than_its_new_lease_is_admitted_in_a_later_one() -> None:
    """Its cluster joins a fleet whose store does not know it: restored from an older backup, or begun anew (world seed
    45: a cluster that was removed and had joined again after the backup)."""
    pump = started()
    member = Member("a", pump)
    member.lease.epoch = 7
    pump.members["a"] = member
    assert isinstance(pump.ask(JoinCluster("a", "fast", (), False, "join-a", "olga")), Accepted)
    pump.run(60.0)
    assert pump.cluster("a").admitted
    assert lease(pump, "a") == ("Active", 8)
    assert pump.group(pump.submit("train")).home.cluster == "a"  # type: ignore[union-attr]


def test_an_agent_that_says_an_epoch_beyond_all_is_not_followed() -> None:
    pump = started()
    member = Member("a", pump)
    member.lease.epoch = COUNT_MAX
    pump.members["a"] = member
    pump.ask(JoinCluster("a", "fast", (), False, "join-a", "olga"))
    pump.run(60.0)
    assert lease(pump, "a") == ("Fenced", 1)
    member.lease.epoch = COUNT_MAX - 1
    pump.run(60.0)
    assert lease(pump, "a")[1] == COUNT_MAX


def test_a_server_that_starts_later_knows_that_it_has_left() -> None:
    pump = started(servers=2)
    pump.join("a", "b")
    dead(pump, "a")
    assert isinstance(remove(pump, "a"), Accepted)
    pump.start("server-2")
    pump.run(10.0)
    for replica in pump.replicas.values():
        assert list(replica.state.clusters) == [ClusterName("b")]


@pytest.mark.parametrize("again", [False, True], ids=["it left", "and another joined under its name"])
def test_a_follower_that_learns_it_from_a_snapshot_remembers_nothing_of_it(again: bool) -> None:
    """Only the record made it forget, and that was in the part of the journal that the snapshot stood for."""
    pump = started(
        servers=2,
        snapshots=SnapshotRhythm(every_s=20.0, entries_min=1, archive=False),
        journal_timings=JournalTimings(keep_s=60.0, keep_entries=2),
    )
    pump.join("a", "b")
    away = next(replica for name, replica in pump.replicas.items() if not replica.leading)
    pump.members["b"].gpus_free = [0] * 4
    pump.run(6.0)
    for number in range(10):
        uid = pump.submit(f"g-{number}")
        pump.members["a"].verdict(uid, "Refused", reasons=("KubeletRejected",))
    assert away.breakers.stand(away.state, A, pump.now_s).breaker is Breaker.OPEN
    pump.stop(away.name)
    dead(pump, "a")
    assert isinstance(remove(pump, "a"), Accepted)
    if again:
        pump.ask(JoinCluster("a", "fast", (), False, "join-again", "olga"))
    pump.run(300.0)
    pump.cut.discard(away.name)
    pump.run(5.0)
    assert "journal.fell_behind" in {note.event for note in pump.notes}
    assert (away.state.cluster("a") is not None) is again
    assert away.views.get("a") is None
    assert away.views.silence_s("a", pump.now_s) <= (5.0 if again else 0.0)
    assert away.breakers.stand(away.state, A, pump.now_s).breaker is Breaker.CLOSED
    assert not away.placer.refusals.avoid(GroupUid(uid), pump.now_s)
    body = away.leases.body("a")
    assert (body.epoch if body is not None else 0) == (2 if again else 0), "what it reads by now, or nothing"
