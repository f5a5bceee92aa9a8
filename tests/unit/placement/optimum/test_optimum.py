"""The engine beside the best that any scheduler could do, on a few small instances (all of them: `__main__`)."""

from __future__ import annotations

import pytest

from placement.fleet import ClusterView, Fleet
from placement.model import ClusterName
from tests.builders import gang, node, table
from tests.unit.placement.optimum.comparison import (
    MEAN_MIN,
    WORST_MIN,
    by_age,
    came_together,
    gpus_kept_by_age,
    gpus_of,
    placed,
    shares,
)
from tests.unit.placement.optimum.instances import Instance, draw
from tests.unit.placement.optimum.milp import gpus_max


def test_optimum_leaves_out_the_gang_that_keeps_two_others_from_starting() -> None:
    rows = table(node("n-1", clique="q"), node("n-2", clique="q", free=4))
    gangs = (gang("wide", pods=2, gpus=4), gang("whole"), gang("half", gpus=4))
    assert gpus_max(Instance(Fleet([ClusterView(ClusterName("c-1"), rows)]), gangs)) == 12


def test_optimum_keeps_gangs_within_their_level() -> None:
    rows = table(node("n-1", clique="q", free=4), node("n-2", clique="r", free=4))
    where = Fleet([ClusterView(ClusterName("c-1"), rows)])
    for level, gpus in (("", 8), ("clique", 0), ("host", 0)):
        assert gpus_max(Instance(where, (gang("g", pods=2, gpus=4, level=level),))) == gpus


@pytest.mark.long
def test_engine_places_nearly_what_can_be_placed_of_gangs_that_come_at_once() -> None:
    found = shares(range(4))
    assert sum(found) / len(found) >= MEAN_MIN
    assert min(found) >= WORST_MIN
    assert max(found) <= 1


@pytest.mark.long
def test_old_gangs_are_served_before_young_ones_even_where_more_could_be_placed_otherwise() -> None:
    instance = draw(19)
    assert gpus_of(placed(instance, came_together(instance.gangs))) == 251
    assert gpus_kept_by_age(instance) == 230
    assert by_age(instance) == 230


def test_optimum_counts_a_gpu_twice_with_each_step_of_priority() -> None:
    where = Fleet([ClusterView(ClusterName("c-1"), table(node("n-1")))])
    gangs = (gang("wide", gpus=8), gang("narrow", gpus=2, priority=2), gang("other", gpus=1, priority=1))
    assert gpus_max(Instance(where, gangs)) == 10
