"""The self-test must refuse every way in which real servers were seen to ignore conditions."""

import pytest

from storage.backends.memory import MemoryStore
from storage.blob import Blob, BlobName, Outcome, Version, Written
from storage.errors import StoreRefusedError, UnavailableError
from storage.selftest import selftest


class CreatesOver(MemoryStore):
    """Ignores the condition of a create."""

    def create(self, name: BlobName, data: bytes) -> Written:
        self.delete(name)
        return super().create(name, data)


class ReplacesAnything(MemoryStore):
    """Ignores the condition of a replace."""

    def replace(self, name: BlobName, data: bytes, version: Version) -> Written:
        self.delete(name)
        return super().create(name, data)


class VersionIsTheContent(MemoryStore):
    """Takes a digest of the content for a version, as S3 does: the self-test must not need more than that."""

    def create(self, name: BlobName, data: bytes) -> Written:
        written = super().create(name, data)
        return Written(written.outcome, self._mark(data) if written.outcome is Outcome.DONE else None)

    def replace(self, name: BlobName, data: bytes, version: Version) -> Written:
        blob = super().get(name)
        if blob is None or self._mark(blob.data) != version:
            return Written(Outcome.REFUSED)
        written = super().replace(name, data, blob.version)
        return Written(written.outcome, self._mark(data) if written.outcome is Outcome.DONE else None)

    def get(self, name: BlobName) -> Blob | None:
        blob = super().get(name)
        return None if blob is None else Blob(blob.data, self._mark(blob.data))

    def _mark(self, data: bytes) -> Version:
        return Version(f'"{data.hex()}"')


class EveryoneWins(MemoryStore):
    """Tells every creator that it won, keeps the first."""

    def create(self, name: BlobName, data: bytes) -> Written:
        super().create(name, data)
        return Written(Outcome.DONE, Version("1"))


class ForgetsDeletions(MemoryStore):
    def delete(self, name: BlobName) -> None:
        pass


class ListsNothing(MemoryStore):
    def list(self, prefix: str, start: str = "", limit: int = 1000) -> list[BlobName]:
        return []


class RacyCreate(MemoryStore):
    """Checks, then puts: right alone, wrong when others come between."""

    def create(self, name: BlobName, data: bytes) -> Written:
        if "race" in name and not data.endswith(b"0"):
            self.delete(name)
        return super().create(name, data)


class Dead(MemoryStore):
    def get(self, name: BlobName) -> Blob | None:
        raise UnavailableError("get", name, "no route")


class NeverSure(MemoryStore):
    def create(self, name: BlobName, data: bytes) -> Written:
        super().create(name, data)
        return Written(Outcome.UNKNOWN)


@pytest.mark.parametrize(
    ("store", "check"),
    [
        (CreatesOver(), "create if absent"),
        (EveryoneWins(), "create if absent"),
        (ForgetsDeletions(), "create if absent"),
        (NeverSure(), "create if absent"),
        (ReplacesAnything(), "replace if unchanged"),
        (ListsNothing(), "list"),
        (RacyCreate(), "create race"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, MemoryStore) else value,
)
def test_a_store_that_breaks_a_promise_is_refused(store: MemoryStore, check: str) -> None:
    with pytest.raises(StoreRefusedError) as caught:
        selftest(store, nonce="n")
    assert caught.value.check == check


def test_a_good_store_passes() -> None:
    selftest(MemoryStore(), nonce="n")


def test_a_store_whose_versions_are_digests_passes() -> None:
    selftest(VersionIsTheContent(), nonce="n")


def test_a_store_that_cannot_be_read_is_unavailable_not_unfit() -> None:
    with pytest.raises(UnavailableError):
        selftest(Dead(), nonce="n")


class Away(MemoryStore):
    """Answers nothing: what was written may have landed or not."""

    def create(self, name: BlobName, data: bytes) -> Written:
        return Written(Outcome.UNKNOWN)

    def get(self, name: BlobName) -> Blob | None:
        raise UnavailableError("get", name, "connection refused")


def test_a_store_that_does_not_answer_a_create_is_unavailable_not_unfit() -> None:
    with pytest.raises(UnavailableError):
        selftest(Away(), nonce="n")
