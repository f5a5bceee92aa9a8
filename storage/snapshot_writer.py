"""Writing one snapshot: shards, then the INDEX, then the root by compare-and-swap. Sans-IO, as the journal.

Everything before the last step is an orphan that nobody reads: a crash anywhere is harmless, and so are two servers
that write at once, since only one can swap the root it read before it began. Whoever raises the floor of collection
does it in that same swap, before anything is deleted.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from storage.blob import (
    Blob,
    BlobCreate,
    BlobEffect,
    BlobEvent,
    BlobFailed,
    BlobGet,
    BlobName,
    BlobRead,
    BlobReplace,
    BlobWritten,
    OpId,
    Outcome,
    Version,
)
from storage.entry import digest
from storage.errors import LimitError, LocalProtocolError
from storage.root import ROOT_NAME, Root, SnapshotPointer, decode_root, encode_root
from storage.snapshot import Index, ShardRef, encode_index, encode_shard, index_name, shard_name

IN_FLIGHT_MAX: Final = 8
"""Shards written at once: hides the latency of an object store, and leaves it for others."""
ATTEMPTS_MAX: Final = 8
"""Per blob, with `RETRY_S` between: after that the store is in trouble, and the next snapshot is as good."""
RETRY_S: Final = 1.0


class End(enum.Enum):
    """How it ended."""

    DONE = "the root points to it"
    OVERTAKEN = "the root points to a later snapshot, or somebody else changed it"
    TOO_LARGE = "a part is larger than a store takes"
    NO_ANSWER = "the store did not answer often enough"
    CONFLICT = "another server left other bytes under one of its names"


class _Step(enum.Enum):
    ROOT = "read the root to begin with"
    SHARDS = "write shards"
    INDEX = "write the INDEX"
    SWAP = "make the root point to it"
    OVER = "ended"


@dataclass(slots=True)
class _Put:
    """One blob on its way. `asked` is what the operation in flight does."""

    name: BlobName
    data: bytes
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Reusable:
    """The shards of the snapshot at `seq`, by the digest of what they hold: one that would hold the same is not written
    again, the INDEX names the old one."""

    seq: int
    by_content: Mapping[bytes, ShardRef]


class SnapshotWriter:
    """One attempt at one snapshot. After `end` is set nothing more is asked of the store."""

    def __init__(
        self,
        new_op: Callable[[], OpId],
        *,
        nonce: str,
        lineage: str,
        pointer: SnapshotPointer,
        gc_floor: int,
        reuse: Reusable | None = None,
    ) -> None:
        """`gc_floor`: entries up to it may be deleted once the root points here; the root's own if that is higher.

        `reuse`: of the snapshot to which the root points. If it points elsewhere, this one is OVERTAKEN: whether the
        shards of any other are still there is not known.
        """
        assert gc_floor <= pointer.seq
        self._reuse = reuse
        self._by_content: dict[bytes, ShardRef] = {}
        self.reused_count = 0
        self._new_op = new_op
        self._nonce = nonce
        self._lineage = lineage
        self._pointer = pointer
        self._gc_floor = gc_floor
        self._step = _Step.ROOT
        self._closed = False
        self._refs: list[ShardRef] = []
        self._waiting: deque[_Put] = deque()
        self._in_flight: dict[OpId, _Put] = {}
        self._later: list[tuple[float, _Put]] = []
        self._root_op: OpId | None = None
        self._root_attempts = 0
        self._root_due_s: float | None = None
        self._base: tuple[Root, Version] | None = None
        self._wanted: Root | None = None
        self.end: End | None = None

    @property
    def root(self) -> Root:
        """The root as this snapshot left it; only when DONE."""
        assert self.end is End.DONE
        assert self._wanted is not None
        return self._wanted

    @property
    def refs(self) -> tuple[ShardRef, ...]:
        return tuple(self._refs)

    @property
    def reusable(self) -> Reusable:
        """For the next snapshot, once the root points here."""
        return Reusable(self._pointer.seq, self._by_content)

    @property
    def backlog(self) -> int:
        """Shards taken and not written yet: whoever makes more waits while there are many."""
        return len(self._waiting) + len(self._in_flight) + len(self._later)

    @property
    def due_s(self) -> float:
        """When `tick` is next useful."""
        due_s = min((due_s for due_s, _ in self._later), default=float("inf"))
        return min(due_s, self._root_due_s if self._root_due_s is not None else float("inf"))

    @property
    def idle(self) -> bool:
        """Nothing is under way: no answer will come any more unless something is asked."""
        return self._root_op is None and not self._in_flight

    def owns(self, op: OpId) -> bool:
        return op == self._root_op or op in self._in_flight

    def start(self) -> list[BlobEffect]:
        return self._read_root()

    def put(self, shard: str, raw: bytes) -> list[BlobEffect]:
        """Add a shard; its name is unique within the snapshot."""
        assert not self._closed
        if self.end is not None:
            return []
        content = digest(raw)
        known = self._reuse.by_content.get(content) if self._reuse is not None else None
        if known is not None:
            self.reused_count += 1
            self._refs.append(known)
            self._by_content[content] = known
            return self._go_on()
        name = shard_name(self._pointer.seq, shard)
        try:
            data = encode_shard(name, raw)
        except LimitError:
            return self._over(End.TOO_LARGE)
        self._refs.append(ShardRef(name, digest(data)))
        self._by_content[content] = self._refs[-1]
        self._waiting.append(_Put(name, data))
        return self._go_on()

    def close(self) -> list[BlobEffect]:
        """There are no more shards."""
        self._closed = True
        return self._go_on()

    def tick(self, now_s: float) -> list[BlobEffect]:
        """Try again what is due."""
        effects: list[BlobEffect] = []
        for due_s, put in list(self._later):
            if now_s >= due_s and self.end is None:
                self._later.remove((due_s, put))
                effects.append(self._create(put))
        if self._root_due_s is not None and now_s >= self._root_due_s and self.end is None:
            self._root_due_s = None
            effects += self._read_root()
        return effects

    def handle(self, event: BlobEvent, now_s: float) -> list[BlobEffect]:
        """Take the answer to one of its effects."""
        if event.op == self._root_op:
            self._root_op = None
            return self._root_answered(event, now_s) if self.end is None else []
        put = self._in_flight.pop(event.op, None)
        if put is None:
            raise LocalProtocolError(f"answer to operation {event.op}, which is not under way")
        if self.end is not None:
            return []
        return self._put_answered(put, event, now_s) + self._go_on()

    # --- shards and the INDEX ---

    def _put_answered(self, put: _Put, event: BlobEvent, now_s: float) -> list[BlobEffect]:
        match event:
            case BlobWritten(outcome=Outcome.DONE):
                return []
            case BlobWritten():
                op = self._new_op()
                self._in_flight[op] = put
                return [BlobGet(op, put.name)]
            case BlobRead(blob=blob) if blob is not None:
                return [] if blob.data == put.data else self._over(End.CONFLICT)
            case BlobRead() | BlobFailed():
                if put.attempts >= ATTEMPTS_MAX:
                    return self._over(End.NO_ANSWER)
                self._later.append((now_s + RETRY_S, put))
                return []
            case _:
                raise LocalProtocolError(f"{type(event).__name__} answers no effect of a snapshot")

    def _go_on(self) -> list[BlobEffect]:
        """Send what may be sent; the INDEX once no shard is left, the swap once the INDEX is there."""
        if self.end is not None or self._step is _Step.ROOT:
            return []
        effects: list[BlobEffect] = []
        while self._waiting and len(self._in_flight) < IN_FLIGHT_MAX:
            effects.append(self._create(self._waiting.popleft()))
        if self._closed and not self.backlog:
            if self._step is _Step.SHARDS:
                self._step = _Step.INDEX
                return self._write_index()
            if self._step is _Step.INDEX:
                self._step = _Step.SWAP
                return self._swap()
        return effects

    def _create(self, put: _Put) -> BlobEffect:
        put.attempts += 1
        op = self._new_op()
        self._in_flight[op] = put
        return BlobCreate(op, put.name, put.data)

    def _write_index(self) -> list[BlobEffect]:
        at = self._pointer
        try:
            data = encode_index(Index(self._lineage, at.seq, at.term, at.digest, self.refs))
        except LimitError:
            return self._over(End.TOO_LARGE)
        self._pointer = msgspec.structs.replace(at, index_digest=digest(data))
        return [self._create(_Put(index_name(at.seq), data))]

    # --- the root ---

    def _read_root(self) -> list[BlobEffect]:
        self._root_attempts += 1
        self._root_op = self._new_op()
        return [BlobGet(self._root_op, ROOT_NAME)]

    def _root_answered(self, event: BlobEvent, now_s: float) -> list[BlobEffect]:
        match event:
            case BlobWritten(outcome=Outcome.DONE):
                return self._over(End.DONE)
            case BlobWritten():
                return self._read_root()
            case BlobRead(blob=blob) if blob is not None:
                return self._root_read(blob)
            case BlobFailed():
                return self._root_later(now_s)
            case _:
                return self._over(End.OVERTAKEN)

    def _root_read(self, blob: Blob) -> list[BlobEffect]:
        if self._base is None:
            return self._begin(decode_root(blob.data), blob.version)
        if blob.data == encode_root(self._after(self._base[0])):
            return self._over(End.DONE)
        if blob.version != self._base[1]:
            return self._over(End.OVERTAKEN)
        return self._swap() if self._root_attempts <= ATTEMPTS_MAX else self._over(End.NO_ANSWER)

    def _begin(self, root: Root, version: Version) -> list[BlobEffect]:
        newest = root.snapshot.seq if root.snapshot is not None else 0
        if self._reuse is not None and newest != self._reuse.seq:
            return self._over(End.OVERTAKEN)
        if root.lineage != self._lineage or newest >= self._pointer.seq or root.gc_floor > self._pointer.seq:
            return self._over(End.OVERTAKEN)
        self._base = (root, version)
        self._root_attempts = 0
        self._step = _Step.SHARDS
        return self._go_on()

    def _root_later(self, now_s: float) -> list[BlobEffect]:
        if self._root_attempts >= ATTEMPTS_MAX:
            return self._over(End.NO_ANSWER)
        self._root_due_s = now_s + RETRY_S
        return []

    def _after(self, base: Root) -> Root:
        """What the root will say: a nonce of our own makes it differ from everything it ever was."""
        floor = max(base.gc_floor, self._gc_floor)
        return msgspec.structs.replace(base, snapshot=self._pointer, gc_floor=floor, nonce=self._nonce)

    def _swap(self) -> list[BlobEffect]:
        assert self._base is not None
        base, version = self._base
        self._wanted = self._after(base)
        self._root_op = self._new_op()
        return [BlobReplace(self._root_op, ROOT_NAME, encode_root(self._wanted), version)]

    def _over(self, end: End) -> list[BlobEffect]:
        self.end = end
        self._step = _Step.OVER
        self._waiting.clear()
        self._later.clear()
        return []
