"""One timer for a core: it rings when the core last said that it wants to. What is done then is the shell's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class WakeTimer:
    """`ring` runs once for each time that was set and has come, in the event loop."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None
        self._at_s: float | None = None

    def set(self, at_s: float | None) -> None:
        """Ring then (monotonic seconds), at once if that has passed, or never; what was set before counts no more."""
        if at_s == self._at_s:
            return
        self.cancel()
        if at_s is not None:
            self._at_s = at_s
            self._handle = asyncio.get_running_loop().call_later(max(0.0, at_s - time.monotonic()), self._rang)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._at_s = None

    def _rang(self) -> None:
        self._handle = self._at_s = None
        self._ring()
