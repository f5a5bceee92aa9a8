"""A spread group on one cycle's trial: what each cluster could hold of it, and the places of its children.

How replicas are divided is `placement.spread`'s, who comes next the engine's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from placement.filters import Pending
from placement.memory import Choice
from placement.model import Because, GroupUid, Reason
from placement.request_class import RequestClass
from placement.score import Candidate, Policy
from placement.spread import Room, Shares, SpreadAsk, sized
from placement.trial import Fits, Gates, Trial

ROOM_TERM = "room"  # of a child's candidate: how many replicas its cluster could hold
REPLICAS_TERM = "replicas"  # and how many it gets


@dataclass(frozen=True, slots=True)
class ChildPlace:
    """A child's place, taken on the trial. `candidate` is its cluster, with how it came to its share."""

    uid: GroupUid
    candidate: Candidate
    choice: Choice


def rooms_of(
    trial: Trial, item: Pending, ask: SpreadAsk, known: RequestClass, fits: Fits, policy: Policy
) -> list[Room]:
    """The clusters that hold the floor, best first, with what they could hold of all."""
    if not len(fits.clusters):
        return []
    ranked = trial.candidates(
        known, trial.without_shunned(item, fits), policy, kept=len(fits.clusters), beside=item.beside
    )
    return [Room(one.cluster, trial.most(item.request, one.cluster, ask.room_max)) for one in ranked]


def take_shares(
    trial: Trial, item: Pending, gates: Gates, rooms: list[Room], shares: Shares, policy: Policy
) -> tuple[ChildPlace, ...] | Because:
    """Every share's place is taken, and the children get theirs in their order; or none is, where a cluster that holds
    more does not hold its share."""
    assert item.spread is not None
    for share in shares:
        if not trial.holds(share.cluster, sized(item.request, share.replicas)):
            return Because(Reason.SPREAD_TOO_SMALL, share.replicas, 0, f"replicas in {share.cluster}, a share of them")
    room = {one.cluster: one.replicas for one in rooms}
    found: list[ChildPlace] = []
    for uid, share in zip(item.spread.children, shares, strict=False):
        child = replace(item, uid=uid, request=sized(item.request, share.replicas))
        known = trial.class_of(child.request)
        fits = trial.only(trial.fits(known, gates), share.cluster)
        assert len(fits.clusters), "what a cluster holds fits there"
        (best,) = trial.candidates(known, fits, policy, kept=1, beside=item.beside)
        terms = (*best.terms, (ROOM_TERM, room[share.cluster]), (REPLICAS_TERM, share.replicas))
        choice = trial.take(child, known, fits, share.cluster)
        found.append(ChildPlace(uid, best._replace(terms=terms), choice))
    return tuple(found)
