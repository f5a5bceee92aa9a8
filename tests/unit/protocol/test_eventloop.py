"""Tasks are ended, also those that forget that they were cancelled."""

from __future__ import annotations

import asyncio

import pytest

from federation.protocol import eventloop


async def test_what_forgets_a_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventloop, "CANCELLED_AGAIN_S", 0.01)
    heard = 0

    async def forgetful() -> None:
        nonlocal heard
        while heard < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                heard += 1

    async def failing() -> None:
        raise OSError("by itself")

    tasks = [asyncio.create_task(forgetful()), asyncio.create_task(failing())]
    await asyncio.sleep(0)
    await eventloop.end(tasks)
    assert (heard, [task.done() for task in tasks]) == (3, [True, True])
    assert isinstance(tasks[1].exception(), OSError)
