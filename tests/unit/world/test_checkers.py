"""Every checker fires on a hand-made bad log, and stays silent on the good one beside it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from federation.core.records import (
    Adopted,
    AnyRecord,
    Bound,
    ClusterAdmitted,
    ClusterConfirmedDead,
    ClusterFenced,
    ClusterJoined,
    FenceDone,
    GaveUp,
    IntentSet,
    Placed,
    Recovered,
    Recreated,
    Restored,
    RoleShape,
    Submitted,
    Unheld,
)
from federation.protocol.messages import NodeRows, Report, Stamp
from tests.world.checkers import AckChecker, BoundChecker, CapacityChecker, RunChecker, ViewChecker, check_node
from tests.world.history import History
from tests.world.violation import ViolationError

LINEAGE = "l"
GROUP = "l.100"


def name(position: int) -> str:
    return f"{LINEAGE}.{position}"


def submitted(request_id: str = "r-1", *, pods: int = 2, grace_s: int = 30) -> Submitted:
    return Submitted(
        name="train",
        namespace="default",
        queue="default",
        priority=0,
        request_id=request_id,
        body_digest="d",
        roles=(RoleShape("worker", pods, pods, 1, 0, "", 0, 0, ()),),
        min_count=pods,
        disruption_mode="all",
        disconnect_policy="StopAndMove",
        grace_s=grace_s,
        spec=b"",
    )


def placed(cluster: str = "c-1", policy: str = "StopAndMove") -> Placed:
    return Placed(uid=GROUP, cluster=cluster, effective_policy=policy)


def gave_up(token: int, *, cluster: str = "c-1", verdict: str = "Released", late: bool = False) -> GaveUp:
    return GaveUp(uid=GROUP, token=name(token), cluster=cluster, verdict=verdict, late=late)


class Log:
    """A journal written by hand, folded by the checkers' own fold."""

    def __init__(self) -> None:
        self.lineage = LINEAGE
        self.history = History(lambda: self.lineage, lambda grace_s: 1.04 * grace_s + 10.0)
        self.count = 0

    def restore(self, ends_at: int) -> None:
        self.history.restored(ends_at)
        self.lineage = "m"
        self.count = len(self.history.records)

    def name(self, position: int) -> str:
        return f"{self.lineage}.{position}"

    def add(self, position: int, record: AnyRecord, now_s: float = 0.0) -> None:
        self.history.folded(self.count, position, record, now_s, "s-1")
        self.count += 1


@pytest.fixture
def log() -> Log:
    """Two admitted clusters and one group."""
    log = Log()
    log.add(10, ClusterJoined(cluster="c-1"))
    log.add(11, ClusterJoined(cluster="c-2"))
    log.add(12, ClusterAdmitted(cluster="c-1", epoch=1))
    log.add(13, ClusterAdmitted(cluster="c-2", epoch=1))
    log.add(100, submitted())
    return log


def broken(invariant: str, act: Callable[[], None]) -> None:
    with pytest.raises(ViolationError) as caught:
        act()
    assert caught.value.checker == invariant


# --- the journal -----------------------------------------------------------------------------------------------------


def test_a_second_placement_while_the_first_is_the_home_breaks_s3(log: Log) -> None:
    log.add(200, placed("c-1"))
    broken("S3", lambda: log.add(201, placed("c-2")))


def test_a_placement_after_the_give_up_is_fine(log: Log) -> None:
    log.add(200, placed("c-1"))
    log.add(201, gave_up(200))
    log.add(202, placed("c-2"))
    home = log.history.home(GROUP)
    assert home is not None
    assert (home.cluster, home.token) == ("c-2", name(202))


def test_a_give_up_of_an_older_token_that_ends_the_home_breaks_s3(log: Log) -> None:
    log.add(200, placed("c-1"))
    log.add(201, gave_up(200))
    log.add(202, placed("c-1"))
    broken("S3", lambda: log.add(203, gave_up(200)))


def test_a_late_verdict_of_the_present_home_breaks_s3(log: Log) -> None:
    log.add(200, placed("c-1"))
    broken("S3", lambda: log.add(201, gave_up(200, verdict="Finished", late=True)))


def test_a_placement_on_a_fenced_cluster_breaks_s3(log: Log) -> None:
    log.add(150, ClusterFenced(cluster="c-1", epoch=2))
    broken("S3", lambda: log.add(200, placed("c-1")))


def test_a_fence_done_before_k_has_passed_breaks_s3(log: Log) -> None:
    log.add(200, placed("c-1"))
    log.add(201, ClusterFenced(cluster="c-1", epoch=2), now_s=100.0)
    broken("S3", lambda: log.add(202, FenceDone(cluster="c-1", epoch=2, grace_s=30), now_s=140.0))


def test_a_fence_done_after_k_ends_the_homes_of_its_grace(log: Log) -> None:
    log.add(200, placed("c-1"))
    log.add(201, ClusterFenced(cluster="c-1", epoch=2), now_s=100.0)
    log.add(202, FenceDone(cluster="c-1", epoch=2, grace_s=30), now_s=141.2)
    log.add(203, placed("c-2"), now_s=142.0)
    assert log.history.moves == 1


def test_a_fence_done_of_another_epoch_breaks_s3(log: Log) -> None:
    log.add(201, ClusterFenced(cluster="c-1", epoch=2), now_s=100.0)
    broken("S3", lambda: log.add(202, FenceDone(cluster="c-1", epoch=1, grace_s=30), now_s=300.0))


def test_a_fence_that_lowers_the_epoch_breaks_s3(log: Log) -> None:
    log.add(201, ClusterFenced(cluster="c-1", epoch=2))
    broken("S3", lambda: log.add(202, ClusterFenced(cluster="c-1", epoch=2)))


def test_a_held_group_moved_by_fence_done_breaks_s3(log: Log) -> None:
    log.add(200, placed("c-1", "HoldInPlace"))
    log.add(201, Bound(uid=GROUP, token=name(200), cluster="c-1", pods=2))
    log.add(202, ClusterFenced(cluster="c-1", epoch=2), now_s=100.0)
    log.add(203, FenceDone(cluster="c-1", epoch=2, grace_s=30), now_s=200.0)
    broken("S3", lambda: log.add(204, placed("c-2")))


def test_an_admission_before_the_last_fence_done_breaks_s3(log: Log) -> None:
    log.add(200, placed("c-1"))
    log.add(201, ClusterFenced(cluster="c-1", epoch=2), now_s=100.0)
    broken("S3", lambda: log.add(202, ClusterAdmitted(cluster="c-1", epoch=2), now_s=300.0))


def test_an_admission_of_an_admitted_cluster_breaks_s3(log: Log) -> None:
    broken("S3", lambda: log.add(201, ClusterAdmitted(cluster="c-1", epoch=1)))


def test_a_cluster_confirmed_dead_without_a_reason_breaks_s3(log: Log) -> None:
    log.add(201, ClusterFenced(cluster="c-1", epoch=2))
    broken("S3", lambda: log.add(202, ClusterConfirmedDead(cluster="c-1", reason="", actor="olga")))


def test_a_cluster_confirmed_dead_while_admitted_breaks_s3(log: Log) -> None:
    broken("S3", lambda: log.add(202, ClusterConfirmedDead(cluster="c-1", reason="power", actor="olga")))


def test_a_placement_after_the_end_breaks_s7(log: Log) -> None:
    log.add(200, placed("c-1"))
    log.add(201, gave_up(200, verdict="Finished"))
    broken("S7", lambda: log.add(202, placed("c-1")))


def test_a_placement_of_a_cancelled_group_breaks_s7(log: Log) -> None:
    log.add(200, IntentSet(uid=GROUP, intent="cancel"))
    broken("S7", lambda: log.add(201, placed("c-1")))


def test_two_groups_of_one_request_break_s8(log: Log) -> None:
    broken("S8", lambda: log.add(101, submitted("r-1")))


def test_two_replicas_that_fold_different_records_break_s9(log: Log) -> None:
    other = ClusterJoined(cluster="c-9")
    broken("S9", lambda: log.history.folded(0, 10, other, 0.0, "s-2"))


def test_a_replica_that_skips_a_record_breaks_s9(log: Log) -> None:
    broken("S9", lambda: log.history.folded(0, 11, ClusterJoined(cluster="c-2"), 0.0, "s-2"))


def test_a_position_that_falls_breaks_s9(log: Log) -> None:
    broken("S9", lambda: log.add(99, ClusterJoined(cluster="c-3")))


def reported(log: Log, *, free: tuple[int, int], applied: int, given_up: set[str] | None = None) -> CapacityChecker:
    """c-1 has two nodes of 8 GPUs and says how many are free on each."""
    rows = NodeRows(name=("n-1", "n-2"), gpus=(8, 8), gpus_free=free)
    report = Report(cluster="c-1", lineage=LINEAGE, stamp=Stamp(1, 1), applied=applied, rows=rows)
    checker = CapacityChecker(log.history, lambda cluster: given_up or set())
    checker.reported("c-1/a#1", report, 16)
    return checker


def test_a_report_that_shows_all_homes_up_to_applied_keeps_s4(log: Log) -> None:
    log.add(200, placed("c-1"))
    reported(log, free=(8, 6), applied=200).accepted("c-1/a#1", name(200))
    reported(log, free=(8, 8), applied=199).accepted("c-1/a#1", name(200))
    reported(log, free=(8, 8), applied=200, given_up={name(200)}).accepted("c-1/a#1", name(200))


def test_a_report_that_leaves_out_a_home_the_agent_then_accepts_breaks_s4(log: Log) -> None:
    log.add(200, placed("c-1"))
    checker = reported(log, free=(8, 7), applied=200)
    broken("S4", lambda: checker.accepted("c-1/a#1", name(200)))


def test_a_home_accepted_by_the_next_process_was_not_decided_by_the_first(log: Log) -> None:
    log.add(200, placed("c-1"))
    reported(log, free=(8, 7), applied=200).accepted("c-1/a#2", name(200))


def test_pods_that_ask_for_more_gpus_than_their_node_has_break_s4() -> None:
    check_node("c-1", "n-1", {"p-1": 4, "p-2": 4}, 8, ())
    broken("S4", lambda: check_node("c-1", "n-1", {"p-1": 4, "p-2": 5}, 8, ()))


# --- run logs --------------------------------------------------------------------------------------------------------


def runs(log: Log, *, unguarded: frozenset[str] = frozenset()) -> RunChecker:
    return RunChecker(log.history, {("c-1", "n"): 8, ("c-2", "n"): 8}, unguarded)


def start(checker: RunChecker, cluster: str, token: int, pod: str, gpus: tuple[int, ...] = ()) -> None:
    checker.started(cluster, "n", pod, GROUP, name(token), gpus, 0.0)


def moved(log: Log, policy: str = "StopAndMove") -> None:
    """From c-1 (token 200) to c-2 (token 203) by a fence."""
    log.add(200, placed("c-1", policy))
    log.add(201, ClusterFenced(cluster="c-1", epoch=2), now_s=0.0)
    log.add(202, FenceDone(cluster="c-1", epoch=2, grace_s=30), now_s=100.0)
    log.add(203, placed("c-2", policy))


def test_a_group_that_runs_in_two_clusters_breaks_s1(log: Log) -> None:
    moved(log)
    checker = runs(log)
    start(checker, "c-1", 200, "p-1")
    broken("S1", lambda: start(checker, "c-2", 203, "p-2"))


def test_a_group_that_ended_in_one_cluster_may_run_in_another(log: Log) -> None:
    moved(log)
    checker = runs(log)
    start(checker, "c-1", 200, "p-1")
    checker.ended("c-1", "n", "p-1", GROUP, name(200))
    start(checker, "c-2", 203, "p-2")
    assert checker.live_tokens("c-2") == {name(203): {"p-2"}}


def test_a_move_anyway_group_may_run_twice(log: Log) -> None:
    moved(log, "MoveAnyway")
    checker = runs(log)
    start(checker, "c-1", 200, "p-1")
    start(checker, "c-2", 203, "p-2")
    assert checker.starts_count == 2


def test_a_group_fenced_in_a_cluster_without_guard_is_the_operators_risk(log: Log) -> None:
    moved(log)
    checker = runs(log, unguarded=frozenset({"c-1"}))
    start(checker, "c-1", 200, "p-1")
    start(checker, "c-2", 203, "p-2")
    assert checker.starts_count == 2


def test_a_lower_token_that_starts_after_a_higher_one_breaks_s2(log: Log) -> None:
    moved(log)
    checker = runs(log)
    start(checker, "c-2", 203, "p-2")
    checker.ended("c-2", "n", "p-2", GROUP, name(203))
    broken("S2", lambda: start(checker, "c-1", 200, "p-1"))


def test_a_container_of_an_unknown_token_breaks_s3(log: Log) -> None:
    broken("S3", lambda: start(runs(log), "c-1", 999, "p-1"))


def test_a_container_in_another_cluster_than_its_home_breaks_s3(log: Log) -> None:
    log.add(200, placed("c-1"))
    broken("S3", lambda: start(runs(log), "c-2", 200, "p-1"))


def test_more_gpus_than_the_node_has_break_s4(log: Log) -> None:
    log.add(200, placed("c-1"))
    checker = runs(log)
    start(checker, "c-1", 200, "p-1", tuple(range(8)))
    broken("S4", lambda: start(checker, "c-1", 200, "p-2", (8,)))


def test_one_gpu_given_twice_breaks_s5(log: Log) -> None:
    log.add(200, placed("c-1"))
    checker = runs(log)
    start(checker, "c-1", 200, "p-1", (3,))
    broken("S5", lambda: start(checker, "c-1", 200, "p-2", (3,)))


# --- audits, acknowledgements, reports -------------------------------------------------------------------------------


def test_a_half_bound_gang_left_for_longer_than_t_undo_breaks_s6(log: Log) -> None:
    log.add(200, placed("c-1"))
    checker = BoundChecker(log.history, 60.0)
    checker.acted("c-1", "bound", "p-1", "n", GROUP, name(200), 100.0)
    checker.check(155.0, {"c-1": 0.0}, 0.0)
    broken("S6", lambda: checker.check(165.0, {"c-1": 0.0}, 0.0))


def test_a_gang_undone_or_whole_in_time_keeps_s6(log: Log) -> None:
    log.add(200, placed("c-1"))
    checker = BoundChecker(log.history, 60.0)
    checker.acted("c-1", "bound", "p-1", "n", GROUP, name(200), 100.0)
    checker.acted("c-1", "removed", "p-1", "n", GROUP, name(200), 130.0)
    checker.acted("c-1", "bound", "p-2", "n", GROUP, name(200), 140.0)
    checker.acted("c-1", "bound", "p-3", "n", GROUP, name(200), 141.0)
    checker.check(1_000.0, {"c-1": 0.0}, 0.0)


def test_more_pods_than_the_group_was_placed_with_break_s6(log: Log) -> None:
    log.add(200, placed("c-1"))
    checker = BoundChecker(log.history, 60.0)
    checker.acted("c-1", "bound", "p-1", "n", GROUP, name(200), 100.0)
    checker.acted("c-1", "bound", "p-2", "n", GROUP, name(200), 101.0)
    broken("S6", lambda: checker.acted("c-1", "bound", "p-3", "n", GROUP, name(200), 102.0))


def test_a_placement_with_fewer_pods_than_the_least_breaks_s6(log: Log) -> None:
    broken("S6", lambda: log.add(200, msgspec.structs.replace(placed("c-1"), counts=(0,))))


def test_t_undo_counts_only_while_the_cluster_works(log: Log) -> None:
    log.add(200, placed("c-1"))
    checker = BoundChecker(log.history, 60.0)
    checker.acted("c-1", "bound", "p-1", "n", GROUP, name(200), 100.0)
    checker.check(165.0, {"c-1": 150.0}, 0.0)


def test_an_acknowledged_submission_that_nobody_folded_breaks_s7(log: Log) -> None:
    broken("S7", lambda: AckChecker(log.history).acknowledged("r-2", name(101), 101, 0.0))


def test_an_acknowledgement_with_another_groups_identity_breaks_s7(log: Log) -> None:
    broken("S7", lambda: AckChecker(log.history).acknowledged("r-2", GROUP, 100, 0.0))


def test_a_repeat_answered_with_another_identity_breaks_s8(log: Log) -> None:
    log.add(101, submitted("r-2"))
    checker = AckChecker(log.history)
    checker.acknowledged("r-1", GROUP, 100, 0.0)
    broken("S8", lambda: checker.acknowledged("r-1", name(101), 101, 1.0))


def viewed() -> ViewChecker:
    """s-1#1 took the full report 1.5 at 100 s and the delta 1.6 at 105 s."""
    checker = ViewChecker(30.0)
    checker.delivered("s-1#1", "c-1", (1, 5), None, 0.0, 100.0)
    checker.delivered("s-1#1", "c-1", (1, 6), (1, 5), 0.0, 105.0)
    return checker


def test_a_placement_by_a_fresh_report_keeps_s10() -> None:
    viewed().placed("s-1#1", "c-1", (1, 6), 110.0, ())


def test_a_placement_that_names_no_report_breaks_s10() -> None:
    broken("S10", lambda: viewed().placed("s-1#1", "c-1", None, 110.0, ()))


def test_a_placement_by_a_report_older_than_the_newest_heard_breaks_s10() -> None:
    checker = viewed()
    checker.delivered("s-1#1", "c-1", (1, 3), None, 0.0, 106.0)
    broken("S10", lambda: checker.placed("s-1#1", "c-1", (1, 3), 107.0, ()))


def test_a_placement_by_a_delta_without_its_predecessor_breaks_s10() -> None:
    checker = viewed()
    checker.delivered("s-1#1", "c-1", (1, 9), (1, 8), 0.0, 106.0)
    broken("S10", lambda: checker.placed("s-1#1", "c-1", (1, 9), 107.0, ()))


def test_a_placement_by_a_stale_report_breaks_s10() -> None:
    broken("S10", lambda: viewed().placed("s-1#1", "c-1", (1, 6), 140.0, ()))


def test_a_placement_by_a_report_that_only_the_process_before_had_breaks_s10() -> None:
    broken("S10", lambda: viewed().placed("s-1#2", "c-1", (1, 6), 110.0, ()))


def test_placements_whose_stamps_fall_break_s10() -> None:
    checker = viewed()
    checker.placed("s-1#1", "c-1", (1, 6), 106.0, ())
    broken("S10", lambda: checker.placed("s-1#1", "c-1", (1, 5), 107.0, ()))


# --- after a restore -------------------------------------------------------------------------------------------------

LATER = "l.150"  # a group that the backup lacks


@pytest.fixture
def restored(log: Log) -> Log:
    """Up to position 120 there is a backup, in which nothing is placed. What came later: GROUP ran on c-1 and then, as
    token 203, on c-2; LATER runs on c-2 as token 160."""
    log.add(150, submitted("r-2"))
    log.add(160, Placed(uid=LATER, cluster="c-2", effective_policy="StopAndMove"))
    log.add(200, placed("c-1"))
    log.add(201, gave_up(200))
    log.add(203, placed("c-2"))
    log.restore(120)
    log.add(1_000, Restored(lineage=log.lineage, before=LINEAGE, made_ms=0))
    return log


def recovered(*clusters: str) -> Recovered:
    return Recovered(epochs=dict.fromkeys(clusters or ("c-1", "c-2"), 1))


def test_what_is_held_is_taken_up_and_made_again_before_anything_is_placed(restored: Log) -> None:
    restored.add(1_001, Adopted(uid=GROUP, token=name(203), cluster="c-2"))
    restored.add(1_002, Recreated(uid=LATER, token=name(160), cluster="c-2", submitted=submitted("r-2")))
    restored.add(1_003, recovered())
    homes = [restored.history.home(uid) for uid in (GROUP, LATER)]
    assert [home.token for home in homes if home is not None] == [name(203), name(160)]
    assert restored.history.recovering is None


def test_a_record_of_a_recovery_that_nobody_asked_for_breaks_s12(log: Log) -> None:
    broken("S12", lambda: log.add(200, Restored(lineage=LINEAGE, before="k", made_ms=0)))


def test_a_placement_while_the_fleet_recovers_breaks_s3(restored: Log) -> None:
    broken("S3", lambda: restored.add(1_001, placed("c-1")))


def test_a_recovery_that_does_not_hear_all_clusters_breaks_s3(restored: Log) -> None:
    broken("S3", lambda: restored.add(1_001, recovered("c-1")))


def test_a_token_taken_up_where_it_was_never_placed_breaks_s3(restored: Log) -> None:
    broken("S3", lambda: restored.add(1_001, Adopted(uid=GROUP, token=name(203), cluster="c-1")))


def test_a_lower_token_taken_up_after_a_higher_one_breaks_s2(restored: Log) -> None:
    restored.add(1_001, Adopted(uid=GROUP, token=name(203), cluster="c-2"))
    restored.add(1_002, Unheld(uid=GROUP, token=name(203), cluster="c-2"))
    broken("S2", lambda: restored.add(1_003, Adopted(uid=GROUP, token=name(200), cluster="c-1")))


def test_the_end_of_a_home_that_is_not_the_home_breaks_s3(restored: Log) -> None:
    restored.add(1_001, Adopted(uid=GROUP, token=name(203), cluster="c-2"))
    broken("S3", lambda: restored.add(1_002, Unheld(uid=GROUP, token=name(200), cluster="c-1")))


def test_a_group_made_again_as_another_one_breaks_s7(restored: Log) -> None:
    other = Recreated(uid=LATER, token=name(160), cluster="c-2", submitted=submitted("r-2", pods=3))
    broken("S7", lambda: restored.add(1_001, other))


def test_a_group_made_again_that_was_not_lost_breaks_s9(restored: Log) -> None:
    again = Recreated(uid=GROUP, token=name(203), cluster="c-2", submitted=submitted("r-1"))
    broken("S9", lambda: restored.add(1_001, again))


def test_a_home_taken_up_is_not_ended_by_a_fence(restored: Log) -> None:
    restored.add(1_001, Adopted(uid=GROUP, token=name(203), cluster="c-2"))
    restored.add(1_002, recovered())
    restored.add(1_003, ClusterFenced(cluster="c-2", epoch=2), now_s=100.0)
    restored.add(1_004, FenceDone(cluster="c-2", epoch=2, grace_s=30), now_s=200.0)
    broken("S3", lambda: restored.add(1_005, placed("c-1"), now_s=201.0))


def test_a_home_that_the_backup_knew_keeps_its_policy(log: Log) -> None:
    log.add(200, placed("c-1", "MoveAnyway"))
    log.restore(210)
    log.add(1_000, Restored(lineage=log.lineage, before=LINEAGE, made_ms=0))
    log.add(1_001, Adopted(uid=GROUP, token=name(200), cluster="c-1"))
    log.add(1_002, recovered())
    log.add(1_003, ClusterFenced(cluster="c-1", epoch=2), now_s=100.0)
    assert log.history.home(GROUP) is None


def test_a_lost_token_that_runs_beside_a_new_one_breaks_s1(restored: Log) -> None:
    checker = runs(restored)
    start(checker, "c-2", 203, "p-1")
    restored.add(1_001, recovered())
    restored.add(1_002, placed("c-1"))
    broken("S1", lambda: checker.started("c-1", "n", "p-2", GROUP, restored.name(1_002), (), 0.0))


def test_an_acknowledged_group_may_be_lost_with_the_store_and_not_come_back_as_another(restored: Log) -> None:
    acks = AckChecker(restored.history)
    acks.acknowledged("r-2", LATER, 150, 0.0)  # said before the store was lost, heard afterwards
    restored.add(1_001, Recreated(uid=LATER, token=name(160), cluster="c-2", submitted=submitted("r-2")))
    restored.add(1_002, recovered())
    acks.recovered()
    acks.acknowledged("r-2", LATER, 1_001, 0.0)
    acks.check()
    broken("S8", lambda: acks.acknowledged("r-2", GROUP, 100, 0.0))


def test_a_group_that_is_made_again_may_be_acknowledged_for_the_first_time_where_it_lies_now(restored: Log) -> None:
    acks = AckChecker(restored.history)
    restored.add(1_001, Recreated(uid=LATER, token=name(160), cluster="c-2", submitted=submitted("r-2")))
    restored.add(1_002, recovered())
    acks.acknowledged("r-2", LATER, 1_001, 0.0)
    broken("S7", lambda: acks.acknowledged("r-1", GROUP, 1_001, 0.0))
