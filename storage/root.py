"""The one mutable blob of a journal: which format, which lineage, what was snapshotted and what may be gone.

Written at most once in a while by compare-and-swap. The journal only reads it, and creates the first one.
"""

from __future__ import annotations

from typing import Final

import msgspec

from storage.blob import BlobName
from storage.errors import CorruptError, StoreMovedError, UnsupportedFormatError

ROOT_NAME: Final = BlobName("root")
FORMAT_MOVED: Final = 1_000_000
"""No version will write it: also those that know nothing of moved stores refuse one."""
FORMAT_FIRST: Final = 1
FORMAT: Final = 5
"""What this version may write; it reads this one and older. What came with which is in `federation/core/formats.py`."""


class SnapshotPointer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A complete snapshot of the fold of all entries up to `seq`, and what is needed to read on from there."""

    seq: int
    term: int
    """Newest term up to `seq`."""
    digest: bytes
    """Digest of entry `seq`."""
    term_writer: str = ""
    """Who won `term`: a leader that restarts knows by it that it may lead again."""
    index_digest: bytes = b""
    """Digest of the snapshot's INDEX; empty while the snapshot is being written."""


class Root(msgspec.Struct, frozen=True):
    """The root as stored. Unknown fields of later versions are ignored."""

    format: int
    lineage: str
    nonce: str
    """Of the writer: makes two states of the root differ even when they say the same."""
    snapshot: SnapshotPointer | None = None
    gc_floor: int = 0
    """Entries up to this number may have been deleted: nothing at or below it counts as appended."""


class _RootFormat(msgspec.Struct):
    format: int
    moved_to: str = ""


class _MovedRoot(msgspec.Struct, frozen=True):
    """What stands in the place of the root of a store that was moved."""

    format: int
    moved_to: str
    was: str
    """The root as it was, for the one who moves it to go on after an interruption."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Root)
_moved_decoder = msgspec.json.Decoder(_MovedRoot)
_format_decoder = msgspec.json.Decoder(_RootFormat)


def new_lineage(utc_ms: int, nonce: str) -> str:
    """Name of a lineage begun at that time; later lineages sort higher."""
    return f"{utc_ms:013d}-{nonce}"


def encode_root(root: Root) -> bytes:
    """Return the bytes of the root: JSON, since people look at it first when something is wrong."""
    return _encoder.encode(root)


def encode_moved(root: bytes, moved_to: str) -> bytes:
    """What to put in the place of `root` so that nobody writes to this store again."""
    return _encoder.encode(_MovedRoot(FORMAT_MOVED, moved_to, root.decode()))


def decode_moved(data: bytes) -> tuple[str, bytes] | None:
    """Where the store was moved, and its root before; None for a root in use."""
    try:
        found = _moved_decoder.decode(data)
    except msgspec.MsgspecError:
        return None
    return found.moved_to, found.was.encode()


def decode_root(data: bytes, *, reads: int = FORMAT) -> Root:
    """Read the root; UnsupportedFormatError for one later than `reads`, CorruptError for anything unreadable."""
    try:
        found = _format_decoder.decode(data)
        if found.moved_to:
            raise StoreMovedError(found.moved_to)
        if found.format > reads:
            raise UnsupportedFormatError(ROOT_NAME, str(found.format), f"{reads} and older")
        root = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise CorruptError(ROOT_NAME, f"it cannot be read ({error})") from error
    if root.gc_floor > (root.snapshot.seq if root.snapshot else 0):
        raise CorruptError(ROOT_NAME, f"entries up to {root.gc_floor} may be gone and no snapshot covers them")
    return root
