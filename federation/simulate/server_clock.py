"""One federation server under load on a clock of its own: time passes only while the server itself works, or idles.

What agents and submitters do costs nothing on that clock, as if they ran on machines of their own; store calls count
in full, as if nothing overlapped them. So rates and latencies are those of a server that has one core and this disk.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from federation.core.events import CallStore, Halt, Instant, ReplicaEffect, ReplicaEvent, StoreAnswered, Tick
from federation.core.replica import Replica
from federation.core.taped import WriteReel, creation
from storage.blob import BlobCreate, BlobReplace, BlobStore, perform

WALL_MS: Final = 1_700_000_000_000  # records carry it for people; any moment will do


@dataclass(slots=True)
class Costs:
    """Work of the server so far, beside time."""

    busy_s: float = 0.0
    cpu_s: float = 0.0
    store_calls: int = 0
    store_bytes: int = 0
    store_s: float = 0.0
    tape_bytes: int = 0
    tape_s: float = 0.0

    def since(self, before: Costs) -> Costs:
        return Costs(
            self.busy_s - before.busy_s,
            self.cpu_s - before.cpu_s,
            self.store_calls - before.store_calls,
            self.store_bytes - before.store_bytes,
            self.store_s - before.store_s,
            self.tape_bytes - before.tape_bytes,
            self.tape_s - before.tape_s,
        )


class HaltedError(Exception):
    """The replica stopped: the benchmark is void."""


@dataclass(slots=True)
class ServerClock:
    """Feeds `replica`; every effect that is not a store call goes to `on_effect`."""

    replica: Replica
    store: BlobStore
    on_effect: Callable[[ReplicaEffect], None]
    event_takes_s: float | None = None  # instead of what it really took: then a run repeats exactly
    now_s: float = 1_000.0
    costs: Costs = field(default_factory=Costs)
    _events: deque[Callable[[], ReplicaEvent]] = field(default_factory=deque)
    _later: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _ticket: int = 0

    def feed(self, event: ReplicaEvent) -> None:
        self._events.append(lambda: event)

    def feed_read(self, read: Callable[[], ReplicaEvent]) -> None:
        """An event that the server must decode first: that is its work too."""
        self._events.append(read)

    def at(self, at_s: float, action: Callable[[], None]) -> None:
        """Somebody else acts at that time."""
        self._ticket += 1
        heapq.heappush(self._later, (at_s, self._ticket, action))

    def run(self, until: Callable[[], bool], *, limit_s: float = 3_600.0) -> None:
        """Let time pass until `until` holds; HaltedError if it does not within `limit_s` on this clock."""
        end_s = self.now_s + limit_s
        while not until():
            self._act()
            if self._events:
                self._work(self._events.popleft())
                continue
            wake_at_s = self.replica.wake_at_s
            next_s = min(self._later[0][0] if self._later else end_s, end_s if wake_at_s is None else wake_at_s)
            if next_s >= end_s:
                raise HaltedError(f"nothing more happens within {limit_s} s")
            self.now_s = max(self.now_s, next_s)
            if wake_at_s is not None and wake_at_s <= self.now_s:
                self.feed(Tick())

    def _act(self) -> None:
        while self._later and self._later[0][0] <= self.now_s:
            heapq.heappop(self._later)[2]()

    def _work(self, read: Callable[[], ReplicaEvent]) -> None:
        cpu_s, wall_s = time.thread_time(), time.perf_counter()  # looking at the first takes a while: not the server's
        now = Instant(self.now_s, WALL_MS + int(self.now_s * 1000))
        effects = self.replica.handle(read(), now)
        for effect in effects:
            if isinstance(effect, CallStore):
                self._call(effect)
            elif isinstance(effect, WriteReel):
                self._tape(effect)
        spent_s = time.perf_counter() - wall_s
        self.costs.busy_s += spent_s
        self.costs.cpu_s += time.thread_time() - cpu_s
        self.now_s += spent_s if self.event_takes_s is None else self.event_takes_s
        for effect in effects:
            if isinstance(effect, Halt):
                raise HaltedError(effect.why)
            if not isinstance(effect, CallStore | WriteReel):
                self.on_effect(effect)

    def _call(self, effect: CallStore) -> None:
        began_s = time.perf_counter()
        wish = effect.effect
        answer = StoreAnswered(perform(self.store, wish))
        self._events.append(lambda: answer)
        self.costs.store_calls += 1
        if isinstance(wish, BlobCreate | BlobReplace):
            self.costs.store_bytes += len(wish.data)
        self.costs.store_s += time.perf_counter() - began_s

    def _tape(self, effect: WriteReel) -> None:
        """A server does it in the background; on this clock it counts like all else."""
        began_s = time.perf_counter()
        wish = creation(effect)
        answer = StoreAnswered(perform(self.store, wish) if isinstance(wish, BlobCreate) else wish)
        self._events.append(lambda: answer)
        self.costs.tape_bytes += len(wish.data) if isinstance(wish, BlobCreate) else 0
        self.costs.tape_s += time.perf_counter() - began_s
