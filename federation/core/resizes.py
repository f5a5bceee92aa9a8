"""What becomes of a person's wish for another size of an elastic group: a record, an answer at once, or a refusal.

Judged on committed state only (see `admission`). Whether the pods find room is for the group's agent to say.
"""

from __future__ import annotations

from federation.core.events import Accepted, Declined, Refused, ResizeGroup
from federation.core.records import Resized
from federation.core.rows import GroupRow, Intent
from federation.core.state import State
from placement.elastic import counts_of, floors_of, unit_of


def resize(state: State, request: ResizeGroup, at_ms: int) -> Resized | Accepted | Declined:
    """The record, if the group may have that size and its home can take it now. It is kept to until a person gives it
    another, or the home ends."""
    row = state.group(request.uid)
    if row is None:
        return Declined(Refused.UNKNOWN_GROUP, f"there is no group {request.uid!r}", "uid")
    name = f"{row.namespace}/{row.name}"
    if row.phase.terminal:
        return Declined(Refused.GROUP_FINISHED, f"{name} is {row.phase}", "name")
    if not row.request.elastic:
        return Declined(Refused.NOT_RESIZABLE, f"{name} is not elastic: it has all of its pods or none", "name")
    at = _role_at(row, request.role)
    if isinstance(at, Declined):
        return at
    fault = _out_of_bounds(row, at, request.count) or _not_now(state, row)
    if fault is not None:
        return fault
    now, most = counts_of(row.placed), at_most_of(row)
    counts, at_most = _with(now, at, request.count), _with(most, at, request.count)
    if counts == now and at_most == most:
        return Accepted(row.changed_at, row.uid)
    wish = wish_of_resize(request, at_ms)
    assert row.home is not None
    return Resized(
        actor=wish.actor,
        at_ms=at_ms,
        cause=wish.cause,
        uid=row.uid,
        token=str(row.home.token),
        cluster=row.home.cluster,
        counts=counts,
        at_most=() if at_most == counts_of(row.request) else at_most,
        role=request.role,
        count=request.count,
    )


def wish_of_resize(request: ResizeGroup, at_ms: int) -> Resized:
    """What of the record follows from the request alone."""
    return Resized(
        actor=request.actor,
        at_ms=at_ms,
        cause=request.request_id,
        uid=request.uid,
        token="",
        cluster="",
        counts=(),
        role=request.role,
        count=request.count,
    )


def at_most_of(row: GroupRow) -> tuple[int, ...]:
    """What it may grow to by itself: all of it, or what a person said, but never less than its agent says there is."""
    if row.sizing is None or not row.sizing.at_most:
        return counts_of(row.request)
    return tuple(map(max, row.sizing.at_most, counts_of(row.placed)))


def not_ready(state: State, row: GroupRow) -> str:
    """Why its home takes no other size now, or an empty text."""
    if row.home is None or not row.bound_at:
        return f"it is {row.phase}: only a group that is bound has a size to change"
    if row.intent is not Intent.RUN:
        return f"it is asked to {row.intent.value}"
    return "" if state.clusters[row.home.cluster].admitted else f"{row.home.cluster} is not admitted"


def _not_now(state: State, row: GroupRow) -> Declined | None:
    why = not_ready(state, row)
    if why:
        return Declined(Refused.NOT_RESIZABLE, why, "name")
    if row.resizing:
        return Declined(Refused.RESIZING, f"it is being resized to {row.placed.pods} pods", "name")
    return None


def _role_at(row: GroupRow, role: str) -> int | Declined:
    names = [one.name for one in row.request.roles]
    if not role and len(names) == 1:
        return 0
    if role in names:
        return names.index(role)
    known = ", ".join(names)
    why = f"there is no role {role!r}: it has {known}" if role else f"say which role: it has {known}"
    return Declined(Refused.INVALID, why, "role")


def _out_of_bounds(row: GroupRow, at: int, count: int) -> Declined | None:
    role, others = row.request.roles[at], row.placed.pods - row.placed.roles[at].count
    least = max(floors_of(row.request)[at], row.request.min_count - others)
    if not least <= count <= role.count:
        why = f"{count} pods of role {role.name!r}: at least {least} and at most {role.count} are allowed"
        return Declined(Refused.INVALID, why, "count")
    if count % unit_of(role):
        why = f"{count} pods of role {role.name!r}: they come in slices of {unit_of(role)}"
        return Declined(Refused.INVALID, why, "count")
    return None


def _with(counts: tuple[int, ...], at: int, count: int) -> tuple[int, ...]:
    return (*counts[:at], count, *counts[at + 1 :])
