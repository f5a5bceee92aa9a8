"""Everything between processes: delay, loss, repetition, and cuts. No message means a thing here."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from typing import Any, Final

from tests.world.draw import Weather
from tests.world.scheduler import Scheduler

DELAY_MAX_S: Final = 90.0  # nothing in a real network outlives its connections by more
REPEAT_DELAY_FACTOR: Final = 3.0  # a repeated message comes this much later on average


class Network:
    """Sends along named directions ("bus>c-1/a"); a direction that is cut swallows what is sent meanwhile."""

    def __init__(self, scheduler: Scheduler, rng: random.Random, weather: Weather) -> None:
        self.weather = weather
        self._scheduler = scheduler
        self._rng = rng
        self._cuts: dict[str, int] = {}
        self._slower_by_s: dict[str, float] = {}

    def cut(self, directions: Iterable[str]) -> None:
        for direction in directions:
            self._cuts[direction] = self._cuts.get(direction, 0) + 1

    def heal(self, directions: Iterable[str]) -> None:
        for direction in directions:
            left = self._cuts.get(direction, 0) - 1
            if left > 0:
                self._cuts[direction] = left
            else:
                self._cuts.pop(direction, None)

    def slow_down(self, directions: Iterable[str], by_s: float) -> None:
        """From now on what is sent along these directions takes this much longer; 0 ends it."""
        for direction in directions:
            self._slower_by_s[direction] = by_s

    def heal_all(self) -> None:
        self._cuts.clear()
        self._slower_by_s.clear()

    def is_cut(self, *directions: str) -> bool:
        cuts = self._cuts
        if not cuts:
            return False
        return any(direction in cuts for direction in directions)

    def delay(self, mean_s: float) -> float:
        return min(-math.log(1.0 - self._rng.random()) * mean_s, DELAY_MAX_S)  # exponential

    def _slower_s(self, directions: tuple[str, ...]) -> float:
        return max((self._slower_by_s.get(direction, 0.0) for direction in directions), default=0.0)

    def send(
        self,
        mean_s: float,
        directions: tuple[str, ...],
        action: Callable[..., object],
        *args: Any,
        not_before_s: float = 0.0,
    ) -> float:
        """Run `action(*args)` once, more than once, or never, each after a delay of its own. When first; 0 for never.

        `not_before_s`: when what it must not overtake arrives.
        """
        if self._cuts and self.is_cut(*directions):
            return 0.0
        weather = self.weather
        if weather.loss > 0.0 and self._rng.random() < weather.loss:
            return 0.0
        delay_s = self.delay(mean_s)
        if self._slower_by_s:
            delay_s += self._slower_s(directions)
        at_s = max(self._scheduler.now_s + delay_s, not_before_s)
        self._scheduler.at(at_s, action, *args)
        repeat = weather.repeat
        if repeat > 0.0 and self._rng.random() < repeat:
            self._scheduler.after(self.delay(mean_s * REPEAT_DELAY_FACTOR), action, *args)
        return at_s
