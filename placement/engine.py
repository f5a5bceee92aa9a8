"""Which waiting PodGroup gets which cluster, in one cycle over one snapshot.

order -> quota -> filter -> exact fit -> score -> take on trial; who finds no room, once more with those just placed.
Reads top to bottom. The caller writes the decisions down and takes the assignments from its own tables; nothing here
changes the fleet it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from placement.beside import NO_KIN, Beside
from placement.elastic import largest, sizes_of
from placement.filters import Pending
from placement.fleet import Fleet
from placement.memory import Memory
from placement.model import Because, GangRequest, GroupUid, Reason
from placement.node_order import NodeWorth
from placement.place import Place
from placement.quota import UNLIMITED, Quotas, quota_refusal
from placement.reasons import counted, least_grave
from placement.repacking import Decided
from placement.request_class import RequestClass
from placement.score import Candidate, Policy
from placement.spread import SpreadAsk, divide, sized
from placement.spreading import rooms_of, take_shares
from placement.trial import Fits, Gates, Trial
from placement.waiting import Waiting, order_key

__all__ = [
    "Bounds",
    "Candidate",
    "Decision",
    "Pending",
    "Place",
    "Plan",
    "Policy",
    "Wait",
    "decide",
    "least_grave",
    "order_key",
    "plan_cycle",
]

CANDIDATES_KEPT = 3  # of each decision, for its record (DESIGN §7: records stay under 1 KiB)
NO_BOUND = 1 << 62


@dataclass(frozen=True, slots=True)
class Wait:
    """`uid` was tried and fits nowhere now; `because` is the least grave reason, the one a wait may cure.

    None, and `refused` empty, where nobody asked for reasons: `placement.explain` finds them when somebody does.
    """

    uid: GroupUid
    because: Because | None = None
    refused: tuple[tuple[Reason, int], ...] = ()


Decision = Place


@dataclass(frozen=True, slots=True)
class Plan:
    """`evaluations` counts the clusters in which a fit was looked for; `exhausted`: bounds ended the cycle.

    `spare`: children that a spread group has no use for, by its first child. With its decisions they are one: all of
    them come true, or none. `made_room`: decisions were made again for one that had no place, so that groups found
    blocked before may have one by now: a gain, to whoever counts them.
    """

    decisions: tuple[Decision, ...]
    waiting: tuple[Wait, ...]
    evaluations: int
    exhausted: bool
    policy_version: int
    spare: Mapping[GroupUid, tuple[GroupUid, ...]] = field(default_factory=dict)
    made_room: bool = False


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far one cycle may go. `held` groups are passed over, as if they did not wait.

    `gains` grows with whatever may let a blocked group start: room, an opened cluster, a freed quota. While it stays
    the same, nobody blocked is looked at again.
    """

    budget: int  # evaluations
    gains: int = 0
    places_max: int = NO_BOUND
    moves_max: int = NO_BOUND  # places for groups that were displaced
    held: Callable[[Pending], bool] = lambda _item: False


def decide(
    fleet: Fleet,
    pending: Sequence[Pending],
    *,
    policy: Policy,
    budget: int,
    quotas: Quotas = UNLIMITED,
    worth: NodeWorth | None = None,
    beside: Beside = NO_KIN,
) -> Plan:
    """Give waiting groups a cluster until `budget` candidate evaluations are spent.

    `beside`: where groups are that some of these should rather stay away from. Nodes are chosen by `worth`. Pure: equal
    arguments give an equal plan, whatever the order of `pending`; `fleet` and `quotas` are left as they were. Every
    decision fits together with all those before it. Who decides again and again on what has changed since keeps a
    `Memory` and calls `plan_cycle`, which decides the same.
    """
    assert len({item.uid for item in pending}) == len(pending), "a group waits once"
    waiting, memory = Waiting(pending), Memory()
    memory.follow(worth)
    bounds = Bounds(budget)
    plan = plan_cycle(fleet, waiting, memory, policy=policy, bounds=bounds, quotas=quotas, beside=beside, reasons=True)
    reached = waiting.first()  # those after it were not looked at
    seen = [item for item in sorted(pending, key=order_key) if reached is None or order_key(item) < order_key(reached)]
    said = {wait.uid: wait for wait in plan.waiting}
    waits = tuple(said[item.uid] for item in seen if item.uid in said)
    return replace(plan, waiting=waits)


def plan_cycle(
    fleet: Fleet,
    waiting: Waiting,
    memory: Memory,
    *,
    policy: Policy,
    bounds: Bounds,
    quotas: Quotas = UNLIMITED,
    beside: Beside = NO_KIN,
    reasons: bool = False,
) -> Plan:
    """One cycle over `waiting`; those placed wait no longer, and the caller puts back what it cannot write down.

    The plan is that of `decide`, however long `memory` and `waiting` have been in use, and what the bounds cut off
    comes first in the next cycle: a group found blocked is looked at again only when all behind it have been.
    `Plan.waiting` names one group of each kind found blocked; all of them where `reasons` are asked for, and where
    clusters are avoided. O(groups looked at x clusters), small; O(nodes) where a table has changed.
    """
    trial = Trial(fleet, quotas, memory, beside)
    waiting.start_cycle(bounds.gains, trial.has_room)
    decided = Decided(trial, lambda item, known: _only(_decide_one(trial, item, known, policy, reasons=False)))
    spare: dict[GroupUid, tuple[GroupUid, ...]] = {}
    waits: list[Wait] = []
    places_left, moves_left = bounds.places_max, bounds.moves_max
    while (item := waiting.first()) is not None:
        asked = 1 if item.spread is None else len(item.spread.children)
        if trial.evaluations >= bounds.budget or asked > places_left:
            break
        if bounds.held(item) or (item.displaced and not moves_left):
            waiting.pass_over(item)
            continue
        known = waiting.class_of(item)
        outcome = _decide_one(trial, item, known, policy, reasons=reasons)
        if isinstance(outcome, tuple):
            decided.add(item, known, outcome)
        if isinstance(outcome, tuple) or (outcome.lacks_room and decided.make_room(item, known)):
            waiting.placed(item)
            places_left -= asked
            moves_left -= item.displaced
            if isinstance(outcome, tuple) and item.spread is not None and len(outcome) < asked:
                spare[item.uid] = item.spread.children[len(outcome) :]
        else:
            alike = waiting.alike(item) if reasons or item.avoid else (item,)
            waits.extend(Wait(one.uid, outcome.because, outcome.counts) for one in alike)
            waiting.block(item, by_room=outcome.by_room)
    exhausted = waiting.end_cycle()
    places, moved = tuple(decided.places.values()), decided.made_room
    return Plan(places, tuple(waits), trial.evaluations, exhausted, policy.version, spare, moved)


@dataclass(frozen=True, slots=True)
class _Blocked:
    because: Because | None
    counts: tuple[tuple[Reason, int], ...]
    by_room: bool  # no cluster has room for it, open or not
    lacks_room: bool = True  # only room, in clusters that are open to it


def _only(outcome: tuple[Place, ...] | _Blocked) -> Place | None:
    return outcome[0] if isinstance(outcome, tuple) else None


def _decide_one(
    trial: Trial, item: Pending, known: RequestClass, policy: Policy, *, reasons: bool
) -> tuple[Place, ...] | _Blocked:
    """The best cluster for one group on what the trial has left, or why there is none. An elastic gang that fits
    nowhere whole gets the largest size that fits anywhere; of a spread group every child gets a cluster, or none."""
    if over_quota := quota_refusal(asked_of(item), item.queue, trial.quota_lines(item.queue)):
        counts = ((Reason.QUOTA_EXHAUSTED, len(trial.fleet)),)
        return _Blocked(over_quota[0], counts, by_room=False, lacks_room=False)
    if not reasons and not trial.has_room(known):
        trial.evaluations += 1
        return _Blocked(None, (), by_room=True)

    gates = trial.gates(item, known)
    fits = trial.fits(known, gates)
    if not len(fits.clusters) and item.request.elastic:
        known, fits = _smaller(trial, item, gates)
    if item.spread is not None:
        return _divide(trial, item, item.spread, _Looked(known, gates, fits), policy, reasons=reasons)
    if not len(fits.clusters):
        if not reasons:
            return _Blocked(None, (), by_room=False)
        refusals = trial.refusals(known, gates)
        return _Blocked(least_grave(refusals), counted(one.reason for one in refusals), by_room=False)

    open_fits = trial.without_shunned(item, fits)
    best = trial.candidates(known, open_fits, policy, kept=CANDIDATES_KEPT, beside=item.beside)
    refused = trial.refused(known, gates, fits)
    choice = trial.take(item, known, fits, best[0].cluster)
    return (Place(item.uid, best[0].cluster, choice.assignment, best, refused, choice),)


def asked_of(item: Pending) -> GangRequest:
    """What quotas are asked for: a spread group asks for all of its replicas."""
    return item.request if item.spread is None else sized(item.request, item.spread.replicas)


@dataclass(frozen=True, slots=True)
class _Looked:
    """What was found out about one group: its class, and the clusters that are open and those that hold it."""

    known: RequestClass
    gates: Gates
    fits: Fits


def _divide(
    trial: Trial, item: Pending, ask: SpreadAsk, looked: _Looked, policy: Policy, *, reasons: bool
) -> tuple[Place, ...] | _Blocked:
    """A cluster and its share for every child of a spread group that is needed, or why there are none."""
    rooms = rooms_of(trial, item, ask, looked.known, looked.fits, policy)
    shares = divide(ask, rooms)
    if isinstance(shares, Because):
        counts = trial.refused(looked.known, looked.gates, looked.fits) if reasons else ()
        return _Blocked(shares if reasons else None, counts, by_room=False)
    refused = trial.refused(looked.known, looked.gates, looked.fits)
    taken = take_shares(trial, item, looked.gates, rooms, shares, policy)
    if isinstance(taken, Because):
        return _Blocked(taken if reasons else None, refused if reasons else (), by_room=False)
    return tuple(
        Place(one.uid, one.candidate.cluster, one.choice.assignment, (one.candidate,), refused, one.choice, item.uid)
        for one in taken
    )


def _smaller(trial: Trial, item: Pending, gates: Gates) -> tuple[RequestClass, Fits]:
    """The largest size of an elastic gang that fits anywhere, and where; nowhere, and the smallest, if none does."""
    sizes = sizes_of(item.request)

    def fits(request: GangRequest) -> tuple[RequestClass, Fits] | None:
        known = trial.class_of(request)
        found = trial.fits(known, gates)
        return (known, found) if len(found.clusters) else None

    found = largest(sizes, fits)
    if found is not None:
        return found
    smallest = trial.class_of(sizes.smallest)
    return smallest, trial.fits(smallest, gates)
