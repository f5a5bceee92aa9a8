"""Proof over a whole store that nothing a server would read is missing or altered: the snapshot to which the root
points, every entry above the floor of collection, and the archive below it. Reads only; the first bad one ends it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from storage.archive import ARCHIVE_PREFIX, archived_name, kept_entry, oldest_kept
from storage.blob import Blob, BlobName, BlobStore
from storage.election import Standing, standing
from storage.entry import (
    GENESIS,
    PREFIX_COUNT,
    SEQ_FIRST,
    DecodedEntry,
    EntryKind,
    decode_entry,
    entry_name,
    entry_prefix,
    expect_follows,
)
from storage.errors import CorruptError, UnsupportedFormatError
from storage.finished import check_parts
from storage.root import ROOT_NAME, Root, SnapshotPointer, decode_root
from storage.snapshot import decode_index, decode_shard, index_name

ATTEMPTS_MAX: Final = 3
"""How often all is read again because the server took a snapshot meanwhile."""
_STRAY_LIMIT: Final = 1
"""One name beyond the end is enough to show a hole."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What was read, and the first thing wrong with it."""

    lineage: str
    first_seq: int
    entry_count: int
    record_count: int
    void_count: int
    term: int
    head_digest: bytes
    """Equal on two stores only if they hold the same entries."""
    bad: CorruptError | UnsupportedFormatError | None
    shard_count: int = 0
    """Of the snapshot."""
    archived_count: int = 0
    """Entries at or below the floor that are in the archive, among `entry_count`."""
    finished_count: int = 0
    """Parts in which finished groups are kept."""


def verify(store: BlobStore) -> Verified:
    """Read snapshot, entries and archive. O(entries + shards); raises UnavailableError.

    Entries are read from the oldest archived one, or the first above the floor, to the end; their chain must reach the
    snapshot's digest. Safe beside a running server: if it takes a snapshot meanwhile, all is read again. Raises
    CorruptError only when there is no readable root, so that nothing can be said.
    """
    root = _root(store)
    verified = _verify(store, root)
    for _ in range(ATTEMPTS_MAX):
        before, root = root, _root(store)
        if verified.bad is None or root == before:
            break
        verified = _verify(store, root)
    return verified


def expect_no_hole(store: BlobStore) -> None:
    """Return if every entry from the snapshot (or the first) to the newest exists; CorruptError names the first absent.

    What a server checks before it starts: by itself it would take a hole for the end, and write there. Names only,
    O(entries after the snapshot).
    """
    if store.get(ROOT_NAME) is None:
        return
    root = _root(store)
    last = root.snapshot.seq if root.snapshot is not None else 0
    seqs = sorted(seq for spread in range(PREFIX_COUNT) for seq in _seqs_after(store, entry_prefix(spread), last))
    for expected, seq in enumerate(seqs, start=last + 1):
        if seq != expected:  # what landed between two of the listings is no hole
            if store.get(entry_name(expected)) is None:
                raise CorruptError(entry_name(expected), f"it is missing, and entry {seq} exists", seq=expected)
            return


def _seqs_after(store: BlobStore, prefix: str, seq: int) -> Iterator[int]:
    start = f"{prefix}{seq:016d}"
    while page := store.list(prefix, start):
        yield from (int(name.rpartition("/")[2]) for name in page)
        start = page[-1]


def _root(store: BlobStore) -> Root:
    blob = store.get(ROOT_NAME)
    if blob is None:
        raise CorruptError(ROOT_NAME, "it is absent: there is no journal here")
    return decode_root(blob.data)


def _verify(store: BlobStore, root: Root) -> Verified:
    walk = _Walk(store, root)
    shard_count = finished_count = 0
    bad: CorruptError | UnsupportedFormatError | None = None
    try:
        if root.snapshot is not None:
            shard_count = _verify_snapshot(store, root.snapshot, root.lineage)
        while walk.step():
            pass
        walk.expect_end()
        finished_count = check_parts(store)
    except (CorruptError, UnsupportedFormatError) as error:
        bad = error
    return Verified(
        root.lineage,
        walk.first_seq,
        entry_count=walk.seq - walk.first_seq,
        record_count=walk.record_count,
        void_count=walk.void_count,
        term=walk.term or 0,
        head_digest=walk.digest or GENESIS,
        bad=bad,
        shard_count=shard_count,
        archived_count=walk.archived_count,
        finished_count=finished_count,
    )


def _verify_snapshot(store: BlobStore, pointer: SnapshotPointer, lineage: str) -> int:
    """How many shards it has, all of them as they were written."""
    index = decode_index(_part(store, index_name(pointer.seq), pointer), pointer, lineage)
    for ref in index.shards:
        name = BlobName(ref.name)
        decode_shard(name, _part(store, name, pointer), ref.digest)
    return len(index.shards)


def _part(store: BlobStore, name: BlobName, pointer: SnapshotPointer) -> bytes:
    blob = store.get(name)
    if blob is None:
        raise CorruptError(name, "it is missing, and the root points to it", seq=pointer.seq)
    return blob.data


class _Walk:
    """Where the reading stands: everything before `seq` was good."""

    def __init__(self, store: BlobStore, root: Root) -> None:
        self._store = store
        self._floor = root.gc_floor
        self._pointer = root.snapshot
        self.first_seq = self.seq = oldest_kept(store, root.gc_floor)
        self.term: int | None = 0 if self.seq == SEQ_FIRST else None
        self.digest: bytes | None = GENESIS if self.seq == SEQ_FIRST else None  # None: whatever the first one follows
        self.record_count = 0
        self.void_count = 0
        self.archived_count = 0

    def step(self) -> bool:
        """Check one entry; False when there is none."""
        if self._pointer is not None and self.seq == self._pointer.seq + 1:
            self._meet(self._pointer)
        found = kept_entry(self._store, self.seq, self._floor) if self.seq <= self._floor else self._above_floor()
        if found is None:
            if self._pointer is not None and self.seq <= self._pointer.seq:
                name = archived_name(self.seq) if self.seq <= self._floor else entry_name(self.seq)
                raise CorruptError(name, "it is missing, and later ones exist", seq=self.seq)
            return False
        name, blob = found
        self.archived_count += name.startswith(ARCHIVE_PREFIX)
        try:
            self._check(decode_entry(blob.data, self.seq))
        except CorruptError as error:
            raise CorruptError(name, error.why, seq=error.seq) from error
        return True

    def _above_floor(self) -> tuple[BlobName, Blob] | None:
        name = entry_name(self.seq)
        blob = self._store.get(name)
        return None if blob is None else (name, blob)

    def _meet(self, pointer: SnapshotPointer) -> None:
        """The snapshot is of exactly the entries before."""
        if self.digest is not None and self.digest != pointer.digest:
            raise CorruptError(entry_name(pointer.seq), "it is not the one that the snapshot stands on", pointer.seq)
        self.digest = pointer.digest
        self.term = pointer.term

    def _check(self, decoded: DecodedEntry) -> None:
        header = decoded.header
        if self.digest is not None:
            expect_follows(decoded, self.digest)
        if self.term is None:
            self.term = header.term  # nothing before it is there to judge it by
        if standing(header, self.term) is Standing.VOID:
            self.void_count += 1
        elif header.kind is EntryKind.TERM:
            self.term = header.term
        self.record_count += header.count
        self.digest = decoded.digest
        self.seq += 1

    def expect_end(self) -> None:
        """Raise CorruptError when later entries exist: then the first absent one is a hole."""
        for spread in range(PREFIX_COUNT):
            prefix = entry_prefix(spread)
            beyond = self._store.list(prefix, start=f"{prefix}{self.seq:016d}", limit=_STRAY_LIMIT)
            if beyond and self._store.get(entry_name(self.seq)) is None:
                raise CorruptError(entry_name(self.seq), f"it is missing, and {beyond[0]} exists", seq=self.seq)
