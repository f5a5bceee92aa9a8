"""The decision log, the watch stream, health and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from federation.core.decisions import decision_view, uid_of
from federation.core.spreads import uids_of
from federation.server import views
from federation.server.app import Caller, Service, Serving
from federation.server.auth import authorise
from federation.server.feed import WATCHERS_MAX, Item, Quiet
from federation.server.loop import ReplicaLoop
from federation.server.problems import ProblemError
from federation.server.tokens import Verb
from placement.model import Written

router = APIRouter()

DECISIONS_MAX: Final = 1_000
EVENT_ID_CHARS_MAX: Final = 20  # of a position: 64 bits
_encoder = msgspec.json.Encoder()
BEHIND_MAX_S: Final = 10.0  # a server that follows is a second behind others, some while it begins from a snapshot
BEHIND_POLL_S: Final = 0.1
KEEP_ALIVE_S: Final = 15.0  # proxies cut a stream that says nothing, often after 60 s; clients notice a dead peer


class LogFilter(Written):
    """Query parameters of the decision log; empty ones match everything."""

    since: int = Field(0, ge=0)
    before: int | None = Field(None, ge=0)
    uid: str = ""
    cluster: str = ""
    limit: int = Field(DECISIONS_MAX, ge=1, le=DECISIONS_MAX)


@router.get("/v1/decisions", tags=["decisions"])
async def decisions(service: Serving, caller: Caller, asked: Annotated[LogFilter, Query()]) -> dict[str, Any]:
    """The decision log above `since`, oldest first: its first `limit` records, or its last ones below `before`.

    `oldest` tells where this server's memory of it begins.
    """
    authorise(caller, Verb.VIEW)

    def wanted(item: Item) -> bool:
        return _wanted(service, item, asked.uid, asked.cluster)

    if asked.before is None:
        found = service.feed.since(asked.since, asked.limit, wanted)
    else:
        found = service.feed.before(asked.before, asked.limit, wanted, since=asked.since)
    items = [_decision(service, item) for item in found]
    metadata = {"resourceVersion": str(service.loop.replica.state.head), "oldest": str(service.feed.oldest)}
    return {"apiVersion": views.API_VERSION, "kind": "DecisionList", "metadata": metadata, "items": items}


@router.get("/v1/watch", tags=["decisions"])
async def watch(
    service: Serving,
    caller: Caller,
    since: Annotated[int, Query(ge=0)] = 0,
    uid: str = "",
    cluster: str = "",
    last_event_id: Annotated[str, Header()] = "",
) -> StreamingResponse:
    """Server-sent events: one per record, its position as id. Resume with Last-Event-ID."""
    authorise(caller, Verb.VIEW)
    start = start_of(last_event_id, since)
    if service.feed.watchers >= WATCHERS_MAX:
        raise ProblemError(429, "TooManyWatchers", f"{WATCHERS_MAX} watchers are connected", "watch", "close one")
    with service.feed.expected():
        await come_to(service.loop, start)

    async def stream() -> AsyncIterator[str]:
        yield ": connected\n\n"
        async for items in service.feed.watch(start, quiet_s=KEEP_ALIVE_S):
            if isinstance(items, Quiet):
                yield ": quiet\n\n"
            elif events := [_event(service, item) for item in items if _wanted(service, item, uid, cluster)]:
                yield "".join(events)

    return StreamingResponse(stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def come_to(loop: ReplicaLoop, asked: int) -> None:
    """This server has read as far as `asked` when this returns: another one that did may have told of it. A Problem
    where it does not come to it: no watch waits in silence for what no journal holds."""
    clock = asyncio.get_running_loop().time
    deadline_s = clock() + BEHIND_MAX_S
    while loop.position < asked:
        if clock() >= deadline_s:
            raise _beyond(loop, asked)
        await asyncio.sleep(BEHIND_POLL_S)


def _beyond(loop: ReplicaLoop, asked: int) -> ProblemError:
    head, waited = loop.position, f"and did not come further within {BEHIND_MAX_S:.0f} s"
    if not loop.replica.caught_up or loop.store_trouble:
        detail = f"this server has read up to {head} of {asked}, {waited}: {loop.store_trouble or 'it starts'}"
        return ProblemError(503, "Unavailable", detail, "since", "ask another server, or try again")
    detail = f"{asked} is beyond {head}, up to which this server has read, {waited}"
    remedy = "read the listing anew, and watch from its resourceVersion; a fleet that was restored has lower ones"
    return ProblemError(409, "BeyondHead", detail, "since", remedy)


def start_of(last_event_id: str, since: int) -> int:
    """Where a watch goes on: behind the last event that its reader saw, if it names one."""
    numbered = last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) <= EVENT_ID_CHARS_MAX
    return int(last_event_id) if numbered else since


def _event(service: Service, item: Item) -> str:
    data = _encoder.encode(_decision(service, item)).decode()
    return f"id: {item[0]}\nevent: {type(item[1]).__name__}\ndata: {data}\n\n"


def _wanted(service: Service, item: Item, uid: str, cluster: str) -> bool:
    position, record = item
    if cluster and getattr(record, "cluster", "") != cluster:
        return False
    return not uid or uid_of(service.loop.replica.state.lineage, position, record) in (uids_of(uid) or (uid,))


def _decision(service: Service, item: Item) -> dict[str, Any]:
    position, record = item
    state = service.loop.replica.state
    uid = uid_of(state.lineage, position, record)
    row = state.group(uid)
    return decision_view(position, record, lineage=state.lineage, uid=uid, name=row.name if row else "")


@router.get("/healthz", tags=["meta"])
async def healthz() -> dict[str, str]:
    """The process is alive."""
    return {"status": "ok"}


@router.get("/readyz", tags=["meta"])
async def readyz(service: Serving, response: Response) -> dict[str, Any]:
    """Whether this server can answer: it has read the journal to its end. `role` says whether it leads."""
    status = service.loop.status()
    response.status_code = 200 if status["ready"] else 503
    return status


@router.get("/metrics", tags=["meta"])
async def metrics(service: Serving) -> Response:
    """Prometheus text format; no secrets and no names of groups in it."""
    body, media_type = service.metrics.render(service.loop, service.feed)
    return Response(body, media_type=media_type)
