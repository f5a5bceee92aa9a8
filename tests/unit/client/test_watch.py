"""The watch: events become decisions once each, across cut connections; both twins by the same cases."""

import asyncio
import json
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import httpx
import pytest

from muster.aio import AsyncClient
from muster.client import Client
from muster.errors import MusterError, NotFoundError, ProtocolError, UnavailableError
from muster.results import Decision
from muster.retry import RetryRule
from muster.stream import EVENT_LINES_MAX, DecisionStream

Answer = Callable[[httpx.Request], httpx.Response]
Watch = Callable[[Answer, int], list[int]]


def watch_sync(answer: Answer, count: int) -> list[int]:
    with Client("http://s", transport=httpx.MockTransport(answer), pause=lambda _: None) as client:
        return [decision.position for decision in islice(client.watch(since=3), count)]


def watch_async(answer: Answer, count: int) -> list[int]:
    async def pause(_: float) -> None:
        return None

    async def watch() -> list[int]:
        seen: list[int] = []
        async with AsyncClient("http://s", transport=httpx.MockTransport(answer), pause=pause) as client:
            decisions = client.watch(since=3)
            async for decision in decisions:
                seen.append(decision.position)
                if len(seen) == count:
                    break
            await decisions.aclose()  # type: ignore[attr-defined]
        return seen

    return asyncio.run(watch())


@pytest.fixture(params=["sync", "async"])
def watch(request: pytest.FixtureRequest) -> Watch:
    return watch_sync if request.param == "sync" else watch_async


def event(position: int) -> str:
    return f"id: {position}\nevent: Placed\ndata: {json.dumps({'position': position, 'kind': 'Placed'})}\n\n"


def scripted(bodies: Sequence[str | Exception], asked: list[httpx.Request]) -> Answer:
    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        body = bodies[len(asked) - 1]
        if isinstance(body, Exception):
            raise body
        return httpx.Response(200, text=body, headers={"Content-Type": "text/event-stream"})

    return answer


def test_a_cut_watch_resumes_after_the_last_event_it_saw(watch: Watch) -> None:
    asked: list[httpx.Request] = []
    half = event(6).partition("data")[0]
    answer = scripted([": connected\n\n" + event(4) + event(5) + half, event(6) + event(7)], asked)
    assert watch(answer, 4) == [4, 5, 6, 7]
    assert [request.headers.get("last-event-id") for request in asked] == [None, "5"]
    assert asked[0].url.query == b"since=3"


def test_a_server_that_is_away_for_a_while_does_not_end_the_watch(watch: Watch) -> None:
    asked: list[httpx.Request] = []
    assert watch(scripted([event(4), httpx.ConnectError("refused"), httpx.ReadTimeout(""), event(5)], asked), 2) == [
        4,
        5,
    ]


def test_a_server_that_stays_away_ends_the_watch(watch: Watch) -> None:
    with pytest.raises(UnavailableError):
        watch(scripted([httpx.ConnectError("refused")] * 5, []), 1)


def test_a_refused_watch_is_not_tried_again(watch: Watch) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(404, json={"reason": "NotFound"})

    with pytest.raises(NotFoundError):
        watch(answer, 1)
    assert len(asked) == 1


# --- the parser ------------------------------------------------------------------------------------------------------


def fed(lines: Sequence[str]) -> tuple[list[Decision], str]:
    stream = DecisionStream()
    found = [decision for line in lines if (decision := stream.feed(line)) is not None]
    return found, stream.last_id


@pytest.mark.parametrize(
    ("lines", "positions", "last_id"),
    [
        pytest.param(["id: 4", 'data: {"position": 4}', ""], [4], "4", id="one event"),
        pytest.param(["id:4", 'data:{"position":4}', ""], [4], "4", id="no blanks after colons"),
        pytest.param([": ping", "", ": ping", ""], [], "", id="comments only"),
        pytest.param(["id: 4", 'data: {"position":', "data: 4}", ""], [4], "4", id="data in two lines"),
        pytest.param(['data: {"position": 9}', ""], [9], "9", id="no id: its position"),
        pytest.param(["id: 4", 'data: {"position": 4}'], [], "", id="not ended yet"),
        pytest.param(["retry: 5", "id: 4", "event: New", 'data: {"position": 4}', ""], [4], "4", id="unknown field"),
    ],
)
def test_lines_become_decisions(lines: list[str], positions: list[int], last_id: str) -> None:
    found, seen = fed(lines)
    assert [decision.position for decision in found] == positions
    assert seen == last_id


@pytest.mark.parametrize("lines", [["data: no json", ""], ["data: x"] * (EVENT_LINES_MAX + 1)])
def test_what_is_not_our_stream_is_refused(lines: list[str]) -> None:
    with pytest.raises(ProtocolError):
        fed(lines)


def test_the_largest_event_is_still_read() -> None:
    assert issubclass(ProtocolError, MusterError)
    padding = ["data: "] * (EVENT_LINES_MAX - 1)
    found, _ = fed(['data: {"position": 4}', *padding, ""])
    assert [decision.position for decision in found] == [4]


def test_one_attempt_means_no_second_one() -> None:
    assert RetryRule(attempts_max=1).pause_s(1, UnavailableError("Away", ""), draw=0.5) is None


def test_any_error_but_unavailability_is_final() -> None:
    errors: list[Any] = [MusterError("X", ""), NotFoundError("X", ""), ProtocolError("X", "")]
    assert [RetryRule().pause_s(1, error, draw=0.5) for error in errors] == [None, None, None]
