"""Journal entries are asked for before they are wanted, while somebody reads one after the other: on a bucket a start
would else wait for a round trip per entry.

Only what is there is kept, and entries never change. That nothing is there is always asked anew, when it is wanted:
whoever follows the journal draws conclusions from it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from storage.archive import ARCHIVE_PREFIX, archived_name, seq_of_archived
from storage.blob import LIST_LIMIT, Blob, BlobName, BlobStore, Version, Written
from storage.entry import entry_name, seq_of_entry
from storage.errors import UnavailableError

AHEAD_MAX: Final = 16
"""Entries asked for at once: 16 MiB at most; at 50 ms a call 300 entries a second, half an hour of the journal in a few
seconds."""


class _Run:
    """One place whose entries are read in order: the journal, or its archive."""

    def __init__(self) -> None:
        self.last_seq = 0
        self.window = 1
        self.asked: dict[int, Future[Blob | None]] = {}

    def take(self, seq: int) -> Future[Blob | None] | None:
        """What was asked for under this number. A reader that jumps begins anew."""
        if seq != self.last_seq + 1:
            self.forget()
        self.last_seq = seq
        return self.asked.pop(seq, None)

    def forget(self) -> None:
        self.window = 1
        for future in self.asked.values():
            future.cancel()
        self.asked.clear()


class ReadingAhead:
    """Implements `storage.blob.BlobStore` over another; all but reading entries is handed on as it is."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._journal = _Run()
        self._archive = _Run()
        self._threads: ThreadPoolExecutor | None = None

    @property
    def inner(self) -> BlobStore:
        """The store that is asked."""
        return self._store

    def create(self, name: BlobName, data: bytes) -> Written:
        return self._store.create(name, data)

    def replace(self, name: BlobName, data: bytes, version: Version) -> Written:
        return self._store.replace(name, data, version)

    def get(self, name: BlobName) -> Blob | None:
        seq, run = seq_of_entry(name), self._journal
        if seq is None:
            seq, run = seq_of_archived(name), self._archive
        if seq is None:
            return self._store.get(name)
        with self._lock:
            asked = run.take(seq)
        blob = _answer(asked) or self._store.get(name)
        with self._lock:
            if blob is None:
                run.forget()
            elif run.last_seq == seq:
                self._ask(run, name, seq)
        return blob

    def list(self, prefix: str, start: str = "", limit: int = LIST_LIMIT) -> Sequence[BlobName]:
        return self._store.list(prefix, start, limit)

    def delete(self, name: BlobName) -> None:
        self._store.delete(name)

    def close(self) -> None:
        with self._lock:
            self._journal.forget()
            self._archive.forget()
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
        self._store.close()

    def _ask(self, run: _Run, name: BlobName, seq: int) -> None:
        """Twice as far as before, from the second entry on: who reads one only pays for one."""
        if run.window > 1:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(AHEAD_MAX, "ahead")
            name_of = archived_name if name.startswith(ARCHIVE_PREFIX) else entry_name
            for later in range(seq + 1, seq + run.window):
                if later not in run.asked:
                    run.asked[later] = self._threads.submit(self._store.get, name_of(later))
        run.window = min(AHEAD_MAX + 1, run.window * 2)


def _answer(asked: Future[Blob | None] | None) -> Blob | None:
    try:
        return asked.result() if asked is not None and not asked.cancelled() else None
    except UnavailableError:
        return None  # asked again, by whoever wants it now
