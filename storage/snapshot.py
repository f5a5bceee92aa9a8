"""The bytes of a snapshot: shards, and the INDEX that names them all and is written last.

A chain of digests runs from the root over the INDEX to every shard. What a shard holds is not known here.
"""

from __future__ import annotations

from typing import Final

import msgspec

from storage.blob import BlobName
from storage.entry import digest
from storage.errors import CorruptError, LimitError, UnsupportedFormatError
from storage.frame import Codec, FrameError, pack, seal, unpack, unseal
from storage.root import SnapshotPointer

SNAPSHOT_PREFIX: Final = "snapshot/"
SHARD_PACKED_BYTES_MAX: Final = 1024 * 1024
"""As an entry's payload: stays below etcd's request limit of 1.5 MiB."""
SHARD_RAW_BYTES_MAX: Final = 16 * 1024 * 1024
"""Unpacked shard a reader accepts: bounds what a damaged one can make it allocate."""
SHARDS_MAX: Final = 12_000
"""Shards of one snapshot: their names and digests still fit into one INDEX of 1 MiB."""

_SCHEMA_VERSION: Final = 1
_MAGIC_SHARD: Final = b"MJS\n"
_MAGIC_INDEX: Final = b"MJI\n"


class ShardRef(msgspec.Struct, frozen=True, array_like=True):
    """One shard: its whole name and the digest of its bytes."""

    name: str
    digest: bytes


class Index(msgspec.Struct, frozen=True):
    """What a snapshot consists of. Unknown fields of later versions are ignored."""

    lineage: str
    seq: int
    term: int
    digest: bytes
    """Digest of entry `seq`: what the next entry must follow."""
    shards: tuple[ShardRef, ...]
    """In the order in which they are to be read."""


class _Head(msgspec.Struct, frozen=True):
    name: str
    codec: Codec = "none"
    schema_version: int = _SCHEMA_VERSION


class _HeadVersion(msgspec.Struct):
    schema_version: int = 0


_encoder = msgspec.msgpack.Encoder()
_head_decoder = msgspec.msgpack.Decoder(_Head)
_version_decoder = msgspec.msgpack.Decoder(_HeadVersion)
_index_decoder = msgspec.msgpack.Decoder(Index)


def snapshot_prefix(seq: int) -> str:
    """What the names of all parts of the snapshot at `seq` begin with."""
    return f"{SNAPSHOT_PREFIX}{seq:016d}/"


def seq_of_part(name: str) -> int | None:
    """The snapshot to which a part belongs by its name; None for what is no part of one."""
    seq, slash, _ = name.removeprefix(SNAPSHOT_PREFIX).partition("/")
    return int(seq) if slash and seq.isascii() and seq.isdigit() else None


def shard_name(seq: int, shard: str) -> BlobName:
    return BlobName(f"{snapshot_prefix(seq)}{shard}")


def index_name(seq: int) -> BlobName:
    return BlobName(f"{snapshot_prefix(seq)}INDEX")


def encode_shard(name: BlobName, raw: bytes) -> bytes:
    """The blob to store under `name`; LimitError when it is larger than every store takes."""
    return _encode(_MAGIC_SHARD, name, raw)


def decode_shard(name: BlobName, data: bytes, expected: bytes) -> bytes:
    """The payload of the shard stored under `name`, whose digest the INDEX says is `expected`.

    CorruptError when it is not that shard, UnsupportedFormatError when a later version wrote it.
    """
    return bytes(_decode(_MAGIC_SHARD, "a shard", name, data, expected))


def encode_index(index: Index) -> bytes:
    """The INDEX blob; LimitError for too many shards."""
    if len(index.shards) > SHARDS_MAX:
        raise LimitError("shards per snapshot", SHARDS_MAX, len(index.shards))
    return _encode(_MAGIC_INDEX, index_name(index.seq), _encoder.encode(index))


def decode_index(data: bytes, pointer: SnapshotPointer, lineage: str) -> Index:
    """The INDEX to which the root points; CorruptError when it is another one or unreadable."""
    name = index_name(pointer.seq)
    index = read_index(name, data, pointer.index_digest)
    found = (index.lineage, index.seq, index.term, index.digest)
    if found != (lineage, pointer.seq, pointer.term, pointer.digest):
        raise CorruptError(name, "it is not of the snapshot that the root names", seq=pointer.seq)
    return index


def read_index(name: BlobName, data: bytes, expected: bytes = b"") -> Index:
    """The INDEX in a blob that was written under `name`, whatever it is of; CorruptError when it is none."""
    raw = _decode(_MAGIC_INDEX, "an INDEX", name, data, expected)
    try:
        return _index_decoder.decode(raw)
    except msgspec.MsgspecError as error:
        raise CorruptError(name, f"it cannot be read ({error})", seq=seq_of_part(name)) from error


def _encode(magic: bytes, name: BlobName, raw: bytes) -> bytes:
    codec, payload = pack(raw)
    if len(payload) > SHARD_PACKED_BYTES_MAX:
        raise LimitError("packed bytes per shard", SHARD_PACKED_BYTES_MAX, len(payload))
    return seal(magic, _encoder.encode(_Head(name, codec)), payload)


def _decode(magic: bytes, what: str, name: BlobName, data: bytes, expected: bytes) -> bytes | memoryview:
    seq = seq_of_part(name)
    if expected and digest(data) != expected:
        raise CorruptError(name, "its digest is not the one recorded when it was written", seq=seq)
    try:
        head_bytes, payload = unseal(magic, what, data)
        version = _version_decoder.decode(head_bytes).schema_version
        if version > _SCHEMA_VERSION:
            raise UnsupportedFormatError(name, f"snapshot {version}", f"snapshot {_SCHEMA_VERSION} and older")
        head = _head_decoder.decode(head_bytes)
        raw = unpack(head.codec, payload, SHARD_RAW_BYTES_MAX)
    except FrameError as error:
        raise CorruptError(name, error.why, seq=seq) from error
    except msgspec.MsgspecError as error:
        raise CorruptError(name, f"its head cannot be read ({error})", seq=seq) from error
    if head.name != name:
        raise CorruptError(name, f"it says that it is {head.name!r}", seq=seq)
    return raw
