"""What the engine places of the most that any scheduler could."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from placement.engine import Pending, decide
from placement.fleet import Fleet
from placement.model import Position
from placement.node_order import LearntWorth, NodeWorth
from placement.score import DEFAULT_POLICY
from tests.builders import BUDGET
from tests.unit.placement.optimum.instances import Instance, draw, weight, with_priorities
from tests.unit.placement.optimum.milp import gpus_max

INSTANCES = 30
MEAN_MIN = 0.99
WORST_MIN = 0.97
MEAN_BY_AGE_MIN = 0.98  # where each gang is older than the next one: what is reached, and no aim


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
    worth = learnt_from(instance.gangs, instance.fleet)
    plan = decide(instance.fleet, gangs, policy=DEFAULT_POLICY, budget=BUDGET, worth=worth)
    homes = {place.uid for place in plan.decisions}
    return [item for item in gangs if item.uid in homes]


def gpus_of(gangs: Iterable[Pending]) -> int:
    """As `weight` counts them: by number where all have priority 0."""
    return sum(weight(item) * item.request.gpus for item in gangs)


def learnt_from(gangs: Iterable[Pending], where: Fleet) -> NodeWorth | None:
    """What nodes are worth to who has just seen these."""
    learnt = LearntWorth()
    for item in gangs:
        learnt.asked(item.request)
    learnt.look(view.table for view in where.values())
    return learnt.now
