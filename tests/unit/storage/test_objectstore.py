"""What the object store backend makes of addresses and versions, without any server."""

import pytest

from storage.backends.objectstore import Address, ObjectStore, parse_address
from storage.blob import BlobName, Outcome, Version, Written
from storage.errors import UnavailableError

NOWHERE = "s3://bucket/p?endpoint=http://127.0.0.1:9&region=r"
"""Port 9 is 'discard': nobody listens there."""


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("s3://bucket", Address("s3", "bucket", "", None, None, None)),
        ("s3://bucket/a/b/", Address("s3", "bucket", "a/b", None, None, None)),
        (NOWHERE, Address("s3", "bucket", "p", "http://127.0.0.1:9", "r", None)),
        ("gs://bucket/a", Address("gs", "bucket", "a", None, None, None)),
        ("az://container/a?account=acc", Address("az", "container", "a", None, None, "acc")),
    ],
)
def test_an_address_names_bucket_prefix_and_options(url: str, address: Address) -> None:
    assert parse_address(url) == address


@pytest.mark.parametrize("version", ["*", "", " * ", "a\nb", "a\x00", "é"])
def test_a_version_that_would_match_anything_or_fit_no_header_is_refused(version: str) -> None:
    store = ObjectStore(parse_address(NOWHERE))
    assert store.replace(BlobName("a"), b"", Version(version)) == Written(Outcome.REFUSED)


def test_a_server_that_is_not_there_leaves_writes_unknown_and_reads_unanswered() -> None:
    store = ObjectStore(parse_address(NOWHERE))
    created = store.create(BlobName("a"), b"")
    assert created == Written(Outcome.UNKNOWN)
    assert "127.0.0.1:9" in created.why
    assert store.replace(BlobName("a"), b"", Version('"1"')) == Written(Outcome.UNKNOWN)
    for read in (lambda: store.get(BlobName("a")), lambda: store.list(""), lambda: store.delete(BlobName("a"))):
        with pytest.raises(UnavailableError):
            read()


def test_plain_http_is_not_spoken_unless_the_address_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:9")
    store = ObjectStore(parse_address("s3://bucket/p"))
    assert store.create(BlobName("a"), b"").why.endswith("HTTP error: builder error")
