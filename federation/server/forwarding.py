"""A follower hands what only the leader can do on to it, once, and answers when it has folded the outcome itself.

So any server may be called for anything, and whoever reads after writing at one server sees what was written.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

import httpx
import structlog
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from federation.server.loop import PERSON_TIMEOUT_S, ReplicaLoop
from federation.server.peers import Peers
from federation.server.problems import ProblemError, problem_response

HOP: Final = "Muster-Forwarded-By"  # names the follower: whoever gets it answers himself, so there is one hop at most
LEADER: Final = "Muster-Leader"  # where the leader is, in answers that it could not be asked
TIMEOUT_S: Final = PERSON_TIMEOUT_S + 2.0  # the leader gives up first, and says so; clients wait 35 s
CONNECT_S: Final = 2.0
FOLD_S: Final = 3.0  # for a follower to fold what the leader acknowledged: three polls
FOLD_POLL_S: Final = 0.005
LEADER_POLL_S: Final = 0.25  # how soon a call stops waiting for a leader that another one has replaced
CONNECTIONS_MAX: Final = 64
CARRIED: Final = ("authorization", "content-type", "request-id", "accept")
RETURNED: Final = ("content-type", "retry-after")
LEADERS_ONLY: Final = ("/verdict", "/report")  # of what agents send; any server renews leases and answers the rest
AGAIN: Final = "send the same request id again: it takes effect once"
NEVER_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Route:
    """What metrics call an answer that came from elsewhere."""

    path: str = "forwarded"


class Forwarding:
    """An ASGI layer in front of the routes."""

    def __init__(self, app: ASGIApp, *, loop: ReplicaLoop, peers: Peers) -> None:
        self._app, self._loop, self._peers = app, loop, peers
        limits = httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX)
        timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_S)
        self._http = httpx.AsyncClient(limits=limits, timeout=timeout, trust_env=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._is_the_leaders(scope):
            await self._app(scope, receive, send)
            return
        leader = self._loop.leader
        url = await self._peers.url_of(leader) if leader not in {"", self._peers.name} else ""
        if not url:
            await self._app(scope, receive, send)
            return
        scope["route"] = _Route()
        request = Request(scope, receive)
        try:
            response: Response = await self._forwarded(request, leader, url)
        except ProblemError as error:
            response = problem_response(request, error)
            response.headers[LEADER] = url
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    def _is_the_leaders(self, scope: Scope) -> bool:
        if scope["type"] != "http" or self._loop.leading or scope["method"] not in {"POST", "PUT"}:
            return False
        if HOP in Headers(scope=scope):
            return False
        path: str = scope["path"]
        if path.startswith("/v1/agents/"):
            return path.endswith(LEADERS_ONLY)
        return path.startswith("/v1/")

    async def _forwarded(self, request: Request, leader: str, url: str) -> Response:
        from federation.server.app import raw_body_of

        body = await raw_body_of(request)
        target = f"{url}{_raw_target(request.scope)}"
        headers = {name: request.headers[name] for name in CARRIED if name in request.headers}
        headers[HOP] = self._peers.name
        try:
            answer = await self._answered(
                self._http.request(request.method, target, content=body, headers=headers), leader
            )
        except NEVER_SENT as error:
            self._peers.forget(leader)
            detail = f"{leader} leads, and cannot be reached from here at {url}"
            raise ProblemError(503, "NotLeader", detail, "server", "try again, or ask another server") from error
        except httpx.HTTPError as error:
            detail = f"{leader} leads, and gave no answer at {url} ({type(error).__name__})"
            raise ProblemError(503, "Unavailable", detail, "server", AGAIN) from error
        if answer is None:
            detail = f"{leader} gave no answer at {url}, and {self._loop.leader} leads by now"
            raise ProblemError(503, "Unavailable", detail, "server", AGAIN)
        if answer.is_success:
            await self._folded(_newest_position(answer.content))
        returned = {name: answer.headers[name] for name in RETURNED if name in answer.headers}
        return Response(answer.content, answer.status_code, returned)

    async def _answered(self, call: Coroutine[Any, Any, httpx.Response], leader: str) -> httpx.Response | None:
        """The leader's answer; None once another server leads: one that is paused or cut off would be waited for in
        vain, while its successor could take the call."""
        asked = asyncio.ensure_future(call)
        try:
            while not (await asyncio.wait({asked}, timeout=LEADER_POLL_S))[0]:
                if self._loop.leader not in {leader, ""}:
                    return None
            return asked.result()
        finally:
            asked.cancel()

    async def _folded(self, position: int) -> None:
        """This server shows `position` too, if it can within `FOLD_S`."""
        deadline_s = asyncio.get_running_loop().time() + FOLD_S
        while self._loop.position < position:
            if asyncio.get_running_loop().time() >= deadline_s:
                log.warning("answer.before_folding", position=position)
                return
            await asyncio.sleep(FOLD_POLL_S)


def _raw_target(scope: Scope) -> str:
    """Path and query as they were sent."""
    path = (scope.get("raw_path") or scope["path"].encode()).decode()
    query = scope["query_string"].decode()
    return f"{path}?{query}" if query else path


def _newest_position(content: bytes) -> int:
    """The highest `position` in an answer of the API; 0 where there is none (agents' answers are msgpack)."""
    try:
        answer = json.loads(content)
    except ValueError:
        return 0
    if not isinstance(answer, dict):
        return 0
    found = [answer.get("position"), *(item.get("position") for item in answer.get("items", ()))]
    return max((one for one in found if isinstance(one, int)), default=0)
