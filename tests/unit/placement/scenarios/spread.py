"""Replicas divided over clusters, as Karmada's suite wants it. Its clusters that hold so many replicas are ones with as
many free GPUs here; those that it scores higher are fuller here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from placement.engine import Pending
from placement.fleet import Fleet
from placement.model import Divide, GroupUid, Reason
from placement.spread import SpreadAsk
from tests.builders import cluster, gang, node
from tests.unit.placement.scenarios.language import KARMADA_DIVIDE, KARMADA_SELECT, Waits


@dataclass(frozen=True, slots=True)
class Division:
    """`want`: how many replicas in which cluster, or why none."""

    says: str
    source: str
    where: Fleet
    group: Pending
    want: Mapping[str, int] | Waits


def holding(**free: int | tuple[int, int]) -> Fleet:
    """Clusters with so many free GPUs, or so many free of so many."""
    pairs = {name: (one, one) if isinstance(one, int) else one for name, one in free.items()}
    return Fleet(cluster(name, node("n", free=left, gpus=whole)) for name, (left, whole) in pairs.items())


def service(replicas: int, clusters: tuple[int, int], divide: Divide = Divide.EVEN) -> Pending:
    """Replicas of one GPU each."""
    low, high = clusters
    children = tuple(GroupUid(f"g-{number}") for number in range(1, high + 1))
    ask = SpreadAsk(children, replicas, 1, replicas - (low - 1), low, divide)
    return replace(gang("g-1", gpus=1), spread=ask)


# From the best to the worst: 80, 75, 70 and 65 % in use.
FOUR = holding(member4=(50, 250), member2=(60, 240), member3=(80, 267), member1=(40, 115))

SPREAD = (
    Division(
        "the clusters that score best are taken, as many as may be",
        f"{KARMADA_SELECT} 'select clusters by cluster score'",
        FOUR,
        service(100, (1, 2)),
        {"member4": 50, "member2": 50},
    ),
    Division(
        "of two that hold too little together the worse one gives way to one that holds enough",
        f"{KARMADA_SELECT} 'select clusters by cluster score and satisfy available resources'",
        FOUR,
        service(120, (1, 2)),
        {"member4": 50, "member3": 70},
    ),
    Division(
        "nothing is placed where no two clusters hold all replicas",
        f"{KARMADA_SELECT} 'select clusters by cluster score and insufficient resources'",
        FOUR,
        service(200, (1, 2)),
        Waits(Reason.SPREAD_TOO_SMALL, 200, 140),
    ),
    Division(
        "nothing is placed where fewer clusters can hold it than it has to use",
        f"{KARMADA_SELECT} 'select clusters by cluster score and exceeded the number of available clusters.'",
        FOUR,
        service(30, (7, 7)),
        Waits(Reason.SPREAD_TOO_NARROW, 7, 4),
    ),
    Division(
        "replicas without weights are divided evenly",
        f"{KARMADA_DIVIDE} 'replica 12, default weight'",
        holding(member1=12, member2=12, member3=12),
        service(12, (3, 3)),
        {"member1": 4, "member2": 4, "member3": 4},
    ),
    Division(
        "what cannot be divided evenly goes to the first ones",
        f"{KARMADA_DIVIDE} 'remainingReplicas 2', one each before",
        holding(member1=5, member2=5, member3=5),
        service(5, (3, 3)),
        {"member1": 2, "member2": 2, "member3": 1},
    ),
    Division(
        "by room, three clusters of unlike size",
        f"{KARMADA_DIVIDE} 'replica 12, dynamic weight 18:12:6'",
        holding(member1=18, member2=12, member3=6),
        service(12, (3, 3), Divide.ROOM),
        {"member1": 6, "member2": 4, "member3": 2},
    ),
    Division(
        "by room, the largest is not the first",
        f"{KARMADA_DIVIDE} 'replica 12, dynamic weight 6:12:6'",
        holding(member1=6, member2=12, member3=6),
        service(12, (3, 3), Divide.ROOM),
        {"member1": 3, "member2": 6, "member3": 3},
    ),
    Division(
        "by room, half of everything",
        f"{KARMADA_DIVIDE} 'replica 12, dynamic weight 6:8:10'",
        holding(member1=6, member2=8, member3=10),
        service(12, (3, 3), Divide.ROOM),
        {"member1": 3, "member2": 4, "member3": 5},
    ),
    Division(
        "by room, nothing is placed where there is too little of it",
        f"{KARMADA_DIVIDE} 'replica 12, dynamic weight 3:3:3'",
        holding(member1=3, member2=3, member3=3),
        service(12, (3, 3), Divide.ROOM),
        Waits(Reason.SPREAD_TOO_SMALL, 12, 9),
    ),
)
