"""Moving a journal to another store: copy, seal what is left behind, copy the rest, then let the new one begin.

No order of crashes and no server that still runs makes two journals of it: the old root is replaced by one that every
version refuses, a sealing entry takes the number that its leader would write next, and each lease is moved by a swap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from storage.backup import put
from storage.blob import BlobName, BlobStore, Outcome
from storage.entry import (
    GENESIS,
    DecodedEntry,
    EntryHeader,
    EntryKind,
    encode_entry,
    entry_name,
)
from storage.errors import ContendedError, CorruptError, StoreError, StoreMovedError, UnavailableError
from storage.reading import list_names, read_entries
from storage.root import ROOT_NAME, decode_moved, decode_root, encode_moved

WRITER: Final = "muster:migrate"
TOMBSTONE: Final = b"moved"
"""In place of a lease: no relay can read it, so none renews what nobody observes any more."""
TRIES_MAX: Final = 100
"""Each lost race means that somebody else wrote: a server that runs writes a few times before it notices."""
LEFT_BEHIND: Final = ("root", "servers/", "selftest/", "journal/", "leases/")
"""What is not copied as it is: made anew, or moved with care."""
PROGRESS_EVERY: Final = 1_000

Progress = Callable[[str], None]


class OccupiedError(StoreError):
    """The new store holds a journal already."""

    def __init__(self, lineage: str) -> None:
        super().__init__(f"the new store holds a journal already (lineage {lineage}): choose an empty one")
        self.lineage = lineage


@dataclass(frozen=True, slots=True)
class Moved:
    """The journal goes on in the new store."""

    lineage: str
    first_seq: int
    last_seq: int
    head_digest: bytes
    leases: int


def move(
    source: BlobStore, target: BlobStore, *, target_url: str, nonce: str, progress: Progress = lambda _: None
) -> Moved:
    """Move the journal, its snapshot, leases and archive from `source` to `target`, which holds none.

    Afterwards `source` is refused by every server. An interrupted move is completed by calling this again with the same
    `target_url`; until it is, neither store serves. Raises OccupiedError, StoreMovedError (to elsewhere), CorruptError,
    UnavailableError, ContendedError. `nonce` is fresh.
    """
    root_data = _expect_movable(source, target, target_url)
    root = decode_root(root_data)
    progress("copying")
    last_seq, _ = _copy_entries(source, target, root.gc_floor + 1, progress)
    root_data = _seal_root(source, target_url)
    root = decode_root(root_data)
    from_seq = max(last_seq, root.gc_floor + 1)
    _seal_journal(source, from_seq, nonce)
    progress("the old store is sealed; copying the rest")
    last_seq, digest = _copy_entries(source, target, from_seq, progress)
    _copy_others(source, target, root.gc_floor)
    leases = _move_leases(source, target)
    put(target, ROOT_NAME, root_data)
    return Moved(root.lineage, root.gc_floor + 1, last_seq, digest, leases)


def _expect_movable(source: BlobStore, target: BlobStore, target_url: str) -> bytes:
    """The root of `source`, as it is or as it was before an interrupted move to the same place."""
    blob = source.get(ROOT_NAME)
    if blob is None:
        raise CorruptError(ROOT_NAME, "it is absent: there is no journal here")
    moved = decode_moved(blob.data)
    if moved is not None and moved[0] != target_url:
        raise StoreMovedError(moved[0])
    there = target.get(ROOT_NAME)
    root_data = moved[1] if moved is not None else blob.data
    if there is not None and (moved is None or there.data != root_data):
        raise OccupiedError(decode_root(there.data).lineage)
    return root_data


def _seal_root(source: BlobStore, target_url: str) -> bytes:
    """Replace the root by one that says where it went; what it was."""
    for _ in range(TRIES_MAX):
        blob = source.get(ROOT_NAME)
        if blob is None:
            raise CorruptError(ROOT_NAME, "it is gone")
        moved = decode_moved(blob.data)
        if moved is not None:
            return moved[1]
        if source.replace(ROOT_NAME, encode_moved(blob.data, target_url), blob.version).outcome is Outcome.DONE:
            return blob.data
    raise ContendedError(ROOT_NAME, TRIES_MAX)


def _seal_journal(source: BlobStore, from_seq: int, nonce: str) -> None:
    """Take the first free number from `from_seq` on by a TERM entry of our own. A leader's next create then fails, and
    whoever runs against it reads the root first."""
    start_seq = seq = from_seq
    term, digest = 0, GENESIS
    for tries in range(TRIES_MAX):
        last: DecodedEntry | None = None
        for entry in read_entries(source, start_seq):
            last = DecodedEntry(entry.header, entry.records, entry.digest)
            term = max(term, entry.header.term)
            if entry.header.writer == WRITER:
                return
        if last is not None:
            start_seq, seq, digest = last.header.seq, last.header.seq + 1, last.digest
        header = EntryHeader(
            seq=seq,
            term=term + 1,
            kind=EntryKind.TERM,
            writer=WRITER,
            nonce=f"{nonce}-{tries}",
            prev_digest=digest,
            count=0,
        )
        source.create(entry_name(seq), encode_entry(header))
    raise ContendedError(entry_name(seq), TRIES_MAX)


def _copy_entries(source: BlobStore, target: BlobStore, first_seq: int, progress: Progress) -> tuple[int, bytes]:
    """Entries from `first_seq` on, up to the seal; number and digest of the last one."""
    seq, digest, copied = first_seq - 1, GENESIS, 0
    for entry in read_entries(source, first_seq):
        if entry.header.writer == WRITER:
            break
        seq, digest = entry.header.seq, entry.digest
        copied += put(target, entry_name(seq), entry.data)
        if copied and copied % PROGRESS_EVERY == 0:
            progress(f"{copied} entries copied")
    return seq, digest


def _copy_others(source: BlobStore, target: BlobStore, gc_floor: int) -> None:
    """Snapshots, archive, entries that are not collected yet, and what later versions may keep."""
    for name in list_names(source):
        seq = name.rpartition("/")[2]
        collectable = name.startswith("journal/") and seq.isdecimal() and int(seq) <= gc_floor
        if collectable or not name.startswith(LEFT_BEHIND):
            blob = source.get(name)
            if blob is not None:
                put(target, name, blob.data)


def _move_leases(source: BlobStore, target: BlobStore) -> int:
    """Each lease in turn: written there, then replaced here against the very version that was copied."""
    names = list(list_names(source, "leases/"))
    for name in names:
        _move_lease(source, target, name)
    return len(names)


def _move_lease(source: BlobStore, target: BlobStore, name: BlobName) -> None:
    for _ in range(TRIES_MAX):
        blob = source.get(name)
        if blob is None or blob.data == TOMBSTONE:
            return
        there = target.get(name)
        if there is None or there.data != blob.data:
            written = target.replace(name, blob.data, there.version) if there else target.create(name, blob.data)
            if written.outcome is not Outcome.DONE:
                raise UnavailableError("write", name, written.why or written.outcome.value)
        if source.replace(name, TOMBSTONE, blob.version).outcome is Outcome.DONE:
            return
    raise ContendedError(name, TRIES_MAX)
