"""Node tables: what a report becomes, and that amounts are conserved."""

from __future__ import annotations

import numpy as np
import pytest

from placement.assign import assign
from placement.assignment import Assignment, Part
from placement.fleet import (
    CPU_MILLI,
    GPUS,
    MEMORY_MIB,
    ClusterView,
    Fleet,
    NodeRow,
    NodeTable,
    TooManyNodesError,
    UnknownNodeError,
    by_row,
)
from placement.model import ClusterName, NodeName
from tests.builders import cluster, node, request, role, table


def on_node(name: str, *, pods: int = 1, gpus: int = 2) -> Assignment:
    asked = request(role(pods=pods, gpus=gpus, cpu_milli=1000, memory_mib=1024))
    return Assignment(asked, (Part("worker", NodeName(name), pods),))


def free(rows: NodeTable) -> dict[str, list[int]]:
    return {row.name: [row.gpus_free, row.cpu_milli_free, row.memory_mib_free] for row in rows.rows()}


def test_nodes_are_ordered_by_clique_then_name() -> None:
    built = table(node("b", clique="y"), node("a", clique="y"), node("z", clique="x"), node("c"))
    assert built.names == ("c", "z", "a", "b")


def test_a_table_reads_back_as_the_rows_it_was_built_from() -> None:
    rows = [
        node("a", gpus=8, free=3, clique="c1", rack="r1", block="b1", zone="z1"),
        node("b", gpus=0, clique="c1", usable=False),
    ]
    assert list(table(rows).rows()) == rows


def test_of_two_rows_with_one_name_the_last_counts() -> None:
    assert list(table(node("a", free=1), node("a", free=2)).rows()) == [node("a", free=2)]


def test_five_thousand_nodes_are_accepted_and_one_more_is_not() -> None:
    rows = [NodeRow(f"n{number}") for number in range(5_001)]
    assert len(NodeTable.build(rows[:5_000])) == 5_000
    with pytest.raises(TooManyNodesError) as caught:
        NodeTable.build(rows)
    assert caught.value.nodes == 5_001


@pytest.mark.parametrize(
    ("total", "reported", "kept"),
    [(8, -1, 0), (8, 9, 8), (-8, -8, 0), (8, 2**70, 8), (8, -(2**70), 0), (8, 8, 8)],
    ids=["negative", "above total", "negative total", "beyond 64 bits", "below 64 bits", "in bounds"],
)
def test_amounts_out_of_bounds_are_cut_and_the_node_is_named(total: int, reported: int, kept: int) -> None:
    built = table(node("odd")._replace(gpus_total=total, gpus_free=reported), node("sound"))

    built.check_invariants()
    assert built.gpus_free[built.names.index(NodeName("odd"))] == kept
    assert built.clamped == (frozenset() if kept == reported else {"odd"})


def test_taking_an_assignment_subtracts_what_its_pods_ask_for() -> None:
    built = table(node("a", cpu=4, memory_gib=8), node("b"))

    built.take(on_node("a", pods=2, gpus=3))

    assert free(built)["a"] == [2, 2_000, 6 * 1024]
    assert free(built)["b"] == [8, 64_000, 512 * 1024]
    built.check_invariants()


def test_undo_restores_the_table_exactly() -> None:
    built = table(node("a"), node("b"))
    before = free(built)
    undo = built.take(on_node("a"))

    undo()

    assert free(built) == before


def test_undo_gives_back_what_was_taken_on_every_node() -> None:
    built = table(node("a"), node("b"), node("c")._replace(devices=(("1g.10gb", 4, 3),)))
    asked = request(role(pods=3, gpus=2, cpu_milli=1000), role("cut", pods=2, gpus=0, mig_profile="1g.10gb"))
    before = list(built.rows())
    at = (("worker", "a", 2), ("worker", "b", 1), ("cut", "c", 2))
    undo = built.take(Assignment(asked, tuple(Part(name, NodeName(where), pods) for name, where, pods in at)))
    assert list(built.rows()) != before
    undo()
    assert list(built.rows()) == before


def test_an_undo_counts_only_once() -> None:
    built = table(node("a"))
    built.take(on_node("a"))
    undo = built.take(on_node("a"))
    undo()
    with pytest.raises(AssertionError, match="given back once"):
        undo()


def test_two_roles_on_one_node_are_both_subtracted() -> None:
    built = table(node("a"))
    asked = request(role("leader", gpus=1), role("worker", pods=2, gpus=3))

    built.take(Assignment(asked, (Part("leader", NodeName("a"), 1), Part("worker", NodeName("a"), 2))))

    assert built.gpus_free.tolist() == [1]


def test_over_committing_a_node_stops_and_takes_nothing() -> None:
    built = table(node("a", free=3))
    before = free(built)
    with pytest.raises(AssertionError, match="over-commits one of a"):
        built.take(on_node("a", pods=2, gpus=2))
    assert free(built) == before


def test_rows_are_taken_down_to_nothing_and_not_below() -> None:
    built = table(node("a", free=3), node("b", free=2))
    rows, two = np.array([0, 1]), np.array([[2, 2], [0, 0], [0, 0]])
    built.take_rows(rows, two)
    assert built.gpus_free.tolist() == [1, 0]
    with pytest.raises(AssertionError, match="not free"):
        built.take_rows(rows[:1], two[:, :1])
    assert built.gpus_free.tolist() == [1, 0]


def test_rows_are_taken_if_all_of_them_are_free_and_usable() -> None:
    built = table(node("a", free=3), node("b", free=2), node("c", usable=False))
    three = np.array([[3, 2], [0, 0], [0, 0]])
    assert not built.take_rows_if_free(np.array([1, 0]), three)
    assert not built.take_rows_if_free(np.array([0, 2]), three)
    assert built.gpus_free.tolist() == [3, 2, 8]
    assert built.take_rows_if_free(np.array([0, 1]), three)
    assert built.gpus_free.tolist() == [0, 0, 8]


def test_what_several_roles_take_from_one_row_is_taken_together() -> None:
    rows, amounts = by_row(np.array([2, 0, 2]), np.array([[1, 2, 4], [8, 16, 32]]))
    assert rows.tolist() == [0, 2]
    assert amounts.tolist() == [[2, 5], [16, 40]]


def test_giving_back_more_than_was_taken_stops_and_gives_nothing() -> None:
    built = table(node("a", free=7))
    with pytest.raises(AssertionError, match="more was given back"):
        built.give(on_node("a", gpus=2))
    assert built.gpus_free.tolist() == [7]


def test_giving_back_what_was_taken_restores_the_table() -> None:
    built = table(node("a"))
    built.take(on_node("a"))
    built.give(on_node("a"))
    assert list(built.rows()) == [node("a")]


def test_assignment_on_a_node_that_left_is_an_error_that_names_it() -> None:
    with pytest.raises(UnknownNodeError) as caught:
        table(node("a")).take(on_node("gone"))
    assert caught.value.node == "gone"


def test_a_copy_changes_independently() -> None:
    built = table(node("a"))
    twin = built.copy()
    twin.take(on_node("a", gpus=8))
    assert (built.gpus_free.tolist(), twin.gpus_free.tolist()) == ([8], [0])


def test_changed_rows_make_a_new_table_and_leave_the_old_one() -> None:
    built = table(node("a"), node("b"))

    changed = built.with_changes([node("b", free=1)])

    assert list(changed.rows()) == [node("a"), node("b", free=1)]
    assert list(built.rows()) == [node("a"), node("b")]


def test_changed_usability_counts_for_the_next_assignment() -> None:
    built = table(node("a"))
    assert isinstance(assign(built, request(role())), Assignment)
    assert not isinstance(assign(built.with_changes([node("a", usable=False)]), request(role())), Assignment)


def test_nodes_join_move_and_leave_by_changes() -> None:
    built = table(node("a", clique="x"), node("b", clique="x"), node("c", clique="x"))

    changed = built.with_changes([node("d", clique="x"), node("a", clique="y")], gone=["b", "never-seen"])

    assert list(changed.rows()) == [node("c", clique="x"), node("d", clique="x"), node("a", clique="y")]


def test_node_named_both_changed_and_gone_stays() -> None:
    assert list(table(node("a")).with_changes([node("a", free=1)], gone=["a"]).rows()) == [node("a", free=1)]


def test_changes_are_clamped_like_reports() -> None:
    built = table(node("a"), node("b", free=-2))

    changed = built.with_changes([node("a", free=-1), node("b", free=2)])

    assert changed.clamped == {"a"}
    assert changed.gpus_free.tolist() == [0, 2]
    changed.check_invariants()


def test_an_empty_table_holds_nothing_and_is_sound() -> None:
    built = table()
    built.check_invariants()
    assert list(built.rows()) == []


@pytest.mark.parametrize("resource", [GPUS, CPU_MILLI, MEMORY_MIB], ids=["gpus", "cpu", "memory"])
def test_invariants_fire_on_negative_and_on_excess_amounts(resource: int) -> None:
    below, above = table(node("a")), table(node("a"))
    below.free[resource, 0] = -1
    above.free[resource, 0] = above.total[resource, 0] + 1
    with pytest.raises(AssertionError, match="never negative"):
        below.check_invariants()
    with pytest.raises(AssertionError, match="never exceeds"):
        Fleet([ClusterView(ClusterName("us"), above)]).check_invariants()


def test_totals_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        table(node("a")).total[GPUS, 0] = 9


def test_fleet_is_iterated_by_name() -> None:
    assert list(Fleet([cluster("us"), cluster("eu"), cluster("asia")])) == ["asia", "eu", "us"]
    assert Fleet([cluster("us")])[ClusterName("us")].name == "us"
