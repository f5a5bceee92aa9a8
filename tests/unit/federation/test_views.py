"""Reports of agents: which ones count, and what silence is."""

from __future__ import annotations

from typing import Any

import pytest

from federation.core.status import gpus_by_product
from federation.core.views import Taken, Views
from federation.protocol.lease import Timings
from federation.protocol.messages import DEVICE_KINDS_MAX, NODE_KINDS_MAX, NodeKind, NodeKinds, NodeRows, Report, Stamp
from federation.protocol.parts import PARTS_MAX
from placement.devices import KINDS_PER_NODE_MAX
from placement.fleet import GPUS_PER_NODE_MAX
from placement.model import NODES_PER_CLUSTER_MAX, FenceStrength, Taint


def rows(*names: str, free: int = 8, **columns: Any) -> NodeRows:
    count = len(names)
    return NodeRows(name=names, gpus=(8,) * count, gpus_free=(free,) * count, **columns)


def report(seq: int, *, boot: int = 1, follows: int | None = None, **fields: Any) -> Report:
    stamp = Stamp(boot, follows) if follows is not None else None
    facts: dict[str, Any] = {"applied": 0, "rows": rows("n-1", "n-2")} | fields
    return Report(cluster="a", lineage="l", stamp=Stamp(boot, seq), follows=stamp, **facts)


def free(views: Views) -> dict[str, int]:
    view = views.get("a")
    assert view is not None
    return {row.name: row.gpus_free for row in view.table().rows()}


def test_a_delta_on_the_held_report_changes_only_its_rows() -> None:
    views = Views(Timings())
    views.take(report(1), 0.0)
    assert views.take(report(2, follows=1, rows=rows("n-2", "n-3", free=3, gone=("n-1",))), 1.0) is Taken.ACCEPTED
    assert free(views) == {"n-2": 3, "n-3": 3}


def test_an_older_stamp_is_dropped_even_from_an_earlier_boot() -> None:
    views = Views(Timings())
    views.take(report(5, boot=2), 0.0)
    for late in (report(5, boot=2), report(4, boot=2), report(99, boot=1)):
        assert views.take(late, 1.0) is Taken.OLD_STAMP
    assert views.take(report(1, boot=3), 2.0) is Taken.ACCEPTED


def test_a_delta_whose_predecessor_is_not_held_is_dropped_until_a_full_report_comes() -> None:
    views = Views(Timings())
    views.take(report(1), 0.0)
    assert views.take(report(3, follows=2, rows=rows("n-1", free=0)), 1.0) is Taken.NOT_FOLLOWING
    assert views.take(report(4, follows=3, rows=rows("n-1", free=0)), 1.0) is Taken.NOT_FOLLOWING
    assert free(views) == {"n-1": 8, "n-2": 8}
    assert views.take(report(5, rows=rows("n-1", free=0)), 2.0) is Taken.ACCEPTED
    assert free(views) == {"n-1": 0}


def test_a_full_report_is_asked_for_once_in_a_while() -> None:
    views = Views(Timings())
    asked = [views.wants_full("a", now_s) for now_s in (0.0, 1.9, 2.0)]
    assert asked == [True, False, True]


@pytest.mark.parametrize(
    "columns",
    [
        NodeRows(name=("n-1", "n-2"), gpus=(8,)),
        NodeRows(name=tuple(f"n-{index}" for index in range(NODES_PER_CLUSTER_MAX + 1))),
        NodeRows(name=("n-1",), memory_mib=(2**63,)),
    ],
    ids=["columns of unequal length", "more nodes than a cluster may have", "amounts beyond any integer"],
)
def test_a_malformed_report_is_set_aside_and_a_full_one_needed(columns: NodeRows) -> None:
    views = Views(Timings())
    views.take(report(1), 0.0)
    assert views.take(report(2, follows=1, rows=columns), 1.0) is Taken.MALFORMED
    assert views.take(report(3, follows=1), 2.0) is Taken.NOT_FOLLOWING


RED = NodeKind((("pool", "a"),), (("team", "red", "NoSchedule"),))


def test_labels_and_taints_are_those_of_the_kind_and_a_delta_has_kinds_of_its_own() -> None:
    views = Views(Timings())
    kinds = NodeKinds(kinds=(NodeKind(), RED), at=(1, 0), tainted=(True, False))
    views.take(report(1, rows=rows("n-1", "n-2", usable=(False, False)), node_kinds=kinds), 0.0)
    views.take(report(2, follows=1, rows=rows("n-2"), node_kinds=NodeKinds(kinds=(RED,), at=(0,))), 0.0)
    view = views.get("a")
    assert view is not None
    red = ((("pool", "a"),), (Taint("team", "red", "NoSchedule"),))
    assert [(row.name, row.usable, row.labels, row.taints) for row in view.table().rows()] == [
        ("n-1", True, *red),
        ("n-2", True, *red),
    ]


def test_nodes_that_are_cut_otherwise_in_a_full_report_are_told_apart_though_they_stand_where_they_stood() -> None:
    views = Views(Timings())
    for seq, kind in enumerate(("1g.10gb", "2g.20gb", "2g.20gb"), start=1):
        told = NodeKinds(devices=(kind,), devices_at=(((0, 7, 7),),))
        views.take(report(seq, rows=rows("n-1"), node_kinds=told), 0.0)
        view = views.get("a")
        assert view is not None
        assert [row.devices for row in view.table().rows()] == [((kind, 7, 7),)]


@pytest.mark.parametrize(
    ("kinds", "taken"),
    [
        (NodeKinds(kinds=(RED,), at=(0, 0)), Taken.ACCEPTED),
        (NodeKinds(kinds=(RED,), at=(0, 1)), Taken.MALFORMED),
        (NodeKinds(kinds=(RED,), at=(0, -1)), Taken.MALFORMED),
        (NodeKinds(kinds=(RED,), at=(0,)), Taken.MALFORMED),
        (NodeKinds(tainted=(True,)), Taken.MALFORMED),
        (NodeKinds(kinds=(RED,) * NODE_KINDS_MAX), Taken.ACCEPTED),
        (NodeKinds(kinds=(RED,) * (NODE_KINDS_MAX + 1)), Taken.MALFORMED),
    ],
)
def test_kinds_must_go_with_the_nodes(kinds: NodeKinds, taken: Taken) -> None:
    assert Views(Timings()).take(report(1, node_kinds=kinds), 0.0) is taken


def unhealthy(views: Views) -> dict[str, int]:
    view = views.get("a")
    assert view is not None
    return view.unhealthy


def test_unhealthy_gpus_are_those_of_the_newest_word_about_each_node() -> None:
    views = Views(Timings())
    views.take(report(1, rows=rows("n-1", "n-2", "n-3"), node_kinds=NodeKinds(unhealthy=(2, 0, 1))), 0.0)
    assert unhealthy(views) == {"n-1": 2, "n-3": 1}
    views.take(report(2, follows=1, rows=rows("n-2"), node_kinds=NodeKinds(unhealthy=(4,))), 0.0)
    assert unhealthy(views) == {"n-1": 2, "n-2": 4, "n-3": 1}
    views.take(report(3, follows=2, rows=rows("n-1", gone=("n-3",))), 0.0)
    assert unhealthy(views) == {"n-2": 4}
    views.take(report(4, follows=3, rows=NodeRows()), 0.0)  # a heartbeat
    assert unhealthy(views) == {"n-2": 4}
    views.take(report(5), 0.0)
    assert unhealthy(views) == {}


@pytest.mark.parametrize(
    ("counts", "taken"),
    [
        ((GPUS_PER_NODE_MAX, 0), Taken.ACCEPTED),
        ((GPUS_PER_NODE_MAX + 1, 0), Taken.MALFORMED),
        ((0, -1), Taken.MALFORMED),
        ((1,), Taken.MALFORMED),
        ((1, 1, 1), Taken.MALFORMED),
    ],
)
def test_unhealthy_gpus_must_go_with_the_nodes(counts: tuple[int, ...], taken: Taken) -> None:
    assert Views(Timings()).take(report(1, node_kinds=NodeKinds(unhealthy=counts)), 0.0) is taken


def test_unhealthy_gpus_are_shown_by_product_and_in_the_total_and_are_no_part_of_the_table() -> None:
    views = Views(Timings())
    columns = NodeRows(name=("n-1", "n-2", "n-3"), product=("A", "B", "B"), gpus=(8, 0, 0), gpus_free=(3, 0, 0))
    views.take(report(1, rows=columns, node_kinds=NodeKinds(unhealthy=(1, 8, 0))), 0.0)
    view = views.get("a")
    assert view is not None
    assert gpus_by_product(view.table(), view.unhealthy) == {
        "A": {"total": 9, "free": 3, "unhealthy": 1},
        "B": {"total": 8, "free": 0, "unhealthy": 8},
    }
    assert [row.gpus_total for row in view.table().rows()] == [8, 0, 0]


def test_deltas_cannot_grow_a_cluster_beyond_its_limit() -> None:
    views = Views(Timings())
    full = rows(*(f"n-{index}" for index in range(NODES_PER_CLUSTER_MAX)))
    assert views.take(report(1, rows=full), 0.0) is Taken.ACCEPTED
    assert views.take(report(2, follows=1, rows=rows("n-0", free=1)), 0.0) is Taken.ACCEPTED
    assert views.take(report(3, follows=2, rows=rows("one-more")), 0.0) is Taken.MALFORMED


def test_absurd_amounts_are_cut_to_what_a_node_has() -> None:
    views = Views(Timings())
    views.take(report(1, rows=NodeRows(name=("n-1", "n-2"), gpus=(8, 8), gpus_free=(99, -3))), 0.0)
    assert free(views) == {"n-1": 8, "n-2": 0}


@pytest.mark.parametrize(("now_s", "silent"), [(114.9, False), (115.0, True)])
def test_a_cluster_is_silent_after_three_missed_heartbeats(now_s: float, silent: bool) -> None:
    views = Views(Timings())
    views.take(report(1), 100.0)
    assert views.silent("a", now_s) == silent


def test_old_reports_that_arrive_late_are_no_sign_of_life() -> None:
    views = Views(Timings())
    views.take(report(9), 100.0)
    views.take(report(8), 120.0)
    assert views.silent("a", 120.0)


def test_a_delta_that_cannot_be_used_is_a_sign_of_life_all_the_same() -> None:
    views = Views(Timings())
    views.take(report(1), 100.0)
    views.take(report(3, follows=2), 120.0)
    assert not views.silent("a", 120.0)


def test_nobody_is_silent_because_we_did_not_listen() -> None:
    views = Views(Timings())
    views.expect("a", 100.0)
    views.was_paused(200.0)
    assert not views.silent("a", 214.0)
    assert views.silent("a", 215.0)


@pytest.mark.parametrize(("age_s", "now_s", "stale"), [(0.0, 130.0, False), (0.0, 130.1, True), (5.0, 125.1, True)])
def test_a_view_is_stale_by_its_own_age_and_the_time_since(age_s: float, now_s: float, stale: bool) -> None:
    views = Views(Timings())
    views.take(report(1, age_s=age_s), 100.0)
    assert views.stale("a", now_s) == stale


def test_a_cluster_without_a_report_is_stale() -> None:
    assert Views(Timings()).stale("a", 0.0)


def test_a_fence_strength_of_a_newer_version_counts_as_none() -> None:
    views = Views(Timings())
    views.take(report(1, fence_strength="quantum"), 0.0)
    view = views.get("a")
    assert view is not None
    assert view.fence_strength is FenceStrength.NONE


# --- reports in parts -------------------------------------------------------------------------------------------------


def parts_of(seq: int, *names: str, parts: int | None = None, follows: int | None = None) -> list[Report]:
    """One node a part."""
    last = [follows, *range(seq, seq + len(names))]
    return [
        report(seq + index, follows=last[index], rows=rows(name), part=index, parts=parts or len(names))
        for index, name in enumerate(names)
    ]


def test_a_report_in_parts_counts_once_all_of_it_is_here() -> None:
    views = Views(Timings())
    views.take(report(1), 0.0)
    taken = []
    for part in parts_of(2, "m-1", "m-2", "m-3"):
        assert free(views) == {"n-1": 8, "n-2": 8}
        taken.append(views.take(part, 1.0))
    assert taken == [Taken.PART, Taken.PART, Taken.ACCEPTED]
    assert free(views) == {"m-1": 8, "m-2": 8, "m-3": 8}
    assert views.take(report(5, follows=4, rows=rows("m-4")), 2.0) is Taken.ACCEPTED


def test_a_delta_in_parts_changes_the_view_it_follows() -> None:
    views = Views(Timings())
    views.take(report(1), 0.0)
    assert [views.take(part, 1.0) for part in parts_of(2, "n-2", "n-3", follows=1)] == [Taken.PART, Taken.ACCEPTED]
    assert free(views) == {"n-1": 8, "n-2": 8, "n-3": 8}


def test_a_lost_part_spoils_the_report_but_not_the_view() -> None:
    views = Views(Timings())
    views.take(report(1), 0.0)
    first, _, third = parts_of(2, "m-1", "m-2", "m-3")
    assert [views.take(part, 1.0) for part in (first, third)] == [Taken.PART, Taken.NOT_FOLLOWING]
    assert free(views) == {"n-1": 8, "n-2": 8}
    assert views.take(report(5), 2.0) is Taken.ACCEPTED


def test_parts_of_two_reports_are_never_joined() -> None:
    views = Views(Timings())
    views.take(parts_of(1, "a-1", "a-2")[0], 0.0)
    views.take(parts_of(2, "b-1", "b-2")[0], 0.0)
    assert views.take(parts_of(2, "b-1", "b-2")[1], 0.0) is Taken.ACCEPTED
    assert free(views) == {"b-1": 8, "b-2": 8}


@pytest.mark.parametrize(("part", "parts"), [(0, PARTS_MAX + 1), (-1, 2), (2, 2)])
def test_a_part_that_cannot_be_is_malformed(part: int, parts: int) -> None:
    assert Views(Timings()).take(report(1, part=part, parts=parts), 0.0) is Taken.MALFORMED


def test_as_many_parts_as_are_allowed_are_taken() -> None:
    assert Views(Timings()).take(report(1, part=0, parts=PARTS_MAX), 0.0) is Taken.PART


@pytest.mark.parametrize("token", ["", "l", "l.", "l.x", "l.-1"])
def test_a_report_of_what_is_no_token_is_malformed(token: str) -> None:
    assert Views(Timings()).take(report(1, tokens=("l.8", token)), 0.0) is Taken.MALFORMED


def test_parts_of_gpus_come_with_the_rows_and_change_with_them() -> None:
    views = Views(Timings())
    kinds = NodeKinds(devices=("1g.10gb", "shared/4"), devices_at=(((0, 7, 3),), ((1, 8, 8),)))
    views.take(report(1, rows=rows("n-1", "n-2"), node_kinds=kinds), 0.0)
    view = views.get("a")
    assert view is not None
    assert [row.devices for row in view.table().rows()] == [(("1g.10gb", 7, 3),), (("shared/4", 8, 8),)]
    later = NodeKinds(devices=("1g.10gb",), devices_at=(((0, 7, 7),), ()))
    views.take(report(2, follows=1, rows=rows("n-1", "n-2"), node_kinds=later), 0.0)
    assert [row.devices for row in view.table().rows()] == [(("1g.10gb", 7, 7),), ()]


@pytest.mark.parametrize(
    ("kinds", "taken"),
    [
        ([f"1g.{n}gb" for n in range(DEVICE_KINDS_MAX)], Taken.ACCEPTED),
        ([f"1g.{n}gb" for n in range(DEVICE_KINDS_MAX + 1)], Taken.MALFORMED),
        (["1g.10gb", "1g.10gb"], Taken.MALFORMED),
        ([], Taken.MALFORMED),
    ],
    ids=["as many kinds as may be", "one more", "one twice", "none"],
)
def test_kinds_of_parts_of_gpus_that_cannot_be_are_malformed(kinds: list[str], taken: Taken) -> None:
    told = NodeKinds(devices=tuple(kinds), devices_at=(((0, 7, 3),),))
    assert Views(Timings()).take(report(1, rows=rows("n-1"), node_kinds=told), 0.0) is taken


@pytest.mark.parametrize(
    ("count", "taken"), [(KINDS_PER_NODE_MAX, Taken.ACCEPTED), (KINDS_PER_NODE_MAX + 1, Taken.MALFORMED)]
)
def test_a_node_has_so_many_kinds_of_parts_of_gpus_at_most(count: int, taken: Taken) -> None:
    told = NodeKinds(
        devices=tuple(f"1g.{n}gb" for n in range(count)), devices_at=(tuple((n, 1, 1) for n in range(count)),)
    )
    assert Views(Timings()).take(report(1, rows=rows("n-1"), node_kinds=told), 0.0) is taken
