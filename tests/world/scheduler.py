"""Virtual time: a heap of actions, run in order of their time and then of their arrival. No threads, no real clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Scheduler:
    """Runs actions at virtual times. An action may schedule more; nothing ever runs in the past."""

    __slots__ = ("_heap", "_ticket", "actions_run", "now_s")

    def __init__(self) -> None:
        self.now_s = 0.0
        self.actions_run = 0
        self._heap: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._ticket = 0

    def at(self, when_s: float, action: Callable[..., object], *args: Any) -> None:
        """Run `action(*args)` at `when_s`, or now if that has passed; ties run in the order they were scheduled."""
        self._ticket += 1
        heapq.heappush(self._heap, (max(when_s, self.now_s), self._ticket, action, args))

    def after(self, delay_s: float, action: Callable[..., object], *args: Any) -> None:
        self._ticket += 1
        heapq.heappush(self._heap, (self.now_s + delay_s, self._ticket, action, args))

    def run_until(self, end_s: float) -> None:
        """Run everything due up to and at `end_s`; the time is then `end_s`."""
        heap, pop, count = self._heap, heapq.heappop, 0
        try:
            while heap and heap[0][0] <= end_s:
                self.now_s, _, action, args = pop(heap)
                count += 1
                action(*args)
        finally:
            self.actions_run += count
        self.now_s = end_s


class Clock:
    """One process's monotonic clock: it runs at its own rate (A1) and starts anywhere."""

    __slots__ = ("offset_s", "rate")

    def __init__(self, rate: float, offset_s: float) -> None:
        self.rate = rate
        self.offset_s = offset_s

    def local(self, virtual_s: float) -> float:
        return self.offset_s + self.rate * virtual_s

    def virtual(self, local_s: float) -> float:
        """First virtual time at which this clock surely shows `local_s`."""
        return (local_s - self.offset_s) / self.rate + 1e-6
