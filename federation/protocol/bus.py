"""The bus port and its NATS client, with the settings that were measured to be safe (DESIGN §10).

Messages are hints: `publish` may lose, `request` may time out, and nothing is buffered for later while disconnected,
because a report that arrives after a newer one only costs work.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from federation.protocol.messages import MESSAGE_BYTES_MAX

PING_S: Final = 2  # the default of 120 s never noticed a 15 s cut
PINGS_OUTSTANDING_MAX: Final = 2
RECONNECT_WAIT_S: Final = 0.25
RECONNECT_JITTER_S: Final = 0.5
CONNECT_TIMEOUT_S: Final = 2
NO_RESPONDERS: Final = "503"  # the broker's word that no subscription matched
HANDLING_MAX: Final = 4_096  # messages being answered at once; more are dropped, their senders ask again
REPLIES_MAX: Final = 64  # to one request and not read yet: 20 parts of a desired state, with room
PENDING_BYTES_MAX: Final = MESSAGE_BYTES_MAX * 4  # one burst; older reports are worthless

Handler = Callable[[str, bytes], Awaitable[Sequence[bytes]]]
"""Takes subject and body; what it returns are the replies: none, one, or the parts of a large one."""


class BusError(Exception):
    """The bus cannot be used as configured (wrong credential, forbidden subject): waiting will not help."""


class BusUnavailableError(Exception):
    """No answer now: time-out or disconnected."""


class Bus(Protocol):
    """What agent and server need of a bus. Delivery is at most once, in any order."""

    @property
    def connected(self) -> bool: ...

    async def publish(self, subject: str, body: bytes) -> None: ...

    def request(self, subject: str, body: bytes, timeout_s: float) -> AsyncGenerator[bytes, None]: ...

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> None: ...

    async def close(self) -> None: ...


@dataclass(slots=True)
class NatsBus:
    """One connection, reconnecting for ever with jitter. `failed` is set when the broker refused a permission."""

    url: str
    name: str
    inbox_prefix: str
    nkey_seed: str | None = None
    failed: asyncio.Event = field(default_factory=asyncio.Event)
    failure: str = ""
    reconnects: int = 0
    dropped: int = 0
    _client: Client = field(default_factory=Client)
    _handling: set[asyncio.Task[None]] = field(default_factory=set)
    _inbox: str = ""
    _asked: int = 0
    _replies: dict[str, asyncio.Queue[Msg]] = field(default_factory=dict)

    async def connect(self) -> None:
        """Start connecting; returns once connected or after the first failed try, and goes on by itself."""
        options = {"nkeys_seed_str": self.nkey_seed} if self.nkey_seed else {}
        await self._client.connect(
            servers=[self.url],
            name=self.name,
            inbox_prefix=self.inbox_prefix.encode(),
            ping_interval=PING_S,
            max_outstanding_pings=PINGS_OUTSTANDING_MAX,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_WAIT_S + random.uniform(0, RECONNECT_JITTER_S),  # type: ignore[arg-type]
            connect_timeout=CONNECT_TIMEOUT_S,
            pending_size=PENDING_BYTES_MAX,
            error_cb=self._on_error,
            reconnected_cb=self._on_reconnect,
            **options,  # type: ignore[arg-type]
        )

    @property
    def connected(self) -> bool:
        return bool(self._client.is_connected)

    async def publish(self, subject: str, body: bytes) -> None:
        """Send if connected; dropped otherwise."""
        if not self.connected:
            return
        try:
            await self._client.publish(subject, body)
        except NatsError:
            return  # a hint: the next one says the same

    async def request(self, subject: str, body: bytes, timeout_s: float) -> AsyncGenerator[bytes, None]:
        """Replies as they come, for `timeout_s` in all. BusUnavailableError at once when disconnected, or when time
        is up: the caller stops reading when it has what it asked for."""
        if not self.connected:
            raise BusUnavailableError("disconnected")
        inbox, number = await self._own_inbox(), self._asked
        self._asked += 1
        replies = self._replies[str(number)] = asyncio.Queue[Msg](REPLIES_MAX)
        try:
            async with asyncio.timeout(timeout_s):
                await self._client.publish(subject, body, reply=f"{inbox}.{number}")
                while True:
                    message = await replies.get()
                    if (message.headers or {}).get("Status") == NO_RESPONDERS:
                        raise BusUnavailableError("nobody answers there")
                    yield message.data
        except (NatsError, TimeoutError) as error:
            raise BusUnavailableError(str(error) or type(error).__name__) from error
        finally:
            self._replies.pop(str(number), None)

    async def _own_inbox(self) -> str:
        """One subscription for the replies to all our requests, told apart by the last word of their subject: one for
        each request costs the broker and us three messages more."""
        if not self._inbox:
            self._inbox = self._client.new_inbox()
            await self._client.subscribe(f"{self._inbox}.*", cb=self._on_reply)
        return self._inbox

    async def _on_reply(self, message: Msg) -> None:
        waiting = self._replies.get(message.subject.rpartition(".")[2])
        if waiting is not None and not waiting.full():  # else whoever asked has what it wanted, or gave up
            waiting.put_nowait(message)

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> None:
        """Run `handler` for each message, each in its own task: one slow answer must not hold up the next."""

        async def answer(message: Msg) -> None:
            for reply in await handler(message.subject, message.data):
                if message.reply:
                    await self.publish(message.reply, reply)

        async def on_message(message: Msg) -> None:
            if len(self._handling) >= HANDLING_MAX:
                self.dropped += 1
                return
            task = asyncio.ensure_future(answer(message))
            self._handling.add(task)
            task.add_done_callback(self._handling.discard)

        await self._client.subscribe(subject, queue=queue, cb=on_message)

    async def close(self) -> None:
        if not self._client.is_closed:
            await self._client.close()

    async def _on_error(self, error: Exception) -> None:
        text = str(error).lower()
        if "permissions violation" in text or "authorization violation" in text:
            self.failure = str(error)
            self.failed.set()

    async def _on_reconnect(self) -> None:
        self.reconnects += 1


async def connect_nats(url: str, *, name: str, inbox_prefix: str, nkey_seed: str | None) -> NatsBus:
    """A bus on `url`. Waits for the first connection for ever; BusError when the credential is refused."""
    bus = NatsBus(url, name, inbox_prefix, nkey_seed)
    connecting = asyncio.ensure_future(_connect(bus))
    refused = asyncio.ensure_future(bus.failed.wait())  # the client itself would go on asking for ever
    try:
        await asyncio.wait({connecting, refused}, return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            raise BusError(f"the broker at {url} refused {name}: {bus.failure}")
        connecting.result()
    finally:
        for task in (connecting, refused):
            task.cancel()
        await asyncio.gather(connecting, refused, return_exceptions=True)
    return bus


async def _connect(bus: NatsBus) -> None:
    while True:
        try:
            await bus.connect()
        except (nats.errors.NoServersError, OSError, TimeoutError):
            await asyncio.sleep(RECONNECT_WAIT_S + random.uniform(0, RECONNECT_JITTER_S))
        else:
            return
