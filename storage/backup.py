"""Backups: a prefix of the journal, the snapshot it goes on from, archived groups, and the root, under names that no
server takes for its own. Made beside a running server; made again into the same place, only what is new is copied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from storage.blob import BlobName, BlobStore, Outcome
from storage.entry import SEQ_FIRST, entry_name
from storage.errors import CorruptError, StoreError, UnavailableError, UnsupportedFormatError
from storage.finished import FINISHED_PREFIX
from storage.prefixed import PrefixedStore
from storage.reading import list_names, read_entries
from storage.root import ROOT_NAME, Root, decode_root

BACKUP_PREFIX: Final = "backup/"
MANIFEST_NAME: Final = BlobName("MANIFEST")
SNAPSHOT_PREFIX: Final = "snapshot/"
FORMAT: Final = 1
ATTEMPTS_MAX: Final = 5
"""A backup during which the server took five snapshots copies slower than the journal grows."""
PROGRESS_EVERY: Final = 1_000

Progress = Callable[[str], None]


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds; written last. Unknown fields of later versions are ignored."""

    format: int
    lineage: str
    made_ms: int
    """Wall time at which it was begun: what was acknowledged later may be missing."""
    first_seq: int
    last_seq: int
    head_digest: bytes
    entries: int
    """From `first_seq` to `last_seq`."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Manifest)


class ForeignBackupError(StoreError):
    """The place holds a backup of another journal, or of this one before a restore."""

    def __init__(self, found: str, wanted: str) -> None:
        super().__init__(f"the place holds a backup of lineage {found}, not of {wanted}: choose another place")
        self.found = found
        self.wanted = wanted


@dataclass(frozen=True, slots=True)
class BackedUp:
    """A backup that is complete: `copied` entries were not there before."""

    manifest: Manifest
    copied: int


def view(place: BlobStore) -> PrefixedStore:
    """The backup in `place` as a store that can be read and verified like the one it was made of."""
    return PrefixedStore(place, BACKUP_PREFIX)


def read_manifest(place: BlobStore) -> Manifest | None:
    """What the backup in `place` holds, or None when there is none; CorruptError when it cannot be read."""
    blob = view(place).get(MANIFEST_NAME)
    if blob is None:
        return None
    try:
        manifest = _decoder.decode(blob.data)
    except msgspec.MsgspecError as error:
        raise CorruptError(BACKUP_PREFIX + MANIFEST_NAME, f"it cannot be read ({error})") from error
    if manifest.format > FORMAT:
        raise UnsupportedFormatError("backup", str(manifest.format), f"{FORMAT} and older")
    return manifest


def back_up(source: BlobStore, place: BlobStore, *, made_ms: int, progress: Progress = lambda _: None) -> BackedUp:
    """Copy a consistent prefix of `source` into `place`. O(what is new).

    Every copied entry is proven to follow the one before it. Raises CorruptError for the first that does not, then
    nothing of an earlier backup in `place` is lost; ForeignBackupError; UnavailableError.
    """
    kept = view(place)
    before = read_manifest(place)
    for _ in range(ATTEMPTS_MAX):
        root_data, root = _root(source)
        if before is not None and before.lineage != root.lineage:
            raise ForeignBackupError(before.lineage, root.lineage)
        first_seq = root.gc_floor + 1
        resumed = before is not None and first_seq <= before.last_seq
        start_seq = before.last_seq if before is not None and resumed else first_seq
        parts = _copy_parts(source, kept, SNAPSHOT_PREFIX)
        last_seq, head_digest, copied = _copy_entries(source, kept, start_seq, progress)
        _copy_parts(source, kept, FINISHED_PREFIX)  # last: what a copied entry says is archived is nowhere else
        if _root(source)[1].snapshot == root.snapshot:
            break
        progress("a snapshot was taken meanwhile: again")
    else:
        raise UnavailableError("backup", ROOT_NAME, f"the snapshot changed during each of {ATTEMPTS_MAX} attempts")
    put(kept, ROOT_NAME, root_data)
    kept_first = before.first_seq if before is not None and resumed else first_seq
    manifest = Manifest(
        FORMAT, root.lineage, made_ms, kept_first, last_seq, head_digest, max(0, last_seq - kept_first + 1)
    )
    put(kept, MANIFEST_NAME, _encoder.encode(manifest))
    for name in list_names(kept, SNAPSHOT_PREFIX):
        if name not in parts:
            kept.delete(name)
    return BackedUp(manifest, copied)


def _root(source: BlobStore) -> tuple[bytes, Root]:
    blob = source.get(ROOT_NAME)
    if blob is None:
        raise CorruptError(ROOT_NAME, "it is absent: there is no journal here")
    return blob.data, decode_root(blob.data)


def _copy_parts(source: BlobStore, kept: BlobStore, prefix: str) -> set[str]:
    """The parts of all snapshots, or of the archive of groups, that there are; those of an old one may go meanwhile."""
    there = set(list_names(kept, prefix))
    parts: set[str] = set()
    for name in list_names(source, prefix):
        parts.add(name)
        blob = source.get(name) if name not in there else None
        if blob is not None:
            put(kept, name, blob.data)
    return parts


def _copy_entries(source: BlobStore, kept: BlobStore, start_seq: int, progress: Progress) -> tuple[int, bytes, int]:
    """Last entry there, its digest, and how many were copied. The first one may be there already, and equal."""
    seq, digest, copied = start_seq - 1, b"", 0
    for entry in read_entries(source, max(SEQ_FIRST, start_seq)):
        seq, digest = entry.header.seq, entry.digest
        copied += put(kept, entry_name(seq), entry.data)
        if copied and copied % PROGRESS_EVERY == 0:
            progress(f"{copied} entries copied")
    return seq, digest, copied


def put(store: BlobStore, name: BlobName, data: bytes) -> bool:
    """Have `name` hold `data`; whether it did not before. Entries never change: CorruptError where another one is.

    The root and the manifest of a backup are replaced.
    """
    found = store.get(name)
    if found is not None and found.data == data:
        return False
    if found is not None and name not in {ROOT_NAME, MANIFEST_NAME}:
        raise CorruptError(name, "it is there already and differs: these are two journals, or a damaged copy")
    written = store.create(name, data) if found is None else store.replace(name, data, found.version)
    if written.outcome is not Outcome.DONE:
        raise UnavailableError("write", name, written.why or written.outcome.value)
    return True
