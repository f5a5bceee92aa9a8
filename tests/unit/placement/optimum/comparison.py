"""What the engine places of the most that any scheduler could."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from placement.engine import Pending, decide
from placement.model import Position
from placement.node_order import LearntWorth, NodeWorth
from placement.score import DEFAULT_POLICY
from tests.builders import BUDGET
from tests.unit.placement.optimum.instances import Instance, draw, weight, with_priorities
from tests.unit.placement.optimum.milp import gpus_max

INSTANCES = 30
MEAN_MIN = 0.99
WORST_MIN = 0.97
URGENT_WORST_MIN = 0.95  # with priorities: what is reached; the aim is WORST_MIN
MEAN_BY_AGE_MIN = 0.94  # where each gang is older than the next one: what is reached, and no aim


def shares(seeds: Iterable[int]) -> list[float]:
    """By instance the weighted GPUs that the engine places, as a share of the optimum; all gangs come at once.

    So both may choose: to the optimum no gang is older than another, and to the engine neither.
    """
    return [share_at_once(with_priorities(draw(seed), seed)) for seed in seeds]


def share_at_once(instance: Instance) -> float:
    return gpus_of(placed(instance, came_together(instance.gangs))) / gpus_max(instance)


def by_age(instance: Instance) -> int:
    """GPUs placed where each gang is older than the next: small old ones are served before large young ones."""
    return gpus_of(placed(instance, instance.gangs))


def gpus_kept_by_age(instance: Instance) -> int:
    """GPUs of the gangs that have a place if each gets one that fits beside all older ones that have one.

    Wherever those would have to stand: about the most for whoever serves the older first and knows who comes next.

    Whether some gangs fit together is asked of the engine, largest first, which finds nearly every packing.
    """
    kept: list[Pending] = []
    for item in instance.gangs:
        tried = came_together([*kept, item])
        if len(placed(instance, tried)) == len(tried):
            kept.append(item)
    return gpus_of(kept)


def came_together(gangs: Sequence[Pending]) -> list[Pending]:
    """As if one journal entry held their submissions."""
    return [replace(item, batch_at=Position(1)) for item in gangs]


def placed(instance: Instance, gangs: Sequence[Pending]) -> list[Pending]:
    """By one cycle over the gangs, whose mix is known."""
    plan = decide(instance.fleet, gangs, policy=DEFAULT_POLICY, budget=BUDGET, worth=_learnt(instance))
    homes = {place.uid for place in plan.decisions}
    return [item for item in gangs if item.uid in homes]


def gpus_of(gangs: Iterable[Pending]) -> int:
    """As `weight` counts them: by number where all have priority 0."""
    return sum(weight(item) * item.request.gpus for item in gangs)


def _learnt(instance: Instance) -> NodeWorth | None:
    learnt = LearntWorth()
    for item in instance.gangs:
        learnt.asked(item.request)
    learnt.look(view.table for view in instance.fleet.values())
    return learnt.now
