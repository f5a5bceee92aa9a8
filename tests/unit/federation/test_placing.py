"""Placing through a whole replica: what is counted as taken, what is avoided, and how fast moves go."""

from __future__ import annotations

from typing import Any

import pytest

from federation.core import placer
from federation.core.brake import MOVES_PER_S, Brake, Bucket, brake_for
from federation.core.config import WORK_BUDGET
from federation.core.events import Accepted, ApplyQueue, SetIntent
from federation.core.records import Placed
from federation.core.refusals import Refusals
from placement.engine import Plan, plan_cycle
from placement.fleet import Fleet
from placement.memory import Memory
from placement.model import ClusterName, GroupUid, Phase, Queue, Reason
from placement.waiting import Waiting
from tests.unit.federation.pump import Pump, started

A, B, C = ClusterName("a"), ClusterName("b"), ClusterName("c")
UID = GroupUid("l.1")


def placements(pump: Pump) -> list[Placed]:
    return [line.record for line in pump.folded[pump.leader.name] if isinstance(line.record, Placed)]


def home(pump: Pump, uid: str) -> str | None:
    row = pump.group(uid).home
    return row.cluster if row is not None else None


def reason(pump: Pump, uid: str) -> Reason | None:
    explanation = pump.leader.why(uid)
    assert explanation is not None
    return explanation.because.reason if explanation.because is not None else None


def test_what_is_placed_is_subtracted_until_a_report_shows_it() -> None:
    pump = started()
    (a,) = pump.join("a", nodes=2)
    a.applied = 0  # the agent has noted nothing yet: its reports show both nodes free
    first, second, third = (pump.submit(f"g-{index}") for index in range(3))
    assert (home(pump, first), home(pump, second), home(pump, third)) == ("a", "a", None)
    assert reason(pump, third) is Reason.INSUFFICIENT_GPUS
    pump.run(11.0)
    assert home(pump, third) is None


def test_what_a_report_shows_is_not_subtracted_twice() -> None:
    pump = started()
    (a,) = pump.join("a", nodes=2)
    first = pump.submit("g-0")
    a.gpus_free = [0, 8]
    pump.run(6.0)
    assert a.applied is None
    second = pump.submit("g-1")
    assert (home(pump, first), home(pump, second)) == ("a", "a")


def test_a_report_that_shows_part_of_what_was_placed_never_leads_to_over_commitment() -> None:
    pump = started()
    (a,) = pump.join("a", nodes=2)
    a.applied = 0
    small, large = pump.submit("small", gpus=5), pump.submit("large", gpus=8)
    assert (home(pump, small), home(pump, large)) == ("a", "a")
    a.gpus_free = [3, 8]  # the small one is decided and shown; the large one is not, and holds `applied` back
    pump.run(6.0)
    third = pump.submit("third", pods=2, gpus=3)
    assert home(pump, third) is None
    assert reason(pump, third) is Reason.VIEW_STALE
    a.gpus_free = [3, 0]
    a.applied = None
    pump.run(6.0)
    fourth = pump.submit("fourth", gpus=3)
    assert (home(pump, third), home(pump, fourth)) == (None, "a")


@pytest.mark.parametrize("budget", [WORK_BUDGET, 3], ids=["in one cycle", "the pass goes on in another cycle"])
def test_after_groups_were_packed_anew_those_found_blocked_before_are_looked_at_again(
    monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    packed_at: list[int] = []  # by gains
    looked_at: list[int] = []

    def watched(fleet: Fleet, waiting: Waiting, memory: Memory, **fields: Any) -> Plan:
        plan = plan_cycle(fleet, waiting, memory, **fields)
        looked_at.append(waiting.gains)
        if plan.made_room:
            packed_at.append(waiting.gains)
        return plan

    pump = started(budget=budget)
    (a,) = pump.join("a", nodes=2, gpus_free=[0, 0])
    urgent, first, second, large, larger = (
        pump.submit("urgent", gpus=2, priority=1),
        pump.submit("first", gpus=4),
        pump.submit("second", gpus=4),
        pump.submit("large", gpus=5),
        pump.submit("larger", gpus=6),
    )
    monkeypatch.setattr(placer, "plan_cycle", watched)
    a.gpus_free = [6, 4]
    a.report()
    pump.run(1.0)
    assert [home(pump, uid) for uid in (urgent, first, second, large, larger)] == ["a", "a", "a", None, None]
    assert len(packed_at) == 1
    assert looked_at[-1] > packed_at[0]


def test_room_of_a_refused_group_is_free_again_at_once() -> None:
    pump = started()
    (a,) = pump.join("a", nodes=1)
    a.applied = 0
    first = pump.submit("g-0")
    second = pump.submit("g-1")
    assert (home(pump, first), home(pump, second)) == ("a", None)
    a.verdict(first, "Refused", reasons=("ApiError",))
    assert home(pump, second) == "a"


def test_after_a_refusal_another_cluster_comes_first_even_if_it_scores_worse() -> None:
    pump = started()
    a, b = pump.join("a", "b")
    a.gpus_free = [0, 0, 8, 8]  # fuller, so the first choice
    pump.run(6.0)
    uid = pump.submit("train")
    assert home(pump, uid) == "a"
    a.verdict(uid, "Refused", reasons=("BindConflict",))
    assert home(pump, uid) == "b"
    b.verdict(uid, "Refused", reasons=("BindConflict",))
    assert home(pump, uid) is None
    assert reason(pump, uid) is Reason.REFUSED_LATELY


def test_the_only_cluster_is_asked_again_after_a_while() -> None:
    pump = started()
    (a,) = pump.join("a")
    uid = pump.submit("train")
    a.verdict(uid, "Refused", reasons=("ApiError",))
    pump.run(9.0)
    assert home(pump, uid) is None
    pump.run(2.0)
    assert home(pump, uid) == "a"
    a.verdict(uid, "Refused", reasons=("ApiError",))
    pump.run(19.0)
    assert home(pump, uid) is None
    pump.run(2.0)
    assert home(pump, uid) == "a"


def test_the_cluster_that_refused_last_is_not_the_first_choice_even_long_after() -> None:
    pump = started()
    a, b = pump.join("a", "b")
    b.gpus_free = [0] * 4
    pump.run(6.0)
    uid = pump.submit("train")
    assert home(pump, uid) == "a"
    a.gpus_free = [0] * 4
    a.report()
    a.verdict(uid, "Refused", reasons=("BindConflict",))
    pump.run(30.0)  # the refusal has decayed, and nobody has room
    assert home(pump, uid) is None
    a.gpus_free = [0, 0, 8, 8]  # fuller, so it scores better
    b.gpus_free = [8, 8, 8, 8]
    pump.submit("huge", pods=100)  # a cycle begins now, so that the next one sees both reports
    a.report()
    b.report()
    assert home(pump, uid) is None
    pump.run(1.0)
    assert home(pump, uid) == "b"


def test_a_quota_is_never_passed_by_homes() -> None:
    pump = started()
    pump.join("a")
    queue = Queue(name="small", gpu_quota={"*": 8})
    assert isinstance(pump.ask(ApplyQueue(queue, "q", "olga")), Accepted)
    first = pump.submit("g-0", queue="small")
    second = pump.submit("g-1", queue="small")
    assert (home(pump, first), home(pump, second)) == ("a", None)
    assert reason(pump, second) is Reason.QUOTA_EXHAUSTED
    pump.members["a"].verdict(first, "Finished", succeeded=True)
    assert home(pump, second) == "a"


def test_blocked_groups_cost_nothing_until_something_is_gained() -> None:
    pump = started()
    members = pump.join("a", "b", nodes=1)
    for name in ("a-0", "b-0"):
        pump.submit(name)
    for member in members:
        member.gpus_free = [0]
    waiting = [pump.submit(f"wait-{index}", gpus=8 - index % 4) for index in range(20)]
    pump.run(10.0)
    spent = pump.leader.placer.evaluations_count
    pump.run(60.0)
    assert pump.leader.placer.evaluations_count == spent
    members[0].gpus_free = [5]
    members[0].applied = pump.state.head
    pump.run(10.0)
    assert [home(pump, uid) for uid in waiting].count("a") == 1
    assert pump.leader.placer.evaluations_count - spent <= 8  # four classes, in the cluster that gained, twice


def test_a_placement_records_what_it_stood_on() -> None:
    pump = started()
    pump.join("a", "b")
    pump.submit("train")
    (record,) = placements(pump)
    assert [candidate.cluster for candidate in record.candidates] == ["a", "b"]
    assert record.stamp is not None
    assert record.stamp[0] == "a"
    assert (record.budget, record.policy_version, record.actor) == (200_000, 1, "muster:placer")


def test_a_suspended_group_is_not_placed_until_it_is_resumed() -> None:
    pump = started()
    pump.join("a")
    uid = pump.submit("train", suspend=True)
    pump.run(5.0)
    assert pump.group(uid).phase is Phase.SUSPENDED
    assert isinstance(pump.ask(SetIntent(uid, "run", "", "resume", "sara")), Accepted)
    assert home(pump, uid) == "a"


def test_moves_after_a_fence_keep_to_their_rate() -> None:
    pump = started()
    members = pump.join("a", "b", "c", "d", nodes=40)
    for member in members[1:]:
        member.gpus_free = [0] * 40
    pump.run(6.0)
    uids = [pump.submit(f"g-{index:02}") for index in range(40)]
    assert {home(pump, uid) for uid in uids} == {"a"}
    members[0].alive = False
    for member in members[1:]:
        member.gpus_free = [8] * 40
    moved: list[int] = []
    while not moved or moved[-1] < len(uids):
        pump.run(0.5)
        moved.append(sum(home(pump, uid) not in {"a", None} for uid in uids))
        assert pump.now_s < 1_000.0
    steps = [later - earlier for earlier, later in zip([0, *moved], moved, strict=False)]
    assert max(steps) <= MOVES_PER_S + MOVES_PER_S * 0.5 + 1
    assert sum(step > 0 for step in steps) >= 3


@pytest.mark.parametrize(
    ("silent_since", "members", "brake"),
    [
        ({}, 10, Brake.OFF),
        ({A: 0.0}, 1, Brake.OFF),  # a fleet of one must be able to lose it
        ({A: 0.0, B: 1.0}, 10, Brake.OFF),
        ({A: 0.0, B: 1.0}, 6, Brake.SLOW),  # 33.3 %
        ({A: 0.0, B: 1.0, C: 1.0}, 6, Brake.SLOW),
        ({A: 0.0, B: 1.0, C: 1.0}, 5, Brake.STOP),
        ({A: 0.0, B: 500.0}, 3, Brake.OFF),  # lost one after the other
    ],
)
def test_the_brake_counts_clusters_lost_together(
    silent_since: dict[ClusterName, float], members: int, brake: Brake
) -> None:
    assert brake_for(silent_since, members=members, window_s=40.0, in_doubt=False) is brake


def test_doubt_about_ourselves_stops_everything() -> None:
    assert brake_for({}, members=10, window_s=40.0, in_doubt=True) is Brake.STOP


def test_a_bucket_refills_at_its_rate_up_to_its_burst() -> None:
    bucket = Bucket(2.0, 4.0)
    assert bucket.available(10.0) == 4
    bucket.spend(4)
    assert [bucket.available(10.5), bucket.available(11.0, factor=0.1), bucket.available(99.0)] == [1, 1, 4]
    assert bucket.available(99.0, factor=0.0) == 0


def test_refusals_decay_and_repeat_longer() -> None:
    refusals = Refusals()
    refusals.refused(UID, A, 0.0)
    assert [set(refusals.avoid(UID, 9.9)), set(refusals.avoid(UID, 10.0))] == [{A}, set()]
    refusals.refused(UID, A, 10.0)
    refusals.refused(UID, B, 12.0)
    assert refusals.avoid(UID, 29.0) == {A}
    assert refusals.next_decay_s(UID, 12.0) == 22.0
    refusals.forget(UID)
    assert refusals.avoid(UID, 12.0) == frozenset()


@pytest.mark.parametrize("fields", [{"pods": 1, "gpus": 9}, {"queue": "default", "priority": -5}])
def test_why_is_answered_for_any_known_group(fields: dict[str, Any]) -> None:
    pump = started()
    pump.join("a")
    uid = pump.submit("train", **fields)
    assert pump.leader.why(uid) is not None
    assert pump.leader.why("nobody") is None
