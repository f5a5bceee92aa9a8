"""A small S3 in memory whose answers can be made to go wrong, as real ones do: python -m tests.servers.loopback_s3 PORT

Speaks what the object store client says: PUT with If-None-Match and If-Match, GET, DELETE, and listing. `PUT /_faults`
with a body "RATE SEED" makes that share of all requests meet a fault; `GET /_faults` counts what happened.
"""

from __future__ import annotations

import asyncio
import bisect
import collections
import enum
import hashlib
import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

PAGE_MAX = 1_000
LANDS_AFTER_MAX = 12  # a late one lands during one of so many later requests
HEAD_END = b"\r\n\r\n"
DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


class Fault(enum.Enum):
    """What becomes of a request."""

    APPLIED_THEN_500 = "carried out, answered 500"
    APPLIED_THEN_DROPPED = "carried out, the connection cut"
    DROPPED = "not carried out, the connection cut"
    CONFLICT_APPLIED = "carried out, answered 409"
    CONFLICT = "not carried out, answered 409"
    SLOW_DOWN = "not carried out, answered 503"
    LATE = "answered 500, carried out during a later request"


FOR_READS = (Fault.APPLIED_THEN_500, Fault.DROPPED, Fault.SLOW_DOWN)


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class Bucket:
    """The objects, and what is yet to happen to them. An object's mark is the digest of its content, as in S3."""

    objects: dict[str, bytes] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    rate: float = 0.0
    late: list[tuple[int, Request]] = field(default_factory=list)
    happened: collections.Counter[str] = field(default_factory=collections.Counter)

    def answer(self, request: Request) -> Reply | None:
        """Carry out one request; None cuts the connection."""
        if request.path == "/_faults":
            return self._control(request)
        self._land()
        if self.rng.random() >= self.rate:
            return self._carry_out(request)
        return self._go_wrong(request, self.rng.choice(tuple(Fault) if request.method == "PUT" else FOR_READS))

    def _control(self, request: Request) -> Reply:
        if request.method == "PUT":
            rate, seed = request.body.split()
            self.rate = float(rate)
            self.rng = random.Random(int(seed))
            for _, late in self.late:
                self._carry_out(late)
            self.late.clear()
        return Reply(200, json.dumps(self.happened).encode())

    def _land(self) -> None:
        due = [request for left, request in self.late if left <= 0]
        self.late = [(left - 1, request) for left, request in self.late if left > 0]
        for request in due:
            self._carry_out(request)

    def _go_wrong(self, request: Request, fault: Fault) -> Reply | None:
        self.happened[fault.name] += 1
        match fault:
            case Fault.APPLIED_THEN_500:
                self._carry_out(request)
                return _error(500, "InternalError")
            case Fault.APPLIED_THEN_DROPPED:
                self._carry_out(request)
                return None
            case Fault.DROPPED:
                return None
            case Fault.CONFLICT_APPLIED:
                self._carry_out(request)
                return _error(409, "ConditionalRequestConflict")
            case Fault.CONFLICT:
                return _error(409, "ConditionalRequestConflict")
            case Fault.SLOW_DOWN:
                return _error(503, "SlowDown")
            case Fault.LATE:
                self.late.append((self.rng.randrange(LANDS_AFTER_MAX), request))
                return _error(500, "InternalError")

    def _carry_out(self, request: Request) -> Reply:
        name = request.path.partition("/")[2].partition("/")[2]
        match request.method:
            case "PUT":
                return self._put(name, request)
            case "GET" if name:
                data = self.objects.get(name)
                if data is None:
                    return _error(404, "NoSuchKey")
                return Reply(200, data, (("ETag", _mark(data)), ("Last-Modified", DATE)))
            case "GET":
                return self._list(request.query)
            case "DELETE":
                if self.objects.pop(name, None) is not None:
                    del self.names[bisect.bisect_left(self.names, name)]
                return Reply(204)
            case _:
                return _error(501, "NotImplemented")

    def _put(self, name: str, request: Request) -> Reply:
        before = self.objects.get(name)
        expected = request.headers.get("if-match")
        if request.headers.get("if-none-match") == "*" and before is not None:
            return _error(412, "PreconditionFailed")
        if expected is not None and before is None:
            return _error(404, "NoSuchKey")
        if expected is not None and before is not None and expected != _mark(before):
            return _error(412, "PreconditionFailed")
        if before is None:
            bisect.insort(self.names, name)
        self.objects[name] = request.body
        return Reply(200, b"", (("ETag", _mark(request.body)),))

    def _list(self, query: dict[str, list[str]]) -> Reply:
        prefix = query.get("prefix", [""])[0]
        after = query.get("continuation-token", query.get("start-after", [""]))[0]
        first = max(bisect.bisect_left(self.names, prefix), bisect.bisect_right(self.names, after))
        found = [name for name in self.names[first : first + PAGE_MAX + 1] if name.startswith(prefix)]
        page, more = found[:PAGE_MAX], len(found) > PAGE_MAX
        contents = "".join(
            f"<Contents><Key>{escape(name)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>{escape(_mark(self.objects[name]))}</ETag><Size>{len(self.objects[name])}</Size></Contents>"
            for name in page
        )
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        truncated = str(more).lower()
        text = f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{token}{contents}</ListBucketResult>"
        return Reply(200, text.encode())


def _mark(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def _error(status: int, code: str) -> Reply:
    return Reply(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as much as one client needs."""

    def __init__(self, answer: Callable[[Request], Reply | None]) -> None:
        self._answer = answer
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._received += data
        while (request := self._next_request()) is not None:
            reply = self._answer(request)
            if reply is None:
                self._transport.abort()
                return
            lines = [f"HTTP/1.1 {reply.status} X", f"Content-Length: {len(reply.body)}"]
            lines += [f"{name}: {value}" for name, value in reply.headers]
            self._transport.write("\r\n".join(lines).encode() + HEAD_END + reply.body)

    def _next_request(self) -> Request | None:
        head, end, _ = self._received.partition(HEAD_END)
        if not end:
            return None
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = len(head) + len(end) + int(headers.get("content-length", "0"))
        if len(self._received) < length:
            return None
        body = bytes(self._received[len(head) + len(end) : length])
        del self._received[:length]
        method, target, _ = first.split(" ")
        parts = urlsplit(target)
        return Request(method, unquote(parts.path), parse_qs(parts.query), headers, body)


async def serve(port: int) -> None:
    bucket = Bucket()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(bucket.answer), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
