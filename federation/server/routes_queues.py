"""`/v1/queues`: quotas and weights."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from federation.core.events import ApplyQueue
from federation.manifests import dialects
from federation.manifests.strict import check_document
from federation.server import views
from federation.server.app import Body, Caller, RequestId, Serving
from federation.server.auth import authorise
from federation.server.problems import ProblemError
from federation.server.tokens import Verb
from placement.model import Queue, QueueName

router = APIRouter(prefix="/v1/queues", tags=["queues"])


@router.get("")
async def list_queues(service: Serving, caller: Caller) -> dict[str, Any]:
    authorise(caller, Verb.VIEW)
    state = service.loop.replica.state
    items = [views.queue_view(row) for _, row in sorted(state.queues.items())]
    return {
        "apiVersion": views.API_VERSION,
        "kind": "QueueList",
        "metadata": {"resourceVersion": str(state.head)},
        "items": items,
    }


@router.get("/{name}")
async def read(service: Serving, caller: Caller, name: str) -> dict[str, Any]:
    authorise(caller, Verb.VIEW)
    row = service.loop.replica.state.queues.get(QueueName(name))
    if row is None:
        raise ProblemError(404, "UnknownQueue", f"no queue {name!r}", "name", "see `muster get queues`")
    return views.queue_view(row)


@router.put("/{name}")
async def apply(service: Serving, caller: Caller, request_id: RequestId, name: str, body: Body) -> dict[str, Any]:
    """Create the queue or replace its settings."""
    authorise(caller, Verb.OPERATE)
    fields = check_document(body)
    queue = dialects.read(fields) if "kind" in fields else Queue.model_validate({"name": name, **fields})
    if not isinstance(queue, Queue) or queue.name != name:
        raise ProblemError(
            422, "Invalid", f"the body is not the queue {name!r}", "name", "use one name in path and body"
        )
    accepted = await service.ask(ApplyQueue(queue, request_id, caller.name))
    return {"name": name, "position": accepted.position}
