"""The health of a guard, and that whoever looks at it cannot take its file descriptors."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest

from cluster_agents.node_guard.health import CONNECTIONS_MAX, Health


@pytest.fixture
async def health(tmp_path: Path) -> AsyncGenerator[Health, None]:
    found = Health((tmp_path / "registered").exists, lambda: {"containers": 3})
    await found.open(("127.0.0.1", 0), tmp_path / "ports.json")
    yield found
    await found.close()


@pytest.fixture
def port(health: Health, tmp_path: Path) -> int:
    return int(json.loads((tmp_path / "ports.json").read_text())["health"])


async def seen(port: int) -> tuple[int, int]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/healthz") as reply:
        return reply.status, (await reply.json())["containers"]


async def test_it_is_well_while_the_runtime_asks_it(port: int, tmp_path: Path) -> None:
    assert await seen(port) == (503, 3)
    (tmp_path / "registered").touch()
    assert await seen(port) == (200, 3)


async def test_of_so_many_connections_the_last_is_served_and_one_more_is_closed(health: Health, port: int) -> None:
    async def counted(count: int) -> None:
        while len(health.connections) != count:  # noqa: ASYNC110 - it is the loop that is waited for
            await asyncio.sleep(0)

    with ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(CONNECTIONS_MAX - 1)]
        await counted(CONNECTIONS_MAX - 1)
        assert await seen(port) == (503, 3)
        await counted(CONNECTIONS_MAX - 1)
        idle.append(stack.enter_context(socket.create_connection(("127.0.0.1", port))))
        await counted(CONNECTIONS_MAX)
        with pytest.raises(aiohttp.ClientConnectionError):
            await seen(port)
        idle.pop().close()
        await counted(CONNECTIONS_MAX - 1)
        assert await seen(port) == (503, 3)
