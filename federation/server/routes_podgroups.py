"""`/v1/podgroups`: submit, list, read, explain, history, and the intents of people."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query
from pydantic import Field, field_validator

from federation.core.decisions import decision_view
from federation.core.events import ResizeGroup, SetIntent, SubmitGroup
from federation.core.rows import GroupRow
from federation.core.spreads import spread_uid_of
from federation.manifests import dialects
from federation.manifests.strict import check_document
from federation.server import views
from federation.server.app import Body, Caller, RequestId, Service, Serving
from federation.server.auth import authorise
from federation.server.problems import ProblemError
from federation.server.spreads import explained, find_spread, spread_explanation, spread_history, spread_view
from federation.server.tokens import Verb
from placement.explain import Explanation
from placement.model import PODS_PER_GROUP_MAX, Phase, Written

router = APIRouter(prefix="/v1/podgroups", tags=["podgroups"])

PAGE_MAX: Final = 1_000
PAGE_DEFAULT: Final = 500
INTENTS: Final = {"cancel": "cancel", "suspend": "suspend", "resume": "run"}
REASON_CHARS_MAX: Final = 256
ROLE_CHARS_MAX: Final = 63  # a DNS label, as in manifests


@router.post("", status_code=201)
async def submit(service: Serving, caller: Caller, request_id: RequestId, body: Body) -> dict[str, Any]:
    """Accept one PodGroup of any dialect. Answered once it is durable; a repeated Request-Id gets the same group."""
    group = dialects.read_group(check_document(body))
    authorise(caller, Verb.SUBMIT, group.queue)
    accepted = await service.ask(SubmitGroup(group, request_id, caller.name))
    return {
        "uid": accepted.uid,
        "position": accepted.position,
        "name": group.name,
        "namespace": group.namespace,
        "request_id": request_id,
    }


class GroupFilter(Written):
    """Query parameters of a listing; empty ones match everything."""

    namespace: str = ""
    queue: str = ""
    phase: str = ""
    cluster: str = ""
    label: list[str] = Field(default_factory=list)  # key=value, all must hold
    limit: int = Field(PAGE_DEFAULT, ge=1, le=PAGE_MAX)
    continue_: int = Field(0, ge=0, alias="continue")
    archived: bool = False  # those whose time in memory is over, the newest first, instead of those that are here

    @field_validator("phase")
    @classmethod
    def _known(cls, value: str) -> str:
        """A misspelt phase would match no group, which reads as if there were none."""
        if value and value.lower() not in {phase.lower() for phase in Phase}:
            raise ValueError(f"{value!r} is none of {', '.join(Phase)}")
        return value

    def matches(self, row: GroupRow) -> bool:
        return (
            (not self.namespace or row.namespace == self.namespace)
            and (not self.queue or row.queue == self.queue)
            and (not self.phase or row.phase.value.lower() == self.phase.lower())
            and (not self.cluster or self.cluster == self._cluster_of(row))
            and all(row.labels.get(key) == value for key, _, value in (part.partition("=") for part in self.label))
        )

    def _cluster_of(self, row: GroupRow) -> str | None:
        if self.archived:
            return row.last_cluster
        return row.home.cluster if row.home is not None else None


@router.get("")
async def list_groups(service: Serving, caller: Caller, wanted: Annotated[GroupFilter, Query()]) -> dict[str, Any]:
    """Groups in order of submission, `limit` at a time; `continue` is the last page's mark.

    With `archived`, the newest first, and a page may be short or empty although another follows.
    """
    authorise(caller, Verb.VIEW)
    state = service.loop.replica.state
    after = wanted.continue_
    if wanted.archived:
        old = await service.loop.finished.page(after, wanted.limit, wanted.matches)
        metadata = {"resourceVersion": str(state.head), "continue": str(old.mark) if old.mark else ""}
        items = [views.group_view(row) for row in old.rows]
        return {"apiVersion": views.API_VERSION, "kind": "PodGroupList", "metadata": metadata, "items": items}
    matching = (row for row in state.groups.values() if row.submitted_at > after and wanted.matches(row))
    found = list(islice(matching, wanted.limit + 1))  # no more of a million than the page, and whether one follows
    page = found[: wanted.limit]
    mark = str(page[-1].submitted_at) if len(found) > len(page) else ""
    metadata = {"resourceVersion": str(state.head), "continue": mark}
    items = [views.group_view(row) for row in page]
    return {"apiVersion": views.API_VERSION, "kind": "PodGroupList", "metadata": metadata, "items": items}


@router.get("/{ref}")
async def read(service: Serving, caller: Caller, ref: str, namespace: str = "default") -> dict[str, Any]:
    """One group by uid, or the newest of that name."""
    authorise(caller, Verb.VIEW)
    if children := find_spread(service.loop.replica.state, ref, namespace):
        return spread_view(children)
    return views.group_view(await find_any(service, ref, namespace))


@router.get("/{ref}/explain")
async def explain(service: Serving, caller: Caller, ref: str, namespace: str = "default") -> dict[str, Any]:
    """Why the group is where it is, or why it waits and what would let it start."""
    authorise(caller, Verb.VIEW)
    if children := find_spread(service.loop.replica.state, ref, namespace):
        one = explained(children)
        return spread_explanation(children, one, service.loop.why(one.uid) or ended(one))
    row = await find_any(service, ref, namespace)
    explanation = service.loop.why(row.uid)
    return views.explanation_view(row, explanation or ended(row))


@router.get("/{ref}/history")
async def history(service: Serving, caller: Caller, ref: str, namespace: str = "default") -> dict[str, Any]:
    """All decisions about the group, oldest first."""
    authorise(caller, Verb.VIEW)
    if children := find_spread(service.loop.replica.state, ref, namespace):
        return spread_history(service.loop.replica.state, children)
    row = await find_any(service, ref, namespace)
    lineage = service.loop.replica.state.lineage
    items = [
        decision_view(line.position, line.record, lineage=lineage, uid=row.uid, name=row.name) for line in row.history
    ]
    return {"kind": "DecisionList", "metadata": {"cut": row.history_cut}, "items": items}


@dataclass(frozen=True, slots=True)
class ActPath:
    """Which group, and what to do with it."""

    ref: str
    act: str
    namespace: str


async def act_path(ref: str, act: str, namespace: str = "default") -> ActPath:
    if act not in INTENTS:
        raise ProblemError(404, "NotFound", f"no such act {act!r}", "act", f"one of {', '.join(INTENTS)}")
    return ActPath(ref, act, namespace)


Target = Annotated[ActPath, Depends(act_path)]


class Resize(Written):
    """Another size of an elastic group: so many pods of a role, which need not be named where there is one."""

    role: Annotated[str, Field(strict=True, max_length=ROLE_CHARS_MAX)] = ""
    count: Annotated[int, Field(strict=True, ge=0, le=PODS_PER_GROUP_MAX)]


async def resize_path(ref: str, namespace: str = "default") -> ActPath:
    return ActPath(ref, "resize", namespace)


SizePath = Annotated[ActPath, Depends(resize_path)]


@router.post("/{ref}/resize")
async def resize(
    service: Serving, caller: Caller, request_id: RequestId, target: SizePath, body: Body
) -> dict[str, Any]:
    """Grow or shrink an elastic group where it runs; durable when answered, and carried out by its agent afterwards."""
    children = find_spread(service.loop.replica.state, target.ref, target.namespace)
    row = children[0] if children else find(service, target.ref, target.namespace)
    authorise(caller, Verb.SUBMIT, row.queue)
    wish = Resize.model_validate(check_document(body if body is not None else {}))
    accepted = await service.ask(ResizeGroup(row.uid, wish.role, wish.count, request_id, caller.name))
    return {"uid": row.uid, "position": accepted.position}


@router.post("/{ref}/{act}")
async def act_on(service: Serving, caller: Caller, request_id: RequestId, target: Target, body: Body) -> dict[str, Any]:
    """cancel, suspend or resume; the group's home stays until it has provably ended."""
    children = find_spread(service.loop.replica.state, target.ref, target.namespace)
    row = children[0] if children else find(service, target.ref, target.namespace)
    authorise(caller, Verb.SUBMIT, row.queue)
    reason = reason_of(body)
    uid = spread_uid_of(row) if children else row.uid
    accepted = await service.ask(SetIntent(uid, INTENTS[target.act], reason, request_id, caller.name))
    return {"uid": uid, "position": accepted.position}


def reason_of(body: Any) -> str:
    """`reason` of a small JSON body."""
    fields = check_document(body if body is not None else {})
    unknown = sorted(set(fields) - {"reason"})
    if unknown:
        raise ProblemError(422, "UnknownField", f"unknown field {unknown[0]!r}", unknown[0], "leave it out")
    reason = fields.get("reason", "")
    if not isinstance(reason, str) or len(reason) > REASON_CHARS_MAX:
        raise ProblemError(
            422, "Invalid", f"reason is text of at most {REASON_CHARS_MAX} characters", "reason", "shorten it"
        )
    return reason


def find(service: Service, ref: str, namespace: str) -> GroupRow:
    """The group with this uid or name, as long as it is in memory; a 404 Problem otherwise."""
    return _found(_in_memory(service, ref, namespace), ref, namespace)


async def find_any(service: Service, ref: str, namespace: str) -> GroupRow:
    """The same, and in the archive."""
    row = _in_memory(service, ref, namespace) or await service.loop.finished.find(ref, namespace)
    return _found(row, ref, namespace)


def ended(row: GroupRow) -> Explanation:
    """Of a group in the archive: nothing waits, and nothing is weighed any more."""
    return Explanation(row.uid, row.queue, 0, 0, (), (), None, None, "")


def _in_memory(service: Service, ref: str, namespace: str) -> GroupRow | None:
    state = service.loop.replica.state
    return state.group(ref) or state.newest(namespace, ref)


def _found(row: GroupRow | None, ref: str, namespace: str) -> GroupRow:
    if row is None:
        raise ProblemError(
            404,
            "UnknownGroup",
            f"no PodGroup {ref!r} in namespace {namespace!r}",
            "name",
            "see `muster get podgroups -A`",
        )
    return row
