"""What agents are answered: about verdicts by the leader, about desired state by anyone."""

from __future__ import annotations

from typing import Any

import pytest

from federation.core import books
from federation.core import desired as desired_module
from federation.core.claims import origin_of
from federation.core.desired import desired_of, spec_of
from federation.core.records import AnyRecord, Bound, ClusterRemoved, GaveUp, Running
from federation.core.stored import unpack_spec
from federation.core.verdicts import judge
from federation.protocol.messages import DesiredAnswer, DesiredAsk, SpecAsk, Verdict, VerdictAnswer
from placement.model import GroupUid
from tests.unit.federation.story import LINEAGE, Story


def placed(name: str = "train", **fields: Any) -> tuple[Story, str]:
    story = Story()
    story.cluster("a", "b")
    uid = story.submit(name, **fields)
    story.place(uid, "a")
    return story, uid


def say(
    story: Story, uid: str, verdict: str, *, token: str = "", cluster: str = "a"
) -> AnyRecord | VerdictAnswer | None:
    ask = Verdict(ask_id=1, cluster=cluster, uid=uid, token=token or story.token(uid), verdict=verdict, pods=1)
    return judge(story.state, ask, at_ms=story.at_ms)


def landed_at(answer: object) -> int:
    assert isinstance(answer, VerdictAnswer), answer
    return answer.landed_at


def ask(story: Story, *, since: int = 0, cluster: str = "a", lineage: str = LINEAGE) -> tuple[DesiredAnswer, ...]:
    return desired_of(story.state, DesiredAsk(ask_id=1, cluster=cluster, since=since, lineage=lineage))


def removed(story: Story, cluster: str = "a") -> None:
    story.fenced(cluster, 2)
    story.confirmed_dead(cluster)
    story.record(ClusterRemoved(cluster=cluster))


# --- verdicts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verdict", "kind"), [("Bound", Bound), ("Running", Running)])
def test_progress_is_recorded_once_and_then_answered_with_its_position(verdict: str, kind: type) -> None:
    story, uid = placed()
    record = say(story, uid, verdict)
    assert isinstance(record, kind)
    at = story.record(record)  # type: ignore[arg-type]
    assert landed_at(say(story, uid, verdict)) == at


@pytest.mark.parametrize("verdict", ["Refused", "Released", "Finished"])
def test_a_give_up_of_the_present_token_is_recorded(verdict: str) -> None:
    story, uid = placed()
    record = say(story, uid, verdict)
    assert isinstance(record, GaveUp)
    assert (record.verdict, record.late, record.actor) == (verdict, False, "agent:a")


@pytest.mark.parametrize("verdict", ["Refused", "Released", "Finished"])
def test_a_give_up_whose_answer_was_lost_is_answered_with_where_it_landed(verdict: str) -> None:
    story, uid = placed()
    token = story.token(uid)
    at = story.gave_up(uid, verdict)
    assert landed_at(say(story, uid, verdict, token=token)) == at


def test_a_give_up_of_a_token_ended_otherwise_is_answered_with_its_end() -> None:
    story, uid = placed()
    token = story.token(uid)
    story.fenced("a", 2)
    at = story.fence_done("a", 2, 30)
    story.place(uid, "b")
    assert landed_at(say(story, uid, "Released", token=token)) == at
    late = say(story, uid, "Finished", token=token)
    assert isinstance(late, GaveUp)
    assert late.late
    story.record(late)
    assert landed_at(say(story, uid, "Finished", token=token)) == at
    assert story.home(uid) == "b"


def test_progress_of_an_ended_token_is_not_acknowledged() -> None:
    story, uid = placed()
    token = story.token(uid)
    story.gave_up(uid, "Released")
    answer = say(story, uid, "Bound", token=token)
    assert isinstance(answer, VerdictAnswer)
    assert (answer.landed_at, answer.why) == (0, "HomeEnded")


def test_a_token_from_beyond_the_head_gets_no_answer() -> None:
    story, uid = placed()
    assert say(story, uid, "Bound", token=f"{LINEAGE}.{story.state.head + 1}") is None
    assert say(story, uid, "Released", token="0000000000002-newer.8192") is None


def test_the_end_of_a_token_that_nobody_remembers_is_known_by_now() -> None:
    story, _ = placed()
    assert landed_at(say(story, f"{LINEAGE}.1", "Released", token=f"{LINEAGE}.2")) == story.state.head
    assert landed_at(say(story, f"{LINEAGE}.1", "Finished", token="0000000000000-older.99999999")) == story.state.head


def test_a_cluster_cannot_speak_for_another_ones_home() -> None:
    story, uid = placed()
    answer = say(story, uid, "Released", cluster="b")
    assert isinstance(answer, VerdictAnswer)
    assert (answer.landed_at, answer.why) == (0, "OtherCluster")


@pytest.mark.parametrize(("verdict", "token"), [("Exploded", ""), ("Released", "nonsense")])
def test_what_cannot_be_understood_is_not_taken(verdict: str, token: str) -> None:
    story, uid = placed()
    assert landed_at(say(story, uid, verdict, token=token)) == 0


@pytest.mark.parametrize("verdict", ["Bound", "Running", "Sized", "Refused", "Released", "Finished"])
def test_the_present_token_in_another_spelling_is_not_taken(verdict: str) -> None:
    """Records name it, and the fold compares texts: what was recorded so would stop every server for good."""
    story, uid = placed()
    lineage, position = story.token(uid).rsplit(".", 1)
    answer = say(story, uid, verdict, token=f"{lineage}.0{position}")
    assert isinstance(answer, VerdictAnswer)
    assert (answer.landed_at, answer.why) == (0, "TokenUnreadable")


# --- desired state ---------------------------------------------------------------------------------------------------


def test_a_full_answer_lists_the_homes_of_the_cluster_as_of_the_head() -> None:
    story, uid = placed(grace_s=45)
    (answer,) = ask(story)
    assert (answer.full, answer.since, answer.as_of, answer.lineage) == (True, 0, story.state.head, LINEAGE)
    (group,) = answer.groups
    assert (group.uid, group.token, group.intent, group.policy) == (uid, story.token(uid), "run", "StopAndMove")
    assert (group.bound, group.grace_s, group.spec_digest) == (False, 45, story.row(uid).spec_digest)
    assert ask(story, cluster="b")[0].groups == ()


def test_a_delta_tells_what_changed_and_which_tokens_ended() -> None:
    story, uid = placed()
    other = story.submit("other")
    story.place(other, "a")
    since = story.state.head
    assert ask(story, since=since)[0].groups == ()
    token = story.token(uid)
    story.bound(other)
    story.gave_up(uid, "Refused")
    (answer,) = ask(story, since=since)
    assert (answer.full, answer.since, answer.as_of) == (False, since, story.state.head)
    assert [(group.uid, group.bound) for group in answer.groups] == [(other, True)]
    assert answer.ended == (token,)


def test_small_specs_of_groups_that_are_to_start_come_along_with_a_delta() -> None:
    story, uid = placed()
    since = story.state.head
    new, stopped, bound = (story.submit(name) for name in ("new", "stopped", "bound"))
    for one in (new, stopped, bound):
        story.place(one, "a")
    story.intend(stopped, "cancel")
    story.bound(bound)
    (answer,) = ask(story, since=since)
    assert {one.uid for one in answer.groups} == {new, stopped, bound}
    assert list(answer.specs) == [new]
    assert unpack_spec(answer.specs[new]).name == "new"
    (full,) = ask(story)
    assert full.specs == {}
    assert uid in {one.uid for one in full.groups}


def test_a_spec_of_the_largest_size_comes_along_and_one_byte_more_is_to_be_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story, _ = placed()
    since = story.state.head
    new = story.submit("new")
    story.place(new, "a")
    size = len(story.state.spec(new) or b"")
    monkeypatch.setattr(desired_module, "SPEC_BYTES_MAX", size)
    assert list(ask(story, since=since)[0].specs) == [new]
    monkeypatch.setattr(desired_module, "SPEC_BYTES_MAX", size - 1)
    assert ask(story, since=since)[0].specs == {}


def test_specs_come_along_oldest_first_as_far_as_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    story, _ = placed()
    since = story.state.head
    first, second = story.submit("first"), story.submit("other")
    for one in (first, second):
        story.place(one, "a")
    origins = [origin_of(story.state.groups[GroupUid(one)]) for one in (first, second)]
    specs = [story.state.spec(one) or b"" for one in (first, second)]
    sizes = [len(spec) + len(origin) for spec, origin in zip(specs, origins, strict=True)]
    monkeypatch.setattr(desired_module, "SPECS_BYTES_MAX", sum(sizes))
    assert list(ask(story, since=since)[0].specs) == [first, second]
    assert ask(story, since=since)[0].origins == {first: origins[0], second: origins[1]}
    monkeypatch.setattr(desired_module, "SPECS_BYTES_MAX", sum(sizes) - 1)
    assert list(ask(story, since=since)[0].specs) == [first]


@pytest.mark.parametrize(("intent", "reason"), [("cancel", "Cancelled"), ("suspend", "Suspended"), ("move", "Drained")])
def test_an_intent_tells_the_agent_to_stop_and_why(intent: str, reason: str) -> None:
    story, uid = placed()
    story.intend(uid, intent)
    (group,) = ask(story)[0].groups
    assert (group.intent, group.stop_reason) == ("stop", reason)


def test_nobody_who_knows_less_than_the_asker_answers() -> None:
    story, _ = placed()
    assert ask(story, since=story.state.head + 1) == ()
    assert ask(story, lineage="0000000000002-newer") == ()
    assert ask(story, cluster="unknown") == ()


def test_an_asker_of_an_older_lineage_is_told_everything_anew() -> None:
    story, uid = placed()
    (answer,) = ask(story, since=99_999_999, lineage="0000000000000-older")
    assert answer.full
    assert [group.uid for group in answer.groups] == [uid]


def test_a_delta_from_before_the_remembered_ends_is_answered_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "ENDED_PER_CLUSTER_MAX", 1)
    story, uid = placed()
    since = story.state.head
    story.gave_up(uid, "Refused")
    kept = story.state.head
    story.place(uid, "a")
    story.gave_up(uid, "Refused")
    assert ask(story, since=since)[0].full
    assert not ask(story, since=kept)[0].full


@pytest.mark.parametrize(("per_answer", "parts"), [(3, 1), (2, 2), (1, 3)])
def test_a_full_answer_is_split_by_content(monkeypatch: pytest.MonkeyPatch, per_answer: int, parts: int) -> None:
    monkeypatch.setattr(desired_module, "DESIRED_GROUPS_PER_ANSWER_MAX", per_answer)
    story, first = placed("g-0")
    uids = [first, *(story.submit(f"g-{index}") for index in (1, 2))]
    for uid in uids[1:]:
        story.place(uid, "a")
    answers = ask(story)
    assert [(answer.part, answer.parts, answer.as_of) for answer in answers] == [
        (part, parts, story.state.head) for part in range(parts)
    ]
    assert [group.uid for answer in answers for group in answer.groups] == uids


def test_a_spec_is_for_the_cluster_that_is_its_groups_home() -> None:
    story, uid = placed()
    spec = spec_of(story.state, SpecAsk(ask_id=1, cluster="a", uid=uid)).spec
    assert spec is not None
    assert unpack_spec(spec).name == "train"
    assert spec_of(story.state, SpecAsk(ask_id=1, cluster="b", uid=uid)).spec is None
    assert spec_of(story.state, SpecAsk(ask_id=1, cluster="a", uid="nobody")).spec is None


@pytest.mark.parametrize(("told", "kept"), [pytest.param(16, 16, id="all"), pytest.param(17, 16, id="one more")])
def test_a_verdict_brings_so_many_reasons_and_no_more_and_of_each_so_much(told: int, kept: int) -> None:
    story, uid = placed()
    reasons = tuple(f"{number:02}{'x' * 31}" for number in range(told))
    one = Verdict(ask_id=1, cluster="a", uid=uid, token=story.token(uid), verdict="Refused", reasons=reasons)
    record = judge(story.state, one, at_ms=story.at_ms)
    assert isinstance(record, GaveUp)
    assert record.reasons == tuple(f"{number:02}{'x' * 30}" for number in range(kept))


@pytest.mark.parametrize(("most", "told"), [(3, 3), (2, 2)], ids=["as many as an agent keeps", "one more"])
def test_a_cluster_with_more_homes_than_an_agent_keeps_is_told_of_the_oldest(
    monkeypatch: pytest.MonkeyPatch, most: int, told: int
) -> None:
    """Small groups on parts of GPUs can be more: an assertion ended every server that was asked."""
    monkeypatch.setattr(desired_module, "GROUPS_MAX", most)
    monkeypatch.setattr(desired_module, "DESIRED_GROUPS_PER_ANSWER_MAX", 1)
    story, first = placed()
    others = [story.submit(name) for name in ("b", "c")]
    for uid in others:
        story.place(uid, "a")
    answers = ask(story)
    assert [group.uid for answer in answers for group in answer.groups] == [first, *others][:told]
    assert {answer.parts for answer in answers} == {told}


def test_a_cluster_that_was_removed_is_answered_nothing() -> None:
    story, uid = placed()
    token = story.token(uid)
    removed(story)
    assert ask(story) == ()
    assert landed_at(say(story, uid, "Finished", token=token)) == story.state.head


def test_a_cluster_that_has_joined_again_hears_all_that_it_should_run_whatever_it_knew_before() -> None:
    """It knows a group whose end went with the cluster's row: a delta would not tell it."""
    story, uid = placed()
    knew = story.state.head
    removed(story)
    story.cluster("a")
    (answer,) = ask(story, since=knew)
    assert (answer.full, answer.groups) == (True, ())
    story.place(uid, "a")
    (answer,) = ask(story, since=story.state.head - 1)
    assert (answer.full, [group.uid for group in answer.groups]) == (False, [uid])
