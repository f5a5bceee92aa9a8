"""Gangs of which a role, or each slice of a role, must stand in a domain of its own inside the gang's.

Roles are given nodes one after the other, and a role that finds none makes the one before it try its next domain: a
bounded search. Counting alone answers all other gangs: see `placement.assign`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from placement.assignment import Part
from placement.filling import fill, tightest_first
from placement.fleet import RESOURCES, NodeTable, Shape, pods_per_node, shape_of
from placement.layout import IN_NO_DOMAIN, NARROW_TO_WIDE, Bools, Domains, Ints, levels_in_order, named_level
from placement.model import GangRequest, Level, RoleRequest
from placement.node_order import NodeWorth, node_order

STEPS_MAX: Final = 128
"""Ways to give a role its nodes that are tried in all domains of the gang: 20 ms on 5,000 nodes, and nearly every gang
needs as many as it has roles. Each domain gets half of those that are left, so that one in vain does not use up all."""

NARROW_FIRST_PART: Final = 4
"""That part of the steps again for roles of narrow levels first, where the most demanding first have found no way: who
may stand anywhere has one way only, and may have taken the one rack that another role needs."""

DOMAINS_TRIED_MAX: Final = 16  # of the gang's level, in which every role fits by itself, tightest first


class Seated(NamedTuple):
    """`preferred_missed`: some role does not have the level that it prefers."""

    parts: tuple[Part, ...]
    preferred_missed: bool


@dataclass(frozen=True, slots=True)
class Rung:
    """One of the levels that a role is tried at. `level` is a named one, or ANYWHERE."""

    level: str
    domains: Domains
    preferred_met: bool


@dataclass(frozen=True, slots=True)
class Wish:
    """What one role needs at one of its levels: `slices` times `pods` pods, each slice in one of `domains`."""

    role: int
    shape: Shape
    pods: int
    slices: int
    level: str
    domains: Domains


def slices_of(role: RoleRequest) -> tuple[int, int]:
    """(pods of a slice, slices): a role that is not cut is one slice."""
    return (role.slice_pods, role.count // role.slice_pods) if role.slice_pods else (role.count, 1)


def slices_held(fit: Ints, pods: int, inner: Domains, outer: Domains) -> Ints:
    """Slices of `pods` pods that each domain of `outer` holds, each in one domain of `inner`, if each node holds `fit`;
    indexed by code."""
    inside = (inner.codes != IN_NO_DOMAIN) & (outer.codes != IN_NO_DOMAIN)
    base = len(fit) + 1
    pairs, at = np.unique((outer.codes * base + inner.codes)[inside], return_inverse=True)
    held = np.bincount(at, weights=fit[inside], minlength=len(pairs)) // pods
    return np.bincount(pairs // base, weights=held, minlength=outer.count + 1).astype(np.int64)


def joint(inner: Domains, outer: Domains) -> Domains:
    """The domains of `inner`, cut along those of `outer`; nodes that are in none of either are in none."""
    inside = (inner.codes != IN_NO_DOMAIN) & (outer.codes != IN_NO_DOMAIN)
    known, at = np.unique((outer.codes * (len(inside) + 1) + inner.codes)[inside], return_inverse=True)
    codes = np.zeros(len(inside), dtype=np.int64)
    codes[inside] = at + 1
    return Domains(codes, len(known))


def place_nested(
    table: NodeTable, request: GangRequest, domains: Domains, worth: NodeWorth | None, *, steps_max: int = STEPS_MAX
) -> Seated | None:
    """Nodes for all pods of all roles in one of `domains`, every role at its own level inside; None if none was found.

    A role that cannot have the level it prefers is tried at its wider ones, the role that stopped the search first.
    Complete for roles that ask for equal pods while steps last; unlike roles do not try other ways to share nodes.
    """
    ladders = [_ladder(table, role) for role in request.roles]
    if not all(ladders):
        return None
    rungs = [0] * len(ladders)
    while True:
        wishes = _in_order(request, ladders, rungs)
        found = _in_any_domain(table, wishes, domains, worth, steps_max)
        if not isinstance(found, int):
            taken = zip(request.roles, ladders, rungs, strict=True)
            missed = any(role.level_preferred and not ladder[rung].preferred_met for role, ladder, rung in taken)
            return Seated(_parts(table, request, found), missed)
        last_first = [wish.role for wish in reversed(wishes)]
        for role in (found, *last_first):
            if rungs[role] + 1 < len(ladders[role]):
                rungs[role] += 1
                break
        else:
            return None


def _ladder(table: NodeTable, role: RoleRequest) -> list[Rung]:
    found: list[Rung] = []
    for level, within, preferred_met in levels_in_order(role.level_required, role.level_preferred):
        domains = table.layout.domains(level, within)
        if domains is not None:
            found.append(Rung(named_level(level), domains, preferred_met))
    return found


def _in_order(request: GangRequest, ladders: Sequence[Sequence[Rung]], rungs: Sequence[int]) -> list[Wish]:
    """Most demanding roles first; of equal pods those of narrow levels, then large slices: what comes later then needs
    the counts only."""
    wishes: list[Wish] = []
    for index, (role, ladder, rung) in enumerate(zip(request.roles, ladders, rungs, strict=True)):
        pods, slices = slices_of(role)
        wishes.append(Wish(index, shape_of(role), pods, slices, ladder[rung].level, ladder[rung].domains))
    return sorted(wishes, key=lambda wish: (wish.shape.demand, _width(wish.level), -wish.pods, wish.role))


def _width(level: str) -> int:
    return NARROW_TO_WIDE.index(level) if level in NARROW_TO_WIDE else len(NARROW_TO_WIDE)


Seat = tuple[int, int, int]  # where its domain comes in the order of ranks, row, pods
Seats = dict[int, list[Seat]]  # by role


def _in_any_domain(
    table: NodeTable, wishes: list[Wish], domains: Domains, worth: NodeWorth | None, steps_max: int
) -> Seats | int:
    """Nodes for all wishes in the tightest domain that holds them; else the role that stopped the search."""
    possible = np.ones(domains.count + 1, dtype=np.bool_)
    possible[IN_NO_DOMAIN] = False
    together = _enough_in_all(table, wishes, domains)
    tightness: Ints | None = None
    for wish in wishes:
        fit = pods_per_node(table.free, wish.shape, table.layout.kinds) * table.accepting(*wish.shape.nodes)
        held = slices_held(fit, wish.pods, wish.domains, domains)
        if not (possible & (held >= wish.slices)).any():
            return wish.role
        possible &= held >= wish.slices
        tightness = held if tightness is None else tightness
    assert tightness is not None, "a gang has roles"
    possible &= together
    codes = tightest_first(table, wishes[0].shape, domains, np.flatnonzero(possible), tightness)
    codes = codes[:DOMAINS_TRIED_MAX]
    seats, stuck = _searched(table, wishes, domains, codes, worth, steps_max)
    narrow_first = sorted(wishes, key=lambda wish: _width(wish.level))
    if seats is None and narrow_first != wishes:
        seats, _ = _searched(table, narrow_first, domains, codes, worth, steps_max // NARROW_FIRST_PART)
    return seats if seats is not None else wishes[stuck].role


def _searched(
    table: NodeTable, wishes: list[Wish], domains: Domains, codes: Ints, worth: NodeWorth | None, steps_left: int
) -> tuple[Seats | None, int]:
    """Nodes for all wishes, in this order, in the first domain of `codes` that holds them; and the last wish that was
    looked at in any."""
    stuck = 0
    for code in codes.tolist():
        share = min(steps_left, max(2 * len(wishes), steps_left // 2))
        search = _Search(table, wishes, domains.rows(code), worth, share)
        if search.run(0):
            return search.seats, stuck
        stuck, steps_left = max(stuck, search.deepest), steps_left - share + search.steps_left
    return None, stuck


def _enough_in_all(table: NodeTable, wishes: list[Wish], domains: Domains) -> Bools:
    """Domains that have free what all roles ask for together, on the nodes that any of them may use."""
    usable = np.zeros(len(table), dtype=np.bool_)
    for wish in wishes:
        usable |= table.accepting(*wish.shape.nodes)
    enough = np.ones(domains.count + 1, dtype=np.bool_)
    for resource in RESOURCES:
        asked = sum(wish.shape[:3][resource] * wish.pods * wish.slices for wish in wishes)
        enough &= domains.sums(table.free[resource] * usable) >= asked
    return enough


class _Search:
    """Depth first through the wishes, in one domain of the gang. `deepest`: the last wish that was looked at."""

    def __init__(
        self, table: NodeTable, wishes: list[Wish], rows: Ints, worth: NodeWorth | None, steps_left: int
    ) -> None:
        self.seats: Seats = {}
        self.deepest = 0
        self._left = table.copy()
        self._wishes = wishes
        self._rows = rows
        self._worth = worth
        self.steps_left = steps_left

    def run(self, at: int) -> bool:
        """Give nodes to the wishes from `at` on. Depth: the number of roles."""
        if at == len(self._wishes):
            return True
        self.deepest = max(self.deepest, at)
        wish = self._wishes[at]
        for seats in self._ways(wish):
            if self.steps_left <= 0:
                return False
            self.steps_left -= 1
            rows = np.array([row for _, row, _ in seats], dtype=np.int64)
            amounts = self._left.asked_of(wish.shape, rows) * np.array([pods for _, _, pods in seats])
            self._left.free[:, rows] -= amounts
            if self.run(at + 1):
                self.seats[wish.role] = seats
                return True
            self._left.free[:, rows] += amounts
        return False

    def _ways(self, wish: Wish) -> Iterator[list[Seat]]:
        """Nodes for one wish on what is left, the best domains first."""
        rows, left = self._rows, self._left
        fit = pods_per_node(left.free[:, rows], wish.shape, left.layout.kinds) * left.accepting(*wish.shape.nodes)[rows]
        codes = wish.domains.codes[rows]
        held = np.bincount(codes, weights=fit, minlength=wish.domains.count + 1).astype(np.int64)
        held[IN_NO_DOMAIN] = 0
        order = self._best_first(wish, held, codes)
        for taken in allotments((held[order] // wish.pods).tolist(), wish.slices):
            yield self._seat(wish, fit, codes, order, taken)

    def _best_first(self, wish: Wish, held: Ints, codes: Ints) -> Ints:
        """Domains that hold a slice. Of several slices those first that leave the least over, so that few are cut
        into; then the tightest, hosts as `node_order` says."""
        found = np.flatnonzero(held >= wish.pods)
        if wish.level == Level.HOST:
            row_of = np.zeros(len(held), dtype=np.int64)
            row_of[codes] = self._rows
            most = np.minimum(held[found], wish.pods * wish.slices)
            found = found[node_order(self._left, wish.shape, row_of[found], most, self._worth)]
        else:
            found = tightest_first(self._left, wish.shape, self._here(wish), found, held)
        if wish.slices > 1:
            found = found[np.argsort(held[found] % wish.pods, kind="stable")]
        return found

    def _here(self, wish: Wish) -> Domains:
        """The domains of the wish as far as they lie in the gang's."""
        codes = np.zeros_like(wish.domains.codes)
        codes[self._rows] = wish.domains.codes[self._rows]
        return Domains(codes, wish.domains.count)

    def _seat(self, wish: Wish, fit: Ints, codes: Ints, order: Ints, taken: list[int]) -> list[Seat]:
        used_codes = [(code, slices) for code, slices in zip(order.tolist(), taken, strict=True) if slices]
        if wish.level == Level.HOST:
            row_of = dict(zip(codes.tolist(), self._rows.tolist(), strict=True))
            return [(row_of[code], row_of[code], slices * wish.pods) for code, slices in used_codes]
        seats: list[Seat] = []
        for code, slices in used_codes:
            inside = np.flatnonzero((codes == code) & (fit > 0))
            pods = slices * wish.pods
            here = self._rows[inside]
            ordered = node_order(self._left, wish.shape, here, np.minimum(fit[inside], pods), self._worth)
            used, counts = fill(fit[inside], ordered, pods)
            first = int(here[used].min())
            seats.extend((first, row, count) for row, count in zip(here[used].tolist(), counts.tolist(), strict=True))
        return seats


def allotments(room: list[int], count: int) -> Iterator[list[int]]:
    """Every way to deal `count` out to places with so much room, as much as possible to the first places first.

    Each next one takes one from the last place that can give one away, and deals what comes after it anew. O(places)
    for each.
    """
    if sum(room) < count:
        return
    taken = _dealt(room, count)
    while True:
        yield taken
        behind_room = behind_taken = 0
        for at in range(len(room) - 1, -1, -1):
            if taken[at] and behind_taken < behind_room:
                taken = [*taken[:at], taken[at] - 1, *_dealt(room[at + 1 :], behind_taken + 1)]
                break
            behind_room += room[at]
            behind_taken += taken[at]
        else:
            return


def _dealt(room: list[int], count: int) -> list[int]:
    taken: list[int] = []
    for most in room:
        taken.append(min(most, count))
        count -= taken[-1]
    return taken


def _parts(table: NodeTable, request: GangRequest, seats: Seats) -> tuple[Part, ...]:
    """Role by role; pods of one domain are neighbours in rank, so that each slice of ranks stands in one domain."""
    return tuple(
        Part(role.name, table.names[row], pods)
        for index, role in enumerate(request.roles)
        for _, row, pods in sorted(seats[index])
    )
