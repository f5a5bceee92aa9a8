"""The decision log as a feed: the last committed records in memory, for `/v1/decisions` and the watch stream.

Older ones are in the journal; per-group history is in the state. Bounded: a slow watcher is cut off and resumes by
its last position.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from federation.core.events import EntryFolded
from federation.core.records import AnyRecord

FEED_RECORDS_MAX: Final = 50_000  # about a minute of decisions at full speed, hours otherwise
WATCHERS_MAX: Final = 1_000  # DESIGN §15
WATCHER_LAG_MAX: Final = 10_000  # records a watcher may be behind before it is cut off; or twice what it asked for
TOGETHER_MAX: Final = 256  # records handed to a watcher at once: one at a time, a busy loop would let it fall behind

Item = tuple[int, AnyRecord]


class TooManyWatchersError(Exception):
    """WATCHERS_MAX are connected already."""


class Quiet:
    """Nothing landed for a while."""


QUIET: Final = Quiet()


@dataclass(frozen=True, slots=True)
class _Watcher:
    """`waiting_max`: who asks for what is long past is behind from the start, and is not cut off for that."""

    queue: asyncio.Queue[Item | None]
    waiting_max: int
    above: int  # a position that this server may not have come to yet, where others are ahead of it


@dataclass(slots=True)
class Feed:
    _items: deque[Item] = field(default_factory=lambda: deque(maxlen=FEED_RECORDS_MAX))
    _watchers: dict[int, _Watcher] = field(default_factory=dict)
    _next_id: int = 0
    _expected: int = 0
    _closed: bool = False
    records: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)

    def folded(self, entry: EntryFolded) -> None:
        self._items.extend(entry.lines())
        self.records += len(entry.records)
        for kind, count in Counter(map(type, entry.records)).items():
            self.by_kind[kind.__name__] = self.by_kind.get(kind.__name__, 0) + count
        for watcher in self._watchers.values():
            for item in entry.lines():
                if item[0] <= watcher.above:
                    continue
                if watcher.queue.qsize() >= watcher.waiting_max:
                    self._cut(watcher.queue)
                    break
                watcher.queue.put_nowait(item)

    def since(self, position: int, limit: int, wanted: Callable[[Item], bool]) -> list[Item]:
        """The first `limit` wanted records above `position` that are still here, oldest first."""
        found: list[Item] = []
        for item in self._items:
            if item[0] > position and wanted(item):
                found.append(item)
                if len(found) >= limit:
                    break
        return found

    def before(self, position: int, limit: int, wanted: Callable[[Item], bool], *, since: int = 0) -> list[Item]:
        """The last `limit` wanted records below `position`, and above `since`, oldest first."""
        found: list[Item] = []
        for item in reversed(self._items):
            if item[0] <= since or len(found) >= limit:
                break
            if item[0] < position and wanted(item):
                found.append(item)
        return found[::-1]

    @property
    def oldest(self) -> int:
        """Position of the oldest record still here; 0 when empty."""
        return self._items[0][0] if self._items else 0

    @property
    def head(self) -> int:
        return self._items[-1][0] if self._items else 0

    @property
    def watchers(self) -> int:
        return len(self._watchers) + self._expected

    @contextmanager
    def expected(self) -> Iterator[None]:
        """Meanwhile one that is about to watch counts among those that do."""
        self._expected += 1
        try:
            yield
        finally:
            self._expected -= 1

    async def watch(self, position: int, *, quiet_s: float) -> AsyncIterator[list[Item] | Quiet]:
        """Records above `position`, then new ones as they come, as many as there are at once, and QUIET whenever none
        came for `quiet_s`. Ends when the watcher fell too far behind, or the feed was closed."""
        if len(self._watchers) >= WATCHERS_MAX:
            raise TooManyWatchersError
        if self._closed:
            return
        queue: asyncio.Queue[Item | None] = asyncio.Queue()
        self._next_id += 1
        mine = self._next_id
        for item in self._items:
            if item[0] > position:
                queue.put_nowait(item)
        self._watchers[mine] = _Watcher(queue, max(WATCHER_LAG_MAX, 2 * queue.qsize()), position)
        try:
            while (found := await _next_items(queue, quiet_s)) is not None:
                yield found
        finally:
            self._watchers.pop(mine, None)

    def close(self) -> None:
        """Every watch ends now, and none begins any more."""
        self._closed = True
        for watcher in self._watchers.values():
            self._cut(watcher.queue)

    @staticmethod
    def _cut(queue: asyncio.Queue[Item | None]) -> None:
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)


async def _next_items(queue: asyncio.Queue[Item | None], quiet_s: float) -> list[Item] | Quiet | None:
    """None where the watch ends, and nothing else is said any more."""
    try:
        async with asyncio.timeout(quiet_s):
            item = queue.get_nowait() if not queue.empty() else await queue.get()
    except TimeoutError:
        return QUIET
    found: list[Item] = []
    while item is not None:
        found.append(item)
        if queue.empty() or len(found) == TOGETHER_MAX:
            return found
        item = queue.get_nowait()
    return None
