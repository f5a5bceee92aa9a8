"""The leader's tape: writes down what each cycle of the engine was given beside the journal, so that it can run again.

Off the way of decisions: a cycle costs the comparison of the tables that have changed; text and bytes are made where
the reels are written. Bounded: when the store is slower than the tape, cycles are left out and counted. What was left
out ends with a new base. The border is drawn in `docs/decisions/0012`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from federation.core.ids import Ids
from federation.core.lineup import Lineup
from federation.core.placing import SeenView
from federation.core.tape_store import TapeRhythm, TapeStore
from federation.core.taped import (
    NODES_PER_ITEM_MAX,
    Base,
    ChangedNodes,
    Cycle,
    FreshNodes,
    Gate,
    Reel,
    TapedCycle,
    TapedItem,
    WriteReel,
    changed_nodes,
    gate_of,
)
from placement.engine import Bounds, Plan, Policy
from placement.fleet import ClusterView, Fleet, NodeTable
from placement.layout import Bools, Ints, NodeLayout
from placement.model import ClusterName, GroupUid, Position
from placement.node_order import LearntFacts
from placement.waiting import Pass
from placement.worth import DEFAULT_NODE_POLICY
from storage.blob import BlobEffect, BlobEvent, OpId
from storage.entry import seq_of
from storage.root import SnapshotPointer
from storage.snapshot import ShardRef
from storage.tape import ReelName

NODE_BYTES: Final = 100  # of a node told whole: its name, product, labels and amounts
CHANGE_BYTES: Final = 24
CYCLE_BYTES: Final = 256
NAME_BYTES: Final = 48  # a uid, with what is said of it
CLUSTER_BYTES: Final = 16  # the name of one that a group avoids
AVOIDED_NAMED_MAX: Final = 16  # clusters; who avoids more, and most, is told by those that it does not avoid

_NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Moment:
    """When a cycle ran, and on which state."""

    head: Position
    at_ms: int
    now_s: float


@dataclass(frozen=True, slots=True)
class Looked:
    """What a cycle looked at. `held`: whom it passed over; `shy`: all groups that avoid clusters now; `clusters`: all
    that the state has."""

    fleet: Fleet
    bounds: Bounds
    held: Sequence[GroupUid]
    shy: Mapping[GroupUid, frozenset[ClusterName]]
    seen: Mapping[ClusterName, SeenView]
    clusters: Collection[ClusterName] = ()


@dataclass(frozen=True, slots=True)
class _Stand:
    """What a base takes down before its cycle changes it."""

    standing: Pass
    learnt: LearntFacts


@dataclass(slots=True)
class _Told:
    """One cluster as it stands on tape. `source` and `version` tell at a glance that nothing has changed."""

    layout: NodeLayout
    free: Ints
    total: Ints
    usable: Bools
    source: NodeTable
    version: int


class Tape:
    """One replica's tape; only its leader writes cycles, a follower ends what it began.

    `missed_count` and `lost_count` count cycles that no replay will see: for want of room, and of a store that took
    them.
    """

    def __init__(self, ids: Ids, rhythm: TapeRhythm, policy: Policy) -> None:
        self._rhythm = rhythm
        self._policy = policy
        self._leading = False
        self._lineage = ""
        self._term = 0
        self._forget()
        # what is to be written
        self._items: list[TapedItem] = []  # of the reel being filled
        self._size = 0  # of those
        self._cycles = 0
        self._open: tuple[Moment, bool] | None = None  # when the reel began, and whether it is a base
        self._numbers = 0
        self._last: TapedCycle | None = None  # the newest cycle, whose decisions are being taken
        self._write_due_s = _NEVER
        self._store = TapeStore(ids, rhythm)
        self.missed_count = 0
        self.lost_count = 0
        self.cycles_count = 0

    # --- who leads ---

    def lead(self, lineage: str, term: int) -> None:
        """A new term: its first cycle is a base."""
        self._leading = self._rhythm.on
        self._lineage = lineage
        self._term = term
        self._numbers = 0
        self._forget()

    def follow(self) -> None:
        """No more cycles; what was written down goes to the store."""
        if self._leading:
            self._close_reel()
        self._leading = False
        self._forget()

    def _forget(self) -> None:
        """The next cycle tells everything."""
        self._told: dict[ClusterName, _Told] = {}
        self._gates: dict[ClusterName, int] = {}
        self._avoid: dict[GroupUid, frozenset[ClusterName]] = {}
        self._missed = 0  # since the last cycle on tape
        self._base_due_s = float("-inf")
        self._stand: _Stand | None = None

    # --- cycles ---

    def begins(self, moment: Moment, lineup: Lineup, *, whole: bool) -> None:
        """A cycle is about to run; if a base is due it takes down what the cycle will change.

        A base in the midst of a term waits for a cycle that sees the `whole` fleet.
        """
        self._stand = None
        if not self._leading or moment.now_s < self._base_due_s or not (whole or not self._told):
            return
        self._close_reel()
        self._told.clear()
        self._gates.clear()
        self._avoid.clear()
        self._stand = _Stand(lineup.waiting.standing(), lineup.worth.facts())

    def ended(self, moment: Moment, looked: Looked, plan: Plan) -> None:
        """Write the cycle down, or count it where there is no room. O(nodes) of the tables that have changed."""
        if not self._leading:
            return
        self._last = None
        if self._missed and self._stand is None:
            self._miss(moment)
            return
        nodes = [item for view in looked.fleet.values() for item in self._nodes_of(view)]
        cycle = self._cycle(moment, looked, plan)
        told_bytes = CYCLE_BYTES + _told_bytes(cycle)
        size = sum(_size_of(item) for item in nodes) + told_bytes
        if self.bytes_held + size > self._rhythm.buffer_bytes_max:
            self._miss(moment)
            return
        if self._open is None:
            self._open = (moment, self._stand is not None)
            self._write_due_s = min(self._write_due_s, moment.now_s + self._rhythm.write_every_s)
        for item in nodes:
            self._put(item, _size_of(item), moment)
        self._last = TapedCycle(cycle, tuple((place.uid, place.assignment.parts) for place in plan.decisions))
        self._put(self._last, told_bytes, moment)
        self._cycles += 1
        self.cycles_count += 1
        if self._stand is not None:
            self._missed = 0
            self._base_due_s = moment.now_s + self._rhythm.base_every_s

    def not_taken(self, uid: str) -> None:
        """A decision of the cycle that ran last will be made again: the batch had no room for it."""
        if self._last is not None:
            cycle = self._last.cycle
            again = msgspec.structs.replace(cycle, not_taken=(*cycle.not_taken, uid))
            self._items[-1] = self._last = replace(self._last, cycle=again)

    def _miss(self, moment: Moment) -> None:
        """Without this cycle the next ones say nothing: the tape goes on with a base."""
        self.missed_count += 1
        self._missed += 1
        self._last = None
        if self._missed == 1 or self._stand is not None:
            self._base_due_s = moment.now_s + self._rhythm.missed_wait_s

    def _nodes_of(self, view: ClusterView) -> list[TapedItem]:
        """What has changed in a cluster since it was told last."""
        told, table = self._told.get(view.name), view.table
        if told is None or told.layout is not table.layout:
            return self._tell_whole(view.name, table)
        if told.source is table and told.version == table.version:
            return []
        nodes = changed_nodes((told.free, told.total, told.usable), (table.free, table.total, table.usable))
        told.source, told.version = table, table.version
        if not len(nodes):
            return []
        free = table.free[:, nodes]
        total = table.total[:, nodes] if table.total is not told.total else None
        usable = table.usable[nodes] if table.usable is not told.usable else None
        told.free[:, nodes] = free
        told.total, told.usable = table.total, table.usable
        return [ChangedNodes(view.name, nodes, free, total, usable)]

    def _tell_whole(self, name: ClusterName, table: NodeTable) -> list[TapedItem]:
        free, count = table.free.copy(), len(table)
        self._told[name] = _Told(table.layout, free.copy(), table.total, table.usable, table, table.version)
        return [
            FreshNodes(name, table.layout, free, table.total, table.usable, at, min(count, at + NODES_PER_ITEM_MAX))
            for at in range(0, max(1, count), NODES_PER_ITEM_MAX)
        ]

    def _cycle(self, moment: Moment, looked: Looked, plan: Plan) -> Cycle:
        bounds = looked.bounds
        avoid, avoid_but = self._avoid_changed(looked.shy, looked.clusters)
        return Cycle(
            head=moment.head,
            at_ms=moment.at_ms,
            now_s=moment.now_s,
            budget=bounds.budget,
            gains=bounds.gains,
            places_max=bounds.places_max,
            moves_max=bounds.moves_max,
            decisions=len(plan.decisions),
            evaluations=plan.evaluations,
            held=tuple(looked.held),
            gates=self._gates_changed(looked.fleet),
            avoid=avoid,
            avoid_but=avoid_but,
            views={name: (seen.boot, seen.seq, seen.strength.value) for name, seen in looked.seen.items()},
            base=self._base() if self._stand is not None else None,
        )

    def _gates_changed(self, fleet: Fleet) -> dict[str, tuple[int, float]]:
        changed: dict[str, tuple[int, float]] = {}
        for view in fleet.values():
            gate = gate_of(view)
            if self._gates.get(view.name) != gate:
                self._gates[view.name] = gate
                changed[view.name] = (gate, view.view_age_s if gate & Gate.STALE else 0.0)
        if len(self._gates) > len(fleet):
            for name in [name for name, gate in self._gates.items() if gate and name not in fleet]:
                self._gates[name] = 0
                changed[name] = (0, 0.0)
        return changed

    def _avoid_changed(
        self, shy: Mapping[GroupUid, frozenset[ClusterName]], clusters: Collection[ClusterName]
    ) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
        """By the clusters that they avoid, and by those that they do not: of a thousand the former are 16 KiB."""
        named: dict[str, tuple[str, ...]] = {}
        but: dict[str, tuple[str, ...]] = {}
        if not shy and not self._avoid:
            return named, but
        for uid, names in shy.items():
            if self._avoid.get(uid) == names:
                continue
            others = _others(names, clusters)
            if others is None:
                named[uid] = tuple(sorted(names))
            else:
                but[uid] = others
        named |= {uid: () for uid in self._avoid if uid not in shy}
        self._avoid = dict(shy)
        return named, but

    def _base(self) -> Base:
        assert self._stand is not None
        standing = self._stand.standing
        return Base(
            policy=self._policy,
            node_policy=DEFAULT_NODE_POLICY,
            learnt=self._stand.learnt,
            pass_open=standing.open,
            pass_gains=standing.gains,
            pass_blocked=tuple((str(uid), by_room) for uid, by_room in standing.blocked),
            missed=self._missed,
        )

    # --- reels ---

    def _put(self, item: TapedItem, size: int, moment: Moment) -> None:
        if self._items and self._size + size > self._rhythm.reel_bytes:
            self._close_reel()
            self._open = (moment, False)
        self._items.append(item)
        self._size += size

    def _close_reel(self) -> None:
        """What is in the reel goes to the store."""
        self._last = None
        if self._open is None or not self._items:
            return
        moment, base = self._open
        self._numbers += 1
        name = ReelName(seq_of(moment.head), moment.at_ms, self._term, self._numbers, "base" if base else "more")
        self._store.put(Reel(name, self._lineage, tuple(self._items), self._cycles, self._size))
        self._items, self._size, self._cycles, self._open = [], 0, 0, None

    # --- the store ---

    @property
    def bytes_held(self) -> int:
        """Estimated, of all that is not in the store."""
        return self._size + self._store.bytes_held

    @property
    def due_s(self) -> float:
        """When to come back at the latest."""
        return min(self._write_due_s if self._items else _NEVER, self._store.due_s)

    def tick(self, now_s: float) -> list[WriteReel]:
        """Close the reel that has been open long enough, and send what may be sent."""
        self._last = None
        if self._items and now_s >= self._write_due_s:
            self._close_reel()
            self._write_due_s = _NEVER
        return self._store.tick(now_s)

    def rest(self) -> list[WriteReel]:
        """Everything that is left, at the end of the process: it is written once, and nobody asks what became of it."""
        self.follow()
        return self._store.rest()

    def snapshot_taken(
        self, pointer: SnapshotPointer, refs: tuple[ShardRef, ...], now_s: float, wall_ms: int
    ) -> list[BlobEffect]:
        """A good moment to delete what is older than a replay needs, and once an hour to copy the snapshot."""
        if not self._leading:
            return []
        return self._store.keep_state(pointer, refs, now_s, wall_ms) + self._store.collect(wall_ms)

    def owns(self, op: OpId) -> bool:
        return self._store.owns(op)

    def handle(self, event: BlobEvent, now_s: float) -> list[BlobEffect]:
        """Take the answer to one of its effects."""
        effects, lost = self._store.handle(event, now_s)
        if lost is not None:
            self._lose(lost, now_s)
        return effects

    def _lose(self, reel: Reel, now_s: float) -> None:
        """What follows it on tape says nothing without it: a base is due soon."""
        self.lost_count += reel.cycles
        if self._leading and reel.name.term == self._term:
            self._missed += reel.cycles
            self._base_due_s = min(self._base_due_s, now_s + self._rhythm.missed_wait_s)


def _size_of(item: TapedItem) -> int:
    match item:
        case FreshNodes(first=first, last=last):
            return NODE_BYTES * (last - first) + CHANGE_BYTES
        case ChangedNodes(nodes=nodes):
            return CHANGE_BYTES * (len(nodes) + 2)
        case TapedCycle():
            return CYCLE_BYTES


def _others(names: frozenset[ClusterName], clusters: Collection[ClusterName]) -> tuple[str, ...] | None:
    """Those of all clusters that are not among these many; None for few, and for some that have left the fleet."""
    if len(names) <= AVOIDED_NAMED_MAX or 2 * len(names) <= len(clusters):
        return None
    others = sorted(name for name in clusters if name not in names)
    return tuple(others) if len(others) == len(clusters) - len(names) else None


def _told_bytes(cycle: Cycle) -> int:
    """About how much a cycle says of whom."""
    avoided = sum(map(len, cycle.avoid.values())) + sum(map(len, cycle.avoid_but.values()))
    return NAME_BYTES * _names_in(cycle) + CLUSTER_BYTES * avoided


def _names_in(cycle: Cycle) -> int:
    """How many names a cycle says something of."""
    names = len(cycle.held) + len(cycle.gates) + len(cycle.views) + cycle.decisions
    names += len(cycle.avoid) + len(cycle.avoid_but)
    if cycle.base is not None:
        learnt = cycle.base.learnt
        names += len(cycle.base.pass_blocked) + len(learnt.mix.counts)
        names += len(learnt.now.counts) if learnt.now is not None else 0
    return names
