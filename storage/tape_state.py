"""Copies of whole snapshots among the reels of the tape, one an hour: states from which old cycles can be reached.

The snapshot that the root points to is mostly younger than what a replay is asked for, and folding from the first entry
takes as long as the fleet is old. Parts keep their bytes; the INDEX is copied last, so a copy without one is none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from storage.blob import (
    BlobCreate,
    BlobEffect,
    BlobEvent,
    BlobFailed,
    BlobGet,
    BlobName,
    BlobRead,
    BlobStore,
    BlobWritten,
    OpId,
    Outcome,
)
from storage.errors import CorruptError, LocalProtocolError
from storage.root import SnapshotPointer
from storage.snapshot import Index, ShardRef, decode_shard, index_name, read_index
from storage.tape import ReelName

IN_FLIGHT_MAX: Final = 2
"""Parts of at most 1 MiB: nothing waits for them."""


class StateCopier:
    """One copy of one snapshot. Sans-IO.

    Ends at the first operation that is not answered, or part that is gone: then it is none, and its parts are deleted
    as old reels are.
    """

    def __init__(
        self, new_op: Callable[[], OpId], *, pointer: SnapshotPointer, refs: tuple[ShardRef, ...], wall_ms: int
    ) -> None:
        self._new_op = new_op
        base = ReelName(pointer.seq, wall_ms, pointer.term, 0, "state")
        self._index = (index_name(pointer.seq), base)
        self._parts = deque((BlobName(ref.name), base._replace(number=at)) for at, ref in enumerate(refs, start=1))
        self._in_flight: dict[OpId, tuple[BlobName, ReelName]] = {}
        self._index_begun = False
        self.failed = False

    @property
    def done(self) -> bool:
        """Over, well or not; nothing is under way."""
        return not self._in_flight and (self.failed or self._index_begun)

    def owns(self, op: OpId) -> bool:
        return op in self._in_flight

    def start(self) -> list[BlobEffect]:
        return self._go_on()

    def handle(self, event: BlobEvent) -> list[BlobEffect]:
        part = self._in_flight.pop(event.op, None)
        if part is None:
            raise LocalProtocolError(f"answer to operation {event.op}, which is not under way")
        match event:
            case BlobRead(blob=blob) if blob is not None and not self.failed:
                op = self._new_op()
                self._in_flight[op] = part
                return [BlobCreate(op, part[1].blob, blob.data)]
            case BlobWritten(outcome=Outcome.DONE | Outcome.REFUSED):  # nobody else writes under this name
                return self._go_on()
            case BlobRead() | BlobWritten() | BlobFailed():
                self.failed = True
                return []
            case _:
                raise LocalProtocolError(f"{type(event).__name__} answers no effect of a copy")

    def _go_on(self) -> list[BlobEffect]:
        effects: list[BlobEffect] = []
        while not self.failed and self._parts and len(self._in_flight) < IN_FLIGHT_MAX:
            effects.append(self._read(self._parts.popleft()))
        if not (self.failed or self._parts or self._in_flight or self._index_begun):
            self._index_begun = True
            effects.append(self._read(self._index))
        return effects

    def _read(self, part: tuple[BlobName, ReelName]) -> BlobEffect:
        op = self._new_op()
        self._in_flight[op] = part
        return BlobGet(op, part[0])


def copied_states(names: Iterable[ReelName]) -> list[ReelName]:
    """The INDEX of each whole copy, oldest entry first."""
    return sorted(name for name in names if name.kind == "state" and name.number == 0)


def read_copy(store: BlobStore, name: ReelName, lineage: str) -> tuple[Index, Iterator[tuple[str, bytes]]]:
    """The INDEX of a copy, and the shards it names, in order. CorruptError where a part is missing or damaged, or the
    copy is of another lineage."""
    index = read_index(index_name(name.seq), _part(store, name))
    if index.lineage != lineage:
        raise CorruptError(name.blob, f"it is of lineage {index.lineage}")
    parts = ((ref, name._replace(number=at)) for at, ref in enumerate(index.shards, start=1))
    return index, ((ref.name, decode_shard(BlobName(ref.name), _part(store, part), ref.digest)) for ref, part in parts)


def _part(store: BlobStore, name: ReelName) -> bytes:
    blob = store.get(name.blob)
    if blob is None:
        raise CorruptError(name.blob, "it is missing")
    return blob.data
