"""Hearing of keys from etcd itself: one stream in a thread of its own, begun again whenever it ends.

etcd3's own watcher begins an ended stream again without any pause, and dies with its channel.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

STREAM_PAUSE_S: Final = 1.0
"""Between two streams: what is put meanwhile is not told, and a member that is away is not asked without end."""
STOP_S: Final = 5.0
"""The thread ends as soon as its stream does; one that takes longer is left to the end of the process."""

Begin = Callable[[Iterator[Any]], Iterable[Any]]
"""Open a stream with these requests; its answers."""


class WatchEndedError(Exception):
    """etcd ended the watch and says why; also a login that expired is said in this way."""


class Watch:
    """Calls `heard` with each key that is put, from a thread of its own, until it is stopped. It tells no more than
    that it heard: keys put while no stream is open are left out."""

    def __init__(self, begin: Begin, request: Any, heard: Callable[[bytes], None], failed: Callable[[Exception], None]):
        self._begin = begin
        self._request = request
        self._heard = heard
        self._failed = failed
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="etcd-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Nothing is told any more once this returns. The store has closed its channel before: that ends the stream."""
        self._stopping.set()
        self._thread.join(STOP_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            over = threading.Event()
            try:
                for answer in self._begin(self._requests(over)):
                    self._tell(answer)
                    if answer.canceled:
                        raise WatchEndedError(answer.cancel_reason)
            except Exception as error:  # noqa: BLE001  gRPC's, and of a channel closed meanwhile; none may end the thread
                self._failed(error)
            finally:
                over.set()
            self._stopping.wait(STREAM_PAUSE_S)

    def _requests(self, over: threading.Event) -> Iterator[Any]:
        """The one request; the stream's way there stays open, because its end would end the answers."""
        yield self._request
        over.wait()

    def _tell(self, answer: Any) -> None:
        for event in answer.events:
            if not self._stopping.is_set():
                self._heard(event.kv.key)
