"""Waiting for a fleet on one machine to be as a test needs it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from federation.cli.local.fleet import LocalFleet

WITHIN_S: Final = 60.0  # a machine that does much else
LOOK_EVERY_S: Final = 0.05


def until(done: Callable[[], bool], what: str, within_s: float = WITHIN_S) -> None:
    """Returns when `done` says so; `what` is wrong when it does not in time."""
    deadline_s = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < deadline_s, what
        time.sleep(LOOK_EVERY_S)


def leader(fleet: LocalFleet) -> str:
    """Role of the server that leads."""
    found: list[str] = []

    def led() -> bool:
        role = fleet.leader()
        found.extend([role] if role else [])
        return bool(found)

    until(led, "nobody leads")
    return found[0]
