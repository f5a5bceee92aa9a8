"""Who finds no room gets it from those placed in the same cycle, if all of them still have a place that is no worse."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest

from placement import repacking
from placement.engine import Bounds, Pending, Place, Plan, decide, order_key, plan_cycle
from placement.fleet import Fleet
from placement.memory import Choice, Memory
from placement.model import ClusterName, GangRequest, GroupUid, Position, QueueName
from placement.quota import ALL_PRODUCTS, QuotaLine, Quotas
from placement.repacking import MOVED_MAX
from placement.score import DEFAULT_POLICY
from placement.sites import CARBON_LABEL, DATA_LABEL_PREFIX, PRICE_LABEL
from placement.spread import SpreadAsk
from placement.waiting import Waiting
from tests.builders import BUDGET, cluster, fleet, gang, node, request, role
from tests.unit.placement.optimum.comparison import learnt_from
from tests.unit.placement.optimum.instances import draw, with_priorities
from tests.unit.placement.oracle import decide_slowly

TIGHT = range(12)  # seeds of nearly full fleets, on which packing anew makes room for fourteen gangs


def plan_of(where: Fleet, *items: Pending, **fields: Any) -> Plan:
    return decide(where, items, policy=DEFAULT_POLICY, budget=BUDGET, **fields)


def homes(plan: Plan) -> dict[str, str]:
    return {place.uid: place.cluster for place in plan.decisions}


def nodes_of(plan: Plan) -> dict[str, tuple[str, ...]]:
    return {place.uid: place.assignment.nodes for place in plan.decisions}


# --- one cluster: two gangs of 4 GPUs fit beside an urgent one of 2 only if that stands on the larger node ---

TWO_NODES = fleet(cluster("eu", node("a", free=6), node("b", free=4)))
URGENT = gang("urgent", gpus=2, priority=1, at=1)
FIRST = gang("first", gpus=4, at=2)
SECOND = gang("second", gpus=4, at=3)


def test_urgent_gang_moves_over_for_one_that_found_no_room() -> None:
    assert nodes_of(plan_of(TWO_NODES, URGENT, FIRST)) == {"urgent": ("b",), "first": ("a",)}
    plan = plan_of(TWO_NODES, URGENT, FIRST, SECOND)
    assert nodes_of(plan) == {"first": ("b",), "second": ("a",), "urgent": ("a",)}
    assert not plan.waiting


def test_decisions_stand_in_the_order_in_which_agents_can_repeat_them() -> None:
    """An agent chooses nodes in the order of the journal, by the same rule."""
    (view,) = TWO_NODES.values()
    table = view.table.copy()
    for place in plan_of(TWO_NODES, URGENT, FIRST, SECOND).decisions:
        alone = gang("again", gpus=place.assignment.request.gpus)
        again = plan_of(Fleet([replace(view, table=table)]), alone)
        assert again.decisions[0].assignment.nodes == place.assignment.nodes
        table.take(place.assignment)


def test_nobody_gives_a_place_away_to_a_later_one() -> None:
    one_node = fleet(cluster("eu", node("a", free=6)))
    assert homes(plan_of(one_node, URGENT, gang("whole", gpus=6, at=2))) == {"urgent": "eu"}


def test_gang_that_failed_leaves_everything_as_it_was() -> None:
    """The last one finds what is left after the try, to the GPU, and nothing more."""
    too_large = gang("too-large", gpus=8, at=3)
    smallest = [gang(f"small-{number}", gpus=1, at=9 + number) for number in range(5)]
    with_it = plan_of(TWO_NODES, URGENT, FIRST, too_large, *smallest)
    without = plan_of(TWO_NODES, URGENT, FIRST, *smallest)
    assert with_it.decisions == without.decisions
    assert [wait.uid for wait in with_it.waiting] == ["too-large", "small-4"]


# --- two clusters: only `eu` has a whole node, and as the fuller one it gets the small gang ---


def two_clusters(**fields: Any) -> Fleet:
    """`us` has room for `free` GPUs (4)."""
    eu, us = fields.pop("eu", {}), fields.pop("us", {})
    rows = node("n1"), *(node(f"n{number}", free=0) for number in range(2, 5))
    return fleet(cluster("eu", *rows, labels=eu), cluster("us", node("m", free=fields.pop("free", 4)), labels=us))


SMALL = gang("small", gpus=2, priority=1, at=1)
WHOLE = gang("whole", at=2)


def test_small_gang_goes_to_another_cluster_if_that_is_as_good() -> None:
    assert homes(plan_of(two_clusters(), SMALL)) == {"small": "eu"}
    assert homes(plan_of(two_clusters(), SMALL, WHOLE)) == {"whole": "eu", "small": "us"}


@pytest.mark.parametrize(
    ("eu", "us"),
    [
        ({PRICE_LABEL: "100"}, {PRICE_LABEL: "101"}),
        ({CARBON_LABEL: "100"}, {CARBON_LABEL: "101"}),
        ({DATA_LABEL_PREFIX + "laion": ""}, {}),
    ],
    ids=["dearer", "dirtier", "far from its data"],
)
def test_nobody_is_moved_to_a_worse_site(eu: dict[str, str], us: dict[str, str]) -> None:
    reads = replace(SMALL, request=replace(SMALL.request, data=(("laion", 1),)))
    assert homes(plan_of(two_clusters(eu=eu, us=us), reads, WHOLE)) == {"small": "eu"}
    assert homes(plan_of(two_clusters(eu=us, us=us), reads, WHOLE)) == {"whole": "eu", "small": "us"}


def test_nobody_loses_a_preferred_topology() -> None:
    rows = node("n1", clique="q"), *(node(f"n{number}", free=0) for number in range(2, 5))
    where = fleet(cluster("eu", *rows), cluster("us", *(node(name, free=4, clique=name) for name in "mo")))

    pair = replace(SMALL, request=request(role(pods=2, gpus=3), level_preferred="clique"))
    assert homes(plan_of(where, pair, WHOLE)) == {"small": "eu"}
    plain = replace(pair, request=request(role(pods=2, gpus=3)))
    assert homes(plan_of(where, plain, WHOLE)) == {"whole": "eu", "small": "us"}


def test_nobody_moves_to_the_cluster_that_refused_it_last() -> None:
    assert homes(plan_of(two_clusters(), replace(SMALL, shunned=(ClusterName("us"),)), WHOLE)) == {"small": "eu"}


def test_nobody_shrinks_for_another() -> None:
    elastic = replace(SMALL, request=request(role(pods=2, gpus=1, min_count=1), elastic=True))
    assert homes(plan_of(two_clusters(free=1), elastic, WHOLE)) == {"small": "eu"}
    plan = plan_of(two_clusters(free=4), elastic, WHOLE)
    assert homes(plan) == {"whole": "eu", "small": "us"}
    assert [place.assignment.request.pods for place in plan.decisions] == [1, 2]


@pytest.mark.parametrize(
    "fields",
    [
        {"beside": "default/chat"},
        {"siblings": "s"},
        {"spread": SpreadAsk((SMALL.uid,), 1, 1, 1, 1)},
    ],
    ids=["stays away from others", "child of a spread group", "spread group"],
)
def test_who_is_placed_by_where_others_are_is_not_moved(fields: dict[str, Any]) -> None:
    assert homes(plan_of(two_clusters(), replace(SMALL, **fields), WHOLE)) == {"small": "eu"}


def test_those_placed_before_one_that_stays_in_their_cluster_stay_too() -> None:
    """Its agent chooses nodes for the one that stays as if they came first. Without them it would put it on the smaller
    node, where the pair has to be."""
    eu = node("n1", free=3), node("n2", free=5), node("n3", free=0), node("n4", free=0)
    where = fleet(cluster("eu", *eu), cluster("us", node("m1", free=3), node("m2", free=2), node("m3", free=2)))
    first, pair = gang("first", gpus=3, priority=2), gang("pair", pods=2, gpus=3, at=3)
    second = gang("second", gpus=2, at=2)
    assert homes(plan_of(where, first, pair)) == {"pair": "eu", "first": "us"}
    assert homes(plan_of(where, first, replace(second, beside="default/chat"), pair)) == {"first": "eu", "second": "eu"}


def test_one_that_nobody_moves_over_for_says_nothing_of_its_equals() -> None:
    alike = replace(WHOLE, uid=GroupUid("alike"), submitted_at=Position(0), beside="default/chat")
    assert homes(plan_of(two_clusters(), SMALL, alike, WHOLE)) == {"whole": "eu", "small": "us"}


@pytest.mark.parametrize(
    ("limit", "placed"), [(9, {"small", "last"}), (10, {"small", "whole"}), (11, {"small", "whole", "last"})]
)
def test_queue_is_charged_once_for_who_moved(limit: int, placed: set[str]) -> None:
    quotas: Quotas = {QueueName("default"): {ALL_PRODUCTS: QuotaLine(limit)}}
    last = gang("last", gpus=1, at=3)
    roomy = Fleet([*two_clusters().values(), cluster("zz", node("z", gpus=1))])
    assert homes(plan_of(roomy, SMALL, WHOLE, last, quotas=quotas)).keys() == placed


def test_one_that_moved_may_move_again() -> None:
    third = cluster("zz", *(node(f"z{number}", free=3) for number in range(3)))
    found = homes(plan_of(Fleet([*two_clusters().values(), third]), SMALL, WHOLE, gang("half", gpus=4, at=3)))
    assert found == {"whole": "eu", "half": "us", "small": "zz"}


# --- who was found blocked before ---


def test_groups_found_blocked_before_may_fit_once_room_was_made() -> None:
    """`picky` wants the CPU that `small` takes on the node that `small` then leaves."""
    full = [node(f"full-{number}", free=0) for number in range(5)]
    where = fleet(
        cluster("eu", node("n1"), node("n2", free=7, cpu=0), *full, labels={"site": "eu"}),
        cluster("us", node("m", free=4)),
    )
    small = gang("small", roles=(role(gpus=2, cpu_milli=60_000),), priority=2)
    picky = gang("picky", roles=(role(gpus=1, cpu_milli=10_000),), priority=1, cluster_labels=(("site", ("eu",)),))
    picky = replace(picky, beside="default/picky")  # so that nothing is moved for it
    waiting, memory = Waiting((small, picky, gang("wide", pods=2, gpus=7))), Memory()
    homes_by_cycle: list[dict[str, str]] = []
    for gains in (1, 1, 2):
        plan = plan_cycle(where, waiting, memory, policy=DEFAULT_POLICY, bounds=Bounds(BUDGET, gains))
        homes_by_cycle.append(homes(plan))
        assert plan.made_room is (len(homes_by_cycle) == 1)
        for place in plan.decisions:
            where[place.cluster].table.take(place.assignment)
    assert homes_by_cycle == [{"wide": "eu", "small": "us"}, {}, {"picky": "eu"}]


# --- bounds ---


@pytest.mark.parametrize(("moved", "room_made"), [(MOVED_MAX, True), (MOVED_MAX + 1, False)])
def test_so_many_decisions_are_taken_back_and_no_more(moved: int, room_made: bool) -> None:
    """All but one of those moved are small; each of them stands in the way."""
    small = [gang(f"small-{number:02}", gpus=1, priority=1, at=1 + number) for number in range(moved - 1)]
    rows = node("a", gpus=128, free=64 + len(small)), node("b", gpus=128, free=64)
    large = [gang(name, gpus=64, at=100) for name in ("large-1", "large-2")]
    assert ("large-2" in homes(plan_of(fleet(cluster("eu", *rows)), *small, *large))) is room_made


@pytest.mark.parametrize(("most", "room_made"), [(4, True), (3, False)])
def test_so_much_is_looked_at_and_taken_back_in_a_cycle_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    room_made: bool,
) -> None:
    monkeypatch.setattr(repacking, "WORK_MAX", most)
    assert ("second" in homes(plan_of(TWO_NODES, URGENT, FIRST, SECOND))) is room_made


def test_of_many_decisions_the_last_ones_are_taken_back() -> None:
    earlier = [gang(f"earlier-{number:02}", gpus=8, priority=2) for number in range(MOVED_MAX)]
    whole_nodes = [node(f"n{number:02}") for number in range(len(earlier))]
    (view,) = TWO_NODES.values()
    plan = plan_of(fleet(cluster("eu", *whole_nodes, view.table.rows())), *earlier, URGENT, FIRST, SECOND)
    assert [place.uid for place in plan.decisions][-3:] == ["first", "second", "urgent"]


def test_who_lacks_quota_uses_nothing_of_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repacking, "WORK_MAX", 4)
    quotas: Quotas = {QueueName("none"): {ALL_PRODUCTS: QuotaLine(0)}}
    without_quota = gang("without-quota", gpus=5, at=2, queue="none")
    items = URGENT, replace(FIRST, priority=1), without_quota, SECOND
    assert "second" in homes(plan_of(TWO_NODES, *items, quotas=quotas))


def with_cpu(item: Pending) -> Pending:
    return replace(item, request=request(role(gpus=item.request.gpus, cpu_milli=1_000)))


@pytest.mark.parametrize(
    "fields",
    [{"pods": 2, "gpus": 1, "cpu_milli": 64_000}, {"gpus": 4, "cpu_milli": 65_000}],
    ids=["fits, but not beside the others", "fits on no node"],
)
def test_tries_that_come_to_nothing_use_the_bound_up(monkeypatch: pytest.MonkeyPatch, fields: dict[str, int]) -> None:
    """Two gangs have no place beside the urgent one, in whatever order; only then `second` is looked at."""
    in_vain = [gang(f"in-vain-{number}", roles=(role(str(number), **fields),), at=3) for number in range(2)]
    first, second = replace(with_cpu(FIRST), priority=1), replace(SECOND, submitted_at=Position(4))
    items = with_cpu(URGENT), first, *in_vain, second
    tried = (1 + 2 + 1) * len(in_vain)  # a look, two taken back, and itself
    for most, room_made in ((tried + 4, True), (tried + 3, False)):
        monkeypatch.setattr(repacking, "WORK_MAX", most)
        assert ("second" in homes(plan_of(TWO_NODES, *items))) is room_made


def test_who_needs_more_gpus_than_are_free_in_all_costs_only_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    too_large = gang("too-large", gpus=5, at=3)
    items = URGENT, replace(FIRST, priority=1), too_large, replace(SECOND, submitted_at=Position(4))
    for most, room_made in ((1 + 4, True), (1 + 3, False)):
        monkeypatch.setattr(repacking, "WORK_MAX", most)
        assert ("second" in homes(plan_of(TWO_NODES, *items))) is room_made


def test_of_gangs_that_ask_for_the_same_one_is_looked_at_until_somebody_is_placed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alike = [gang(f"alike-{number}", gpus=5, at=3, queue=f"queue-{number}") for number in range(9)]
    items = URGENT, replace(FIRST, priority=1), *alike, replace(SECOND, submitted_at=Position(4))
    monkeypatch.setattr(repacking, "WORK_MAX", 1 + 4)
    assert "second" in homes(plan_of(TWO_NODES, *items))
    assert "second" not in homes(plan_of(TWO_NODES, *items[:-2], gang("other", gpus=6, at=3), *items[-2:]))


@pytest.mark.parametrize(("most", "room_made"), [(3, True), (2, False)])
def test_so_much_is_searched_in_a_cycle_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    room_made: bool,
) -> None:
    """One cluster is searched for `second`, for it again beside `first`, and for `urgent` beside both."""
    items = [
        replace(item, request=request(*item.request.roles, role("helper", gpus=0, cpu_milli=100)))
        for item in (URGENT, FIRST, SECOND)
    ]
    monkeypatch.setattr(repacking, "SEARCHES_MAX", most)
    assert ("second" in homes(plan_of(TWO_NODES, *items))) is room_made


# --- on nearly full fleets ---


def tight(seed: int) -> tuple[Fleet, tuple[Pending, ...], Quotas]:
    """With a queue that comes to its limit on every third."""
    dice = Random(seed)
    instance = with_priorities(draw(seed), seed)
    items = tuple(replace(item, queue=QueueName(dice.choice(("red", "blue")))) for item in instance.gangs)
    asked = sum(item.request.gpus for item in items if item.queue == "red")
    limit = asked // 2 if seed % 3 == 0 else asked
    return instance.fleet, items, {QueueName("red"): {ALL_PRODUCTS: QuotaLine(limit)}}


def without_packing_anew(where: Fleet, items: tuple[Pending, ...], quotas: Quotas) -> tuple[Place, ...]:
    placed, _ = decide_slowly(where, items, policy=DEFAULT_POLICY, quotas=quotas, packed_anew=False)
    return placed


@pytest.mark.long
def test_tight_fleets_are_packed_anew_as_the_slow_engine_does() -> None:
    for seed in TIGHT:
        where, items, quotas = tight(seed)
        worth = learnt_from(items, where) if seed % 2 else None
        plan = plan_of(where, *items, quotas=quotas, worth=worth)
        want = decide_slowly(where, items, policy=DEFAULT_POLICY, quotas=quotas, worth=worth)
        assert (plan.decisions, plan.waiting) == want


def test_cluster_that_was_full_of_groups_is_open_again_when_some_are_taken_back() -> None:
    for seed in (10, 11):  # where it is closed in the midst of a try that comes to nothing
        dice, instance = Random(seed), with_priorities(draw(seed), seed)
        where = Fleet(replace(view, groups_left=dice.randint(3, 12)) for view in instance.fleet.values())
        plan = plan_of(where, *instance.gangs)
        assert (plan.decisions, plan.waiting) == decide_slowly(where, instance.gangs, policy=DEFAULT_POLICY, quotas={})


@pytest.mark.long
def test_first_in_order_whose_luck_changes_has_a_place_now() -> None:
    """So packing anew takes a place from nobody who comes before the one it makes room for."""
    gained = 0
    for seed in TIGHT:
        where, items, quotas = tight(seed)
        now = {place.uid for place in plan_of(where, *items, quotas=quotas).decisions}
        before = {place.uid for place in without_packing_anew(where, items, quotas)}
        changed = [item for item in sorted(items, key=order_key) if (item.uid in now) != (item.uid in before)]
        gained += bool(changed)
        assert not changed or changed[0].uid in now
    assert gained >= len(TIGHT) // 3


@pytest.mark.long
def test_what_is_given_back_leaves_the_memory_as_it_was_to_the_bit() -> None:
    for seed in TIGHT:
        where, items, _ = tight(seed)
        memory = Memory()
        memory.sync(where)
        before = counted(memory, items)
        taken: list[tuple[int, Choice]] = []
        for place in plan_of(where, *items).decisions:
            taken.append((memory.at[place.cluster], place.choice))
            memory.take(*taken[-1])
        assert counted(memory, items) != before
        Random(seed).shuffle(taken)
        for cluster_number, choice in taken:
            memory.give(cluster_number, choice)
        assert counted(memory, items) == before


def counted(memory: Memory, items: tuple[Pending, ...]) -> list[Any]:
    """All that the memory answers about these gangs, and what it knows of nodes."""
    requests: dict[GangRequest, None] = dict.fromkeys(item.request for item in items)
    classes = [memory.class_of(one) for one in requests]
    everywhere = np.arange(len(memory.names))
    return [
        *((memory.holds(one).tolist()) for known in classes for one in memory.tracked(known)),
        *(memory.capacity(known.attempts[-1].shape, known.attempts[-1].level).tolist() for known in classes),
        *(memory.amounts(known)[0].tolist() for known in classes),
        *(memory.costs(known, everywhere).tolist() for known in classes),
        *((rows.table.free.tolist(), rows.pods.tolist()) for rows in memory.rows),
    ]
