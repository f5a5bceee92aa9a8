"""What counts as a home that a group lost by itself, and from when on it is forgiven."""

from __future__ import annotations

import pytest

from federation.core import poison
from federation.core.breaker import PROBER
from federation.core.history import RecordSummary
from federation.core.poison import RESTARTS_MAX, WELL_MS, Losses, LostHomes, barred, is_loss, losses
from federation.core.records import AnyRecord, GaveUp, IntentSet, Placed, Quarantined, Running
from placement.model import Position
from tests.unit.federation.story import Story

UID = "l.8192"


def placed(cluster: str = "a", actor: str = "muster:placer") -> Placed:
    return Placed(uid=UID, cluster=cluster, effective_policy="StopAndMove", actor=actor)


def gave_up(verdict: str, *why: str, cluster: str = "a", at_ms: int = 0, late: bool = False) -> GaveUp:
    return GaveUp(uid=UID, token="t", cluster=cluster, verdict=verdict, reasons=why, at_ms=at_ms, late=late)


def refused(cluster: str = "a") -> tuple[AnyRecord, ...]:
    return placed(cluster), gave_up("Refused", "KubeletRejected", cluster=cluster)


def of(*records: AnyRecord) -> Losses:
    return losses(RecordSummary(Position(at), record) for at, record in enumerate(records, 1))


@pytest.mark.parametrize("reason", ["KubeletRejected", "ApiError", "BindConflict", "BindDeadline", "TemplateRefused"])
def test_what_could_not_be_bound_counts(reason: str) -> None:
    assert is_loss(gave_up("Refused", reason))


def test_what_lost_members_counts() -> None:
    assert is_loss(gave_up("Released", "MemberLost"))


@pytest.mark.parametrize(
    "said",
    [
        gave_up("Refused", "InsufficientGpus"),
        gave_up("Refused", "NoCliqueLargeEnough"),
        gave_up("Refused", "VictimStillRunning"),
        gave_up("Released", "Drained"),
        gave_up("Released", "LeaseLost"),
        gave_up("Released", "Cancelled"),
        gave_up("Released", "Suspended"),
        gave_up("Released", "NotDesired"),
        gave_up("Finished"),
        gave_up("Refused", "ApiError", late=True),
    ],
    ids=lambda said: f"{said.verdict} {' '.join(said.reasons)}{' late' if said.late else ''}",
)
def test_a_lack_of_room_moves_fences_people_and_failures_do_not(said: GaveUp) -> None:
    assert not is_loss(said)


def test_losses_are_counted_with_the_clusters_in_which_they_were() -> None:
    found = of(*refused("b"), *refused("a"), placed("b"), gave_up("Released", "MemberLost", cluster="b"))
    assert found == Losses(3, ("b", "a"), ("MemberLost",))


@pytest.mark.parametrize(("times", "too_many"), [(RESTARTS_MAX, False), (RESTARTS_MAX + 1, True)])
def test_five_restarts_are_not_too_many_and_six_losses_are(times: int, too_many: bool) -> None:
    assert of(*(record for _ in range(times) for record in refused())).too_many is too_many


@pytest.mark.parametrize(("ran_ms", "count"), [(WELL_MS - 1, 3), (WELL_MS, 1)])
def test_who_ran_for_ten_minutes_is_forgiven_what_came_before(ran_ms: int, count: int) -> None:
    began = Running(uid=UID, token="t", cluster="a", pods=1, at_ms=1_000)
    lost = gave_up("Released", "MemberLost", at_ms=1_000 + ran_ms)
    assert of(*refused(), *refused(), placed(), began, lost).count == count


def test_a_move_in_between_forgives_nothing_unless_it_ran_well() -> None:
    for ran_ms, count in ((1_000, 2), (WELL_MS, 1)):
        began = Running(uid=UID, token="t", cluster="a", pods=1, at_ms=1_000)
        moved = gave_up("Released", "Drained", at_ms=1_000 + ran_ms)
        assert of(*refused(), placed(), began, moved, *refused()).count == count


def test_what_a_probe_meets_says_nothing_of_the_group() -> None:
    probe = (placed(actor=PROBER), gave_up("Refused", "KubeletRejected"))
    assert of(*refused("b"), *probe, *probe).count == 1


def test_who_is_resumed_or_was_quarantined_begins_anew() -> None:
    resumed = IntentSet(uid=UID, intent="run")
    stopped = Quarantined(uid=UID, losses=6, clusters=("a",))
    assert of(*refused(), *refused(), resumed, *refused()).count == 1
    assert of(*refused(), stopped) == Losses()
    assert of(*refused(), IntentSet(uid=UID, intent="suspend"), *refused()).count == 2


def failed_in_three() -> tuple[Story, list[str]]:
    story = Story()
    story.cluster("a", "b", "c")
    uids = [story.submit(f"g-{number}") for number in range(3)]
    for uid in uids:
        for cluster in "abc":
            story.place(uid, cluster)
            story.gave_up(uid, "Refused", reasons=("ApiError",))
    return story, uids


def test_more_rows_than_are_remembered_are_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poison, "LOOKED_UP_MAX", 2)
    (story, uids), lost = failed_in_three(), LostHomes()
    for _ in range(2):
        assert [lost.of(story.row(uid)).clusters for uid in uids] == [("a", "b", "c")] * 3
    assert len(lost._known) <= 2


def test_a_history_is_read_once_while_its_row_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    (story, (uid, *_)), lost = failed_in_three(), LostHomes()
    read: list[str] = []
    monkeypatch.setattr(poison, "losses", lambda history: read.append(uid) or losses(history))
    for _ in range(3):
        assert lost.of(story.row(uid)).count == 3
    assert len(read) == 1
    story.record(IntentSet(uid=uid, intent="run"))
    assert lost.of(story.row(uid)) == Losses()


def test_who_failed_in_three_clusters_goes_to_no_fourth_as_long_as_one_of_them_is_in_the_fleet() -> None:
    story, (uid, *_) = failed_in_three()
    lost = LostHomes().of(story.row(uid))
    assert barred(story.row(uid), lost, ("a", "b", "c", "d", "e")) == {"d", "e"}
    assert barred(story.row(uid), lost, ("c", "d", "e")) == {"d", "e"}
    assert barred(story.row(uid), lost, ("d", "e")) == frozenset()
