"""Room for a gang that found none, by packing anew what the same cycle has just placed: nobody was told of that yet.

Decisions of the cycle are taken back and made again together with the gang, largest first. That counts only if all of
them have a place, and none a worse one. Who is served before whom stays as it was: nobody gives a place away. In every
cluster the last decisions are taken back and stand last again, so that an agent, which goes by that order, finds what
was found here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from placement.filters import Pending
from placement.model import ClusterName, GangRequest, GroupUid
from placement.place import Place
from placement.request_class import RequestClass
from placement.sites import SiteTerm
from placement.trial import Trial
from placement.waiting import OrderKey, order_key

MOVED_MAX: Final = 32  # decisions taken back for one gang
WORK_MAX: Final = 128  # in a cycle, also where it came to nothing: looks at who could move, and places taken back
SEARCHES_MAX: Final = 256  # likewise: of nodes, where counting does not say who fits; at most a millisecond each

LESS_IS_BETTER: Final = (SiteTerm.PRICE, SiteTerm.CARBON, SiteTerm.DATA_MISSING)

PlaceOne = Callable[[Pending, RequestClass], Place | None]
"""Decides one group on what the trial has left; None: it has no place."""


class _Placed(NamedTuple):
    item: Pending
    known: RequestClass
    place: Place


class Decided:
    """What one cycle has decided so far: each decision fits beside those before it, in the order of `places`."""

    __slots__ = (
        "_here",
        "_in_vain",
        "_left",
        "_place_one",
        "_search_until",
        "_searches_left",
        "_trial",
        "made_room",
        "places",
    )

    def __init__(self, trial: Trial, place_one: PlaceOne) -> None:
        self.places: dict[GroupUid, Place] = {}
        self.made_room = False  # so that who found none before may find some
        self._trial = trial
        self._place_one = place_one
        self._here: dict[ClusterName, dict[GroupUid, _Placed]] = {}  # what may be taken back, by cluster
        self._in_vain: set[tuple[GangRequest, frozenset[ClusterName]]] = set()  # looked at since the last decision
        self._left = WORK_MAX
        self._searches_left = SEARCHES_MAX
        self._search_until = 0  # of all that the trial has counted

    def add(self, item: Pending, known: RequestClass, places: Iterable[Place]) -> None:
        """This was decided about `item`."""
        self._in_vain.clear()
        for place in places:
            self.places[place.uid] = place
            if _may_move(item):
                self._here.setdefault(place.cluster, {})[item.uid] = _Placed(item, known, place)
            else:  # its nodes were chosen beside those before it there: an agent chooses them again in that order
                self._here.pop(place.cluster, None)

    def make_room(self, item: Pending, known: RequestClass) -> bool:
        """Whether `item`, which fits nowhere, has a place now. Then it stands in `places`, and whoever stood there
        still does; else all is as it was."""
        if (
            not self._left
            or self._searches_left <= 0
            or (known.request, item.avoid) in self._in_vain
            or not _may_move(item)
        ):
            return False
        self._in_vain.add((known.request, item.avoid))
        self._left -= 1
        before = self._to_take_back(item, known)
        if not before or len(before) >= self._left or not self._enough_in_all(before, item, known):
            return False
        self._left -= len(before) + 1
        self._search_until = self._trial.searches + self._searches_left
        self._give(before)
        again = self._place_all(before, item, known) if self._trial.fits_anywhere(item, known) else None
        self._searches_left = self._search_until - self._trial.searches
        if again is None:
            for one in before:
                self._trial.take_again(one.item, one.place.cluster, one.place.choice)
            return False
        for one in before:
            del self.places[one.item.uid], self._here[one.place.cluster][one.item.uid]
        for one in again:
            self.add(one.item, one.known, (one.place,))
        self.made_room = True
        return True

    def _to_take_back(self, item: Pending, known: RequestClass) -> list[_Placed]:
        """What this cycle placed last in clusters where enough is free without it, if that stood right; where it placed
        the fewest, first."""
        free_in = self._trial.free_in(self._here, item, known)
        asked = self._trial.least(known).asked
        found: list[_Placed] = []
        for cluster in sorted(free_in, key=lambda name: (len(self._here[name]), name)):
            here = list(self._here[cluster].values())[-MOVED_MAX:]
            if len(found) + len(here) > MOVED_MAX:
                break
            if free_in[cluster] + sum(one.place.choice.sum_of(known.resource) for one in here) >= asked:
                found += here
        return found

    def _enough_in_all(self, before: Sequence[_Placed], item: Pending, known: RequestClass) -> bool:
        """False only if there are too few GPUs for all of them, however they stand: so it mostly is on a full fleet."""
        wanted = [(one.item, one.known) for one in before]
        clusters = {one.place.cluster for one in before}
        return self._trial.gpus_free([*wanted, (item, known)], clusters) >= self._trial.least(known).request.gpus

    def _place_all(self, before: Sequence[_Placed], item: Pending, known: RequestClass) -> list[_Placed] | None:
        """All of them and `item`; None, and nothing is taken, if one has no place or a worse one than before, or too
        much would have to be searched for it."""
        wanted = [(one.item, one.known) for one in before]
        places = {one.item.uid: one.place for one in before}
        found: list[_Placed] = []
        for one, its_class in sorted([*wanted, (item, known)], key=lambda two: _hardest_first(two[0])):
            place = self._place_one(one, its_class) if self._trial.searches < self._search_until else None
            if place is not None:
                found.append(_Placed(one, its_class, place))
            if place is None or (one.uid in places and _worse(one, place, places[one.uid])):
                self._give(found)
                return None
        return found

    def _give(self, decisions: Iterable[_Placed]) -> None:
        for one in decisions:
            self._trial.give(one.item, one.place.cluster, one.place.choice)


def _may_move(item: Pending) -> bool:
    """Not those whose place is about the places of others."""
    return item.spread is None and item.siblings is None and not item.beside


def _hardest_first(item: Pending) -> tuple[int, bool, int, OrderKey]:
    """More GPUs first; of equally many those that must stand near to each other, then those in larger pods."""
    request = item.request
    return -request.gpus, not request.level_required, -max(role.gpus for role in request.roles), order_key(item)


def _worse(item: Pending, place: Place, before: Place) -> bool:
    """Fewer pods, without the preferred topology that it had, where it was lost before, or where more speaks against
    the site."""
    if place.assignment.request.pods < before.assignment.request.pods:
        return True
    if place.cluster in item.shunned and place.cluster != before.cluster:
        return True
    terms, terms_before = dict(place.candidates[0].terms), dict(before.candidates[0].terms)
    if terms.get("preferred_met", 0) < terms_before.get("preferred_met", 0):
        return True
    return any(terms.get(term, 0) > terms_before.get(term, 0) for term in LESS_IS_BETTER)
