"""How a guard reaches its agent over the cluster's own network: each address of a name is asked until one has a word.

Several agents may stand behind it, of which one acts; the others answer 503.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import msgspec
import structlog

from federation.protocol.lease import TTL_S_MAX
from federation.protocol.messages import UNREADABLE, GuardAnswer, GuardAsk

HTTP_PORT: Final = 80
ADDRESSES_MAX: Final = 16  # agents of one cluster; more are not asked
ANSWER_BYTES_MAX: Final = 1024 * 1024  # tokens of all that may be held, 30 bytes each
TIMEOUT_S: Final = 2.0  # of one address: an agent answers from memory, within GUARD_TIMEOUT_S

log = structlog.get_logger()

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(GuardAnswer)


class Agents:
    """The agents behind `url`; whoever answered last is asked first."""

    def __init__(self, url: str, session: aiohttp.ClientSession, *, within_s: float) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._url = url
        self._host, self._port = parts.hostname, parts.port or HTTP_PORT
        self._session = session
        self._within_s = within_s
        self._last = ""
        self._answers = True  # what the log said last

    async def ask(self, ask: GuardAsk) -> GuardAnswer | None:
        """The word of the agent that acts, or None; never raises. Takes at most `within_s`."""
        answer, why = None, "no answer in time"
        try:
            async with asyncio.timeout(self._within_s):
                answer, why = await self._ask_all(_encoder.encode(ask))
        except TimeoutError:
            pass
        self._tell(answers=answer is not None, why=why)
        return answer

    async def _ask_all(self, body: bytes) -> tuple[GuardAnswer | None, str]:
        why = "the name has no address"
        try:
            addresses = await self._addresses()
        except (OSError, UnicodeError) as error:  # the second of what is no name
            return None, str(error)
        for address in addresses:
            answer, why = await self._ask_one(address, body)
            if answer is not None:
                self._last = address
                return answer, ""
        return None, why

    async def _addresses(self) -> list[str]:
        found = await asyncio.get_running_loop().getaddrinfo(self._host, None, type=socket.SOCK_STREAM)
        names = sorted({str(one[4][0]) for one in found}, key=lambda name: (name != self._last, name))
        return names[:ADDRESSES_MAX]

    async def _ask_one(self, address: str, body: bytes) -> tuple[GuardAnswer | None, str]:
        host = f"[{address}]" if ":" in address else address
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._session.post(f"http://{host}:{self._port}/guard", data=body, allow_redirects=False) as reply,
            ):
                data = await reply.content.read(ANSWER_BYTES_MAX + 1)
                while not reply.content.at_eof() and len(data) <= ANSWER_BYTES_MAX:
                    data += await reply.content.read(ANSWER_BYTES_MAX + 1 - len(data))
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return None, f"{address}: {str(error) or type(error).__name__}"
        if reply.status != 200:
            return None, f"{address}: status {reply.status}"
        return _read(data, address)

    def _tell(self, *, answers: bool, why: str) -> None:
        """Once for every change, not once for every ask."""
        if answers != self._answers:
            log.info("agent.answers") if answers else log.warning("agent.silent", url=self._url, error=why)
        self._answers = answers


def _read(data: bytes, address: str) -> tuple[GuardAnswer | None, str]:
    """An agent promises no more than the longest lease; who does is none."""
    if len(data) > ANSWER_BYTES_MAX:
        return None, f"{address}: an answer of more than {ANSWER_BYTES_MAX} bytes"
    try:
        answer = _decoder.decode(data)
    except UNREADABLE as error:
        return None, f"{address}: {error}"
    if not 0 <= answer.remaining_s <= TTL_S_MAX:
        return None, f"{address}: remaining_s {answer.remaining_s} is not within 0 and {TTL_S_MAX}"
    return answer, ""
