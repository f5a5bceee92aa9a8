"""Folding desired-state answers that come late, twice, in parts and from lagging replicas."""

from typing import Any

import pytest

from cluster_agents.core.config import AgentConfig
from cluster_agents.core.desired import Desired
from federation.protocol.messages import DesiredAnswer, DesiredGroup
from placement.model import Lineage, Position, Token


def group(token: str, intent: str = "run") -> DesiredGroup:
    return DesiredGroup(uid=f"u-{token}", token=token, intent=intent, policy="StopAndMove", spec_digest="d")


def full(as_of: int, *tokens: str, lineage: str = "l1", **parts: Any) -> DesiredAnswer:
    return DesiredAnswer(
        ask_id=1,
        cluster="c-1",
        lineage=lineage,
        since=0,
        as_of=as_of,
        full=True,
        groups=tuple(group(token) for token in tokens),
        **parts,
    )


def delta(since: int, as_of: int, *tokens: str, ended: tuple[str, ...] = (), lineage: str = "l1") -> DesiredAnswer:
    groups = tuple(group(token) for token in tokens)
    return DesiredAnswer(
        ask_id=1, cluster="c-1", lineage=lineage, since=since, as_of=as_of, full=False, groups=groups, ended=ended
    )


@pytest.fixture
def desired() -> Desired:
    return Desired(AgentConfig(cluster="c-1", boot_nonce="b"))


def test_the_first_ask_is_for_all_and_later_ones_for_what_changed(desired: Desired) -> None:
    assert desired.ask(0.0, ask_id=1).since == 0
    desired.take(full(50, "l1.40"), 0.0)
    desired.look()
    ask = desired.ask(1.0, ask_id=2)
    assert (ask.since, ask.lineage) == (50, "l1")


def test_a_delta_adds_and_ends(desired: Desired) -> None:
    desired.take(full(50, "l1.40", "l1.41"), 0.0)
    news = desired.take(delta(50, 60, "l1.55", ended=("l1.40",)), 0.0)
    assert news is not None
    assert news.tokens == ("l1.40", "l1.55")
    assert desired.tokens() == ["l1.41", "l1.55"]
    assert desired.as_of == 60


def test_a_delta_before_the_first_whole_answer_says_nothing(desired: Desired) -> None:
    assert desired.take(delta(0, 60, "l1.55"), 0.0) is None
    assert not desired.complete


def test_older_answers_and_repeats_are_ignored(desired: Desired) -> None:
    desired.take(full(50, "l1.40"), 0.0)
    desired.take(delta(50, 60, ended=("l1.40",)), 0.0)
    assert desired.take(full(55, "l1.40"), 0.0) is None
    assert desired.take(delta(50, 60, "l1.40"), 0.0) is None
    assert desired.tokens() == []


def test_a_delta_that_begins_above_what_is_held_is_not_applied_and_asked_for_again(desired: Desired) -> None:
    desired.take(full(50, "l1.40"), 0.0)
    assert desired.take(delta(55, 60, ended=("l1.40",)), 1.0) is None
    assert desired.tokens() == ["l1.40"]
    assert desired.wake_at_s() <= 1.0


def test_a_delta_that_begins_below_what_is_held_is_applied(desired: Desired) -> None:
    desired.take(full(50, "l1.40"), 0.0)
    desired.take(delta(40, 60, "l1.55"), 0.0)
    assert desired.tokens() == ["l1.40", "l1.55"]


def test_a_full_answer_in_parts_counts_once_all_came(desired: Desired) -> None:
    assert desired.take(full(50, "l1.41", part=1, parts=3), 0.0) is None
    assert desired.take(full(50, "l1.40", part=0, parts=3), 0.0) is None
    assert desired.take(full(50, "l1.41", part=1, parts=3), 0.0) is None
    assert not desired.complete
    desired.take(full(50, "l1.42", part=2, parts=3), 0.0)
    assert desired.tokens() == ["l1.40", "l1.41", "l1.42"]


def test_parts_of_different_positions_are_never_mixed(desired: Desired) -> None:
    desired.take(full(50, "l1.40", part=0, parts=2), 0.0)
    desired.take(full(60, "l1.41", part=1, parts=2), 0.0)
    assert not desired.complete
    desired.take(full(60, "l1.42", part=0, parts=2), 0.0)
    assert desired.tokens() == ["l1.41", "l1.42"]


def test_a_higher_lineage_starts_over_and_a_lower_one_is_ignored(desired: Desired) -> None:
    desired.take(full(900, "l1.40"), 0.0)
    assert desired.take(delta(10, 20, "l2.15", lineage="l2"), 0.0) is None
    assert (desired.complete, desired.as_of) == (False, 0)
    desired.take(full(20, "l2.15", lineage="l2"), 0.0)
    assert desired.take(full(950, "l1.41"), 0.0) is None
    assert desired.tokens() == ["l2.15"]


def test_a_state_older_than_a_token_does_not_say_that_it_is_not_desired(desired: Desired) -> None:
    young = Token(Lineage("l1"), Position(70))
    assert not desired.covers(young)
    desired.take(full(60), 0.0)
    assert not desired.covers(young)
    assert desired.covers(Token(Lineage("l1"), Position(60)))
    assert desired.covers(Token(Lineage("l0"), Position(700)))
    assert not desired.covers(Token(Lineage("l2"), Position(1)))


def test_answers_for_another_cluster_and_broken_tokens_are_set_aside(desired: Desired) -> None:
    foreign = DesiredAnswer(ask_id=1, cluster="c-2", lineage="l1", since=0, as_of=5, full=True)
    assert desired.take(foreign, 0.0) is None
    desired.take(full(50, "nonsense", "l1.40"), 0.0)
    assert desired.tokens() == ["l1.40"]


def test_a_doorbell_for_what_is_known_already_asks_nothing(desired: Desired) -> None:
    desired.ask(0.0, ask_id=1)
    desired.take(full(50), 0.0)
    desired.look(50)
    assert desired.wake_at_s() == 10.0
    desired.look(51)
    assert desired.wake_at_s() < 1.0
