"""Kubernetes `Status` bodies and the refusals the API server gives, worded as the real one words them."""

from typing import Final

from cluster_agents.simkube.apiserver.types import ApiResponse, JsonObject, RefusedError

REASON_OF_CODE: Final = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


def failure(code: int, message: str, *, reason: str | None = None, details: JsonObject | None = None) -> JsonObject:
    """A Status body that says Failure, for the reason that goes with the code where none is given."""
    body: JsonObject = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": REASON_OF_CODE.get(code, "Unknown") if reason is None else reason,
        "code": code,
    }
    if details is not None:
        body["details"] = details
    return body


def success(code: int, *, kind: str = "", name: str = "", uid: str = "") -> JsonObject:
    """A Status body that says Success, as binds and deletes answer."""
    body: JsonObject = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code}
    if name:
        body["details"] = {"name": name, "kind": kind, "uid": uid}
    return body


def refusal_response(refused: RefusedError) -> ApiResponse:
    """The response that carries a refusal."""
    body = failure(refused.code, refused.message, reason=refused.reason, details=refused.details)
    return ApiResponse(refused.code, body)


def not_found(plural: str, name: str) -> RefusedError:
    """404: no object of that name."""
    return RefusedError(404, "NotFound", f'{plural} "{name}" not found', {"name": name, "kind": plural})


def already_exists(plural: str, name: str) -> RefusedError:
    """409 AlreadyExists: a create met an object of the same name."""
    return RefusedError(409, "AlreadyExists", f'{plural} "{name}" already exists', {"name": name, "kind": plural})


def conflict(plural: str, name: str, why: str) -> RefusedError:
    """409 Conflict: the object is not in the state the request supposes."""
    message = f'Operation cannot be fulfilled on {plural} "{name}": {why}'
    return RefusedError(409, "Conflict", message, {"name": name, "kind": plural})


def modified(plural: str, name: str) -> RefusedError:
    """409 Conflict: the resourceVersion sent is not the current one."""
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(plural, name, why)


def invalid(kind: str, name: str, field: str, why: str) -> RefusedError:
    """422 Invalid: the object would break a rule of its kind."""
    details: JsonObject = {"name": name, "kind": kind, "causes": [{"field": field, "message": why}]}
    return RefusedError(422, "Invalid", f'{kind} "{name}" is invalid: {field}: {why}', details)


def bad_request(message: str) -> RefusedError:
    """400: the request itself makes no sense."""
    return RefusedError(400, "BadRequest", message)


def expired(message: str) -> RefusedError:
    """410: the revision or the continue token is too old."""
    return RefusedError(410, "Expired", message)
