"""The frame around every immutable blob: magic (4) | crc32 of all that follows (4) | head length (4) | head | payload.

The head says what the payload is and how it is packed. What stands in either is not known here.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final, Literal

Codec = Literal["none", "zlib"]

_FRAME: Final = struct.Struct(">4sII")
_PACK_FROM_BYTES: Final = 512
"""Smaller payloads are stored as they are: packing saves nothing there and costs time."""
_PACK_LEVEL: Final = 1
"""Level 1: five times smaller already; higher levels cost more time than a store round trip saves."""


class FrameError(Exception):
    """The bytes are not what `seal` made; `why` completes a sentence about the blob."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def pack(raw: bytes) -> tuple[Codec, bytes]:
    """The payload as stored, and what the head must say about it."""
    if len(raw) < _PACK_FROM_BYTES:
        return "none", raw
    return "zlib", zlib.compress(raw, _PACK_LEVEL)


def unpack(codec: Codec, payload: memoryview, raw_bytes_max: int) -> bytes | memoryview:
    """The inverse of `pack`; FrameError when it is none, or larger than `raw_bytes_max`."""
    if codec == "none":
        return payload
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(payload, raw_bytes_max)
    except zlib.error as error:
        raise FrameError(f"its payload cannot be unpacked ({error})") from error
    if not unpacker.eof or unpacker.unused_data:
        raise FrameError("its payload does not end where it should")
    return raw


def seal(magic: bytes, head: bytes, payload: bytes) -> bytes:
    """One blob. Equal arguments give equal bytes."""
    length = struct.pack(">I", len(head))
    crc = zlib.crc32(payload, zlib.crc32(head, zlib.crc32(length)))
    return b"".join((magic, struct.pack(">I", crc), length, head, payload))


def unseal(magic: bytes, what: str, data: bytes) -> tuple[memoryview, memoryview]:
    """Head and payload; FrameError when the bytes are not those of one whole blob. `what` is what it should be."""
    if len(data) < _FRAME.size:
        raise FrameError(f"{len(data)} bytes are too few for {what}")
    found, crc, head_bytes = _FRAME.unpack_from(data)
    if found != magic:
        raise FrameError(f"it does not begin like {what}")
    view = memoryview(data)
    if zlib.crc32(view[8:]) != crc:
        raise FrameError("its checksum does not match")
    return view[_FRAME.size : _FRAME.size + head_bytes], view[_FRAME.size + head_bytes :]
