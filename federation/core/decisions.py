"""Records as people read them: one line of the decision log each, in JSON's own types.

Read off the record alone, so that a server's memory, a watch stream and a journal on disk show the same.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from federation.core.records import (
    AnyRecord,
    GaveUp,
    Placed,
    Quarantined,
    Recreated,
    Resized,
    Sized,
    Submitted,
    SubmittedChild,
    without_spec,
)
from placement.model import Lineage, Position, Token, group_uid

View = dict[str, Any]  # JSON edge
HIDDEN_FIELDS: Final = frozenset({"spec", "schema_version", "actor", "at_ms", "cause", "kind"})


def uid_of(lineage: Lineage, position: int, record: AnyRecord) -> str:
    """The group a record is about, or an empty text: a submission's own place is its group's identity."""
    if isinstance(record, Submitted):
        return group_uid(lineage, Position(position))
    return str(getattr(record, "uid", ""))


def decision_view(position: int, record: AnyRecord, *, lineage: Lineage, uid: str, name: str = "") -> View:
    """One line of the decision log."""
    fields: View = msgspec.to_builtins(without_spec(record))
    return {
        "position": position,
        "at_ms": record.at_ms,
        "kind": type(record).__name__,
        "actor": record.actor,
        "cause": record.cause,
        "uid": uid,
        "name": fields.get("name", fields.get("submitted", {}).get("name", name)),
        "cluster": fields.get("cluster", ""),
        "token": _token_of(lineage, position, record),
        "summary": summary(record),
        "detail": {key: value for key, value in fields.items() if key not in HIDDEN_FIELDS},
    }


def _token_of(lineage: Lineage, position: int, record: AnyRecord) -> str:
    """The token that a record is about; a `Placed` record makes its own."""
    if isinstance(record, Placed):
        return str(Token(lineage, Position(position)))
    return str(getattr(record, "token", ""))


def summary(record: AnyRecord) -> str:
    """The record in one line for people."""
    match record:
        case SubmittedChild(child=child):
            which = f"child {child.number} of {child.of} of {child.name}, {child.replicas} replicas in all"
            return f"submitted as {which}, to queue {record.queue}, priority {record.priority}"
        case Submitted():
            pods = sum(role.count for role in record.roles)
            return f"submitted: {pods} pods to queue {record.queue}, priority {record.priority}"
        case Recreated():
            said = f"; {record.detail}" if record.detail else ""
            group = f"{record.submitted.namespace}/{record.submitted.name}"
            return f"{group} is known again, from what {record.cluster} kept{said}"
        case Placed():
            others = len(record.candidates) - 1
            runners_up = f", ahead of {others} other candidates" if others > 0 else ""
            size = f" with {sum(record.counts)} pods" if record.counts else ""
            return f"placed on {record.cluster}{size}{runners_up}"
        case Resized():
            pods = sum(record.counts)
            if not record.count:
                return f"grows to {pods} pods on {record.cluster}, where there is idle room"
            role = f" of role {record.role}" if record.role else ""
            return f"to have {record.count} pods{role}, {pods} in all, on {record.cluster}"
        case Sized():
            why = f"has {sum(record.counts)} pods, not as asked: {', '.join(record.reasons)}"
            detail = f" ({record.detail})" if record.detail else ""
            return f"{why}{detail}" if record.reasons else f"has {sum(record.counts)} pods now"
        case Quarantined():
            where = f"lost {record.losses} homes in a row, in {', '.join(record.clusters)}"
            return f"quarantined: {where}, the last one by {', '.join(record.reasons)}"
        case GaveUp():
            reasons = ", ".join(record.reasons)
            late = " (late: its home had ended)" if record.late else ""
            outcome = ("succeeded" if record.succeeded else "failed") if record.verdict == "Finished" else reasons
            said = " ".join(part for part in (outcome, f"({record.detail})" if record.detail else "") if part)
            return f"{record.verdict} by {record.cluster}: {said}{late}"
        case _:
            shown = {
                key: value
                for key, value in msgspec.to_builtins(record).items()
                if key not in HIDDEN_FIELDS and key not in {"uid", "token"}
            }
            return " ".join([type(record).__name__, *(f"{key}={value}" for key, value in shown.items())])
