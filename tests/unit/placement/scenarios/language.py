"""What a scenario is: clusters, gangs that wait, and what is wanted of each; and short ways to write these down.

Sources are `owner/repository:path` and the name of the case there. Inputs and outcomes are taken as facts; the words
and the form are ours. Where a case counts CPUs, GPUs may stand for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from placement.engine import Pending, Place, Wait
from placement.fleet import ClusterView, Fleet, NodeRow
from placement.model import Position, QueueName, Reason
from placement.quota import UNLIMITED, QuotaLine, Quotas
from tests.builders import cluster, node

KAI_ALLOCATE = "NVIDIA/KAI-Scheduler:pkg/scheduler/actions/allocate/allocate_test.go"
KAI_QUEUES = "NVIDIA/KAI-Scheduler:pkg/scheduler/actions/integration_tests/allocate/allocate_test.go"
KAI_ELASTIC = "NVIDIA/KAI-Scheduler:pkg/scheduler/actions/allocate/allocateElastic_test.go"
KAI_SUBGROUPS = "NVIDIA/KAI-Scheduler:pkg/scheduler/actions/allocate/allocate_subgroups_test.go"
KAI_TOPOLOGY = "NVIDIA/KAI-Scheduler:pkg/scheduler/actions/allocate/allocateTopology_test.go"
KAI_LEVELS = "NVIDIA/KAI-Scheduler:docs/topology/multilevel.md"
KAI_MIG = "NVIDIA/KAI-Scheduler:pkg/scheduler/actions/allocate/allocateMIG_test.go"
KAI_FRACTIONS = "NVIDIA/KAI-Scheduler:pkg/scheduler/actions/allocate/allocateFractionalGpu_test.go"
MIG_GUIDE = "NVIDIA MIG User Guide"
SHARING_GUIDE = "NVIDIA GPU Operator, Time-Slicing GPUs in Kubernetes"
KARMADA_DIVIDE = "karmada-io/karmada:pkg/scheduler/core/division_algorithm_test.go"
KARMADA_SELECT = "karmada-io/karmada:pkg/scheduler/core/spreadconstraint/select_clusters_test.go"
KUEUE_SCHEDULER = "kubernetes-sigs/kueue:pkg/scheduler/scheduler_test.go"
KUEUE_TAS = "kubernetes-sigs/kueue:pkg/scheduler/scheduler_tas_test.go"
KUEUE_TOPOLOGY = "kubernetes-sigs/kueue:pkg/cache/scheduler/tas_cache_test.go"
NOMAD = "hashicorp/nomad:scheduler/feasible_test.go"
VOLCANO = "volcano-sh/volcano:pkg/scheduler/actions/allocate/allocate_test.go"


@dataclass(frozen=True, slots=True)
class Placed:
    """Pods by node, or by domain of `level`: what the source leaves open is left open here too."""

    pods: Mapping[str, int]
    level: str = "host"
    cluster: str = "c-1"


@dataclass(frozen=True, slots=True)
class Waits:
    """`needs` and `best` as the reason says them, where the source does."""

    reason: Reason
    needs: int | None = None
    best: int | None = None


Want = Placed | Waits


@dataclass(frozen=True, slots=True)
class Scenario:
    """`wants` by the name of the gang."""

    says: str
    source: str
    where: Fleet
    gangs: tuple[Pending, ...]
    wants: Mapping[str, Want]
    quotas: Quotas


def scenario(
    says: str,
    source: str,
    where: tuple[NodeRow, ...] | Fleet,
    gangs: Pending | tuple[Pending, ...],
    want: Want | Mapping[str, Want],
    *,
    quotas: Mapping[str, int] | None = None,
) -> Scenario:
    """One cluster `c-1` of nodes, or a fleet; one gang, or several, oldest first; quotas in GPUs by queue."""
    fleet = where if isinstance(where, Fleet) else Fleet([cluster("c-1", *where)])
    one = gangs if isinstance(gangs, tuple) else (gangs,)
    aged = tuple(replace(item, submitted_at=Position(position)) for position, item in enumerate(one, start=1))
    wants: Mapping[str, Want] = want if isinstance(want, Mapping) else {str(one[0].uid): want}
    assert wants.keys() == {item.uid for item in aged}, f"{says}: something is wanted of every gang"
    limits = {QueueName(queue): {"*": QuotaLine(gpus)} for queue, gpus in (quotas or {}).items()}
    return Scenario(says, source, fleet, aged, wants, limits or UNLIMITED)


def gpus(**by_node: int | tuple[int, int]) -> tuple[NodeRow, ...]:
    """`gpus(a=4, b=(2, 4))`: four GPUs, all free; two free of four."""
    pairs = {name: (one, one) if isinstance(one, int) else one for name, one in by_node.items()}
    return tuple(node(name, free=free, gpus=total) for name, (free, total) in pairs.items())


def cpus(**by_node: int) -> tuple[NodeRow, ...]:
    """Nodes without GPUs."""
    return tuple(node(name, gpus=0, cpu=amount) for name, amount in by_node.items())


def tree(text: str) -> tuple[NodeRow, ...]:
    """`b1/r1/x3:1 b1/r2/x5:2/4`: block, rack, node, and its GPUs; 2/4 means two free of four."""
    rows: list[NodeRow] = []
    for leaf in text.split():
        place, amount = leaf.split(":")
        block, rack, name = place.split("/")
        free, _, total = amount.partition("/")
        rows.append(node(name, block=block, rack=rack, free=int(free), gpus=int(total or free)))
    return tuple(rows)


def outcome(where: Fleet, decided: Place | Wait, want: Want) -> Want:
    """What was decided, said as `want` says it."""
    match decided, want:
        case Place(), Placed():
            return Placed(_by_domain(where[decided.cluster], decided, want.level), want.level, decided.cluster)
        case Place(), Waits():
            return Placed(_by_domain(where[decided.cluster], decided, "host"), "host", decided.cluster)
        case _:
            assert isinstance(decided, Wait)
            because = decided.because
            assert because is not None, "reasons were asked for"
            told = isinstance(want, Waits) and want.needs is not None
            return Waits(because.reason, because.needs, because.best) if told else Waits(because.reason)


def _by_domain(view: ClusterView, place: Place, level: str) -> dict[str, int]:
    rows = {row.name: row for row in view.table.rows()}
    pods: dict[str, int] = {}
    for part in place.assignment.parts:
        row = rows[part.node]
        name = {"host": row.name, "clique": row.clique, "rack": f"{row.block}/{row.rack}", "block": row.block}[level]
        pods[name] = pods.get(name, 0) + part.pods
    return pods
