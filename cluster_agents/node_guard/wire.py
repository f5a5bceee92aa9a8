"""NRI's bytes on one socket: ttrpc messages, which two logical connections share. Pure.

A trunk carries frames of (connection, length, bytes), and each connection is a stream of ttrpc messages of (length,
stream, kind, flags, bytes); all numbers are big endian. Sources: github.com/containerd/nri `pkg/net/multiplex`,
github.com/containerd/ttrpc `channel.go`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum, unique
from typing import Final

MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024  # ttrpc's own limit

_FRAME: Final = struct.Struct(">II")
_MESSAGE: Final = struct.Struct(">IIBB")
FRAME_BYTES_MAX: Final = MESSAGE_BYTES_MAX + _MESSAGE.size


class WireError(ValueError):
    """What came is not NRI; the connection is of no use any more."""


@unique
class Side(IntEnum):
    """The logical connections, by who answers on them."""

    PLUGIN = 1
    RUNTIME = 2


@unique
class Kind(IntEnum):
    REQUEST = 1
    RESPONSE = 2


@dataclass(frozen=True, slots=True)
class Message:
    side: Side
    stream: int  # chosen by who asks; the answer has the same
    kind: Kind
    data: bytes


def encoded(message: Message) -> bytes:
    """The message in a frame of its own."""
    assert len(message.data) <= MESSAGE_BYTES_MAX
    body = _MESSAGE.pack(len(message.data), message.stream, message.kind, 0) + message.data
    return _FRAME.pack(message.side, len(body)) + body


@dataclass(slots=True)
class Decoder:
    """Bytes in as they come, whole messages out, in the order in which each was complete."""

    _trunk: bytearray = field(default_factory=bytearray)
    _streams: dict[Side, bytearray] = field(default_factory=lambda: {side: bytearray() for side in Side})

    def feed(self, data: bytes) -> list[Message]:
        """Raises WireError for what no runtime sends; nothing can be read after that."""
        self._trunk += data
        found: list[Message] = []
        while len(self._trunk) >= _FRAME.size:
            side, size = _FRAME.unpack_from(self._trunk)
            if side not in self._streams or size > FRAME_BYTES_MAX:
                raise WireError(f"a frame of {size} bytes for connection {side}; at most {FRAME_BYTES_MAX}, for 1 or 2")
            end = _FRAME.size + size
            if len(self._trunk) < end:
                break
            self._streams[Side(side)] += self._trunk[_FRAME.size : end]
            del self._trunk[:end]
            found += self._whole(Side(side))
        return found

    def _whole(self, side: Side) -> list[Message]:
        stream = self._streams[side]
        found: list[Message] = []
        while len(stream) >= _MESSAGE.size:
            size, number, kind, _flags = _MESSAGE.unpack_from(stream)
            if size > MESSAGE_BYTES_MAX or kind not in {Kind.REQUEST, Kind.RESPONSE}:
                raise WireError(
                    f"a message of {size} bytes and kind {kind}; at most {MESSAGE_BYTES_MAX}, of kind 1 or 2"
                )
            end = _MESSAGE.size + size
            if len(stream) < end:
                break
            found.append(Message(side, number, Kind(kind), bytes(stream[_MESSAGE.size : end])))
            del stream[:end]
        return found
