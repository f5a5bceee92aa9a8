"""`/v1/clusters`: what the fleet has, and the acts of its operators."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter
from pydantic import Field, StringConstraints, field_validator

from federation.core.events import ConfirmDead, CordonCluster, JoinCluster, PersonRequest, RemoveCluster
from federation.core.rows import ClusterRow
from federation.server import views
from federation.server.app import Body, Caller, RequestId, Service, Serving
from federation.server.auth import authorise
from federation.server.problems import ProblemError
from federation.server.routes_podgroups import reason_of
from federation.server.tokens import Verb
from placement.model import ClusterName, LabelMap, LeaseClass, Written
from placement.sites import NUMBER_LABELS, NUMBER_MAX, number_in

router = APIRouter(prefix="/v1/clusters", tags=["clusters"])

CLUSTER_NAME: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"  # no dots: it is one word of a bus subject
ClusterPath = Annotated[str, StringConstraints(pattern=CLUSTER_NAME, max_length=63)]


class Join(Written):
    """How a cluster takes part."""

    lease_class: LeaseClass = LeaseClass.DEFAULT
    labels: LabelMap = Field(default_factory=dict)
    accept_unguarded: Annotated[bool, Field(strict=True)] = False  # never by a slip: it weakens a promise

    @field_validator("labels")
    @classmethod
    def _numbers(cls, labels: dict[str, str]) -> dict[str, str]:
        """What the placer reads as a number is one; it would pass over anything else in silence."""
        for label in NUMBER_LABELS:
            if label in labels and number_in(labels[label]) is None:
                raise ValueError(f"{label} must be a whole number from 0 to {NUMBER_MAX}, not {labels[label]!r}")
        return labels


@router.get("")
async def list_clusters(service: Serving, caller: Caller) -> dict[str, Any]:
    authorise(caller, Verb.VIEW)
    state = service.loop.replica.state
    items = [_view(service, row) for _, row in sorted(state.clusters.items())]
    return {
        "apiVersion": views.API_VERSION,
        "kind": "ClusterList",
        "metadata": {"resourceVersion": str(state.head)},
        "items": items,
    }


@router.get("/{name}")
async def read(service: Serving, caller: Caller, name: str) -> dict[str, Any]:
    authorise(caller, Verb.VIEW)
    return _view(service, _find(service, name))


@router.put("/{name}", status_code=200)
async def join(
    service: Serving, caller: Caller, request_id: RequestId, name: ClusterPath, body: Body
) -> dict[str, Any]:
    """Make the cluster part of the fleet, or change how it takes part. It is used once its agent was admitted."""
    authorise(caller, Verb.OPERATE)
    wish = Join.model_validate(body)
    labels = tuple(sorted(wish.labels.items()))
    request = JoinCluster(name, wish.lease_class.value, labels, wish.accept_unguarded, request_id, caller.name)
    accepted = await service.ask(request)
    return {"name": name, "position": accepted.position}


@router.post("/{name}/{act}")
async def act_on(
    service: Serving, caller: Caller, request_id: RequestId, name: str, act: str, body: Body
) -> dict[str, Any]:
    """cordon, uncordon, drain, remove, or confirm-dead (which needs the verb force and a reason)."""
    authorise(caller, Verb.FORCE if act == "confirm-dead" else Verb.OPERATE)
    reason = reason_of(body)
    if act != "remove":  # of which a repeat is known by its request id, when there is no such cluster any more
        _find(service, name)
    accepted = await service.ask(_act(name, act, reason, request_id, caller.name))
    return {"name": name, "position": accepted.position}


def _act(name: str, act: str, reason: str, request_id: str, actor: str) -> PersonRequest:
    match act:
        case "cordon":
            return CordonCluster(name, cordoned=True, drain=False, reason=reason, request_id=request_id, actor=actor)
        case "uncordon":
            return CordonCluster(name, cordoned=False, drain=False, reason=reason, request_id=request_id, actor=actor)
        case "drain":
            return CordonCluster(name, cordoned=True, drain=True, reason=reason, request_id=request_id, actor=actor)
        case "confirm-dead":
            if not reason:
                raise ProblemError(
                    422, "MissingField", "say how you know that nothing runs there", "reason", "give a reason"
                )
            return ConfirmDead(name, reason, request_id, actor)
        case "remove":
            return RemoveCluster(name, reason, request_id, actor)
        case _:
            raise ProblemError(
                404, "NotFound", f"no such act {act!r}", "act", "cordon, uncordon, drain, remove or confirm-dead"
            )


def _find(service: Service, name: str) -> ClusterRow:
    row = service.loop.replica.state.clusters.get(ClusterName(name))
    if row is None:
        raise ProblemError(404, "UnknownCluster", f"no cluster {name!r}", "name", "see `muster get clusters`")
    return row


def _view(service: Service, row: ClusterRow) -> dict[str, Any]:
    return views.cluster_view(row, service.loop.cluster_status(row.name))
