"""What the engine is asked with, and its answer as a record: the same for the placer and for a replay of its cycles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from federation.core.breaker import PROBER
from federation.core.records import Candidate, IntentSet, Placed
from federation.core.rows import ClusterRow, GroupRow, Intent
from federation.core.state import State
from placement.elastic import counts_of
from placement.engine import Bounds, Place, Plan
from placement.model import GROUPS_PER_CLUSTER_MAX, DisconnectPolicy, FenceStrength, GangRequest, Phase, QueueName
from placement.quota import QuotaLine, QuotaLines

ACTOR: Final = "muster:placer"
PROBES_MAX: Final = 1  # at a time, in a cluster where most groups failed: enough to learn, and one is lost at worst


class SeenView(NamedTuple):
    """The report (`boot`, `seq`) that a cluster's nodes were known by, how surely its pods stop, and whether it gets a
    probe."""

    boot: int
    seq: int
    strength: FenceStrength
    probe: bool = False


def groups_left(row: ClusterRow, *, half_open: bool = False) -> int:
    """How many more groups may have their home in the cluster: one as a probe, where its breaker is half open."""
    left = max(0, GROUPS_PER_CLUSTER_MAX - len(row.tokens))
    return min(left, PROBES_MAX) if half_open else left


def quotas_of(state: State) -> dict[QueueName, QuotaLines]:
    return {
        queue.name: {line: QuotaLine(limit, queue.used(line)) for line, limit in queue.gpu_quota.items()}
        for queue in state.queues.values()
        if queue.gpu_quota
    }


def placed_of(state: State, place: Place, seen: SeenView, bounds: Bounds, plan: Plan, at_ms: int) -> Placed:
    """The record of one decision. `state` is that on which it was made."""
    row = state.groups[place.uid]
    assert row.phase is Phase.PENDING, f"{place.uid} is {row.phase}: recorded, that would stop every server for good"
    accepts = state.clusters[place.cluster].accept_unguarded
    return Placed(
        actor=PROBER if seen.probe else ACTOR,
        at_ms=at_ms,
        uid=place.uid,
        cluster=place.cluster,
        effective_policy=effective_policy(row, seen.strength, accept_unguarded=accepts),
        candidates=tuple(Candidate(one.cluster, one.score, one.terms) for one in place.candidates),
        reasons=tuple((reason.code, count) for reason, count in place.refused),
        stamp=(place.cluster, seen.boot, seen.seq),
        budget=bounds.budget,
        policy_version=plan.policy_version,
        counts=_counts(row.request, place.assignment.request),
    )


def together(decisions: Sequence[Place]) -> Iterator[tuple[Place, ...]]:
    """The decisions in order; those about one spread group as one."""
    for _, places in groupby(decisions, key=lambda place: place.spread or place.uid):
        yield tuple(places)


def bundle_of(
    state: State, places: Sequence[Place], seen: Sequence[SeenView], bounds: Bounds, plan: Plan, at_ms: int
) -> tuple[Placed | IntentSet, ...]:
    """The records of decisions that belong together, and those that cancel the children that a spread group has no use
    for."""
    placed = tuple(placed_of(state, place, one, bounds, plan, at_ms) for place, one in zip(places, seen, strict=True))
    spread = places[0].spread
    if spread is None:
        return placed
    why = f"all replicas are divided over {len(places)} {'cluster' if len(places) == 1 else 'clusters'}"
    spare = plan.spare.get(spread, ())
    cancelled = (IntentSet(actor=ACTOR, at_ms=at_ms, uid=uid, intent=Intent.CANCEL, reason=why) for uid in spare)
    return (*placed, *cancelled)


def _counts(whole: GangRequest, placed: GangRequest) -> tuple[int, ...]:
    """Nothing where it is placed with all of its pods."""
    return () if placed.pods == whole.pods else counts_of(placed)


def effective_policy(row: GroupRow, strength: FenceStrength, *, accept_unguarded: bool) -> DisconnectPolicy:
    """What holds for this placement for good: nothing moves by itself from where nobody surely stops it."""
    wanted = row.disconnect_policy
    if wanted is DisconnectPolicy.STOP_AND_MOVE and strength is not FenceStrength.GUARD and not accept_unguarded:
        return DisconnectPolicy.HOLD_IN_PLACE
    return wanted
