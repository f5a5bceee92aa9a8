"""When a node counts as one whose guard is silent."""

import pytest

from cluster_agents.core.config import NEVER
from cluster_agents.core.guards_heard import GuardsHeard

SILENT_S = 30.0


def heard(*nodes: str, at_s: float = 100.0) -> GuardsHeard:
    """These nodes are there from then on."""
    found = GuardsHeard(SILENT_S)
    for node in nodes:
        found.appeared(node)
    assert found.pass_time(at_s) == []
    return found


def test_a_node_is_silent_when_its_guard_has_not_asked_for_so_long() -> None:
    guards = heard("n-1", "n-2")
    assert guards.due_s == 130.0
    assert not guards.heard("n-2", 110.0)
    assert guards.pass_time(129.9) == []
    assert guards.pass_time(130.0) == ["n-1"]
    assert (guards.silent("n-1"), guards.silent("n-2"), guards.due_s) == (True, False, 140.0)
    assert guards.pass_time(139.9) == []
    assert guards.pass_time(1_000.0) == ["n-2"]
    assert guards.due_s == NEVER
    assert guards.pass_time(2_000.0) == []


def test_it_is_silent_no_more_with_the_first_ask_and_that_is_news_once() -> None:
    guards = heard("n-1")
    guards.pass_time(130.0)
    assert guards.heard("n-1", 200.0)
    assert not guards.silent("n-1")
    assert not guards.heard("n-1", 201.0)
    assert guards.pass_time(230.9) == []
    assert guards.pass_time(231.0) == ["n-1"]


def test_a_node_that_appears_has_its_time_from_when_time_next_passes() -> None:
    guards = heard("n-1")
    guards.appeared("n-2")
    assert guards.due_s == 0.0
    assert not guards.heard("n-2", 120.0)  # asked before we looked: it is counted from then on, or later
    assert guards.pass_time(125.0) == []
    assert guards.pass_time(130.0) == ["n-1"]
    assert guards.pass_time(154.9) == []
    assert guards.pass_time(155.0) == ["n-2"]


@pytest.mark.parametrize("passed_s", [None, 110.0, 500.0], ids=["just appeared", "heard", "silent"])
def test_a_node_that_is_gone_is_neither_silent_nor_waited_for(passed_s: float | None) -> None:
    guards = heard()
    guards.appeared("n-1")
    if passed_s is not None:
        guards.pass_time(110.0)
        guards.pass_time(passed_s)
    guards.gone("n-1")
    assert (guards.silent("n-1"), guards.due_s, guards.pass_time(9_999.0)) == (False, NEVER, [])


def test_one_that_comes_again_begins_anew() -> None:
    guards = heard("n-1")
    guards.pass_time(130.0)
    guards.gone("n-1")
    guards.appeared("n-1")
    assert guards.pass_time(200.0) == []
    assert not guards.silent("n-1")
    assert guards.pass_time(230.0) == ["n-1"]


def test_who_begins_to_act_gives_every_guard_its_time_anew() -> None:
    guards = heard("n-1", "n-2")
    guards.pass_time(130.0)
    guards.heard("n-2", 140.0)
    guards.appeared("n-3")
    assert guards.begin(150.0) == ["n-1"]
    assert guards.pass_time(179.9) == []
    assert guards.pass_time(180.0) == ["n-2", "n-1", "n-3"]


def test_names_that_no_node_has_are_nothing_and_grow_nothing() -> None:
    guards = heard("n-1")
    before = (dict(guards._heard_s), set(guards._silent), set(guards._appeared))
    for number in range(1_000):
        assert not guards.heard(f"ghost-{number}", 110.0)
    assert (guards._heard_s, guards._silent, guards._appeared) == before
    assert not guards.silent("ghost-1")
    assert guards.pass_time(500.0) == ["n-1"]
