"""Elastic gangs: which smaller sizes one may have, and the largest that fits. Between two sizes pods come and go one
slice at a time, so every size holds all the pods of the next smaller one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, TypeVar

from placement.model import GangRequest, RoleRequest

SIZES_KEPT_MAX: Final = 4_096  # requests; each one's steps are worked out once, and so is each of its sizes

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Sizes:
    """`steps`: the roles that give a slice away, one after the other, from the whole gang to the smallest."""

    request: GangRequest
    steps: tuple[int, ...]

    def at(self, step: int) -> GangRequest:
        """The gang after so many steps; 0 is the whole."""
        counts = [role.count for role in self.request.roles]
        for index in self.steps[:step]:
            counts[index] -= unit_of(self.request.roles[index])
        return _counted(self.request, tuple(counts))

    @property
    def smallest(self) -> GangRequest:
        return self.at(len(self.steps))


def unit_of(role: RoleRequest) -> int:
    """Pods that come and go together."""
    return role.slice_pods or 1


def floors_of(request: GangRequest) -> tuple[int, ...]:
    """The fewest pods of each role. Of a single role the gang's `min_count` is meant, unless its own is higher."""
    if len(request.roles) > 1:
        return tuple(role.min_count for role in request.roles)
    role = request.roles[0]
    own = role.min_count if role.min_count < role.count else 0
    return (max(request.min_count, own),)


@lru_cache(maxsize=SIZES_KEPT_MAX)
def sizes_of(request: GangRequest) -> Sizes:
    """All sizes of a gang; only the whole one where it is not elastic.

    Roles shrink evenly: each slice that may go has a place between the role's floor and its count, and those farthest
    from the floor go first, of equal ones the later role's. It ends where the next step would leave fewer than the
    gang's `min_count`. O(pods x log pods), once.
    """
    if not request.elastic:
        return Sizes(request, ())
    places: list[tuple[float, int]] = []
    for index, (role, floor) in enumerate(zip(request.roles, floors_of(request), strict=True)):
        slices = (role.count - floor) // unit_of(role)
        places.extend((-(slices - gone) / slices, -index) for gone in range(slices))
    steps: list[int] = []
    pods = request.pods
    for _, negated in sorted(places):
        pods -= unit_of(request.roles[-negated])
        if pods < request.min_count:
            break
        steps.append(-negated)
    return Sizes(request, tuple(steps))


def largest(sizes: Sizes, fits: Callable[[GangRequest], Found | None]) -> Found | None:
    """What `fits` says of the largest size below the whole for which it says anything.

    Found by halving, which is exact where a gang that fits also fits with fewer pods; the smallest size is asked first.
    O(log sizes) questions.
    """
    if not sizes.steps:
        return None
    low, high = 1, len(sizes.steps)
    found = fits(sizes.at(high))
    if found is None:
        return None
    while low < high:
        middle = (low + high) // 2
        answer = fits(sizes.at(middle))
        if answer is None:
            low = middle + 1
        else:
            found, high = answer, middle
    return found


def grows_freely(request: GangRequest) -> bool:
    """Whether pods may join it without a look at where the others stand: no domain holds all of it or of a role, and
    none stand apart."""
    free = (not role.per_host and (not role.level_required or role.slice_pods) for role in request.roles)
    return not request.level_required and all(free)


def joining(request: GangRequest, before: Sequence[int], after: Sequence[int]) -> GangRequest | None:
    """The pods that a gang of `before` lacks to be one of `after`, as a gang of their own; None if it lacks none. Where
    they may stand depends on the others: see `placement.joining`."""
    added = [max(0, new - old) for old, new in zip(before, after, strict=True)]
    roles = tuple(
        replace(role, count=count, min_count=count) for role, count in zip(request.roles, added, strict=True) if count
    )
    return replace(request, roles=roles, min_count=sum(added), elastic=False) if roles else None


def largest_growth(
    request: GangRequest, before: Sequence[int], at_most: Sequence[int], fits: Callable[[GangRequest], Found | None]
) -> tuple[tuple[int, ...], Found] | None:
    """The most pods of each role between these two for which `fits` holds what joins, and what it says of that.

    By the same chain, and as exact, as `largest`. O(log sizes) questions.
    """
    sizes = _ahead(request, before, at_most)

    def answer(asked: GangRequest) -> tuple[tuple[int, ...], Found] | None:
        counts = counts_of(asked)
        more = joining(request, before, counts)
        found = fits(more) if more is not None else None
        return (counts, found) if found is not None else None

    return answer(sizes.request) or largest(Sizes(sizes.request, sizes.steps[:-1]), answer)


def could_grow(
    request: GangRequest, before: Sequence[int], at_most: Sequence[int], fits: Callable[[GangRequest], bool]
) -> bool:
    """Whether `largest_growth` would find anything, without a search for how much: two questions at most."""
    sizes = _ahead(request, before, at_most)
    smallest, whole = sizes.at(max(0, len(sizes.steps) - 1)), sizes.request
    asked = (joining(request, before, counts_of(one)) for one in dict.fromkeys((smallest, whole)))
    return any(more is not None and fits(more) for more in asked)


def _ahead(request: GangRequest, before: Sequence[int], at_most: Sequence[int]) -> Sizes:
    """The sizes between these two, from the larger to the smaller one."""
    roles = zip(request.roles, before, at_most, strict=True)
    return sizes_of(
        replace(
            request,
            roles=tuple(replace(role, count=most, min_count=now) for role, now, most in roles),
            min_count=sum(before),
            elastic=True,
        )
    )


def counts_of(request: GangRequest) -> tuple[int, ...]:
    return tuple(role.count for role in request.roles)


def with_counts(request: GangRequest, counts: Sequence[int]) -> GangRequest | None:
    """The gang with so many pods of each role; the whole one without any. None if it may not have that size."""
    if not counts:
        return request
    if len(counts) != len(request.roles) or sum(counts) < request.min_count:
        return None
    roles = zip(counts, floors_of(request), request.roles, strict=True)
    if not all(floor <= count <= role.count and not count % unit_of(role) for count, floor, role in roles):
        return None
    return _counted(request, tuple(counts))


@lru_cache(maxsize=SIZES_KEPT_MAX)
def _counted(request: GangRequest, counts: tuple[int, ...]) -> GangRequest:
    """Kept, since the same few sizes are asked for in every cycle, and for each report that does not show them yet."""
    roles = tuple(replace(role, count=count) for role, count in zip(request.roles, counts, strict=True))
    return replace(request, roles=roles)
