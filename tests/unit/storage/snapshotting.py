"""One store with a journal in it, and its snapshot cores driven step by step: a test can stop between any two."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field

from storage.backends.memory import MemoryStore
from storage.blob import BlobEffect, BlobEvent, BlobStore, OpId, perform
from storage.entry import GENESIS, EntryHeader, EntryKind, digest, encode_entry, entry_name
from storage.gc import Collector
from storage.root import FORMAT, ROOT_NAME, Root, SnapshotPointer, decode_root, encode_root
from storage.snapshot_reader import ShardFound, SnapshotGone, SnapshotRead, SnapshotReader
from storage.snapshot_writer import Reusable, SnapshotWriter

LINEAGE = "0000000000001-l"
ENTRIES = 12


@dataclass
class Snapshotting:
    """`crash_after`: no more than so many operations reach the store; the rest are never answered."""

    store: BlobStore = field(default_factory=MemoryStore)
    crash_after: int | None = None
    now_s: float = 0.0
    performed: int = 0
    digests: list[bytes] = field(default_factory=lambda: [GENESIS])
    entries: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ops = itertools.count(1)
        self.store.create(ROOT_NAME, encode_root(Root(format=FORMAT, lineage=LINEAGE, nonce="first")))
        for seq in range(1, ENTRIES + 1):
            kind = EntryKind.TERM if seq == 1 else EntryKind.BATCH
            records = () if seq == 1 else (b"record-%d" % seq,)
            header = EntryHeader(seq, 1, kind, "w", f"n-{seq}", self.digests[-1], len(records))
            self.entries[seq] = encode_entry(header, records)
            self.digests.append(digest(self.entries[seq]))
            self.store.create(entry_name(seq), self.entries[seq])

    @property
    def root(self) -> Root:
        blob = self.store.get(ROOT_NAME)
        assert blob is not None
        return decode_root(blob.data)

    def new_op(self) -> OpId:
        return OpId(next(self.ops))

    def pointer(self, seq: int) -> SnapshotPointer:
        return SnapshotPointer(seq, 1, self.digests[seq], "w")

    def writer(self, seq: int, *, gc_floor: int = 0, nonce: str = "n", reuse: Reusable | None = None) -> SnapshotWriter:
        return SnapshotWriter(
            self.new_op,
            nonce=f"{nonce}-{seq}",
            lineage=LINEAGE,
            pointer=self.pointer(seq),
            gc_floor=gc_floor,
            reuse=reuse,
        )

    def collector(self, writer: SnapshotWriter, *, archive: bool = False) -> Collector:
        return Collector(self.new_op, root=writer.root, refs=writer.refs, archive=archive)

    def write(self, writer: SnapshotWriter, shards: list[bytes]) -> None:
        """As far as it comes before the crash, or to its end."""
        effects = deque(writer.start())
        for index, shard in enumerate(shards):
            effects += writer.put(f"s-{index}", shard)
        effects += writer.close()
        while writer.end is None and (effects or writer.due_s < float("inf")):
            if not effects:
                self.now_s = max(self.now_s, writer.due_s)
                effects += writer.tick(self.now_s)
                continue
            event = self.perform(effects.popleft())
            if event is None:
                return
            effects += writer.handle(event, self.now_s)

    def collect(self, collector: Collector) -> None:
        effects = deque(collector.start())
        while effects:
            event = self.perform(effects.popleft())
            if event is None:
                return
            effects += collector.handle(event)

    def read(self, pointer: SnapshotPointer) -> list[bytes] | SnapshotGone:
        """Every shard, in order; or that a later snapshot took its place."""
        reader = SnapshotReader(self.new_op, lineage=LINEAGE, pointer=pointer)
        effects = deque(reader.start())
        found: list[bytes] = []
        whole = False
        while effects or reader.due_s < float("inf"):
            if not effects:
                self.now_s = max(self.now_s, reader.due_s)
                effects += reader.tick(self.now_s)
                continue
            match effects.popleft():
                case ShardFound(payload=payload):
                    found.append(payload)
                case SnapshotRead():
                    whole = True
                case SnapshotGone() as gone:
                    return gone
                case wish:
                    event = self.perform(wish)
                    assert event is not None
                    effects += reader.handle(event, self.now_s)
        assert whole
        return found

    def perform(self, effect: BlobEffect) -> BlobEvent | None:
        """None once the process has crashed."""
        if self.crash_after is not None and self.performed >= self.crash_after:
            return None
        self.performed += 1
        return perform(self.store, effect)
