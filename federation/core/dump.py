"""A picture of a whole state at one position, taken bit by bit while the state moves on.

What is about to change is taken before it does (`Keeper`), so that the picture is of one moment and no step is long.
O(1) lists of references are made at the beginning, everything else in steps. Where the shards go is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final
from zlib import crc32

from federation.core import formats
from federation.core.rows import ClusterRow, GroupRow
from federation.core.shards import (
    Item,
    Kind,
    Shard,
    StoredClass,
    StoredCluster,
    StoredEnd,
    StoredFinish,
    StoredGroup,
    StoredHead,
    StoredQueue,
    StoredSpec,
    StoredToken,
    encode_item,
    encode_shard,
)
from federation.core.state import State
from federation.core.stored import extras_of, shapes_of
from placement.model import GangRequest, GroupUid, Lineage, Token, group_uid
from storage.root import FORMAT

SHARD_RAW_BYTES: Final = 256 * 1024
"""A shard is closed at this size: packing it takes the thread 4 ms, and the largest single group still fits into one
blob of any store (512 KiB of history, 256 KiB of the rest)."""
SHARD_CUT_FROM: Final = SHARD_RAW_BYTES // 2
SHARD_CUT_SHARE: Final = 32
"""From half its size on, a shard ends after one item in so many, which the item itself decides: then an item that came
or went changes the shard it is in and hardly any other, and the next snapshot need not store those again."""
SHARDS_PER_STEP: Final = 4
"""Then a step ends: packing them takes longer than taking their items."""


_FIBONACCI: Final = 2_654_435_769  # spreads neighbours


@dataclass(frozen=True, slots=True)
class NamedShard:
    """`payload` is an encoded `Shard`."""

    name: str
    payload: bytes


@dataclass(slots=True)
class _Packer:
    """The open shard of one kind (and cluster)."""

    kind: Kind
    cluster: str
    out: list[NamedShard]
    items: list[bytes] = field(default_factory=list)
    size: int = 0
    closed_count: int = 0
    classes: dict[GangRequest, int] = field(default_factory=dict)  # -> index in this shard
    label: str = ""  # what its name begins with instead of its kind

    def add(self, item: Item, mark: int) -> None:
        """`mark` is some number that always goes with this item."""
        packed = encode_item(item)
        self.items.append(packed)
        self.size += len(packed)
        cut = self.size >= SHARD_CUT_FROM and (mark * _FIBONACCI >> 16) % SHARD_CUT_SHARE == 0
        if cut or self.size >= SHARD_RAW_BYTES:
            self.close()

    def class_of(self, request: GangRequest) -> int:
        return self.classes.setdefault(request, len(self.classes))

    def close(self) -> None:
        """Put what is there, if anything, into a shard of its own."""
        if not self.items:
            return
        classes = tuple(stored_class(request) for request in self.classes)
        shard = Shard(self.kind, len(self.items), b"".join(self.items), self.cluster, classes)
        name = f"{self.label or self.kind}{'-' if self.cluster else ''}{self.cluster}-{self.closed_count:05d}"
        self.out.append(NamedShard(name, encode_shard(shard)))
        self.closed_count += 1
        self.items.clear()
        self.classes.clear()
        self.size = 0


class Dump:
    """Of `state` as it is when this is made. Call `step` until `done`; nobody else may dump it meanwhile."""

    def __init__(self, state: State, *, store_format: int = FORMAT) -> None:
        """Holds nothing that came with a format later than `store_format` (unless the journal itself does already)."""
        assert state.keeper is None
        archive = store_format >= formats.ARCHIVE or state.parts_count > 0
        self._state = state
        self._lineage = state.lineage
        self._head = state.head
        self._out: list[NamedShard] = []
        self._groups_out: dict[tuple[str, bool], _Packer] = {}
        self._groups = list(state.groups.values())  # by position of their submission
        self._taken_to = 0  # groups submitted up to here are taken
        self._taken_early: set[GroupUid] = set()
        self._ends = dict(state.clusters)  # whose ends are not taken yet
        self._requests = list(state.requests.values())
        self._finished = list(state.finished)
        self._leaving = list(state.leaving.values()) if archive else []
        self._parts = list(state.parts)
        self._specs = (list(state.specs), list(state.specs.values()))
        self._small = self._take_small(state)
        self._work = self._run()
        self.done = False
        state.keeper = self

    def step(self, items: int) -> list[NamedShard]:
        """Take at most so many items more; the shards that are complete by now, a few of them at most."""
        left = items
        for _ in islice(self._work, items):
            left -= 1
            if len(self._out) >= SHARDS_PER_STEP:
                break
        else:
            if left and not self.done:
                self.done = True
                self._state.keeper = None
        complete = list(self._out)
        self._out.clear()
        return complete

    def give_up(self) -> None:
        """The picture is not wanted any more."""
        self.done = True
        self._state.keeper = None

    # --- what would change ---

    def group_changes(self, row: GroupRow) -> None:
        if self._taken_to < row.submitted_at <= self._head and row.uid not in self._taken_early:
            self._taken_early.add(row.uid)
            self._take_group(row, early=True)

    def ends_change(self, row: ClusterRow) -> None:
        if self._ends.pop(row.name, None) is not None:
            self._take_ends(row)

    # --- taking ---

    @staticmethod
    def _take_small(state: State) -> list[tuple[Kind, list[Item]]]:
        """Head, queues and clusters at once: they are few, and change with every record."""
        return [
            (Kind.HEAD, [StoredHead(state.head, state.clock_ms, state.recovering_since)]),
            (Kind.QUEUES, [_stored_queue(state, name) for name in state.queues]),
            (Kind.CLUSTERS, [_stored_cluster(row) for row in state.clusters.values()]),
        ]

    def _run(self) -> Iterator[None]:
        """Yields after each item taken."""
        for kind, items in self._small:
            yield from self._take(kind, ((item, 0) for item in items))
        yield from self._take(Kind.REQUESTS, ((row, row.position) for row in self._requests))
        yield from self._take(Kind.FINISHED, ((StoredFinish(at_ms, uid), at_ms) for at_ms, uid in self._finished))
        yield from self._take(Kind.SPECS, self._stored_specs())
        yield from self._take(Kind.PARTS, ((part, part.part) for part in self._parts))
        yield from self._take_leaving()
        while self._ends:
            self._take_ends(self._ends.pop(next(iter(self._ends))))
            yield
        for row in self._groups:
            if row.uid not in self._taken_early:
                self._take_group(row)
            self._taken_to = row.submitted_at
            yield
        for packer in self._groups_out.values():
            packer.close()
            yield

    def _take(self, kind: Kind, items: Iterator[tuple[Item, int]]) -> Iterator[None]:
        packer = _Packer(kind, "", self._out)
        for item, mark in items:
            packer.add(item, mark)
            yield
        packer.close()

    def _take_leaving(self) -> Iterator[None]:
        """Nothing about them changes any more."""
        packer = _Packer(Kind.LEAVING, "", self._out)
        for row in self._leaving:
            packer.add(stored_group(row, self._lineage, packer.class_of(row.request)), row.submitted_at)
            yield
        packer.close()

    def _take_ends(self, row: ClusterRow) -> None:
        """All at once: the row must not change between the first and the last."""
        packer = _Packer(Kind.ENDED, row.name, self._out)
        for token, position in row.ended.items():
            packer.add(StoredEnd(token, position), position)
        packer.close()

    def _stored_specs(self) -> Iterator[tuple[Item, int]]:
        for digest, (spec, _) in zip(*self._specs, strict=True):
            yield StoredSpec(digest, spec), crc32(digest.encode())

    def _take_group(self, row: GroupRow, *, early: bool = False) -> None:
        """Those that were about to change go into shards of their own: the others then stay as they are."""
        cluster = row.home.cluster if row.home is not None else ""
        packer = self._groups_out.get((cluster, early))
        if packer is None:
            packer = _Packer(Kind.GROUPS, cluster, self._out, label="changed" if early else "")
            self._groups_out[cluster, early] = packer
        packer.add(stored_group(row, self._lineage, packer.class_of(row.request)), row.submitted_at)


def stored_class(request: GangRequest) -> StoredClass:
    return StoredClass(
        shapes_of(request),
        request.min_count,
        request.level_required,
        request.level_preferred,
        request.cluster_labels,
        request.cluster_labels_not,
        request.lease_classes,
        extras_of(request),
        request.data,
        request.elastic,
    )


def _stored_queue(state: State, name: str) -> StoredQueue:
    queue = state.queue(name)
    assert queue is not None
    return StoredQueue(
        queue.name,
        queue.weight,
        dict(queue.gpu_quota),
        queue.disconnect_policy,
        queue.applied_at,
        dict(queue.gpus_used),
        queue.homes_count,
        queue.pending_count,
    )


def _stored_cluster(row: ClusterRow) -> StoredCluster:
    return StoredCluster(
        row.name,
        row.lease_class,
        row.labels,
        row.accept_unguarded,
        row.joined_at,
        row.cordoned,
        row.drain,
        row.cordon_reason,
        row.fenced_epoch,
        row.fenced_at,
        row.fence_done,
        row.admitted_epoch,
        row.admitted_at,
        row.dead_at,
        row.changed_at,
        row.ended_pruned,
        row.recovering,
    )


def _stored_token(token: Token | None, lineage: Lineage) -> StoredToken | None:
    if token is None:
        return None
    return StoredToken(token.position, "" if token.lineage == lineage else token.lineage)


def stored_group(row: GroupRow, lineage: Lineage, request: int) -> StoredGroup:
    return StoredGroup(
        row.submitted_at,
        "" if row.uid == group_uid(lineage, row.submitted_at) else row.uid,
        row.name,
        row.namespace,
        row.queue,
        row.priority,
        request,
        row.disconnect_policy,
        row.disruption_mode,
        row.grace_s,
        row.labels,
        row.workload,
        row.spec_digest,
        row.actor,
        row.at_ms,
        row.phase,
        row.intent,
        row.intent_reason,
        _stored_token(row.home.token if row.home is not None else None, lineage),
        row.effective_policy,
        row.bound_at,
        row.running_at,
        row.pods_bound,
        row.changed_at,
        row.attempts,
        row.failures,
        _stored_token(row.last_token, lineage),
        row.last_cluster,
        row.last_verdict,
        row.last_reasons,
        row.displaced,
        row.history_packed,
        row.history_count,
        row.history_cut,
        row.counts,
        row.child,
        row.failure_spread,
        row.sizing,
    )
