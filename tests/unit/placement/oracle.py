"""The engine without its memory: every group asks `assign` in every cluster. What the fast one must agree with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from placement.assign import assign
from placement.assignment import Assignment
from placement.engine import CANDIDATES_KEPT, Pending, Place, Wait, order_key
from placement.filters import cluster_refusal
from placement.fleet import Fleet
from placement.gain import table_cost
from placement.memory import Choice
from placement.model import Because, ClusterName, GangRequest, QueueName, Reason
from placement.node_order import NodeWorth
from placement.quota import Quotas, charge, quota_refusal
from placement.reasons import least_grave
from placement.score import Policy, candidate, rank
from placement.sites import Sites


def decide_slowly(
    fleet: Fleet, pending: Sequence[Pending], *, policy: Policy, quotas: Quotas, worth: NodeWorth | None = None
) -> tuple[tuple[Place, ...], tuple[Wait, ...]]:
    """What `decide` says with a budget that never ends. Who is like one that found no place is told the same."""
    views = dict(fleet)
    tables = {name: view.table.copy() for name, view in fleet.items()}
    lines = {queue: dict(limits) for queue, limits in quotas.items()}
    sites, at = Sites([view.labels for view in fleet.values()]), {name: number for number, name in enumerate(fleet)}
    placed: list[Place] = []
    waiting: list[Wait] = []
    said: dict[tuple[GangRequest, QueueName, frozenset[ClusterName]], Wait] = {}  # what others like it were told
    for item in sorted(pending, key=order_key):
        if (kind := (item.request, item.queue, item.avoid)) in said:
            waiting.append(replace(said[kind], uid=item.uid))
            continue
        over = quota_refusal(item.request, item.queue, lines.get(item.queue, {}))
        if over:
            waiting.append(said.setdefault(kind, Wait(item.uid, over[0], ((Reason.QUOTA_EXHAUSTED, len(fleet)),))))
            continue
        answers = {
            name: closed if (closed := cluster_refusal(view, item)) else assign(tables[name], item.request, worth)
            for name, view in views.items()
        }
        fits = {name: one for name, one in answers.items() if isinstance(one, Assignment)}
        refusals = [_first(one) for one in answers.values() if not isinstance(one, Assignment)]
        if not fits:
            waiting.append(said.setdefault(kind, Wait(item.uid, least_grave(refusals), _counted(refusals))))
            continue
        wanted = {name: one for name, one in fits.items() if name != item.shunned} or fits
        best = rank(
            candidate(
                name,
                tables[name],
                one,
                policy,
                cost=table_cost(tables[name], item.request, worth),
                sites=sites.terms(item.request.data, np.array([at[name]])),
            )
            for name, one in wanted.items()
        )[:CANDIDATES_KEPT]
        cluster = best[0].cluster
        choice = Choice(fits[cluster], *tables[cluster].amounts_of(fits[cluster]))
        tables[cluster].take(fits[cluster])
        views[cluster] = replace(views[cluster], groups_left=views[cluster].groups_left - 1)
        placed.append(Place(item.uid, cluster, fits[cluster], best, _counted(refusals), choice))
        if item.queue in lines:
            lines[item.queue] = charge(item.request, lines[item.queue])
    return tuple(placed), tuple(waiting)


def _first(answer: Because | tuple[Because, ...]) -> Because:
    return answer if isinstance(answer, Because) else answer[0]


def _counted(refusals: Iterable[Because]) -> tuple[tuple[Reason, int], ...]:
    reasons = [because.reason for because in refusals]
    found = sorted(set(reasons), key=lambda reason: reason.severity)
    return tuple((reason, reasons.count(reason)) for reason in found)
