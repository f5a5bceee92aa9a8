"""Every request of the API as a value: method, path, body, and how its answer is read. Pure.

`Client` and `AsyncClient` send these; how often and when to send again is decided in `retry`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec

from muster.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    MusterError,
    NotFoundError,
    ProtocolError,
    UnavailableError,
)
from muster.results import (
    BulkAnswer,
    ClusterList,
    ClusterView,
    DecisionList,
    Explanation,
    GroupList,
    GroupView,
    Landed,
    Problem,
    QueueList,
    QueueView,
    Submitted,
)

T = TypeVar("T")

END = 2**63 - 1  # above every position

BULK_ITEMS_MAX = 1_000  # what the server takes at a time
BULK_BYTES_MAX = 1_000_000  # below its limit of 1 MiB for a body

NOT_NAMES = frozenset({"", ".", ".."})  # a path with one of these in it is another path

UNAVAILABLE_STATUSES = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request. `request_id` makes a repeat harmless; calls without one change nothing or set a state."""

    method: str
    path: str
    read: Callable[[bytes], T]
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    request_id: str = ""

    @property
    def headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        if self.body is not None:
            headers["Content-Type"] = "application/json"
        if self.request_id:
            headers["Request-Id"] = self.request_id
        return headers


def read_answer(call: Call[T], status: int, headers: Mapping[str, str], content: bytes) -> T:
    """The call's result, or the error that the answer stands for."""
    if not 200 <= status < 300:
        raise error_of(status, headers, content, reads=call.method == "GET")
    try:
        return call.read(content)
    except msgspec.MsgspecError as error:
        detail = f"{call.method} {call.path}: {error}"
        raise ProtocolError("UnexpectedAnswer", detail, status=status, remedy="is this a Muster server?") from error


def error_of(status: int, headers: Mapping[str, str], content: bytes, *, reads: bool) -> MusterError:
    """The error for an answer of this status; facts come from its Problem+JSON, if it is one. What `reads` has no
    effect that could be in doubt."""
    try:
        problem = msgspec.json.decode(content, type=Problem)
    except msgspec.MsgspecError:
        problem = Problem(detail=content[:200].decode(errors="replace").strip(), remedy="is this a Muster server?")
    reason = problem.reason or problem.title or f"Status{status}"
    if status in UNAVAILABLE_STATUSES:
        return UnavailableError(
            reason,
            problem.detail,
            status=status,
            field=problem.field,
            remedy=problem.remedy,
            retry_after_s=_seconds(headers.get("retry-after", "")),
            outcome_known=reads or status == 429,
        )
    kind = _KIND_OF_STATUS.get(status, ProtocolError)
    return kind(reason, problem.detail, status=status, field=problem.field, remedy=problem.remedy)


_KIND_OF_STATUS: dict[int, type[MusterError]] = {
    400: InvalidError,
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    413: InvalidError,
    415: InvalidError,
    422: InvalidError,
}


def _seconds(text: str) -> float | None:
    return float(text) if text.isdecimal() else None


# --- PodGroups -------------------------------------------------------------------------------------------------------


def submit(manifest: Mapping[str, Any], request_id: str) -> Call[Submitted]:
    return Call("POST", "/v1/podgroups", _reader(Submitted), body=_encode(manifest), request_id=request_id)


def submit_many(manifests: Sequence[Mapping[str, Any]], request_id: str) -> list[Call[BulkAnswer]]:
    """The calls that hand in all of them, in order. The id of each is the given one and its index."""
    parts: list[list[bytes]] = [[]]
    bytes_count = 0
    for index, manifest in enumerate(manifests):
        item = _encode({"manifest": manifest, "request_id": f"{request_id}-{index}"})
        if parts[-1] and (len(parts[-1]) >= BULK_ITEMS_MAX or bytes_count + len(item) > BULK_BYTES_MAX):
            parts.append([])
            bytes_count = 0
        parts[-1].append(item)
        bytes_count += len(item) + 1
    bodies = [b'{"items":[%s]}' % b",".join(part) for part in parts if part]
    return [
        Call("POST", "/v1/podgroups:bulk", _reader(BulkAnswer), body=body, request_id=request_id) for body in bodies
    ]


def list_groups(
    *,
    namespace: str = "",
    queue: str = "",
    phase: str = "",
    cluster: str = "",
    labels: Mapping[str, str] | None = None,
    archived: bool = False,
    limit: int = 0,
    continue_: str = "",
) -> Call[GroupList]:
    query = _query(
        namespace=namespace, queue=queue, phase=phase, cluster=cluster, limit=limit or "", **{"continue": continue_}
    )
    query += (("archived", "true"),) if archived else ()
    query += tuple(("label", f"{key}={value}") for key, value in sorted((labels or {}).items()))
    return Call("GET", "/v1/podgroups", _reader(GroupList), query=query)


def get_group(ref: str, namespace: str) -> Call[GroupView]:
    return Call("GET", _group(ref), _reader(GroupView), query=_query(namespace=namespace))


def explain_group(ref: str, namespace: str) -> Call[Explanation]:
    return Call("GET", f"{_group(ref)}/explain", _reader(Explanation), query=_query(namespace=namespace))


def history_of_group(ref: str, namespace: str) -> Call[DecisionList]:
    return Call("GET", f"{_group(ref)}/history", _reader(DecisionList), query=_query(namespace=namespace))


def act_on_group(ref: str, namespace: str, act: str, reason: str, request_id: str) -> Call[Landed]:
    """`act` is cancel, suspend or resume."""
    return Call(
        "POST",
        f"{_group(ref)}/{act}",
        _reader(Landed),
        query=_query(namespace=namespace),
        body=_encode({"reason": reason}),
        request_id=request_id,
    )


def resize_group(ref: str, namespace: str, role: str, count: int, request_id: str) -> Call[Landed]:
    return Call(
        "POST",
        f"{_group(ref)}/resize",
        _reader(Landed),
        query=_query(namespace=namespace),
        body=_encode({"role": role, "count": count}),
        request_id=request_id,
    )


# --- clusters --------------------------------------------------------------------------------------------------------


def list_clusters() -> Call[ClusterList]:
    return Call("GET", "/v1/clusters", _reader(ClusterList))


def get_cluster(name: str) -> Call[ClusterView]:
    return Call("GET", f"/v1/clusters/{_quoted(name)}", _reader(ClusterView))


def join_cluster(name: str, wish: Mapping[str, Any], request_id: str) -> Call[Landed]:
    path = f"/v1/clusters/{_quoted(name)}"
    return Call("PUT", path, _reader(Landed), body=_encode(wish), request_id=request_id)


def act_on_cluster(name: str, act: str, reason: str, request_id: str) -> Call[Landed]:
    """`act` is cordon, uncordon, drain, remove or confirm-dead."""
    path = f"/v1/clusters/{_quoted(name)}/{act}"
    return Call("POST", path, _reader(Landed), body=_encode({"reason": reason}), request_id=request_id)


# --- queues, the log, health -----------------------------------------------------------------------------------------


def list_queues() -> Call[QueueList]:
    return Call("GET", "/v1/queues", _reader(QueueList))


def get_queue(name: str) -> Call[QueueView]:
    return Call("GET", f"/v1/queues/{_quoted(name)}", _reader(QueueView))


def apply_queue(name: str, body: Mapping[str, Any], request_id: str) -> Call[Landed]:
    """`body` is a Queue manifest or the bare settings."""
    return Call("PUT", f"/v1/queues/{_quoted(name)}", _reader(Landed), body=_encode(body), request_id=request_id)


def list_decisions(
    *, since: int = 0, uid: str = "", cluster: str = "", limit: int = 0, before: int | None = None
) -> Call[DecisionList]:
    last = "" if before is None else before
    query = _query(since=since or "", uid=uid, cluster=cluster, limit=limit or "", before=last)
    return Call("GET", "/v1/decisions", _reader(DecisionList), query=query)


def watch(*, since: int = 0, uid: str = "", cluster: str = "") -> Call[None]:
    """The stream of decisions above `since`; its body is read by `stream`, not as a whole."""
    return Call("GET", "/v1/watch", lambda _: None, query=_query(since=since, uid=uid, cluster=cluster))


def readiness() -> Call[dict[str, Any]]:
    return Call("GET", "/readyz", _reader(dict[str, Any]))


# --- helpers ---------------------------------------------------------------------------------------------------------


def _reader(kind: type[T]) -> Callable[[bytes], T]:
    decoder = msgspec.json.Decoder(kind)
    return decoder.decode


def _encode(body: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(body)


def _group(ref: str) -> str:
    return f"/v1/podgroups/{_quoted(ref)}"


def _quoted(name: str) -> str:
    if name in NOT_NAMES:
        raise InvalidError("BadValue", f"{name!r} names nothing", field="name", remedy="give a name or a uid")
    return quote(name, safe="")


def _query(**fields: str | int) -> tuple[tuple[str, str], ...]:
    return tuple(_set_fields(fields.items()))


def _set_fields(items: Iterable[tuple[str, str | int]]) -> Iterable[tuple[str, str]]:
    return ((key, str(value)) for key, value in items if value != "")
