"""Sizes of elastic groups that run: asked for by people, given by the placer, answered by agents, kept by the state."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from federation.core.batch import Batch
from federation.core.books import FoldError
from federation.core.decisions import summary
from federation.core.events import Accepted, Declined, ResizeGroup
from federation.core.growing import growable
from federation.core.records import AnyRecord, IntentSet, Resized, Sized
from federation.core.resizes import at_most_of
from federation.core.rows import GroupRow
from federation.protocol.messages import DesiredGroup, VerdictAnswer
from placement.model import ClusterName, GroupUid, Position, Role
from tests.unit.federation.pictures import facts, loaded, shards_of
from tests.unit.federation.pump import Member, Pump, started


def running(pump: Pump, *, pods: int = 6, at_least: int = 2, nodes: int = 4, **fields: Any) -> tuple[Member, str]:
    """An elastic group that is bound with all the pods that its cluster has nodes for, one each; the rest is taken."""
    (member,) = pump.join("a", nodes=nodes)
    uid = pump.submit("train", pods=pods, min_count=at_least, elastic=True, **fields)
    member.gpus_free = [0] * nodes
    member.report()
    member.verdict(uid, "Bound", pods=pump.group(uid).placed.pods)
    member.verdict(uid, "Running", pods=pump.group(uid).placed.pods)
    return member, uid


def resize(pump: Pump, uid: str, count: int, role: str = "", request_id: str = "") -> Accepted | Declined | None:
    return pump.ask(ResizeGroup(uid, role, count, request_id or f"resize-{count}-{pump.now_s}", "sara"))


def sized(member: Member, uid: str, *counts: int, **fields: Any) -> VerdictAnswer | None:
    sizing = member.pump.group(uid).sizing
    at = sizing.at if sizing is not None else 0
    return member.verdict(uid, "Sized", **{"counts": counts, "resized_at": at, **fields})


def records(pump: Pump, kind: type[AnyRecord]) -> list[Any]:
    return [line.record for line in pump.folded[pump.leader.name] if isinstance(line.record, kind)]


def desired(member: Member, uid: str) -> DesiredGroup:
    answer = member.desired()
    assert answer is not None
    return next(group for group in answer.groups if group.uid == uid)


def pods_of(row: GroupRow) -> tuple[int, bool]:
    return row.placed.pods, row.resizing


# --- people -----------------------------------------------------------------------------------------------------------


def test_a_person_shrinks_a_group_and_its_agent_is_told_with_the_position() -> None:
    pump = started()
    member, uid = running(pump)
    answer = resize(pump, uid, 2)
    assert isinstance(answer, Accepted)
    row = pump.group(uid)
    assert pods_of(row) == (2, True)
    told = desired(member, uid)
    assert (told.counts, told.resized_at) == ((2,), answer.position)
    (record,) = records(pump, Resized)
    assert (record.actor, record.count, record.at_most) == ("sara", 2, (2,))
    assert summary(record) == "to have 2 pods, 2 in all, on a"
    assert pump.rung[-1][0] == "a"


def test_its_token_and_its_quota_stay() -> None:
    pump = started()
    member, uid = running(pump)
    before = pump.group(uid).home
    resize(pump, uid, 2)
    sized(member, uid, 2)
    queue = pump.state.queue("default")
    assert queue is not None
    assert (pump.group(uid).home, queue.used("*")) == (before, 48)


def test_the_agents_answer_ends_the_resize() -> None:
    pump = started()
    member, uid = running(pump)
    resize(pump, uid, 2)
    answer = sized(member, uid, 2)
    assert answer is not None
    assert answer.landed_at > 0
    assert pods_of(pump.group(uid)) == (2, False)
    assert pump.group(uid).pods_bound == 2
    assert summary(records(pump, Sized)[0]) == "has 2 pods now"


def test_an_agent_that_declined_leaves_the_group_as_it_was() -> None:
    pump = started()
    member, uid = running(pump)
    resize(pump, uid, 5)
    sized(member, uid, 4, reasons=("InsufficientGpus",), detail="1 short")
    assert pods_of(pump.group(uid)) == (4, False)
    assert summary(records(pump, Sized)[0]) == "has 4 pods, not as asked: InsufficientGpus (1 short)"


def test_a_repeated_answer_is_acknowledged_without_a_record() -> None:
    pump = started()
    member, uid = running(pump)
    resize(pump, uid, 2)
    sized(member, uid, 2)
    again = sized(member, uid, 2)
    assert again is not None
    assert again.landed_at > 0
    assert len(records(pump, Sized)) == 1


def test_the_answer_to_an_earlier_resize_changes_nothing_though_it_comes_late() -> None:
    pump = started()
    member, uid = running(pump)
    resize(pump, uid, 2)
    first = pump.group(uid).sizing
    assert first is not None
    sized(member, uid, 2)
    resize(pump, uid, 3)
    late = sized(member, uid, 2, resized_at=first.at)
    assert late is not None
    assert late.landed_at > 0
    assert pods_of(pump.group(uid)) == (3, True)


def test_an_answer_about_a_token_that_ended_is_not_taken() -> None:
    pump = started()
    member, uid = running(pump)
    resize(pump, uid, 2)
    home = pump.group(uid).home
    assert home is not None
    member.verdict(uid, "Released", reasons=("MemberLost",))
    answer = sized(member, uid, 2, token=str(home.token), resized_at=1)
    assert answer is not None
    assert (answer.landed_at, answer.why) == (0, "HomeEnded")


def test_a_size_that_the_group_may_not_have_is_not_taken_from_an_agent() -> None:
    pump = started()
    member, uid = running(pump)
    resize(pump, uid, 2)
    answer = sized(member, uid, 1)
    assert answer is not None
    assert (answer.landed_at, answer.why) == (0, "SizeUnknown")


def test_a_group_that_is_not_elastic_has_no_size_that_its_agent_could_tell() -> None:
    """It survives the loss of pods, but is placed with all of them: what was told would have it grown later."""
    pump = started()
    (member,) = pump.join("a", nodes=6)
    uid = pump.submit("train", pods=6, min_count=2)
    member.verdict(uid, "Bound", pods=6)
    answer = sized(member, uid, 4)
    assert answer is not None
    assert (answer.landed_at, answer.why) == (0, "SizeUnknown")
    assert pods_of(pump.group(GroupUid(uid))) == (6, False)


def test_a_home_that_ends_takes_its_size_with_it() -> None:
    pump = started()
    member, uid = running(pump)
    resize(pump, uid, 2)
    member.gpus_free = [8] * 4
    member.verdict(uid, "Released", reasons=("MemberLost",))
    pump.run(20.0)
    row = pump.group(uid)
    assert row.home is not None
    assert (row.counts, row.sizing) == ((4,), None)


@pytest.mark.parametrize(
    ("count", "role", "field", "words"),
    [
        (1, "", "count", "1 pods of role 'worker': at least 2 and at most 6 are allowed"),
        (7, "", "count", "7 pods of role 'worker': at least 2 and at most 6 are allowed"),
        (3, "server", "role", "there is no role 'server': it has worker"),
    ],
)
def test_a_size_out_of_bounds_is_refused_with_the_field_and_the_limits(
    count: int, role: str, field: str, words: str
) -> None:
    pump = started()
    _, uid = running(pump)
    answer = resize(pump, uid, count, role)
    assert isinstance(answer, Declined)
    assert (answer.why, answer.field, answer.detail) == ("Invalid", field, words)
    assert records(pump, Resized) == []


@pytest.mark.parametrize("count", [2, 6])
def test_both_bounds_are_allowed(count: int) -> None:
    pump = started()
    _, uid = running(pump)
    assert isinstance(resize(pump, uid, count), Accepted)


def test_of_several_roles_one_has_to_be_named() -> None:
    pump = started()
    container = {"name": "main", "image": "train", "resources": {"limits": {"nvidia.com/gpu": 8}}}
    template = {"spec": {"containers": [container]}}
    roles = tuple(Role(name=name, count=2, min_count=1, template=template) for name in ("server", "worker"))
    (member,) = pump.join("a", nodes=4)
    from federation.core.events import SubmitGroup
    from placement.model import PodGroup

    accepted = pump.ask(SubmitGroup(PodGroup(name="two", roles=roles, min_count=2, elastic=True), "s", "sara"))
    assert isinstance(accepted, Accepted)
    member.verdict(accepted.uid, "Bound", pods=4)
    refused = resize(pump, accepted.uid, 1)
    assert isinstance(refused, Declined)
    assert (refused.field, refused.detail) == ("role", "say which role: it has server, worker")
    assert isinstance(resize(pump, accepted.uid, 1, "worker"), Accepted)
    assert pump.group(accepted.uid).counts == (2, 1)


def test_one_resize_at_a_time() -> None:
    pump = started()
    _, uid = running(pump)
    resize(pump, uid, 2)
    answer = resize(pump, uid, 3)
    assert isinstance(answer, Declined)
    assert (answer.why, answer.detail) == ("Resizing", "it is being resized to 2 pods")


def test_a_group_that_is_not_elastic_is_not_resized() -> None:
    pump = started()
    (member,) = pump.join("a", nodes=4)
    uid = pump.submit("train", pods=4, min_count=2)
    member.verdict(uid, "Bound", pods=4)
    answer = resize(pump, uid, 2)
    assert isinstance(answer, Declined)
    assert (answer.why, answer.field) == ("NotResizable", "name")


def test_a_group_that_is_not_bound_or_not_wanted_to_run_is_not_resized() -> None:
    pump = started()
    (member,) = pump.join("a", nodes=4)
    uid = pump.submit("train", pods=6, min_count=2, elastic=True)
    placed = resize(pump, uid, 2)
    member.verdict(uid, "Bound", pods=4)
    pump.intend(uid, "suspend")
    stopping = resize(pump, uid, 2)
    assert isinstance(placed, Declined)
    assert isinstance(stopping, Declined)
    assert (placed.why, stopping.why) == ("NotResizable", "NotResizable")
    assert records(pump, Resized) == []


def test_a_group_that_must_stand_together_is_asked_to_grow_once_its_agent_says_that_there_is_room() -> None:
    """Where it stands only its agent knows: asked without its word, it declined again and again."""
    pump = started()
    member, uid = running(pump, pods=4, gpus=2, nodes=1, topology={"required": "host"})
    assert isinstance(resize(pump, uid, 2), Accepted)
    sized(member, uid, 2)
    assert isinstance(resize(pump, uid, 4), Accepted)
    sized(member, uid, 2, reasons=("NoDomainLargeEnough",))
    member.nodes, member.gpus_free = 1, [8]
    member.report()
    pump.run(400.0)
    assert [one.counts for one in records(pump, Resized)] == [(2,), (4,)]
    home = pump.group(uid).home
    assert home is not None
    member.report(roomy=(str(home.token),))
    pump.run(1.0)
    assert [one.counts for one in records(pump, Resized)] == [(2,), (4,), (4,)]


@pytest.mark.parametrize(("named", "accepted"), [(64, True), (65, False)])
def test_a_report_names_so_many_gangs_with_room_at_most(named: int, *, accepted: bool) -> None:
    pump = started()
    (member,) = pump.join("a", nodes=1)
    before = pump.leader.views.get("a")
    assert before is not None
    member.report(roomy=tuple(f"{pump.state.lineage}.{number}" for number in range(named)))
    view = pump.leader.views.get("a")
    assert (view is not None and len(view.roomy) == named) == accepted


def test_a_repeat_of_the_request_is_answered_alike_and_another_body_is_a_conflict() -> None:
    pump = started()
    member, uid = running(pump)
    first = resize(pump, uid, 2, request_id="r-1")
    sized(member, uid, 2)
    again = resize(pump, uid, 2, request_id="r-1")
    other = resize(pump, uid, 3, request_id="r-1")
    assert first == again
    assert isinstance(other, Declined)
    assert other.why == "RequestIdConflict"


def test_a_store_of_an_older_format_gets_no_resizes() -> None:
    pump = started(format_max=2)
    _, uid = running(pump)
    answer = resize(pump, uid, 2)
    assert isinstance(answer, Declined)
    assert (answer.why, answer.field) == ("NotResizable", "name")
    assert "format 2" in answer.detail


def test_a_snapshot_keeps_resizes() -> None:
    pump = started()
    _, uid = running(pump)
    resize(pump, uid, 2)
    again = loaded(pump.state.lineage, shards_of(pump.state))
    assert facts(again) == facts(pump.state)
    assert again.small == {uid}
    assert again.clusters[ClusterName("a")].resizes == pump.cluster("a").resizes


def test_a_resize_that_does_not_follow_from_the_state_stops_the_server() -> None:
    pump = started()
    member, uid = running(pump)
    resize(pump, uid, 2)
    (record,) = records(pump, Resized)
    state = pump.state
    with pytest.raises(FoldError, match="resizing True"):
        state.apply(Position(state.head + 1), record)
    sized(member, uid, 2)
    with pytest.raises(FoldError, match="may not have"):
        state.apply(Position(state.head + 1), replace(record, counts=(1,)))
    pump.intend(uid, "suspend")
    with pytest.raises(FoldError, match="Evicting"):
        state.apply(Position(state.head + 1), record)


# --- the placer -------------------------------------------------------------------------------------------------------


def more_nodes(member: Member, *gpus_free: int) -> None:
    member.nodes, member.gpus_free = len(gpus_free), list(gpus_free)
    member.report()
    member.pump.run(1.0)


def test_a_group_that_started_small_grows_when_there_is_idle_room() -> None:
    pump = started()
    member, uid = running(pump)
    more_nodes(member, 0, 0, 0, 0, 8)
    (record,) = records(pump, Resized)
    assert (record.counts, record.count, record.actor) == ((5,), 0, "muster:placer")
    assert record.stamp[0] == "a"
    assert summary(record) == "grows to 5 pods on a, where there is idle room"
    assert desired(member, uid).counts == (5,)


def test_it_grows_again_once_its_agent_has_answered_and_then_to_all_of_it() -> None:
    pump = started()
    member, uid = running(pump)
    more_nodes(member, 0, 0, 0, 0, 8, 8, 8)
    assert desired(member, uid).counts == (6,), "said though it is all of it: the agent is to know it from no order"
    sized(member, uid, 6)
    assert [one.counts for one in records(pump, Resized)] == [(6,)]
    assert pump.group(uid).counts == ()
    assert pump.state.small == set()


def test_one_growth_at_a_time() -> None:
    pump = started()
    member, uid = running(pump)
    member.applied = pump.state.head
    more_nodes(member, 0, 0, 0, 0, 8)
    more_nodes(member, 0, 0, 0, 0, 8, 8)
    assert [one.counts for one in records(pump, Resized)] == [(5,)]
    sized(member, uid, 5)
    pump.run(10.0)
    assert [one.counts for one in records(pump, Resized)] == [(5,)], "no report shows what joined first"
    member.applied = None
    pump.run(10.0)
    assert [one.counts for one in records(pump, Resized)] == [(5,), (6,)]


@pytest.mark.parametrize("reasons", [("InsufficientGpus",), ()])
def test_who_did_not_grow_is_left_alone_for_a_while_whether_its_agent_says_why_or_not(reasons: tuple[str, ...]) -> None:
    """An agent that said no reason was asked again at once, two records each time, for ever."""
    pump = started()
    member, uid = running(pump)
    more_nodes(member, 0, 0, 0, 0, 8)
    for wait_s, asked in ((8.0, 1), (4.0, 2), (17.0, 2), (4.0, 3)):
        if pump.group(uid).resizing:
            sized(member, uid, 4, reasons=reasons)
        member.report()
        pump.run(wait_s)
        assert len(records(pump, Resized)) == asked


def test_whom_the_batch_changes_does_not_grow_in_it() -> None:
    pump = started()
    _, uid = running(pump)
    batch = Batch()
    assert [row.uid for row in growable(pump.state, batch, lambda _row: False)] == [uid]
    assert batch.add(pump.state, IntentSet(uid=uid, intent="suspend"))
    assert growable(pump.state, batch, lambda _row: False) == []


def test_who_has_more_pods_than_a_person_wanted_is_not_shrunk_by_growing() -> None:
    """Its agent's word is a fact, also where it is more than was asked for."""
    pump = started()
    member, uid = running(pump)
    resize(pump, uid, 2)
    sized(member, uid, 4)
    more_nodes(member, 0, 0, 0, 0, 8)
    assert [one.counts for one in records(pump, Resized)] == [(2,)]
    assert pods_of(pump.group(GroupUid(uid))) == (4, False)
    assert at_most_of(pump.group(GroupUid(uid))) == (4,)


def test_nobody_grows_while_somebody_waits_who_could_use_the_room_one_day() -> None:
    pump = started()
    member, _ = running(pump)
    pump.submit("large", pods=5, gpus=8)
    more_nodes(member, 0, 0, 0, 0, 8)
    assert records(pump, Resized) == []


def test_who_could_never_use_the_room_keeps_nobody_from_it() -> None:
    pump = started()
    member, _ = running(pump)
    pump.submit("larger", pods=50, gpus=8)
    pump.submit("elsewhere", clusters={"affinity": {"region": ("moon",)}})
    more_nodes(member, 0, 0, 0, 0, 8)
    assert [one.counts for one in records(pump, Resized)] == [(5,)]


def test_a_person_says_how_far_a_group_grows() -> None:
    pump = started()
    member, uid = running(pump)
    resize(pump, uid, 2)
    sized(member, uid, 2)
    more_nodes(member, 8, 8, 8, 8, 8)
    assert len(records(pump, Resized)) == 1
    resize(pump, uid, 3)
    sized(member, uid, 2, reasons=("InsufficientGpus",))
    pump.run(30.0)
    assert [(one.counts, one.at_most) for one in records(pump, Resized)[2:]] == [((3,), (3,))]


def test_an_agent_that_declined_is_not_asked_again_at_once() -> None:
    pump = started()
    member, uid = running(pump)
    more_nodes(member, 0, 0, 0, 0, 8)
    sized(member, uid, 4, reasons=("InsufficientGpus",))
    pump.run(6.0)
    assert len(records(pump, Resized)) == 1
    pump.run(20.0)
    assert len(records(pump, Resized)) == 2


def test_what_joins_is_subtracted_until_a_report_shows_it() -> None:
    pump = started()
    member, uid = running(pump)
    member.applied = pump.state.head
    more_nodes(member, 0, 0, 0, 0, 8)
    other = pump.submit("other", gpus=8)
    assert pump.group(other).home is None
    sized(member, uid, 5)
    pump.run(10.0)
    assert pump.group(other).home is None, "the report is older than the resize, whatever the agent said of it"


def test_a_group_counts_with_the_larger_size_while_it_shrinks_and_no_report_shows_it() -> None:
    pump = started()
    (member,) = pump.join("a", nodes=4, applied=0)
    uid = pump.submit("train", pods=4, min_count=2, elastic=True)
    member.verdict(uid, "Bound", pods=4)
    resize(pump, uid, 2)
    other = pump.submit("other", gpus=8)
    assert pump.group(other).home is None


def test_a_cluster_that_is_cordoned_or_drained_grows_nobody() -> None:
    from federation.core.events import CordonCluster

    pump = started()
    member, _ = running(pump)
    pump.ask(CordonCluster("a", True, False, "", "cordon", "olga"))
    more_nodes(member, 0, 0, 0, 0, 8)
    assert records(pump, Resized) == []


def test_an_older_format_grows_nobody() -> None:
    pump = started(format_max=2)
    member, _ = running(pump)
    more_nodes(member, 0, 0, 0, 0, 8)
    assert records(pump, Resized) == []


def test_a_cycle_grows_so_many_groups_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    from federation.core import growing

    monkeypatch.setattr(growing, "GROWTHS_PER_CYCLE_MAX", 1)
    pump = started()
    (member,) = pump.join("a", nodes=1)
    uids = [pump.submit(f"train-{n}", pods=2, min_count=1, elastic=True) for n in (1, 2)]
    more_nodes(member, 0, 8)
    more_nodes(member, 0, 0)
    for uid in uids:
        member.verdict(uid, "Bound", pods=1)
    member.nodes, member.gpus_free = 4, [0, 0, 8, 8]
    before = len(pump.folded[pump.leader.name])
    member.report()
    pump.run(1.0)
    landed = [line for line in pump.folded[pump.leader.name][before:] if isinstance(line.record, Resized)]
    assert [line.record.uid for line in landed] == uids
    assert landed[0].position // 8_192 < landed[1].position // 8_192


def test_groups_beyond_the_tries_of_a_cycle_have_their_turn_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    from federation.core import growing

    monkeypatch.setattr(growing, "TRIES_PER_CYCLE_MAX", 1)
    pump = started()
    (a, b) = pump.join("a", "b", nodes=1)
    uids = [pump.submit(f"train-{n}", pods=2, min_count=1, elastic=True) for n in (1, 2)]
    homes = {uid: pump.group(uid).home for uid in uids}
    for member in (a, b):
        member.gpus_free = [0]
        member.report()
    for uid, home in homes.items():
        assert home is not None
        pump.members[home.cluster].verdict(uid, "Bound", pods=1)
    second = homes[uids[1]]
    assert second is not None
    more_nodes(pump.members[second.cluster], 0, 8)
    pump.run(10.0)
    assert [one.uid for one in records(pump, Resized)] == [uids[1]]


@pytest.mark.parametrize(("looks", "at_once"), [pytest.param(1, False, id="cut"), pytest.param(2, True, id="enough")])
def test_clusters_beyond_the_looks_of_a_cycle_have_their_turn_in_the_next(
    looks: int, monkeypatch: pytest.MonkeyPatch, *, at_once: bool
) -> None:
    """Somebody waits for the first cluster, and nobody for the second."""
    from federation.core import growing

    monkeypatch.setattr(growing, "LOOKS_PER_CYCLE_MAX", looks)
    pump = started()
    (a,), (b,) = pump.join("a", nodes=4), pump.join("b", nodes=2)
    more_nodes(a, 8, 0, 0, 0)
    more_nodes(b, 0, 0)
    first = pump.submit("first", pods=2, min_count=1, elastic=True)
    more_nodes(a, 0, 0, 0, 0)
    more_nodes(b, 8, 0)
    second = pump.submit("second", pods=2, min_count=1, elastic=True)
    more_nodes(b, 0, 0)
    a.verdict(first, "Bound", pods=1)
    b.verdict(second, "Bound", pods=1)
    pump.submit("large", pods=4)
    a.gpus_free, b.gpus_free = [0, 0, 0, 8], [0, 8]
    a.report()
    b.report()
    pump.run(0.3)
    assert [one.uid for one in records(pump, Resized)] == ([second] if at_once else [])
    pump.run(10.0)
    assert [one.uid for one in records(pump, Resized)] == [second]


def test_a_fleet_with_too_many_kinds_of_waiting_groups_has_no_idle_room(monkeypatch: pytest.MonkeyPatch) -> None:
    from federation.core import growing

    pump = started()
    member, _ = running(pump)
    for pods in (50, 60):
        pump.submit(f"larger-{pods}", pods=pods, gpus=8)
    monkeypatch.setattr(growing, "WAITING_KINDS_MAX", 1)
    more_nodes(member, 0, 0, 0, 0, 8)
    assert records(pump, Resized) == []
    monkeypatch.setattr(growing, "WAITING_KINDS_MAX", 2)
    pump.run(10.0)
    assert len(records(pump, Resized)) == 1


def test_a_restored_fleet_is_told_by_agents_how_many_pods_there_are() -> None:
    """The backup may be older than the last resize, or than the group."""
    pump = started()
    member, uid = running(pump)
    answer = sized(member, uid, 3, resized_at=pump.state.head + 1)
    assert answer is not None
    assert answer.landed_at > 0
    assert pods_of(pump.group(GroupUid(uid))) == (3, False)
