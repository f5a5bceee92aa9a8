"""Deletes what the root no longer needs: entries up to its floor, and parts of earlier snapshots. Sans-IO.

Only what the root, as it stands in the store, already declares dispensable: so a crash at any step leaves orphans and
nothing else, and the next collection finds them. Of a snapshot later than the root's nothing is touched: another server
may be writing it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, assert_never

from storage.archive import archived_name
from storage.blob import (
    LIST_LIMIT,
    BlobCreate,
    BlobDelete,
    BlobDeleted,
    BlobEffect,
    BlobEvent,
    BlobFailed,
    BlobGet,
    BlobList,
    BlobListed,
    BlobName,
    BlobRead,
    BlobWritten,
    OpId,
    Outcome,
)
from storage.entry import PREFIX_COUNT, entry_prefix
from storage.errors import LocalProtocolError
from storage.root import Root
from storage.snapshot import SNAPSHOT_PREFIX, ShardRef, index_name, seq_of_part

IN_FLIGHT_MAX: Final = 8
"""As for shards: hides latency, and leaves the store for others."""


@dataclass(slots=True)
class _Listing:
    prefix: str
    start: str = ""


@dataclass(slots=True)
class _Removal:
    """One name to delete; `archive_as` is where its bytes must be before."""

    name: BlobName
    archive_as: BlobName | None
    looks_back: bool = False
    """The copy was refused: is it there already?"""


class Collector:
    """One collection under one root. Ends at the first operation that is not answered; the next one goes on."""

    def __init__(self, new_op: Callable[[], OpId], *, root: Root, refs: tuple[ShardRef, ...], archive: bool) -> None:
        """`refs`: the shards that the snapshot of `root` consists of."""
        assert root.snapshot is not None
        self._new_op = new_op
        self._floor = root.gc_floor
        self._snapshot_seq = root.snapshot.seq
        self._kept = {ref.name for ref in refs} | {index_name(root.snapshot.seq)}
        self._archive = archive
        prefixes = [entry_prefix(spread) for spread in range(PREFIX_COUNT)] if self._floor else []
        self._listings = deque(_Listing(prefix) for prefix in (*prefixes, SNAPSHOT_PREFIX))
        self._removals: deque[_Removal] = deque()
        self._in_flight: dict[OpId, _Listing | _Removal] = {}
        self.entries_count = 0
        self.parts_count = 0
        self.failed = False

    @property
    def idle(self) -> bool:
        return not self._in_flight

    @property
    def done(self) -> bool:
        """Over, well or not; nothing is under way."""
        return self.idle and (self.failed or not (self._listings or self._removals))

    def owns(self, op: OpId) -> bool:
        return op in self._in_flight

    def start(self) -> list[BlobEffect]:
        return self._go_on()

    def stop(self) -> None:
        """Ask for nothing more."""
        self.failed = True

    def handle(self, event: BlobEvent) -> list[BlobEffect]:
        work = self._in_flight.pop(event.op, None)
        if work is None:
            raise LocalProtocolError(f"answer to operation {event.op}, which is not under way")
        if self.failed:
            return []
        match work:
            case _Listing():
                self._listed(work, event)
                return self._go_on()
            case _Removal():
                return self._removed(work, event) + self._go_on()
            case _:
                assert_never(work)

    def _go_on(self) -> list[BlobEffect]:
        effects: list[BlobEffect] = []
        while not self.failed and len(self._in_flight) < IN_FLIGHT_MAX:
            if self._removals:
                removal = self._removals.popleft()
                op = self._begin(removal)
                effects.append(
                    BlobDelete(op, removal.name) if removal.archive_as is None else BlobGet(op, removal.name)
                )
            elif self._listings:
                listing = self._listings.popleft()
                effects.append(BlobList(self._begin(listing), listing.prefix, listing.start))
            else:
                break
        return effects

    def _begin(self, work: _Listing | _Removal) -> OpId:
        op = self._new_op()
        self._in_flight[op] = work
        return op

    def _delete(self, removal: _Removal) -> BlobEffect:
        return BlobDelete(self._begin(removal), removal.name)

    def _read(self, removal: _Removal, name: BlobName) -> BlobEffect:
        return BlobGet(self._begin(removal), name)

    def _listed(self, listing: _Listing, event: BlobEvent) -> None:
        if not isinstance(event, BlobListed):
            self.failed = True
            return
        wanted = [name for name in event.names if self._dispensable(name)]
        self._removals.extend(_Removal(name, self._archive_as(name)) for name in wanted)
        in_order = listing.prefix != SNAPSHOT_PREFIX  # of entries the rest is younger still
        more = len(event.names) >= LIST_LIMIT and not (in_order and len(wanted) < len(event.names))
        if more:
            self._listings.append(_Listing(listing.prefix, event.names[-1]))

    def _dispensable(self, name: BlobName) -> bool:
        if name.startswith(SNAPSHOT_PREFIX):
            seq = seq_of_part(name)
            return seq is not None and seq < self._snapshot_seq and name not in self._kept
        seq_text = name.rpartition("/")[2]
        return seq_text.isascii() and seq_text.isdigit() and int(seq_text) <= self._floor

    def _archive_as(self, name: BlobName) -> BlobName | None:
        if not self._archive or name.startswith(SNAPSHOT_PREFIX):
            return None
        return archived_name(int(name.rpartition("/")[2]))

    def _removed(self, removal: _Removal, event: BlobEvent) -> list[BlobEffect]:
        match event:
            case BlobDeleted():
                is_part = removal.name.startswith(SNAPSHOT_PREFIX)
                self.parts_count += is_part
                self.entries_count += not is_part
                return []
            case BlobRead(blob=blob) if removal.looks_back:
                self.failed |= blob is None  # a store may refuse for other reasons than that it is there
                return [] if blob is None else [self._delete(removal)]
            case BlobRead(blob=None):
                return []  # another server collects too
            case BlobRead(blob=blob) if blob is not None:
                assert removal.archive_as is not None
                return [BlobCreate(self._begin(removal), removal.archive_as, blob.data)]
            case BlobWritten(outcome=Outcome.DONE):
                return [self._delete(removal)]
            case BlobWritten(outcome=Outcome.REFUSED):
                assert removal.archive_as is not None
                removal.looks_back = True
                return [self._read(removal, removal.archive_as)]
            case BlobWritten() | BlobFailed():
                self.failed = True
                return []
            case _:
                raise LocalProtocolError(f"{type(event).__name__} answers no effect of a collection")
