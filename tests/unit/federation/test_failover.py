"""A cluster goes silent, is fenced, loses its homes after the wait, and comes back (DESIGN §11)."""

from __future__ import annotations

import msgspec
import pytest

from federation.core.events import Accepted, ConfirmDead, CordonCluster, Declined, Refused
from federation.core.leases import lease_name
from federation.core.records import ClusterAdmitted, ClusterConfirmedDead, ClusterFenced, FenceDone, GaveUp, Placed
from federation.protocol.lease import TTL_S_MAX, Timings
from federation.protocol.messages import decode_lease, encode_lease
from placement.model import ClusterName, DisconnectPolicy, Phase
from storage.blob import BlobReplace, BlobWritten, Outcome
from tests.unit.federation.pump import TIMINGS, Pump, started

W_S = TIMINGS.window_s(30.0)  # 36.2 s
K_S = 10.0 + 1.04 * 30  # for the default grace of 30 s


def fleet(*, policy: DisconnectPolicy = DisconnectPolicy.STOP_AND_MOVE, grace_s: int = 30) -> tuple[Pump, str]:
    """Four clusters and one group that runs in the first of them."""
    pump = started()
    pump.join("a")
    uid = pump.submit("train", disconnect_policy=policy, grace_s=grace_s)
    pump.members["a"].verdict(uid, "Bound", pods=1)
    pump.members["a"].holds.add(str(pump.group(uid).home.token))  # type: ignore[union-attr]
    pump.join("b", "c", "d")
    return pump, uid


def records(pump: Pump, kind: type) -> list[object]:
    return [line.record for line in pump.folded[pump.leader.name] if isinstance(line.record, kind)]


def lease(pump: Pump, cluster: str) -> tuple[str, int, int]:
    blob = pump.store.get(f"leases/{pump.state.lineage}/{cluster}")  # type: ignore[arg-type]
    assert blob is not None
    body = decode_lease(blob.data)
    return body.state, body.epoch, body.floor


def test_a_new_cluster_is_fenced_first_and_admitted_with_its_record_as_floor() -> None:
    pump = started()
    pump.join("a")
    row = pump.cluster("a")
    assert (row.fenced_epoch, row.admitted_epoch) == (1, 1)
    assert lease(pump, "a") == ("Active", 1, row.admitted_at)


def test_nothing_is_placed_in_a_silent_cluster_and_nothing_moves_before_the_window_is_over() -> None:
    pump, uid = fleet()
    pump.members["a"].alive = False
    pump.run(16.0)
    assert pump.leader.views.silent("a", pump.now_s)
    pump.submit("late")
    assert [record.cluster for record in records(pump, Placed)] == ["a", "b"]  # type: ignore[attr-defined]
    pump.run(15.0)
    assert pump.group(uid).phase is Phase.BOUND
    assert lease(pump, "a")[0] == "Active"


@pytest.mark.long
def test_a_vanished_lease_is_replaced_only_when_nobody_can_still_count_on_it() -> None:
    pump, uid = fleet()
    name = lease_name(pump.state.lineage, "a")
    pump.store.delete(name)
    longest_window_s = TIMINGS.window_s(TTL_S_MAX)
    pump.run(longest_window_s - 10.0)
    assert pump.store.get(name) is None
    assert pump.group(uid).home.cluster == "a"  # type: ignore[union-attr]
    pump.run(30.0)
    assert lease(pump, "a")[:2] == ("Fenced", 2)


def test_a_lost_cluster_is_fenced_and_its_group_moves_only_after_the_wait_for_its_grace() -> None:
    pump, uid = fleet()
    pump.members["a"].alive = False
    pump.run(W_S + 10.0)
    assert lease(pump, "a")[:2] == ("Fenced", 2)
    assert records(pump, ClusterFenced)[-1].epoch == 2  # type: ignore[attr-defined]
    assert pump.group(uid).home.cluster == "a"  # type: ignore[union-attr]
    pump.run(K_S - 12.0)
    assert pump.group(uid).home.cluster == "a"  # type: ignore[union-attr]
    pump.run(12.0)
    assert [(done.cluster, done.epoch, done.grace_s) for done in records(pump, FenceDone)] == [("a", 2, 30)]  # type: ignore[attr-defined]
    assert pump.group(uid).home.cluster in {"b", "c", "d"}  # type: ignore[union-attr]


def test_a_bound_group_that_holds_in_place_waits_for_proof_of_death() -> None:
    pump, uid = fleet(policy=DisconnectPolicy.HOLD_IN_PLACE)
    pump.members["a"].alive = False
    pump.run(W_S + K_S + 60.0)
    assert pump.group(uid).phase is Phase.STRANDED
    assert records(pump, FenceDone) == []
    answer = pump.ask(ConfirmDead("a", "rack 7 burnt", "dead-a", "olga"))
    assert isinstance(answer, Accepted)
    assert pump.group(uid).home.cluster in {"b", "c", "d"}  # type: ignore[union-attr]


def test_a_group_that_moves_anyway_moves_with_the_fence() -> None:
    pump, uid = fleet(policy=DisconnectPolicy.MOVE_ANYWAY)
    pump.members["a"].alive = False
    pump.run(W_S + 10.0)
    assert pump.group(uid).home.cluster in {"b", "c", "d"}  # type: ignore[union-attr]
    assert records(pump, FenceDone) == []


def test_homes_end_by_grace_smallest_first_each_after_its_own_wait() -> None:
    pump, first = fleet(grace_s=0)
    pump.members["a"].gpus_free[0] = 0
    pump.run(6.0)
    second = pump.submit("slow", grace_s=60)
    assert pump.group(second).home.cluster == "a"  # type: ignore[union-attr]  # the fullest
    pump.members["a"].verdict(second, "Bound", pods=1)
    pump.members["a"].alive = False
    pump.run(W_S + 10.0 + 5.0 + 10.0)
    assert pump.group(first).home.cluster != "a"  # type: ignore[union-attr]
    assert pump.group(second).home.cluster == "a"  # type: ignore[union-attr]
    pump.run(1.04 * 60)
    assert [done.grace_s for done in records(pump, FenceDone)] == [0, 60]  # type: ignore[attr-defined]
    assert pump.group(second).home.cluster != "a"  # type: ignore[union-attr]


def test_a_cluster_that_returns_is_admitted_only_when_it_shows_nothing_that_is_not_homed_there() -> None:
    pump, uid = fleet()
    a = pump.members["a"]
    a.alive = False
    pump.run(W_S + K_S + 10.0)
    a.alive = True  # its node was cut off from its API server: the container of the old token still shows
    pump.run(30.0)
    assert not pump.cluster("a").admitted
    a.holds.clear()
    pump.run(10.0)
    row = pump.cluster("a")
    assert (row.fenced_epoch, row.admitted_epoch) == (2, 2)
    assert lease(pump, "a") == ("Active", 2, row.admitted_at)
    assert pump.group(uid).home.cluster != "a"  # type: ignore[union-attr]


def test_a_cluster_that_returns_before_the_wait_is_over_is_admitted_after_it() -> None:
    pump, uid = fleet()
    a = pump.members["a"]
    a.alive = False
    pump.run(W_S + 10.0)
    a.alive = True
    a.holds.clear()
    pump.run(20.0)
    assert not pump.cluster("a").admitted
    pump.run(K_S - 15.0)
    assert pump.cluster("a").admitted
    kinds = [
        type(line.record)
        for line in pump.folded[pump.leader.name]
        if isinstance(line.record, ClusterFenced | FenceDone | ClusterAdmitted) and line.record.cluster == "a"
    ]
    assert kinds == [ClusterFenced, ClusterAdmitted, ClusterFenced, FenceDone, ClusterAdmitted]
    assert pump.group(uid).attempts == 2


def test_a_report_from_before_the_fence_admits_nobody() -> None:
    pump, _ = fleet()
    a = pump.members["a"]
    a.alive = False
    pump.run(W_S + K_S + 10.0)
    a.report(epoch=1, live=False, tokens=())  # made in the epoch before
    pump.run(3.0)
    a.report(epoch=2, live=True, tokens=())
    pump.run(3.0)
    a.report(epoch=2, live=False, tokens=None)
    pump.run(3.0)
    assert not pump.cluster("a").admitted
    a.report(epoch=2, live=False, tokens=())
    pump.run(3.0)
    assert pump.cluster("a").admitted


def test_nothing_is_placed_while_the_swap_of_an_admission_is_not_known_done() -> None:
    pump = started()
    pump.on_store = lambda _, effect: (
        BlobWritten(effect.op, Outcome.UNKNOWN) if isinstance(effect, BlobReplace) else None
    )
    (a,) = pump.join("a")
    assert pump.cluster("a").admitted
    a.report(live=True, epoch=1, tokens=None)
    uid = pump.submit("train")
    assert pump.group(uid).home is None
    pump.on_store = None
    pump.run(10.0)
    assert pump.group(uid).home.cluster == "a"  # type: ignore[union-attr]


def test_nothing_is_placed_under_a_lease_of_another_floor_than_the_record_says() -> None:
    pump, _ = fleet()
    name = lease_name(pump.state.lineage, "a")
    blob = pump.store.get(name)
    assert blob is not None
    odd = msgspec.structs.replace(decode_lease(blob.data), floor=1, renew_seq=10_000)
    pump.store.replace(name, encode_lease(odd), blob.version)
    pump.run(2 * Timings().lease_read_s)
    gate = pump.leader.failover.gate(pump.cluster("a"), pump.now_s)
    assert not gate.admitted


def test_the_brake_also_holds_back_the_end_of_homes() -> None:
    pump, uid = fleet()
    pump.members["a"].alive = False
    pump.run(W_S + 20.0)
    assert not pump.cluster("a").admitted
    for name in ("b", "c"):
        pump.members[name].alive = False
    pump.run(K_S + 20.0)
    assert records(pump, FenceDone) == []
    for name in ("b", "c"):
        pump.members[name].alive = True
    pump.run(10.0)
    assert len(records(pump, FenceDone)) == 1
    assert pump.group(uid).home.cluster != "a"  # type: ignore[union-attr]


def test_a_late_finish_of_a_moved_group_is_recorded_and_changes_nothing() -> None:
    pump, uid = fleet()
    old = str(pump.group(uid).home.token)  # type: ignore[union-attr]
    a = pump.members["a"]
    a.alive = False
    pump.run(W_S + K_S + 10.0)
    new_home = pump.group(uid).home
    answer = a.verdict(uid, "Finished", token=old, succeeded=True)
    assert answer is not None
    assert answer.landed_at == pump.state.head
    assert pump.group(uid).home == new_home
    assert [(line.late, line.token) for line in records(pump, GaveUp)] == [(True, old)]  # type: ignore[attr-defined]
    repeat = a.verdict(uid, "Finished", token=old, succeeded=True)
    assert repeat is not None
    assert repeat.landed_at == pump.cluster("a").ended[old]
    assert len(records(pump, GaveUp)) == 1


def test_without_a_guard_the_policy_becomes_hold_in_place_unless_the_operator_accepts() -> None:
    pump = started()
    pump.join("a", strength="replicas")
    uid = pump.submit("train")
    assert pump.group(uid).effective_policy is DisconnectPolicy.HOLD_IN_PLACE


def test_where_the_guard_is_gone_when_the_cluster_is_lost_its_groups_wait() -> None:
    pump, uid = fleet()
    pump.members["a"].strength = "none"
    pump.run(6.0)
    pump.members["a"].alive = False
    pump.run(W_S + K_S + 60.0)
    assert pump.group(uid).home.cluster == "a"  # type: ignore[union-attr]
    assert records(pump, FenceDone) == []


def test_most_clusters_silent_at_once_stop_all_fences_and_moves() -> None:
    pump, uid = fleet()
    for name in ("a", "b", "c"):
        pump.members[name].alive = False
    pump.run(W_S + K_S + 60.0)
    assert lease(pump, "a")[0] == "Active"
    assert pump.group(uid).home.cluster == "a"  # type: ignore[union-attr]
    pump.members["b"].alive = True
    pump.members["c"].alive = True
    pump.run(W_S + K_S + 20.0)
    assert pump.group(uid).home.cluster in {"b", "c", "d"}  # type: ignore[union-attr]


def test_a_living_cluster_is_not_confirmed_dead() -> None:
    pump, uid = fleet()
    answer = pump.ask(ConfirmDead("a", "a hunch", "dead-a", "olga"))
    assert isinstance(answer, Declined)
    assert answer.why is Refused.INVALID
    assert pump.cluster("a").admitted
    assert pump.group(uid).home.cluster == "a"  # type: ignore[union-attr]


def test_a_silent_cluster_confirmed_dead_is_fenced_before_its_homes_end() -> None:
    pump, uid = fleet()
    pump.members["a"].alive = False
    pump.run(20.0)
    assert pump.ask(ConfirmDead("a", "rack 7 burnt", "dead-a", "olga")) is None
    ticket = pump.last_ticket
    pump.run(2.0)
    assert isinstance(pump.answer(ticket), Accepted)
    kinds = [
        type(line.record)
        for line in pump.folded[pump.leader.name]
        if isinstance(line.record, ClusterFenced | ClusterConfirmedDead) and line.record.cluster == "a"
    ]
    assert kinds == [ClusterFenced, ClusterFenced, ClusterConfirmedDead]
    assert lease(pump, "a")[:2] == ("Fenced", 2)
    assert pump.group(uid).home.cluster != "a"  # type: ignore[union-attr]


def test_a_request_that_waits_for_a_fence_does_not_keep_the_leader_awake() -> None:
    """It is judged again at every event; asking for a sweep each time made the leader spin (world seed 78)."""
    pump, _ = fleet()
    failover = pump.leader.failover
    failover.order_fence(ClusterName("a"), 1.0)
    assert failover.due_s <= 1.0
    failover.due_s = 50.0
    failover.order_fence(ClusterName("a"), 2.0)
    assert failover.due_s == 50.0


def test_a_drained_cluster_hands_its_groups_over_on_their_release() -> None:
    pump, uid = fleet()
    assert isinstance(pump.ask(CordonCluster("a", True, True, "new kernel", "drain-a", "olga")), Accepted)
    pump.run(3.0)
    assert pump.group(uid).phase is Phase.EVICTING
    desired = pump.members["a"].desired()
    assert desired is not None
    assert [(group.intent, group.stop_reason) for group in desired.groups] == [("stop", "Drained")]
    pump.members["a"].verdict(uid, "Released", reasons=("Drained",))
    assert pump.group(uid).home.cluster in {"b", "c", "d"}  # type: ignore[union-attr]
