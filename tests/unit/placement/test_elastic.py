"""Elastic gangs: the sizes they may have, the largest that fits, and what quotas and explanations make of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.assign import assign
from placement.assignment import Assignment
from placement.change import smallest_change
from placement.elastic import counts_of, floors_of, sizes_of, with_counts
from placement.engine import Bounds, Pending, Place, decide, plan_cycle
from placement.explain import NOBODY, why
from placement.fleet import Fleet
from placement.memory import Memory
from placement.model import GangRequest, PodGroup, QueueName, Reason, RoleRequest
from placement.pod_templates import TemplateError
from placement.quota import UNLIMITED, QuotaLine
from placement.requests import gang_request
from placement.score import DEFAULT_POLICY
from placement.waiting import Waiting
from tests.builders import BUDGET, cluster, fleet, gang, node, nodes, pod_group, request, role

checked = settings(deadline=None, max_examples=60, derandomize=True)


def elastic(*roles: RoleRequest, at_least: int = 0, **fields: object) -> GangRequest:
    """An elastic request; `at_least` is the gang's own min_count, else the sum of its roles'."""
    one = request(*roles, **fields)
    return replace(one, elastic=True, min_count=at_least or one.min_count)


def train(pods: int, at_least: int, **fields: object) -> Pending:
    return replace(gang("train"), request=elastic(role(pods=pods, min_count=at_least), **fields))


def placed(where: Fleet, *items: Pending) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Cluster and pods by role of each group that found a place."""
    plan = decide(where, items, policy=DEFAULT_POLICY, budget=BUDGET)
    return {one.uid: (one.cluster, counts_of(one.assignment.request)) for one in plan.decisions}


# --- sizes ------------------------------------------------------------------------------------------------------------


def counts(asked: GangRequest) -> list[tuple[int, ...]]:
    sizes = sizes_of(asked)
    return [counts_of(sizes.at(step)) for step in range(len(sizes.steps) + 1)]


def test_a_single_role_gives_one_pod_after_the_other_down_to_its_floor() -> None:
    assert counts(elastic(role(pods=4, min_count=2))) == [(4,), (3,), (2,)]


def test_the_gangs_min_count_is_the_floor_of_its_only_role() -> None:
    assert counts(elastic(role(pods=4), at_least=3)) == [(4,), (3,)]
    assert counts(elastic(role(pods=4, min_count=1), at_least=3)) == [(4,), (3,)]


def test_roles_shrink_evenly_and_those_without_a_floor_below_their_count_never() -> None:
    asked = elastic(role("leader"), role("a", pods=4, min_count=2), role("b", pods=8, min_count=4))
    assert counts(asked) == [(1, 4, 8), (1, 4, 7), (1, 3, 7), (1, 3, 6), (1, 3, 5), (1, 2, 5), (1, 2, 4)]


def test_the_gangs_min_count_ends_the_sizes_of_several_roles() -> None:
    asked = elastic(role("a", pods=4, min_count=1), role("b", pods=4, min_count=1), at_least=6)
    assert counts(asked) == [(4, 4), (4, 3), (3, 3)]


def test_slices_come_and_go_whole() -> None:
    asked = elastic(role(pods=12, min_count=4, level_required="host", slice_pods=4))
    assert counts(asked) == [(12,), (8,), (4,)]


def test_a_gang_that_is_not_elastic_has_one_size() -> None:
    assert counts(request(role(pods=4, min_count=2))) == [(4,)]


@pytest.mark.parametrize(
    ("asked", "fits"),
    [((), True), ((6,), True), ((4,), True), ((8,), True), ((9,), False), ((3,), False), ((4, 4), False)],
)
def test_counts_are_taken_only_within_floor_and_count(asked: tuple[int, ...], *, fits: bool) -> None:
    assert (with_counts(elastic(role(pods=8, min_count=4)), asked) is not None) is fits


def test_counts_that_cut_a_slice_are_no_size() -> None:
    assert with_counts(elastic(role(pods=8, min_count=4, level_required="host", slice_pods=4)), (6,)) is None


# --- placing ----------------------------------------------------------------------------------------------------------


def test_an_elastic_gang_is_placed_whole_where_it_fits_whole() -> None:
    assert placed(fleet(eu=64, us=128), train(10, 4)) == {"train": ("us", (10,))}


def test_an_elastic_gang_that_fits_nowhere_whole_gets_the_cluster_that_holds_most_of_it() -> None:
    assert placed(fleet(eu=40, us=56), train(10, 4)) == {"train": ("us", (7,))}


def test_an_elastic_gang_waits_where_not_even_its_smallest_size_fits() -> None:
    assert placed(fleet(eu=24), train(10, 4)) == {}


def test_a_gang_that_is_not_elastic_waits_for_all_of_it() -> None:
    assert placed(fleet(eu=56), gang("train", roles=(role(pods=10, min_count=4),))) == {}


def test_what_an_elastic_gang_leaves_is_free_for_the_next() -> None:
    first, second = train(10, 4), replace(gang("later", pods=1, at=2))
    assert placed(fleet(eu=48, us=8), first, second) == {"train": ("eu", (6,)), "later": ("us", (1,))}


def test_slices_of_a_smaller_size_keep_their_hosts() -> None:
    asked = elastic(role(pods=12, min_count=4, gpus=1, level_required="host", slice_pods=4))
    where = Fleet([cluster("c-1", node("a"), node("b", free=3))])
    (one,) = decide(where, [replace(gang("g"), request=asked)], policy=DEFAULT_POLICY, budget=BUDGET).decisions
    assert one.assignment.parts == (("worker", "a", 8),)


def test_an_elastic_gang_starts_in_the_cycle_in_which_room_for_its_smallest_size_appears() -> None:
    """A blocked group that only room can help is looked at again when the smallest of its sizes has it."""
    waiting, memory = Waiting([train(10, 4)]), Memory()
    full, room = fleet(eu=16), Fleet([cluster("eu", nodes(32))])
    for number, where in enumerate((full, room)):
        plan = plan_cycle(where, waiting, memory, policy=DEFAULT_POLICY, bounds=Bounds(BUDGET, gains=number))
    assert [counts_of(one.assignment.request) for one in plan.decisions] == [(4,)]


def test_quota_counts_the_whole_of_an_elastic_gang() -> None:
    quotas = {QueueName("default"): {"*": QuotaLine(48)}}
    plan = decide(fleet(eu=48), [train(10, 4)], policy=DEFAULT_POLICY, budget=BUDGET, quotas=quotas)
    assert not plan.decisions
    assert [one.because.reason for one in plan.waiting if one.because] == [Reason.QUOTA_EXHAUSTED]


@st.composite
def elastic_gangs(draw: st.DrawFn) -> GangRequest:
    roles = []
    for at in range(draw(st.integers(1, 2))):
        pods = draw(st.integers(1, 6))
        roles.append(role(f"r{at}", pods=pods, min_count=draw(st.integers(1, pods)), gpus=draw(st.integers(1, 4))))
    return elastic(*roles, level_required=draw(st.sampled_from(("", "rack"))))


@checked
@given(st.lists(st.integers(0, 8), min_size=1, max_size=4), st.lists(st.integers(0, 8), max_size=3), elastic_gangs())
def test_the_size_is_the_largest_of_the_chain_that_fits_anywhere(
    one: list[int], other: list[int], asked: GangRequest
) -> None:
    where = Fleet(
        cluster(name, [node(f"{name}{at}", free=free, rack=f"r{at % 2}") for at, free in enumerate(frees)])
        for name, frees in (("a", one), ("b", other))
    )
    sizes = sizes_of(asked)
    steps = [sizes.at(step) for step in range(len(sizes.steps) + 1)]
    wanted = next(
        (size for size in steps if any(isinstance(assign(view.table, size), Assignment) for view in where.values())),
        None,
    )
    plan = decide(where, [replace(gang("g"), request=asked)], policy=DEFAULT_POLICY, budget=BUDGET)
    assert [place.assignment.request for place in plan.decisions] == ([] if wanted is None else [wanted])


# --- why, and what would help -----------------------------------------------------------------------------------------


def test_an_explanation_says_where_the_most_of_an_elastic_gang_would_start() -> None:
    item = train(10, 4)
    told = why(fleet(eu=40, us=56), item, NOBODY, UNLIMITED, DEFAULT_POLICY)
    assert told.would_fit == "us"
    assert [one.cluster for one in told.candidates] == ["us"]


def test_reasons_and_the_smallest_change_are_of_the_smallest_size() -> None:
    item = train(10, 4)
    where = Fleet([cluster("eu", nodes(64, free=24))])
    told = why(where, item, NOBODY, UNLIMITED, DEFAULT_POLICY)
    assert str(told.because) == "InsufficientGpus: needs 32 free GPUs, best is 24"
    assert smallest_change(where, item) == "free 8 GPUs in eu"


# --- what people write ------------------------------------------------------------------------------------------------


def written(**fields: object) -> PodGroup:
    template = pod_group("train").roles[0].template
    count = fields.pop("min_count_of_role", None)
    one = {"name": "worker", "count": 8, "template": template, **({} if count is None else {"min_count": count})}
    return pod_group("train", roles=[one], **fields)


def test_an_elastic_group_is_an_elastic_request() -> None:
    assert floors_of(gang_request(written(elastic=True, min_count=6))) == (6,)
    assert floors_of(gang_request(written(elastic=True, min_count_of_role=5))) == (5,)


def test_an_elastic_group_that_cannot_shrink_is_refused_by_name() -> None:
    with pytest.raises(TemplateError, match="no role may have fewer pods") as caught:
        gang_request(written(elastic=True))
    assert caught.value.field == "elastic"


def test_an_elastic_job_is_refused() -> None:
    with pytest.raises(ValueError, match="a fixed number of completions"):
        written(elastic=True, min_count=6, workload="job")


def test_place_is_what_the_engine_says_of_a_size() -> None:
    (one,) = decide(fleet(eu=56), [train(10, 4)], policy=DEFAULT_POLICY, budget=BUDGET).decisions
    assert isinstance(one, Place)
    assert sum(part.pods for part in one.assignment.parts) == 7
