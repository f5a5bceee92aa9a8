"""What people are shown of a cluster's condition: one word and the facts behind it. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from federation.core.breaker import Breaker, Stand
from federation.core.failover import Gate
from federation.core.leases import Leases
from federation.core.rows import ClusterRow
from federation.core.views import Views
from placement.fleet import NodeTable

STATE_DEAD = "ConfirmedDead"
STATE_JOINING = "Joining"  # never admitted so far
STATE_RECOVERING = "Recovering"  # restored from a backup: nothing is placed before it is known what runs
STATE_FENCED = "Fenced"
STATE_SILENT = "Silent"
STATE_ADMITTING = "Admitting"  # on record, but the lease or the agent does not show it yet
STATE_FAILING = "Failing"  # most groups failed there: one group at a time is tried
STATE_ACTIVE = "Active"

FAILING = "most groups failed there lately: one at a time is tried, until one lives; `muster cluster uncordon` ends it"


def cluster_status(
    row: ClusterRow, gate: Gate, stand: Stand, views: Views, leases: Leases, now_s: float
) -> dict[str, Any]:
    """JSON-ready facts; `state` is the gravest word that applies."""
    view = views.get(row.name)
    body = leases.body(row.name)
    table = view.table() if view is not None else None
    state = state_of(row, gate, stand)
    return {
        "state": state,
        "silence_s": round(views.silence_s(row.name, now_s), 1),
        "report_age_s": round(gate.view_age_s, 1) if view is not None else None,
        "fence_strength": view.fence_strength.value if view is not None else "",
        "lease_epoch": body.epoch if body is not None else 0,
        "lease_silence_s": round(leases.silence_s(row.name), 1),
        "breaker": stand.breaker.value,
        "nodes": len(table) if table is not None else 0,
        "gpus": gpus_by_product(table, view.unhealthy) if view is not None and table is not None else {},
        "message": FAILING if state == STATE_FAILING else "",
    }


def state_of(row: ClusterRow, gate: Gate, stand: Stand) -> str:
    if row.dead_at:
        return STATE_DEAD
    if row.recovering:
        return STATE_RECOVERING
    if not row.admitted_epoch:
        return STATE_JOINING
    if gate.fenced:
        return STATE_FENCED
    if gate.silent:
        return STATE_SILENT
    if not gate.admitted:
        return STATE_ADMITTING
    return STATE_ACTIVE if stand.breaker is Breaker.CLOSED else STATE_FAILING


def gpus_by_product(table: NodeTable, unhealthy: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Whole GPUs by product, as reported; the total has those that are unhealthy."""
    found: dict[str, dict[str, int]] = {}
    for node in table.rows():
        ill = unhealthy.get(node.name, 0)
        if node.gpus_total or ill:
            line = found.setdefault(node.product, {"total": 0, "free": 0, "unhealthy": 0})
            line["total"] += node.gpus_total + ill
            line["free"] += node.gpus_free
            line["unhealthy"] += ill
    return dict(sorted(found.items()))
