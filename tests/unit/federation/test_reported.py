"""Deltas go into a table by a short way where they can, and it comes to the same as the long one."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from cluster_agents.core.reports import node_kinds
from cluster_agents.core.reports import node_rows as columns_of
from federation.core import reported
from federation.core.reported import Told, merged, node_rows
from federation.core.views import Taken, Views
from federation.protocol.lease import Timings
from federation.protocol.messages import Report, Stamp
from placement.fleet import NodeRow, NodeTable
from placement.model import NODES_PER_CLUSTER_MAX
from tests.builders import node, table
from tests.unit.placement.drawn import lawful, one_in, some_nodes


def told(rows: Sequence[NodeRow], gone: Sequence[str] = ()) -> Told:
    return columns_of(rows, gone), node_kinds(rows)


def some_deltas(dice: Random, rows: list[NodeRow]) -> list[Told]:
    """Mostly other amounts of known nodes; now and then new, moved or lost ones, and one table in three has parts of
    GPUs, of which columns say nothing."""
    return [_delta(dice, rows) for _ in range(dice.randint(1, 3))]


def _delta(dice: Random, rows: list[NodeRow]) -> Told:
    if one_in(dice, 5):
        return told(some_nodes(dice, nodes_max=3), ("n0", "n9")[: dice.randint(0, 2)])
    again = dice.sample(rows, dice.randint(1, len(rows))) if rows else []
    return told([row._replace(gpus_free=dice.randint(-1, 9), usable=not one_in(dice, 4)) for row in again])


@st.composite
def tables_and_deltas(draw: st.DrawFn) -> tuple[NodeTable, list[Told]]:
    dice = draw(st.randoms(use_true_random=True))
    rows = [row if one_in(dice, 3) else row._replace(devices=()) for row in some_nodes(dice)]
    table = NodeTable.build(node_rows(*told(rows)))
    return table, some_deltas(dice, list(table.rows()))


@lawful(examples=200)
@given(tables_and_deltas())
def test_deltas_give_the_table_that_their_rows_give(drawn: tuple[NodeTable, list[Told]]) -> None:
    before, deltas = drawn
    found, want = merged(before, deltas), reported._row_by_row(before, deltas)
    assert list(found.rows()) == list(want.rows())
    assert found.clamped == want.clamped
    assert (found.layout is before.layout) == (want.layout is before.layout)
    assert (found.total is before.total) == (want.total is before.total)
    found.check_invariants()


def test_a_delta_of_known_nodes_is_not_taken_row_by_row() -> None:
    before = table(node("a"), node("b"), node("c", usable=False))
    changed = [node("a", free=3), node("c", free=9, usable=True)]
    found = reported._in_place(before, [told(changed), told([node("b", free=-1)])])
    assert found is not None
    assert list(found.rows()) == [node("a", free=3), node("b", free=0), node("c")]
    assert found.clamped == {"b", "c"}
    assert found.layout is before.layout
    assert reported._in_place(before, [told([node("a", product="H100")])]) is None
    assert reported._in_place(before, [told([node("d")])]) is None
    assert reported._in_place(before, [told([], gone=("b",))]) is None
    assert list(before.rows()) == [node("a"), node("b"), node("c", usable=False)]


def test_deltas_about_the_nodes_of_a_full_cluster_are_merged_when_somebody_looks() -> None:
    names = [f"n{number:04}" for number in range(NODES_PER_CLUSTER_MAX)]
    views = Views(Timings())
    views.take(report(1, None, [node(name) for name in names]), 0.0)
    view = views.get("a")
    assert view is not None
    before = view.table()
    for seq in (2, 3):
        assert views.take(report(seq, seq - 1, [node(name, free=seq) for name in names[:50]]), 0.0) is Taken.ACCEPTED
    assert view._table is before
    assert view.table().gpus_free.tolist() == [3] * 50 + [8] * (NODES_PER_CLUSTER_MAX - 50)
    assert views.take(report(4, 3, [node("one-more")]), 0.0) is Taken.MALFORMED


def report(seq: int, follows: int | None, rows: Sequence[NodeRow]) -> Report:
    columns, kinds = told(rows)
    stamp = Stamp(1, follows) if follows is not None else None
    return Report(
        cluster="a", lineage="l", stamp=Stamp(1, seq), follows=stamp, applied=0, rows=columns, node_kinds=kinds
    )
