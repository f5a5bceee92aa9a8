"""Pods that fit on each node of one cluster, for all shapes asked for lately, kept up to date as nodes change.

Exactly what `fleet.pods_per_node` says on the nodes that accept the shape; remembered instead of computed per question.
Shapes with parts of GPUs are not: `placement.assign` is asked about those.
What all clusters together hold is `placement.memory`'s.
"""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from placement.fleet import KINDS_FROM, RESOURCES, NodeTable, Shape
from placement.layout import Bools, Ints, NodeFilter
from placement.model import PODS_PER_GROUP_MAX

Counts = npt.NDArray[np.uint16]  # pods on one node: at most PODS_PER_GROUP_MAX, which says "as many as any gang has"
Gains = npt.NDArray[np.int32]  # differences of those
Floats = npt.NDArray[np.float64]
Number = TypeVar("Number", bound=np.generic)

FIRST_ROOM: Final = 16  # shapes that arrays are made for at first; doubled when full


class ShapeIndex:
    """Numbers for shapes and for filters of nodes, shared by all clusters of one memory."""

    __slots__ = ("inverse", "list_of", "lists", "shapes")

    def __init__(self) -> None:
        self.shapes: dict[Shape, int] = {}
        self.lists: dict[NodeFilter, int] = {}
        self.inverse: Floats = np.zeros((len(RESOURCES), FIRST_ROOM))
        self.list_of: Ints = np.zeros(FIRST_ROOM, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.shapes)

    def add(self, shape: Shape) -> int:
        """The number of a shape that has none yet; its filter of nodes must have one."""
        number = self.shapes[shape] = len(self.shapes)
        if number == len(self.list_of):
            self.inverse = np.concatenate((self.inverse, np.zeros_like(self.inverse)), axis=1)
            self.list_of = np.concatenate((self.list_of, np.zeros_like(self.list_of)))
        self.inverse[:, number] = [_inverse(asked) for asked in shape[:3]]
        self.list_of[number] = self.lists[shape.nodes]
        return number


def _inverse(asked: int) -> float:
    """What to multiply by instead of dividing; an amount that is not asked for never limits."""
    return 1.0 / asked if asked else 2.0 * PODS_PER_GROUP_MAX


def _pods(amounts: Ints, inverse: Floats) -> Counts:
    """Pods per (shape, node) by the amounts alone.

    Equivalent to the least of `amount // asked`, cut at PODS_PER_GROUP_MAX: with the half added, multiplication by the
    inverse is exact for amounts below 2 ** 50, and several times faster than dividing integers.
    """
    shifted = amounts + 0.5
    by_shape = inverse[:, :, None]
    found = by_shape[0] * shifted[0]
    for resource in RESOURCES[1:]:
        np.minimum(found, by_shape[resource] * shifted[resource], out=found)
    np.minimum(found, PODS_PER_GROUP_MAX, out=found)
    pods: Counts = found.astype(np.uint16)
    return pods


def _columns(nodes: Ints) -> slice | Ints:
    """Where some nodes, ascending, stand: as a slice if they are neighbours, which numpy follows far faster."""
    first, last = int(nodes[0]), int(nodes[-1])
    return slice(first, last + 1) if last - first < len(nodes) else nodes


def _at(columns: slice | Ints, array: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """These columns, to be read only: `take` is twice as fast as an index of integers."""
    return array[:, columns] if isinstance(columns, slice) else array.take(columns, axis=1)


class ClusterRows:
    """One cluster: an own copy of its free amounts, and the pods per node of every shape in the index.

    `free` changes by `take` and `sync` only; both return what changed, so that sums elsewhere can follow.
    """

    __slots__ = ("_index", "masks", "pods", "source", "source_version", "table")

    def __init__(self, table: NodeTable, index: ShapeIndex) -> None:
        self._index = index
        self.source = table
        self.source_version = table.version
        self.table = table.copy()
        self.masks: Bools = np.zeros((0, len(table)), dtype=np.bool_)
        self.pods: Counts = np.zeros((0, len(table)), dtype=np.uint16)
        for nodes in index.lists:
            self.add_list(nodes)
        self._make_room(len(index))
        if len(index):
            self.pods[: len(index)] = self._pods_at(self.table.free, self.masks)

    def add_list(self, nodes: NodeFilter) -> Bools:
        """Which nodes pass a filter that is new in the index."""
        mask = self.table.accepting(*nodes)
        self.masks = np.concatenate((self.masks, mask[None, :]))
        return mask

    def add_shape(self, number: int) -> int:
        """Rows for a shape that is new in the index; the pods that the cluster holds of it in all."""
        self._make_room(number + 1)
        found = _pods(self.table.free, self._index.inverse[:, number : number + 1])[0]
        row = self.pods[number]
        np.multiply(found, self.masks[self._index.list_of[number]], out=row)
        return int(row.sum(dtype=np.int64))

    def take(self, nodes: Ints, amounts: Ints) -> tuple[Gains, Ints]:
        """Subtract `amounts` (a row per resource) from `nodes`, ascending.

        How many pods more fit, per (shape, node), mostly below 0; and what was subtracted, per (list, resource).
        """
        columns = _columns(nodes)
        left = _at(columns, self.table.free).copy()
        left[: len(amounts)] -= amounts  # who asks for no parts of GPUs says nothing of them
        assert left.min() >= 0, "what was chosen is free"
        self.table.free[:, columns] = left
        self.source_version = -1  # no longer what the caller's table says
        return self._refresh(columns), _at(columns, self.masks) @ amounts[:KINDS_FROM].T

    def sync(self, table: NodeTable) -> tuple[Ints, Ints, Gains] | None:
        """Follow the caller's table of the same layout and totals: changed nodes, gained amounts and pods gained.

        None when there is nothing to do. Masks follow too: a node that stops being usable holds nothing any more.
        """
        if self.source is table and self.source_version == table.version:
            return None
        changed = (table.free != self.table.free).any(axis=0)
        if table.usable is not self.table.usable and (table.usable != self.table.usable).any():
            changed |= table.usable != self.table.usable
        nodes = np.flatnonzero(changed)
        self.source, self.source_version = table, table.version
        if not len(nodes):
            return None
        lists_gained = self._follow(table, nodes)
        return nodes, lists_gained, self._refresh(_columns(nodes))

    def _follow(self, table: NodeTable, nodes: Ints) -> Ints:
        """Take over the caller's amounts; the amounts gained per (list of products, resource)."""
        before, now = self.table.free.take(nodes, axis=1), table.free.take(nodes, axis=1)
        if table.usable is self.table.usable:
            self.table.free[:, nodes] = now
            lists_gained: Ints = self.masks.take(nodes, axis=1) @ (now - before)[:KINDS_FROM].T
            return lists_gained
        held_before = self.masks.take(nodes, axis=1) @ before[:KINDS_FROM].T
        self.table = table.copy()
        self.masks = np.array([self.table.accepting(*nodes) for nodes in self._index.lists], dtype=np.bool_)
        self.masks = self.masks.reshape(len(self._index.lists), len(table))
        lists_now: Ints = self.masks[:, nodes] @ self.table.free[:KINDS_FROM, nodes].T
        return lists_now - held_before

    def _refresh(self, columns: slice | Ints) -> Gains:
        """Work out anew what fits on some nodes."""
        now = self._pods_at(_at(columns, self.table.free), _at(columns, self.masks))
        rows = self.pods[: len(now)]
        gained: Gains = np.subtract(now, _at(columns, rows), dtype=np.int32)
        rows[:, columns] = now
        return gained

    def _pods_at(self, free: Ints, masks: Bools) -> Counts:
        shapes = len(self._index)
        now = _pods(free, self._index.inverse[:, :shapes])
        now *= masks.take(self._index.list_of[:shapes], axis=0)
        return now

    def _make_room(self, shapes: int) -> None:
        room = max(FIRST_ROOM, len(self.pods))
        while room < shapes:
            room *= 2
        if room > len(self.pods):
            larger = np.zeros((room, len(self.table)), dtype=np.uint16)
            larger[: len(self.pods)] = self.pods
            self.pods = larger
