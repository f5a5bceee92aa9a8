"""Which of the clusters that fit is best: named integer terms, weighed by policy. Feasibility does not belong here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, assert_never

import numpy as np

from placement.assignment import Assignment
from placement.fleet import CPU_MILLI, GPUS, NodeTable, device_of, kind_rows, shape_of
from placement.gain import COST_STEPS
from placement.layout import Bools, Ints
from placement.model import ClusterName, GangRequest
from placement.sites import SiteTerm, SiteTerms

SHARE_SCALE = 10_000  # shares are whole hundredths of a percent: scores are integers, so that all machines agree
GAIN_STEPS = 16  # per GPU lost for each that is asked for: smaller differences are near-ties, which fullness decides
GAIN_MIN = -4_096  # steps; more than that is lost only where something is all but gone
GPU = GAIN_STEPS * SHARE_SCALE  # what a GPU lost for each that is asked for weighs
GPU_HOUR_CENTS = 250  # what an hour of it costs, about: turns prices into GPUs
GRAMS_PER_CENT = 10  # CO2 at 1,000 dollars a tonne, so that a coal grid's 400 g more outweigh any fullness
DATA_STEP_GIB = 64  # fetching so much is as bad as one step of gain: a TiB for a GPU


@dataclass(frozen=True, slots=True)
class Policy:
    """Weights of the score terms. `version` is written into every decision."""

    version: int = 1
    gain_weight: int = SHARE_SCALE  # what nodes lose for those that usually come: a step outweighs any fullness
    used_after_weight: int = 1  # fullest first: empty clusters stay whole for large gangs
    preferred_met_weight: int = GPU  # a preferred topology is worth a GPU for each asked for
    price_weight: int = GPU // GPU_HOUR_CENTS  # per cent and GPU hour above the cheapest cluster
    carbon_weight: int = GPU // GPU_HOUR_CENTS // GRAMS_PER_CENT  # per gram and kWh above the cleanest
    data_missing_weight: int = SHARE_SCALE // DATA_STEP_GIB  # per GiB of its data that lies elsewhere
    failure_spread_weight: int = (
        GPU  # per group more of its own in a cluster or its region: as a GPU for each asked for
    )
    overflow_weight: int = 1 << 32  # above its mark a cluster gets only what fits nowhere else
    overflow_mark: int = 8_500  # used share, in hundredths of a percent: leaves room to move what another one loses

    def site_weight(self, term: SiteTerm) -> int:
        match term:
            case SiteTerm.PRICE:
                return self.price_weight
            case SiteTerm.CARBON:
                return self.carbon_weight
            case SiteTerm.DATA_MISSING:
                return self.data_missing_weight
            case SiteTerm.FAILURE_SPREAD:
                return self.failure_spread_weight
            case _:
                assert_never(term)


DEFAULT_POLICY = Policy()


class Candidate(NamedTuple):
    """A cluster that fits. `terms` are unweighted."""

    cluster: ClusterName
    score: int
    terms: tuple[tuple[str, int], ...]


def candidate(
    cluster: ClusterName,
    table: NodeTable,
    assignment: Assignment,
    policy: Policy,
    *,
    cost: int = 0,
    sites: SiteTerms = (),
) -> Candidate:
    """The score of placing `assignment`, not yet taken from `table`, which costs so much (see `placement.gain`); of
    `sites` the cluster is the only row."""
    request = assignment.request
    matching = _matching(table, request)
    rows, asked = _measured_in(table, request)
    contenders = Contenders(
        names=(cluster,),
        clusters=np.zeros(1, dtype=np.int64),
        free=np.array([_sum(table.free[rows].sum(axis=0), matching)]),
        total=np.array([_sum(table.total[rows].sum(axis=0), matching)]),
        preferred_met=np.array([assignment.preferred_met]),
        costs=np.array([cost]),
        sites=sites,
    )
    return top_candidates(contenders, asked, policy, units=units_of(request), kept=1)[0]


def _measured_in(table: NodeTable, request: GangRequest) -> tuple[list[int], int]:
    """The rows of the table by which fullness counts, and how much of them the gang asks for: GPUs, else the parts of
    GPUs that suit it, else CPU."""
    if request.gpus:
        return [GPUS], request.gpus
    parts = [(device, role.count) for role in request.roles if (device := device_of(role)) is not None]
    if parts:
        rows = {row for device, _ in parts for row in kind_rows(table.layout.kinds, device)}
        return sorted(rows), sum(count for _, count in parts)
    return [CPU_MILLI], sum(role.count * role.cpu_milli for role in request.roles)


def units_of(request: GangRequest) -> int:
    """What a gang's cost is divided by, so that gangs of all sizes compare alike: GPUs, else pods."""
    return request.gpus or request.pods


class Contenders(NamedTuple):
    """Clusters that fit, in the order of their names, with what each score term needs of them.

    `clusters` are places in `names`. `free` and `total` are of the gang's resource, on the nodes that it may use;
    `costs` are those of `placement.gain`.
    """

    names: Sequence[ClusterName]
    clusters: Ints
    free: Ints
    total: Ints
    preferred_met: Bools
    costs: Ints
    sites: SiteTerms = ()


def top_candidates(
    contenders: Contenders, asked: int, policy: Policy, *, units: int, kept: int
) -> tuple[Candidate, ...]:
    """The `kept` first of `rank` over the `candidate` of each contender."""
    total, met = contenders.total, contenders.preferred_met
    used = total - contenders.free
    divisor = total if asked else np.maximum(total, 1)  # where something is asked for and fits, there is something
    used_after = (used + asked) * SHARE_SCALE // divisor
    overflow = used * SHARE_SCALE >= divisor * policy.overflow_mark
    loss = np.minimum(contenders.costs * GAIN_STEPS // (COST_STEPS * units), -GAIN_MIN)
    lost = policy.overflow_weight * overflow  # the scores, negative: the best comes first
    lost += policy.gain_weight * loss
    lost -= policy.used_after_weight * used_after
    if met.any():
        lost -= policy.preferred_met_weight * met
    for term, column in contenders.sites:
        lost += policy.site_weight(term) * column
    found: list[Candidate] = []
    for at in lost.argsort(kind="stable")[:kept].tolist():
        terms: list[tuple[str, int]] = []  # those that are mostly 0 are named where they are not: records are small
        if value := int(loss[at]):
            terms.append(("gain", -value))
        if overflow[at]:
            terms.append(("overflow", 1))
        for term, column in contenders.sites:
            if value := int(column[at]):
                terms.append((str(term), value))
        terms += (("used_after", int(used_after[at])), ("preferred_met", int(met[at])))
        found.append(Candidate(contenders.names[contenders.clusters[at]], -int(lost[at]), tuple(terms)))
    return tuple(found)


def rank(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Best first; ties by name."""
    return tuple(sorted(candidates, key=lambda one: (-one.score, one.cluster)))


def _matching(table: NodeTable, request: GangRequest) -> Bools:
    """Nodes that at least one role may use."""
    matching = table.accepting(*shape_of(request.roles[0]).nodes)
    for role in request.roles[1:]:
        matching = matching | table.accepting(*shape_of(role).nodes)
    return matching


def _sum(amounts: Ints, where: Bools) -> int:
    return int(np.dot(amounts, where))
