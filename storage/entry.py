"""The bytes of one journal entry, and the numbers derived from its place: names and positions.

A frame (`storage.frame`) whose head is the header (msgpack map) and whose payload is a msgpack array of record bytes,
packed by the codec the header names. What a record means is not known here. The digest of an entry covers all its bytes
and stands in the next entry's header.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from storage.blob import BlobName
from storage.errors import CorruptError, LimitError, UnsupportedFormatError
from storage.frame import Codec, FrameError, pack, seal, unpack, unseal

POSITIONS_PER_ENTRY: Final = 8_192
"""Positions reserved per entry: twice the records a batch may hold, so that a later version may double the batch."""
SEQ_FIRST: Final = 1
SEQ_MAX: Final = 2**50 - 1
"""Highest entry number: every position stays within a signed 64-bit integer."""
RECORDS_PER_ENTRY_MAX: Final = 4_096
"""Beyond this a batch gains no throughput (measured) and costs latency."""
ENTRY_PAYLOAD_BYTES_MAX: Final = 1024 * 1024
"""Payload as stored: stays below etcd's request limit of 1.5 MiB."""
RECORD_BYTES_MAX: Final = 512 * 1024
"""One record: a manifest of 256 KiB and its envelope, and two of them fit in one entry."""
ENTRY_RAW_BYTES_MAX: Final = 16 * 1024 * 1024
"""Unpacked payload a reader accepts: bounds what a damaged entry can make it allocate."""
PREFIX_COUNT: Final = 16
"""Name prefixes over which entries are spread: object stores limit rates per prefix."""
ENTRIES_PREFIX: Final = "journal/"
GENESIS: Final = bytes(32)
"""What stands for the digest before the first entry."""

_SCHEMA_VERSION: Final = 1
_MAGIC: Final = b"MJE\n"
_RECORD_OVERHEAD: Final = 5
"""Bytes msgpack adds to a record at most."""
_PAYLOAD_MARGIN: Final = 1024
"""What an array head and zlib's worst case add to incompressible records at most."""
_FIBONACCI: Final = 2_654_435_769


class EntryKind(enum.Enum):
    """Why an entry exists. A TERM entry is an election won; a HEARTBEAT says that the leader lives."""

    TERM = "term"
    BATCH = "batch"
    HEARTBEAT = "heartbeat"


class EntryHeader(msgspec.Struct, frozen=True):
    """What the journal itself needs to know of an entry. Unknown fields of later versions are ignored."""

    seq: int
    term: int
    kind: EntryKind
    writer: str
    nonce: str
    prev_digest: bytes
    count: int
    codec: Codec = "none"
    schema_version: int = _SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class DecodedEntry:
    """An entry as its bytes say, checked against its own checksum but not yet against its place in the chain."""

    header: EntryHeader
    records: tuple[bytes, ...]
    digest: bytes


_header_encoder = msgspec.msgpack.Encoder()
_header_decoder = msgspec.msgpack.Decoder(EntryHeader)
_records_encoder = msgspec.msgpack.Encoder()
_records_decoder = msgspec.msgpack.Decoder(tuple[bytes, ...])


class _HeaderVersion(msgspec.Struct):
    schema_version: int = 0


_version_decoder = msgspec.msgpack.Decoder(_HeaderVersion)


def position(seq: int, index: int = 0) -> int:
    """Place of a record in the whole journal: ordered, dense enough for 64 bits, computable from either side."""
    if not SEQ_FIRST <= seq <= SEQ_MAX:
        raise LimitError("highest entry number", SEQ_MAX, seq)
    if not 0 <= index < POSITIONS_PER_ENTRY:
        raise LimitError("positions per entry", POSITIONS_PER_ENTRY, index)
    return seq * POSITIONS_PER_ENTRY + index


def seq_of(position: int) -> int:
    """Number of the entry that holds the record at `position`."""
    return position // POSITIONS_PER_ENTRY


def entry_name(seq: int) -> BlobName:
    """Name of an entry; needs no listing, and neighbours lie under different prefixes."""
    spread = (seq * _FIBONACCI & 0xFFFF_FFFF) * PREFIX_COUNT >> 32
    return BlobName(f"{entry_prefix(spread)}{seq:016d}")


def seq_of_entry(name: str) -> int | None:
    """Inverse of `entry_name`; None for what is no entry's name."""
    number = name.rpartition("/")[2]
    if not (number.isascii() and number.isdigit()):
        return None
    return int(number) if entry_name(int(number)) == name else None


def entry_prefix(spread: int) -> str:
    """What the names of one of the `PREFIX_COUNT` shares of all entries begin with."""
    return f"{ENTRIES_PREFIX}{spread:02x}/"


def digest(data: bytes) -> bytes:
    """What the next entry's `prev_digest` must say about an entry with these bytes."""
    return hashlib.sha256(data).digest()


def batch_length(records: Sequence[bytes]) -> int:
    """How many of the first `records` make one entry that is certainly within all limits.

    At least 1 unless `records` is empty. Raises LimitError when a record is larger than a record may be.
    """
    room = ENTRY_PAYLOAD_BYTES_MAX - _PAYLOAD_MARGIN
    for index, record in enumerate(records):
        if len(record) > RECORD_BYTES_MAX:
            raise LimitError("bytes per record", RECORD_BYTES_MAX, len(record))
        room -= len(record) + _RECORD_OVERHEAD
        if room < 0 or index == RECORDS_PER_ENTRY_MAX:
            return index
    return len(records)


def encode_entry(header: EntryHeader, records: Sequence[bytes] = ()) -> bytes:
    """Return the bytes of one entry; the codec in `header` is set here. Equal arguments give equal bytes.

    Raises LimitError when `records` are more, or larger, than one entry may hold.
    """
    assert header.count == len(records)
    if len(records) > RECORDS_PER_ENTRY_MAX:
        raise LimitError("records per entry", RECORDS_PER_ENTRY_MAX, len(records))
    codec, payload = _pack(records)
    if len(payload) > ENTRY_PAYLOAD_BYTES_MAX:
        raise LimitError("payload bytes per entry", ENTRY_PAYLOAD_BYTES_MAX, len(payload))
    if header.codec != codec:
        header = msgspec.structs.replace(header, codec=codec)
    return seal(_MAGIC, _header_encoder.encode(header), payload)


def decode_entry(data: bytes, seq: int) -> DecodedEntry:
    """Read the entry stored under the name of `seq`.

    Raises CorruptError when the bytes are not those of that entry, UnsupportedFormatError when a later version
    wrote them.
    """
    try:
        head, payload = unseal(_MAGIC, "an entry", data)
        header = _decode_header(head, seq)
        records = _unpack(header, payload)
    except FrameError as error:
        raise _corrupt(seq, error.why) from error
    if header.seq != seq:
        raise _corrupt(seq, f"it says that it is entry {header.seq}")
    if header.count != len(records):
        raise _corrupt(seq, f"it holds {len(records)} records and announces {header.count}")
    return DecodedEntry(header, records, digest(data))


def expect_follows(decoded: DecodedEntry, prev_digest: bytes) -> None:
    """Return if the entry continues the chain whose newest digest is `prev_digest`; raise CorruptError otherwise."""
    if decoded.header.prev_digest != prev_digest:
        raise _corrupt(decoded.header.seq, "it does not follow the entry before it (digest chain)")


def _pack(records: Sequence[bytes]) -> tuple[Codec, bytes]:
    return pack(_records_encoder.encode(records)) if records else ("none", b"")


def _unpack(header: EntryHeader, payload: memoryview) -> tuple[bytes, ...]:
    if not payload:
        return ()
    raw = unpack(header.codec, payload, ENTRY_RAW_BYTES_MAX)
    try:
        return _records_decoder.decode(raw)
    except msgspec.MsgspecError as error:
        raise FrameError(f"its payload cannot be unpacked ({error})") from error


def _decode_header(data: memoryview, seq: int) -> EntryHeader:
    try:
        version = _version_decoder.decode(data).schema_version
        if version > _SCHEMA_VERSION:
            raise UnsupportedFormatError(entry_name(seq), f"entry {version}", f"entry {_SCHEMA_VERSION} and older")
        return _header_decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise _corrupt(seq, f"its header cannot be read ({error})") from error


def _corrupt(seq: int, why: str) -> CorruptError:
    return CorruptError(entry_name(seq), why, seq=seq)
