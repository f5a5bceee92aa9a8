"""Which path an agent's question takes: both for what keeps a cluster alive, else the bus, and HTTPS where it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import httpx
import pytest

from cluster_agents.servers import (
    ASKS_IN_FLIGHT_MAX,
    CONNECTIONS_MAX,
    DESIRED_HTTPS_S,
    REPORTS_WAITING_MAX,
    RESERVED_MAX,
    VERDICTS_MAX,
    Servers,
)
from federation.protocol.bus import BusUnavailableError, Handler
from federation.protocol.messages import (
    AgentAsk,
    DesiredAsk,
    Renewal,
    Report,
    ServerAnswer,
    SpecAnswer,
    SpecAsk,
    Stamp,
    Verdict,
    decode_message,
    encode_answers,
    encode_message,
)

SPEC = SpecAsk(ask_id=7, cluster="c-1", uid="l.1")
ANSWER = SpecAnswer(ask_id=7, uid="l.1", spec=b"x")
RENEWAL = Renewal(ask_id=1, cluster="c-1", epoch=1, renew_seq=1, ttl_s=30, holder_uid="u", holder_boot="b", nonce="n")


@dataclass
class MemoryBus:
    """A bus in memory: remembers the subjects, and answers or does not."""

    connected: bool = True
    deaf: bool = False
    asked: list[str] = field(default_factory=list)

    async def publish(self, subject: str, body: bytes) -> None:
        self.asked.append(subject)

    async def request(self, subject: str, body: bytes, timeout_s: float) -> AsyncGenerator[bytes, None]:
        self.asked.append(subject)
        if self.deaf:
            raise BusUnavailableError("nobody answers there")
        yield encode_message(ANSWER)

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> None:
        return

    async def close(self) -> None:
        return


@dataclass
class Paths:
    bus: MemoryBus
    servers: Servers
    routes: list[str]
    answers: list[ServerAnswer]

    async def ask(self, *asks: tuple[AgentAsk, float]) -> tuple[list[str], list[str]]:
        """What was asked by bus and by HTTPS, shortened to the kind of question."""
        for ask, now_s in asks:
            self.servers.ask(ask, now_s)
            while self.servers._tasks:
                await asyncio.gather(*self.servers._tasks)
        return [one.rpartition(".")[2] for one in self.bus.asked], [one.rpartition("/")[2] for one in self.routes]


@pytest.fixture
def paths() -> Paths:
    routes: list[str] = []
    answers: list[ServerAnswer] = []

    def answer(request: httpx.Request) -> httpx.Response:
        routes.append(request.url.path)
        return httpx.Response(200, content=encode_answers([ANSWER]))

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    bus = MemoryBus()
    servers = Servers("c-1", ["http://s"], http, 1.0, answers.append, lambda _: None, bus)
    return Paths(bus, servers, routes, answers)


async def test_a_renewal_goes_out_on_both_paths(paths: Paths) -> None:
    assert await paths.ask((RENEWAL, 0.0)) == (["lease"], ["lease"])


async def test_all_else_goes_by_the_bus_alone_while_it_answers(paths: Paths) -> None:
    assert await paths.ask((SPEC, 0.0)) == (["spec"], [])
    assert paths.answers == [ANSWER]


async def test_what_the_bus_does_not_answer_is_asked_by_https(paths: Paths) -> None:
    paths.bus.deaf = True
    assert await paths.ask((SPEC, 0.0)) == (["spec"], ["spec"])
    assert paths.answers == [ANSWER]


async def test_without_a_bus_everything_is_asked_by_https(paths: Paths) -> None:
    paths.bus.connected = False
    assert await paths.ask((SPEC, 0.0), (RENEWAL, 0.0)) == ([], ["spec", "lease"])


async def test_desired_state_is_asked_for_by_https_too_once_in_a_while(paths: Paths) -> None:
    ask = DesiredAsk(ask_id=1, cluster="c-1", since=0)
    first, soon, later = 100.0, 100.0 + DESIRED_HTTPS_S - 0.1, 100.0 + DESIRED_HTTPS_S
    assert await paths.ask((ask, first), (ask, soon), (ask, later)) == (["desired"] * 3, ["desired"] * 2)


async def test_without_a_bus_every_server_gets_the_reports_in_their_order() -> None:
    came: list[tuple[str, int]] = []

    async def take(request: httpx.Request) -> httpx.Response:
        report = decode_message(request.content)
        if not isinstance(report, Report):
            return httpx.Response(200, content=encode_answers([ANSWER]))
        if report.stamp.seq == 1:
            await asyncio.sleep(0)  # the first one takes longest
        came.append((request.url.host, report.stamp.seq))
        return httpx.Response(204)

    http = httpx.AsyncClient(transport=httpx.MockTransport(take))
    servers = Servers("c-1", ["http://a", "http://b"], http, 1.0, lambda _: None, lambda _: None)
    for seq in (1, 2, 3):
        servers.report(Report(cluster="c-1", lineage="l", stamp=Stamp(1, seq), applied=0), 100.0)
        servers.ask(SPEC, 100.0)  # takes the next server in turn, which must not cost a server its report
    while servers._tasks:
        await asyncio.gather(*servers._tasks)
    assert sorted(came) == [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2), ("b", 3)]
    assert [seq for _, seq in came] == [1, 1, 2, 2, 3, 3]


async def drained(servers: Servers) -> None:
    while servers._tasks:
        await asyncio.gather(*servers._tasks)


async def settled() -> None:
    """Everything that waits for nobody has gone on."""
    for _ in range(1_000):
        await asyncio.sleep(0)


@dataclass
class Patient:
    """Servers that answer renewals, and hold everything else until they are let go, or until who asks gives up."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    routes: list[str] = field(default_factory=list)
    held: set[str] = field(default_factory=set)

    async def take(self, request: httpx.Request) -> httpx.Response:
        self.routes.append(f"{request.url.host} {request.url.path.rpartition('/')[2]}")
        if request.url.path.endswith("/lease"):
            return httpx.Response(200, content=encode_answers([ANSWER]))
        if not self.held or request.url.host in self.held:
            await self.go.wait()
        return httpx.Response(503)

    def servers(self, *hosts: str) -> Servers:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self.take))
        return Servers("c-1", [f"http://{host}" for host in hosts], http, 1.0, lambda _: None, lambda _: None)


def verdict(number: int) -> Verdict:
    return Verdict(ask_id=number, cluster="c-1", uid=f"l.{number}", token=f"l.{number}", verdict="Running")


async def test_verdicts_that_nobody_answers_do_not_keep_renewals_from_leaving() -> None:
    """Without a leader for as long as a lease lasts, clusters in which much ended at once were fenced."""
    patient = Patient()
    servers = patient.servers("s")
    for number in range(ASKS_IN_FLIGHT_MAX + 1):
        servers.ask(verdict(number), 100.0)
    assert servers.dropped == 1
    await asyncio.sleep(0)
    servers.ask(RENEWAL, 100.0)
    await settled()
    assert patient.routes.count("s lease") == 1
    assert patient.routes.count("s verdict") == VERDICTS_MAX < CONNECTIONS_MAX
    assert servers.dropped == 1
    patient.go.set()
    await drained(servers)
    assert patient.routes.count("s verdict") == ASKS_IN_FLIGHT_MAX


async def test_what_is_reserved_for_renewals_is_bounded_too() -> None:
    patient = Patient()
    servers = patient.servers("s")
    for number in range(ASKS_IN_FLIGHT_MAX):
        servers.ask(verdict(number), 100.0)
    for _ in range(RESERVED_MAX):
        servers.ask(RENEWAL, 100.0)
    assert servers.dropped == 0
    servers.ask(RENEWAL, 100.0)
    assert servers.dropped == 1
    patient.go.set()
    await drained(servers)


async def test_a_server_that_does_not_answer_holds_up_no_other_ones_reports_and_gets_no_old_ones() -> None:
    patient = Patient(held={"a"})
    servers = patient.servers("a", "b")
    for seq in range(1, REPORTS_WAITING_MAX + 2):
        servers.report(Report(cluster="c-1", lineage="l", stamp=Stamp(1, seq), applied=0), 100.0)
    await settled()
    assert patient.routes.count("b report") >= REPORTS_WAITING_MAX
    assert patient.routes.count("a report") == 1
    patient.go.set()
    await drained(servers)
    assert patient.routes.count("a report") == REPORTS_WAITING_MAX
