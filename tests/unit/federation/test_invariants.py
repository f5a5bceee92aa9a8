"""Each invariant fires on a state that breaks it, and the home watcher on every change nobody may make."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from federation.core.invariants import Transitions, check
from federation.core.records import ClusterConfirmedDead, FenceDone, GaveUp, IntentSet, Placed
from federation.core.rows import Home
from federation.core.state import State
from placement.model import ClusterName, DisconnectPolicy, Lineage, Phase, Position, Token
from tests.unit.federation.story import Story


def placed() -> tuple[Story, str]:
    story = Story()
    story.cluster("a", "b")
    uid = story.submit()
    story.place(uid, "a")
    story.submit("waiting")
    return story, uid


def _row(state: State):  # type: ignore[no-untyped-def]
    return next(iter(state.groups.values()))


BREAKS: dict[str, Callable[[State], object]] = {
    "a pending group is missing from the index": lambda state: state.pending.clear(),
    "a live group lost its name": lambda state: state.names.clear(),
    "a home without its cluster's knowledge": lambda state: state.clusters[ClusterName("a")].homes.clear(),
    "a token in two clusters": lambda state: state.clusters[ClusterName("b")].tokens.update(
        state.clusters[ClusterName("a")].tokens
    ),
    "quota that nobody takes": lambda state: state.queues[_row(state).queue].gpus_used.update({"*": 99}),
    "a homeless group that is placed": lambda state: setattr(_row(state), "home", None),
    "a token lower than one before": lambda state: setattr(
        _row(state), "last_token", Token(Lineage("9999999999999-x"), Position(1))
    ),
    "an epoch admitted before it was fenced": lambda state: setattr(
        state.clusters[ClusterName("a")], "admitted_epoch", 9
    ),
    "a default queue that is gone": lambda state: state.queues.clear(),
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_broken_state_is_noticed(what: str) -> None:
    story, _ = placed()
    check(story.state)
    BREAKS[what](story.state)
    with pytest.raises((AssertionError, KeyError)):
        check(story.state)


def watched() -> tuple[Story, str, Transitions]:
    story, uid = placed()
    return story, uid, story.transitions


@pytest.mark.parametrize(
    "record",
    [
        IntentSet(uid="", intent="cancel"),
        GaveUp(uid="", token="", cluster="a", verdict="Finished", late=True),
        FenceDone(cluster="b", epoch=1, grace_s=600),
        FenceDone(cluster="a", epoch=1, grace_s=1),
        ClusterConfirmedDead(cluster="a", reason="burnt"),  # by nobody
    ],
    ids=["an intent", "a late finish", "another cluster's fence", "a shorter wait", "a death nobody vouches for"],
)
def test_a_home_that_ends_by_the_wrong_record_is_noticed(record: IntentSet | GaveUp | FenceDone) -> None:
    story, uid, watcher = watched()
    row = story.row(uid)
    row.home = None
    named = msgspec.structs.replace(record, uid=uid) if hasattr(record, "uid") else record
    with pytest.raises(AssertionError, match="S3"):
        watcher._follow(row.uid, Position(10**6), named, story.state)


def test_a_home_that_jumps_is_noticed() -> None:
    story, uid, watcher = watched()
    row = story.row(uid)
    row.home = Home(ClusterName("b"), Token(story.state.lineage, Position(10**6)))
    with pytest.raises(AssertionError, match="S3"):
        watcher.folded(
            Position(10**6), Placed(uid=uid, cluster="b", effective_policy=DisconnectPolicy.STOP_AND_MOVE), story.state
        )


def test_a_final_phase_that_changes_is_noticed() -> None:
    story, uid, watcher = watched()
    story.gave_up(uid, "Finished", succeeded=True)
    story.row(uid).phase = Phase.PENDING
    with pytest.raises(AssertionError, match="S7"):
        watcher.folded(Position(10**6), IntentSet(uid=uid, intent="run"), story.state)
