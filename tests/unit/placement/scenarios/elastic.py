"""Elastic gangs: with how many pods they start where not all have room, and how many join them later.

The sources' quotas of CPUs are nodes with as many here: what is asked is how a gang is cut to size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from placement.engine import Pending
from placement.fleet import Fleet, NodeRow
from placement.model import Position, RoleRequest
from tests.builders import cluster, gang, role
from tests.unit.placement.scenarios.language import KAI_ELASTIC, KAI_SUBGROUPS, KUEUE_SCHEDULER, KUEUE_TAS, cpus, gpus

Counts = tuple[int, ...]
"""Pods by role."""

WAITS: Counts = ()


@dataclass(frozen=True, slots=True)
class Start:
    """`wants`: by gang, oldest first, the pods of each of its roles."""

    says: str
    source: str
    where: Fleet
    gangs: tuple[Pending, ...]
    wants: Mapping[str, Counts]


@dataclass(frozen=True, slots=True)
class Growth:
    """`runs` pods hold their GPUs already; with those that join there are `wants`."""

    says: str
    source: str
    where: Sequence[NodeRow]
    group: Pending
    runs: Counts
    wants: Counts


def at_least(min_count: int, *roles: RoleRequest, name: str = "g", level: str = "") -> Pending:
    return gang(name, roles=roles, level=level, min_count=min_count, elastic=True)


def pods(count: int, least: int, name: str = "worker", *, gpus: int = 0, cpu_milli: int = 0) -> RoleRequest:
    return role(name, pods=count, min_count=least, gpus=gpus, cpu_milli=cpu_milli)


def start(
    says: str, source: str, where: Sequence[NodeRow], gangs: Pending | tuple[Pending, ...], *wants: Counts
) -> Start:
    items = gangs if isinstance(gangs, tuple) else (gangs,)
    aged = tuple(replace(item, submitted_at=Position(at)) for at, item in enumerate(items, start=1))
    return Start(
        says, source, Fleet([cluster("c-1", where)]), aged, dict(zip((i.uid for i in aged), wants, strict=True))
    )


STARTS = (
    start(
        "all pods start where there is room for all",
        f"{KAI_ELASTIC} 'Allocate elastic job - full allocate'",
        gpus(node0=2),
        at_least(1, pods(2, 1, gpus=1)),
        (2,),
    ),
    start(
        "one of two starts where there is room for one",
        f"{KAI_ELASTIC} 'Allocate elastic job - partial allocate'",
        gpus(node0=1),
        at_least(1, pods(2, 1, gpus=1)),
        (1,),
    ),
    start(
        "the older gang starts whole, the younger with what it leaves",
        f"{KAI_ELASTIC} 'Allocate 2 elastic jobs - full and partial allocate'",
        gpus(node0=5),
        (at_least(1, pods(3, 1, gpus=1), name="job0"), at_least(1, pods(3, 1, gpus=1), name="job1")),
        (3,),
        (2,),
    ),
    start(
        "every role starts with its floor where there is room for no more",
        f"{KAI_SUBGROUPS} 'Allocate job with SubGroups - partial allocation'",
        gpus(node0=2),
        at_least(2, pods(2, 1, "sub0", gpus=1), pods(2, 1, "sub1", gpus=1)),
        (1, 1),
    ),
    start(
        "no pod starts where the floors of the roles do not fit together",
        f"{KAI_SUBGROUPS} 'Allocate job with SubGroups - cannot satisfy sub group gang'",
        gpus(node0=4),
        at_least(3, pods(2, 1, "sub0", gpus=3), pods(2, 2, "sub1", gpus=1)),
        WAITS,
    ),
    start(
        "half of the pods start where half of the CPUs are there",
        f"{KUEUE_SCHEDULER} 'partial admission single variable pod set'",
        cpus(n1=50),
        at_least(20, pods(50, 20, cpu_milli=2_000)),
        (25,),
    ),
    start(
        "roles shrink in proportion to what they may give away, the one that may not keeps all its pods",
        f"{KUEUE_SCHEDULER} 'partial admission multiple variable pod sets'",
        cpus(n1=50),
        at_least(35, *(pods(*one, cpu_milli=1_000) for one in ((20, 20, "one"), (30, 10, "two"), (15, 5, "three")))),
        (20, 20, 10),
    ),
    start(
        "a gang that is not elastic waits in the same place",
        f"{KUEUE_SCHEDULER} 'partial admission disabled, multiple variable pod sets'",
        cpus(n1=50),
        gang("g", roles=tuple(role(str(at), pods=n, gpus=0, cpu_milli=1_000) for at, n in enumerate((20, 30, 15)))),
        WAITS,
    ),
    start(
        "a gang that requires one host is cut to what one host holds",
        f"{KUEUE_TAS} 'TAS workload gets scheduled as trimmed by partial admission'",
        cpus(x1=1),
        at_least(1, pods(5, 1, cpu_milli=1_000), level="host"),
        (1,),
    ),
)

GROWTHS = (
    Growth(
        "the second pod joins the first where there is room for it",
        f"{KAI_ELASTIC} 'Allocate elastic job - full allocate - partially running'",
        gpus(node0=(1, 2)),
        at_least(1, pods(2, 1, gpus=1)),
        (1,),
        (2,),
    ),
    Growth(
        "as many join as there is room for",
        f"{KAI_ELASTIC} 'Allocate elastic job - partial allocate - some pods already running'",
        gpus(node0=(1, 2)),
        at_least(1, pods(3, 1, gpus=1)),
        (1,),
        (2,),
    ),
)
