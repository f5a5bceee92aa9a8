"""The bus on a real NATS server with the product's own configuration: who may say what, parts, and reconnection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from federation.cli.local import ports
from federation.cli.local.nats import binary, configuration
from federation.protocol import subjects
from federation.protocol.bus import BusError, BusUnavailableError, NatsBus, connect_nats
from federation.protocol.nkeys import BusKey, new_bus_key

WAIT_S = 10.0


@dataclass(slots=True)
class Broker:
    """A nats-server that a test may stop and start again on the same port."""

    root: Path
    port: int
    keys: dict[str, BusKey]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        conf = self.root / "nats.conf"
        conf.write_text(configuration(self.port, {role: key.public for role, key in self.keys.items()}))
        with (self.root / "nats.log").open("ab") as log:
            self.process = subprocess.Popen([str(binary(os.environ)), "-c", str(conf)], stdout=log, stderr=log)

    def stop(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def bus(self, role: str, *, key_of: str = "") -> NatsBus:
        inbox = subjects.INBOX_SERVER if role == "server" else subjects.inbox(role)
        key = self.keys[key_of or role]
        return await connect_nats(f"nats://127.0.0.1:{self.port}", name=role, inbox_prefix=inbox, nkey_seed=key.seed)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    found = Broker(
        tmp_path, ports.PortKeeper().choose(set()), {role: new_bus_key() for role in ("server", "c-1", "c-2")}
    )
    found.start()
    yield found
    found.stop()


@contextlib.asynccontextmanager
async def connected(broker: Broker, *roles: str) -> AsyncIterator[list[NatsBus]]:
    found = [await broker.bus(role) for role in roles]
    try:
        yield found
    finally:
        for bus in found:
            await bus.close()


async def eventually(event: asyncio.Event) -> None:
    async with asyncio.timeout(WAIT_S):
        await event.wait()


async def test_a_question_is_answered_in_as_many_parts_as_it_takes(broker: Broker) -> None:
    async with connected(broker, "server", "c-1") as (server, agent):

        async def answer(subject: str, body: bytes) -> Sequence[bytes]:
            return [subject.encode(), body, b"last"]

        await server.subscribe(f"{subjects.PREFIX}.*.desired", answer, queue=subjects.QUEUE_GROUP)
        await asyncio.sleep(0.1)
        parts = []
        async with contextlib.aclosing(agent.request(f"{subjects.PREFIX}.c-1.desired", b"since", WAIT_S)) as replies:
            async for part in replies:
                parts.append(part)
                if part == b"last":
                    break
        assert parts == [b"muster.v1.c-1.desired", b"since", b"last"]


async def test_a_slow_answer_does_not_hold_up_the_next(broker: Broker) -> None:
    async with connected(broker, "server", "c-1") as (server, agent):
        release = asyncio.Event()

        async def answer(_: str, body: bytes) -> Sequence[bytes]:
            if body == b"slow":
                await release.wait()
            return [body]

        await server.subscribe(f"{subjects.PREFIX}.*.lease", answer, queue=subjects.QUEUE_GROUP)
        await asyncio.sleep(0.1)

        async def first(body: bytes) -> bytes:
            async with contextlib.aclosing(agent.request(f"{subjects.PREFIX}.c-1.lease", body, WAIT_S)) as replies:
                return await anext(replies)

        slow = asyncio.create_task(first(b"slow"))
        await asyncio.sleep(0)
        assert await first(b"fast") == b"fast"
        release.set()
        assert await slow == b"slow"


async def test_nobody_there_is_known_at_once(broker: Broker) -> None:
    async with connected(broker, "c-1") as (agent,):
        with pytest.raises(BusUnavailableError, match="nobody answers"):
            await anext(agent.request(f"{subjects.PREFIX}.c-1.lease", b"", WAIT_S))


@pytest.mark.parametrize("subject", [subjects.report("c-2"), subjects.doorbell("c-1"), subjects.JOURNAL_HINT])
async def test_an_agent_that_speaks_for_others_is_found_out(broker: Broker, subject: str) -> None:
    async with connected(broker, "c-1") as (agent,):
        await agent.publish(subject, b"forged")
        await eventually(agent.failed)
        assert "ermissions" in agent.failure


async def test_an_agent_cannot_listen_to_anothers_answers(broker: Broker) -> None:
    async with connected(broker, "c-1") as (agent,):

        async def eavesdrop(subject: str, body: bytes) -> Sequence[bytes]:
            raise AssertionError((subject, body))

        await agent.subscribe(f"{subjects.inbox('c-2')}.>", eavesdrop)
        await eventually(agent.failed)


async def test_a_credential_that_the_broker_does_not_know_is_final(broker: Broker) -> None:
    stranger = Broker(broker.root, broker.port, {**broker.keys, "c-1": new_bus_key()})
    with pytest.raises(BusError):
        async with asyncio.timeout(WAIT_S):
            await stranger.bus("c-1")


async def test_after_a_restart_of_the_broker_doorbells_arrive_again(broker: Broker) -> None:
    async with connected(broker, "server", "c-1") as (server, agent):
        heard = asyncio.Event()

        async def doorbell(_: str, body: bytes) -> Sequence[bytes]:
            if body == b"after":
                heard.set()
            return ()

        await agent.subscribe(subjects.doorbell("c-1"), doorbell)
        broker.stop()
        await server.publish(subjects.doorbell("c-1"), b"lost")
        broker.start()
        async with asyncio.timeout(WAIT_S * 2):
            while not heard.is_set():
                await server.publish(subjects.doorbell("c-1"), b"after")
                await asyncio.sleep(0.1)
        assert not agent.failed.is_set()
