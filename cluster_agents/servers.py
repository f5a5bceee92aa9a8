"""Both paths from an agent to the federation: NATS request and HTTPS to any server (DESIGN §10).

A renewal goes out on both at once, and desired state often enough that the loss of one path is not noticed. All else
goes by the bus, and by HTTPS where the bus has no answer: asking everything twice doubles the work of both sides. Each
answer is handed on; the core takes repeats. Nothing is kept for later.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx
import structlog

from federation.protocol import subjects
from federation.protocol.bus import Bus, BusUnavailableError
from federation.protocol.messages import (
    AgentAsk,
    AnyMessage,
    Claims,
    DesiredAnswer,
    DesiredAsk,
    Doorbell,
    Renewal,
    Report,
    ReportWanted,
    ServerAnswer,
    UnreadableMessageError,
    Verdict,
    decode_answers,
    decode_message,
    encode_message,
)

ASKS_IN_FLIGHT_MAX: Final = 512  # past this an ask is dropped: the core asks again
RESERVED_MAX: Final = 64  # more for what keeps the cluster in the fleet, however many verdicts nobody answers
CONNECTIONS_MAX: Final = 16  # to the servers
REPORTS_WAITING_MAX: Final = 8  # for one server by HTTPS: what waited longer would pass for fresh when it arrives
VERDICTS_MAX: Final = 12  # of them, for verdicts: each is held until it landed, or for as long as nobody leads
VERDICT_TIMEOUT_S: Final = 8.0  # it is answered after it landed
BUS_AWAY_S: Final = 3.0  # reports go by HTTPS once the bus has been away this long
DESIRED_HTTPS_S: Final = 5.0  # desired state is asked for by HTTPS as well this often: then a deaf bus costs no more
MSGPACK: Final = "application/msgpack"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Question:
    """`path`: the HTTPS route that takes it. `turns`: who takes one of a few connections takes turns."""

    path: str
    body: bytes
    timeout_s: float
    turns: asyncio.Semaphore | None


@dataclass(slots=True)
class Servers:
    cluster: str
    urls: Sequence[str]
    http: httpx.AsyncClient
    ask_timeout_s: float
    on_answer: Callable[[ServerAnswer], None]
    on_told: Callable[[Doorbell | ReportWanted], None]
    bus: Bus | None = None
    dropped: int = 0
    set_aside: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _next_url: int = 0
    _bus_seen_s: float = 0.0
    _desired_https_s: float = 0.0
    _report_turns: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    _reports_waiting: Counter[str] = field(default_factory=Counter)
    _verdict_turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(VERDICTS_MAX))

    async def join_bus(self, bus: Bus) -> None:
        self.bus = bus
        await bus.subscribe(subjects.doorbell(self.cluster), self._on_doorbell)

    def ask(self, ask: AgentAsk, now_s: float) -> None:
        """Send it; answers come to `on_answer`, or never."""
        timeout_s = VERDICT_TIMEOUT_S if isinstance(ask, Verdict) else self.ask_timeout_s
        body, path = encode_message(ask), subjects.ask_path(ask)
        both, reserved = self._on_both(ask, now_s), isinstance(ask, Renewal | DesiredAsk | Claims)
        turns = self._verdict_turns if isinstance(ask, Verdict) else None
        if self.bus is not None and self.bus.connected:
            otherwise = "" if both else path
            asking = self._ask_bus(self.bus, subjects.ask_subject(ask), _Question(otherwise, body, timeout_s, turns))
            self._start(asking, reserved=reserved)
        else:
            both = True
        if both:
            self._start(self._ask_http(_Question(path, body, timeout_s, turns)), reserved=reserved)

    def _on_both(self, ask: AgentAsk, now_s: float) -> bool:
        if isinstance(ask, DesiredAsk) and now_s - self._desired_https_s >= DESIRED_HTTPS_S:
            self._desired_https_s = now_s
            return True
        return isinstance(ask, Renewal)

    def report(self, report: Report, now_s: float) -> None:
        body = encode_message(report)
        if self.bus is not None and self.bus.connected:
            self._bus_seen_s = now_s
            self._start(self.bus.publish(subjects.report(self.cluster), body), reserved=True)
        elif now_s - self._bus_seen_s >= BUS_AWAY_S:
            for url in self.urls:
                self._start(self._report_http(url, body), reserved=True)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.http.aclose()
        if self.bus is not None:
            await self.bus.close()

    def _start(self, work: Coroutine[None, None, None], *, reserved: bool = False) -> None:
        if len(self._tasks) >= ASKS_IN_FLIGHT_MAX + (RESERVED_MAX if reserved else 0):
            self.dropped += 1
            work.close()
            return
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask_bus(self, bus: Bus, subject: str, question: _Question) -> None:
        """Without a route there, it was asked by HTTPS already."""
        try:
            async with contextlib.aclosing(bus.request(subject, question.body, question.timeout_s)) as replies:
                async for reply in replies:
                    if self._hand_on(reply):
                        return
        except BusUnavailableError as error:
            log.debug("bus.no_answer", subject=subject, why=str(error))
            if question.path:
                await self._ask_http(question)

    async def _ask_http(self, question: _Question) -> None:
        """The next server in turn; another one answers the next ask."""
        if not self.urls:
            return
        url = self.urls[self._next_url % len(self.urls)]
        self._next_url += 1
        if question.turns is None:
            await self._post(url, question.path, question.body, question.timeout_s)
            return
        with contextlib.suppress(TimeoutError):  # the core says it again
            async with asyncio.timeout(question.timeout_s), question.turns:
                await self._post(url, question.path, question.body, question.timeout_s)

    async def _post(self, url: str, path: str, body: bytes, timeout_s: float) -> None:
        try:
            response = await self.http.post(
                f"{url}{path}", content=body, headers={"Content-Type": MSGPACK}, timeout=timeout_s
            )
        except httpx.HTTPError as error:
            log.debug("http.no_answer", path=path, why=type(error).__name__)
            return
        if response.status_code == 200:
            self._hand_on_all(response.content)
        elif response.status_code in {401, 403}:
            log.error("http.refused", path=path, status=response.status_code)

    async def _report_http(self, url: str, body: bytes) -> None:
        """To every server, as the bus does, and to each one after the other: each is read on the one before. One that
        does not answer holds up nobody else's."""
        if self._reports_waiting[url] >= REPORTS_WAITING_MAX:
            self.dropped += 1
            return
        self._reports_waiting[url] += 1
        try:
            async with self._report_turns[url]:
                await self._post(url, f"/v1/agents/{self.cluster}/report", body, self.ask_timeout_s)
        finally:
            self._reports_waiting[url] -= 1

    def _hand_on(self, body: bytes) -> bool:
        """Whether this was the last part."""
        message = self._read(body)
        if not isinstance(message, ServerAnswer):
            return True
        self.on_answer(message)
        return not isinstance(message, DesiredAnswer) or message.part >= message.parts - 1

    def _hand_on_all(self, body: bytes) -> None:
        try:
            answers = decode_answers(body)
        except UnreadableMessageError as error:
            self._set_aside(error)
            return
        for answer in answers:
            self.on_answer(answer)

    async def _on_doorbell(self, subject: str, body: bytes) -> Sequence[bytes]:
        del subject
        message = self._read(body)
        if isinstance(message, Doorbell | ReportWanted):
            self.on_told(message)
        return ()

    def _read(self, body: bytes) -> AnyMessage | None:
        try:
            return decode_message(body)
        except UnreadableMessageError as error:
            self._set_aside(error)
            return None

    def _set_aside(self, error: UnreadableMessageError) -> None:
        self.set_aside += 1
        log.warning("message.set_aside", why=str(error))
