"""Nodes as reports tell them, in columns: as the engine's rows, and straight into a table that knows the nodes.

Which reports count is `views`'.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import or_
from typing import Final, NamedTuple

import numpy as np

from federation.protocol.messages import NodeKinds, NodeRows
from placement.fleet import NodeRow, NodeTable
from placement.model import Taint

NO_KINDS: Final = NodeKinds()

Told = tuple[NodeRows, NodeKinds]


class _Columns(NamedTuple):
    """What a checked report says of nodes. What it leaves out is zero, empty, usable."""

    places: tuple[Sequence[object], ...]  # a column per field of NodePlace
    amounts: tuple[Sequence[int], ...]  # a column per amount of NodeRow, but for parts of GPUs
    usable: Sequence[bool]


def _columns_of(columns: NodeRows, kinds: NodeKinds) -> _Columns:
    count = len(columns.name)
    texts = (columns.product, columns.clique, columns.rack, columns.block, columns.zone)
    amounts = (
        columns.gpus,
        columns.gpus_free,
        columns.cpu_milli_total,
        columns.cpu_milli,
        columns.memory_mib_total,
        columns.memory_mib,
    )
    usable: Sequence[bool] = columns.usable or (True,) * count
    if kinds.tainted:
        usable = tuple(map(or_, usable, kinds.tainted))
    known = [(kind.labels, tuple(Taint(*one) for one in kind.taints)) for kind in kinds.kinds]
    labels, taints = zip(*(known[at] for at in kinds.at), strict=True) if kinds.at else (((),) * count,) * 2
    filled = tuple(column or ("",) * count for column in texts)
    return _Columns(
        (columns.name, *filled, labels, taints), tuple(column or (0,) * count for column in amounts), usable
    )


def node_rows(columns: NodeRows, kinds: NodeKinds = NO_KINDS) -> Iterator[NodeRow]:
    """The rows of a checked report."""
    (name, product, *texts, labels, taints), amounts, usable = _columns_of(columns, kinds)
    parts = [tuple((kinds.devices[at], *count) for at, *count in one) for one in kinds.devices_at]
    filled = (name, product, *amounts, *texts, usable, labels, taints, parts or ((),) * len(name))
    return map(NodeRow._make, zip(*filled, strict=True))  # columns are in field order


def merged(table: NodeTable, told: Sequence[Told]) -> NodeTable:
    """The table after these deltas, oldest first."""
    found = _in_place(table, told)
    return found if found is not None else _row_by_row(table, told)


def _row_by_row(table: NodeTable, told: Sequence[Told]) -> NodeTable:
    changed: dict[str, NodeRow] = {}
    gone: set[str] = set()
    for columns, kinds in told:
        for name in columns.gone:
            changed.pop(name, None)
            gone.add(name)
        changed.update((row.name, row) for row in node_rows(columns, kinds))
    return table.with_changes(changed.values(), gone - changed.keys())


def _in_place(table: NodeTable, told: Sequence[Told]) -> NodeTable | None:
    """Equivalent to `_row_by_row` where only amounts and usability of known nodes change, as in most deltas, and
    several times faster; None elsewhere."""
    found: NodeTable | None = table
    for columns, kinds in told:
        if found is None or columns.gone or kinds.devices_at:
            return None
        places, amounts, usable = _columns_of(columns, kinds)
        by_resource = np.array(amounts, dtype=np.int64)
        total, free, may = by_resource[0::2], by_resource[1::2], np.array(usable, dtype=np.bool_)
        found = found.with_amounts(columns.name, list(zip(*places, strict=True)), total, free, may)
    return found
