"""The agent's endpoint for guards: what it reads, and that words about GPUs never cost a guard its answer."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import msgspec
import pytest
from structlog.testing import capture_logs

from cluster_agents.kubernetes.guard_server import BODY_BYTES_MAX, serve_guards
from federation.protocol.gpus import GPUS_TOLD_MAX, Gpu
from federation.protocol.messages import GuardAnswer, GuardAsk


async def answered(*bodies: bytes) -> tuple[list[int], list[GuardAsk]]:
    """The statuses of the answers to these bodies, and what was asked of the core."""
    heard: list[GuardAsk] = []

    async def answer(ask: GuardAsk) -> GuardAnswer:
        await asyncio.sleep(0)
        heard.append(ask)
        return GuardAnswer(ask_id=ask.ask_id, remaining_s=5.0)

    runner = await serve_guards(answer, host="127.0.0.1", port=0, ports_file=None)
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/guard"
        async with aiohttp.ClientSession() as session:
            statuses = []
            for body in bodies:
                async with session.post(url, data=body) as reply:
                    statuses.append(reply.status)
    finally:
        await runner.cleanup()
    return statuses, heard


def ask(gpus: Any) -> bytes:
    return msgspec.msgpack.encode({"kind": "GuardAsk", "node": "n-1", "ask_id": 7, "gpus": gpus})


async def test_what_a_guard_says_of_its_gpus_reaches_the_core() -> None:
    statuses, heard = await answered(ask([{"uuid": "A", "faults": ["xid-79"]}]), ask(None))
    assert statuses == [200, 200]
    assert [one.gpus for one in heard] == [(Gpu(uuid="A", faults=("xid-79",)),), None]


@pytest.mark.parametrize(
    "gpus",
    [
        [{}] * (GPUS_TOLD_MAX + 1),
        7,
        "all",
        [{"uuid": 7}],
        [{"faults": ["x" * 25]}],
        [[]],
        {"a": {"b": [1, 2, None]}},
    ],
    ids=["too many", "a number", "a text", "a UUID that is none", "a fault too long", "lists", "a map"],
)
async def test_words_about_gpus_that_cannot_be_read_are_left_out_and_the_guard_is_answered(gpus: Any) -> None:
    with capture_logs() as logs:
        statuses, heard = await answered(ask(gpus), ask(gpus))
    assert statuses == [200, 200]
    assert heard == [GuardAsk(node="n-1", ask_id=7)] * 2
    assert [(one["event"], one["node"]) for one in logs] == [("guard.gpus_unreadable", "n-1")]  # once


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"\xff" * 16, 422),
        (msgspec.msgpack.encode({"kind": "GuardAsk", "node": 7, "ask_id": 7, "gpus": []}), 422),
        (msgspec.msgpack.encode({"kind": "Renewal", "node": "n-1", "ask_id": 7}), 422),
        (ask([]) + b"\x00", 422),
        (ask([{"uuid": "u" * BODY_BYTES_MAX}]), 413),
    ],
    ids=["nothing", "no msgpack", "a node that is no text", "another message", "something behind it", "too large"],
)
async def test_what_is_no_ask_is_refused(body: bytes, status: int) -> None:
    assert await answered(body) == ([status], [])
