"""Cases of other schedulers' suites, decided by the engine and carried out by an agent that sees the same nodes."""

from __future__ import annotations

import pytest

from placement.assign import assign
from placement.assignment import Assignment
from placement.elastic import counts_of, largest_growth
from placement.engine import Place, Wait, decide
from placement.model import GangRequest
from placement.score import DEFAULT_POLICY
from tests.builders import BUDGET, table
from tests.unit.placement.scenarios.elastic import GROWTHS, STARTS, WAITS, Growth, Start
from tests.unit.placement.scenarios.gangs import GANGS
from tests.unit.placement.scenarios.language import Scenario, Waits, outcome
from tests.unit.placement.scenarios.parts import PARTS
from tests.unit.placement.scenarios.queues import QUEUES
from tests.unit.placement.scenarios.spread import SPREAD, Division
from tests.unit.placement.scenarios.topology import TOPOLOGY

ALL = (*GANGS, *PARTS, *QUEUES, *TOPOLOGY)


def decided(one: Scenario) -> list[Place | Wait]:
    plan = decide(one.where, one.gangs, policy=DEFAULT_POLICY, budget=BUDGET, quotas=one.quotas)
    return [*plan.decisions, *plan.waiting]


@pytest.mark.parametrize("one", [pytest.param(one, id=one.says) for one in ALL])
def test_engine_decides_as_the_source_wants_it(one: Scenario) -> None:
    found = {answer.uid: outcome(one.where, answer, one.wants[answer.uid]) for answer in decided(one)}
    assert found == one.wants, one.source


@pytest.mark.parametrize("one", [pytest.param(one, id=one.says) for one in ALL])
def test_agent_finds_the_same_nodes_as_the_engine(one: Scenario) -> None:
    tables = {name: view.table.copy() for name, view in one.where.items()}
    for answer in decided(one):
        if isinstance(answer, Place):
            found = assign(tables[answer.cluster], answer.assignment.request)
            assert isinstance(found, Assignment)
            assert found.parts == answer.assignment.parts
            tables[answer.cluster].take(found)


@pytest.mark.parametrize("one", [pytest.param(one, id=one.says) for one in SPREAD])
def test_engine_divides_replicas_as_the_source_wants_it(one: Division) -> None:
    plan = decide(one.where, [one.group], policy=DEFAULT_POLICY, budget=BUDGET)
    found: dict[str, int] | Waits = {place.cluster: place.assignment.request.pods for place in plan.decisions}
    for wait in plan.waiting:
        assert wait.because is not None
        found = Waits(wait.because.reason, wait.because.needs, wait.because.best)
    assert found == one.want, one.source


@pytest.mark.parametrize("one", [pytest.param(one, id=one.says) for one in STARTS])
def test_engine_cuts_elastic_gangs_to_size_as_the_source_wants_it(one: Start) -> None:
    plan = decide(one.where, one.gangs, policy=DEFAULT_POLICY, budget=BUDGET)
    placed = {place.uid: counts_of(place.assignment.request) for place in plan.decisions}
    assert {item.uid: placed.get(item.uid, WAITS) for item in one.gangs} == one.wants, one.source


@pytest.mark.parametrize("one", [pytest.param(one, id=one.says) for one in GROWTHS])
def test_as_many_pods_join_as_the_source_wants(one: Growth) -> None:
    def holds(more: GangRequest) -> Assignment | None:
        answer = assign(table(one.where), more)
        return answer if isinstance(answer, Assignment) else None

    request = one.group.request
    found = largest_growth(request, one.runs, counts_of(request), holds)
    assert found is not None
    assert found[0] == one.wants, one.source


def test_there_are_at_least_forty_scenarios_and_each_is_told_once() -> None:
    assert len(ALL) >= 40
    assert len({one.says for one in ALL}) == len(ALL)
