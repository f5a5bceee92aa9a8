"""A cluster leaves the fleet, and one joins under its name later (`docs/operating.md`, a cluster that leaves)."""

from __future__ import annotations

from federation.core.events import Accepted, ConfirmDead, Declined, JoinCluster, Refused, RemoveCluster
from federation.protocol.lease import AgentLease
from federation.protocol.messages import COUNT_MAX, decode_lease
from placement.model import ClusterName
from tests.unit.federation.pump import Member, Pump, started


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
