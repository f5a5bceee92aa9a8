"""Proof over a whole store that no journal entry is missing or altered. Reads only; the first bad one ends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from storage.blob import BlobStore
from storage.election import Standing, standing
from storage.entry import (
    GENESIS,
    PREFIX_COUNT,
    SEQ_FIRST,
    EntryKind,
    decode_entry,
    entry_name,
    entry_prefix,
    expect_follows,
)
from storage.errors import CorruptError, UnsupportedFormatError
from storage.root import ROOT_NAME, decode_root

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


def verify(store: BlobStore) -> Verified:
    """Read every entry from the snapshot (or the first) on. O(entries); raises UnavailableError.

    Safe beside a running server; entries that land meanwhile may or may not be counted. Raises CorruptError only
    when there is no readable root, so that nothing can be said about entries.
    """
    blob = store.get(ROOT_NAME)
    if blob is None:
        raise CorruptError(ROOT_NAME, "it is absent: there is no journal here")
    root = decode_root(blob.data)
    start = root.snapshot
    walk = _Walk(store, *((start.seq + 1, start.term, start.digest) if start else (SEQ_FIRST, 0, GENESIS)))
    first_seq = walk.seq
    bad: CorruptError | UnsupportedFormatError | None = None
    try:
        while walk.step():
            pass
        walk.expect_end()
    except (CorruptError, UnsupportedFormatError) as error:
        bad = error
    return Verified(
        root.lineage,
        first_seq,
        entry_count=walk.seq - first_seq,
        record_count=walk.record_count,
        void_count=walk.void_count,
        term=walk.term,
        head_digest=walk.digest,
        bad=bad,
    )


class _Walk:
    """Where the reading stands: everything before `seq` was good."""

    def __init__(self, store: BlobStore, seq: int, term: int, digest: bytes) -> None:
        self._store = store
        self.seq = seq
        self.term = term
        self.digest = digest
        self.record_count = 0
        self.void_count = 0

    def step(self) -> bool:
        """Check one entry; False when there is none."""
        blob = self._store.get(entry_name(self.seq))
        if blob is None:
            return False
        decoded = decode_entry(blob.data, self.seq)
        header = decoded.header
        expect_follows(decoded, self.digest)
        if standing(header, self.term) is Standing.VOID:
            self.void_count += 1
        elif header.kind is EntryKind.TERM:
            self.term = header.term
        self.record_count += header.count
        self.digest = decoded.digest
        self.seq += 1
        return True

    def expect_end(self) -> None:
        """Raise CorruptError when later entries exist: then the first absent one is a hole."""
        for spread in range(PREFIX_COUNT):
            prefix = entry_prefix(spread)
            beyond = self._store.list(prefix, start=f"{prefix}{self.seq:016d}", limit=_STRAY_LIMIT)
            if beyond and self._store.get(entry_name(self.seq)) is None:
                raise CorruptError(entry_name(self.seq), f"it is missing, and {beyond[0]} exists", seq=self.seq)
