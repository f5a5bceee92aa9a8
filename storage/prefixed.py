"""A store within a store: the same blobs under names that begin alike. Only names are changed here."""

from __future__ import annotations

from collections.abc import Sequence

from storage.blob import LIST_LIMIT, Blob, BlobName, BlobStore, Version, Written


class PrefixedStore:
    """Implements `storage.blob.BlobStore` over the blobs of `store` whose names begin with `prefix`."""

    def __init__(self, store: BlobStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def create(self, name: BlobName, data: bytes) -> Written:
        return self._store.create(self._within(name), data)

    def replace(self, name: BlobName, data: bytes, version: Version) -> Written:
        return self._store.replace(self._within(name), data, version)

    def get(self, name: BlobName) -> Blob | None:
        return self._store.get(self._within(name))

    def list(self, prefix: str, start: str = "", limit: int = LIST_LIMIT) -> Sequence[BlobName]:
        names = self._store.list(self._within(prefix), self._within(start) if start else "", limit)
        return [BlobName(name.removeprefix(self._prefix)) for name in names]

    def delete(self, name: BlobName) -> None:
        self._store.delete(self._within(name))

    def close(self) -> None:
        self._store.close()

    def _within(self, name: str) -> BlobName:
        return BlobName(self._prefix + name)
