"""The users' client: what it sends, when it sends again, and what it makes of answers; both twins by the same cases."""

import asyncio
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

import muster
from muster import calls
from muster.aio import AsyncClient
from muster.calls import Call
from muster.client import Client
from muster.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    MusterError,
    NotFoundError,
    ProtocolError,
    UnavailableError,
)
from muster.retry import RetryRule

SERVER = "http://127.0.0.1:1"
Step = httpx.Response | Exception


@dataclass
class Script:
    """A server that answers with the given steps in order and remembers what it was asked."""

    steps: Sequence[Step]
    asked: list[httpx.Request] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    servers: str | Sequence[str] = SERVER

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        step = self.steps[len(self.asked) - 1]
        if isinstance(step, Exception):
            raise step
        return step

    def send_sync(self, call: Call[Any]) -> Any:
        with Client(
            self.servers,
            "secret",
            transport=httpx.MockTransport(self.answer),
            pause=self.pauses.append,
            draw=lambda: 0.5,
        ) as client:
            return client.send(call)

    def send_async(self, call: Call[Any]) -> Any:
        async def pause(seconds: float) -> None:
            self.pauses.append(seconds)

        async def send() -> Any:
            async with AsyncClient(
                self.servers, "secret", transport=httpx.MockTransport(self.answer), pause=pause, draw=lambda: 0.5
            ) as client:
                return await client.send(call)

        return asyncio.run(send())


@pytest.fixture(params=["sync", "async"])
def send(request: pytest.FixtureRequest) -> Callable[[Script, Call[Any]], Any]:
    return Script.send_sync if request.param == "sync" else Script.send_async


Send = Callable[[Script, Call[Any]], Any]


def ok(body: object, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=body)


def problem(status: int, reason: str, headers: dict[str, str] | None = None) -> httpx.Response:
    body = {"status": status, "reason": reason, "detail": "why", "field": "queue", "remedy": "do this"}
    return httpx.Response(status, json=body, headers=headers)


def test_a_submission_carries_manifest_token_and_request_id(send: Send) -> None:
    script = Script([ok({"uid": "l.8", "position": 8, "name": "train", "namespace": "default"}, 201)])
    submitted = send(script, calls.submit({"name": "train"}, "id-1"))
    asked = script.asked[0]
    assert (submitted.uid, submitted.position) == ("l.8", 8)
    assert (asked.method, asked.url.path) == ("POST", "/v1/podgroups")
    assert json.loads(asked.content) == {"name": "train"}
    assert asked.headers["authorization"] == "Bearer secret"
    assert asked.headers["request-id"] == "id-1"


def test_a_submission_whose_answer_was_lost_is_sent_again_under_the_same_request_id(send: Send) -> None:
    script = Script([httpx.ReadTimeout("lost"), ok({"uid": "l.8"}, 201)])
    assert send(script, calls.submit({"name": "train"}, "id-1")).uid == "l.8"
    assert [asked.headers["request-id"] for asked in script.asked] == ["id-1", "id-1"]
    assert script.asked[0].content == script.asked[1].content


THREE = "http://a:1, http://b:2/,http://c:3"


def hosts(script: Script) -> list[str]:
    return [str(asked.url.host) for asked in script.asked]


def test_when_one_server_is_away_the_next_is_asked_at_once(send: Send) -> None:
    script = Script([httpx.ConnectError("no"), httpx.ConnectError("no"), ok({"uid": "l.8"}, 201)], servers=THREE)
    assert send(script, calls.submit({"name": "train"}, "id-1")).uid == "l.8"
    assert (hosts(script), script.pauses) == (["a", "b", "c"], [])
    assert {asked.headers["request-id"] for asked in script.asked} == {"id-1"}


def test_after_a_round_in_which_all_were_away_there_is_a_pause(send: Send) -> None:
    script = Script([httpx.ConnectError("no")] * 3 + [ok({"uid": "l.8"}, 201)], servers=["http://a:1", "http://b:2"])
    assert send(script, calls.submit({"name": "train"}, "id-1")).uid == "l.8"
    assert (hosts(script), len(script.pauses)) == (["a", "b", "a", "b"], 1)


def test_five_rounds_without_any_server_are_given_up(send: Send) -> None:
    script = Script([httpx.ConnectError("no")] * 15, servers=THREE)
    with pytest.raises(UnavailableError):
        send(script, calls.submit({"name": "train"}, "id-1"))
    assert len(script.asked) == 15


def test_a_server_that_does_not_know_the_leader_is_left_for_the_next(send: Send) -> None:
    script = Script([problem(503, "NotLeader"), ok({"uid": "l.8"}, 201)], servers=THREE)
    assert send(script, calls.submit({"name": "train"}, "id-1")).uid == "l.8"
    assert hosts(script) == ["a", "b"]


def test_a_server_that_asks_for_patience_is_asked_again(send: Send) -> None:
    script = Script([problem(429, "QueueFull"), ok({"uid": "l.8"}, 201)], servers=THREE)
    assert send(script, calls.submit({"name": "train"}, "id-1")).uid == "l.8"
    assert hosts(script) == ["a", "a"]


def test_each_submission_gets_a_request_id_of_its_own() -> None:
    script = Script([ok({"uid": "l.8"}, 201), ok({"uid": "l.9"}, 201)])
    with Client(SERVER, transport=httpx.MockTransport(script.answer)) as client:
        client.submit({"name": "a"})
        client.submit({"name": "b"})
    first, second = (asked.headers["request-id"] for asked in script.asked)
    assert len(first) == 32
    assert first != second


def test_a_refusal_is_an_answer_and_is_not_sent_again(send: Send) -> None:
    script = Script([problem(422, "UnknownQueue")])
    with pytest.raises(InvalidError) as caught:
        send(script, calls.submit({}, "id-1"))
    error = caught.value
    assert (error.reason, error.detail, error.status, error.field, error.remedy) == (
        "UnknownQueue",
        "why",
        422,
        "queue",
        "do this",
    )
    assert script.pauses == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidError),
        (401, ForbiddenError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (409, ConflictError),
        (413, InvalidError),
        (422, InvalidError),
        (500, ProtocolError),
    ],
)
def test_each_status_has_its_error(send: Send, status: int, kind: type[MusterError]) -> None:
    with pytest.raises(MusterError) as caught:
        send(Script([problem(status, "Why")]), calls.get_cluster("c-1"))
    assert type(caught.value) is kind


def test_a_server_that_is_away_is_asked_five_times_with_growing_pauses(send: Send) -> None:
    script = Script([httpx.ConnectError("refused")] * 5)
    with pytest.raises(UnavailableError) as caught:
        send(script, calls.list_clusters())
    assert script.pauses == [0.2, 0.4, 0.8, 1.6]
    assert caught.value.outcome_known
    assert "http://127.0.0.1:1 cannot be reached" in caught.value.detail


def test_retry_after_is_the_least_that_is_waited(send: Send) -> None:
    script = Script([problem(429, "QueueFull", {"Retry-After": "3"}), ok({"items": []})])
    send(script, calls.list_clusters())
    assert script.pauses == [3.2]


def test_a_503_leaves_the_outcome_open_and_a_429_does_not(send: Send) -> None:
    known = []
    for status in (503, 429):
        with pytest.raises(UnavailableError) as caught:
            send(Script([problem(status, "Busy")] * 5), calls.submit({}, "id-1"))
        known.append(caught.value.outcome_known)
    assert known == [False, True]


def test_a_pause_never_exceeds_five_seconds() -> None:
    rule = RetryRule(attempts_max=100)
    assert rule.pause_s(50, UnavailableError("Away", ""), draw=1.0) == 5.0
    assert rule.pause_s(50, UnavailableError("Away", "", retry_after_s=3600), draw=0.0) == 30.0


def test_the_last_allowed_attempt_gives_up() -> None:
    rule = RetryRule(attempts_max=2)
    assert rule.pause_s(1, UnavailableError("Away", ""), draw=0.5) == 0.2
    assert rule.pause_s(2, UnavailableError("Away", ""), draw=0.5) is None


def test_an_answer_that_is_not_the_apis_is_a_protocol_error(send: Send) -> None:
    script = Script([httpx.Response(200, text="<html>welcome</html>")])
    with pytest.raises(ProtocolError, match="GET /v1/clusters"):
        send(script, calls.list_clusters())


def test_an_error_page_of_somebody_else_is_shown_in_part(send: Send) -> None:
    script = Script([httpx.Response(404, text="x" * 500)])
    with pytest.raises(NotFoundError) as caught:
        send(script, calls.get_cluster("c-1"))
    assert (caught.value.reason, caught.value.detail) == ("Status404", "x" * 200)


def test_unknown_fields_are_ignored_and_missing_ones_have_defaults(send: Send) -> None:
    view = send(Script([ok({"metadata": {"name": "train", "new": 1}, "newer": {}})]), calls.get_group("train", "ml"))
    assert (view.metadata.name, view.metadata.namespace, view.status.phase) == ("train", "default", "")


def test_names_are_quoted_in_paths(send: Send) -> None:
    script = Script([ok({"metadata": {"name": "x"}})])
    send(script, calls.get_group("../clusters?x", "ml"))
    assert script.asked[0].url.raw_path == b"/v1/podgroups/..%2Fclusters%3Fx?namespace=ml"


def test_filters_become_query_parameters_and_empty_ones_are_left_out(send: Send) -> None:
    script = Script([ok({"items": [], "metadata": {"resourceVersion": "7", "continue": "5"}})])
    page = send(script, calls.list_groups(queue="ml", labels={"b": "2", "a": "1"}, limit=2))
    assert script.asked[0].url.query == b"queue=ml&limit=2&label=a%3D1&label=b%3D2"
    assert page.metadata.continue_ == "5"


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    def surface(kind: type[Any]) -> dict[str, list[str]]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        names = {"aclose": "close"}
        return {
            names.get(name, name): list(inspect.signature(method).parameters)
            for name, method in methods
            if not name.startswith("_")
        }

    assert surface(AsyncClient) == surface(Client)


def test_importing_the_package_loads_no_http_library() -> None:
    program = "import sys, muster; print(muster.__version__, 'httpx' in sys.modules, 'msgspec' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert shown == f"{muster.__version__} False False\n"


def test_every_public_name_can_be_loaded() -> None:
    assert sorted(name for name in muster.__all__ if getattr(muster, name) is None) == []
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = muster.Nothing  # type: ignore[attr-defined]


def test_many_submissions_go_in_parts_that_the_server_takes_each_with_its_own_id() -> None:
    small = calls.submit_many([{"name": "a"}, {"name": "b"}], "id")
    assert [call.path for call in small] == ["/v1/podgroups:bulk"]
    assert json.loads(small[0].body or b"") == {
        "items": [
            {"manifest": {"name": "a"}, "request_id": "id-0"},
            {"manifest": {"name": "b"}, "request_id": "id-1"},
        ]
    }
    counts = [len(json.loads(call.body or b"")["items"]) for call in calls.submit_many([{}] * 2_001, "id")]
    assert counts == [1_000, 1_000, 1]
    large = {"name": "x" * 600_000}
    assert [len(json.loads(call.body or b"")["items"]) for call in calls.submit_many([large] * 2, "id")] == [1, 1]
    assert calls.submit_many([], "id") == []


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_what_would_be_another_path_is_no_name(send: Send, name: str) -> None:
    script = Script([])
    with pytest.raises(InvalidError, match=f"'{name}' names nothing"):
        send(script, calls.act_on_group(name, "default", "cancel", "", "id-1"))


def test_what_does_not_fit_into_a_url_is_refused_in_words(send: Send) -> None:
    for script, call in (
        (Script([]), calls.get_group("a" * 100_000, "default")),
        (Script([], servers="http://lab:port"), calls.list_clusters()),
    ):
        with pytest.raises(InvalidError, match="is no URL"):
            send(script, call)


@pytest.mark.parametrize("token", ["tökèn", "a\nb", "a\x7f"])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_token_that_no_header_carries_is_refused_and_not_shown(kind: type[Any], token: str) -> None:
    with pytest.raises(InvalidError) as caught:
        kind(SERVER, token)
    assert (caught.value.field, token in str(caught.value)) == ("token", False)


def test_a_redirect_is_not_the_apis_and_asks_which_server_this_is(send: Send) -> None:
    with pytest.raises(ProtocolError) as caught:
        send(Script([httpx.Response(307, headers={"location": "/elsewhere"})]), calls.list_clusters())
    assert (caught.value.reason, caught.value.remedy) == ("Status307", "is this a Muster server?")
