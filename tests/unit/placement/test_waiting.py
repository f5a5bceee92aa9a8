"""Who is looked at in which cycle, read as a specification."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from placement.engine import Bounds, Plan, plan_cycle
from placement.filters import Pending
from placement.fleet import Fleet
from placement.memory import Memory
from placement.model import ClusterName, Position
from placement.score import DEFAULT_POLICY
from placement.waiting import Waiting
from tests.builders import BUDGET, cluster, fleet, gang, nodes, role

ASIA = (("region", ("asia",)),)  # of no cluster here: open to nothing, though there is room


class Queue:
    """A waiting queue and its memory, one cycle after the other."""

    def __init__(self, where: Fleet, waiting: Waiting) -> None:
        self.where = where
        self.waiting = waiting
        self.memory = Memory()

    def cycle(self, *, gains: int = 0, budget: int = BUDGET, **bounds: Any) -> Plan:
        limits = Bounds(budget, gains, **bounds)
        return plan_cycle(self.where, self.waiting, self.memory, policy=DEFAULT_POLICY, bounds=limits)


def placed(plan: Plan) -> list[str]:
    return [place.uid for place in plan.decisions]


def blocked(plan: Plan) -> list[str]:
    return [wait.uid for wait in plan.waiting]


# --- a pass over the queue --------------------------------------------------------------------------------------------


def test_cycle_after_one_whose_budget_ended_goes_on_behind_those_found_blocked() -> None:
    ahead = [gang(f"b{n}", pods=n, at=n, cluster_labels=ASIA) for n in range(1, 4)]
    queue = Queue(fleet(eu=64), Waiting([*ahead, gang("small", at=9)]))
    found = [queue.cycle(gains=turn, budget=1) for turn in range(4)]
    assert [blocked(plan) for plan in found] == [["b1"], ["b2"], ["b3"], []]
    assert [placed(plan) for plan in found] == [[], [], [], ["small"]]
    assert [plan.exhausted for plan in found] == [True, True, True, False]


def test_blocked_groups_are_looked_at_again_in_the_next_pass_if_something_was_gained() -> None:
    queue = Queue(fleet(eu=64), Waiting([gang("b", cluster_labels=ASIA)]))
    assert blocked(queue.cycle(gains=1)) == ["b"]
    queue.where = fleet(cluster("tokyo", nodes(64), labels={"region": "asia"}))
    assert placed(queue.cycle(gains=1)) == []
    assert placed(queue.cycle(gains=2)) == ["b"]


def test_group_that_comes_during_a_pass_is_looked_at_in_its_turn() -> None:
    queue = Queue(fleet(eu=64), Waiting([gang("b", at=1, cluster_labels=ASIA), gang("old", at=2), gang("last", at=8)]))
    queue.cycle(budget=1)
    queue.waiting.put(gang("urgent", at=9, priority=1))
    assert placed(queue.cycle(budget=1)) == ["urgent"]
    assert placed(queue.cycle(budget=2)) == ["old", "last"]


def test_groups_of_a_kind_found_blocked_are_not_looked_at_in_that_pass() -> None:
    alike = [gang(f"g{n}", at=n, cluster_labels=ASIA) for n in range(1, 101)]
    queue = Queue(fleet(eu=64, us=64), Waiting(alike))
    plan = queue.cycle()
    assert (blocked(plan), plan.evaluations, plan.exhausted) == (["g1"], 1, False)
    queue.waiting.put(gang("g0", at=0, cluster_labels=ASIA))
    assert blocked(queue.cycle()) == []


def test_kind_that_no_cluster_has_room_for_is_passed_by_even_when_something_was_gained() -> None:
    queue = Queue(fleet(eu=64), Waiting([gang("huge", pods=9)]))
    assert queue.cycle(gains=1).evaluations == 1
    assert blocked(queue.cycle(gains=2)) == []
    queue.where = fleet(eu=72)
    assert placed(queue.cycle(gains=3)) == ["huge"]


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_held_groups_are_passed_over_and_come_first_in_the_next_cycle() -> None:
    queue = Queue(fleet(eu=8), Waiting([gang("first", at=1), gang("second", at=2)]))
    assert placed(queue.cycle(held=lambda item: item.uid in {"first", "second"})) == []
    assert placed(queue.cycle()) == ["first"]


def test_moves_keep_to_their_number_and_nobody_waits_behind_them() -> None:
    moves = [replace(gang(f"m{n}", at=n), displaced=True) for n in range(1, 4)]
    queue = Queue(fleet(eu=64), Waiting([*moves, gang("new", at=9)]))
    plan = queue.cycle(moves_max=2)
    assert (placed(plan), plan.exhausted) == (["m1", "m2", "new"], False)
    assert placed(queue.cycle(moves_max=2)) == ["m3"]


def test_cycle_ends_when_its_places_are_used_up() -> None:
    queue = Queue(fleet(eu=64), Waiting(gang(f"g{n}", at=n) for n in range(1, 4)))
    plan = queue.cycle(places_max=2)
    assert (placed(plan), plan.exhausted) == (["g1", "g2"], True)


# --- who waits --------------------------------------------------------------------------------------------------------


def test_group_that_no_longer_waits_is_not_placed() -> None:
    queue = Queue(fleet(eu=64), Waiting([gang("gone", at=1), gang("here", at=2)]))
    queue.waiting.remove(gang("gone").uid)
    assert placed(queue.cycle()) == ["here"]
    assert len(queue.waiting) == 0


def test_group_put_again_waits_as_was_said_last() -> None:
    queue = Queue(fleet(eu=8), Waiting([gang("g", avoid=["eu"])]))
    assert blocked(queue.cycle()) == ["g"]
    queue.waiting.put(gang("g"))
    assert placed(queue.cycle()) == ["g"]


def test_all_groups_that_avoid_a_cluster_are_named_when_they_are_blocked() -> None:
    queue = Queue(fleet(eu=64), Waiting(gang(f"g{n}", at=n, avoid=["eu"]) for n in (2, 1)))
    assert blocked(queue.cycle()) == ["g1", "g2"]


def test_gang_of_unlike_roles_is_asked_anew_only_where_something_changed() -> None:
    mixed = gang("mixed", roles=(role("a", pods=1, gpus=8), role("b", pods=2, gpus=1)))
    queue = Queue(fleet(eu=16, us=8), Waiting([mixed]))
    plan = queue.cycle()
    assert [(one.cluster, one.assignment.pods[0].node) for one in plan.decisions] == [(ClusterName("eu"), "n000")]


# --- who came together ------------------------------------------------------------------------------------------------


def together(name: str, *, batch: int, at: int, **asked: Any) -> Pending:
    """A gang submitted at a position of the journal entry that starts at `batch`."""
    return replace(gang(name, at=at, **asked), batch_at=Position(batch))


def test_of_groups_that_came_together_the_larger_is_served_first() -> None:
    small = [together(f"s{n}", batch=8, at=8 + n, gpus=4) for n in range(3)]
    queue = Queue(fleet(eu=16), Waiting([*small, together("large", batch=8, at=11, pods=2)]))
    assert placed(queue.cycle()) == ["large"]


def test_of_equally_large_groups_that_came_together_the_one_with_larger_pods_is_served_first() -> None:
    narrow, wide = (
        together(name, batch=8, at=at, pods=8 // gpus, gpus=gpus) for name, at, gpus in (("n", 8, 1), ("w", 9, 8))
    )
    assert placed(Queue(fleet(eu=64), Waiting([narrow, wide])).cycle()) == ["w", "n"]


def test_of_equal_groups_that_came_together_the_one_that_came_first_is_served_first() -> None:
    waiting = Waiting(together(name, batch=8, at=at) for name, at in (("b", 8), ("a", 9)))
    assert placed(Queue(fleet(eu=64), waiting).cycle()) == ["b", "a"]


def test_large_group_is_not_served_before_a_small_one_that_came_before_it() -> None:
    waiting = Waiting([together("large", batch=16, at=16, pods=2), together("small", batch=8, at=15, gpus=1)])
    assert placed(Queue(fleet(eu=16), waiting).cycle()) == ["small"]


def test_priority_comes_before_size_among_groups_that_came_together() -> None:
    waiting = Waiting([together("large", batch=8, at=8, pods=2), together("urgent", batch=8, at=9, gpus=1, priority=1)])
    assert placed(Queue(fleet(eu=16), waiting).cycle()) == ["urgent"]
