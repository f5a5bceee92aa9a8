"""A group that fails wherever it goes is restarted five times, in three clusters, and then waits for a person (L5)."""

from __future__ import annotations

from itertools import pairwise

import pytest

from federation.core.books import FoldError
from federation.core.events import Accepted, Declined, Refused, ResizeGroup, SetIntent
from federation.core.records import GaveUp, Placed, Quarantined
from federation.server.views import explanation_view, group_view
from placement.model import Phase
from storage.upgrade import upgrade
from tests.unit.federation.pictures import facts, loaded, shards_of
from tests.unit.federation.pump import Pump, started
from tests.unit.federation.story import LINEAGE, Story

CLUSTERS = ("a", "b", "c", "d", "e")


def fleet(**fields: object) -> Pump:
    pump = started(**fields)  # type: ignore[arg-type]
    pump.join(*CLUSTERS)
    return pump


def poison(pump: Pump, uid: str, *, seconds: int = 700, why: str = "KubeletRejected") -> None:
    """Whoever gets it refuses it a second later, or with "MemberLost" binds it and loses a member."""
    for _ in range(seconds):
        row = pump.group(uid)
        if row.home is not None:
            member = pump.members[row.home.cluster]
            if why == "MemberLost":
                member.verdict(uid, "Bound", pods=1)
                pump.run(1.0)
                member.verdict(uid, "Released", reasons=(why,))
            else:
                member.verdict(uid, "Refused", reasons=(why,))
        pump.run(1.0)


def placements(pump: Pump, uid: str) -> list[Placed]:
    lines = (line.record for line in pump.state.history(uid))
    return [record for record in lines if isinstance(record, Placed)]


@pytest.mark.long
@pytest.mark.parametrize("why", ["KubeletRejected", "TemplateRefused", "MemberLost"])
def test_a_group_that_fails_everywhere_is_restarted_five_times_in_three_clusters_and_then_quarantined(why: str) -> None:
    pump = fleet()
    uid = pump.submit("poison")
    poison(pump, uid, why=why)
    found = placements(pump, uid)
    assert len(found) == 6
    assert len({record.cluster for record in found}) == 3
    assert all(earlier.cluster != later.cluster for earlier, later in pairwise(found[:4]))
    assert pump.group(uid).phase is Phase.QUARANTINED
    waits_s = [round((later.at_ms - earlier.at_ms) / 1000) for earlier, later in pairwise(found)]
    assert waits_s[0] <= 3, "the first time it goes elsewhere at once"
    assert all(10 * 2**number <= wait_s <= 10 * 2**number + 4 for number, wait_s in enumerate(waits_s[1:]))


def test_where_there_is_one_cluster_it_is_tried_there_and_quarantined_as_well() -> None:
    pump = started()
    pump.join("a")
    uid = pump.submit("poison")
    poison(pump, uid)
    assert (len(placements(pump, uid)), pump.group(uid).phase) == (6, Phase.QUARANTINED)


@pytest.mark.long
@pytest.mark.parametrize(
    ("verdict", "why"),
    [("Refused", "InsufficientGpus"), ("Released", "LeaseLost"), ("Released", "NotDesired")],
)
def test_who_loses_homes_by_no_fault_of_its_own_is_never_quarantined(verdict: str, why: str) -> None:
    pump = fleet()
    uid = pump.submit("train")
    for _ in range(40):
        home = pump.group(uid).home
        if home is not None:
            pump.members[home.cluster].verdict(uid, verdict, reasons=(why,))
        pump.run(10.0)
    assert len(placements(pump, uid)) > 8
    assert pump.group(uid).phase is not Phase.QUARANTINED


def test_a_group_that_is_moved_again_and_again_is_never_quarantined() -> None:
    pump = fleet()
    uid = pump.submit("train")
    for number in range(10):
        home = pump.group(uid).home
        assert home is not None
        pump.members[home.cluster].verdict(uid, "Bound", pods=1)
        assert isinstance(pump.intend(uid, "move"), Accepted), number
        pump.members[home.cluster].verdict(uid, "Released", reasons=("Drained",))
        pump.run(1.0)
    assert pump.group(uid).phase is Phase.PLACED


def quarantined() -> tuple[Pump, str]:
    pump = fleet()
    uid = pump.submit("poison")
    poison(pump, uid, seconds=200)
    assert pump.group(uid).phase is Phase.QUARANTINED
    return pump, uid


def test_it_holds_no_home_and_no_quota_and_its_name_and_says_why() -> None:
    pump, uid = quarantined()
    row = pump.group(uid)
    assert row.home is None
    assert not any(pump.state.queues[row.queue].gpus_used.values())
    assert pump.state.newest("default", "poison") is row
    told = "lost 6 homes in a row, in a, b, c: it waits for `muster resume`, or for `muster cancel`"
    assert group_view(row)["status"]["message"] == told
    why = pump.leader.why(uid)
    assert why is not None
    assert explanation_view(row, why)["summary"] == told
    assert isinstance(row.history[-1].record, Quarantined)
    assert sum(isinstance(line.record, GaveUp) for line in row.history) == 6


def test_it_is_resumed_with_a_new_budget_in_any_cluster() -> None:
    pump, uid = quarantined()
    assert isinstance(pump.intend(uid, "run"), Accepted)
    pump.run(1.0)
    assert pump.group(uid).phase is Phase.PLACED
    poison(pump, uid, seconds=200)
    assert (len(placements(pump, uid)), pump.group(uid).phase) == (12, Phase.QUARANTINED)


def test_it_is_cancelled_at_once() -> None:
    pump, uid = quarantined()
    assert isinstance(pump.intend(uid, "cancel"), Accepted)
    assert pump.group(uid).phase is Phase.CANCELLED


def test_it_is_suspended_by_a_person_as_any_other_group_with_their_reason() -> None:
    """It was answered Accepted, and nothing changed: who quarantined it was not told apart from who suspends it."""
    pump, uid = quarantined()
    before = pump.group(uid).changed_at
    answer = pump.ask(SetIntent(uid, "suspend", "until the image is mended", "r-1", "sara"))
    assert isinstance(answer, Accepted)
    row = pump.group(uid)
    assert (row.phase, row.intent_reason, answer.position) == (
        Phase.SUSPENDED,
        "until the image is mended",
        row.changed_at,
    )
    assert row.changed_at > before
    assert pump.intend(uid, "suspend") == Accepted(row.changed_at, uid)
    assert isinstance(pump.intend(uid, "run"), Accepted)
    pump.run(1.0)
    assert pump.group(uid).phase is Phase.PLACED


def test_it_has_no_size_to_change() -> None:
    pump = fleet()
    uid = pump.submit("poison", pods=2, min_count=1, elastic=True)
    poison(pump, uid, seconds=200)
    assert pump.group(uid).phase is Phase.QUARANTINED
    why = "it is Quarantined: only a group that is bound has a size to change"
    assert pump.ask(ResizeGroup(uid, "", 1, "r-1", "sara")) == Declined(Refused.NOT_RESIZABLE, why, "name")


def test_who_is_resumed_while_it_waits_after_losses_is_placed_at_once_with_a_new_budget_in_any_cluster() -> None:
    """It was answered Accepted, and waited on: one had to suspend it first."""
    pump = fleet()
    uid = pump.submit("poison")
    while len(placements(pump, uid)) < 5 or pump.group(uid).home is not None:
        poison(pump, uid, seconds=1)
    pump.run(2.0)
    assert pump.group(uid).phase is Phase.PENDING, "it is to wait for 80 s"
    for name in "abc":
        pump.members[name].gpus_free = [0] * 4
    pump.run(6.0)
    assert isinstance(pump.intend(uid, "run"), Accepted)
    pump.run(1.0)
    home = pump.group(uid).home
    assert home is not None
    assert home.cluster in {"d", "e"}
    poison(pump, uid, seconds=200)
    assert (len(placements(pump, uid)), pump.group(uid).phase) == (11, Phase.QUARANTINED)


def test_who_is_resumed_just_before_it_would_be_quarantined_is_not() -> None:
    pump = started(format_max=4)
    pump.join(*CLUSTERS)
    uid = pump.submit("poison")
    poison(pump, uid, seconds=400)
    assert uid in pump.leader.placer.poison
    assert isinstance(pump.intend(uid, "run"), Accepted)
    assert uid not in pump.leader.placer.poison


def test_a_new_leader_goes_on_counting_and_knows_the_three_clusters() -> None:
    pump = fleet(servers=2)
    uid = pump.submit("poison")
    for _ in range(300):
        if len(placements(pump, uid)) < 4:
            poison(pump, uid, seconds=1)
    first = pump.leader.name
    pump.stop(first)
    pump.run(25.0)
    pump.start(first)
    pump.run(25.0)
    poison(pump, uid, seconds=300)
    assert len(placements(pump, uid)) == 6
    assert len({record.cluster for record in placements(pump, uid)}) == 3
    assert {replica.state.groups[pump.group(uid).uid].phase for replica in pump.replicas.values()} == {
        Phase.QUARANTINED
    }


@pytest.mark.parametrize(("lost", "waits_s"), [(1, 10.0), (2, 10.0), (3, 20.0), (5, 80.0)])
def test_a_new_leader_lets_it_wait_no_shorter_than_the_last_one_did(lost: int, waits_s: float) -> None:
    """Only those that were to be quarantined were looked up: each take-over was a try at once."""
    pump = started(servers=2)
    pump.join("a")
    uid = pump.submit("poison")
    while len(placements(pump, uid)) < lost or pump.group(uid).home is not None:
        poison(pump, uid, seconds=1)
    pump.stop(pump.leader.name)
    while not any(pump.replicas[name].leading for name in pump.up):
        pump.run(0.1)
    pump.run(waits_s - 0.5)
    assert len(placements(pump, uid)) == lost
    pump.run(6.0)
    assert len(placements(pump, uid)) == lost + 1


@pytest.mark.long
def test_in_a_store_of_an_older_format_it_is_tried_for_ever_ever_more_slowly_until_that_is_raised() -> None:
    pump = started(format_max=4)
    pump.join(*CLUSTERS)
    uid = pump.submit("poison")
    poison(pump, uid, seconds=900)
    assert len(placements(pump, uid)) == 8
    assert len({record.cluster for record in placements(pump, uid)}) == 3
    assert pump.group(uid).phase is Phase.PENDING
    pump.config["format_max"] = 5
    pump.start("server-0")
    pump.run(25.0)
    upgrade(pump.store, nonce="u")
    pump.run(40.0)
    poison(pump, uid, seconds=310)
    assert pump.group(uid).phase is Phase.QUARANTINED


def test_a_snapshot_keeps_it_and_only_a_group_that_waits_can_be_quarantined() -> None:
    story = Story()
    story.cluster("a")
    uid = story.submit("poison")
    story.record(Quarantined(uid=uid, losses=6, clusters=("a",)))
    again = loaded(LINEAGE, shards_of(story.state))
    assert facts(again) == facts(story.state)
    assert again.groups == story.state.groups
    with pytest.raises(FoldError, match="the group is Quarantined"):
        story.record(Quarantined(uid=uid, losses=6, clusters=("a",)))
    story.intend(uid, "run")
    assert story.row(uid).phase is Phase.PENDING


def lost_with(pump: Pump, cluster: str, uid: str) -> None:
    """Its cluster is lost, and there is none that it may go to."""
    pump.members[cluster].alive = False
    pump.run(150.0)
    row = pump.group(uid)
    assert (row.home, row.displaced) == (None, True)


def lost_in_three(pump: Pump) -> str:
    """A group that lost a home in a, b and c, and has one in one of them again; only d and e have room for more."""
    uid = pump.submit("poison")
    for _ in range(300):
        if len({record.cluster for record in placements(pump, uid)}) < 3 or pump.group(uid).home is not None:
            poison(pump, uid, seconds=1)
    pump.run(60.0)
    assert pump.group(uid).home is not None
    for name in "abc":
        pump.members[name].gpus_free = [0] * 4
    return uid


def test_a_new_leader_knows_the_three_clusters_though_the_last_of_them_was_lost_itself() -> None:
    """The group went to a fourth: only what its last home had come to was looked at."""
    pump = fleet(servers=2)
    uid = lost_in_three(pump)
    home = pump.group(uid).home
    assert home is not None
    pump.stop(pump.leader.name)
    lost_with(pump, home.cluster, uid)


def test_a_group_that_was_bound_in_between_goes_to_no_fourth_cluster_either() -> None:
    pump = fleet()
    uid = lost_in_three(pump)
    home = pump.group(uid).home
    assert home is not None
    pump.members[home.cluster].verdict(uid, "Bound", pods=1)
    lost_with(pump, home.cluster, uid)


def test_a_group_that_ran_for_ten_minutes_goes_anywhere_again() -> None:
    pump = fleet()
    uid = lost_in_three(pump)
    home = pump.group(uid).home
    assert home is not None
    pump.members[home.cluster].verdict(uid, "Running", pods=1)
    pump.run(600.0)
    pump.members[home.cluster].alive = False
    pump.run(150.0)
    assert pump.group(uid).home is not None


def test_while_it_waits_its_history_is_not_read_in_every_cycle(monkeypatch: pytest.MonkeyPatch) -> None:
    pump = fleet()
    uid = pump.submit("poison")
    while len(placements(pump, uid)) < 5:
        poison(pump, uid, seconds=1)
    pump.members[str(pump.group(uid).home and pump.group(uid).home.cluster)].verdict(  # type: ignore[union-attr]
        uid, "Refused", reasons=("KubeletRejected",)
    )
    row, read = pump.group(uid), []
    unpacked = type(row).history
    monkeypatch.setattr(type(row), "history", property(lambda row: read.append(row.uid) or unpacked.__get__(row)))
    for number in range(10):
        pump.submit(f"other-{number}")  # each is a cycle
        pump.run(1.0)
    assert pump.group(uid).phase is Phase.PENDING
    assert read.count(uid) <= 1
