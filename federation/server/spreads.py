"""Spread groups as the API shows them: the parent is no group, so what it shows is worked out from its children.

Read only; the shape is a group's (`views.group_view`), with the children under `status`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from federation.core.decisions import decision_view
from federation.core.rows import GroupRow
from federation.core.spreads import spread_uid_of, uids_of
from federation.core.state import State
from federation.server import views
from placement.explain import Explanation
from placement.model import Phase
from placement.spread import sized
from placement.spread_rules import SPREAD_LABEL

View = dict[str, Any]  # JSON edge

# How far a child is, the least first: a spread group is as far as the child that is behind all others.
PROGRESS: Final = (
    Phase.QUARANTINED,
    Phase.PENDING,
    Phase.SUSPENDED,
    Phase.STRANDED,
    Phase.EVICTING,
    Phase.PLACED,
    Phase.BINDING,
    Phase.BOUND,
    Phase.RUNNING,
)
WAITING: Final = frozenset({Phase.PENDING, Phase.QUARANTINED})
# Of one whose children have all ended, what comes first of these; else it succeeded.
ENDS: Final = (Phase.CANCELLED, Phase.FAILED)


def find_spread(state: State, ref: str, namespace: str) -> list[GroupRow]:
    """The children in memory of the spread group with this uid or name; none if it is no spread group's."""
    uids = uids_of(ref)
    if uids is not None:
        found = [row for row in map(state.group, uids) if row is not None and row.child is not None]
        return [row for row in found if spread_uid_of(row) == ref]
    newest = state.newest(namespace, ref)
    found = state.spread(namespace, ref)
    if state.group(ref) is not None or (newest is not None and found and newest.submitted_at > found[0].submitted_at):
        return []
    return found


def phase_of(rows: Sequence[GroupRow]) -> Phase:
    phases = {row.phase for row in needed(rows)}
    behind = next((phase for phase in PROGRESS if phase in phases), None)
    return behind or next((phase for phase in ENDS if phase in phases), Phase.SUCCEEDED)


def needed(rows: Sequence[GroupRow]) -> Sequence[GroupRow]:
    """Without the children that the division left no replicas for."""
    with_share = [row for row in rows if row.child is not None and row.child.share]
    return with_share or rows


def spread_view(rows: Sequence[GroupRow]) -> View:
    """All children as one group: sums, and the phase of the one that is behind."""
    first = rows[0]
    child = first.child
    assert child is not None
    view = views.group_view(first)
    used, whole = needed(rows), sized(first.request, child.replicas)
    policies = {row.effective_policy.value for row in used if row.effective_policy is not None}
    labels = {key: value for key, value in first.labels.items() if key != SPREAD_LABEL}
    changed_at = max(row.changed_at for row in rows)
    view["metadata"] |= {
        "name": child.name,
        "uid": spread_uid_of(first),
        "labels": labels,
        "resourceVersion": str(changed_at),
    }
    view["spec"] |= {
        "pods": child.replicas,
        "min_count": child.clusters_min * first.request.min_count,
        "gpus": whole.gpus,
        "roles": [views.role_view(role) for role in whole.roles],
        "spread": {
            "clusters": {"min": child.clusters_min, "max": child.of},
            "min_per_cluster": first.request.min_count,
            "divide": child.divide,
        },
    }
    del view["spec"]["child"]
    living = [row for row in used if not row.phase.terminal]
    phase = phase_of(rows)
    view["status"] |= {
        "phase": phase.value,
        "cluster": ",".join(row.home.cluster for row in used if row.home is not None),
        "token": "",
        "effective_policy": policies.pop() if len(policies) == 1 else "",
        "pods_bound": sum(row.pods_bound for row in used if row.home is not None),
        "attempts": max(row.attempts for row in used),
        "intent": (living or used)[0].intent.value,
        "last_cluster": "",
        "reasons": list(dict.fromkeys(reason for row in living if row.home is None for reason in row.last_reasons)),
        "conditions": [],
        "children": [_child(row) for row in rows],
    }
    view["status"].pop("message", None)  # of the first child, whichever it is about
    stuck = next((row for row in used if row.phase is Phase.QUARANTINED), None)
    if stuck is not None:
        view["status"]["message"] = f"{stuck.name}: {views.quarantined(stuck)}"
    return view


def _child(row: GroupRow) -> View:
    assert row.child is not None
    return {
        "name": row.name,
        "uid": row.uid,
        "phase": row.phase.value,
        "cluster": row.home.cluster if row.home is not None else "",
        "replicas": row.child.share,
        "pods_bound": row.pods_bound if row.home is not None else 0,
        "reasons": list(row.last_reasons),
    }


def explained(rows: Sequence[GroupRow]) -> GroupRow:
    """The child whose explanation says most about all: the first that waits, else the first."""
    return next((row for row in rows if row.phase in WAITING), rows[0])


def spread_explanation(rows: Sequence[GroupRow], row: GroupRow, why: Explanation) -> View:
    """Where all children are, or why the first of those that wait does. `row` is that of `explained`."""
    view = views.explanation_view(row, why)
    child = row.child
    assert child is not None
    homes = [f"{one.pods_bound} of {one.request.pods} in {one.home.cluster}" for one in rows if one.home is not None]
    where = f"replicas bound: {', '.join(homes)}" if homes else ""
    waits = view["summary"] if row.phase in WAITING else ""
    if waits and child.share:
        waits = f"{row.name} waits: {waits}"
    summary = "; ".join(part for part in (where, waits) if part)
    return view | {
        "uid": spread_uid_of(row),
        "name": child.name,
        "phase": phase_of(rows).value,
        "cluster": ",".join(one.home.cluster for one in rows if one.home is not None),
        "summary": summary or f"ended: {phase_of(rows).value}",
    }


def spread_history(state: State, rows: Sequence[GroupRow]) -> View:
    """All decisions about all children, in the order in which they landed."""
    lines = [(line.position, line.record, row) for row in rows for line in row.history]
    items = [
        decision_view(position, record, lineage=state.lineage, uid=row.uid, name=row.name)
        for position, record, row in sorted(lines, key=lambda line: (line[0], line[2].uid))
    ]
    return {"kind": "DecisionList", "metadata": {"cut": sum(row.history_cut for row in rows)}, "items": items}
