"""The leader's hand in the archive: writes the part that is due, then proposes the record that says so. Sans-IO.

One part at a time, beside the batches. Whatever fails is tried again: the part of that number always holds the same.
"""

from __future__ import annotations

from typing import Final

from federation.core import formats
from federation.core.archive import archived, is_due, next_part, rows_of
from federation.core.books import PARTS_KEPT_MAX
from federation.core.ids import Ids
from federation.core.records import Archived
from federation.core.shards import UnreadableShardError
from federation.core.state import State
from storage.blob import (
    BlobCreate,
    BlobDelete,
    BlobEffect,
    BlobEvent,
    BlobGet,
    BlobRead,
    BlobWritten,
    OpId,
    Outcome,
)
from storage.errors import CorruptError, UnsupportedFormatError
from storage.finished import part_name
from storage.root import FORMAT

ACTOR: Final = "muster:archive"
RETRY_S: Final = 10.0  # the store is in trouble, and what waits is in memory meanwhile

_NEVER: Final = float("inf")


class Archiver:
    """One replica's. Only the leader writes."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self._leading = False
        self._op: OpId | None = None
        self._deletes: set[OpId] = set()
        self._number = 0  # of the part in hand
        self._data = b""
        self._stored = False
        self._again_s = 0.0
        self.trouble = ""  # why a part cannot be written, for people

    def lead(self, now_s: float) -> None:
        self._leading, self._again_s = True, now_s

    def follow(self) -> None:
        """Whoever leads next writes the same part."""
        self._leading, self._stored, self._number = False, False, 0

    def owns(self, op: OpId) -> bool:
        return op == self._op or op in self._deletes

    def tick(self, state: State, now_s: float, *, store_format: int = FORMAT) -> list[BlobEffect]:
        """Begin the next part where one is due; forget the one whose record has landed.

        Only in a store of a format that has parts: until then groups wait in memory, the oldest in vain.
        """
        if self._number and state.parts_count >= self._number:
            self._number, self._stored, self._data = 0, False, b""
        idle = self._leading and self._op is None and not self._stored and now_s >= self._again_s
        if store_format < formats.ARCHIVE or not idle or not is_due(state):
            return []
        self._number, self._data = state.parts_count + 1, next_part(state)
        self._op = self._ids.op()
        return [BlobCreate(self._op, part_name(self._number), self._data), *self._forget_oldest()]

    def handle(self, event: BlobEvent, now_s: float) -> list[BlobEffect]:
        """Take the answer to one of its effects."""
        if event.op in self._deletes:
            self._deletes.discard(event.op)
            return []
        self._op = None
        if not self._number:
            return []
        match event:
            case BlobWritten(outcome=Outcome.DONE):
                self._stored = True
            case BlobWritten():
                self._op = self._ids.op()
                return [BlobGet(self._op, part_name(self._number))]
            case BlobRead(blob=blob) if blob is not None:
                self._found(blob.data, now_s)
            case _:
                self._again_s = now_s + RETRY_S
        return []

    def _found(self, data: bytes, now_s: float) -> None:
        """Another leader wrote this part: what is there is the part, if it is one."""
        try:
            rows_of(self._number, data)
        except (CorruptError, UnsupportedFormatError, UnreadableShardError) as error:
            self.trouble = str(error)
            self._again_s = now_s + RETRY_S
        else:
            self._data, self._stored, self.trouble = data, True, ""

    def has_news(self, state: State) -> bool:
        """Whether a part is stored and not on record yet."""
        return self._leading and self._stored and state.parts_count < self._number

    def proposal(self, state: State, *, at_ms: int) -> Archived | None:
        """The record for that part."""
        return archived(self._number, self._data, at_ms=at_ms, actor=ACTOR) if self.has_news(state) else None

    def _forget_oldest(self) -> list[BlobEffect]:
        """What no server finds any more once this part is on record. Left behind by a crash, it harms nobody."""
        oldest = self._number - PARTS_KEPT_MAX
        if oldest < 1:
            return []
        op = self._ids.op()
        self._deletes.add(op)
        return [BlobDelete(op, part_name(oldest))]
