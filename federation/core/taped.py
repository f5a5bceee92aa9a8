"""What stands on the tape: the fleet as the engine saw it, cycle by cycle, in changes since the cycle before.

A reel is a list of items: nodes that are told whole, nodes that changed, and after them the cycle that saw them so.
Fields are only ever added, with defaults (golden file under `tests/golden/tape`). Who writes them is `tape`'s, who runs
the cycles again `replay`'s.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import Final

import msgspec
import numpy as np

from placement.assignment import Part
from placement.fleet import KINDS_FROM, RESOURCES, ClusterView
from placement.layout import Bools, Ints, NodeLayout, NodePlace
from placement.node_order import LearntFacts
from placement.score import Policy
from placement.worth import NodePolicy
from storage.blob import BlobCreate, BlobEvent, BlobFailed, BlobStore, OpId, perform
from storage.errors import LimitError
from storage.tape import ReelName, encode_reel

NODES_PER_ITEM_MAX: Final = 500  # of a few hundred bytes with their labels: reels are cut between items


class Gate(IntFlag):
    """What kept groups out of a cluster, or let them in, beside its labels and cordon, which the journal knows."""

    SEEN = 1  # it was part of the fleet: the batch changed nothing about it
    ADMITTED = 2
    SILENT = 4
    FENCED = 8
    STALE = 16
    TRIPPED = 32
    HALF_OPEN = 64


def gate_of(view: ClusterView) -> int:
    """The gates of a cluster that was seen, as a number: this runs for each cluster in each cycle."""
    gates = 1 + 2 * view.admitted + 4 * view.silent + 8 * view.fenced + 16 * view.stale
    return gates + 32 * view.tripped + 64 * view.half_open


# --- as stored -------------------------------------------------------------------------------------------------------


class Item(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", omit_defaults=True):
    """What all items carry: nothing yet."""


class Nodes(Item, frozen=True, kw_only=True, tag="Nodes"):
    """All nodes of a cluster, in the order of its table; `more` of them follow in the next item.

    Places are the engine's own, so that whatever it knows of a node is here. `usable` empty: all are.
    """

    cluster: str
    places: tuple[NodePlace, ...]
    gpus_free: tuple[int, ...]
    cpu_milli: tuple[int, ...]
    memory_mib: tuple[int, ...]
    gpus: tuple[int, ...]
    cpu_milli_total: tuple[int, ...]
    memory_mib_total: tuple[int, ...]
    usable: tuple[bool, ...] = ()
    more: bool = False
    kinds: tuple[str, ...] = ()  # of parts of GPUs, each with a column below
    devices_free: tuple[tuple[int, ...], ...] = ()
    devices: tuple[tuple[int, ...], ...] = ()


class Changes(Item, frozen=True, kw_only=True, tag="Changes"):
    """Nodes, by their place in the table, that have other amounts free now; or other totals, or may (not) be used.

    Empty totals and `usable`: as before.
    """

    cluster: str
    nodes: tuple[int, ...]
    gpus_free: tuple[int, ...]
    cpu_milli: tuple[int, ...]
    memory_mib: tuple[int, ...]
    gpus: tuple[int, ...] = ()
    cpu_milli_total: tuple[int, ...] = ()
    memory_mib_total: tuple[int, ...] = ()
    usable: tuple[bool, ...] = ()
    devices_free: tuple[tuple[int, ...], ...] = ()
    devices: tuple[tuple[int, ...], ...] = ()


class Base(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a cycle stands on beside fleet and journal: with it, replay can begin here."""

    policy: Policy
    node_policy: NodePolicy
    learnt: LearntFacts
    pass_open: bool = False
    pass_gains: int = -1
    pass_blocked: tuple[tuple[str, bool], ...] = ()
    missed: int = 0  # cycles since the last one on tape: there was no room for them, or they were lost


class Cycle(Item, frozen=True, kw_only=True, tag="Cycle"):
    """One cycle of the engine, with what it was given that is not in the journal.

    `gates`, `avoid` and `avoid_but` hold what changed since the cycle before; a group that avoids nothing any more
    avoids (). One that avoids most clusters of a large fleet is told by those that it may go to.
    """

    head: int  # position of the state
    at_ms: int
    now_s: float
    budget: int
    gains: int
    places_max: int
    moves_max: int
    decisions: int = 0
    evaluations: int = 0
    nodes_crc: int = 0  # over the nodes of all decisions
    held: tuple[str, ...] = ()  # groups passed over, since the batch changed them already
    not_taken: tuple[str, ...] = ()  # decisions for which the batch had no room
    gates: dict[str, tuple[int, float]] = {}  # `Gate`, and the age of the report where it is stale
    avoid: dict[str, tuple[str, ...]] = {}
    views: dict[str, tuple[int, int, str]] = {}  # of chosen clusters: boot and seq of the report, fence strength
    base: Base | None = None
    avoid_but: dict[str, tuple[str, ...]] = {}  # all that the state has but these


AnyItem = Nodes | Changes | Cycle

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[list[AnyItem]] = msgspec.msgpack.Decoder(list[AnyItem])


class UnreadableReelError(ValueError):
    """A reel's payload is not a list of items."""


def encode_items(items: Sequence[AnyItem]) -> bytes:
    return _encoder.encode(items)


def decode_items(data: bytes) -> list[AnyItem]:
    """The items of one reel; UnreadableReelError otherwise."""
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise UnreadableReelError(str(error)) from error


def crc_of(places: Iterable[tuple[str, tuple[Part, ...]]]) -> int:
    """A check over the nodes of a cycle's decisions, in their order; 0 for none."""
    crc = 0
    for place in places:
        crc = zlib.crc32(_encoder.encode(place), crc)
    return crc


# --- on the way to the store: arrays; text only when it is written ---------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class FreshNodes:
    """Nodes `first` to `last` of a cluster that is told whole. The arrays are never changed again."""

    cluster: str
    layout: NodeLayout
    free: Ints
    total: Ints
    usable: Bools
    first: int
    last: int

    def item(self) -> Nodes:
        here = slice(self.first, self.last)
        free, total, usable = self.free[:, here].tolist(), self.total[:, here].tolist(), self.usable[here]
        return Nodes(
            cluster=self.cluster,
            places=self.layout.places[here],
            gpus_free=tuple(free[0]),
            cpu_milli=tuple(free[1]),
            memory_mib=tuple(free[2]),
            gpus=tuple(total[0]),
            cpu_milli_total=tuple(total[1]),
            memory_mib_total=tuple(total[2]),
            usable=() if usable.all() else tuple(usable.tolist()),
            more=self.last < len(self.layout),
            kinds=self.layout.kinds,
            devices_free=tuple(map(tuple, free[KINDS_FROM:])),
            devices=tuple(map(tuple, total[KINDS_FROM:])),
        )


@dataclass(frozen=True, slots=True, eq=False)
class ChangedNodes:
    """`free` has a row per resource and a column per node; None: as before."""

    cluster: str
    nodes: Ints
    free: Ints
    total: Ints | None
    usable: Bools | None

    def item(self) -> Changes:
        free = self.free.tolist()
        total = self.total.tolist() if self.total is not None else [[]] * len(RESOURCES)
        return Changes(
            cluster=self.cluster,
            nodes=tuple(self.nodes.tolist()),
            gpus_free=tuple(free[0]),
            cpu_milli=tuple(free[1]),
            memory_mib=tuple(free[2]),
            gpus=tuple(total[0]),
            cpu_milli_total=tuple(total[1]),
            memory_mib_total=tuple(total[2]),
            usable=tuple(self.usable.tolist()) if self.usable is not None else (),
            devices_free=tuple(map(tuple, free[KINDS_FROM:])),
            devices=tuple(map(tuple, total[KINDS_FROM:])),
        )


@dataclass(frozen=True, slots=True, eq=False)
class TapedCycle:
    """A cycle, and the nodes of its decisions."""

    cycle: Cycle
    places: tuple[tuple[str, tuple[Part, ...]], ...]

    def item(self) -> Cycle:
        return msgspec.structs.replace(self.cycle, nodes_crc=crc_of(self.places)) if self.places else self.cycle


TapedItem = FreshNodes | ChangedNodes | TapedCycle


@dataclass(frozen=True, slots=True, eq=False)
class Reel:
    """One blob of the tape that is not written yet. `size` is an estimate."""

    name: ReelName
    lineage: str
    items: tuple[TapedItem, ...]
    cycles: int
    size: int

    def encoded(self) -> bytes:
        """Its bytes; LimitError if they are more than a blob may have. Milliseconds: never on the way of a decision."""
        return encode_reel(self.name, self.lineage, encode_items([item.item() for item in self.items]))


@dataclass(frozen=True, slots=True)
class WriteReel:
    """Encode and create it, where nothing else waits; the answer comes back as `StoreAnswered` with the same op."""

    op: OpId
    reel: Reel


def write_reel(store: BlobStore, wish: WriteReel) -> BlobEvent:
    """Carry it out; BlobFailed for a reel that no store takes."""
    create = creation(wish)
    return perform(store, create) if isinstance(create, BlobCreate) else create


def creation(wish: WriteReel) -> BlobCreate | BlobFailed:
    """What to ask the store for."""
    try:
        return BlobCreate(wish.op, wish.reel.name.blob, wish.reel.encoded())
    except LimitError as error:
        return BlobFailed(wish.op, str(error))


def changed_nodes(before: tuple[Ints, Ints, Bools], now: tuple[Ints, Ints, Bools]) -> Ints:
    """Nodes that differ in (free, total, usable) of one layout, ascending."""
    differs: Bools = (before[0] != now[0]).any(axis=0)
    if now[1] is not before[1]:
        differs |= (now[1] != before[1]).any(axis=0)
    if now[2] is not before[2]:
        differs |= now[2] != before[2]
    return np.flatnonzero(differs)
