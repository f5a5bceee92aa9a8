"""What does not change about a cluster's nodes while pods come and go: names, products, and who shares a domain.

Tables of the same cluster share one layout, so that a report of free amounts costs no new sorting. Free amounts do not
belong here (see `placement.fleet`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from placement.model import Level, NodeName, NodeRule, Taint
from placement.node_rules import ABSENT, suitable

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

IN_NO_DOMAIN = 0  # code of nodes without the label; real domains count from 1
CACHED_PRODUCT_LISTS_MAX = 256  # people write few different lists; beyond that recomputing is cheaper than keeping
CACHED_LABELS_MAX: Final = 64  # labels that pods choose nodes by

NodeRules = tuple[NodeRule, ...]
"""All of them hold; none means that nothing is asked for and no taint is tolerated."""

NodeFilter = tuple[tuple[str, ...], NodeRules]
"""Accepted products (any if empty), and the rules that a node must satisfy."""

ANYWHERE = ""  # the level that asks for nothing: all nodes are one domain

# Node labels that mean the same as a named level. Any other label key is unknown to the reports.
LEVEL_BY_LABEL: Mapping[str, str] = {
    "kubernetes.io/hostname": Level.HOST.value,
    "nvidia.com/gpu.clique": Level.CLIQUE.value,
    "topology.kubernetes.io/zone": Level.ZONE.value,
}
KNOWN_LEVELS = frozenset({ANYWHERE, *(level.value for level in Level)})

# From the narrowest to the widest: who prefers one and cannot have it is better off in the next than anywhere.
NARROW_TO_WIDE = tuple(level.value for level in Level)


def wider_levels(level: str) -> tuple[str, ...]:
    """The named levels wider than `level`, narrowest first; none for other label keys."""
    name = named_level(level)
    return NARROW_TO_WIDE[NARROW_TO_WIDE.index(name) + 1 :] if name in NARROW_TO_WIDE else ()


def levels_in_order(required: str, preferred: str) -> Iterator[tuple[str, str, bool]]:
    """(level, the level around it, whether the preference is met) in the order of trying.

    Who cannot have the preferred level is tried in the wider ones, up to the required one.
    """
    if preferred and preferred != required:
        if named_level(required) == Level.HOST:
            yield required, preferred, True
        else:
            yield preferred, required, True
            around = wider_levels(required) if required else ()
            for wider in wider_levels(preferred):
                if wider != named_level(required) and wider not in around:
                    yield wider, required, False
    yield required, "", bool(preferred) and preferred == required


def wider_than(level: str, other: str) -> bool:
    """Whether both are named levels and `level` is the wider one; of other label keys nobody knows."""
    return named_level(level) in wider_levels(other)


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
    labels: tuple[tuple[str, str], ...] = ()  # those that the cluster's agent reports, beside the above
    taints: tuple[Taint, ...] = ()  # that keep pods away, beside those that every pod of ours tolerates


# Labels that have a column of their own.
PLACE_LABELS: Mapping[str, str] = {
    "metadata.name": "name",  # Kubernetes' only field that an affinity may name
    "kubernetes.io/hostname": "name",
    "nvidia.com/gpu.product": "product",
    "nvidia.com/gpu.clique": "clique",
    "muster.io/rack": "rack",
    "muster.io/block": "block",
    "topology.kubernetes.io/zone": "zone",
}


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

    __slots__ = (
        "_codes",
        "_domains",
        "_masks",
        "_values",
        "kinds",
        "names",
        "places",
        "product_ids",
        "products",
        "row_by_name",
        "taint_lists",
    )

    def __init__(self, places: Sequence[NodePlace], kinds: Sequence[str] = ()) -> None:
        """`places` must be ordered and their names distinct: `NodeTable.build` sees to that. `kinds`: of the parts of
        GPUs that some node has or had, in order; see `placement.devices`."""
        self.places = tuple(places)
        self.kinds = tuple(kinds)
        self.names = tuple(place.name for place in places)
        self.row_by_name = {name: row for row, name in enumerate(self.names)}
        assert len(self.row_by_name) == len(self.names), "node names must differ"
        self.products, self.product_ids = _interned([place.product for place in places])
        self._codes: dict[str, Ints] = {}
        self.taint_lists: tuple[Sequence[tuple[Taint, ...]], Ints] = _numbered([place.taints for place in places])
        self._domains: dict[tuple[str, str], Domains] = {}
        self._masks: dict[NodeFilter, Bools] = {}
        self._values: dict[str, tuple[Sequence[str | None], Ints]] = {}

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

    def accepts(self, products: tuple[str, ...], rules: NodeRules = ()) -> Bools:
        """Which nodes are of one of `products` (any if none is named) and satisfy all `rules`; see `suitable`."""
        key = products, rules
        mask = self._masks.get(key)
        if mask is None:
            wanted = [number for number, product in enumerate(self.products) if product in products]
            mask = np.isin(self.product_ids, wanted) if products else np.ones(len(self), dtype=np.bool_)
            mask &= suitable(self, rules)
            mask.setflags(write=False)
            if len(self._masks) >= CACHED_PRODUCT_LISTS_MAX:
                self._masks.clear()
            self._masks[key] = mask
        return mask

    def label_values(self, key: str) -> tuple[Sequence[str | None], Ints]:
        """The different values of a label, ABSENT among them, and for each node which it has."""
        found = self._values.get(key)
        if found is None:
            if len(self._values) >= CACHED_LABELS_MAX:
                self._values.clear()
            found = self._values[key] = _numbered(self._labels(key))
        return found

    def _labels(self, key: str) -> list[str | None]:
        column = PLACE_LABELS.get(key)
        if column is not None:
            return [getattr(place, column) or ABSENT for place in self.places]
        by_list = {labels: dict(labels).get(key) for labels in {place.labels for place in self.places}}
        return [by_list[place.labels] for place in self.places]

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
            # A rack stands in one block, a block in one zone: racks of one name in two blocks are two racks.
            case Level.RACK:
                return _labelled([(place.zone, place.block, place.rack) for place in self.places])
            case Level.BLOCK:
                return _labelled([(place.zone, place.block) for place in self.places])
            case Level.ZONE:
                return _labelled([(place.zone,) for place in self.places])
            case _:
                raise AssertionError(f"unknown level {level!r}")


_Value = TypeVar("_Value", str | None, tuple[Taint, ...])


def _numbered(values: Sequence[_Value]) -> tuple[tuple[_Value, ...], Ints]:
    """The different values in the order of their first node, and for each node the number of its own."""
    number = {value: index for index, value in enumerate(dict.fromkeys(values))}
    return tuple(number), np.array([number[value] for value in values], dtype=np.int64)


def _interned(texts: Sequence[str]) -> tuple[tuple[str, ...], Ints]:
    """The distinct texts in order, and for each text its number among them."""
    known = tuple(sorted(set(texts)))
    number = {text: index for index, text in enumerate(known)}
    return known, np.array([number[text] for text in texts], dtype=np.int64)


def _labelled(labels: Sequence[tuple[str, ...]]) -> Ints:
    """Codes by label values, widest first; IN_NO_DOMAIN for nodes without the last of them."""
    known = sorted({label for label in labels if label[-1]})
    number = {label: index for index, label in enumerate(known, start=1)}
    return np.array([number.get(label, IN_NO_DOMAIN) for label in labels], dtype=np.int64)
