"""Reading the snapshot to which a root points: INDEX, then its shards in order, several at once. Sans-IO.

A part that is gone means that a later snapshot took this one's place, or that the store lost it: the root tells which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from storage.blob import Blob, BlobEffect, BlobEvent, BlobFailed, BlobGet, BlobName, BlobRead, OpId
from storage.errors import CorruptError, LocalProtocolError
from storage.root import ROOT_NAME, SnapshotPointer, decode_root
from storage.snapshot import Index, ShardRef, decode_index, decode_shard, index_name

IN_FLIGHT_MAX: Final = 16
"""Shards asked for or waiting for an earlier one: hides latency, bounds memory at 16 MiB."""
RETRY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class ShardFound:
    """The next shard of the snapshot, in the order of its INDEX."""

    name: BlobName
    payload: bytes


@dataclass(frozen=True, slots=True)
class SnapshotRead:
    """All shards were found."""

    pointer: SnapshotPointer
    shards: tuple[ShardRef, ...]


@dataclass(frozen=True, slots=True)
class SnapshotGone:
    """The root points to another snapshot by now: begin again from there. Nothing is under way any more."""

    pointer: SnapshotPointer


ReaderEffect = BlobEffect | ShardFound | SnapshotRead | SnapshotGone


class SnapshotReader:
    """Reads one snapshot once. CorruptError or UnsupportedFormatError when a part is not what was written."""

    def __init__(self, new_op: Callable[[], OpId], *, lineage: str, pointer: SnapshotPointer) -> None:
        self._new_op = new_op
        self._lineage = lineage
        self._pointer = pointer
        self._index: Index | None = None
        self._next_ask = 0  # index of the first shard not asked for yet
        self._next_tell = 0  # and of the first not told yet
        self._in_flight: dict[OpId, BlobName] = {}
        self._found: dict[str, bytes] = {}  # payloads that wait for an earlier one
        self._later: list[tuple[float, BlobName]] = []
        self._missing: BlobName | None = None
        self._over = False
        self._gone: SnapshotGone | None = None  # until the last answer is in

    @property
    def due_s(self) -> float:
        return min((due_s for due_s, _ in self._later), default=float("inf"))

    def owns(self, op: OpId) -> bool:
        return op in self._in_flight

    def start(self) -> list[ReaderEffect]:
        return [self._get(index_name(self._pointer.seq))]

    def tick(self, now_s: float) -> list[ReaderEffect]:
        """Ask again for what the store could not answer."""
        due = [name for due_s, name in self._later if now_s >= due_s]
        self._later = [later for later in self._later if now_s < later[0]]
        return [self._get(name) for name in due]

    def handle(self, event: BlobEvent, now_s: float) -> list[ReaderEffect]:
        name = self._in_flight.pop(event.op, None)
        if name is None:
            raise LocalProtocolError(f"answer to operation {event.op}, which is not under way")
        if self._over:
            return self._ended()
        match event:
            case BlobRead(blob=blob) if name == ROOT_NAME:
                return self._root_read(blob)
            case BlobRead(blob=None):
                return self._absent(name)
            case BlobRead(blob=blob) if blob is not None:
                return self._read(name, blob.data)
            case BlobFailed():
                self._later.append((now_s + RETRY_S, name))
                return []
            case _:
                raise LocalProtocolError(f"{type(event).__name__} answers no effect of a snapshot's reader")

    def _get(self, name: BlobName) -> BlobGet:
        op = self._new_op()
        self._in_flight[op] = name
        return BlobGet(op, name)

    def _read(self, name: BlobName, data: bytes) -> list[ReaderEffect]:
        if self._index is None:
            self._index = decode_index(data, self._pointer, self._lineage)
        else:
            self._found[name] = data
        return self._go_on(self._index)

    def _go_on(self, index: Index) -> list[ReaderEffect]:
        effects: list[ReaderEffect] = []
        while self._next_tell < len(index.shards):
            ref = index.shards[self._next_tell]
            data = self._found.pop(ref.name, None)
            if data is None:
                break
            name = BlobName(ref.name)
            effects.append(ShardFound(name, decode_shard(name, data, ref.digest)))
            self._next_tell += 1
        while self._next_ask < min(len(index.shards), self._next_tell + IN_FLIGHT_MAX):
            effects.append(self._get(BlobName(index.shards[self._next_ask].name)))
            self._next_ask += 1
        if self._next_tell == len(index.shards):
            self._over = True
            effects.append(SnapshotRead(self._pointer, index.shards))
        return effects

    def _absent(self, name: BlobName) -> list[ReaderEffect]:
        if self._missing is not None:
            return []
        self._missing = name
        return [self._get(ROOT_NAME)]

    def _root_read(self, blob: Blob | None) -> list[ReaderEffect]:
        assert self._missing is not None
        root = decode_root(blob.data) if blob is not None else None
        if root is None or root.snapshot is None or root.snapshot == self._pointer:
            raise CorruptError(self._missing, "it is missing, and the root points to it", seq=self._pointer.seq)
        self._over = True
        self._later.clear()
        self._gone = SnapshotGone(root.snapshot)
        return self._ended()

    def _ended(self) -> list[ReaderEffect]:
        """Told with the last answer: whoever drops the reader earlier would get answers that nobody awaits."""
        return [self._gone] if self._gone is not None and not self._in_flight else []
