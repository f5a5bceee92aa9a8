"""Small fleets that are nearly full, and more gangs than fit: what an instance of the comparison looks like."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from placement.engine import Pending
from placement.fleet import ClusterView, Fleet, NodeRow, NodeTable
from placement.model import ClusterName
from tests.builders import GPUS_PER_NODE, gang, node

CLUSTERS = 4
CLIQUES = 3
NODES_PER_CLIQUE = 4
OFFERED = 1.15  # of the free GPUs: tight, since not all can start
GANG_GPUS = {1: 30, 2: 15, 4: 15, 8: 20, 16: 12, 32: 8}  # how often: many small ones, and most GPUs in large ones
PRIORITIES = (0, 0, 1, 2)  # in `with_priorities`: half of all have none
FREE_GPUS = (8, 8, 8, 8, 7, 6, 5, 4, 2, 0)  # of a node: a fleet in use


@dataclass(frozen=True, slots=True)
class Instance:
    fleet: Fleet
    gangs: tuple[Pending, ...]  # as they came, all of one priority


def draw(seed: int) -> Instance:
    """The instance of this seed."""
    dice = Random(seed)
    views = [
        ClusterView(ClusterName(f"c-{number}"), NodeTable.build(_nodes(dice, number))) for number in range(CLUSTERS)
    ]
    free = sum(int(view.table.gpus_free.sum()) for view in views)
    gangs: list[Pending] = []
    while sum(item.request.gpus for item in gangs) < OFFERED * free:
        gangs.append(_gang(dice, len(gangs)))
    return Instance(Fleet(views), tuple(gangs))


def with_priorities(instance: Instance, seed: int) -> Instance:
    """The same gangs, some of which are more urgent."""
    dice = Random(f"priorities of {seed}")
    return Instance(instance.fleet, tuple(replace(item, priority=dice.choice(PRIORITIES)) for item in instance.gangs))


def weight(item: Pending) -> int:
    """What a GPU of the gang counts: twice as much with each step of priority."""
    return 1 << item.priority


def _nodes(dice: Random, cluster: int) -> list[NodeRow]:
    return [
        node(f"n-{cluster}-{clique}-{number}", free=dice.choice(FREE_GPUS), clique=f"q-{cluster}-{clique}")
        for clique in range(CLIQUES)
        for number in range(NODES_PER_CLIQUE)
    ]


def _gang(dice: Random, number: int) -> Pending:
    (size,) = dice.choices(tuple(GANG_GPUS), tuple(GANG_GPUS.values()))
    gpus = dice.choice([pod for pod in (1, 2, 4, 8) if pod <= size <= 8 * pod])
    level = dice.choice(("", "clique") if size > GPUS_PER_NODE else ("", "clique", "host"))
    return gang(f"g-{number:03}", pods=size // gpus, gpus=gpus, level=level, at=number + 1)
