"""What does not change about a cluster's nodes while pods come and go: names, products, and who shares a domain.

Tables of the same cluster share one layout, so that a report of free amounts costs no new sorting. Free amounts do not
belong here (see `placement.fleet`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from placement.model import Level, NodeName

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

IN_NO_DOMAIN = 0  # code of nodes without the label; real domains count from 1
CACHED_PRODUCT_LISTS_MAX = 256  # people write few different lists; beyond that recomputing is cheaper than keeping

ANYWHERE = ""  # the level that asks for nothing: all nodes are one domain

# Node labels that mean the same as a named level. Any other label key is unknown to the reports.
LEVEL_BY_LABEL: Mapping[str, str] = {
    "kubernetes.io/hostname": Level.HOST.value,
    "nvidia.com/gpu.clique": Level.CLIQUE.value,
    "topology.kubernetes.io/zone": Level.ZONE.value,
}
KNOWN_LEVELS = frozenset({ANYWHERE, *(level.value for level in Level)})


def named_level(level: str) -> str:
    """The named level that `level` means, or `level` itself when it is some other label key."""
    return LEVEL_BY_LABEL.get(level, level)


class NodePlace(NamedTuple):
    """Where a node stands and what it is made of. Empty: it carries no such label."""

    name: NodeName
    product: str = ""
    clique: str = ""
    rack: str = ""
    block: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Domains:
    """Nodes grouped by one topology level: `codes[row]` is the domain of a node, IN_NO_DOMAIN if it is in none."""

    codes: Ints
    count: int  # codes run from 1 to count, in the order of the domains' names
    _rows: dict[int, Ints] = field(default_factory=dict)

    def rows(self, code: int) -> Ints:
        """Rows of the nodes of one domain, ascending."""
        found = self._rows.get(code)
        if found is None:
            found = self._rows[code] = np.flatnonzero(self.codes == code)
        return found

    def sums(self, amounts: Ints) -> Ints:
        """The sum of `amounts` per domain, indexed by code; nodes in no domain count nowhere."""
        sums = np.bincount(self.codes, weights=amounts, minlength=self.count + 1).astype(np.int64)
        sums[IN_NO_DOMAIN] = 0
        return sums


class NodeLayout:
    """Places of one cluster's nodes, ordered by (clique, name): the order of every column of its tables."""

    __slots__ = ("_codes", "_domains", "_masks", "names", "places", "product_ids", "products", "row_by_name")

    def __init__(self, places: Sequence[NodePlace]) -> None:
        """`places` must be ordered and their names distinct: `NodeTable.build` sees to that."""
        self.places = tuple(places)
        self.names = tuple(place.name for place in places)
        self.row_by_name = {name: row for row, name in enumerate(self.names)}
        assert len(self.row_by_name) == len(self.names), "node names must differ"
        self.products, self.product_ids = _interned([place.product for place in places])
        self._codes: dict[str, Ints] = {}
        self._domains: dict[tuple[str, str], Domains] = {}
        self._masks: dict[tuple[str, ...], Bools] = {}

    def __len__(self) -> int:
        return len(self.names)

    def domains(self, level: str, within: str = ANYWHERE) -> Domains | None:
        """Domains of `level`, cut along those of `within`; None when a level's label is not known here."""
        key = named_level(level), named_level(within)
        if not KNOWN_LEVELS.issuperset(key):
            return None
        if key not in self._domains:
            self._domains[key] = self._build_domains(*key)
        return self._domains[key]

    def accepts(self, products: tuple[str, ...]) -> Bools:
        """Which nodes are of one of `products`; all nodes when none is named."""
        mask = self._masks.get(products)
        if mask is None:
            wanted = [number for number, product in enumerate(self.products) if product in products]
            mask = np.isin(self.product_ids, wanted) if products else np.ones(len(self), dtype=np.bool_)
            mask.setflags(write=False)
            if len(self._masks) >= CACHED_PRODUCT_LISTS_MAX:
                self._masks.clear()
            self._masks[products] = mask
        return mask

    def _build_domains(self, level: str, within: str) -> Domains:
        inner, outer = self._codes_of(level), self._codes_of(within)
        inside = (inner != IN_NO_DOMAIN) & (outer != IN_NO_DOMAIN)
        known, codes = np.unique((outer * (len(self) + 1) + inner)[inside], return_inverse=True)
        joint = np.zeros(len(self), dtype=np.int64)
        joint[inside] = codes + 1
        joint.setflags(write=False)
        return Domains(joint, len(known))

    def _codes_of(self, level: str) -> Ints:
        if level not in self._codes:
            self._codes[level] = self._build_codes(level)
        return self._codes[level]

    def _build_codes(self, level: str) -> Ints:
        match level:
            case "":
                return np.ones(len(self), dtype=np.int64)
            case Level.HOST:
                return np.arange(1, len(self) + 1, dtype=np.int64)
            case Level.CLIQUE:
                # A node without the label has no NVLink beyond itself: it is a clique of its own.
                return _interned([place.clique or f"\0{place.name}" for place in self.places])[1] + 1
            case Level.RACK:
                return _labelled([place.rack for place in self.places])
            case Level.BLOCK:
                return _labelled([place.block for place in self.places])
            case Level.ZONE:
                return _labelled([place.zone for place in self.places])
            case _:
                raise AssertionError(f"unknown level {level!r}")


def _interned(texts: Sequence[str]) -> tuple[tuple[str, ...], Ints]:
    """The distinct texts in order, and for each text its number among them."""
    known = tuple(sorted(set(texts)))
    number = {text: index for index, text in enumerate(known)}
    return known, np.array([number[text] for text in texts], dtype=np.int64)


def _labelled(texts: Sequence[str]) -> Ints:
    """Codes by label value, IN_NO_DOMAIN for nodes without one."""
    known = sorted({text for text in texts if text})
    number = {text: index for index, text in enumerate(known, start=1)}
    return np.array([number.get(text, IN_NO_DOMAIN) for text in texts], dtype=np.int64)
