"""`/v1/agents/<cluster>/…`: the second path of the agents' requests, beside NATS; same messages, same answers."""

from __future__ import annotations

from fastapi import APIRouter, Response

from federation.core.events import ReportArrived
from federation.protocol.messages import (
    AgentAsk,
    AnyMessage,
    Report,
    UnreadableMessageError,
    decode_message,
    encode_answers,
)
from federation.protocol.subjects import ASK_KINDS
from federation.server.app import Caller, RawBody, Serving
from federation.server.auth import authorise_agent
from federation.server.problems import ProblemError

router = APIRouter(prefix="/v1/agents", tags=["agents"])

MSGPACK = "application/msgpack"


@router.post("/{cluster}/report", status_code=204)
async def report(service: Serving, caller: Caller, cluster: str, body: RawBody) -> Response:
    """A capacity report, for agents whose bus is away."""
    authorise_agent(caller, cluster)
    message = _decoded(body)
    if not isinstance(message, Report):
        raise ProblemError(422, "Invalid", "the body is not a report", "body", "send a report")
    if not service.loop.offer(ReportArrived(cluster, message)):
        raise ProblemError(503, "Unavailable", "too much waits here already", "server", "send a newer one later")
    return Response(status_code=204)


@router.post("/{cluster}/{kind}")
async def ask(service: Serving, caller: Caller, cluster: str, kind: str, body: RawBody) -> Response:
    """desired, spec, lease or verdict. 503 when this server has no answer to give: ask another."""
    authorise_agent(caller, cluster)
    message = _decoded(body)
    if not isinstance(message, AgentAsk) or ASK_KINDS[type(message)] != kind:
        raise ProblemError(422, "Invalid", f"the body is not a {kind} request", "body", "send what the path names")
    answers = await service.loop.ask_for_agent(cluster, message)
    if not answers:
        raise ProblemError(503, "Unavailable", "no answer here now", "server", "ask another server")
    return Response(encode_answers(answers), media_type=MSGPACK)


def _decoded(body: bytes) -> AnyMessage:
    try:
        return decode_message(body)
    except UnreadableMessageError as error:
        raise ProblemError(422, "Invalid", str(error), "body", "send a message of this version") from error
