"""What must hold for every fleet and every queue: checked on small ones drawn at random."""

from __future__ import annotations

from collections import Counter
from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.assign import assign, assign_if_it_fits
from placement.assignment import Assignment
from placement.change import gpus_to_free
from placement.engine import Pending, Place, Wait, decide, order_key
from placement.explain import NOBODY, why
from placement.fleet import ClusterView, Fleet, NodeRow, NodeTable
from placement.model import (
    ClusterName,
    GangRequest,
    GroupUid,
    NodeRule,
    Position,
    RoleRequest,
)
from placement.quota import Quotas, gpus_charged
from placement.score import DEFAULT_POLICY
from tests.builders import BUDGET, request, role
from tests.unit.placement.drawn import (
    FEW_GROUPS,
    LEVELS,
    a_fleet,
    a_gang,
    a_queue,
    drawn,
    lawful,
    some_nodes,
    some_quotas,
)

checked = lawful(examples=100)


def assert_whole_and_lawful(table: NodeTable, asked: GangRequest, found: Assignment) -> None:
    """Every pod has a node that may take it, and all stand in one domain of the required level."""
    by_name = {row.name: row for row in table.rows()}
    assert [pod.rank for pod in found.pods] == list(range(asked.pods))
    for one in asked.roles:
        here = [by_name[pod.node] for pod in found.pods if pod.role == one.name]
        assert len(here) == one.count
        assert all(row.usable for row in here)
        assert all(not one.products or row.product in one.products for row in here)
        assert all(_suits(row, one.nodes) for row in here)
    rows = [by_name[name] for name in found.nodes]
    assert len({_domain(row, asked.level_required) for row in rows}) == 1
    assert all(_domain(row, asked.level_required) is not None for row in rows)
    if found.preferred_met:
        assert len({_domain(row, asked.level_preferred) for row in rows}) == 1


def _suits(row: NodeRow, rule: NodeRule) -> bool:
    """The few rules of RULES, said otherwise."""
    if row.taints and not rule.tolerations:
        return False
    if not rule.terms:
        return True
    return (row.labels != ()) == (rule.terms[0][0].operator == "In")


def _domain(row: NodeRow, level: str) -> str | None:
    match level:
        case "":
            return "all"
        case "host":
            return row.name
        case "clique":
            return row.clique or f"alone {row.name}"
        case _:
            return row.rack or None


@checked
@given(drawn(some_nodes), drawn(a_gang))
def test_assignment_is_whole_lawful_and_never_over_commits(rows: list[NodeRow], asked: GangRequest) -> None:
    table = NodeTable.build(rows)
    found = assign(table, asked)
    if isinstance(found, Assignment):
        assert_whole_and_lawful(table, asked, found)
        undo = table.take(found)
        table.check_invariants()
        undo()
    assert list(table.rows()) == list(NodeTable.build(rows).rows())


@checked
@given(drawn(some_nodes), drawn(a_gang))
def test_who_asks_for_no_reasons_is_answered_alike(rows: list[NodeRow], asked: GangRequest) -> None:
    table = NodeTable.build(rows)
    found = assign(table, asked)
    assert assign_if_it_fits(table, asked) == (found if isinstance(found, Assignment) else None)


@checked
@given(drawn(some_nodes), drawn(a_gang))
def test_refusal_has_reasons_whose_best_is_less_than_what_is_needed(rows: list[NodeRow], asked: GangRequest) -> None:
    found = assign(NodeTable.build(rows), asked)
    if not isinstance(found, Assignment):
        assert found
        assert all(one.best < one.needs for one in found if one.unit)
        severities = [one.reason.severity for one in found]
        assert severities == sorted(severities, reverse=True)


@checked
@given(drawn(some_nodes), drawn(a_gang), st.randoms(use_true_random=False))
def test_order_of_rows_in_a_report_is_irrelevant(rows: list[NodeRow], asked: GangRequest, random: Random) -> None:
    shuffled = random.sample(rows, len(rows))
    assert assign(NodeTable.build(rows), asked) == assign(NodeTable.build(shuffled), asked)


@checked
@given(drawn(some_nodes), drawn(a_gang, roles_max=1))
def test_gang_of_equal_pods_is_placed_exactly_when_counting_says_so(rows: list[NodeRow], asked: GangRequest) -> None:
    (one,) = asked.roles
    held: dict[str | None, int] = {}
    for row in NodeTable.build(rows).rows():
        if not row.usable or (one.products and row.product not in one.products) or not _suits(row, one.nodes):
            continue
        by_gpu = row.gpus_free // one.gpus if one.gpus else one.count
        by_cpu = row.cpu_milli_free // one.cpu_milli if one.cpu_milli else one.count
        domain = _domain(row, asked.level_required)
        held[domain] = held.get(domain, 0) + min(by_gpu, by_cpu, _by_part(row, one))
    held.pop(None, None)
    fits = max(held.values(), default=0) >= one.count
    assert isinstance(assign(NodeTable.build(rows), asked), Assignment) == fits


def _by_part(row: NodeRow, one: RoleRequest) -> int:
    """The kinds of CUTS, said otherwise."""
    if one.mig_profile:
        kinds = {one.mig_profile}
    else:
        kinds = {250: {"shared/2", "shared/4"}, 500: {"shared/2"}}.get(one.gpu_milli, set())
    free = sum(free for kind, _, free in row.devices if kind in kinds)
    return free if one.mig_profile or one.gpu_milli else one.count


@pytest.mark.long
@checked
@given(drawn(some_nodes), drawn(some_nodes, nodes_max=3), drawn(a_gang))
def test_group_that_is_alone_never_loses_its_place_when_capacity_grows(
    rows: list[NodeRow], joining: list[NodeRow], asked: GangRequest
) -> None:
    alone = [Pending(GroupUid("g"), Position(1), 0, asked)]
    before = Fleet([ClusterView(ClusterName("eu"), NodeTable.build(rows))])
    larger = NodeTable.build([*rows, *(row._replace(name=f"new-{row.name}") for row in joining)])
    emptier = [tuple((kind, total, total) for kind, total, _ in row.devices) for row in rows]
    roomier = NodeTable.build(
        [row._replace(gpus_free=row.gpus_total, devices=free) for row, free in zip(rows, emptier, strict=True)]
    )
    if decide(before, alone, policy=DEFAULT_POLICY, budget=BUDGET).decisions:
        for table in (larger, roomier):
            after = Fleet([ClusterView(ClusterName("eu"), table)])
            assert decide(after, alone, policy=DEFAULT_POLICY, budget=BUDGET).decisions


@checked
@given(drawn(some_nodes), drawn(some_nodes), st.sets(st.sampled_from(("n0", "n3", "n9"))))
def test_changed_table_equals_one_built_anew(rows: list[NodeRow], changed: list[NodeRow], gone: set[str]) -> None:
    merged = {row.name: row for row in rows if row.name not in gone} | {row.name: row for row in changed}
    found = NodeTable.build(rows).with_changes(changed, gone)
    want = NodeTable.build(merged.values())
    assert list(found.rows()) == list(want.rows())
    assert found.clamped == want.clamped
    found.check_invariants()


@pytest.mark.long
@checked
@given(drawn(a_fleet, groups_left=FEW_GROUPS), drawn(a_queue), drawn(some_quotas))
def test_plan_never_over_commits_nodes_or_quotas(where: Fleet, waiting: list[Pending], limits: Quotas) -> None:
    plan = decide(where, waiting, policy=DEFAULT_POLICY, budget=BUDGET, quotas=limits)
    by_uid = {item.uid: item for item in waiting}
    for place in plan.decisions:
        view, asked = where[place.cluster], by_uid[place.uid].request
        assert not view.cordoned
        assert not view.stale
        assert place.cluster not in by_uid[place.uid].avoid
        assert_whole_and_lawful(view.table, asked, place.assignment)
        view.table.take(place.assignment)
    where.check_invariants()
    homes = Counter(place.cluster for place in plan.decisions)
    assert all(homes[name] <= view.groups_left for name, view in where.items())
    for queue, lines in limits.items():
        placed = [by_uid[place.uid] for place in plan.decisions if by_uid[place.uid].queue == queue]
        for line, quota in lines.items():
            assert sum(gpus_charged(item.request, line) for item in placed) <= quota.limit


@pytest.mark.long
@checked
@given(drawn(a_fleet), drawn(a_queue), drawn(some_quotas), st.randoms(use_true_random=False))
def test_order_of_pending_is_irrelevant(where: Fleet, waiting: list[Pending], limits: Quotas, random: Random) -> None:
    shuffled = random.sample(waiting, len(waiting))
    plans = [decide(where, items, policy=DEFAULT_POLICY, budget=BUDGET, quotas=limits) for items in (waiting, shuffled)]
    assert plans[0] == plans[1]


@pytest.mark.long
@checked
@given(drawn(a_fleet), drawn(a_queue))
def test_one_cycle_decides_like_one_cycle_per_group_until_it_makes_room(where: Fleet, waiting: list[Pending]) -> None:
    """Memory within a cycle changes its cost, never its decisions. Who is placed in the same cycle can still
    move over, so the first whose luck differs is one that room was made for."""
    plan = decide(where, waiting, policy=DEFAULT_POLICY, budget=BUDGET)
    one_by_one: list[Place] = []
    for item in sorted(waiting, key=order_key):
        alone = decide(where, [item], policy=DEFAULT_POLICY, budget=BUDGET)
        for place in alone.decisions:
            where[place.cluster].table.take(place.assignment)
            one_by_one.append(place)
    together, by_turns = ({place.uid: place for place in places} for places in (plan.decisions, one_by_one))
    for item in sorted(waiting, key=order_key):
        if item.uid in together and item.uid not in by_turns:
            return
        assert (item.uid in together) == (item.uid in by_turns)
    assert [(one.uid, one.cluster, one.assignment, one.candidates[0]) for one in plan.decisions] == [
        (one.uid, one.cluster, one.assignment, one.candidates[0]) for one in one_by_one
    ]


@pytest.mark.long
@checked
@given(drawn(a_fleet), drawn(a_queue), st.integers(0, 12))
def test_smaller_budget_gives_the_first_part_of_the_same_plan(
    where: Fleet, waiting: list[Pending], budget: int
) -> None:
    whole = decide(where, waiting, policy=DEFAULT_POLICY, budget=BUDGET)
    part = decide(where, waiting, policy=DEFAULT_POLICY, budget=budget)
    assert {place.uid for place in part.decisions} <= {place.uid for place in whole.decisions}
    assert part.waiting == whole.waiting[: len(part.waiting)]
    per_look = max(1, len(where))
    last_look = per_look * (1 + 1 + len(waiting))  # it may have been packed anew with all before it
    assert part.evaluations < budget + last_look if budget else part.evaluations == 0


@pytest.mark.long
@checked
@given(drawn(a_fleet), drawn(a_queue), drawn(some_quotas))
def test_explanation_of_a_lone_group_agrees_with_the_engine(
    where: Fleet, waiting: list[Pending], limits: Quotas
) -> None:
    for item in waiting:
        plan = decide(where, [item], policy=DEFAULT_POLICY, budget=BUDGET, quotas=limits)
        found = why(where, item, NOBODY, limits, DEFAULT_POLICY)
        placed: list[Place | Wait] = [*plan.decisions, *plan.waiting]
        match placed:
            case [Place(cluster=cluster)]:
                assert (found.because, found.would_fit) == (None, cluster)
            case [Wait(because=because)]:
                assert found.because == because
            case _:
                raise AssertionError(placed)


@pytest.mark.long
@checked
@given(drawn(some_nodes, nodes_max=3), st.integers(1, 4), st.integers(1, 8), st.sampled_from(LEVELS))
def test_gpus_to_free_are_just_enough(rows: list[NodeRow], pods: int, gpus: int, level: str) -> None:
    table = NodeTable.build(rows)
    asked = request(role(pods=pods, gpus=gpus), level_required=level)
    known = list(table.rows())
    enough = [
        sum(freed)
        for freed in product(*(range(row.gpus_total - row.gpus_free + 1) for row in known))
        if isinstance(
            assign(
                NodeTable.build(
                    row._replace(gpus_free=row.gpus_free + more) for row, more in zip(known, freed, strict=True)
                ),
                asked,
            ),
            Assignment,
        )
    ]
    assert gpus_to_free(table, asked) == min(enough, default=None)
