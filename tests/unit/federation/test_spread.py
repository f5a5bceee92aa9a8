"""A spread group through a whole replica: its children appear, are divided, move and end as one submission."""

from __future__ import annotations

from typing import Any

import pytest

from federation.core import admission
from federation.core.decisions import summary
from federation.core.events import Accepted, Declined, Refused, SetIntent, SubmitGroup
from federation.core.lineup import Lineup
from federation.core.records import AnyRecord, IntentSet, Placed, SubmittedChild
from federation.core.rows import GroupRow
from federation.core.spreads import children_of, uids_of
from federation.core.state import FoldError
from federation.core.stored import spec_of
from placement.model import Phase, Position, Reason
from tests.unit.federation.pictures import facts, loaded, shards_of
from tests.unit.federation.pump import Pump, pod_group, started


def web(
    pump: Pump, *, replicas: int = 9, name: str = "web", request_id: str = "r-1", **spread: Any
) -> Accepted | Declined | None:
    fields = {"clusters": {"min": 2, "max": 3}, "min_per_cluster": 2} | spread
    return pump.ask(SubmitGroup(pod_group(name, pods=replicas, spread=fields), request_id, "sara"))


def submitted(pump: Pump, **fields: Any) -> str:
    accepted = web(pump, **fields)
    assert isinstance(accepted, Accepted), accepted
    return accepted.uid


def children(pump: Pump, uid: str) -> list[GroupRow]:
    uids = uids_of(uid)
    assert uids is not None
    return [pump.group(one) for one in uids]


def homes(pump: Pump, uid: str) -> list[tuple[str, int] | str]:
    """Of each child its cluster and share, or its phase."""
    return [
        (row.home.cluster, row.request.pods) if row.home is not None else row.phase.value for row in children(pump, uid)
    ]


def folded(pump: Pump, kind: type[AnyRecord]) -> list[AnyRecord]:
    return [line.record for line in pump.folded[pump.leader.name] if isinstance(line.record, kind)]


def entries(pump: Pump, kind: type[AnyRecord]) -> set[int]:
    return {line.position // 8192 for line in pump.folded[pump.leader.name] if isinstance(line.record, kind)}


# --- submission ---


def test_children_appear_in_one_entry_and_carry_names_and_label() -> None:
    pump = started()
    uid = submitted(pump)
    rows = children(pump, uid)
    assert [row.name for row in rows] == ["web-1", "web-2", "web-3"]
    assert {row.labels["muster.io/spread"] for row in rows} == {"web"}
    assert [(row.request.pods, row.request.min_count) for row in rows] == [(7, 2)] * 3
    assert len(entries(pump, SubmittedChild)) == 1
    assert uid == f"{rows[0].uid}~3"
    assert summary(folded(pump, SubmittedChild)[1]) == (
        "submitted as child 2 of 3 of web, 9 replicas in all, to queue default, priority 0"
    )


def test_the_same_request_is_the_same_spread_group_and_another_body_is_a_conflict() -> None:
    pump = started()
    uid = submitted(pump)
    again = web(pump)
    assert isinstance(again, Accepted)
    assert again.uid == uid
    other = web(pump, replicas=8)
    assert isinstance(other, Declined)
    assert other.why is Refused.REQUEST_ID_CONFLICT
    assert len(folded(pump, SubmittedChild)) == 3


@pytest.mark.parametrize("name", ["web", "web-2"])
def test_nobody_else_gets_its_name_or_a_childs_while_it_lives(name: str) -> None:
    pump = started()
    uid = submitted(pump)
    taken = pump.ask(SubmitGroup(pod_group(name), "r-2", "sara"))
    assert isinstance(taken, Declined)
    assert (taken.why, taken.field) == (Refused.NAME_TAKEN, "name")
    pump.ask(SetIntent(uid, "cancel", "", "r-3", "sara"))
    assert isinstance(pump.ask(SubmitGroup(pod_group(name), "r-4", "sara")), Accepted)


@pytest.mark.parametrize("name", ["web", "web-3"])
def test_it_is_refused_whole_where_a_name_is_taken(name: str) -> None:
    pump = started()
    pump.submit(name)
    assert isinstance(web(pump), Declined)
    assert folded(pump, SubmittedChild) == []


def test_a_store_of_an_older_format_takes_none() -> None:
    declined = web(started(format_max=3))
    assert isinstance(declined, Declined)
    assert (declined.why, declined.field) == (Refused.NOT_TAKEN, "spread")


@pytest.mark.parametrize(("room", "taken"), [(0, True), (-1, False)], ids=["the largest", "one byte more"])
def test_the_manifest_of_a_child_is_no_larger_than_any(
    monkeypatch: pytest.MonkeyPatch, room: int, *, taken: bool
) -> None:
    """What its cluster keeps of it is not read again beyond that: after a restore it would be stopped."""
    whole = pod_group("web", pods=9, spread={"clusters": {"min": 2, "max": 3}, "min_per_cluster": 2})
    largest = max(len(spec_of(child).json) for child in children_of(whole))
    assert len(spec_of(whole).json) < largest
    monkeypatch.setattr(admission, "SPEC_JSON_BYTES_MAX", largest + room)
    answer = web(started())
    if taken:
        assert isinstance(answer, Accepted)
    else:
        assert answer == Declined(
            Refused.LIMIT,
            f"the manifest of each child has up to {largest} bytes, at most {largest - 1} are allowed",
            "spread",
        )


def test_nobody_submits_a_child_by_hand() -> None:
    pump = started()
    child = children_of(pod_group("web", pods=4, spread={"clusters": 2}))[0]
    declined = pump.ask(SubmitGroup(child, "r-1", "sara"))
    assert isinstance(declined, Declined)
    assert (declined.why, declined.field) == (Refused.NOT_TAKEN, "child")


# --- placing ---


def test_children_are_placed_in_one_entry_each_in_a_cluster_of_its_own() -> None:
    pump = started()
    pump.join("a", "b", "c", nodes=6)
    uid = submitted(pump)
    assert homes(pump, uid) == [("a", 3), ("b", 3), ("c", 3)]
    assert len(entries(pump, Placed)) == 1
    assert [one.counts for one in folded(pump, Placed) if isinstance(one, Placed)] == [(3,), (3,), (3,)]
    answer = pump.members["b"].desired()
    assert answer is not None
    assert [group.counts for group in answer.groups] == [(3,)]


def test_children_that_are_not_needed_are_cancelled_in_the_same_entry() -> None:
    pump = started()
    pump.join("a", "b", nodes=6)
    uid = submitted(pump)
    assert homes(pump, uid) == [("a", 5), ("b", 4), "Cancelled"]
    assert entries(pump, IntentSet) == entries(pump, Placed)
    assert children(pump, uid)[2].intent_reason == "all replicas are divided over 2 clusters"


def test_nothing_is_placed_until_the_floors_and_all_replicas_fit() -> None:
    pump = started()
    pump.join("a", nodes=9)
    uid = submitted(pump)
    assert homes(pump, uid) == ["Pending"] * 3
    told = pump.leader.why(children(pump, uid)[1].uid)
    assert told is not None
    assert str(told.because) == "SpreadTooNarrow: needs 2 clusters with room for 2 replicas each, best is 1"
    pump.join("b", nodes=2)
    assert homes(pump, uid) == [("b", 2), ("a", 7), "Cancelled"]


def test_the_quota_is_charged_with_the_replicas_once() -> None:
    pump = started()
    pump.join("a", "b", "c", nodes=6)
    submitted(pump)
    queue = pump.state.queue("default")
    assert queue is not None
    assert queue.used("*") == 72


def test_a_snapshot_keeps_shares_and_siblings_before_and_after_dividing() -> None:
    pump = started()
    submitted(pump, clusters=3)
    assert facts(loaded(pump.state.lineage, shards_of(pump.state))) == facts(pump.state)
    pump.join("a", "b", "c", nodes=6)
    again = loaded(pump.state.lineage, shards_of(pump.state))
    assert facts(again) == facts(pump.state)
    assert [row.child.share for row in again.spread("default", "web") if row.child is not None] == [3, 3, 3]


def test_a_placement_beside_a_sibling_stops_the_fold() -> None:
    pump = started()
    pump.join("a", "b", nodes=9)
    uid = submitted(pump, clusters=2)
    first = children(pump, uid)[0]
    assert pump.members["a"].verdict(first.uid, "Refused", reasons=("ApiError",)) is not None
    beside = Placed(uid=first.uid, cluster="b", effective_policy="StopAndMove")
    with pytest.raises(FoldError, match=r"its sibling .* is at home in b"):
        pump.state.apply(Position(pump.state.head + 1), beside)


# --- what happens to one child ---


def test_a_child_of_a_lost_cluster_starts_in_another_one_with_its_share() -> None:
    pump = started()
    pump.join("a", "b", "c", "d", nodes=4)
    uid = submitted(pump)
    assert homes(pump, uid) == [("a", 3), ("b", 3), ("c", 3)]
    pump.members["b"].alive = False
    pump.run(120.0)
    assert homes(pump, uid) == [("a", 3), ("d", 3), ("c", 3)]


def test_a_child_whose_siblings_have_all_other_clusters_waits_and_says_why() -> None:
    pump = started()
    pump.join("a", "b", "c", nodes=9)
    uid = submitted(pump)
    pump.members["b"].alive = False
    pump.run(120.0)
    assert homes(pump, uid) == [("a", 3), "Pending", ("c", 3)]
    told = pump.leader.why(children(pump, uid)[1].uid)
    assert told is not None
    assert {one.cluster: one.because[0].reason for one in told.clusters} == {
        "a": Reason.SIBLING_THERE,
        "b": Reason.CLUSTER_FENCED,
        "c": Reason.SIBLING_THERE,
    }


def test_when_a_sibling_ends_its_cluster_is_open_to_the_others() -> None:
    pump = started()
    pump.join("a", "b", "c", nodes=9)
    uid = submitted(pump)
    pump.members["b"].alive = False
    pump.run(120.0)
    first, waiting, _ = children(pump, uid)
    assert pump.members["a"].verdict(first.uid, "Finished", succeeded=True) is not None
    pump.run(5.0)
    assert waiting.home is not None
    assert waiting.home.cluster == "a"


# --- acts of people ---


def test_an_act_goes_to_all_children_in_one_entry_and_its_repeat_changes_nothing() -> None:
    pump = started()
    pump.join("a", "b", "c", nodes=6)
    uid = submitted(pump)
    for _ in range(2):
        assert isinstance(pump.ask(SetIntent(uid, "cancel", "done", "stop-1", "sara")), Accepted)
    assert len(entries(pump, IntentSet)) == 1
    assert len(folded(pump, IntentSet)) == 3
    assert {row.phase for row in children(pump, uid)} == {Phase.EVICTING}
    for row in children(pump, uid):
        assert row.home is not None
        pump.members[row.home.cluster].verdict(row.uid, "Released", reasons=("Cancelled",))
    assert homes(pump, uid) == ["Cancelled"] * 3


def test_one_that_was_suspended_before_it_was_divided_is_divided_when_it_is_resumed() -> None:
    pump = started()
    uid = submitted(pump)
    assert isinstance(pump.ask(SetIntent(uid, "suspend", "", "s-1", "sara")), Accepted)
    pump.join("a", "b", "c", nodes=6)
    assert homes(pump, uid) == ["Suspended"] * 3
    assert isinstance(pump.ask(SetIntent(uid, "run", "", "s-2", "sara")), Accepted)
    assert homes(pump, uid) == [("a", 3), ("b", 3), ("c", 3)]


def test_people_do_not_act_on_a_single_child() -> None:
    pump = started()
    uid = submitted(pump)
    declined = pump.ask(SetIntent(children(pump, uid)[1].uid, "cancel", "", "r-9", "sara"))
    assert isinstance(declined, Declined)
    assert (declined.why, declined.field) == (Refused.INVALID, "name")
    assert "web-2 is a child of web" in declined.detail


def test_whoever_miscounts_the_children_acts_on_no_group_behind_them() -> None:
    pump = started()
    uid = submitted(pump)
    first, _, _ = uid.partition("~")
    declined = pump.ask(SetIntent(f"{first}~4", "cancel", "", "r-9", "sara"))
    assert isinstance(declined, Declined)
    assert declined.why is Refused.UNKNOWN_GROUP


@pytest.mark.parametrize("uid", ["", "x~3", "1-a.8192~65", "1-a.8192~"])
def test_what_is_no_spread_groups_uid_is_an_unknown_group(uid: str) -> None:
    declined = started().ask(SetIntent(uid, "cancel", "", "r-9", "sara"))
    assert isinstance(declined, Declined)
    assert declined.why is Refused.UNKNOWN_GROUP


def test_an_ended_one_says_so() -> None:
    pump = started()
    uid = submitted(pump)
    pump.ask(SetIntent(uid, "cancel", "", "r-2", "sara"))
    assert isinstance(pump.ask(SetIntent(uid, "cancel", "", "r-3", "sara")), Accepted)
    declined = pump.ask(SetIntent(uid, "suspend", "", "r-4", "sara"))
    assert isinstance(declined, Declined)
    assert (declined.why, declined.detail) == (Refused.GROUP_FINISHED, "default/web is Cancelled")


def test_who_waits_behind_an_undivided_spread_group_counts_it_once() -> None:
    pump = started()
    pump.join("a", nodes=1)
    web = submitted(pump)
    first = pump.leader.why(children(pump, web)[0].uid)
    behind = pump.leader.why(pump.submit("train", pods=99))
    assert first is not None
    assert behind is not None
    assert (first.ahead_count, behind.ahead_count, behind.ahead_in_queue_count) == (0, 1, 1)


def test_one_that_ended_does_not_wait_on_when_another_has_its_name_before_the_next_cycle() -> None:
    """Its children are not found together then: the name is that of the younger ones."""
    pump = started()
    uid = submitted(pump)
    lineup = Lineup()
    lineup.update(pump.state, lambda _uid: frozenset())
    before = len(pump.folded[pump.leader.name])
    pump.ask(SetIntent(uid, "cancel", "", "r-2", "sara"))
    again = submitted(pump, request_id="r-3")
    for line in pump.folded[pump.leader.name][before:]:
        lineup.folded(pump.state, line.position, line.record)
    lineup.update(pump.state, lambda _uid: frozenset())
    waiting = [row.uid for row in (*children(pump, uid), *children(pump, again)) if row.uid in lineup.waiting]
    assert waiting == [children(pump, again)[0].uid]


def test_one_that_is_cancelled_and_submitted_again_under_its_name_is_divided_once() -> None:
    pump = started()
    members = pump.join("a", "b", "c", nodes=6)
    for member in members:
        member.gpus_free = [0] * 6
        member.report()
    pump.run(1.0)
    uid = submitted(pump, clusters=3)
    pump.run(1.0)
    pump.ask(SetIntent(uid, "cancel", "", "r-2", "sara"))
    again = submitted(pump, request_id="r-3", clusters=3)
    for member in members:
        member.gpus_free = [8] * 6
        member.report()
    pump.run(5.0)
    assert homes(pump, uid) == ["Cancelled"] * 3
    assert homes(pump, again) == [("a", 3), ("b", 3), ("c", 3)]
