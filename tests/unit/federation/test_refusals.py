"""For how long a cluster that refused a group gets nothing of it."""

from __future__ import annotations

import pytest

from federation.core import refusals as refusals_module
from federation.core.poison import Losses
from federation.core.refusals import Refusals
from placement.model import ClusterName, GroupUid

UID, CLUSTER = GroupUid("l.8192"), ClusterName("c-1")


@pytest.mark.parametrize(
    ("times", "avoided_s"), [(1, 10), (2, 20), (3, 40), (4, 80), (5, 160), (6, 300), (7, 300), (1_025, 300)]
)
def test_each_refusal_doubles_the_time_up_to_five_minutes_however_many_there_are(times: int, avoided_s: int) -> None:
    """A group that one cluster refuses for three and a half days is refused a thousand times: that ended the leader."""
    refusals = Refusals()
    for _ in range(times):
        refusals.refused(UID, CLUSTER, 1_000.0)
    assert refusals.next_decay_s(UID, 1_000.0) == 1_000.0 + avoided_s
    assert refusals.avoid(UID, 1_000.0 + avoided_s - 1) == {CLUSTER}
    assert refusals.avoid(UID, 1_000.0 + avoided_s) == frozenset()


def test_of_more_groups_than_are_remembered_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals_module, "REMEMBERED_MAX", 2)
    refusals = Refusals()
    for number in range(3):
        refusals.refused(GroupUid(f"l.{number}"), CLUSTER, 0.0)
    assert [bool(refusals.avoid(GroupUid(f"l.{number}"), 1.0)) for number in range(3)] == [False, True, True]


@pytest.mark.parametrize(("losses", "waits_s"), [(1, 0), (2, 10), (3, 20), (5, 80), (7, 300), (1_025, 300)])
def test_who_loses_homes_in_a_row_waits_for_all_clusters_from_the_second_on(losses: int, waits_s: int) -> None:
    refusals = Refusals()
    refusals.lost(UID, Losses(losses, ("c-1",)), 1_000.0)
    clusters = {CLUSTER, ClusterName("c-2")}
    assert refusals.avoid(UID, 1_000.0, clusters) == (clusters if waits_s else frozenset())
    assert refusals.next_decay_s(UID, 1_000.0) == (1_000.0 + waits_s if waits_s else float("inf"))
    assert refusals.avoid(UID, 1_000.0 + waits_s, clusters) == frozenset()


def test_of_more_groups_that_wait_than_are_remembered_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals_module, "REMEMBERED_MAX", 2)
    refusals = Refusals()
    for number in range(3):
        refusals.lost(GroupUid(f"l.{number}"), Losses(2, ("c-1",)), 0.0)
    assert [bool(refusals.avoid(GroupUid(f"l.{number}"), 1.0, {CLUSTER})) for number in range(3)] == [False, True, True]
