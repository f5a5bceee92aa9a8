"""Our own stores never use a version twice, even for equal bytes; those of others may (S3)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.blob import BlobName, BlobStore, Outcome, Written
from storage.open import open_store

NAME = BlobName("a")


@pytest.fixture(params=["memory:", "sqlite:///{}/store.db", "file://{}/store"], ids=["memory", "sqlite", "directory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStore]:
    opened = open_store(request.param.format(tmp_path))
    yield opened
    opened.close()


def test_the_same_bytes_again_make_a_new_version(store: BlobStore) -> None:
    first = store.create(NAME, b"same").version
    assert first is not None
    second = store.replace(NAME, b"same", first).version
    assert second is not None
    third = store.replace(NAME, b"same", second).version
    assert len({first, second, third}) == 3
    assert store.replace(NAME, b"late", first) == Written(Outcome.REFUSED)


def test_a_blob_made_again_after_deletion_has_a_new_version(store: BlobStore) -> None:
    before = store.create(NAME, b"same").version
    assert before is not None
    store.delete(NAME)
    assert store.create(NAME, b"same").version != before
    assert store.replace(NAME, b"late", before) == Written(Outcome.REFUSED)
