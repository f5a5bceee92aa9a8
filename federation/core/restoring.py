"""A replica's way from a snapshot to a state, while its journal waits: shards in, a state out."""

from __future__ import annotations

from dataclasses import dataclass, field

from federation.core.ids import Ids
from federation.core.load import Loader
from federation.core.state import State
from storage.blob import BlobEffect, BlobEvent, OpId
from storage.root import SnapshotPointer
from storage.snapshot import index_name
from storage.snapshot_reader import ReaderEffect, ShardFound, SnapshotGone, SnapshotRead, SnapshotReader


@dataclass(frozen=True, slots=True)
class Restored:
    """The state of everything up to the snapshot."""

    state: State
    shards: int


@dataclass(frozen=True, slots=True)
class Gone:
    """A later snapshot took its place meanwhile: begin again at the root."""


@dataclass(slots=True)
class Restoring:
    """`held` is what the journal has asked for meanwhile: it may not land before the state is there."""

    reader: SnapshotReader
    loader: Loader
    name: str
    held: list[BlobEffect] = field(default_factory=list)
    outcome: Restored | Gone | None = None

    @classmethod
    def of(cls, ids: Ids, lineage: str, pointer: SnapshotPointer) -> Restoring:
        reader = SnapshotReader(ids.op, lineage=lineage, pointer=pointer)
        return cls(reader, Loader(lineage), index_name(pointer.seq))

    @property
    def due_s(self) -> float:
        return self.reader.due_s

    def owns(self, op: OpId) -> bool:
        return self.reader.owns(op)

    def start(self) -> list[BlobEffect]:
        return self._follow(self.reader.start())

    def tick(self, now_s: float) -> list[BlobEffect]:
        return self._follow(self.reader.tick(now_s))

    def handle(self, event: BlobEvent, now_s: float) -> list[BlobEffect]:
        return self._follow(self.reader.handle(event, now_s))

    def _follow(self, effects: list[ReaderEffect]) -> list[BlobEffect]:
        wishes: list[BlobEffect] = []
        for effect in effects:
            match effect:
                case ShardFound(name, payload):
                    self.loader.take(name, payload)
                case SnapshotRead(shards=shards):
                    self.outcome = Restored(self.loader.finish(self.name), len(shards))
                case SnapshotGone():
                    self.outcome = Gone()
                case _:
                    wishes.append(effect)
        return wishes
