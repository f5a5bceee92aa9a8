"""What changes about clusters only when their nodes do, looked up once: for the reasons of those that do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from placement.fleet import Shape, pods_per_node, shape_of
from placement.layout import KNOWN_LEVELS, Bools, Ints, NodeFilter, named_level
from placement.model import Reason
from placement.request_class import RequestClass
from placement.rows import ClusterRows

KEPT_MAX: Final = 4_096  # answers, each an integer per cluster

NEVER: Final = (
    Reason.NO_SUCH_PRODUCT,
    Reason.NO_SUITABLE_NODE,
    Reason.LARGER_THAN_CLUSTER,
    Reason.NO_DOMAIN_LARGE_ENOUGH,
)
POSSIBLE: Final = len(NEVER)


@dataclass(frozen=True, slots=True)
class Never:
    """Per cluster why a gang never fits: a place in NEVER, or POSSIBLE. `counts`: all those clusters, by reason."""

    codes: Ints
    where: Bools
    counts: tuple[tuple[Reason, int], ...]


def never_counted(codes: Ints) -> tuple[tuple[Reason, int], ...]:
    """How often each reason of NEVER is among `codes`, least grave reason first."""
    found = np.bincount(codes, minlength=len(NEVER)).tolist()
    counts = [(reason, count) for reason, count in zip(NEVER, found, strict=False) if count]
    return tuple(sorted(counts, key=lambda item: item[0].severity))


class Fixed:
    """Arrays run over the clusters of `rows`, which may be replaced in place: then `forget`."""

    __slots__ = ("_domains", "_never", "_pods", "_products", "_rows", "_suitable")

    def __init__(self, rows: Sequence[ClusterRows]) -> None:
        self._rows = rows
        self.forget()

    def forget(self) -> None:
        self._products: dict[tuple[str, ...], Bools] = {}
        self._suitable: dict[NodeFilter, Bools] = {}
        self._pods: dict[Shape, Ints] = {}
        self._domains: dict[str, Ints] = {}
        self._never: dict[RequestClass, Never] = {}

    def never(self, known: RequestClass) -> Never:
        """Where a gang of one role would not fit even if nothing ran there."""
        found = self._never.get(known)
        if found is None:
            if len(self._never) >= KEPT_MAX:
                self._never.clear()
            codes = self._look(known)
            found = self._never[known] = Never(codes, codes != POSSIBLE, never_counted(codes))
        return found

    def _look(self, known: RequestClass) -> Ints:
        """The questions of `refusal`, in the same order: the first that says no is the reason."""
        role = known.request.roles[0]
        level = named_level(known.request.level_required)
        found = np.full(len(self._rows), POSSIBLE, dtype=np.int64)
        if level in KNOWN_LEVELS:
            found[self.domains_count(level) == 0] = NEVER.index(Reason.NO_DOMAIN_LARGE_ENOUGH)
        else:
            found[:] = NEVER.index(Reason.NO_DOMAIN_LARGE_ENOUGH)
        found[self.pods_if_empty(shape_of(role)) < role.count] = NEVER.index(Reason.LARGER_THAN_CLUSTER)
        found[~self.has_suitable(shape_of(role).nodes)] = NEVER.index(Reason.NO_SUITABLE_NODE)
        if role.products:
            found[~self.has_product(role.products)] = NEVER.index(Reason.NO_SUCH_PRODUCT)
        return found

    def has_product(self, products: tuple[str, ...]) -> Bools:
        """Which clusters have nodes of one of `products`."""
        found = self._products.get(products)
        if found is None:
            wanted = set(products)
            has = [not wanted.isdisjoint(rows.table.layout.products) for rows in self._rows]
            found = self._products[products] = np.array(has, dtype=np.bool_)
        return found

    def has_suitable(self, nodes: NodeFilter) -> Bools:
        """Which clusters have nodes that pass the filter, usable or not, or have no nodes at all."""
        found = self._suitable.get(nodes)
        if found is None:
            if len(self._suitable) >= KEPT_MAX:
                self._suitable.clear()
            has = [not len(rows.table) or bool(rows.table.layout.accepts(*nodes).any()) for rows in self._rows]
            found = self._suitable[nodes] = np.array(has, dtype=np.bool_)
        return found

    def pods_if_empty(self, shape: Shape) -> Ints:
        """Pods of `shape` that each cluster would hold if nothing ran there and all nodes were usable."""
        found = self._pods.get(shape)
        if found is None:
            if len(self._pods) >= KEPT_MAX:
                self._pods.clear()
            held = [_if_empty(rows, shape) for rows in self._rows]
            found = self._pods[shape] = np.array(held, dtype=np.int64)
        return found

    def domains_count(self, level: str) -> Ints:
        """Domains of a known level in each cluster."""
        found = self._domains.get(level)
        if found is None:
            domains = [rows.table.layout.domains(level) for rows in self._rows]
            counts = [one.count if one is not None else 0 for one in domains]
            found = self._domains[level] = np.array(counts, dtype=np.int64)
        return found


def _if_empty(rows: ClusterRows, shape: Shape) -> int:
    table = rows.table
    return int((pods_per_node(table.total, shape, table.layout.kinds) * table.layout.accepts(*shape.nodes)).sum())
