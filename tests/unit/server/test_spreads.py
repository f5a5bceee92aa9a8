"""A spread group as the API shows it: its children as one."""

from __future__ import annotations

from typing import Any

import pytest

from federation.core.events import Accepted, SetIntent
from federation.server.spreads import explained, find_spread, spread_explanation, spread_history, spread_view
from tests.unit.federation.pump import Pump, started
from tests.unit.federation.test_quarantine import poison
from tests.unit.federation.test_spread import submitted


def view(pump: Pump, ref: str = "web") -> dict[str, Any]:
    return spread_view(find_spread(pump.state, ref, "default"))


def divided() -> tuple[Pump, str]:
    """`web`: 3 replicas each in a, b and c; d is empty."""
    pump = started()
    pump.join("a", "b", "c", "d", nodes=4)
    return pump, submitted(pump)


def bound(pump: Pump, *names: str, verdict: str = "Running") -> None:
    for row in pump.state.spread("default", "web"):
        if row.home is not None and row.name in names:
            pump.members[row.home.cluster].verdict(row.uid, verdict, pods=3)


def test_it_is_found_by_name_and_by_uid_and_by_nothing_else() -> None:
    pump = started()
    uid = submitted(pump)
    plain = pump.submit("plain")
    names = ["web-1", "web-2", "web-3"]
    assert [row.name for row in find_spread(pump.state, "web", "default")] == names
    assert [row.name for row in find_spread(pump.state, uid, "elsewhere")] == names
    first = pump.state.names["default", "web-1"]
    for other in ("web-1", first, f"{first}~2", f"{plain}~1", "plain"):
        assert find_spread(pump.state, other, "default") == []


def test_a_later_group_of_its_name_is_shown_once_it_has_ended() -> None:
    pump = started()
    uid = submitted(pump)
    pump.ask(SetIntent(uid, "cancel", "", "r-2", "sara"))
    assert view(pump)["status"]["phase"] == "Cancelled"
    plain = pump.submit("web")
    assert find_spread(pump.state, "web", "default") == []
    pump.ask(SetIntent(plain, "cancel", "", "r-3", "sara"))
    assert find_spread(pump.state, "web", "default") == [], "the newest of that name, though both have ended"
    assert view(pump, uid)["metadata"]["uid"] == uid


def test_before_it_is_divided_it_shows_what_is_asked_for() -> None:
    pump = started()
    uid = submitted(pump)
    shown = view(pump)
    assert (shown["metadata"]["name"], shown["metadata"]["uid"], shown["metadata"]["labels"]) == ("web", uid, {})
    spec = shown["spec"]
    assert (spec["pods"], spec["min_count"], spec["gpus"], spec["roles"][0]["count"]) == (9, 4, 72, 9)
    assert spec["spread"] == {"clusters": {"min": 2, "max": 3}, "min_per_cluster": 2, "divide": "even"}
    assert [child["replicas"] for child in shown["status"]["children"]] == [0, 0, 0]
    assert (shown["status"]["phase"], shown["status"]["cluster"]) == ("Pending", "")


def test_it_is_as_far_as_the_child_that_is_behind() -> None:
    pump, _ = divided()
    assert view(pump)["status"]["phase"] == "Placed"
    bound(pump, "web-1", "web-2")
    status = view(pump)["status"]
    assert (status["phase"], status["cluster"], status["pods_bound"]) == ("Placed", "a,b,c", 6)
    bound(pump, "web-3", verdict="Bound")
    assert view(pump)["status"]["phase"] == "Bound"
    bound(pump, "web-3")
    assert view(pump)["status"]["phase"] == "Running"


@pytest.mark.parametrize(
    ("outcomes", "phase"),
    [((True, True, True), "Succeeded"), ((True, False, True), "Failed")],
    ids=["all succeeded", "one failed"],
)
def test_when_all_have_ended_it_has(outcomes: tuple[bool, ...], phase: str) -> None:
    pump, _ = divided()
    bound(pump, "web-1", "web-2", "web-3")
    for row, succeeded in zip(pump.state.spread("default", "web"), outcomes, strict=True):
        assert row.home is not None
        pump.members[row.home.cluster].verdict(row.uid, "Finished", succeeded=succeeded)
    assert view(pump)["status"]["phase"] == phase


def test_children_that_were_not_needed_do_not_count() -> None:
    pump = started()
    pump.join("a", "b", nodes=6)
    submitted(pump)
    status = view(pump)["status"]
    assert (status["phase"], [child["phase"] for child in status["children"]]) == (
        "Placed",
        ["Placed", "Placed", "Cancelled"],
    )


def explanation(pump: Pump) -> dict[str, Any]:
    children = find_spread(pump.state, "web", "default")
    row = explained(children)
    why = pump.leader.why(row.uid)
    assert why is not None
    return spread_explanation(children, row, why)


def test_why_it_waits_is_said_of_all_of_it() -> None:
    pump = started()
    pump.join("a", nodes=9)
    submitted(pump)
    told = explanation(pump)
    assert (told["name"], told["phase"], told["change"]) == ("web", "Pending", "join a cluster")
    assert told["summary"] == "SpreadTooNarrow: needs 2 clusters with room for 2 replicas each, best is 1"


def test_why_one_child_waits_is_said_beside_where_the_others_are() -> None:
    pump = started()
    pump.join("a", "b", "c", nodes=9)
    submitted(pump)
    bound(pump, "web-1", "web-3")
    pump.members["b"].alive = False
    pump.run(120.0)
    told = explanation(pump)
    assert (told["phase"], told["cluster"]) == ("Pending", "a,c")
    assert told["summary"].startswith("replicas bound: 3 of 3 in a, 3 of 3 in c; web-2 waits: ClusterFenced")


def test_a_child_that_is_quarantined_shows_and_is_resumed_with_all_of_it() -> None:
    pump, uid = divided()
    bound(pump, "web-2", "web-3")
    first = pump.state.names["default", "web-1"]
    poison(pump, first, seconds=200)
    assert view(pump)["status"]["phase"] == "Quarantined"
    rows = find_spread(pump.state, "web", "default")
    why = pump.leader.why(explained(rows).uid)
    assert why is not None
    told = spread_explanation(rows, explained(rows), why)["summary"]
    assert told == (
        "replicas bound: 3 of 3 in b, 3 of 3 in c; web-1 waits: lost 6 homes in a row, in a, d: "
        "it waits for `muster resume`, or for `muster cancel`"
    )
    assert isinstance(pump.ask(SetIntent(uid, "run", "", "r-2", "sara")), Accepted)
    pump.run(1.0)
    assert view(pump)["status"]["phase"] == "Placed"


@pytest.mark.parametrize("name", ["web-1", "web-2"])
def test_it_says_which_child_is_quarantined(name: str) -> None:
    pump, _ = divided()
    bound(pump, *({"web-1", "web-2", "web-3"} - {name}))
    poison(pump, pump.state.names["default", name], seconds=200)
    assert view(pump)["status"]["message"].startswith(f"{name}: lost 6 homes in a row, in ")


def test_its_history_is_that_of_all_children_in_order() -> None:
    pump, _ = divided()
    items = spread_history(pump.state, find_spread(pump.state, "web", "default"))["items"]
    assert [(item["kind"], item["name"]) for item in items] == [
        ("SubmittedChild", "web-1"),
        ("SubmittedChild", "web-2"),
        ("SubmittedChild", "web-3"),
        ("Placed", "web-1"),
        ("Placed", "web-2"),
        ("Placed", "web-3"),
    ]
