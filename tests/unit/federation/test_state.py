"""The fold, record by record: what each one changes, and what cannot be folded."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import pytest

from federation.core import books
from federation.core.records import (
    AnyRecord,
    Bound,
    ClusterAdmitted,
    ClusterFenced,
    FenceDone,
    GaveUp,
    Placed,
    QueueApplied,
)
from federation.core.state import FoldError, State
from placement.model import Phase, Position, Reason
from tests.unit.federation.story import LINEAGE, Story


def placed(**fields: Any) -> tuple[Story, str]:
    """One group with its home in cluster a; b is there too."""
    story = Story()
    story.cluster("a", "b")
    uid = story.submit(**fields)
    story.place(uid, "a")
    return story, uid


def test_the_identity_of_a_group_is_the_position_of_its_submission() -> None:
    story = Story()
    uid = story.submit("train")
    assert uid == f"{LINEAGE}.8192"
    assert story.row(uid).phase is Phase.PENDING


def test_a_group_submitted_suspended_does_not_wait_in_its_queue() -> None:
    story = Story()
    uid = story.submit("train", suspend=True)
    assert story.row(uid).phase is Phase.SUSPENDED
    assert story.state.pending == []
    story.intend(uid, "run")
    assert [key[2] for key in story.state.pending] == [uid]


def test_a_placement_of_a_group_that_has_a_home_cannot_be_folded() -> None:
    story, uid = placed()
    with pytest.raises(FoldError) as caught:
        story.place(uid, "b")
    assert "its home is a, not none" in caught.value.why
    assert story.home(uid) == "a"


def test_a_placement_into_a_fenced_cluster_cannot_be_folded() -> None:
    story, _ = placed()
    other = story.submit("other")
    story.fenced("b", 2)
    with pytest.raises(FoldError, match="cluster b is not admitted"):
        story.place(other, "b")


@pytest.mark.parametrize(
    ("verdict", "succeeded", "phase"),
    [
        ("Refused", False, Phase.PENDING),
        ("Released", False, Phase.PENDING),
        ("Finished", True, Phase.SUCCEEDED),
        ("Finished", False, Phase.FAILED),
    ],
)
def test_a_give_up_ends_the_home(verdict: str, succeeded: bool, phase: Phase) -> None:
    story, uid = placed()
    token = story.token(uid)
    at = story.gave_up(uid, verdict, succeeded=succeeded)
    row = story.row(uid)
    assert (row.home, row.phase) == (None, phase)
    assert story.state.cluster("a").ended == {token: at}  # type: ignore[union-attr]
    assert story.state.cluster("a").homes == {}  # type: ignore[union-attr]


def test_a_give_up_of_another_token_than_the_present_one_cannot_be_folded() -> None:
    story, uid = placed()
    stale = story.token(uid)
    story.gave_up(uid, "Refused")
    story.place(uid, "b")
    with pytest.raises(FoldError, match="not token"):
        story.record(GaveUp(uid=uid, token=stale, cluster="a", verdict="Released"))


def test_a_late_finish_is_history_and_nothing_else() -> None:
    story, uid = placed()
    stale = story.token(uid)
    story.fenced("a", 2)
    story.fence_done("a", 2, 30)
    story.place(uid, "b")
    story.record(GaveUp(uid=uid, token=stale, cluster="a", verdict="Finished", succeeded=True, late=True))
    assert story.row(uid).phase is Phase.PLACED
    assert story.home(uid) == "b"
    assert isinstance(story.state.history(uid)[-1].record, GaveUp)


@pytest.mark.parametrize(
    ("intent", "verdict", "phase"),
    [
        ("cancel", "Released", Phase.CANCELLED),
        ("suspend", "Released", Phase.SUSPENDED),
        ("move", "Released", Phase.PENDING),
        ("suspend", "Finished", Phase.SUCCEEDED),
        ("cancel", "Finished", Phase.SUCCEEDED),
    ],
)
def test_an_intent_takes_effect_when_the_home_ends_and_a_finish_outranks_it(
    intent: str, verdict: str, phase: Phase
) -> None:
    story, uid = placed()
    story.intend(uid, intent)
    assert story.row(uid).phase is Phase.EVICTING
    assert story.home(uid) == "a"
    story.gave_up(uid, verdict, succeeded=True)
    assert story.row(uid).phase is phase


def test_a_cancelled_group_cannot_be_revived() -> None:
    story, uid = placed()
    story.intend(uid, "cancel")
    with pytest.raises(FoldError, match="being cancelled"):
        story.intend(uid, "run")


def test_a_group_without_home_is_cancelled_at_once_and_its_name_is_free() -> None:
    story = Story()
    uid = story.submit("train")
    story.intend(uid, "cancel")
    assert story.row(uid).phase is Phase.CANCELLED
    again = story.submit("train", request_id="second")
    assert story.state.names == {("default", "train"): again}
    assert story.state.names_ended == {}
    assert story.state.newest("default", "train") is story.row(again)


def test_a_name_is_taken_until_its_group_has_ended() -> None:
    story, uid = placed()
    story.intend(uid, "cancel")
    assert story.state.names == {("default", "train"): uid}
    story.gave_up(uid, "Released")
    assert story.state.names == {}
    assert story.state.newest("default", "train") is story.row(uid)


def test_quota_is_taken_by_the_home_and_returned_when_it_ends() -> None:
    story = Story()
    story.cluster("a")
    uid = story.submit("train", pods=3, gpus=4)
    queue = story.state.queues[story.row(uid).queue]
    assert queue.used("*") == 0
    story.place(uid, "a")
    assert (queue.used("*"), queue.used("A100")) == (12, 12)  # any product: counts towards each
    story.intend(uid, "suspend")
    assert queue.used("*") == 12
    story.gave_up(uid, "Released")
    assert queue.used("*") == 0


def test_fence_done_ends_the_homes_of_at_most_its_grace() -> None:
    story = Story()
    story.cluster("a", "b")
    quick, slow = story.submit("quick", grace_s=10), story.submit("slow", grace_s=60)
    for uid in (quick, slow):
        story.place(uid, "a")
        story.bound(uid)
    story.fenced("a", 2)
    story.fence_done("a", 2, 10)
    assert (story.row(quick).phase, story.row(quick).displaced) == (Phase.PENDING, True)
    assert story.home(slow) == "a"
    story.fence_done("a", 2, 60)
    assert story.row(slow).phase is Phase.PENDING


@pytest.mark.parametrize(("bound", "ends"), [(True, False), (False, True)])
def test_fence_done_spares_a_group_that_holds_in_place_once_its_bound_has_landed(bound: bool, ends: bool) -> None:
    story = Story()
    story.cluster("a")
    uid = story.submit("train")
    story.place(uid, "a", policy="HoldInPlace")
    if bound:
        story.bound(uid)
    story.fenced("a", 2)
    story.fence_done("a", 2, 600)
    assert (story.row(uid).home is None) == ends
    assert story.row(uid).phase is (Phase.PENDING if ends else Phase.STRANDED)


def test_a_stranded_group_runs_again_when_its_cluster_is_admitted() -> None:
    story = Story()
    story.cluster("a")
    uid = story.submit("train")
    story.place(uid, "a", policy="HoldInPlace")
    story.bound(uid)
    story.fenced("a", 2)
    assert story.row(uid).phase is Phase.STRANDED
    story.record(ClusterAdmitted(cluster="a", epoch=2))
    assert story.row(uid).phase is Phase.BOUND


def test_fence_done_of_an_earlier_fence_cannot_be_folded() -> None:
    story, _ = placed()
    story.fenced("a", 2)
    story.record(ClusterAdmitted(cluster="a", epoch=2))
    with pytest.raises(FoldError):
        story.record(FenceDone(cluster="a", epoch=2, grace_s=30))


def test_epochs_only_grow() -> None:
    story, _ = placed()
    story.fenced("a", 3)
    with pytest.raises(FoldError):
        story.record(ClusterFenced(cluster="a", epoch=3))
    with pytest.raises(FoldError):
        story.record(ClusterAdmitted(cluster="a", epoch=2))


def test_an_admitted_cluster_cannot_be_dead() -> None:
    story, uid = placed()
    with pytest.raises(FoldError, match="must be fenced first"):
        story.confirmed_dead("a")
    story.fenced("a", 2)
    story.confirmed_dead("a")
    assert story.row(uid).phase is Phase.PENDING


def test_a_record_at_or_below_the_head_cannot_be_folded() -> None:
    story, uid = placed()
    record = Bound(uid=uid, token=story.token(uid), cluster="a", pods=1)
    with pytest.raises(FoldError, match="already"):
        story.state.apply(story.state.head, record)


def test_a_placement_with_a_policy_of_a_newer_version_is_not_guessed() -> None:
    story = Story()
    story.cluster("a")
    uid = story.submit()
    with pytest.raises(ValueError, match="Teleport"):
        story.state.apply(Position(10**9), Placed(uid=uid, cluster="a", effective_policy="Teleport"))


def test_pending_groups_stand_by_priority_then_age() -> None:
    story = Story()
    old, urgent, new = story.submit("old"), story.submit("urgent", priority=5), story.submit("new")
    assert [row.uid for row in story.state.pending_groups()] == [urgent, old, new]


def test_a_queue_keeps_what_it_uses_when_it_is_applied_again() -> None:
    story, _ = placed(gpus=8)
    story.record(QueueApplied(name="default", gpu_quota={"*": 4}))
    queue = story.state.queue("default")
    assert queue is not None
    assert (queue.gpu_quota, queue.used("*")) == ({"*": 4}, 8)


def test_history_keeps_the_submission_and_the_newest_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("federation.core.books.HISTORY_PER_GROUP_MAX", 4)
    monkeypatch.setattr("federation.core.invariants.HISTORY_PER_GROUP_MAX", 4)
    story = Story()
    uid = story.submit(suspend=True)
    for intent in ("run", "suspend", "run", "suspend", "run"):
        story.intend(uid, intent)
    kept = story.state.history(uid)
    assert [type(line.record).__name__ for line in kept] == ["Submitted", "IntentSet", "IntentSet", "IntentSet"]
    assert kept[0].record.spec == b""  # type: ignore[union-attr]
    assert story.row(uid).history_cut == 2


@pytest.mark.parametrize(("age_ms", "known"), [(books.WINDOW_MS, True), (books.WINDOW_MS + 1, False)])
def test_finished_groups_and_request_ids_are_forgotten_after_their_window(age_ms: int, known: bool) -> None:
    story = Story()
    uid = story.submit("train")
    story.intend(uid, "cancel")
    story.at_ms += age_ms
    story.submit("later")
    assert (story.state.group(uid) is not None) == known
    assert ("submit-train" in story.state.requests) == known
    assert (story.state.spec(uid) is not None) == known


def test_request_ids_are_bounded_even_if_the_clock_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "REQUESTS_KEPT_MAX", 2)
    story = Story()
    for name in ("a", "b", "c"):
        story.submit(name)
    assert list(story.state.requests) == ["submit-b", "submit-c"]


def test_ended_tokens_are_bounded_and_say_from_where_they_are_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "ENDED_PER_CLUSTER_MAX", 1)
    story, uid = placed()
    first = story.gave_up(uid, "Refused", reasons=(Reason.API_ERROR.code,))
    story.place(uid, "a")
    second_token = story.token(uid)
    second = story.gave_up(uid, "Refused")
    cluster = story.state.cluster("a")
    assert cluster is not None
    assert (cluster.ended, cluster.ended_pruned) == ({second_token: second}, first)


def test_equal_requests_share_one_class() -> None:
    story = Story()
    first, second = story.submit("a", pods=2), story.submit("b", pods=2)
    assert story.row(first).request is story.row(second).request


def test_every_kind_of_record_has_a_fold_that_takes_it() -> None:
    assert set(State.FOLDS) == set(get_args(AnyRecord))
    for kind, fold in State.FOLDS.items():
        takes = get_type_hints(fold)["record"]
        assert issubclass(kind, get_args(takes) or takes)


@pytest.mark.parametrize(("most", "kept"), [(3, 3), (2, 1)], ids=["as many as are kept", "one more"])
def test_so_many_kinds_of_requests_are_known_at_once_and_then_they_are_learnt_anew(
    monkeypatch: pytest.MonkeyPatch, most: int, kept: int
) -> None:
    """Else a server would keep each kind that ever was for as long as it lives."""
    monkeypatch.setattr(books, "CLASSES_KEPT_MAX", most)
    story = Story()
    uids = [story.submit(f"g-{pods}", pods=pods) for pods in (1, 2, 3)]
    assert [story.row(uid).request.pods for uid in uids] == [1, 2, 3]
    assert len(story.state._classes) == len(story.state._class_of_key) == kept
    again = story.submit("again", pods=1)
    assert story.row(again).request == story.row(uids[0]).request
