"""Store addresses."""

from pathlib import Path

import pytest

from storage.ahead import ReadingAhead
from storage.backends.directory import DirectoryStore
from storage.backends.memory import MemoryStore
from storage.backends.sqlite import SqliteStore
from storage.errors import StoreUrlError, UnavailableError
from storage.open import open_existing, open_for_server, open_store
from storage.retry import RetryingReads


def test_a_memory_address_opens_a_new_store_each_time() -> None:
    first, second = open_store("memory:"), open_store("memory:")
    assert isinstance(first, MemoryStore)
    assert first is not second


def test_a_sqlite_address_opens_the_file_it_names(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/deep/store.db")
    assert isinstance(store, SqliteStore)
    assert (tmp_path / "deep" / "store.db").exists()
    store.close()


def test_a_file_address_opens_the_folder_at_its_absolute_path(tmp_path: Path) -> None:
    for slashes in ("//", "///"):
        store = open_store(f"file:{slashes}{tmp_path}/deep/store")
        assert isinstance(store, DirectoryStore)
        assert (tmp_path / "deep" / "store").is_dir()
        store.close()


def test_three_slashes_name_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_store("sqlite:///store.db").close()
    assert (tmp_path / "store.db").exists()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgres://host/db", "there is no backend 'postgres'"),
        ("store.db", "it has no scheme"),
        ("", "it has no scheme"),
        ("memory:/x", "a memory store has no path"),
        ("etcd:///p", "write etcd://host:port/prefix, several members with a comma between"),
        ("etcd://host:x/p", "write etcd://host:port/prefix, several members with a comma between"),
        ("etcd://me:secret@host/p", "a password does not belong in an address: set ETCDCTL_USER"),
        ("etcd://host/p?user=me", "there is no option 'user' (there are: ca, cert, key)"),
        ("etcd://host/p?cert=c", "a client certificate needs all of ca, cert and key"),
        ("s3:bucket", "write s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"),
        ("s3://b/p?profile=x", "there is no option 'profile' (there are: endpoint, region)"),
        ("az://c/p?region=x", "there is no option 'region' (there are: account, endpoint)"),
        ("gs:///p", "write s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"),
        ("sqlite:store.db", "write sqlite:///path/to/file (four slashes for an absolute path)"),
        ("file:store", "write file:///path/to/folder (the path is absolute)"),
        ("file:///", "write file:///path/to/folder (the path is absolute)"),
        ("sqlite:///", "write sqlite:///path/to/file (four slashes for an absolute path)"),
    ],
)
def test_any_other_address_is_refused_with_the_known_ones(url: str, why: str) -> None:
    with pytest.raises(StoreUrlError) as caught:
        open_store(url)
    assert caught.value.why == why
    assert caught.value.schemes == ("az", "etcd", "file", "gs", "memory", "s3", "sqlite")
    assert str(caught.value) == f"store address {url!r}: {why}; known are az, etcd, file, gs, memory, s3, sqlite"


@pytest.mark.parametrize("kind", ["sqlite", "file"])
def test_looking_for_a_store_that_is_not_there_makes_none(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UnavailableError, match="there is no such"):
        open_existing(f"{kind}:///{tmp_path}/store")
    assert list(tmp_path.iterdir()) == []


def test_reads_over_a_network_are_repeated_and_local_ones_are_not(tmp_path: Path) -> None:
    near, far = open_for_server(f"sqlite:///{tmp_path}/store.db"), open_for_server("s3://bucket/prefix?region=eu-1")
    assert isinstance(far, ReadingAhead)
    assert (type(near), type(far.inner)) == (SqliteStore, RetryingReads)
    near.close()
