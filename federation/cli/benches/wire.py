"""HTTP for load: raw requests on connections that stay open, so that the sender costs little beside what it measures.

Loopback and our own server only: no TLS, no redirects, no retries. For anything else there is the users' client.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from federation.cli.local.ports import HOST

LINE_BYTES_MAX: Final = 4 * 1024 * 1024
LAST_CHUNK: Final = b"0\r\n"  # ends a chunked answer; the connection stays open for the next request
RESUMES_MAX: Final = 10  # of one watch without an event in between; then the server is not coming back
RESUME_S: Final = 0.5


class WireError(Exception):
    """The server closed the connection or answered what this small reader does not know."""


@dataclass(slots=True)
class Wire:
    """One connection, one request at a time."""

    port: int
    token: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def post(self, path: str, body: bytes, request_id: str) -> tuple[int, bytes]:
        """Status and body of the answer. Sent again if the connection had been closed: the id makes it harmless."""
        try:
            return await self._post(path, body, request_id)
        except (WireError, ConnectionError):
            self.writer.close()
            self.reader, self.writer = await _open(self.port)
            return await self._post(path, body, request_id)

    async def _post(self, path: str, body: bytes, request_id: str) -> tuple[int, bytes]:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self.token}\r\nRequest-Id: {request_id}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.writer.write(head.encode() + body)
        status, length = await self._head()
        return status, await self.reader.readexactly(length)

    async def events(self, path: str) -> AsyncIterator[Any]:
        """The data of server-sent events, decoded; for ever. A watch that the server ends (it cuts off slow readers)
        goes on after the last event; WireError when the server cannot be watched any more."""
        last_id, tries = "", 0
        while True:
            try:
                async for event_id, data in self._events(path, last_id):
                    last_id, tries = event_id, 0
                    yield json.loads(data)
                why = "the server ended the watch"
            except (WireError, OSError) as error:
                why = str(error)
            tries += 1
            if tries > RESUMES_MAX:
                raise WireError(f"{why}, {tries} times in a row")
            await asyncio.sleep(RESUME_S if tries > 1 else 0)
            self.writer.close()
            with contextlib.suppress(OSError):
                self.reader, self.writer = await _open(self.port)

    async def _events(self, path: str, last_id: str) -> AsyncIterator[tuple[str, bytes]]:
        """Id and data of each event after `last_id`, until the server ends it. Each of its chunks is whole lines."""
        head = f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self.token}\r\n"
        head += f"Last-Event-ID: {last_id}\r\n\r\n" if last_id else "\r\n"
        self.writer.write(head.encode())
        status, _ = await self._head()
        if status != 200:
            raise WireError(f"the watch was answered {status}")
        while (line := await self.reader.readline()) not in {b"", LAST_CHUNK}:
            if line.startswith(b"id: "):
                last_id = line[len(b"id: ") :].strip().decode("latin-1")
            elif line.startswith(b"data: "):
                yield last_id, line[len(b"data: ") :]

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    async def _head(self) -> tuple[int, int]:
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise WireError("the server closed the connection") from error
        lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        return int(lines[0].split()[1]), int(fields.get("content-length", "0"))


async def connect(port: int, token: str) -> Wire:
    """A connection to the server on this machine."""
    return Wire(port, token, *await _open(port))


async def _open(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(HOST, port, limit=LINE_BYTES_MAX)
