"""Which of the clusters that fit is best: named integer terms, weighed by policy. Feasibility does not belong here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from placement.assignment import Assignment
from placement.fleet import CPU_MILLI, GPUS, NodeTable, shape_of
from placement.layout import Bools, Ints
from placement.model import ClusterName, GangRequest

SHARE_SCALE = 10_000  # shares are whole hundredths of a percent: scores are integers, so that all machines agree


@dataclass(frozen=True, slots=True)
class Policy:
    """Weights of the score terms. `version` is written into every decision."""

    version: int = 1
    used_after_weight: int = 1  # fullest first: empty clusters stay whole for large gangs
    preferred_met_weight: int = 2 * SHARE_SCALE  # a preferred topology outweighs any difference in fullness


DEFAULT_POLICY = Policy()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A cluster that fits. `terms` are unweighted."""

    cluster: ClusterName
    score: int
    terms: tuple[tuple[str, int], ...]


def candidate(cluster: ClusterName, table: NodeTable, assignment: Assignment, policy: Policy) -> Candidate:
    """The score of placing `assignment`, not yet taken from `table`."""
    used_after = _used_after(table, assignment.request)
    preferred_met = int(assignment.preferred_met)
    score = policy.used_after_weight * used_after + policy.preferred_met_weight * preferred_met
    return Candidate(cluster, score, (("used_after", used_after), ("preferred_met", preferred_met)))


@dataclass(frozen=True, slots=True)
class Contenders:
    """Clusters that fit, in the order of their names, with what each score term needs of them.

    `free` and `total` are of the gang's resource, on the nodes that it may use.
    """

    names: Sequence[ClusterName]
    free: Ints
    total: Ints
    preferred_met: Bools


def top_candidates(contenders: Contenders, asked: int, policy: Policy, *, kept: int) -> tuple[Candidate, ...]:
    """The `kept` first of `rank` over the `candidate` of each contender."""
    free, total, met = contenders.free, contenders.total, contenders.preferred_met
    divisor = total if asked else np.maximum(total, 1)  # where something is asked for and fits, there is something
    used_after = (total - free + asked) * SHARE_SCALE // divisor
    scores = policy.used_after_weight * used_after + policy.preferred_met_weight * met
    return tuple(
        Candidate(
            contenders.names[at],
            int(scores[at]),
            (("used_after", int(used_after[at])), ("preferred_met", int(met[at]))),
        )
        for at in (-scores).argsort(kind="stable")[:kept].tolist()
    )


def rank(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Best first; ties by name."""
    return tuple(sorted(candidates, key=lambda one: (-one.score, one.cluster)))


def _used_after(table: NodeTable, request: GangRequest) -> int:
    """Share of the GPUs the gang could use that would be in use with it (of CPU, for gangs without GPUs)."""
    matching = _matching(table, request)
    resource = GPUS if request.gpus else CPU_MILLI
    asked = request.gpus or sum(role.count * role.cpu_milli for role in request.roles)
    total = _sum(table.total[resource], matching)
    free = _sum(table.free[resource], matching)
    return (total - free + asked) * SHARE_SCALE // total if total else 0


def _matching(table: NodeTable, request: GangRequest) -> Bools:
    """Nodes that at least one role may use."""
    matching = table.accepting(*shape_of(request.roles[0]).nodes)
    for role in request.roles[1:]:
        matching = matching | table.accepting(*shape_of(role).nodes)
    return matching


def _sum(amounts: Ints, where: Bools) -> int:
    return int(np.dot(amounts, where))
