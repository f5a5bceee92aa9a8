"""The small language tests are written in: gangs, fleets and what is expected of a decision. No assertions here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from placement.engine import Pending, Place, decide
from placement.fleet import ClusterView, Fleet, NodeRow, NodeTable
from placement.model import ClusterName, GangRequest, GroupUid, PodGroup, Position, QueueName, Reason, RoleRequest
from placement.quota import UNLIMITED, Quotas
from placement.score import DEFAULT_POLICY, Policy

GPUS_PER_NODE = 8
BUDGET = 1_000_000  # more than any test spends


def node(
    name: str,
    *,
    gpus: int = GPUS_PER_NODE,
    free: int | None = None,
    product: str = "A100",
    cpu: int = 64,
    memory_gib: int = 512,
    clique: str = "",
    rack: str = "",
    block: str = "",
    zone: str = "",
    usable: bool = True,
) -> NodeRow:
    """A node with `free` of its `gpus` free (all by default), and all of its CPUs and memory."""
    gpus_free = gpus if free is None else free
    amounts = (gpus, gpus_free, cpu * 1000, cpu * 1000, memory_gib * 1024, memory_gib * 1024)
    return NodeRow(name, product if gpus else "", *amounts, clique, rack, block, zone, usable)


def nodes(
    gpus: int, *, prefix: str = "n", product: str = "A100", clique: str = "", free: int | None = None
) -> list[NodeRow]:
    """Nodes of 8 GPUs that hold `gpus` in all, `free` of them free (the first nodes are the free ones)."""
    left = gpus if free is None else free
    rows: list[NodeRow] = []
    for number in range(gpus // GPUS_PER_NODE):
        here = min(GPUS_PER_NODE, left)
        left -= here
        rows.append(node(f"{prefix}{number:03}", free=here, product=product, clique=clique))
    return rows


def clique(name: str, gpus: int, *, free: int | None = None, product: str = "A100") -> list[NodeRow]:
    """The nodes of one NVLink domain."""
    return nodes(gpus, prefix=f"{name}-", product=product, clique=name, free=free)


def table(*rows: NodeRow | Iterable[NodeRow]) -> NodeTable:
    """A table of single nodes and lists of nodes."""
    flat: list[NodeRow] = []
    for row in rows:
        flat.extend([row] if isinstance(row, NodeRow) else row)
    return NodeTable.build(flat)


def cluster(name: str, *rows: NodeRow | Iterable[NodeRow], **gates: Any) -> ClusterView:
    """A cluster open to placements, unless `gates` (fields of ClusterView) say otherwise."""
    return ClusterView(ClusterName(name), table(*rows), **gates)


def fleet(*views: ClusterView, **gpus: int) -> Fleet:
    """`fleet(eu=64, us=16)`: clusters by their free A100 GPUs; or views made by `cluster`."""
    return Fleet([*views, *(cluster(name.replace("_", "-"), nodes(count)) for name, count in gpus.items())])


def role(name: str = "worker", *, pods: int = 1, gpus: int = 8, **fields: Any) -> RoleRequest:
    """One role of a request; `fields` as in RoleRequest."""
    return replace(RoleRequest(name, pods, pods, gpus), **fields)


def request(*roles: RoleRequest, **fields: Any) -> GangRequest:
    """What a gang of `roles` asks for; `fields` as in GangRequest."""
    return replace(GangRequest(roles, sum(one.min_count for one in roles)), **fields)


def gang(
    name: str,
    *,
    pods: int = 1,
    gpus: int = 8,
    products: tuple[str, ...] = (),
    level: str = "",
    roles: tuple[RoleRequest, ...] = (),
    priority: int = 0,
    at: int = 1,
    queue: str = "default",
    avoid: Iterable[str] = (),
    **fields: Any,
) -> Pending:
    """A waiting group of `pods` equal pods (or of `roles`), submitted at position `at`."""
    asked = roles or (role(pods=pods, gpus=gpus, products=products),)
    return Pending(
        GroupUid(name),
        Position(at),
        priority,
        request(*asked, level_required=level, **fields),
        QueueName(queue),
        frozenset(ClusterName(one) for one in avoid),
    )


def pod_group(name: str = "train", *, pods: int = 1, gpus: int = 8, **fields: Any) -> PodGroup:
    """A PodGroup as people write it, with one role unless `fields` say otherwise."""
    template = {
        "spec": {"containers": [{"name": "main", "image": "train", "resources": {"limits": {"nvidia.com/gpu": gpus}}}]}
    }
    fields.setdefault("roles", [{"name": "worker", "count": pods, "template": template}])
    return PodGroup.model_validate({"name": name, **fields})


@dataclass(frozen=True, slots=True)
class On:
    cluster: str


@dataclass(frozen=True, slots=True)
class Waits:
    reason: Reason


def on(name: str) -> On:
    return On(name)


def waits(reason: Reason) -> Waits:
    return Waits(reason)


def decisions(
    where: Fleet, *items: Pending, policy: Policy = DEFAULT_POLICY, budget: int = BUDGET, quotas: Quotas = UNLIMITED
) -> dict[str, On | Waits]:
    """What one cycle says about each group, by its name."""
    plan = decide(where, items, policy=policy, budget=budget, quotas=quotas)
    placed: dict[str, On | Waits] = {one.uid: On(one.cluster) for one in plan.decisions}
    return placed | {one.uid: Waits(one.because.reason) for one in plan.waiting if one.because is not None}


def decision(where: Fleet, item: Pending, *, quotas: Quotas = UNLIMITED) -> On | Waits:
    """What one cycle says about a group that is alone."""
    return decisions(where, item, quotas=quotas)[item.uid]


__all__ = [
    "BUDGET",
    "GPUS_PER_NODE",
    "On",
    "Place",
    "Waits",
    "clique",
    "cluster",
    "decision",
    "decisions",
    "fleet",
    "gang",
    "node",
    "nodes",
    "on",
    "pod_group",
    "request",
    "role",
    "table",
    "waits",
]
