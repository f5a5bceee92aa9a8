"""S12: the snapshot that a root names can be read, and holds what the journal up to it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from federation.core.load import Loader
from federation.core.records import decode_record
from federation.core.shards import UnreadableShardError
from federation.core.state import FoldError, State
from placement.model import Lineage, Position
from storage.blob import Blob, BlobName
from storage.entry import EntryKind, decode_entry, entry_name, position
from storage.errors import CorruptError
from storage.root import ROOT_NAME, Root, decode_root
from storage.snapshot import decode_index, decode_shard, index_name
from tests.world.violation import ViolationError


def facts(state: State) -> dict[str, Any]:
    """Everything a state knows, with the order of what has one."""
    return {
        "lineage": state.lineage,
        "head": state.head,
        "clock_ms": state.clock_ms,
        "recovering_since": state.recovering_since,
        "groups": list(state.groups.items()),
        "clusters": [
            (row, list(row.homes.items()), list(row.tokens.items()), list(row.ended.items()))
            for row in state.clusters.values()
        ],
        "queues": list(state.queues.items()),
        "names": state.names,
        "names_ended": state.names_ended,
        "spreads": state.spreads,
        "beside": state.beside,
        "requests": list(state.requests.items()),
        "pending": state.pending,
        "finished": list(state.finished),
        "specs": state.specs,
        "leaving": (list(state.leaving.items()), state.leaving_bytes),
        "parts": (list(state.parts), state.parts_count),
    }


class PictureChecker:
    """Of one store. Folds every entry by itself, from the first, or from the snapshot that a restore has put there."""

    def __init__(self, blobs: Mapping[str, Blob], landed: Mapping[str, bytes]) -> None:
        self._blobs = blobs
        self._landed = landed
        self._state: State | None = None
        self._seq = 0
        self._term = 0

    def filled(self) -> None:
        """What is there was restored: the journal goes on from its snapshot."""
        root = decode_root(self._blobs[ROOT_NAME].data)
        assert root.snapshot is not None
        self._state, self._seq, self._term = self._load(root), root.snapshot.seq, root.snapshot.term

    def root_written(self, data: bytes) -> None:
        root = decode_root(data)
        if root.snapshot is None or root.snapshot.seq <= self._seq:
            return
        found = facts(self._load(root))
        known = facts(self._followed(root.lineage, root.snapshot.seq))
        if different := [name for name, fact in known.items() if found[name] != fact]:
            raise ViolationError("S12", f"the snapshot of entry {self._seq} has other {', '.join(different)}")

    def _load(self, root: Root) -> State:
        pointer = root.snapshot
        assert pointer is not None
        loader = Loader(root.lineage)
        try:
            index = decode_index(self._blobs[index_name(pointer.seq)].data, pointer, root.lineage)
            for shard in index.shards:
                name = BlobName(shard.name)
                loader.take(shard.name, decode_shard(name, self._blobs[name].data, shard.digest))
            return loader.finish(index_name(pointer.seq))
        except (KeyError, CorruptError, UnreadableShardError) as error:
            raise ViolationError("S12", f"the snapshot of entry {pointer.seq} cannot be read: {error}") from error

    def _followed(self, lineage: str, seq: int) -> State:
        state = self._state = self._state or State(Lineage(lineage))
        while self._seq < seq:
            self._seq += 1
            self._fold(state, self._entry(self._seq))
        return state

    def _entry(self, seq: int) -> bytes:
        """What landed there first, or what a restore has put there."""
        name = entry_name(seq)
        if name not in self._landed and name not in self._blobs:
            raise ViolationError("S12", f"a snapshot holds entry {seq}, which never landed")
        return self._landed[name] if name in self._landed else self._blobs[name].data

    def _fold(self, state: State, data: bytes) -> None:
        """Entries of a leader that had been replaced say nothing."""
        entry = decode_entry(data, self._seq)
        header = entry.header
        void = header.term < self._term or (header.kind is EntryKind.TERM and header.term == self._term)
        self._term = max(self._term, header.term)
        first = position(self._seq)
        try:
            for at, record in enumerate(entry.records) if not void else ():
                state.apply(Position(first + at), decode_record(record, Position(first + at)), record)
        except FoldError as error:
            raise ViolationError("S12", f"a snapshot holds entry {self._seq}, which contradicts it: {error}") from error
        state.reached(Position(first + max(len(entry.records) - 1, 0)))
