"""The journal read as a log, for people and copies: entries in order, judged like a replica does. Reads only.

Beside a running server this is a prefix of its journal: what lands meanwhile may or may not be seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from storage.archive import kept_entry
from storage.blob import LIST_LIMIT, BlobName, BlobStore
from storage.entry import (
    PREFIX_COUNT,
    SEQ_FIRST,
    EntryHeader,
    EntryKind,
    decode_entry,
    entry_prefix,
    expect_follows,
    position,
)
from storage.errors import CorruptError
from storage.root import ROOT_NAME, Root, decode_moved, decode_root

NAMES_MAX: Final = 10_000_000
"""Names in one store: at a batch a second, four months without garbage collection; more is no store of ours."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One entry as read. `void` ones were written by a leader that had been replaced: they say nothing."""

    header: EntryHeader
    records: tuple[bytes, ...]
    data: bytes
    digest: bytes
    void: bool

    @property
    def first_position(self) -> int:
        return position(self.header.seq)


def read_root(store: BlobStore) -> Root:
    """The root; CorruptError where there is none, or none that can be read."""
    blob = store.get(ROOT_NAME)
    if blob is None:
        raise CorruptError(ROOT_NAME, "it is absent: there is no journal here")
    return decode_root(blob.data)


def read_entries(store: BlobStore, first_seq: int = SEQ_FIRST) -> Iterator[LogEntry]:
    """Entries from `first_seq` to the first free number, each proven to follow the one before it; archived ones too.

    Raises CorruptError or UnsupportedFormatError at the first that does not. Of entries whose term began before
    `first_seq` the void ones cannot be told from the others.
    """
    seq, term, digest, gc_floor = first_seq, 0, None, _floor_of(store)
    while (found := kept_entry(store, seq, gc_floor)) is not None:
        blob = found[1]
        decoded = decode_entry(blob.data, seq)
        if digest is not None:
            expect_follows(decoded, digest)
        header = decoded.header
        void = header.term < term or (header.kind is EntryKind.TERM and header.term == term)
        term = max(term, header.term)
        yield LogEntry(header, decoded.records, blob.data, decoded.digest, void)
        seq, digest = seq + 1, decoded.digest


def _floor_of(store: BlobStore) -> int:
    """That of a store which was moved away is read as well; 0 where there is no root."""
    blob = store.get(ROOT_NAME)
    if blob is None:
        return 0
    moved = decode_moved(blob.data)
    return decode_root(moved[1] if moved is not None else blob.data).gc_floor


def list_names(store: BlobStore, prefix: str = "") -> Iterator[BlobName]:
    """All names that begin with `prefix`, in order, page by page."""
    start = ""
    for _ in range(0, NAMES_MAX, LIST_LIMIT):
        page = store.list(prefix, start)
        yield from page
        if len(page) < LIST_LIMIT:
            return
        start = page[-1]


def entry_bounds(store: BlobStore) -> tuple[int, int, int]:
    """Lowest and highest entry number there is, and how many entries; zeros for none. O(entries), of names only."""
    names = (name for spread in range(PREFIX_COUNT) for name in list_names(store, entry_prefix(spread)))
    seqs = [int(name.rpartition("/")[2]) for name in names]
    return (min(seqs), max(seqs), len(seqs)) if seqs else (0, 0, 0)
