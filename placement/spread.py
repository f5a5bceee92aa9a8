"""How the replicas of a spread group are divided: over how many clusters, which, and how many replicas in each.

What each cluster could hold, and which are better, is said by whoever asks. Nothing here places anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heapreplace
from typing import Final

from placement.model import PODS_PER_GROUP_MAX, Because, ClusterName, Divide, GangRequest, GroupUid, Reason

CLAIM_BITS: Final = 32  # claims that differ do so by more than this keeps: of rooms and counts of up to 10,000 each


@dataclass(frozen=True, slots=True)
class SpreadAsk:
    """A spread group that was not divided yet: its children, all of which wait, and what each of them may get."""

    children: tuple[GroupUid, ...]
    replicas: int
    least: int  # per cluster
    most: int
    clusters_min: int
    divide: Divide = Divide.EVEN

    @property
    def room_max(self) -> int:
        """How far the room of a cluster is counted: beyond what a child may get only where it is a weight."""
        return self.most if self.divide is Divide.EVEN else PODS_PER_GROUP_MAX


@dataclass(frozen=True, slots=True)
class Room:
    """A cluster that holds at least the floor, and how many replicas it could hold, `SpreadAsk.room_max` at most."""

    cluster: ClusterName
    replicas: int


Shares = tuple[Room, ...]
"""Which clusters get how many replicas."""


def sized(request: GangRequest, replicas: int) -> GangRequest:
    """The request of a child with so many replicas."""
    (role,) = request.roles
    child = replace(role, count=replicas, min_count=min(role.min_count, replicas))
    return replace(request, roles=(child,), min_count=min(request.min_count, replicas))


def most_held(least: int, most: int, holds: Callable[[int], bool]) -> int:
    """The most replicas, `most` at most, that a cluster holds which holds `least`. By halving, which is exact where a
    gang that fits also fits with fewer pods."""
    while least < most:
        middle = (least + most + 1) // 2
        if holds(middle):
            least = middle
        else:
            most = middle - 1
    return least


def even_share(replicas: int, of: int, number: int) -> int:
    """What the child of this number (from 1) gets where nobody knows better."""
    return replicas // of + (number <= replicas % of)


def divide(ask: SpreadAsk, rooms: Sequence[Room]) -> Shares | Because:
    """The clusters that are used, in the order of `rooms` (best first), with their replicas; or what is missing.

    Holds afterwards: shares sum to all replicas, and each is between the floor and the room there. No fewer clusters
    are used than `clusters_min`, and as many as there are children if so many hold the floor: the best ones, of which
    one gives way to a larger one only while they hold too little together. O(rooms x children).
    """
    if len(rooms) < ask.clusters_min:
        unit = f"clusters with room for {ask.least} {'replica' if ask.least == 1 else 'replicas'} each"
        return Because(Reason.SPREAD_TOO_NARROW, ask.clusters_min, len(rooms), unit)
    chosen = _chosen(ask, rooms)
    tops = [min(one.replicas, ask.most) for one in chosen]
    held = sum(tops)
    if held < ask.replicas:
        return Because(Reason.SPREAD_TOO_SMALL, ask.replicas, held, f"replicas in {len(chosen)} clusters")
    counts = _evenly(ask, tops) if ask.divide is Divide.EVEN else _by_room(ask, tops, [one.replicas for one in chosen])
    return tuple(Room(one.cluster, count) for one, count in zip(chosen, counts, strict=True))


def _chosen(ask: SpreadAsk, rooms: Sequence[Room]) -> list[Room]:
    """The best clusters. While they hold too little, the worst of those that are smaller than the largest other one
    (of equals the best) gives way to it; in the end these are the largest, and none hold more."""
    tops = [min(one.replicas, ask.most) for one in rooms]
    used = list(range(min(len(ask.children), len(rooms))))
    others = list(range(len(used), len(rooms)))
    while others and sum(tops[at] for at in used) < ask.replicas:
        largest = min(others, key=lambda at: (-tops[at], at))
        smaller = [at for at in used if tops[at] < tops[largest]]
        if not smaller:
            break
        used[used.index(max(smaller))], others[others.index(largest)] = largest, max(smaller)
    return [rooms[at] for at in sorted(used)]


def _evenly(ask: SpreadAsk, tops: Sequence[int]) -> list[int]:
    """Each gets as many as the others, or all that it has room for; what is left over goes to the best, one each."""
    low, high = ask.least, max(tops)
    while low < high:  # the highest level to which all can be filled
        level = (low + high + 1) // 2
        if sum(min(top, level) for top in tops) <= ask.replicas:
            low = level
        else:
            high = level - 1
    counts = [min(top, low) for top in tops]
    left = ask.replicas - sum(counts)
    for at, top in enumerate(tops):
        if left and counts[at] < top:
            counts[at] += 1
            left -= 1
    return counts


def _by_room(ask: SpreadAsk, tops: Sequence[int], rooms: Sequence[int]) -> list[int]:
    """In proportion to the room of each, floors first, by the method of Sainte-Laguë: the next replica goes where the
    room for each odd number of halves so far is largest; of equals to the best. O(replicas log clusters)."""
    counts = [ask.least] * len(tops)
    line = [(_claim(room, ask.least), at) for at, room in enumerate(rooms) if ask.least < tops[at]]
    heapify(line)
    for _ in range(ask.replicas - sum(counts)):
        _, at = line[0]
        counts[at] += 1
        if counts[at] < tops[at]:
            heapreplace(line, (_claim(rooms[at], counts[at]), at))
        else:
            heappop(line)
    return counts


def _claim(room: int, count: int) -> int:
    """The smaller, the sooner; whole, so that all machines agree."""
    return -(room << CLAIM_BITS) // (2 * count + 1)
