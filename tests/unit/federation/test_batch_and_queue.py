"""Batches: what may land together, in which order inputs are taken, and what happens at the limits."""

from __future__ import annotations

import pytest

from federation.core import batch as batch_module
from federation.core import leader as leader_module
from federation.core.batch import Batch
from federation.core.events import (
    Accepted,
    CallStore,
    CordonCluster,
    Declined,
    Instant,
    JoinCluster,
    PersonAsked,
    Refused,
    ReplicaEffect,
    SubmitGroup,
)
from federation.core.records import (
    AnyRecord,
    Bound,
    ClusterAdmitted,
    ClusterCordoned,
    FenceDone,
    GaveUp,
    IntentSet,
    Placed,
    QueueApplied,
)
from storage.blob import BlobCreate, BlobEffect
from storage.entry import seq_of
from tests.unit.federation.pump import WALL_MS, Pump, pod_group, started
from tests.unit.federation.story import Story


def two_homes() -> tuple[Story, str, str]:
    story = Story()
    story.cluster("a", "b")
    first, second = story.submit("first"), story.submit("second")
    story.place(first, "a")
    story.place(second, "b")
    return story, first, second


def taken(story: Story, *records: AnyRecord) -> list[bool]:
    batch = Batch()
    return [batch.add(story.state, record) for record in records]


def test_records_about_one_group_do_not_land_together() -> None:
    story, first, second = two_homes()
    bound = Bound(uid=first, token=story.token(first), cluster="a", pods=1)
    gone = GaveUp(uid=first, token=story.token(first), cluster="a", verdict="Released")
    other = Bound(uid=second, token=story.token(second), cluster="b", pods=1)
    assert taken(story, bound, gone, other) == [True, False, True]


def test_what_may_end_a_home_does_not_land_with_what_relies_on_it() -> None:
    story, first, second = two_homes()
    bound = Bound(uid=first, token=story.token(first), cluster="a", pods=1)
    done = FenceDone(cluster="a", epoch=1, grace_s=30)
    elsewhere = Bound(uid=second, token=story.token(second), cluster="b", pods=1)
    assert taken(story, done, bound, elsewhere) == [True, False, True]
    assert taken(story, bound, done) == [True, False]


def test_many_may_rely_on_a_cluster_that_nobody_changes() -> None:
    story, first, _ = two_homes()
    third = story.submit("third")
    fourth = story.submit("fourth")
    here = [Placed(uid=uid, cluster="a", effective_policy="StopAndMove") for uid in (third, fourth)]
    assert taken(story, *here, IntentSet(uid=first, intent="cancel")) == [True, True, True]
    assert taken(story, ClusterAdmitted(cluster="a", epoch=1), *here) == [True, False, False]


def test_a_quota_does_not_change_beside_a_placement_that_counted_on_it() -> None:
    story, _, _ = two_homes()
    uid = story.submit("third")
    placed = Placed(uid=uid, cluster="a", effective_policy="StopAndMove")
    assert taken(story, QueueApplied(name="default", gpu_quota={"*": 0}), placed) == [True, False]


def test_a_request_id_is_used_once_per_batch() -> None:
    story, _, _ = two_homes()
    first = ClusterCordoned(cluster="a", cordoned=True, cause="r-1")
    again = ClusterCordoned(cluster="b", cordoned=True, cause="r-1")
    assert taken(story, first, again) == [True, False]


@pytest.mark.parametrize(("limit", "count"), [(2, 2), (3, 3)])
def test_a_batch_is_full_at_its_limit_of_records(monkeypatch: pytest.MonkeyPatch, limit: int, count: int) -> None:
    monkeypatch.setattr(batch_module, "RECORDS_PER_ENTRY_MAX", limit)
    story, _, _ = two_homes()
    batch = Batch()
    records = [QueueApplied(name=f"q-{index}") for index in range(4)]
    assert sum(batch.add(story.state, record) for record in records) == count
    assert batch.full


def test_a_batch_is_full_at_its_limit_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "BATCH_BYTES_MAX", 60)
    story, _, _ = two_homes()
    assert taken(story, QueueApplied(name="q-1"), QueueApplied(name="q-2"), QueueApplied(name="q-3")) == [
        True,
        True,
        False,
    ]


def ask_while_busy(pump: Pump, *requests: object) -> list[Accepted | Declined | None]:
    """Ask everything within one store round trip: the first request is in flight while the others arrive."""
    first = pump.last_ticket + 1
    name = pump.leader.name
    for index, request in enumerate(requests):
        pump._ticket += 1
        pump._events.append((name, PersonAsked(first + index, request)))  # type: ignore[arg-type]
    pump.drain()
    return [pump.answer(first + index) for index in range(len(requests))]


def positions(answers: list[Accepted | Declined | None]) -> list[int]:
    return [seq_of(answer.position) for answer in answers if isinstance(answer, Accepted)]


def test_what_arrives_during_a_round_trip_lands_in_the_next_entry_together() -> None:
    pump = started()
    answers = ask_while_busy(pump, *(SubmitGroup(pod_group(f"g-{index}"), f"r-{index}", "sara") for index in range(5)))
    first, *others = positions(answers)
    assert others == [first + 1] * 4


def asked_in_flight(pump: Pump, number: int, at_s: float) -> list[ReplicaEffect]:
    """Ask while nobody answers for the store."""
    request = SubmitGroup(pod_group(f"g-{number}"), f"r-{number}", "sara")
    return pump.leader.handle(PersonAsked(number, request), Instant(at_s, WALL_MS))


def test_requests_that_wait_for_a_batch_hold_back_nothing_that_is_due() -> None:
    pump = started()
    leader = pump.leader
    assert [type(effect) for effect in asked_in_flight(pump, 1, pump.now_s)] == [CallStore]
    due_s = leader.wake_at_s
    assert due_s is not None
    assert asked_in_flight(pump, 2, due_s - 0.01) == []
    assert leader.wake_at_s == due_s
    asked_in_flight(pump, 3, due_s)
    assert leader.wake_at_s is not None
    assert leader.wake_at_s > due_s


def test_two_submissions_of_one_name_in_one_round_trip_give_one_group() -> None:
    pump = started()
    filler = SubmitGroup(pod_group("filler"), "r-0", "sara")
    first = SubmitGroup(pod_group("train"), "r-1", "sara")
    second = SubmitGroup(pod_group("train"), "r-2", "sam")
    answers = ask_while_busy(pump, filler, first, second)
    assert isinstance(answers[1], Accepted)
    assert isinstance(answers[2], Declined)
    assert answers[2].why is Refused.NAME_TAKEN


def test_one_request_repeated_within_a_round_trip_is_one_group_and_two_equal_answers() -> None:
    pump = started()
    filler = SubmitGroup(pod_group("filler"), "r-0", "sara")
    request = SubmitGroup(pod_group("train"), "r-1", "sara")
    answers = ask_while_busy(pump, filler, request, request)
    assert answers[1] == answers[2]
    assert len(pump.state.groups) == 2


def test_a_full_queue_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader_module, "QUEUE_MAX", 2)
    pump = started()
    answers = ask_while_busy(pump, *(SubmitGroup(pod_group(f"g-{index}"), f"r-{index}", "sara") for index in range(4)))
    assert [isinstance(answer, Accepted) for answer in answers] == [True, True, True, False]
    assert isinstance(answers[3], Declined)
    assert answers[3].why is Refused.QUEUE_FULL


def test_nothing_is_written_for_requests_that_change_nothing() -> None:
    pump = started()
    uid = pump.submit("train")
    before = pump.state.head
    written: list[BlobEffect] = []
    pump.on_store = lambda _, effect: written.append(effect) if isinstance(effect, BlobCreate) else None
    pump.intend(uid, "run")
    pump.ask(CordonCluster("nowhere", True, False, "", "r", "olga"))
    assert (written, pump.state.head) == ([], before)


def test_every_answer_comes_after_its_record_is_folded() -> None:
    pump = started()
    for index in range(3):
        accepted = pump.ask(JoinCluster(f"c-{index}", "fast", (), False, f"r-{index}", "olga"))
        assert isinstance(accepted, Accepted)
        assert accepted.position <= pump.leader.state.head
