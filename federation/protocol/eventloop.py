"""The event loop of our long-running processes: uvloop where it is installed (extra `fast`), asyncio's own otherwise.

Both behave alike to us; uvloop takes a good part less CPU for each request.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

FAST: Final = importlib.util.find_spec("uvloop") is not None


def run(work: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`."""
    with asyncio.Runner(loop_factory=_factory()) as runner:
        return runner.run(work)


def _factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if not FAST:
        return None
    import uvloop

    return uvloop.new_event_loop
