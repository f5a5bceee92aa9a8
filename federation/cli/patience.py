"""How long a command waits for its server, and what a person at a terminal is told meanwhile. Nothing is sent here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from muster.calls import Call
from muster.client import Client
from muster.retry import RetryRule

TOLD_EVERY_S: Final = 15.0
LAST_SEND_S: Final = 45.0  # a server says after 30 s that it has no outcome: so two tries, and an end after a minute
PATIENCE: Final = RetryRule(within_s=LAST_SEND_S)  # and 80 s at most: a send waits 35 s for its answer

Tell = Callable[[str], None]
T = TypeVar("T")


class PatientClient(Client):
    """Tells what it waits for, where somebody is told anything."""

    def __init__(self, server: str, token: str, tell: Tell | None, *, after_s: float, **more: Any):
        super().__init__(server, token, retry=PATIENCE, **more)
        self._tell, self._after_s = tell, after_s

    def send(self, call: Call[T]) -> T:
        if self._tell is None:
            return super().send(call)
        with telling(self._tell, lambda waited_s: self._wait_line(call, waited_s), after_s=self._after_s):
            return super().send(call)

    def _wait_line(self, call: Call[T], waited_s: float) -> str:
        what = "has not answered yet" if call.method == "GET" else "has not said yet that this is durable"
        return f"waiting: {self.server} {what} ({waited_s:.0f} s)"


@contextmanager
def telling(
    tell: Tell, line: Callable[[float], str], *, after_s: float, every_s: float = TOLD_EVERY_S
) -> Iterator[None]:
    """Tell a line, made of the seconds so far, when what is done meanwhile takes long, and again until it is done."""
    done = threading.Event()

    def watch() -> None:
        pause_s = waited_s = after_s
        while not done.wait(pause_s):
            tell(line(waited_s))
            pause_s, waited_s = every_s, waited_s + every_s

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
