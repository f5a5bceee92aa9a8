"""The blobs of the tape: their names, their frame, and which of them are too old. What they say is not known here.

`tape/<seq>-<wall ms>-<term>-<number>-<kind>`: after which entry its first cycle looked, when that was, who led, and the
how-manieth reel of that leader it is. Kind `base` begins anew: what follows can be read without what came before. Kind
`state` is a part of a snapshot's copy (`tape_state`).
Not authoritative: a reel that is lost, late or damaged costs a replay, and nothing else.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Literal, NamedTuple

import msgspec

from storage.blob import (
    LIST_LIMIT,
    BlobDelete,
    BlobDeleted,
    BlobEffect,
    BlobEvent,
    BlobFailed,
    BlobList,
    BlobListed,
    BlobName,
    BlobStore,
    OpId,
)
from storage.errors import CorruptError, LimitError, LocalProtocolError, UnsupportedFormatError
from storage.frame import Codec, FrameError, pack, seal, unpack, unseal

TAPE_PREFIX: Final = "tape/"
REEL_PACKED_BYTES_MAX: Final = 1024 * 1024
"""As an entry's payload: stays below etcd's request limit of 1.5 MiB."""
REEL_RAW_BYTES_MAX: Final = 16 * 1024 * 1024
"""Unpacked reel a reader accepts: bounds what a damaged one can make it allocate."""
STATE_EVERY_MS: Final = 3_600 * 1_000
"""A replay folds an hour of the journal at most before it comes to what it is asked for."""
KEPT_MS: Final = 24 * 3_600 * 1_000
"""DESIGN §7: how long a decision can be replayed."""
DELETES_IN_FLIGHT_MAX: Final = 8
"""Hides latency, and leaves the store for others."""

_SCHEMA_VERSION: Final = 1
_MAGIC: Final = b"MJT\n"
_NAME = re.compile(r"tape/(\d{16})-(\d{13})-(\d{8})-(\d{8})-(base|more|state)", re.ASCII)


Kind = Literal["base", "more", "state"]
_KINDS: Final[dict[str, Kind]] = {"base": "base", "more": "more", "state": "state"}


class ReelName(NamedTuple):
    """What a reel's name says, in the order in which names sort."""

    seq: int
    wall_ms: int
    term: int
    number: int
    kind: Kind

    @property
    def base(self) -> bool:
        return self.kind == "base"

    @property
    def blob(self) -> BlobName:
        of = f"{self.wall_ms:013d}-{self.term:08d}-{self.number:08d}"
        return BlobName(f"{TAPE_PREFIX}{self.seq:016d}-{of}-{self.kind}")

    @classmethod
    def of(cls, name: str) -> ReelName | None:
        """None for what is no reel of this version."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        return cls(int(match[1]), int(match[2]), int(match[3]), int(match[4]), _KINDS[match[5]])


class _Head(msgspec.Struct, frozen=True):
    name: str
    lineage: str
    codec: Codec = "none"
    schema_version: int = _SCHEMA_VERSION


class _HeadVersion(msgspec.Struct):
    schema_version: int = 0


_encoder = msgspec.msgpack.Encoder()
_head_decoder = msgspec.msgpack.Decoder(_Head)
_version_decoder = msgspec.msgpack.Decoder(_HeadVersion)


def encode_reel(name: ReelName, lineage: str, raw: bytes) -> bytes:
    """The blob to store; LimitError when it is larger than every store takes. Equal arguments give equal bytes."""
    codec, payload = pack(raw)
    if len(payload) > REEL_PACKED_BYTES_MAX:
        raise LimitError("packed bytes per reel", REEL_PACKED_BYTES_MAX, len(payload))
    if len(raw) > REEL_RAW_BYTES_MAX:
        raise LimitError("bytes per reel", REEL_RAW_BYTES_MAX, len(raw))
    return seal(_MAGIC, _encoder.encode(_Head(name.blob, lineage, codec)), payload)


def decode_reel(name: ReelName, data: bytes) -> tuple[str, bytes]:
    """Lineage and payload of the reel stored under `name`.

    CorruptError when it is not that reel, UnsupportedFormatError when a later version wrote it.
    """
    try:
        head_bytes, payload = unseal(_MAGIC, "a reel of the tape", data)
        version = _version_decoder.decode(head_bytes).schema_version
        if version > _SCHEMA_VERSION:
            raise UnsupportedFormatError(name.blob, f"tape {version}", f"tape {_SCHEMA_VERSION} and older")
        head = _head_decoder.decode(head_bytes)
        raw = bytes(unpack(head.codec, payload, REEL_RAW_BYTES_MAX))
    except FrameError as error:
        raise CorruptError(name.blob, error.why) from error
    except msgspec.MsgspecError as error:
        raise CorruptError(name.blob, f"its head cannot be read ({error})") from error
    if head.name != name.blob:
        raise CorruptError(name.blob, f"it says that it is {head.name!r}")
    return head.lineage, raw


def list_reels(store: BlobStore) -> Iterator[ReelName]:
    """All reels by name. O(reels), of names only."""
    start = ""
    while page := store.list(TAPE_PREFIX, start):
        yield from filter(None, map(ReelName.of, page))
        start = page[-1]


class TapeCollector:
    """Deletes reels from before `before_ms`, oldest first. Sans-IO; ends at the first operation that is not answered.

    Names are in the order of the journal, so it stops at the first one that is young enough.
    """

    def __init__(self, new_op: Callable[[], OpId], *, before_ms: int) -> None:
        self._new_op = new_op
        self._before_ms = before_ms
        self._listing: OpId | None = None
        self._deleting: set[OpId] = set()
        self._old: deque[BlobName] = deque()
        self._next: str | None = ""  # where the next listing begins; None: no more
        self._failed = False
        self.deleted_count = 0

    @property
    def done(self) -> bool:
        """Over, well or not; nothing is under way."""
        idle = self._listing is None and not self._deleting
        return idle and (self._failed or (self._next is None and not self._old))

    def owns(self, op: OpId) -> bool:
        return op == self._listing or op in self._deleting

    def start(self) -> list[BlobEffect]:
        return self._go_on()

    def handle(self, event: BlobEvent) -> list[BlobEffect]:
        if not self.owns(event.op):
            raise LocalProtocolError(f"answer to operation {event.op}, which is not under way")
        self._deleting.discard(event.op)
        if event.op == self._listing:
            self._listing = None
        match event:
            case BlobListed(names=names):
                self._listed(names)
            case BlobDeleted():
                self.deleted_count += 1
            case BlobFailed():
                self._failed = True
            case _:
                raise LocalProtocolError(f"{type(event).__name__} answers no effect of a collection")
        return [] if self._failed else self._go_on()

    def _listed(self, names: tuple[BlobName, ...]) -> None:
        known = [(name, ReelName.of(name)) for name in names]
        self._old.extend(name for name, reel in known if reel is not None and self._is_old(reel))
        young = any(reel is not None and reel.kind != "state" and not self._is_old(reel) for _, reel in known)
        self._next = names[-1] if len(names) >= LIST_LIMIT and not young else None

    def _is_old(self, reel: ReelName) -> bool:
        """A state is needed for as long as there are cycles that stand on it."""
        return reel.wall_ms < self._before_ms - (STATE_EVERY_MS if reel.kind == "state" else 0)

    def _go_on(self) -> list[BlobEffect]:
        effects: list[BlobEffect] = []
        while self._old and len(self._deleting) < DELETES_IN_FLIGHT_MAX:
            op = self._new_op()
            self._deleting.add(op)
            effects.append(BlobDelete(op, self._old.popleft()))
        if self._next is not None and self._listing is None and not self._old:
            self._listing = self._new_op()
            effects.append(BlobList(self._listing, TAPE_PREFIX, self._next))
        return effects
