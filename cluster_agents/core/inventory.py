"""From Node objects, other people's pods and our holdings to rows of free capacity, for `assign` and for reports.

Free = allocatable - requests of pods that are not ours - what our gangs hold. Rows are rebuilt only where something
changed. Which gang holds what is decided in `binding`; how rows travel is `reports`'.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from cluster_agents.core.config import NEVER, NODE_LABEL_PREFIX, NODE_LABELS_MAX, AgentConfig
from cluster_agents.core.events import KubeObject
from cluster_agents.core.gpus_heard import MIG_MARK, GpusHeard, Note, reading_of
from cluster_agents.core.guards_heard import GuardsHeard
from cluster_agents.core.objects import cpu_milli, items, mapping, memory_mib, text, version, whole
from cluster_agents.core.pods import NOTHING, POD_PLACE, Amounts, MalformedObjectError, PodChange, parts_in
from federation.protocol.gpus import Gpu
from placement.devices import REPLICAS_MIN, replicas_of, shared_kind
from placement.fleet import GPUS_PER_NODE_MAX, NodeRow, NodeTable
from placement.layout import PLACE_LABELS
from placement.mig import MIG_RESOURCE_PREFIX, profile_of
from placement.model import NODES_PER_CLUSTER_MAX, FenceStrength, Taint
from placement.pod_templates import NODE_STATE_PREFIX
from placement.requests import GPU_RESOURCE, GPU_SHARED_RESOURCE

GPU_PRODUCT: Final = "nvidia.com/gpu.product"
GPU_COUNT: Final = "nvidia.com/gpu.count"
GPU_MEMORY: Final = "nvidia.com/gpu.memory"  # MiB
GPU_CLIQUE: Final = "nvidia.com/gpu.clique"
GPU_SHARING: Final = "nvidia.com/gpu.sharing-strategy"
GPU_REPLICAS: Final = "nvidia.com/gpu.replicas"
MIG_REPLICAS_SUFFIX: Final = ".replicas"  # of an instance's resource: where it is above 1, instances are shared
MIG_STRATEGY: Final = "nvidia.com/mig.strategy"
BY_INSTANCES: Final = frozenset({"single", "mixed"})  # without, a GPU on which MIG is on is given away whole
RACK: Final = "muster.io/rack"
BLOCK: Final = "muster.io/block"
ZONE: Final = "topology.kubernetes.io/zone"
OUT_OF_SERVICE: Final = "node.kubernetes.io/out-of-service"
PODS_UNSAID: Final = 1 << 20  # that a node takes which does not say how many
KEEPS_AWAY: Final = frozenset({"NoSchedule", "NoExecute"})


class GpuPart(NamedTuple):
    """Parts of GPUs that a node gives away: their kind (see `placement.devices`), how pods ask for one, how many."""

    kind: str
    resource: str
    amount: int


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a Node object says that matters to us; equal facts change nothing."""

    name: str
    product: str
    allocatable: Amounts
    shared: bool  # time-sliced, MPS or cut by MIG under the name of whole GPUs: none of them is anybody's alone
    parts: tuple[GpuPart, ...]
    gpus_had: int  # by capacity: with those that the kubelet takes for unhealthy
    gpu_memory_mib: int
    by_instances: bool
    pods_max: int
    clique: str
    rack: str
    block: str
    zone: str
    labels: tuple[tuple[str, str], ...]  # those by which pods may choose nodes, in order
    taints: tuple[Taint, ...]  # that a pod may tolerate, and that not all of ours do
    usable: bool
    ready: bool
    dead: bool  # declared out of service by its operator: what ran there has stopped


def node_facts(obj: KubeObject, config: AgentConfig) -> NodeFacts:
    """The facts of a Node; MalformedObjectError when it has no name."""
    name = text(obj, "metadata", "name")
    if not name:
        raise MalformedObjectError("a node has no name")
    labels, allocatable = mapping(obj, "metadata", "labels"), mapping(obj, "status", "allocatable")
    shared = _shared(labels)
    gpus = _whole_gpus(labels, whole(allocatable, GPU_RESOURCE))
    taints = [one for one in _taints(obj) if one.key not in config.taints_tolerated]
    own_state = any(one.key.startswith(NODE_STATE_PREFIX) for one in taints)
    conditions = {text(one, "type"): text(one, "status") for one in items(obj, "status", "conditions")}
    ready = conditions.get("Ready") == "True"
    sick = any(conditions.get(kind) == "True" for kind in config.conditions_denied)
    unschedulable = mapping(obj, "spec").get("unschedulable") is True
    return NodeFacts(
        name=name,
        product=text(labels, GPU_PRODUCT),
        allocatable=Amounts(
            cpu_milli(allocatable, up=False),
            memory_mib(allocatable, up=False),
            gpus,
        ),
        shared=shared,
        parts=(*_instances(labels, allocatable), *_replicas(labels, allocatable)),
        gpus_had=max(gpus, _whole_gpus(labels, whole(mapping(obj, "status", "capacity"), GPU_RESOURCE))),
        gpu_memory_mib=whole(labels, GPU_MEMORY),
        by_instances=text(labels, MIG_STRATEGY) in BY_INSTANCES,
        pods_max=whole(allocatable, POD_PLACE) if POD_PLACE in allocatable else PODS_UNSAID,
        clique=text(labels, GPU_CLIQUE),
        rack=text(labels, RACK),
        block=text(labels, BLOCK),
        zone=text(labels, ZONE),
        labels=_chosen_labels(labels, config),
        taints=() if own_state else tuple(taints),
        usable=ready and not sick and not own_state and not unschedulable,
        ready=ready,
        dead=any(text(taint, "key") == OUT_OF_SERVICE for taint in items(obj, "spec", "taints")),
    )


def _shared(labels: Mapping[str, Any]) -> bool:
    """Whether what is advertised as GPUs are parts of them, by the labels of GPU feature discovery."""
    return text(labels, GPU_SHARING) not in {"", "none"} or whole(labels, GPU_REPLICAS) > 1 or _sliced(labels)


def _whole_gpus(labels: Mapping[str, Any], advertised: int) -> int:
    """How many GPUs the node has that are not cut, of so many that it advertises."""
    if _sliced(labels):
        return 0
    return min(advertised, whole(labels, GPU_COUNT)) if _shared(labels) else advertised


def _sliced(labels: Mapping[str, Any]) -> bool:
    """Whether what is advertised as GPUs are MIG instances."""
    return text(labels, MIG_STRATEGY) == "single" and MIG_MARK in text(labels, GPU_PRODUCT)


def _instances(labels: Mapping[str, Any], allocatable: Mapping[str, Any]) -> Iterator[GpuPart]:
    """MIG instances by profile, where each is one pod's alone. Under strategy `single` they go by the name of whole
    GPUs, and only the product tells their profile: all GPUs of the node are cut alike."""
    if _sliced(labels) and text(labels, GPU_SHARING) in {"", "none"} and whole(labels, GPU_REPLICAS) <= 1:
        profile = profile_of(MIG_RESOURCE_PREFIX + text(labels, GPU_PRODUCT).rpartition(MIG_MARK)[2])
        count = whole(allocatable, GPU_RESOURCE)
        if profile is not None and count:
            yield GpuPart(profile, GPU_RESOURCE, count)
    for resource, count in parts_in(allocatable):
        profile = profile_of(resource)
        if profile is not None and whole(labels, resource + MIG_REPLICAS_SUFFIX) <= 1:
            yield GpuPart(profile, resource, count)


def _replicas(labels: Mapping[str, Any], allocatable: Mapping[str, Any]) -> Iterator[GpuPart]:
    """Replicas of GPUs that several pods share, where the labels say how many."""
    replicas = whole(labels, GPU_REPLICAS)
    if replicas < REPLICAS_MIN or _sliced(labels):
        return
    renamed = whole(allocatable, GPU_SHARED_RESOURCE)
    count = renamed or whole(allocatable, GPU_RESOURCE)
    if count:
        yield GpuPart(shared_kind(replicas), GPU_SHARED_RESOURCE if renamed else GPU_RESOURCE, count)


def _taints(obj: KubeObject) -> list[Taint]:
    """What keeps pods away, in order."""
    found = {Taint(text(one, "key"), text(one, "value"), text(one, "effect")) for one in items(obj, "spec", "taints")}
    return sorted(taint for taint in found if taint.effect in KEEPS_AWAY)


def _chosen_labels(labels: Mapping[str, Any], config: AgentConfig) -> tuple[tuple[str, str], ...]:
    """Those by which pods may choose, without the ones that a row says anyway."""
    chosen = sorted(
        (key, value)
        for key, value in labels.items()
        if key not in PLACE_LABELS
        and (key in config.node_labels or key.startswith(NODE_LABEL_PREFIX))
        and isinstance(value, str)
    )
    return tuple(chosen[:NODE_LABELS_MAX])


class Inventory:
    """Nodes with their free amounts."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        guarded = config.fence_strength is FenceStrength.GUARD
        self._guards = GuardsHeard(config.timings.ttl_s) if guarded else None
        self._gpus = GpusHeard()
        self._nodes: dict[str, NodeFacts] = {}
        self._versions: dict[str, int] = {}
        self._beyond: set[str] = set()  # nodes above the limit: there, so not dead, but nothing is placed on them
        self._foreign: dict[str, Amounts] = {}
        self._foreign_pods = Counter[str]()
        self._held: dict[str, Amounts] = {}
        self._table = NodeTable.build(())
        self._places: tuple[NodeTable, NodeTable] | None = None
        self._stale: set[str] = set()  # rows to rebuild in the table
        self._unreported: set[str] = set()

    # --- nodes --------------------------------------------------------------------------------------------------------

    def put_node(self, obj: KubeObject) -> bool:
        """Take in a Node object; True when it changed what we know. Nodes above the limit are left out."""
        facts, seen = node_facts(obj, self._config), version(obj)
        if seen < self._versions.get(facts.name, 0):
            return False
        if facts.name not in self._nodes and len(self._nodes) >= NODES_PER_CLUSTER_MAX:
            self._beyond.add(facts.name)
            return False
        if facts.name not in self._nodes and self._guards is not None:
            self._guards.appeared(facts.name)
        self._beyond.discard(facts.name)
        self._versions[facts.name] = seen
        if self._nodes.get(facts.name) == facts:
            return False
        self._nodes[facts.name] = facts
        self._touch(facts.name)
        return True

    def drop_node(self, name: str) -> bool:
        """The Node object is gone."""
        self._versions.pop(name, None)
        was_beyond = name in self._beyond
        self._beyond.discard(name)
        if self._nodes.pop(name, None) is None:
            return was_beyond
        if self._guards is not None:
            self._guards.gone(name)
        self._gpus.gone(name)
        self._touch(name)
        return True

    def nodes(self) -> list[str]:
        """All that are there, those above the limit as well."""
        return sorted(self._nodes.keys() | self._beyond)

    def proven_dead(self, node: str) -> bool:
        """Its object is gone or its operator declared it out of service. Not ready or unreachable is no proof."""
        facts = self._nodes.get(node)
        return node not in self._beyond if facts is None else facts.dead

    def ready(self, node: str) -> bool:
        facts = self._nodes.get(node)
        return facts is not None and facts.ready

    # --- guards -------------------------------------------------------------------------------------------------------

    def guard_heard(self, node: str, now_s: float) -> bool:
        """The node's guard has asked; True when it may have new pods again."""
        if self._guards is None or not self._guards.heard(node, now_s):
            return False
        self._touch(node)
        return True

    def begin_to_hear_guards(self, now_s: float) -> None:
        """This process acts from now on, so that it is the one they ask."""
        if self._guards is not None:
            self._touch_all(self._guards.begin(now_s))

    def pass_time(self, now_s: float) -> bool:
        """True when a node takes no new pods any more, since its guard is silent, or its readings ceased to count."""
        changed = self._guards.pass_time(now_s) if self._guards is not None else []
        changed += self._gpus.pass_time(now_s)
        self._touch_all(changed)
        return bool(changed)

    @property
    def guards_due_s(self) -> float:
        """When `pass_time` is due."""
        return min(self._gpus.due_s, NEVER if self._guards is None else self._guards.due_s)

    # --- what guards read of GPUs -------------------------------------------------------------------------------------

    def gpus_read(self, node: str, gpus: tuple[Gpu, ...], now_s: float) -> bool:
        """The node's guard has told of its GPUs; True when that is news. What no node is called is nobody's."""
        if node not in self._nodes or not self._gpus.heard(node, reading_of(gpus), now_s):
            return False
        self._touch(node)
        return True

    def gpu_notes(self, node: str, now_s: float) -> list[Note]:
        """What the log should say of this news."""
        facts = self._nodes[node]
        return self._gpus.notes(node, now_s, product=facts.product, memory_mib=facts.gpu_memory_mib)

    def gpus_unhealthy(self, node: str) -> int:
        """How many of its GPUs, by its kubelet or by its guard, are not counted in its row; no more than any node has,
        whatever its object says: servers refuse a report that tells of more."""
        facts = self._nodes.get(node)
        return 0 if facts is None else min(GPUS_PER_NODE_MAX, facts.gpus_had - self._usable(facts)[0])

    def _usable(self, facts: NodeFacts) -> tuple[int, tuple[GpuPart, ...]]:
        """The GPUs and the parts of them that can be used: by the lower of what kubelet and guard say, each by itself.
        A device that both have given up is missed once; of two that they do not agree on, once as well."""
        gpus, parts = facts.allocatable.gpus, facts.parts
        healthy = self._gpus.healthy(facts.name)
        if healthy is None:
            return gpus, parts
        left = healthy.gpus(cut_too=not facts.by_instances)
        bounded: list[GpuPart] = []
        for one in parts:
            replicas = replicas_of(one.kind)
            most = left * replicas if replicas is not None else healthy.of(one.kind, one.amount)
            bounded.append(one._replace(amount=min(one.amount, most)))
        return min(gpus, left), tuple(bounded)

    def _touch_all(self, nodes: Iterable[str]) -> None:
        for node in nodes:
            self._touch(node)

    # --- use ----------------------------------------------------------------------------------------------------------

    def pod_changed(self, change: PodChange) -> None:
        """Count what a pod that is not ours uses. Ours count by what their gang holds."""
        if change.before is not None and change.before.uses and not change.before.token:
            self._use(self._foreign, change.before.node, NOTHING.minus(change.before.amounts))
            self._foreign_pods[change.before.node] -= 1
        if change.after is not None and change.after.uses and not change.after.token:
            self._use(self._foreign, change.after.node, change.after.amounts)
            self._foreign_pods[change.after.node] += 1

    def hold(self, holdings: Mapping[str, Amounts]) -> None:
        """A gang was given these amounts, by node."""
        for node, amounts in holdings.items():
            self._use(self._held, node, amounts)

    def release(self, holdings: Mapping[str, Amounts]) -> None:
        """What `hold` took; AssertionError when more is given back than was held."""
        for node, amounts in holdings.items():
            self._use(self._held, node, NOTHING.minus(amounts))
            assert self._held.get(node, NOTHING).least >= 0, "more was given back than was held"

    def pods_left(self, node: str) -> int:
        """How many more pods the node takes, whatever they ask for."""
        facts = self._nodes.get(node)
        if facts is None:
            return 0
        held = self._held.get(node, NOTHING).of(POD_PLACE)
        return max(0, facts.pods_max - self._foreign_pods[node] - held)

    def overdrawn(self, node: str) -> Amounts:
        """What is missing on the node for all that is held and used there."""
        facts = self._nodes.get(node)
        has = NOTHING if facts is None else facts.allocatable
        used = self._foreign.get(node, NOTHING).plus(self._held.get(node, NOTHING))
        return used._replace(devices=()).beyond(has._replace(devices=()))

    def held(self) -> dict[str, Amounts]:
        """What gangs hold, by node."""
        return dict(self._held)

    def _use(self, used: dict[str, Amounts], node: str, amounts: Amounts) -> None:
        total = used.get(node, NOTHING).plus(amounts)
        if total == NOTHING:
            used.pop(node, None)
        else:
            used[node] = total
        self._touch(node)

    def _touch(self, node: str) -> None:
        self._stale.add(node)
        self._unreported.add(node)

    # --- rows ---------------------------------------------------------------------------------------------------------

    def row(self, name: str) -> NodeRow | None:
        """The node's row, free amounts cut at 0: allocatable may shrink below what is in use."""
        facts = self._nodes.get(name)
        if facts is None:
            return None
        used = self._foreign.get(name, NOTHING).plus(self._held.get(name, NOTHING))
        cpu, memory, _, _ = facts.allocatable
        gpus, parts = self._usable(facts)
        return NodeRow(
            name=name,
            product=facts.product,
            gpus_total=gpus,
            gpus_free=0 if facts.shared else max(0, gpus - used.gpus),
            cpu_milli_total=cpu,
            cpu_milli_free=max(0, cpu - used.cpu_milli),
            memory_mib_total=memory,
            memory_mib_free=max(0, memory - used.memory_mib),
            clique=facts.clique,
            rack=facts.rack,
            block=facts.block,
            zone=facts.zone,
            usable=facts.usable and not (self._guards is not None and self._guards.silent(name)),
            labels=facts.labels,
            taints=facts.taints,
            devices=tuple((one.kind, one.amount, max(0, one.amount - used.of(one.resource))) for one in parts),
        )

    def resource_of(self, node: str, kind: str) -> str:
        """How a pod on this node asks for a part of a GPU of this kind. KeyError where the node has none."""
        return {one.kind: one.resource for one in self._nodes[node].parts}[kind]

    def table(self) -> NodeTable:
        """The rows as `assign` reads them; treat it as read-only."""
        if self._stale:
            rows, gone = self._rows_of(self._stale)
            self._table = self._table.with_changes(rows, gone)
            self._stale.clear()
        return self._table

    def table_of_places(self) -> NodeTable:
        """The table, in which every place for a pod is one of a kind of devices; built where `table` has changed."""
        table = self.table()
        if self._places is None or self._places[0] is not table:
            places = ((row, self.pods_left(row.name)) for row in table.rows())
            built = (row._replace(devices=(*row.devices, (POD_PLACE, left, left))) for row, left in places)
            self._places = table, NodeTable.build(built)
        return self._places[1]

    @property
    def unreported(self) -> bool:
        return bool(self._unreported)

    def take_changes(self) -> tuple[list[NodeRow], list[str]]:
        """Rows changed, and nodes gone, since this or `take_all` was last called."""
        rows, gone = self._rows_of(self._unreported)
        self._unreported.clear()
        return rows, gone

    def take_all(self) -> list[NodeRow]:
        """All rows by name; nothing is unreported afterwards."""
        self._unreported.clear()
        return self._rows_of(self._nodes)[0]

    def _rows_of(self, names: Iterable[str]) -> tuple[list[NodeRow], list[str]]:
        rows, gone = [], []
        for name in sorted(names):
            row = self.row(name)
            if row is None:
                gone.append(name)
            else:
                rows.append(row)
        return rows, gone

    def check_invariants(self) -> None:
        """AssertionError unless holdings are positive and rows are within bounds."""
        for node in sorted(self._held):
            assert self._held[node].least >= 0, f"holdings on {node} are negative"
        for node in sorted(self._foreign):
            assert self._foreign[node].least >= 0, f"foreign use of {node} is negative"
        self.table().check_invariants()
