"""Errors as people get them: Problem+JSON (RFC 9457) with a stable reason code, the field and a remedy.

Only the mapping lives here; who refuses and why is decided in the core, in `auth` and in the models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request
from fastapi.responses import JSONResponse

from federation.core.events import Declined, Refused
from federation.manifests.faults import DETAIL_CHARS_MAX, FIELD_CHARS_MAX, Fault, clipped

PROBLEM_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 1
WHOLE_BODY: Final = "body"  # the field of what is wrong with all of it

STATUS: Final = {
    Refused.NOT_LEADER: 503,
    Refused.UNAVAILABLE: 503,
    Refused.QUEUE_FULL: 429,
    Refused.NAME_TAKEN: 409,
    Refused.REQUEST_ID_CONFLICT: 409,
    Refused.UNKNOWN_QUEUE: 422,
    Refused.UNKNOWN_GROUP: 404,
    Refused.UNKNOWN_CLUSTER: 404,
    Refused.CLUSTER_IN_USE: 409,
    Refused.GROUP_FINISHED: 409,
    Refused.NOT_RESIZABLE: 409,
    Refused.RESIZING: 409,
    Refused.INVALID: 422,
    Refused.BAD_TEMPLATE: 422,
    Refused.NOT_TAKEN: 422,
    Refused.LIMIT: 422,
}

REMEDY: Final = {
    Refused.NOT_LEADER: "try again; another server leads",
    Refused.UNAVAILABLE: "send the same request id again: it takes effect once",
    Refused.QUEUE_FULL: "wait for Retry-After seconds and send again",
    Refused.NAME_TAKEN: "choose another name, or cancel the group that has it",
    Refused.REQUEST_ID_CONFLICT: "use a new request id for a new body",
    Refused.UNKNOWN_QUEUE: "create it with `muster apply`, or name one of `muster get queues`",
    Refused.UNKNOWN_GROUP: "see `muster get podgroups`",
    Refused.UNKNOWN_CLUSTER: "see `muster get clusters`",
    Refused.CLUSTER_IN_USE: "drain it, stop its agent, and `muster cluster confirm-dead` it first",
    Refused.GROUP_FINISHED: "nothing to do: it has ended",
    Refused.NOT_RESIZABLE: "see `muster describe`: an elastic group has a size to change once it is bound",
    Refused.RESIZING: "wait until it has the size it was given last, and ask again",
    Refused.INVALID: "correct the field",
    Refused.BAD_TEMPLATE: "correct the pod template",
    Refused.NOT_TAKEN: "leave it out, or only prefer it: Muster cannot honour it",
    Refused.LIMIT: "stay within the limit",
}


@dataclass(slots=True)
class ProblemError(Exception):
    """Raised by routes; rendered by `problem_response`."""

    status: int
    reason: str
    detail: str
    field: str
    remedy: str


def from_declined(declined: Declined) -> ProblemError:
    why = declined.why
    return ProblemError(STATUS[why], why.value, declined.detail or why.value, declined.field or WHOLE_BODY, REMEDY[why])


def from_fault(fault: Fault) -> ProblemError:
    """What is wrong with a manifest or another body."""
    return ProblemError(422, fault.reason, fault.detail, fault.field or WHOLE_BODY, fault.remedy)


def problem_body(problem: ProblemError) -> dict[str, Any]:
    return {
        "type": f"urn:muster:problem:{problem.reason}",
        "title": problem.reason,
        "status": problem.status,
        "reason": problem.reason,
        "detail": clipped(problem.detail, DETAIL_CHARS_MAX),
        "field": clipped(problem.field, FIELD_CHARS_MAX),
        "remedy": problem.remedy,
    }


def problem_response(request: Request, problem: ProblemError) -> JSONResponse:
    body = {**problem_body(problem), "instance": request.url.path}
    headers = {"Retry-After": str(RETRY_AFTER_S)} if problem.status in {429, 503} else {}
    return JSONResponse(body, status_code=problem.status, media_type=PROBLEM_TYPE, headers=headers)
