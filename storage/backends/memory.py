"""A store that lives and dies with its process: for tests, the deterministic world and trials."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Sequence

from storage.blob import LIST_LIMIT, Blob, BlobName, Outcome, Version, Written


class MemoryStore:
    """Implements `storage.blob.BlobStore`; linearizable, safe to share between threads."""

    def __init__(self) -> None:
        self._blobs: dict[BlobName, Blob] = {}
        self._names: list[BlobName] = []
        """Sorted, so that a listing costs what it returns."""
        self._write_count = 0
        self._lock = threading.Lock()

    def create(self, name: BlobName, data: bytes) -> Written:
        with self._lock:
            if name in self._blobs:
                return Written(Outcome.REFUSED)
            bisect.insort(self._names, name)
            return self._put(name, data)

    def replace(self, name: BlobName, data: bytes, version: Version) -> Written:
        with self._lock:
            blob = self._blobs.get(name)
            if blob is None or blob.version != version:
                return Written(Outcome.REFUSED)
            return self._put(name, data)

    def get(self, name: BlobName) -> Blob | None:
        with self._lock:
            return self._blobs.get(name)

    def list(self, prefix: str, start: str = "", limit: int = LIST_LIMIT) -> Sequence[BlobName]:
        with self._lock:
            names = self._names
            begin = max(bisect.bisect_left(names, prefix), bisect.bisect_right(names, start))
            end = begin
            while end < len(names) and end - begin < limit and names[end].startswith(prefix):
                end += 1
            return names[begin:end]

    def delete(self, name: BlobName) -> None:
        with self._lock:
            if self._blobs.pop(name, None) is not None:
                del self._names[bisect.bisect_left(self._names, name)]

    def close(self) -> None:
        """Nothing to release."""

    def _put(self, name: BlobName, data: bytes) -> Written:
        self._write_count += 1
        version = Version(str(self._write_count))
        self._blobs[name] = Blob(data, version)
        return Written(Outcome.DONE, version)
