"""What a list of the API server's counts for: only a list says what is not there any more."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable, Iterable

import pytest
import structlog.testing
from aiohttp import web

from cluster_agents.core.events import AgentEvent, Kind, Listed
from cluster_agents.core.objects import is_list
from cluster_agents.kubernetes.reflector import Reflector, Source
from cluster_agents.kubernetes.transport import connect

NODE = {"metadata": {"name": "n-1", "resourceVersion": "7"}}
WHOLE = {"kind": "NodeList", "metadata": {"resourceVersion": "7"}, "items": [NODE]}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"items": []},
        {"metadata": {"resourceVersion": "7"}},
        {"metadata": {"resourceVersion": "7"}, "items": {}},
        {"kind": "Status", "metadata": {}, "status": "Success"},
    ],
    ids=["nothing", "of no version", "without items", "items that are none", "a status"],
)
def test_what_answers_no_list_is_none(body: object) -> None:
    assert not is_list(body)


def test_an_empty_list_is_one() -> None:
    assert is_list({"metadata": {"resourceVersion": "7"}, "items": []})
    assert is_list({"metadata": {"resourceVersion": "7"}, "items": None}), "older servers write it so"


@contextlib.asynccontextmanager
async def api_server(*answers: web.Response, watches: Iterable[str] = ()) -> AsyncIterator[str]:
    """One that gives these answers to lists, in turn, and ends every watch at once, the first ones after `watches`."""
    left, events = list(answers), iter(watches)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=next(events, "")) if "watch" in request.query else left.pop(0)

    app = web.Application()
    app.add_routes([web.get("/api/v1/nodes", answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_proxys_page_in_place_of_a_list_says_nothing_about_what_is_there() -> None:
    """It came with status 200: taken as an empty list, it had every node dead, and every gang given up as it ran."""
    heard: asyncio.Queue[AgentEvent] = asyncio.Queue()
    page = web.Response(text="<html>sign in</html>", content_type="text/html")
    async with api_server(page, web.json_response(WHOLE)) as url:
        transport = await connect(url=url)
        reflector = Reflector(transport, Source(Kind.NODES, "/api/v1/nodes"), heard.put_nowait)
        running = asyncio.create_task(reflector.run())
        try:
            assert await asyncio.wait_for(heard.get(), 10.0) == Listed(Kind.NODES, (NODE,))
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await transport.close()


@pytest.mark.parametrize(
    ("header", "body", "told"),
    [
        pytest.param("3", "Too many requests, please try again later.\n", 3, id="as priority and fairness answer"),
        pytest.param("", '{"kind": "Status", "details": {"retryAfterSeconds": 2}}', 2, id="as a Status says"),
        pytest.param("9", '{"kind": "Status", "details": {"retryAfterSeconds": 2}}', 2, id="both"),
        pytest.param("Wed, 21 Oct 2026 07:28:00 GMT", "", 0, id="a date"),
        pytest.param("9" * 7, "", 0, id="more digits than weeks have seconds"),
        pytest.param("", "", 0, id="nothing"),
    ],
)
async def test_a_server_with_too_much_to_do_says_in_one_place_when_to_come_back(
    header: str, body: str, told: int
) -> None:
    answer = web.Response(status=429, text=body, headers={"Retry-After": header} if header else {})
    async with api_server(answer) as url:
        transport = await connect(url=url)
        try:
            status, found = await transport.call("GET", "/api/v1/nodes", timeout_s=10.0)
        finally:
            await transport.close()
    assert (status, found["details"]["retryAfterSeconds"]) == (429, told)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda: web.Response(text="<html>sign in</html>", content_type="text/html"), id="a page"),
        pytest.param(lambda: web.Response(status=201), id="nothing"),
        pytest.param(lambda: web.json_response({"ok": True}), id="JSON of somebody else"),
        pytest.param(lambda: web.json_response([1]), id="a list"),
    ],
)
async def test_a_write_that_went_well_by_no_api_servers_word_may_or_may_not_have(
    answer: Callable[[], web.Response],
) -> None:
    """A binding was taken for done, and its gang for bound: no event ever said otherwise."""
    async with api_server(answer()) as url:
        transport = await connect(url=url)
        try:
            status, said = await transport.call("GET", "/api/v1/nodes", timeout_s=10.0)
        finally:
            await transport.close()
    assert (status, "without a Kubernetes object" in said["message"]) == (0, True)


async def test_after_a_watch_that_told_something_the_next_one_that_fails_is_tried_again_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The wait only ever grew, to ten seconds after every break, however long the watch had been well."""
    waits: list[float] = []
    sleep = asyncio.sleep

    async def note(delay_s: float) -> None:
        waits.append(delay_s)
        await sleep(0)

    monkeypatch.setattr(random, "uniform", lambda _low, _high: 1.0)
    monkeypatch.setattr(asyncio, "sleep", note)
    moved = json.dumps({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "8"}}}) + "\n"
    async with api_server(web.json_response(WHOLE), watches=["", "", "", moved]) as url:
        transport = await connect(url=url)
        running = asyncio.create_task(Reflector(transport, Source(Kind.NODES, "/api/v1/nodes"), lambda _: None).run())
        while len(waits) < 5 and not running.done():
            await sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await transport.close()
    assert waits[:5] == [0.1, 0.2, 0.4, 0.1, 0.2]


@pytest.mark.long
async def test_a_list_that_is_refused_is_told_once_until_it_is_answered() -> None:
    """An agent without rights tried for ever, and its log said nothing."""
    heard: asyncio.Queue[AgentEvent] = asyncio.Queue()
    status = {"kind": "Status", "message": 'nodes is forbidden: User "x" cannot list resource "nodes"'}
    refusals = [web.json_response(status, status=403) for _ in range(3)]
    async with api_server(*refusals, web.json_response(WHOLE)) as url:
        transport = await connect(url=url)
        reflector = Reflector(transport, Source(Kind.NODES, "/api/v1/nodes"), heard.put_nowait)
        with structlog.testing.capture_logs() as logged:
            running = asyncio.create_task(reflector.run())
            await asyncio.wait_for(heard.get(), 30)
            running.cancel()
        await transport.close()
    told = [(one["log_level"], one["why"]) for one in logged if one["event"] == "list.failed"]
    assert told == [("warning", f"list answered 403: {status['message']}")]
