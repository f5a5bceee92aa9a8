"""What the placer remembers of groups that may grow: never anything but what it would find anew."""

from __future__ import annotations

from dataclasses import replace

from federation.core.growing import Looks
from placement.assign import assign_if_it_fits
from placement.fleet import ClusterView
from placement.model import ClusterName
from tests.builders import cluster, node, request, role
from tests.unit.federation.pump import Pump, started
from tests.unit.federation.test_resizing import running

ROOM = cluster("a", [node("n-1", gpus=8), node("n-2", gpus=8)])


def look(looks: Looks, view: ClusterView, pump: Pump, uid: str) -> tuple[int, ...]:
    """The size found; () for none."""
    found = looks.growth(pump.group(uid), view, None)
    return found[0] if found is not None else ()


def test_a_cluster_that_stands_as_it_stood_is_not_asked_again() -> None:
    pump = started()
    _, uid = running(pump, pods=8)
    looks = Looks()
    found = looks.growth(pump.group(uid), ROOM, None)
    assert found is not None
    assert found[0] == (6,)
    assert looks.growth(pump.group(uid), replace(ROOM, view_age_s=1.0), None) is found


def test_what_was_taken_since_or_given_back_counts() -> None:
    pump = started()
    _, uid = running(pump, pods=8)
    looks, view = Looks(), replace(ROOM, table=ROOM.table.copy())
    assert look(looks, view, pump, uid) == (6,)
    one = assign_if_it_fits(view.table, request(role(pods=1)))
    assert one is not None
    undo = view.table.take(one)
    assert look(looks, view, pump, uid) == (5,)
    undo()
    assert look(looks, view, pump, uid) == (6,)


def test_another_report_counts() -> None:
    pump = started()
    _, uid = running(pump, pods=8)
    looks = Looks()
    assert look(looks, cluster("a", [node("n-1", gpus=8, free=0)]), pump, uid) == ()
    assert look(looks, ROOM, pump, uid) == (6,)


def test_groups_are_told_apart_by_what_they_have_and_may_have() -> None:
    pump = started()
    member, uid = running(pump, pods=8)
    looks = Looks()
    assert look(looks, ROOM, pump, uid) == (6,)
    member.nodes, member.gpus_free = 5, [0, 0, 0, 0, 8]
    member.report()
    pump.run(1.0)
    assert look(looks, ROOM, pump, uid) == (7,), "it has 5 by now"


def test_clusters_in_which_nobody_may_grow_are_forgotten() -> None:
    pump = started()
    _, uid = running(pump, pods=8)
    looks = Looks()
    found = looks.growth(pump.group(uid), ROOM, None)
    looks.keep([ClusterName("a"), ClusterName("a"), ClusterName("b")])
    assert looks.growth(pump.group(uid), ROOM, None) is found
    looks.keep([ClusterName("b")])
    again = looks.growth(pump.group(uid), ROOM, None)
    assert again == found
    assert again is not found
