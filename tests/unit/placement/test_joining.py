"""Nodes for pods that join a gang which runs, by where its other pods stand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.assign import assign
from placement.assignment import Assignment
from placement.elastic import joining, with_counts
from placement.fleet import NodeRow, NodeTable
from placement.joining import Standing, assign_joining
from placement.layout import IN_NO_DOMAIN
from placement.model import GangRequest, NodeName, Reason
from tests.builders import node, request, role

LEVELS = ("host", "clique", "rack", "block", "zone")


def standing(**nodes: str) -> Standing:
    """By role, of nodes written one after the other."""
    return {name: tuple(map(NodeName, text.split())) for name, text in nodes.items()}


def joined(rows: list[NodeRow], more: GangRequest, **nodes: str) -> dict[str, int]:
    answer = assign_joining(NodeTable.build(rows), more, standing(**nodes))
    assert isinstance(answer, Assignment), answer
    assert answer.request == more
    found: dict[str, int] = {}
    for part in answer.parts:
        found[part.node] = found.get(part.node, 0) + part.pods
    return found


def refused(rows: list[NodeRow], more: GangRequest, **nodes: str) -> str:
    answer = assign_joining(NodeTable.build(rows), more, standing(**nodes))
    assert not isinstance(answer, Assignment), answer
    return str(answer[0])


def small(pods: int, *, level_required: str = "", level_preferred: str = "", **fields: Any) -> GangRequest:
    """Of one GPU each, and nothing else."""
    one = role(pods=pods, gpus=1, cpu_milli=0, memory_mib=0, **fields)
    return request(one, level_required=level_required, level_preferred=level_preferred)


def two_of_each_level(level: str) -> list[NodeRow]:
    """The first domain has one free GPU, the second eight."""
    if level == "host":
        return [node("a", free=1), node("b", free=8)]
    return [node("a", free=0, **{level: "one"}), node("a2", free=1, **{level: "one"}), node("b", **{level: "two"})]


@pytest.mark.parametrize("level", LEVELS)
def test_pods_join_in_the_domain_where_the_others_stand_though_another_has_more_room(level: str) -> None:
    rows = two_of_each_level(level)
    assert joined(rows, small(1, level_required=level), worker="a") == {"a" if level == "host" else "a2": 1}
    assert "needs 2" in refused(rows, small(2, level_required=level), worker="a")
    assert joined(rows, small(2, level_required=level), worker="b") == {"b": 2}


@pytest.mark.parametrize("level", LEVELS)
def test_of_a_role_that_stands_together_the_same_holds_for_the_role_alone(level: str) -> None:
    rows = two_of_each_level(level)
    more = request(
        role(pods=1, gpus=1, cpu_milli=0, memory_mib=0, level_required=level),
        role("free", pods=8, gpus=1, cpu_milli=0, memory_mib=0),
    )
    assert joined(rows, more, worker="a", free="b") == {"a" if level == "host" else "a2": 1, "b": 8}


def test_a_clique_without_a_label_is_one_host() -> None:
    rows = [node("a", free=2), node("b")]
    assert joined(rows, small(2, level_required="clique"), worker="a") == {"a": 2}
    assert "needs 3" in refused(rows, small(3, level_required="clique"), worker="a")


def test_racks_of_one_name_in_two_blocks_are_two_racks() -> None:
    rows = [node("a", rack="1", block="x", free=1), node("b", rack="1", block="y"), node("c", rack="1")]
    more = small(1, level_required="rack")
    assert [joined(rows, more, worker=where) for where in "abc"] == [{"a": 1}, {"b": 1}, {"c": 1}]


def test_whole_slices_join_anywhere_in_the_domain_of_the_gang() -> None:
    rows = [node("a", rack="r", free=0), node("b", rack="r", free=2), node("c", rack="s", free=8)]
    slices = role(pods=2, gpus=1, cpu_milli=0, memory_mib=0, level_required="host", slice_pods=2)
    assert joined(rows, request(slices, level_required="rack"), worker="a a") == {"b": 2}
    assert set(joined(rows, request(slices), worker="a a")) <= {"b", "c"}


def test_hosts_that_have_all_they_may_of_a_role_get_no_more_of_it() -> None:
    rows = [node("a"), node("b"), node("c", free=0)]
    assert joined(rows, small(1, per_host=1), worker="a") == {"b": 1}
    assert refused(rows, small(2, per_host=1), worker="a").startswith("TooFewHosts: needs 2 pods of 1 GPUs")
    assert refused(rows, small(1, per_host=1), worker="a b c").startswith("TooFewHosts (of the nodes that are left")
    assert joined(rows, request(role(), role("free")), worker="a", free="b")


def test_hosts_that_may_get_some_more_get_no_more_than_that() -> None:
    rows = [node("a"), node("b")]
    assert joined(rows, small(3, per_host=2), worker="a") == {"a": 1, "b": 2}
    assert "needs 4" in refused(rows, small(4, per_host=2), worker="a")


def test_pods_that_ask_for_nothing_join_only_hosts_without_any_of_them() -> None:
    rows = [node("a"), node("b")]
    nothing = request(role(pods=2, gpus=0, cpu_milli=0, memory_mib=0, per_host=2))
    assert joined(rows, nothing, worker="a") == {"b": 2}


def test_the_preferred_domain_of_those_that_stand_is_taken_while_it_has_room() -> None:
    rows = [node("a", rack="r", free=2), node("b", rack="s", free=3)]
    assert joined(rows, small(2, level_preferred="rack"), worker="a") == {"a": 2}
    assert joined(rows, small(3, level_preferred="rack"), worker="a") == {"b": 3}


def test_where_those_that_stand_are_not_together_any_more_nobody_joins() -> None:
    rows = [node("a", rack="r"), node("b", rack="s"), node("c")]
    for nodes in ("a b", "c", "gone"):
        said = refused(rows, small(1, level_required="rack"), worker=nodes)
        assert said == f"{Reason.NO_DOMAIN_LARGE_ENOUGH.code} (its pods do not stand in one rack any more)"
    more = request(role(pods=1, level_required="rack"))
    assert "the pods of role worker do not stand in one rack" in refused(rows, more, worker="a b")


def test_rules_of_the_nodes_hold_for_those_that_join() -> None:
    rows = [node("a", rack="r", product="H100"), node("b", rack="r", product="A100"), node("c", rack="s")]
    more = small(1, level_required="rack", products=("A100",))
    assert joined(rows, more, worker="a") == {"b": 1}


@st.composite
def growths(draw: st.DrawFn) -> tuple[NodeTable, GangRequest, int]:
    """A cluster, an elastic gang, and the size that it starts with."""
    rows = [
        node(
            f"n{at}",
            free=draw(st.integers(0, 4)),
            gpus=4,
            rack=draw(st.sampled_from(("", "r1", "r2"))),
            clique=draw(st.sampled_from(("", "q1", "q2"))),
        )
        for at in range(draw(st.integers(1, 6)))
    ]
    one = role(
        pods=draw(st.integers(2, 8)),
        min_count=1,
        gpus=draw(st.integers(1, 2)),
        cpu_milli=0,
        memory_mib=0,
        per_host=draw(st.integers(0, 3)),
        level_required=draw(st.sampled_from(("", "clique"))),
    )
    asked = request(one, level_required=draw(st.sampled_from(("", "rack"))), min_count=1, elastic=True)
    return NodeTable.build(rows), asked, draw(st.integers(1, one.count))


@given(growths())
def test_a_gang_that_grew_pod_by_pod_stands_as_one_that_was_placed_and_leaves_no_room_unused(
    drawn: tuple[NodeTable, GangRequest, int],
) -> None:
    """It stops growing only where not one pod more may stand: looked for one node after the other."""
    table, asked, start = drawn
    at_first = with_counts(asked, (start,))
    assert at_first is not None
    first = assign(table, at_first)
    if not isinstance(first, Assignment):
        return
    table.take(first)
    nodes = [pod.node for pod in first.pods]
    while len(nodes) < asked.pods:
        more = joining(asked, (len(nodes),), (len(nodes) + 1,))
        assert more is not None
        answer = assign_joining(table, more, {"worker": tuple(nodes)})
        if not isinstance(answer, Assignment):
            assert not [name for name in table.names if _may_stand(table, asked, [*nodes, name])]
            break
        table.take(answer)
        nodes.append(answer.pods[0].node)
    assert _stand_well(table, asked, nodes)
    table.check_invariants()


def _may_stand(table: NodeTable, asked: GangRequest, nodes: list[NodeName]) -> bool:
    """Whether the last of them has room, and all may stand so."""
    row = table.layout.row_by_name[nodes[-1]]
    return bool(table.free[0, row] >= asked.roles[0].gpus) and _stand_well(table, asked, nodes)


def _stand_well(table: NodeTable, asked: GangRequest, nodes: list[NodeName]) -> bool:
    (one,) = asked.roles
    rows = [table.layout.row_by_name[name] for name in nodes]
    for level in filter(None, (asked.level_required, one.level_required)):
        domains = table.layout.domains(level)
        assert domains is not None
        codes = {int(domains.codes[row]) for row in rows}
        if len(codes) > 1 or IN_NO_DOMAIN in codes:
            return False
    return not one.per_host or max(nodes.count(name) for name in nodes) <= one.per_host


def test_the_request_that_is_answered_is_the_one_that_was_asked() -> None:
    more = small(1, level_required="rack", per_host=1)
    answer = assign_joining(NodeTable.build([node("a", rack="r"), node("b", rack="r")]), more, standing(worker="a"))
    assert isinstance(answer, Assignment)
    assert answer == replace(answer, request=more)
