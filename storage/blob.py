"""The port every store backend implements, and the effects by which a pure core asks for its operations.

A conditional write has three outcomes. `UNKNOWN` is the one that corrupts systems: read back before anything else.
No meaning of names or bytes lives here, and no backend.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NewType, Protocol, assert_never, runtime_checkable

from storage.errors import CorruptError, UnavailableError

BlobName = NewType("BlobName", str)
Version = NewType("Version", str)
"""The store's mark of one state of one blob: opaque, never ordered. Equal bytes may bring an old mark back (S3), so
whoever replaces a blob keeps a nonce in its body."""
OpId = NewType("OpId", int)
"""Ties an answer to its effect; unique within one core instance, so the shell routes per instance."""

LIST_LIMIT = 1_000
"""Names per listing: one page of the object stores."""


class Outcome(enum.Enum):
    """What became of a conditional write."""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Blob:
    """One blob as read."""

    data: bytes
    version: Version


@dataclass(frozen=True, slots=True)
class Written:
    """Answer to a conditional write; `version` is that of the new state when DONE."""

    outcome: Outcome
    version: Version | None = None
    why: str = field(default="", compare=False, repr=False)
    """What the backend knows of an UNKNOWN outcome, for people only."""


class BlobStore(Protocol):
    """Linearizable named blobs. All methods block; implementations may be called from several threads.

    Reads and deletes that cannot be answered raise `UnavailableError`; writes answer UNKNOWN instead.
    """

    def create(self, name: BlobName, data: bytes) -> Written:
        """Make `name` hold `data` if nothing is there. REFUSED is a hint only: read back to know."""

    def replace(self, name: BlobName, data: bytes, version: Version) -> Written:
        """Make `name` hold `data` if it is still in the state `version`; REFUSED also when it is absent."""

    def get(self, name: BlobName) -> Blob | None:
        """Read the newest state, or None when absent."""

    def list(self, prefix: str, start: str = "", limit: int = LIST_LIMIT) -> Sequence[BlobName]:
        """List names that begin with `prefix` and sort after `start`, in byte order, `limit` at most."""

    def delete(self, name: BlobName) -> None:
        """Remove `name`; absent is fine."""

    def close(self) -> None:
        """Release what the backend holds; later calls fail."""


@runtime_checkable
class WatchableStore(BlobStore, Protocol):
    """A store that tells by itself what was written to it."""

    def watch(self, prefix: str, heard: Callable[[BlobName], None]) -> None:
        """Have `heard` called, from some thread, with names under `prefix` that are written, until the store is closed.

        Hints only: some may be left out, never in a way that lasts.
        """


@dataclass(frozen=True, slots=True)
class BlobCreate:
    op: OpId
    name: BlobName
    data: bytes


@dataclass(frozen=True, slots=True)
class BlobReplace:
    op: OpId
    name: BlobName
    data: bytes
    version: Version


@dataclass(frozen=True, slots=True)
class BlobGet:
    op: OpId
    name: BlobName


@dataclass(frozen=True, slots=True)
class BlobList:
    op: OpId
    prefix: str
    start: str = ""
    limit: int = LIST_LIMIT


@dataclass(frozen=True, slots=True)
class BlobDelete:
    op: OpId
    name: BlobName


BlobEffect = BlobCreate | BlobReplace | BlobGet | BlobList | BlobDelete
"""What a core asks its shell to do. Each is answered by exactly one event with the same `op`."""


@dataclass(frozen=True, slots=True)
class BlobWritten:
    op: OpId
    outcome: Outcome
    version: Version | None = None
    why: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class BlobRead:
    op: OpId
    blob: Blob | None


@dataclass(frozen=True, slots=True)
class BlobListed:
    op: OpId
    names: tuple[BlobName, ...]


@dataclass(frozen=True, slots=True)
class BlobDeleted:
    op: OpId


@dataclass(frozen=True, slots=True)
class BlobFailed:
    """A read, listing or deletion that could not be answered. Writes answer UNKNOWN instead."""

    op: OpId
    why: str


BlobEvent = BlobWritten | BlobRead | BlobListed | BlobDeleted | BlobFailed


def perform(store: BlobStore, effect: BlobEffect) -> BlobEvent:
    """Carry out one effect; always answers, whatever the store does short of a bug."""
    try:
        match effect:
            case BlobCreate(op, name, data):
                written = store.create(name, data)
                return BlobWritten(op, written.outcome, written.version, written.why)
            case BlobReplace(op, name, data, version):
                written = store.replace(name, data, version)
                return BlobWritten(op, written.outcome, written.version, written.why)
            case BlobGet(op, name):
                return BlobRead(op, store.get(name))
            case BlobList(op, prefix, start, limit):
                return BlobListed(op, tuple(store.list(prefix, start, limit)))
            case BlobDelete(op, name):
                store.delete(name)
                return BlobDeleted(op)
            case _:
                assert_never(effect)
    except (UnavailableError, CorruptError) as error:  # a blob that is damaged is none that could be read
        if isinstance(effect, BlobCreate | BlobReplace):
            return BlobWritten(effect.op, Outcome.UNKNOWN, why=error.why)
        return BlobFailed(effect.op, error.why)
