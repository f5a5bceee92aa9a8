"""What is drawn for the properties comes to something: on empty plans they hold whatever the engine does."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given

from placement.engine import Pending, decide
from placement.fleet import Fleet
from placement.quota import Quotas
from placement.score import DEFAULT_POLICY
from tests.builders import BUDGET
from tests.unit.placement.drawn import FEW_GROUPS, a_fleet, a_queue, drawn, lawful, some_quotas

EXAMPLES = 200


@pytest.mark.long
def test_half_of_all_plans_place_something_and_many_refuse_beside_it() -> None:
    placing = refusing_too = spread_out = on_several_nodes = 0
    for number in range(EXAMPLES):
        dice = Random(number)
        where, waiting, limits = a_fleet(dice), a_queue(dice), some_quotas(dice)
        plan = decide(where, waiting, policy=DEFAULT_POLICY, budget=BUDGET, quotas=limits)
        placing += bool(plan.decisions)
        refusing_too += bool(plan.decisions and plan.waiting)
        spread_out += len({place.cluster for place in plan.decisions}) > 1
        on_several_nodes += any(len(place.assignment.nodes) > 1 for place in plan.decisions)
    assert placing >= EXAMPLES // 2
    assert refusing_too >= EXAMPLES // 3
    assert spread_out >= EXAMPLES // 10
    assert on_several_nodes >= EXAMPLES // 10


def test_hypothesis_draws_as_the_dice_do() -> None:
    decisions: list[int] = []

    @lawful(examples=60)
    @given(drawn(a_fleet, groups_left=FEW_GROUPS), drawn(a_queue), drawn(some_quotas))
    def count(where: Fleet, waiting: list[Pending], limits: Quotas) -> None:
        plan = decide(where, waiting, policy=DEFAULT_POLICY, budget=BUDGET, quotas=limits)
        decisions.append(len(plan.decisions))

    count()
    assert sum(decisions) >= len(decisions)
