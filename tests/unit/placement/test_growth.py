"""What joins an elastic gang, and the most of it that fits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from placement.elastic import joining, largest_growth
from placement.model import GangRequest, RoleRequest


def gang(*roles: tuple[str, int, int], min_count: int, level: str = "", slices: int = 0) -> GangRequest:
    """Roles by name, count and floor, of one GPU a pod."""
    return GangRequest(
        tuple(RoleRequest(name, count, least, gpus=1, slice_pods=slices) for name, count, least in roles),
        min_count=min_count,
        level_required=level,
        elastic=True,
    )


def holds(most: int, asked: list[int]) -> Callable[[GangRequest], int | None]:
    def fits(request: GangRequest) -> int | None:
        asked.append(request.pods)
        return request.pods if request.pods <= most else None

    return fits


WORKERS = gang(("worker", 8, 8), min_count=2)


def test_what_joins_is_a_gang_of_its_own_that_comes_whole() -> None:
    more = joining(gang(("server", 2, 1), ("worker", 6, 2), min_count=3), (2, 3), (2, 5))
    assert more is not None
    assert [(role.name, role.count, role.min_count) for role in more.roles] == [("worker", 2, 2)]
    assert (more.min_count, more.elastic) == (2, False)


def test_nothing_joins_a_gang_that_stays_or_shrinks() -> None:
    assert joining(WORKERS, (4,), (4,)) is None
    assert joining(WORKERS, (4,), (2,)) is None


@pytest.mark.parametrize(("room", "counts"), [(9, (8,)), (6, (8,)), (5, (7,)), (1, (3,))])
def test_the_most_pods_that_fit_join(room: int, counts: tuple[int, ...]) -> None:
    found = largest_growth(WORKERS, (2,), (8,), holds(room, []))
    assert found == (counts, counts[0] - 2)


def test_nobody_joins_where_not_one_pod_fits() -> None:
    asked: list[int] = []
    assert largest_growth(WORKERS, (2,), (8,), holds(0, asked)) is None
    assert 0 not in asked


def test_it_grows_no_further_than_it_may() -> None:
    found = largest_growth(WORKERS, (2,), (5,), holds(99, []))
    assert found == ((5,), 3)


def test_roles_grow_evenly() -> None:
    request = gang(("server", 4, 1), ("worker", 4, 1), min_count=2)
    found = largest_growth(request, (1, 1), (4, 4), holds(4, []))
    assert found == ((3, 3), 4)


def test_slices_join_whole() -> None:
    request = gang(("worker", 8, 8), min_count=2, slices=2)
    found = largest_growth(request, (2,), (8,), holds(5, []))
    assert found == ((6,), 4)
