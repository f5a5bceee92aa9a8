"""Failure spread: groups with one word rather go where fewer of them are, and nobody waits for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from placement.beside import BESIDE_MAX, NO_KIN, Beside
from placement.engine import Pending, Plan, decide
from placement.explain import NOBODY, why
from placement.fleet import Fleet
from placement.model import ClusterName, GroupUid
from placement.quota import UNLIMITED
from placement.score import DEFAULT_POLICY, Policy
from placement.spread import SpreadAsk
from tests.builders import BUDGET, cluster, fleet, gang, nodes

KEY = "default/chat"


def kin(name: str, *, at: int = 1, gpus: int = 8) -> Pending:
    return replace(gang(name, at=at, gpus=gpus), beside=KEY)


def there(**counts: int) -> Beside:
    return {KEY: {ClusterName(name): count for name, count in counts.items()}}


def plan_of(where: Fleet, *items: Pending, beside: Beside = NO_KIN, policy: Policy = DEFAULT_POLICY) -> Plan:
    return decide(where, items, policy=policy, budget=BUDGET, beside=beside)


def homes(plan: Plan) -> list[str]:
    return [one.cluster for one in plan.decisions]


def regions(**region_of: str) -> Fleet:
    """Clusters of 64 GPUs in these regions; the first by name is the fullest."""
    used = {name: 8 * (len(region_of) - number) for number, name in enumerate(sorted(region_of))}
    return Fleet(
        cluster(name, nodes(128, free=128 - used[name]), labels={"region": region} if region else {})
        for name, region in region_of.items()
    )


@pytest.mark.parametrize(
    ("beside", "chosen"),
    [
        (NO_KIN, "a"),
        (there(a=1), "b"),
        (there(a=1, b=1), "c"),
        (there(a=1, b=1, c=1), "a"),
        (there(a=2, b=1, c=2), "b"),
        ({"other/chat": {ClusterName("a"): 5}}, "a"),
    ],
    ids=[
        "nobody: the fullest",
        "not beside the only one",
        "where none is",
        "one everywhere changes nothing",
        "where the fewest are",
        "those of another namespace do not count",
    ],
)
def test_a_group_goes_where_fewer_of_its_own_are(beside: Beside, chosen: str) -> None:
    assert homes(plan_of(regions(a="", b="", c=""), kin("g"), beside=beside)) == [chosen]


def test_a_region_is_a_failure_domain_too() -> None:
    where = regions(a="eu", b="eu", c="us")
    assert homes(plan_of(where, kin("g"), beside=there(a=1))) == ["c"]
    assert homes(plan_of(where, kin("g"), beside=there(a=1, c=1))) == ["b"]


def test_those_placed_in_the_same_cycle_count() -> None:
    items = [kin(f"g{number}", at=number) for number in range(1, 5)]
    assert homes(plan_of(regions(a="eu", b="eu", c="us"), *items)) == ["a", "c", "b", "c"]


def test_a_group_that_says_nothing_is_chosen_for_as_ever() -> None:
    assert homes(plan_of(regions(a="", b=""), gang("g"), beside=there(a=9))) == ["a"]


def test_nobody_waits_for_it() -> None:
    assert homes(plan_of(fleet(a=8), kin("g"), beside=there(a=3))) == ["a"]


def test_a_cluster_above_its_mark_stays_the_last_choice() -> None:
    where = fleet(cluster("a", nodes(64, free=8)), cluster("b", nodes(64)))
    assert homes(plan_of(where, kin("g"), beside=there(b=BESIDE_MAX + 1))) == ["b"]


def test_how_much_it_weighs_is_the_policys() -> None:
    none = replace(DEFAULT_POLICY, failure_spread_weight=0)
    assert homes(plan_of(regions(a="", b=""), kin("g"), beside=there(a=3), policy=none)) == ["a"]


def test_the_decision_and_why_say_how_many_more_there_are() -> None:
    where = regions(a="eu", b="us")
    (place,) = plan_of(where, kin("g"), beside=there(a=3, b=1)).decisions
    terms = {one.cluster: dict(one.terms).get("failure_spread", 0) for one in place.candidates}
    assert terms == {"a": 4, "b": 0}
    told = why(where, kin("g"), NOBODY, UNLIMITED, DEFAULT_POLICY, beside=there(a=3, b=1))
    assert told.candidates == place.candidates


def test_it_is_counted_to_a_limit() -> None:
    (place,) = plan_of(regions(a="", b=""), kin("g"), beside=there(a=BESIDE_MAX)).decisions
    assert dict(place.candidates[1].terms)["failure_spread"] == BESIDE_MAX
    (place,) = plan_of(regions(a="", b=""), kin("g"), beside=there(a=BESIDE_MAX // 2)).decisions
    assert dict(place.candidates[1].terms)["failure_spread"] == BESIDE_MAX
    (place,) = plan_of(regions(a="", b=""), kin("g"), beside=there(a=BESIDE_MAX // 2 - 1)).decisions
    assert dict(place.candidates[1].terms)["failure_spread"] == BESIDE_MAX - 2


def test_gangs_that_counting_does_not_answer_are_spread_alike() -> None:
    where = regions(a="eu", b="eu", c="us")
    by_host = [replace(kin(f"g{number}", at=number), request=gang("x", level="host").request) for number in range(1, 4)]
    assert homes(plan_of(where, *by_host)) == ["a", "c", "b"]


def test_a_spread_group_takes_the_clusters_with_the_fewest_of_its_own() -> None:
    children = (GroupUid("web-1"), GroupUid("web-2"))
    web = replace(kin("web-1"), spread=SpreadAsk(children, 2, 1, 1, 2))
    assert homes(plan_of(regions(a="", b="", c=""), web, beside=there(a=1))) == ["b", "c"]
