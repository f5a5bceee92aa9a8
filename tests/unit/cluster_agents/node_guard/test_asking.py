"""How a guard gets its agent's word over a network where agents are silent, wrong or not there."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from cluster_agents.node_guard import asking
from cluster_agents.node_guard.asking import ANSWER_BYTES_MAX, Agents
from federation.protocol.lease import TTL_S_MAX
from federation.protocol.messages import GuardAnswer, GuardAsk
from tests.unit.cluster_agents.node_guard.leases import START_S, starting

NAME = "agents.test"  # what stands behind it is said by `stand_behind`
WITHIN_S = 60.0
ASK = GuardAsk(node="n-1", ask_id=7)

Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


def body(**fields: Any) -> bytes:
    return msgspec.msgpack.encode(GuardAnswer(**{"ask_id": 7, "remaining_s": 60.0, **fields}))


def says(data: bytes, status: int = 200) -> Handle:
    async def handle(_: web.Request) -> web.StreamResponse:
        return web.Response(body=data, status=status)

    return handle


async def silent(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(WITHIN_S)
    raise AssertionError("somebody waited")


@asynccontextmanager
async def serving(handle: Handle, address: str = "127.0.0.1", port: int = 0) -> AsyncGenerator[int, None]:
    app = web.Application()
    app.add_routes([web.post("/guard", handle)])
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def stand_behind(patch: pytest.MonkeyPatch, *addresses: str) -> None:
    real = socket.getaddrinfo

    def resolve(host: str, *more: Any) -> list[Any]:
        if host == NAME:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 0)) for one in addresses]
        return list(real(host, *more))

    patch.setattr(socket, "getaddrinfo", resolve)


async def answer(
    port: int, host: str = "127.0.0.1", *, asks: int = 1, within_s: float = WITHIN_S
) -> GuardAnswer | None:
    """To the last of so many asks."""
    async with aiohttp.ClientSession() as session:
        agents = Agents(f"http://{host}:{port}", session, within_s=within_s)
        found = [await agents.ask(ASK) for _ in range(asks)]
        return found[-1]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "TIMEOUT_S", 0.2)


async def test_an_agents_word_is_read_and_it_hears_who_asks() -> None:
    heard: list[GuardAsk] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        heard.append(msgspec.msgpack.decode(await request.read(), type=GuardAsk))
        return web.Response(body=body(hold=("L.1",), starts=False))

    async with serving(handle) as port:
        assert await answer(port) == GuardAnswer(ask_id=7, remaining_s=60.0, hold=("L.1",), starts=False)
    assert heard == [ASK]


@pytest.mark.parametrize(
    "first",
    [says(b"", 503), says(body(), 503), says(body(), 201), silent, says(b"no answer")],
    ids=["503", "503 with an answer", "201", "silent", "garbage"],
)
async def test_where_one_has_no_word_the_next_is_asked_and_it_is_the_first_from_then_on(
    monkeypatch: pytest.MonkeyPatch, first: Handle
) -> None:
    asked: list[str] = []

    def counted(name: str, handle: Handle) -> Handle:
        async def handle_counted(request: web.Request) -> web.StreamResponse:
            asked.append(name)
            return await handle(request)

        return handle_counted

    stand_behind(monkeypatch, "127.0.0.1", "127.0.0.2")
    async with (
        serving(counted("first", first)) as port,
        serving(counted("second", says(body())), "127.0.0.2", port),
    ):
        assert await answer(port, NAME, asks=2) is not None
    assert asked == ["first", "second", "second"]


async def test_where_the_first_address_is_nobodys_the_next_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_behind(monkeypatch, "127.0.0.1", "127.0.0.2")
    async with serving(says(body()), "127.0.0.2") as port:
        assert await answer(port, NAME) is not None


async def test_of_so_many_addresses_the_last_is_asked_and_one_more_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ADDRESSES_MAX", 3)
    async with serving(says(body()), "127.0.0.9") as port:
        for before, found in ((2, True), (3, False)):
            stand_behind(monkeypatch, *(f"127.0.0.{number}" for number in range(2, 2 + before)), "127.0.0.9")
            assert (await answer(port, NAME) is not None) is found


@pytest.mark.parametrize("addresses", [(), ("127.0.0.1",)], ids=["no address", "nobody listens"])
async def test_where_nobody_is_there_there_is_no_word(
    monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...]
) -> None:
    stand_behind(monkeypatch, *addresses)
    async with serving(silent) as port:
        pass
    assert await answer(port, NAME) is None


@pytest.mark.parametrize("name", ["no-such-host.invalid", "x" * 64, "a..b"])
async def test_a_name_that_is_none_is_no_word(name: str) -> None:
    assert await answer(80, name) is None


async def test_all_together_take_no_longer_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "TIMEOUT_S", WITHIN_S)
    async with serving(silent) as port:
        assert await answer(port, within_s=0.1) is None


def padded(size: int) -> bytes:
    """An answer of exactly so many bytes; the last token held is as long as it takes."""
    spare = size - len(body(hold=("x" * 70_000,)))
    return body(hold=("x" * (70_000 + spare),))


async def test_the_largest_answer_is_read_and_one_byte_more_is_refused() -> None:
    for size, found in ((ANSWER_BYTES_MAX, True), (ANSWER_BYTES_MAX + 1, False)):
        assert len(padded(size)) == size
        async with serving(says(padded(size))) as port:
            assert (await answer(port) is not None) is found


async def test_an_answer_without_end_is_refused() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        while True:
            await stream.write(bytes(64 * 1024))

    async with serving(handle) as port:
        assert await answer(port) is None


async def test_an_answer_that_comes_by_drops_is_not_waited_for() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        while True:
            await stream.write(b"\xc0")
            await asyncio.sleep(0.05)

    async with serving(handle) as port:
        assert await answer(port) is None


@pytest.mark.parametrize(
    ("remaining_s", "found"),
    [
        (0.0, True),
        (TTL_S_MAX, True),
        (-0.1, False),
        (TTL_S_MAX + 0.1, False),
        (float("nan"), False),
        (float("inf"), False),
        (float("-inf"), False),
    ],
)
async def test_no_agent_promises_less_than_nothing_or_more_than_the_longest_lease(
    remaining_s: float, *, found: bool
) -> None:
    async with serving(says(body(remaining_s=remaining_s))) as port:
        assert (await answer(port) is not None) is found


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"<html>",
        body()[:-1],
        msgspec.msgpack.encode(ASK),
        body() + b"\xc0",
        msgspec.msgpack.encode({"type": "GuardAnswer", "ask_id": 7}),
        msgspec.msgpack.encode({"type": "GuardAnswer", "ask_id": 7, "remaining_s": "60"}),
        msgspec.msgpack.encode({"type": "GuardAnswer", "ask_id": 7, "remaining_s": 60.0, "hold": ["#"]}).replace(
            b"#", b"\xff"
        ),
        b"\x82\xa4type\xabGuardAnswer\xa1x" + b"\x91" * 100_000,
    ],
    ids=["empty", "bytes", "a page", "cut off", "an ask", "more after it", "no time", "a text", "no text", "depth"],
)
async def test_what_is_no_answer_is_no_word(data: bytes) -> None:
    async with serving(says(data)) as port:
        assert await answer(port) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 1_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
    ],
    ids=["closed", "no HTTP", "less than it says", "endless head"],
)
async def test_what_is_no_reply_is_no_word(data: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(data)
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1") as server:
        assert await answer(server.sockets[0].getsockname()[1]) is None


async def test_nobody_sends_a_guard_elsewhere() -> None:
    async with serving(says(body())) as port:

        async def handle(_: web.Request) -> web.StreamResponse:
            raise web.HTTPTemporaryRedirect(f"http://127.0.0.1:{port}/guard")

        async with serving(handle) as other:
            assert await answer(other) is None


async def test_an_answer_to_what_was_not_asked_gives_no_leave() -> None:
    guard = starting()
    async with serving(says(body(ask_id=999))) as port, aiohttp.ClientSession() as session:
        found = await Agents(f"http://127.0.0.1:{port}", session, within_s=WITHIN_S).ask(guard.ask(START_S))
    assert found is not None
    guard.answered(found)
    assert guard.deadline_s is None
    assert not guard.may_start("L.1", START_S)
