"""`/v1/podgroups:bulk`: many submissions in one call, each judged and answered by itself."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends

from federation.core.events import SubmitGroup
from federation.manifests import dialects
from federation.manifests.faults import BAD_MANIFEST, fault_of
from federation.manifests.strict import check_document, read_json
from federation.server.app import API_BODY_BYTES_MAX, REQUEST_ID_CHARS_MAX, Caller, RawBody, RequestId, Service, Serving
from federation.server.auth import authorise
from federation.server.problems import ProblemError, from_fault, problem_body
from federation.server.tokens import Principal, Verb

router = APIRouter(prefix="/v1", tags=["podgroups"])

ITEMS_MAX: Final = 1_000  # DESIGN §12
VALUES_MAX: Final = 500_000  # more than a body of 1 MiB can hold in manifests; each item has the usual limit besides


async def bulk_body_of(body: RawBody) -> list[Any]:
    """The items of the body; Problems for everything that is wrong with the whole."""
    fields = check_fields(read_json(body, bytes_max=API_BODY_BYTES_MAX, nodes_max=VALUES_MAX))
    items = fields.get("items")
    if not isinstance(items, list) or not items:
        raise ProblemError(422, "MissingField", "items is a list of submissions", "items", "add at least one")
    if len(items) > ITEMS_MAX:
        detail = f"{len(items)} items, at most {ITEMS_MAX} are taken at a time"
        raise ProblemError(422, "Limit", detail, "items", "send several calls")
    return items


def check_fields(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProblemError(422, "NotAMapping", "the body is a mapping with items", "body", "send {items: [...]}")
    unknown = sorted(set(value) - {"items"})
    if unknown:
        raise ProblemError(422, "UnknownField", f"unknown field {unknown[0]!r}", unknown[0], "leave it out")
    return value


Items = Annotated[list[Any], Depends(bulk_body_of)]


@router.post("/podgroups:bulk")
async def submit_many(service: Serving, caller: Caller, request_id: RequestId, items: Items) -> dict[str, Any]:
    """Up to 1,000 submissions `{manifest, request_id}`. Each is answered with what it would have got alone, in order:
    `status` 201 with its identity, or a Problem. An item without a request id gets the call's and its index."""
    authorise(caller, Verb.SUBMIT)
    answers = await asyncio.gather(
        *(_answer(service, caller, item, f"{request_id}-{index}") for index, item in enumerate(items))
    )
    accepted = sum(answer["status"] == 201 for answer in answers)
    return {
        "kind": "BulkAnswer",
        "metadata": {"accepted": accepted, "refused": len(answers) - accepted},
        "items": answers,
    }


async def _answer(service: Service, caller: Principal, item: object, request_id: str) -> dict[str, Any]:
    try:
        return await _submit(service, caller, item, request_id)
    except BAD_MANIFEST as error:
        return problem_body(from_fault(fault_of(error)))
    except ProblemError as problem:
        return problem_body(problem)


async def _submit(service: Service, caller: Principal, item: object, otherwise: str) -> dict[str, Any]:
    if not isinstance(item, dict) or set(item) - {"manifest", "request_id"}:
        detail = "an item is a mapping of manifest and request_id"
        raise ProblemError(422, "BadType", detail, "items", "send {manifest: {...}, request_id: ...}")
    request_id = item.get("request_id", otherwise)
    if not isinstance(request_id, str) or not 1 <= len(request_id) <= REQUEST_ID_CHARS_MAX:
        detail = f"request_id is text of 1 to {REQUEST_ID_CHARS_MAX} characters"
        raise ProblemError(422, "BadType", detail, "request_id", "use a shorter request id")
    group = dialects.read_group(check_document(item.get("manifest")))
    authorise(caller, Verb.SUBMIT, group.queue)
    accepted = await service.ask(SubmitGroup(group, request_id, caller.name))
    return {
        "status": 201,
        "uid": accepted.uid,
        "position": accepted.position,
        "name": group.name,
        "namespace": group.namespace,
        "request_id": request_id,
    }
