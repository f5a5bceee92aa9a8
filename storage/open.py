"""From a store address to a store. Each backend is registered here once, and imported only when it is chosen."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from storage.blob import BlobStore, WatchableStore
from storage.errors import StoreUrlError, UnavailableError


def open_store(url: str) -> BlobStore:
    """Open the store at `url`; the caller closes it.

    `memory:`, `sqlite:///path/to/file`, `file:///absolute/folder`, `s3://bucket/prefix`, `gs://…`, `az://…`,
    `etcd://host:port/prefix`.
    Raises StoreUrlError for an address that names no store, and what the backend raises when it cannot open.
    """
    scheme, colon, rest = url.partition(":")
    if not colon:
        raise StoreUrlError(url, "it has no scheme", SCHEMES)
    opener = _OPENERS.get(scheme)
    if opener is None:
        raise StoreUrlError(url, f"there is no backend {scheme!r}", SCHEMES)
    return opener(url, rest)


def open_for_server(url: str) -> BlobStore:
    """Like `open_store`, with reads over a network repeated a few times, and entries read ahead. Local stores are not
    asked twice: a disk that failed will fail again."""
    store = open_store(url)
    if url.partition(":")[0] in LOCAL:
        return store
    from storage.ahead import ReadingAhead
    from storage.retry import RetryingReads

    return ReadingAhead(RetryingReads(store))


def watchable(store: BlobStore) -> WatchableStore | None:
    """The store behind `store` that tells what is written to it; None where nobody does."""
    while (inner := getattr(store, "inner", None)) is not None:
        store = inner
    return store if isinstance(store, WatchableStore) else None


def open_existing(url: str) -> BlobStore:
    """Like `open_store`, but never begins a store where none is: for those who only want to look. Over a network,
    entries are read ahead.

    Raises UnavailableError when file or folder are not there; whether a bucket or an etcd holds a journal is seen by
    reading its root.
    """
    scheme, _, rest = url.partition(":")
    if scheme in {"sqlite", "file"} and rest.startswith("///"):
        path = _path_of(scheme, rest)
        if not path.exists():
            raise UnavailableError(
                "open", str(path), "there is no such " + ("file" if scheme == "sqlite" else "folder")
            )
    store = open_store(url)
    if scheme in LOCAL:
        return store
    from storage.ahead import ReadingAhead

    return ReadingAhead(store)


def _path_of(scheme: str, rest: str) -> Path:
    return Path(rest[3:]) if scheme == "sqlite" else Path("/", rest[3:].lstrip("/"))


def _open_memory(url: str, rest: str) -> BlobStore:
    from storage.backends.memory import MemoryStore

    if rest.strip("/"):
        raise StoreUrlError(url, "a memory store has no path", SCHEMES)
    return MemoryStore()


def _open_sqlite(url: str, rest: str) -> BlobStore:
    from storage.backends.sqlite import SqliteStore

    if not rest.startswith("///") or rest == "///":
        raise StoreUrlError(url, "write sqlite:///path/to/file (four slashes for an absolute path)", SCHEMES)
    return SqliteStore(_path_of("sqlite", rest))


def _open_directory(url: str, rest: str) -> BlobStore:
    from storage.backends.directory import DirectoryStore

    if not rest.startswith("///") or rest == "///":
        raise StoreUrlError(url, "write file:///path/to/folder (the path is absolute)", SCHEMES)
    return DirectoryStore(_path_of("file", rest))


def _open_bucket(url: str, _rest: str) -> BlobStore:
    try:
        from storage.backends.objectstore import ObjectStore, parse_address
    except ModuleNotFoundError as error:
        raise StoreUrlError(url, _not_installed(error, "objectstore"), SCHEMES) from error
    return ObjectStore(parse_address(url, SCHEMES))


def _open_etcd(url: str, _rest: str) -> BlobStore:
    from storage.backends.etcd import EtcdStore, login_from, parse_address

    address = parse_address(url, SCHEMES)
    try:
        return EtcdStore(address, login_from(os.environ))
    except ModuleNotFoundError as error:
        raise StoreUrlError(url, _not_installed(error, "etcd"), SCHEMES) from error


def _not_installed(error: ModuleNotFoundError, extra: str) -> str:
    return f"this installation has no {error.name}: install muster-fleet[{extra}]"


_OPENERS: Final[dict[str, Callable[[str, str], BlobStore]]] = {
    "az": _open_bucket,
    "etcd": _open_etcd,
    "file": _open_directory,
    "gs": _open_bucket,
    "memory": _open_memory,
    "s3": _open_bucket,
    "sqlite": _open_sqlite,
}
LOCAL: Final = frozenset({"file", "memory", "sqlite"})
SCHEMES: Final = tuple(sorted(_OPENERS))
