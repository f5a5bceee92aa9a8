"""Roles of which no host holds more than so many pods."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.core.events import SubmitGroup
from federation.core.records import Submitted
from federation.core.stored import request_of
from placement.assign import assign
from placement.assignment import Assignment
from placement.change import smallest_change
from placement.engine import decide
from placement.explain import NOBODY, why
from placement.fleet import Fleet, NodeRow, NodeTable
from placement.model import GangRequest, PodGroup, Reason
from placement.requests import TemplateError, gang_request
from placement.score import DEFAULT_POLICY
from tests.builders import cluster, gang, node, request, role
from tests.unit.federation.story import Story

BUDGET = 10_000


def table(*rows: NodeRow) -> NodeTable:
    return NodeTable.build(rows)


def hosts(count: int, *, free: int = 8, **fields: Any) -> list[NodeRow]:
    return [node(f"n{at}", free=free, **fields) for at in range(count)]


def stands(answer: Any) -> dict[str, dict[str, int]]:
    """By role, then node."""
    assert isinstance(answer, Assignment), answer
    found: dict[str, dict[str, int]] = {}
    for part in answer.parts:
        found.setdefault(part.role, {})[part.node] = part.pods
    return found


def test_no_host_holds_more_of_the_role_than_it_may() -> None:
    asked = request(role(pods=4, gpus=1, per_host=1))
    assert stands(assign(table(*hosts(4)), asked)) == {"worker": {"n0": 1, "n1": 1, "n2": 1, "n3": 1}}


def test_pods_that_stand_apart_wait_for_hosts_and_say_how_many_there_are() -> None:
    answer = assign(table(*hosts(3)), request(role(pods=3, gpus=8), role("server", pods=4, gpus=1, per_host=1)))
    assert str(answer[0]).startswith("LargerThanCluster: needs 4 pods of 1 GPUs, 1 on a host at most, best is 3")
    (because,) = assign(
        table(*hosts(3), node("n3", free=0)), request(role(pods=4, gpus=1, cpu_milli=0, memory_mib=0, per_host=1))
    )
    assert str(because) == "TooFewHosts: needs 4 pods of 1 GPUs, 1 on a host at most, best is 3"


@pytest.mark.parametrize(("pods", "fits"), [(6, True), (7, False)])
def test_as_many_as_may_stand_on_all_hosts_together_fit(pods: int, *, fits: bool) -> None:
    answer = assign(table(*hosts(3)), request(role(pods=pods, gpus=1, per_host=2)))
    assert isinstance(answer, Assignment) is fits


def test_each_role_stands_apart_by_itself() -> None:
    asked = request(role("a", pods=2, gpus=1, per_host=1), role("b", pods=2, gpus=1, per_host=1))
    assert stands(assign(table(*hosts(2)), asked)) == {"a": {"n0": 1, "n1": 1}, "b": {"n0": 1, "n1": 1}}


def test_helpers_without_such_a_wish_share_hosts() -> None:
    asked = request(role("helper", pods=3, gpus=0, cpu_milli=1000), role(pods=2, gpus=8, per_host=1))
    found = stands(assign(table(*hosts(2)), asked))
    assert found["worker"] == {"n0": 1, "n1": 1}
    assert sum(found["helper"].values()) == 3


def test_they_stand_apart_within_the_level_that_is_asked_for() -> None:
    rows = [node("a0", rack="a"), *(node(f"b{at}", free=4, rack="b") for at in range(3))]
    asked = request(role(pods=3, gpus=1, per_host=1), level_required="rack")
    assert stands(assign(table(*rows), asked)) == {"worker": {"b0": 1, "b1": 1, "b2": 1}}
    nested = request(role(pods=3, gpus=1, per_host=1, level_required="rack"))
    assert stands(assign(table(*rows), nested)) == {"worker": {"b0": 1, "b1": 1, "b2": 1}}


def test_a_preference_for_one_host_is_passed_over() -> None:
    answer = assign(table(*hosts(2)), request(role(pods=2, gpus=1, per_host=1), level_preferred="host"))
    assert stands(answer) == {"worker": {"n0": 1, "n1": 1}}
    assert isinstance(answer, Assignment)
    assert not answer.preferred_met


def test_what_is_short_beside_hosts_is_said_first() -> None:
    (because,) = assign(table(*hosts(4, free=0)), request(role(pods=2, gpus=4, per_host=1)))
    assert (because.reason, because.needs, because.best) == (Reason.INSUFFICIENT_GPUS, 8, 0)


def test_the_engine_decides_and_explains_the_same() -> None:
    where = Fleet([cluster("few", *hosts(2)), cluster("many", *hosts(3))])
    item = gang("g", roles=(role(pods=3, gpus=1, per_host=1),))
    (place,) = decide(where, [item], policy=DEFAULT_POLICY, budget=BUDGET).decisions
    assert (place.cluster, place.assignment.nodes) == ("many", ("n0", "n1", "n2"))
    told = why(where, item, NOBODY, {}, DEFAULT_POLICY)
    assert told.would_fit == "many"
    assert [one.because[0].reason for one in told.clusters if one.because] == [Reason.LARGER_THAN_CLUSTER]


def test_the_smallest_change_counts_the_gpus_of_further_hosts() -> None:
    where = Fleet([cluster("eu", *hosts(2), node("n2", free=0))])
    item = gang("g", roles=(role(pods=3, gpus=4, per_host=1),))
    assert smallest_change(where, item) == "free 4 GPUs in eu"


def test_an_elastic_gang_starts_on_as_many_hosts_as_there_are() -> None:
    item = gang("g", roles=(role(pods=4, min_count=2, gpus=1, per_host=1),), elastic=True, min_count=2)
    (place,) = decide(Fleet([cluster("eu", *hosts(3))]), [item], policy=DEFAULT_POLICY, budget=BUDGET).decisions
    assert place.assignment.nodes == ("n0", "n1", "n2")


@pytest.mark.parametrize(("topology", "stored"), [({"per_host": 1}, [1]), ({}, [])])
def test_the_wish_is_stored_with_the_group(topology: dict[str, Any], stored: list[int]) -> None:
    story = Story()
    admitted = story.admit(SubmitGroup(written(topology), "r-1", "sara"))
    record = admitted[0] if isinstance(admitted, tuple) else admitted
    assert isinstance(record, Submitted)
    assert [extra.per_host for extra in record.role_extras] == stored
    assert request_of(record) == gang_request(written(topology))


def written(wishes: dict[str, Any], *, count: int = 4, **fields: Any) -> PodGroup:
    container = {"name": "main", "image": "train", "resources": {"limits": {"nvidia.com/gpu": 1}}}
    one = {"count": count, "template": {"spec": {"containers": [container]}}, "topology": wishes}
    return PodGroup.model_validate({"name": "train", "roles": [one], **fields})


@pytest.mark.parametrize(
    ("topology", "fields", "says"),
    [
        pytest.param({"per_host": 0}, {}, "greater than or equal to 1", id="none"),
        pytest.param({"per_host": 10_001}, {}, "less than or equal to 10000", id="more than any gang has"),
        pytest.param(
            {"per_host": 1, "slice": 2, "required": "rack"}, {}, "say slice or per_host, not both", id="slices"
        ),
        pytest.param(
            {"per_host": 3, "required": "host"}, {}, "its 4 pods must stand on one host, and 3 may", id="host"
        ),
        pytest.param(
            {"per_host": 3}, {"topology": {"required": "host"}}, "must stand on one host", id="the gang's host"
        ),
    ],
)
def test_wishes_that_contradict_each_other_are_refused_by_name(
    topology: dict[str, Any], fields: dict[str, Any], says: str
) -> None:
    with pytest.raises((ValueError, TemplateError), match=says) as refused:
        gang_request(written(topology, **fields))
    assert "per_host" in str(refused.value)


def test_as_many_as_all_may_stand_on_one_host() -> None:
    assert gang_request(written({"per_host": 4, "required": "host"})).roles[0].per_host == 4


@st.composite
def wishes(draw: st.DrawFn) -> tuple[list[NodeRow], GangRequest]:
    rows = [
        node(f"n{at}", free=draw(st.integers(0, 4)), rack=draw(st.sampled_from(("r1", "r2"))))
        for at in range(draw(st.integers(1, 5)))
    ]
    one = role(pods=draw(st.integers(1, 6)), gpus=draw(st.integers(1, 2)), per_host=draw(st.integers(1, 3)))
    return rows, request(one, level_required=draw(st.sampled_from(("", "rack"))))


@given(wishes())
def test_equal_pods_fit_exactly_where_hosts_suffice_and_never_stand_closer(
    drawn: tuple[list[NodeRow], GangRequest],
) -> None:
    rows, asked = drawn
    (one,) = asked.roles
    racks = {row.rack for row in rows} if asked.level_required else {""}
    held = [
        sum(min(row.gpus_free // one.gpus, one.per_host) for row in rows if rack in ("", row.rack)) for rack in racks
    ]
    answer = assign(table(*rows), asked)
    assert isinstance(answer, Assignment) is (max(held) >= one.count)
    if isinstance(answer, Assignment):
        assert max(part.pods for part in answer.parts) <= one.per_host
        assert len({part.node for part in answer.parts}) == len(answer.parts)
