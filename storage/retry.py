"""The one place where store operations are repeated: few attempts, full jitter, a deadline and a budget for all.

`RetryingStore` is for shells that write blobs of their own (copies, addresses). `RetryingReads` is for servers, whose
cores resolve their own writes by nonces: an unknown outcome stays unknown there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import tenacity

from storage.blob import LIST_LIMIT, Blob, BlobName, BlobStore, Outcome, Version, Written
from storage.errors import UnavailableError

ATTEMPTS_MAX: Final = 5
"""A store that failed five times running is better reported than asked again."""
RETRY_SHARE: Final = 0.1
"""Retries per request, over all callers: a store in trouble must not get more than a tenth on top."""
RETRY_BURST: Final = 20.0
"""Retries saved up in good times: one short outage is passed without anybody noticing."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one operation may take, with pauses drawn evenly between 0 and a limit that doubles."""

    deadline_s: float = 30.0
    pause_first_s: float = 0.1
    pause_max_s: float = 5.0


class RetryBudget:
    """What all operations of one process may repeat together. Safe to share between threads."""

    def __init__(self, *, share: float = RETRY_SHARE, burst: float = RETRY_BURST) -> None:
        self._share = share
        self._burst = burst
        self._left = burst
        self._lock = threading.Lock()

    def earn(self) -> None:
        """Count a request."""
        with self._lock:
            self._left = min(self._burst, self._left + self._share)

    def take(self) -> bool:
        """Pay for a retry; False when there is nothing left."""
        with self._lock:
            if self._left < 1.0:
                return False
            self._left -= 1.0
            return True


PATIENCE_OF_SERVERS: Final = Patience(deadline_s=2.0, pause_first_s=0.05, pause_max_s=0.5)
"""A server has other things to ask the store for: after this the core that asked decides what to do meanwhile."""


class RetryingReads:
    """Implements `storage.blob.BlobStore` over another: reads, listings and deletions are repeated, writes are not.

    UnavailableError comes when attempts, deadline or budget are spent.
    """

    def __init__(
        self,
        store: BlobStore,
        *,
        patience: Patience = PATIENCE_OF_SERVERS,
        budget: RetryBudget | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._patience = patience
        self._budget = budget or RetryBudget()
        self._sleep = sleep

    @property
    def inner(self) -> BlobStore:
        """The store that is asked."""
        return self._store

    def create(self, name: BlobName, data: bytes) -> Written:
        return self._store.create(name, data)

    def replace(self, name: BlobName, data: bytes, version: Version) -> Written:
        return self._store.replace(name, data, version)

    def get(self, name: BlobName) -> Blob | None:
        return self._retried(lambda: self._store.get(name))

    def list(self, prefix: str, start: str = "", limit: int = LIST_LIMIT) -> Sequence[BlobName]:
        return self._retried(lambda: self._store.list(prefix, start, limit))

    def delete(self, name: BlobName) -> None:
        self._retried(lambda: self._store.delete(name))

    def close(self) -> None:
        self._store.close()

    def _retried(self, attempt: Callable[[], _Answer]) -> _Answer:
        self._budget.earn()
        patience = self._patience
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(ATTEMPTS_MAX) | tenacity.stop_after_delay(patience.deadline_s),
            wait=tenacity.wait_random_exponential(multiplier=patience.pause_first_s, max=patience.pause_max_s),
            retry=tenacity.retry_if_exception(self._is_worth_another),
            sleep=self._sleep,
            reraise=True,
        )
        return retrying(attempt)

    def _is_worth_another(self, error: BaseException) -> bool:
        return isinstance(error, UnavailableError) and self._budget.take()


class RetryingStore(RetryingReads):
    """Implements `storage.blob.BlobStore` over another, with answers that are true.

    REFUSED means that the blob was read and holds something else; hints, lost replies and conflicts in passing are
    resolved by reading back and writing the same bytes under the same name again. UNKNOWN and UnavailableError come
    when attempts, deadline or budget are spent, and UNKNOWN also when others have replaced what may have been ours.
    """

    def __init__(
        self,
        store: BlobStore,
        *,
        patience: Patience | None = None,
        budget: RetryBudget | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(store, patience=patience or Patience(), budget=budget, sleep=sleep)

    def create(self, name: BlobName, data: bytes) -> Written:
        def attempt() -> Written:
            written = self._store.create(name, data)
            if written.outcome is Outcome.DONE:
                return written
            blob = self._store.get(name)
            if blob is None:
                raise UnavailableError("create", name, written.why or "answered without effect")
            return _done(blob) if blob.data == data else Written(Outcome.REFUSED)

        return self._resolved(attempt)

    def replace(self, name: BlobName, data: bytes, version: Version) -> Written:
        doubtful = False

        def attempt() -> Written:
            nonlocal doubtful
            written = self._store.replace(name, data, version)
            if written.outcome is Outcome.DONE:
                return written
            doubtful = doubtful or written.outcome is Outcome.UNKNOWN
            blob = self._store.get(name)
            if blob is not None and blob.data == data:
                return _done(blob)
            if blob is not None and blob.version == version:
                raise UnavailableError("replace", name, written.why or "answered without effect")
            if doubtful:
                return Written(Outcome.UNKNOWN, why="it was not answered, and others have changed the blob since")
            return Written(Outcome.REFUSED)

        return self._resolved(attempt)

    def _resolved(self, attempt: Callable[[], Written]) -> Written:
        try:
            return self._retried(attempt)
        except UnavailableError as error:
            return Written(Outcome.UNKNOWN, why=error.why)


def _done(blob: Blob) -> Written:
    return Written(Outcome.DONE, blob.version)
