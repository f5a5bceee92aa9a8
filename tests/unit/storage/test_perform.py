"""How a core is answered by its store: always, whatever the store says."""

from __future__ import annotations

import pytest

from storage.backends.memory import MemoryStore
from storage.blob import (
    Blob,
    BlobCreate,
    BlobDelete,
    BlobFailed,
    BlobGet,
    BlobName,
    BlobReplace,
    BlobWritten,
    OpId,
    Outcome,
    Version,
    Written,
    perform,
)
from storage.errors import CorruptError, StoreError, UnavailableError

NAME = BlobName("leases/l/c-1")
AWAY = UnavailableError("get", NAME, "it is away")
DAMAGED = CorruptError(NAME, "it holds 3 of 7 bytes")


class Failing(MemoryStore):
    """A store that cannot answer, or whose file is cut off."""

    def __init__(self, error: StoreError) -> None:
        super().__init__()
        self.error = error

    def get(self, name: BlobName) -> Blob | None:
        raise self.error

    def create(self, name: BlobName, data: bytes) -> Written:
        raise self.error

    def replace(self, name: BlobName, data: bytes, version: Version) -> Written:
        raise self.error

    def delete(self, name: BlobName) -> None:
        raise self.error


@pytest.mark.parametrize(("error", "why"), [(AWAY, "it is away"), (DAMAGED, "it holds 3 of 7 bytes")])
def test_what_cannot_be_read_is_answered_as_failed(error: StoreError, why: str) -> None:
    """A damaged lease concerns its cluster: unanswered, nobody ever looked at it again."""
    assert perform(Failing(error), BlobGet(OpId(1), NAME)) == BlobFailed(OpId(1), why)
    assert perform(Failing(error), BlobDelete(OpId(2), NAME)) == BlobFailed(OpId(2), why)


@pytest.mark.parametrize(("error", "why"), [(AWAY, "it is away"), (DAMAGED, "it holds 3 of 7 bytes")])
def test_a_write_that_fails_has_an_unknown_outcome(error: StoreError, why: str) -> None:
    for effect in (BlobCreate(OpId(1), NAME, b"x"), BlobReplace(OpId(1), NAME, b"x", Version("1"))):
        answer = perform(Failing(error), effect)
        assert isinstance(answer, BlobWritten)
        assert (answer.op, answer.outcome, answer.why) == (OpId(1), Outcome.UNKNOWN, why)
