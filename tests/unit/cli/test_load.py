"""The sender of benchmarks: a watch that the server ends goes on where it was, and one that cannot is told in words."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest

from federation.cli.benches import wire
from federation.cli.benches.load import Load, Times, until_bound
from federation.cli.benches.wire import RESUMES_MAX, WireError, connect
from federation.cli.commands.bench_processes import own_folder
from federation.cli.errors import CliError
from tests.unit.cli.stub import decision, event, serving

CUT = [event(decision(n, "Bound", "bound")) for n in (8192, 16384, 24576)]


async def test_a_watch_that_the_server_ends_goes_on_after_the_last_event() -> None:
    with serving() as stub:
        stub.events = [CUT[0] + CUT[1], CUT[2]]
        watch = await connect(_port(stub.url), "t")
        seen = []
        async for one in watch.events("/v1/watch"):
            seen.append(one["position"])
            if len(seen) == 3:
                break
        await watch.close()
    assert seen == [8192, 16384, 24576]
    assert [one.headers.get("last-event-id") for one in stub.asked] == [None, "16384"]


async def test_the_end_of_an_answer_ends_a_watch_though_the_connection_stays_open() -> None:
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = CUT[len(asked) - 1].encode()
        writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n0\r\n\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        watch = await connect(server.sockets[0].getsockname()[1], "t")
        seen = []
        async for one in watch.events("/v1/watch"):
            seen.append(one["position"])
            if len(seen) == 2:
                break
        await watch.close()
    assert seen == [8192, 16384]
    assert [b"Last-Event-ID: 8192\r\n" in one for one in asked] == [False, True]


async def test_a_watch_that_is_refused_again_and_again_ends_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "RESUME_S", 0.0)
    with serving() as stub:
        async with Load(_port(stub.url), "t", connections=1) as load:
            with pytest.raises(WireError, match=f"the watch was answered 404, {RESUMES_MAX + 1} times in a row"):
                await until_bound(load.times, 1, 60.0)
    assert len(stub.asked) == RESUMES_MAX + 1


async def test_what_was_seen_before_a_measurement_does_not_count_but_a_lost_watch_does() -> None:
    load = Load(1, "t", connections=1)
    load.times = Times(bound_s={"l.1": 1.0}, unwatched="gone")
    load.forget()
    assert (load.times.bound_s, load.times.unwatched) == ({}, "gone")


def test_a_server_that_is_gone_ends_a_benchmark_with_exit_code_6_and_what_to_do() -> None:
    with pytest.raises(CliError) as caught, own_folder():
        raise WireError("the watch was answered 503, 11 times in a row")
    assert caught.value.code == 6
    assert caught.value.what == (
        "the server of this benchmark could not be reached: the watch was answered 503, 11 times in a row"
    )


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port
