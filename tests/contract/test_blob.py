"""What every blob store must do. The journal is safe on a store exactly if this holds."""

import functools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.blob import Blob, BlobName, BlobStore, Outcome, Version, Written
from storage.open import open_store
from storage.selftest import selftest
from tests.contract.stores import ADDRESSES
from tests.servers.kinds import Servers

NAME = BlobName("leases/l/c-1")


@pytest.fixture(params=sorted(ADDRESSES))
def store(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> Iterator[BlobStore]:
    opened = open_store(ADDRESSES[request.param](servers, tmp_path))
    yield opened
    opened.close()


def written(store: BlobStore, data: bytes, name: BlobName = NAME) -> Version:
    """Create a blob that must not exist yet."""
    answer = store.create(name, data)
    assert answer.outcome is Outcome.DONE
    assert answer.version is not None
    return answer.version


def together(attempts: list[Callable[[], Written]]) -> list[Outcome]:
    outcomes: list[Outcome] = []

    def run(attempt: Callable[[], Written]) -> None:
        outcomes.append(attempt().outcome)

    threads = [threading.Thread(target=run, args=(attempt,)) for attempt in attempts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_an_absent_blob_reads_as_none(store: BlobStore) -> None:
    assert store.get(NAME) is None


def test_a_created_blob_reads_back_with_its_version(store: BlobStore) -> None:
    version = written(store, b"one")
    assert store.get(NAME) == Blob(b"one", version)


@pytest.mark.parametrize("data", [b"", b"\x00\xff\n", b"x" * 1_500_000], ids=["empty", "any bytes", "1.5 MB"])
def test_bytes_come_back_unchanged(store: BlobStore, data: bytes) -> None:
    version = written(store, data)
    assert store.get(NAME) == Blob(data, version)


def test_a_second_create_is_refused_and_changes_nothing(store: BlobStore) -> None:
    version = written(store, b"one")
    assert store.create(NAME, b"two") == Written(Outcome.REFUSED)
    assert store.get(NAME) == Blob(b"one", version)


def test_a_replace_at_the_version_read_takes_effect(store: BlobStore) -> None:
    answer = store.replace(NAME, b"two", written(store, b"one"))
    assert answer.outcome is Outcome.DONE
    assert answer.version is not None
    assert store.get(NAME) == Blob(b"two", answer.version)
    assert store.replace(NAME, b"three", answer.version).outcome is Outcome.DONE


def test_a_replace_at_an_older_version_is_refused_and_changes_nothing(store: BlobStore) -> None:
    first = written(store, b"one")
    second = store.replace(NAME, b"two", first).version
    assert second is not None
    assert store.replace(NAME, b"three", first) == Written(Outcome.REFUSED)
    assert store.get(NAME) == Blob(b"two", second)


def test_a_replace_of_an_absent_blob_is_refused(store: BlobStore) -> None:
    version = written(store, b"one")
    store.delete(NAME)
    assert store.replace(NAME, b"two", version) == Written(Outcome.REFUSED)
    assert store.get(NAME) is None


def test_a_version_no_store_ever_gave_is_refused(store: BlobStore) -> None:
    written(store, b"one")
    assert store.replace(NAME, b"two", Version('"0x8DB"')) == Written(Outcome.REFUSED)


def test_deleting_is_repeatable(store: BlobStore) -> None:
    written(store, b"one")
    store.delete(NAME)
    store.delete(NAME)
    assert store.get(NAME) is None


def test_a_listing_is_sorted_and_keeps_to_its_prefix(store: BlobStore) -> None:
    for name in ("b/2", "a/1", "b/10", "b", "b/1", "b0", "c/1"):
        written(store, b"", BlobName(name))
    assert list(store.list("b/")) == ["b/1", "b/10", "b/2"]
    assert list(store.list("")) == ["a/1", "b", "b/1", "b/10", "b/2", "b0", "c/1"]
    assert list(store.list("d")) == []


def test_a_listing_goes_on_after_the_last_name_of_the_page_before(store: BlobStore) -> None:
    for number in range(5):
        written(store, b"", BlobName(f"p/{number}"))
    assert list(store.list("p/", limit=2)) == ["p/0", "p/1"]
    assert list(store.list("p/", start="p/1", limit=2)) == ["p/2", "p/3"]
    assert list(store.list("p/", start="p/3", limit=2)) == ["p/4"]
    assert list(store.list("p/", start="p/25")) == ["p/3", "p/4"]
    assert list(store.list("p/", start="a")) == ["p/0", "p/1", "p/2", "p/3", "p/4"]


def test_prefixes_are_plain_text_not_patterns(store: BlobStore) -> None:
    for name in ("a_b/1", "axb/1", "a%b/1", "A_b/1"):
        written(store, b"", BlobName(name))
    assert list(store.list("a_b/")) == ["a_b/1"]
    assert list(store.list("a%")) == ["a%b/1"]


def test_of_eight_creates_at_once_one_is_done_and_stored(store: BlobStore) -> None:
    outcomes = together([functools.partial(store.create, NAME, b"%d" % me) for me in range(8)])
    assert sorted(outcome.value for outcome in outcomes) == ["done"] + ["refused"] * 7


def test_counting_by_compare_and_swap_loses_no_increment(store: BlobStore) -> None:
    written(store, b"0")

    def count_to(wanted: int) -> None:
        done = 0
        while done < wanted:
            blob = store.get(NAME)
            assert blob is not None
            answer = store.replace(NAME, b"%d" % (int(blob.data) + 1), blob.version)
            done += answer.outcome is Outcome.DONE

    threads = [threading.Thread(target=count_to, args=(25,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    blob = store.get(NAME)
    assert blob is not None
    assert blob.data == b"100"


def test_the_self_test_passes_and_leaves_nothing_behind(store: BlobStore) -> None:
    selftest(store, nonce="n1")
    selftest(store, nonce="n1")
    assert list(store.list("")) == []
