"""How long a command waits for a server that is slow, and what a person at a terminal is told meanwhile."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from federation.cli.main import run
from federation.cli.patience import LAST_SEND_S, PATIENCE, PatientClient, telling
from federation.cli.session import World
from muster.connection import ANSWER_TIMEOUT_S
from muster.errors import UnavailableError
from tests.unit.cli.conftest import Muster
from tests.unit.cli.stub import NOW_MS, Stub, problem

EXAMPLES = Path(__file__).parents[3] / "examples"
URL = "http://127.0.0.1:1"
HELD_S = 20.0  # far longer than any of it takes; only a fault waits for it
NO_OUTCOME = "no outcome within 30 s; the store: timed out"


class Listener:
    """Whoever looks on; `heard` is set with the first line."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.heard = threading.Event()

    def tell(self, line: str) -> None:
        self.lines.append(line)
        self.heard.set()


@pytest.mark.parametrize(
    ("act", "line"),
    [
        (lambda client: client.cancel("train"), f"waiting: {URL} has not said yet that this is durable (0 s)"),
        (lambda client: client.list_queues(), f"waiting: {URL} has not answered yet (0 s)"),
    ],
    ids=["of what changes something", "of a question"],
)
def test_a_person_is_told_what_is_waited_for(act, line) -> None:  # type: ignore[no-untyped-def]
    person = Listener()

    def slow(_: httpx.Request) -> httpx.Response:
        assert person.heard.wait(HELD_S)
        return httpx.Response(200, json={"position": 8192, "items": []})

    with PatientClient(URL, "", person.tell, after_s=0.0, transport=httpx.MockTransport(slow)) as client:
        act(client)
    assert person.lines == [line]


def test_they_are_told_again_and_again_until_it_is_done_and_nothing_afterwards() -> None:
    told: list[str] = []
    third = threading.Event()

    def tell(line: str) -> None:
        told.append(line)
        if len(told) == 3:
            third.set()

    with telling(tell, lambda waited_s: f"{waited_s:.3f}", after_s=0.001, every_s=0.002):
        assert third.wait(HELD_S)
    count = len(told)
    assert told[:3] == ["0.001", "0.003", "0.005"]
    assert len(told) == count


def test_who_is_answered_at_once_is_told_nothing() -> None:
    person = Listener()
    quick = httpx.MockTransport(lambda _: httpx.Response(200, json={"items": []}))
    with PatientClient(URL, "", person.tell, after_s=HELD_S, transport=quick) as client:
        client.list_queues()
    assert person.lines == []


@pytest.mark.parametrize(("watched", "told"), [(True, 1), (False, 0)])
def test_only_somebody_at_a_terminal_is_told(
    stub: Stub,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    watched: bool,
    told: int,
) -> None:
    person = Listener()
    stub.before_answer = lambda: watched and person.heard.wait(HELD_S)
    world = World({"HOME": str(tmp_path), "MUSTER_SERVER": stub.url}, lambda: NOW_MS, lambda: watched, person.tell, 0.0)
    assert run(("cancel", "train", "-n", "default"), world) == 0
    assert len(person.lines) == told
    assert capsys.readouterr().err == ""


def test_a_call_without_an_outcome_is_sent_twice_and_ends_within_eighty_seconds() -> None:
    """Each try waits for 30 s at the server: five of them took two minutes and a half."""
    now_s, sent = 1_000.0, []

    def stalls(request: httpx.Request) -> httpx.Response:
        nonlocal now_s
        sent.append(request.headers["request-id"])
        now_s += 30.0
        return httpx.Response(503, json={"reason": "Unavailable", "detail": NO_OUTCOME}, headers={"Retry-After": "1"})

    def pause(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    def clock() -> float:
        return now_s

    with (
        PatientClient(
            URL,
            "",
            None,
            after_s=3.0,
            transport=httpx.MockTransport(stalls),
            pause=pause,
            draw=lambda: 1.0,
            clock=clock,
        ) as client,
        pytest.raises(UnavailableError, match="no outcome"),
    ):
        client.cancel("train")
    assert (len(sent), len(set(sent))) == (2, 1)
    assert now_s - 1_000.0 <= 62.0
    assert LAST_SEND_S + ANSWER_TIMEOUT_S == 80.0


def test_the_last_send_is_no_later_than_that() -> None:
    error = UnavailableError("Unavailable", "")
    assert PATIENCE.pause_s(1, error, draw=0.0, spent_s=LAST_SEND_S) == 0.0
    assert PATIENCE.pause_s(1, error, draw=0.0, spent_s=LAST_SEND_S + 0.1) is None
    assert replace(PATIENCE, within_s=10.0).pause_s(1, error, draw=1.0, spent_s=9.7) is None


@pytest.mark.parametrize(
    ("command", "path", "remedy"),
    [
        (
            ("submit", "--request-id", "mine", "-f"),
            ("POST", "/v1/podgroups"),
            "whether it was taken is not known; again with `--request-id mine` it is taken once",
        ),
        (
            ("apply", "-f"),
            ("POST", "/v1/podgroups"),
            "whether it took effect is not known; the same command again does no harm",
        ),
        (
            ("cancel", "train"),
            ("POST", "/v1/podgroups/train/cancel"),
            "whether it took effect is not known; the same command again does no harm",
        ),
    ],
    ids=["submit", "apply", "cancel"],
)
def test_the_last_line_says_what_to_do_where_nobody_knows_whether_it_took_effect(
    muster: Muster,
    stub: Stub,
    monkeypatch: pytest.MonkeyPatch,
    *,
    command: tuple[str, ...],
    path: tuple[str, str],
    remedy: str,
) -> None:
    monkeypatch.setattr("federation.cli.patience.PATIENCE", replace(PATIENCE, attempts_max=1))
    stub.answers[path] = problem(503, "Unavailable", NO_OUTCOME, "body", "send the same request id again")
    files = (f"{EXAMPLES}/gang.yaml",) if "-f" in command else ()
    outcome = muster(*command, *files)
    assert (outcome.code, outcome.out) == (6, "")
    assert NO_OUTCOME in outcome.err
    assert outcome.err.endswith(f"(Unavailable)\n  {remedy}\n")


def test_what_only_reads_is_in_no_doubt(muster: Muster, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("federation.cli.patience.PATIENCE", replace(PATIENCE, attempts_max=1))
    stub.answers["GET", "/v1/decisions"] = problem(503, "Unavailable", "the store stalls", "store", "try again")
    outcome = muster("history")
    assert (outcome.code, outcome.out) == (6, "")
    assert outcome.err.endswith("(Unavailable)\n  try again\n")
