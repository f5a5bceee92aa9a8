"""Small fleets, queues and gangs drawn at random: full enough to refuse, and empty enough to place.

Drawn from dice of our own: of Hypothesis' own choices most queues were empty and most gangs impossible, so that forty
examples of a plan came to one decision. `test_drawn` holds what is drawn against that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeVar

from hypothesis import Phase, settings
from hypothesis import strategies as st

from placement.devices import DeviceCount
from placement.engine import Pending
from placement.fleet import ClusterView, Fleet, NodeRow, NodeTable
from placement.model import (
    ANY_NODE,
    GROUPS_PER_CLUSTER_MAX,
    ClusterName,
    GangRequest,
    GroupUid,
    LabelRule,
    NodeRule,
    Position,
    QueueName,
    Taint,
    Toleration,
)
from placement.quota import QuotaLine, Quotas
from tests.builders import node, request, role

PRODUCTS = ("A100", "H100")
LEVELS = ("", "", "", "host", "clique", "rack")
TAINTED = (Taint("team", "red", "NoSchedule"),)
RULES = (
    NodeRule(((LabelRule("pool", "In", ("a",)),),)),
    NodeRule(tolerations=(Toleration("team", "Exists"),)),
    NodeRule(((LabelRule("pool", "NotIn", ("a",)),),), (Toleration("", "Exists"),)),
)
CUTS = (
    (("1g.10gb", 4),),
    (("1g.10gb", 2), ("3g.40gb", 1), ("shared/2", 4)),
    (("shared/4", 3),),
    (("shared/2", 2), ("shared/4", 4)),
)
PARTS: tuple[dict[str, Any], ...] = (
    {"gpus": 0, "mig_profile": "1g.10gb"},
    {"gpus": 0, "mig_profile": "3g.40gb"},
    {"gpus": 0, "gpu_milli": 250},
    {"gpus": 0, "gpu_milli": 500},
)
GPUS = (0, 1, 1, 1, 2, 4, 8)
NAMES = ("eu", "us", "asia")
MANY_GROUPS = (*(GROUPS_PER_CLUSTER_MAX,) * 11, 0)
FEW_GROUPS = (GROUPS_PER_CLUSTER_MAX, 1, 1, 2, 3)

Drawn = TypeVar("Drawn")


def drawn(make: Callable[..., Drawn], **fields: Any) -> st.SearchStrategy[Drawn]:
    """What `make` builds from dice. Examples are small anyway, so it matters little that they do not shrink."""
    return st.randoms(use_true_random=True).map(lambda dice: make(dice, **fields))


def one_in(dice: Random, many: int) -> bool:
    return dice.randrange(many) == 0


def some_nodes(dice: Random, *, nodes_max: int = 6) -> list[NodeRow]:
    return [_node(dice, f"n{number}") for number in range(dice.randint(not one_in(dice, 10), nodes_max))]


def _node(dice: Random, name: str) -> NodeRow:
    gpus = dice.choice((0, 4, 8, 8))
    row = node(
        name,
        gpus=gpus,
        product=dice.choice(PRODUCTS),
        cpu=dice.choice((2, 16, 64)),
        clique=dice.choice(("", "c1", "c2")),
        rack=dice.choice(("", "r1", "r1", "r2")),
        usable=not one_in(dice, 8),
    )
    return row._replace(
        gpus_free=8
        if one_in(dice, 20)
        else max(dice.randint(0, gpus), dice.randint(0, gpus)),  # now and then more than there are
        labels=(("pool", "a"),) if one_in(dice, 3) else (),
        taints=TAINTED if one_in(dice, 6) else (),
        devices=_devices(dice) if one_in(dice, 3) else (),
    )


def _devices(dice: Random) -> tuple[DeviceCount, ...]:
    return tuple((kind, total, dice.randint(0, total + one_in(dice, 5))) for kind, total in dice.choice(CUTS))


def a_gang(dice: Random, *, roles_max: int = 3, levels: Sequence[str] = LEVELS) -> GangRequest:
    roles = tuple(
        role(
            f"r{number}",
            pods=dice.choice((1, 1, 1, 2, 3, 5)),
            cpu_milli=dice.choice((0, 500, 3000)),
            products=dice.choice(((), (), (), ("A100",), ("H100", "A100"))),
            nodes=dice.choice(RULES) if one_in(dice, 5) else ANY_NODE,
            **(dice.choice(PARTS) if one_in(dice, 8) else {"gpus": dice.choice(GPUS)}),
        )
        for number in range(dice.choice((1, 1, 1, min(2, roles_max), roles_max)))
    )
    return request(*roles, level_required=dice.choice(levels), level_preferred=dice.choice(LEVELS))


def a_fleet(dice: Random, *, groups_left: Sequence[int] = MANY_GROUPS) -> Fleet:
    return Fleet(
        ClusterView(
            ClusterName(name),
            NodeTable.build(some_nodes(dice)),
            cordoned=one_in(dice, 12),
            stale=one_in(dice, 12),
            groups_left=dice.choice(groups_left),
        )
        for name in NAMES[: dice.choice((1, 2, 2, 3, 3, 3)) if not one_in(dice, 20) else 0]
    )


def a_queue(dice: Random) -> list[Pending]:
    few = [a_gang(dice) for _ in range(dice.randint(1, 4))]
    return [
        Pending(
            GroupUid(f"g{number}"),
            Position(dice.randint(1, 5)),
            dice.randint(0, 2),
            dice.choice(few),
            QueueName(dice.choice(("red", "blue"))),
            frozenset({ClusterName(dice.choice(NAMES))} if one_in(dice, 5) else ()),
            shunned=tuple(map(ClusterName, dice.sample(NAMES, dice.randint(1, 3)))) if one_in(dice, 4) else (),
            batch_at=dice.choice((None, Position(1))),
        )
        for number in range(dice.randint(1, 10))
    ]


def some_quotas(dice: Random) -> Quotas:
    lines = {line: QuotaLine(dice.randint(0, 20)) for line in ("*", "A100") if not one_in(dice, 3)}
    return {QueueName("red"): lines} if not one_in(dice, 3) else {}


def lawful(examples: int) -> settings:
    """How properties are run: the same examples each time, and no time spent on making dice smaller."""
    phases = (Phase.explicit, Phase.reuse, Phase.generate)
    return settings(deadline=None, max_examples=examples, derandomize=True, phases=phases)
