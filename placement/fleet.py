"""What the engine knows of the fleet: per cluster a table of nodes with their free amounts, and the cluster's gates.

Amounts change here by `take` and `give` only, and are conserved: 0 <= free <= total on every node. Where a gang should
go does not belong here (see `placement.assign` and `placement.engine`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from placement.assignment import Assignment
from placement.devices import (
    DEVICES_PER_NODE_MAX,
    KINDS_PER_CLUSTER_MAX,
    Device,
    DeviceCount,
    Devices,
    suits,
    well_told,
)
from placement.layout import CACHED_PRODUCT_LISTS_MAX, Bools, Ints, NodeFilter, NodeLayout, NodePlace, NodeRules
from placement.model import (
    ANY_NODE,
    GROUPS_PER_CLUSTER_MAX,
    NODES_PER_CLUSTER_MAX,
    PODS_PER_GROUP_MAX,
    ClusterName,
    GangRequest,
    NodeName,
    RoleRequest,
    Taint,
)

# Rows of the amounts of a table, in the order of `Shape`. Behind them comes a row per kind of its layout.
RESOURCES = GPUS, CPU_MILLI, MEMORY_MIB = range(3)
KINDS_FROM = len(RESOURCES)

AMOUNT_MAX = 1 << 36  # of CPU or memory of one node; shares of sums over 5,000 nodes stay exact in 64 bits
GPUS_PER_NODE_MAX = 4_096  # far beyond any machine; what says more is a damaged report


class NodeRow(NamedTuple):
    """One node as reported. `gpus_*` count whole healthy GPUs; free amounts are what nobody holds."""

    name: str
    product: str = ""
    gpus_total: int = 0
    gpus_free: int = 0
    cpu_milli_total: int = 0
    cpu_milli_free: int = 0
    memory_mib_total: int = 0
    memory_mib_free: int = 0
    clique: str = ""
    rack: str = ""
    block: str = ""
    zone: str = ""
    usable: bool = True  # ready, schedulable, healthy: may take new pods that tolerate its taints
    labels: tuple[tuple[str, str], ...] = ()
    taints: tuple[Taint, ...] = ()
    devices: tuple[DeviceCount, ...] = ()  # parts of GPUs, which are none of the above: see `placement.devices`


class TooManyNodesError(ValueError):
    """A cluster reported more nodes than one cluster may have."""

    def __init__(self, nodes: int) -> None:
        super().__init__(f"{nodes} nodes reported, at most {NODES_PER_CLUSTER_MAX} are allowed per cluster")
        self.nodes = nodes


class UnknownNodeError(LookupError):
    """An assignment names a node that the table does not have."""

    def __init__(self, node: NodeName) -> None:
        super().__init__(f"node {node!r} is not in the table")
        self.node = node


class UnknownDeviceError(LookupError):
    """An assignment takes a part of a GPU from a node that has none of that kind."""

    def __init__(self, node: NodeName, asked: Device) -> None:
        super().__init__(f"node {node!r} has no {asked.counted}")
        self.node = node
        self.asked = asked


class NodeTable:
    """One cluster's nodes in columns ordered by (clique, name).

    `free` and `total` hold a row per resource (GPUS, CPU_MILLI, MEMORY_MIB, then the kinds of the layout) and a column
    per node. `clamped` names the nodes whose reported amounts were out of bounds and were cut to 0 <= free <= total.
    """

    __slots__ = ("_accepting", "clamped", "free", "layout", "total", "usable", "version")

    def __init__(
        self, layout: NodeLayout, free: Ints, total: Ints, usable: Bools, clamped: frozenset[NodeName] = frozenset()
    ) -> None:
        total.setflags(write=False)
        usable.setflags(write=False)
        self.layout = layout
        self.free = free
        self.total = total
        self.usable = usable
        self.clamped = clamped
        self.version = 0  # counts changes of `free`
        self._accepting: dict[NodeFilter, Bools] = {}

    @classmethod
    def build(cls, rows: Iterable[NodeRow]) -> NodeTable:
        """A table of `rows`, in any order; of rows with one name the last counts. TooManyNodesError above the limit."""
        by_name = {row.name: row for row in rows}
        if len(by_name) > NODES_PER_CLUSTER_MAX:
            raise TooManyNodesError(len(by_name))
        ordered = sorted(by_name.values(), key=lambda row: (row.clique, row.name))
        kinds = sorted({kind for row in ordered if row.devices for kind, _, _ in well_told(row.devices)})
        kinds = kinds[:KINDS_PER_CLUSTER_MAX]
        total, free = _columns(ordered, kinds)
        usable = np.array([row.usable for row in ordered], dtype=np.bool_)
        layout = NodeLayout([_place(row) for row in ordered], kinds)
        total_kept, free_kept, odd = _clamp(total, free)
        clamped = frozenset(layout.names[row] for row in np.flatnonzero(odd))
        return cls(layout, free_kept, total_kept, usable, clamped)

    def __len__(self) -> int:
        return len(self.layout)

    @property
    def names(self) -> tuple[NodeName, ...]:
        return self.layout.names

    @property
    def gpus_free(self) -> Ints:
        free: Ints = self.free[GPUS]
        return free

    @property
    def gpus_total(self) -> Ints:
        total: Ints = self.total[GPUS]
        return total

    def accepting(self, products: tuple[str, ...], rules: NodeRules = ()) -> Bools:
        """Which nodes are usable, of one of `products` (any product when none is named), and satisfy all `rules`."""
        key = products, rules
        mask = self._accepting.get(key)
        if mask is None:
            if len(self._accepting) >= CACHED_PRODUCT_LISTS_MAX:
                self._accepting.clear()
            mask = self._accepting[key] = self.usable & self.layout.accepts(products, rules)
        return mask

    def rows(self) -> Iterator[NodeRow]:
        """The nodes with their present amounts, in table order."""
        columns = zip(self.total.T.tolist(), self.free.T.tolist(), self.usable.tolist(), strict=True)
        for place, amounts in zip(self.layout.places, columns, strict=True):
            yield self._row(place, *amounts)

    def row_at(self, at: int) -> NodeRow:
        """One node with its present amounts."""
        total, free = self.total[:, at].tolist(), self.free[:, at].tolist()
        return self._row(self.layout.places[at], total, free, bool(self.usable[at]))

    def _row(self, place: NodePlace, total: list[int], free: list[int], usable: bool) -> NodeRow:  # noqa: FBT001 - a column
        amounts = (total[0], free[0], total[1], free[1], total[2], free[2])
        devices = tuple(
            one for one in zip(self.layout.kinds, total[KINDS_FROM:], free[KINDS_FROM:], strict=True) if one[1]
        )
        return NodeRow(place.name, place.product, *amounts, *place[2:6], usable, *place[6:], devices)

    def copy(self) -> NodeTable:
        """An equal table whose free amounts change independently. O(nodes), but small."""
        twin = NodeTable(self.layout, self.free.copy(), self.total, self.usable, self.clamped)
        twin._accepting = self._accepting
        return twin

    def with_changes(self, rows: Iterable[NodeRow], gone: Iterable[str] = ()) -> NodeTable:
        """A new table in which `rows` replace or join the present ones and `gone` have left; this one is unchanged.

        Cheap when only amounts and usability change; a new, moved or lost node rebuilds the layout.
        """
        changed = {row.name: row for row in rows}
        lost = set(gone) - changed.keys()
        at = None if any(name in self.layout.row_by_name for name in lost) else self._in_place(changed.values())
        if at is None:
            merged = {row.name: row for row in self.rows() if row.name not in lost} | changed
            rebuilt = NodeTable.build(merged.values())
            rebuilt.clamped |= self.clamped & merged.keys() - changed.keys()
            return rebuilt
        rows_changed = list(changed.values())
        usable = np.array([row.usable for row in rows_changed], dtype=np.bool_)
        return self._changed(np.array(at, dtype=np.int64), *_columns(rows_changed, self.layout.kinds), usable)

    def with_amounts(
        self, names: Sequence[str], places: Sequence[tuple[object, ...]], total: Ints, free: Ints, usable: Bools
    ) -> NodeTable | None:
        """`with_changes` of nodes that are told in columns, `places` with the fields of NodePlace. None where a node is
        new, moved or told twice, or where the table has parts of GPUs, of which these columns say nothing."""
        by_name, known = self.layout.row_by_name, self.layout.places
        at = [row for name in names if (row := by_name.get(NodeName(name))) is not None]
        if self.layout.kinds or len(set(at)) < len(names) or [known[row] for row in at] != places:
            return None
        return self._changed(np.array(at, dtype=np.int64), total, free, usable)

    def _in_place(self, changed: Iterable[NodeRow]) -> list[int] | None:
        """Where these nodes stand in the table; None if one is new, or stands elsewhere now."""
        by_name, places, kinds = self.layout.row_by_name, self.layout.places, self.layout.kinds
        found: list[int] = []
        for row in changed:
            at = by_name.get(NodeName(row.name))
            if at is None or places[at] != (row.name, row.product, *row[8:12], row.labels, row.taints):
                return None
            if row.devices and not all(one[0] in kinds for one in row.devices):
                return None
            found.append(at)
        return found

    def _changed(self, at: Ints, total_told: Ints, free_told: Ints, usable_told: Bools) -> NodeTable:
        """What has not changed is shared with this table, so that others see at a glance that it has not."""
        total_kept, free_kept, odd = _clamp(total_told, free_told)
        free = self.free.copy()
        free[:, at] = free_kept
        total, usable = self.total, self.usable
        if (total[:, at] != total_kept).any():
            total = total.copy()
            total[:, at] = total_kept
        if (usable[at] != usable_told).any():
            usable = usable.copy()
            usable[at] = usable_told
        table = NodeTable(self.layout, free, total, usable, self.clamped)
        if usable is self.usable:
            table._accepting = self._accepting
        if self.clamped or odd.any():
            table.clamped = self.clamped.difference(self.names[row] for row in at).union(
                self.names[row] for row in at[odd]
            )
        return table

    def take(self, assignment: Assignment) -> Callable[[], None]:
        """Subtracts what the assignment's pods ask for; the returned function undoes exactly that, once.

        AssertionError (and nothing taken) if a node has less free than asked: `assign` on the same table never does
        that. UnknownNodeError if a node is missing.
        """
        rows, amounts = self.amounts_of(assignment)
        self._add(rows, -amounts)
        if (self.free[:, rows] < 0).any():
            self._add(rows, amounts)
            raise AssertionError(f"assignment over-commits one of {', '.join(assignment.nodes)}")
        undone = False

        def undo() -> None:
            nonlocal undone
            assert not undone, "an assignment is given back once"
            undone = True
            self._give(rows, amounts)

        return undo

    def take_rows(self, rows: Ints, amounts: Ints) -> None:
        """Subtracts `amounts` (a row per resource; without those of kinds where none is taken) from distinct rows;
        AssertionError if one has less free."""
        left = self.free.take(rows, axis=1)
        left[: len(amounts)] -= amounts
        assert left.min(initial=0) >= 0, "nothing is taken that is not free"
        self.version += 1
        self.free[:, rows] = left

    def take_rows_if_free(self, rows: Ints, amounts: Ints) -> bool:
        """The same of what was taken on another state of the cluster; False, and nothing taken, if it does not fit."""
        left = self.free.take(rows, axis=1)
        left[: len(amounts)] -= amounts
        if left.min(initial=0) < 0 or not self.usable.take(rows).all():
            return False
        self.version += 1
        self.free[:, rows] = left
        return True

    def give(self, assignment: Assignment) -> None:
        """Adds back what the assignment's pods hold; AssertionError (and nothing given) above a node's total."""
        self._give(*self.amounts_of(assignment))

    def _give(self, rows: Ints, amounts: Ints) -> None:
        self._add(rows, amounts)
        if (self.free[:, rows] > self.total[:, rows]).any():
            self._add(rows, -amounts)
            raise AssertionError("more was given back than the nodes have")

    def _add(self, rows: Ints, amounts: Ints) -> None:
        self.version += 1
        for resource in range(len(amounts)):
            np.add.at(self.free[resource], rows, amounts[resource])  # a node may occur in several roles

    def amounts_of(self, assignment: Assignment) -> tuple[Ints, Ints]:
        """Rows of the assignment's parts, and what each takes: a row per resource. A node may occur more than once.

        UnknownNodeError, UnknownDeviceError where a node, or what is to be taken from it, is not in the table.
        """
        asked = {role.name: (role.gpus, role.cpu_milli, role.memory_mib) for role in assignment.request.roles}
        at = self.layout.row_by_name
        try:
            rows = np.array([at[part.node] for part in assignment.parts], dtype=np.int64)
        except KeyError as error:
            raise UnknownNodeError(error.args[0]) from None
        pods = np.array([part.pods for part in assignment.parts], dtype=np.int64)
        amounts = np.array([asked[part.role] for part in assignment.parts], dtype=np.int64).reshape(-1, KINDS_FROM)
        devices = {role.name: device for role in assignment.request.roles if (device := device_of(role)) is not None}
        found: Ints = amounts.T * pods
        if devices or self.layout.kinds:
            found = np.concatenate((found, np.zeros((len(self.layout.kinds), len(rows)), dtype=np.int64)))
        for number, part in enumerate(assignment.parts) if devices else ():
            device = devices.get(part.role)
            if device is not None:
                found[self._row_of(device, int(rows[number])), number] = part.pods
        return rows, found

    def kind_at(self, node: NodeName, device: Device) -> str:
        """Of which kind `device` would be on this node. UnknownNodeError, UnknownDeviceError."""
        at = self.layout.row_by_name.get(node)
        if at is None:
            raise UnknownNodeError(node)
        return self.layout.kinds[self._row_of(device, at) - KINDS_FROM]

    def _row_of(self, device: Device, at: int) -> int:
        for row in kind_rows(self.layout.kinds, device):
            if self.total[row, at]:
                return row
        raise UnknownDeviceError(self.names[at], device)

    def asked_of(self, shape: Shape, rows: Ints) -> Ints:
        """What one pod takes from each of these nodes, all of which hold one: a row per resource."""
        found: Ints = np.zeros((len(self.free), len(rows)), dtype=np.int64)
        found[:KINDS_FROM] = np.array(shape[:KINDS_FROM], dtype=np.int64)[:, None]
        for device, count in shape.devices:
            for row in kind_rows(self.layout.kinds, device):
                found[row] += count * (self.total[row, rows] > 0)
        return found

    def has(self, device: Device) -> Bools:
        """Which nodes have such parts of GPUs, held or not."""
        found: Bools = self.total[kind_rows(self.layout.kinds, device)].sum(axis=0) > 0
        return found

    def gained_room(self, before: NodeTable) -> bool:
        """Whether anything may fit here that did not fit in `before`, an earlier state of the same cluster."""
        return (
            self.layout is not before.layout
            or (self.usable is not before.usable and bool((self.usable & ~before.usable).any()))
            or bool((self.free > before.free).any())
            or (self.total is not before.total and bool((self.total > before.total).any()))
        )

    def check_invariants(self) -> None:
        """AssertionError unless amounts are conserved and the columns agree with the layout."""
        resources = KINDS_FROM + len(self.layout.kinds)
        assert self.free.shape == self.total.shape == (resources, len(self)), "columns must match the nodes"
        assert self.usable.shape == (len(self),), "usable must match the nodes"
        assert (self.free >= 0).all(), "free amounts are never negative"
        assert (self.free <= self.total).all(), "free never exceeds total"
        order = [(place.clique, place.name) for place in self.layout.places]
        assert order == sorted(order), "nodes are ordered by clique, then name"


def _place(row: NodeRow) -> NodePlace:
    return NodePlace(NodeName(row.name), row.product, *row[8:12], row.labels, row.taints)


def _columns(rows: Sequence[NodeRow], kinds: Sequence[str] = ()) -> tuple[Ints, Ints]:
    """Total and free amounts, a row per resource and a column per node."""
    try:
        amounts = np.array([row[2:8] for row in rows], dtype=np.int64)
    except OverflowError:  # a machine sent them, so anything may come
        amounts = np.array([[min(max(n, -1), AMOUNT_MAX + 1) for n in row[2:8]] for row in rows], dtype=np.int64)
    by_resource = amounts.reshape(-1, 6).T
    total, free = by_resource[0::2], by_resource[1::2]
    if not kinds:
        return total, free
    counted = np.zeros((2, len(kinds), len(rows)), dtype=np.int64)
    number = {kind: at for at, kind in enumerate(kinds)}
    for at, row in enumerate(rows):
        for kind, *count in well_told(row.devices) if row.devices else ():
            if kind in number:
                counted[:, number[kind], at] = [min(max(n, -1), DEVICES_PER_NODE_MAX + 1) for n in count]
    return np.concatenate((total, counted[0])), np.concatenate((free, counted[1]))


def by_row(rows: Ints, amounts: Ints) -> tuple[Ints, Ints]:
    """The same amounts, with each row once: several roles may take from one node."""
    distinct, places = np.unique(rows, return_inverse=True)
    if len(distinct) == len(rows):
        return rows, amounts
    summed: Ints = np.zeros((len(amounts), len(distinct)), dtype=np.int64)
    for resource in range(len(amounts)):
        np.add.at(summed[resource], places, amounts[resource])
    return distinct, summed


_AMOUNTS_MAX = np.array([[GPUS_PER_NODE_MAX], [AMOUNT_MAX], [AMOUNT_MAX]], dtype=np.int64)


def _clamp(total: Ints, free: Ints) -> tuple[Ints, Ints, Bools]:
    """Amounts cut to 0 <= free <= total <= what a node may have, and which nodes needed it."""
    most = _AMOUNTS_MAX
    if len(total) > KINDS_FROM:
        most = np.concatenate((most, np.full((len(total) - KINDS_FROM, 1), DEVICES_PER_NODE_MAX, dtype=np.int64)))
    total_kept = np.minimum(np.maximum(total, 0), most)
    free_kept = np.minimum(np.maximum(free, 0), total_kept)
    return total_kept, free_kept, ((total_kept != total) | (free_kept != free)).any(axis=0)


class Shape(NamedTuple):
    """What one pod asks for: all that decides on which nodes it fits."""

    gpus: int
    cpu_milli: int
    memory_mib: int
    products: tuple[str, ...]
    rules: NodeRules = ()
    devices: Devices = ()
    apart: tuple[str, int] | None = None  # of this role so many at most on one host

    @property
    def nodes(self) -> NodeFilter:
        """Which nodes it may stand on, whatever they have free."""
        return self.products, self.rules

    @property
    def demand(self) -> tuple[bool, int, list[tuple[str, int]], int, int, NodeFilter]:
        """Who sorts first takes nodes first: pods bound to some nodes (by what they are, or by parts of GPUs), since
        others must not take the few they can use; then the largest, of shares too."""
        bound = bool(self.products or self.devices) or any(rule.terms for rule in self.rules)
        devices = [(device.profile, -device.milli) for device, _ in self.devices]
        return not bound, -self.gpus, devices, -self.cpu_milli, -self.memory_mib, self.nodes


def shape_of(role: RoleRequest) -> Shape:
    device = device_of(role)
    devices = ((device, 1),) if device is not None else ()
    apart = (role.name, role.per_host) if role.per_host else None
    return Shape(role.gpus, role.cpu_milli, role.memory_mib, role.products, rules_of(role), devices, apart)


def device_of(role: RoleRequest) -> Device | None:
    """The part of a GPU that each pod of the role asks for."""
    if not (role.gpu_milli or role.mig_profile):
        return None
    return Device(role.mig_profile, 0 if role.mig_profile else role.gpu_milli)


def kind_rows(kinds: Sequence[str], device: Device) -> list[int]:
    """The rows of a table with these kinds from which `device` may be taken. A node has amounts in one of them."""
    return [KINDS_FROM + number for number, kind in enumerate(kinds) if suits(kind, device)]


def rules_of(role: RoleRequest) -> NodeRules:
    return (role.nodes,) if role.nodes != ANY_NODE else ()


def pods_per_node(amounts: Ints, shape: Shape, kinds: Sequence[str] = ()) -> Ints:
    """How many pods of `shape` each node holds by itself, by its amounts; PODS_PER_GROUP_MAX if it asks for nothing.

    `kinds`: those of the table's layout. None holds a pod that asks for others. Of a role whose pods stand apart no
    node holds more than it may: ask once for all of them, since amounts do not say how many stand there already.
    """
    fit: Ints | None = None
    for row in RESOURCES:
        if shape[row]:
            held = amounts[row] // shape[row]
            fit = held if fit is None else np.minimum(fit, held, out=fit)
    for device, count in shape.devices:
        held = amounts[kind_rows(kinds, device)].sum(axis=0) // count
        fit = held if fit is None else np.minimum(fit, held, out=fit)
    if fit is None:
        fit = np.full(amounts.shape[1], PODS_PER_GROUP_MAX, dtype=np.int64)
    return fit if shape.apart is None else np.minimum(fit, shape.apart[1], out=fit)


@dataclass(frozen=True, slots=True)
class ClusterView:
    """One cluster as the placer sees it now. Gates are plain values: who sets them has the clocks."""

    name: ClusterName
    table: NodeTable
    labels: Mapping[str, str] = field(default_factory=dict)
    lease_class: str = "default"
    admitted: bool = True
    cordoned: bool = False
    silent: bool = False
    fenced: bool = False
    stale: bool = False  # the view is too old to place on; `view_age_s` says how old
    view_age_s: float = 0.0
    tripped: bool = False  # most groups failed there; `tried_in_s`: until the next one is placed to see
    tried_in_s: float = 0.0
    half_open: bool = False  # the same, and one is placed now
    groups_left: int = GROUPS_PER_CLUSTER_MAX  # how many more groups may have their home there
    refused_lately: frozenset[GangRequest] = frozenset()  # its agent refused equal requests a moment ago


class Fleet(Mapping[ClusterName, ClusterView]):
    """Cluster views by name, iterated in the order of names."""

    __slots__ = ("_views",)

    def __init__(self, views: Iterable[ClusterView] = ()) -> None:
        self._views = {view.name: view for view in sorted(views, key=lambda view: view.name)}

    def __getitem__(self, name: ClusterName) -> ClusterView:
        return self._views[name]

    def __iter__(self) -> Iterator[ClusterName]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def check_invariants(self) -> None:
        """AssertionError unless every table's amounts are conserved."""
        for view in self._views.values():
            view.table.check_invariants()
