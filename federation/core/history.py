"""The history of one group: its records with their places, packed as they will be stored.

Packed, a record takes a fifth of the memory, a snapshot takes it as it is, and hardly any history is ever read.
"""

from __future__ import annotations

from typing import Final

import msgspec

from federation.core.records import AnyRecord
from placement.model import Position

HISTORY_PER_GROUP_MAX: Final = 1_000  # DESIGN §15
HISTORY_BYTES_MAX: Final = 512 * 1024  # so that a group always fits into one shard of a snapshot

_ARRAY_OF_2: Final = b"\x92"  # msgpack: an array of two
_ARRAY_32: Final = b"\xdd"  # msgpack: an array whose length is the 32 bits that follow


class RecordSummary(msgspec.Struct, frozen=True, array_like=True):
    """One line of a group's history: a record with its place, a submission without its spec."""

    position: Position
    record: AnyRecord


_join: Final = b"".join
_encode = msgspec.msgpack.Encoder().encode
_lines_decoder = msgspec.msgpack.Decoder(tuple[RecordSummary, ...])
_line_decoder = msgspec.msgpack.Decoder(RecordSummary)
_raw_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])


def with_line(packed: bytes, position: Position, encoded: bytes) -> bytes:
    """`packed` and one line behind it: `encoded` is the record as the journal has it."""
    return _join((packed, _ARRAY_OF_2, _encode(position), encoded))


def unpack_lines(packed: bytes, count: int) -> tuple[RecordSummary, ...]:
    """The `count` lines in `packed`, oldest first."""
    return _lines_decoder.decode(as_array(packed, count))


def without_second(packed: bytes, count: int) -> bytes:
    """All lines but the second: the first says what the group is, the others are younger."""
    first, _, *rest = _raw_decoder.decode(as_array(packed, count))
    return b"".join((first, *rest))


def first_record(packed: bytes, count: int) -> AnyRecord:
    """The record that made the group; it is never cut."""
    return _line_decoder.decode(_raw_decoder.decode(as_array(packed, count))[0]).record


def as_array(packed: bytes, count: int) -> bytes:
    """The msgpack array of `count` items that lie in `packed` one behind the other."""
    return b"".join((_ARRAY_32, count.to_bytes(4, "big"), packed))
