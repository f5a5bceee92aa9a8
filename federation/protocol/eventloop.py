"""The event loop of our long-running processes: uvloop where it is installed (extra `fast`), asyncio's own otherwise.

Both behave alike to us; uvloop takes a good part less CPU for each request.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

FAST: Final = importlib.util.find_spec("uvloop") is not None
CANCELLED_AGAIN_S: Final = 1.0


def run(work: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`."""
    with asyncio.Runner(loop_factory=_factory()) as runner:
        return runner.run(work)


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancels these until all have ended, whatever they end with.

    Once is not enough for what waits in a library's `asyncio.wait_for`: in Python 3.11 it forgets a cancellation that
    comes together with its result.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCELLED_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)  # or asyncio complains of errors that nobody looked at


def _factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if not FAST:
        return None
    import uvloop

    return uvloop.new_event_loop
