"""What both clients share about one connection: time-outs, headers, and httpx's errors as ours."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Final

import httpx

from muster.errors import InvalidError, UnavailableError
from muster.stream import DecisionStream

CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 35.0  # the server gives up on an outcome after 30 s and says so
WATCH_QUIET_S: Final = 60.0  # a watch that says nothing for this long is connected anew: the peer may be gone

UNREACHABLE: Final = "ServerUnreachable"
TOO_MANY: Final = 429
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class Addresses:
    """The servers of one fleet, of which any will do. A client stays with one until it is away."""

    def __init__(self, servers: str | Sequence[str]) -> None:
        """`servers`: a list, or one text with commas between them."""
        parts = servers.split(",") if isinstance(servers, str) else servers
        self._servers = [part.strip().rstrip("/") for part in parts]
        self._at = 0
        self._missed = 0  # servers in a row that could not even be reached

    @property
    def current(self) -> str:
        return self._servers[self._at]

    def turn(self, error: UnavailableError) -> bool:
        """Go on to the next server, unless this one leads and asks for patience. True: ask it without a pause, since
        nothing was sent and others are left."""
        if error.status == TOO_MANY:
            return False
        self._at = (self._at + 1) % len(self._servers)
        self._missed = self._missed + 1 if error.reason == UNREACHABLE else 0
        return self._missed % len(self._servers) != 0

    def answered(self) -> None:
        """The current server is there."""
        self._missed = 0


def new_request_id() -> str:
    """A fresh id: one per thing to be done, the same for each repeat of it."""
    return uuid.uuid4().hex


def unavailable(server: str, error: httpx.TransportError) -> UnavailableError:
    never_sent = isinstance(error, _NEVER_SENT)
    what = "cannot be reached" if never_sent else "did not answer"
    return UnavailableError(
        UNREACHABLE if never_sent else "NoAnswer",
        f"{server} {what}: {str(error) or type(error).__name__}",
        remedy="is it running? `muster up` starts one here; --server or MUSTER_SERVER names another",
        outcome_known=never_sent,
    )


def not_an_address(server: str, error: httpx.InvalidURL) -> InvalidError:
    """Of a server's address that is none, or of names and filters that are too long for one."""
    remedy = "correct the server's address, or shorten names and filters"
    return InvalidError("BadValue", f"{server} with what was asked for is no URL: {error}", remedy=remedy)


def auth_headers(token: str) -> dict[str, str]:
    """InvalidError for a token that no header can carry; it is not shown."""
    if any(not " " <= char <= "~" for char in token):
        what = "a token is one line of ASCII characters, and this one is not"
        raise InvalidError("BadValue", what, field="token", remedy="look at the file or variable that it comes from")
    return {"Authorization": f"Bearer {token}"} if token else {}


def watch_headers(stream: DecisionStream) -> dict[str, str]:
    return {"Accept": "text/event-stream"} | ({"Last-Event-ID": stream.last_id} if stream.last_id else {})


def watch_timeout() -> httpx.Timeout:
    return httpx.Timeout(CONNECT_TIMEOUT_S, read=WATCH_QUIET_S)


def call_timeout() -> httpx.Timeout:
    return httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)


def needs_tls(server: str) -> bool:
    """Loading the certificates takes longer than a call: not for plain HTTP, which never becomes HTTPS under way."""
    return not server.startswith("http://")
