"""What will be free in a cluster: as reported, less what was placed there since; groups keep their nodes."""

from __future__ import annotations

from typing import Any

import pytest

from cluster_agents.core.reports import node_kinds, node_rows
from federation.core.outlooks import Claim, Outlooks
from federation.core.views import Taken, Views
from federation.protocol.lease import Timings
from federation.protocol.messages import Report, Stamp
from placement.fleet import NodeRow
from placement.model import GroupUid
from tests.builders import node
from tests.unit.federation.story import Story
from tests.unit.placement.test_devices import cut


class Fixture:
    """One cluster with reports, and groups that were placed there and are in none of them."""

    def __init__(self, *rows: NodeRow) -> None:
        self.story = Story()
        self.story.cluster("a")
        self.views = Views(Timings())
        self.outlooks = Outlooks(self.views)
        self.seq = 0
        self.told(*rows, full=True)

    def told(self, *rows: NodeRow, full: bool = False) -> None:
        self.seq += 1
        report = Report(
            cluster="a",
            lineage="l",
            stamp=Stamp(1, self.seq),
            follows=None if full else Stamp(1, self.seq - 1),
            applied=0,
            rows=node_rows(rows),
            node_kinds=node_kinds(rows),
        )
        assert self.views.take(report, 0.0) is Taken.ACCEPTED

    def placed(self, name: str, **fields: Any) -> GroupUid:
        uid = self.story.submit(name, **fields)
        self.story.place(uid, "a")
        return GroupUid(uid)

    def free(self) -> dict[str, int]:
        cluster = self.story.state.cluster("a")
        assert cluster is not None
        self.outlook = self.outlooks.of(self.story.state, cluster)
        assert self.outlook is not None
        self.outlook.table.check_invariants()
        return {row.name: row.gpus_free for row in self.outlook.table.rows()}

    def nodes_of(self, uid: GroupUid) -> tuple[str, ...]:
        assert self.outlook is not None
        held = self.outlook.counted[Claim(uid)]
        return held.assignment.nodes if held is not None else ()


def test_a_group_keeps_its_nodes_where_a_report_would_make_others_better() -> None:
    fixture = Fixture(node("x", free=4), node("y"), node("z"))
    uid = fixture.placed("train", gpus=4)
    assert fixture.free() == {"x": 0, "y": 8, "z": 8}
    fixture.told(node("x"), node("y", free=4))
    assert fixture.free() == {"x": 4, "y": 4, "z": 8}
    assert fixture.nodes_of(uid) == ("x",)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("worse", [node("x", free=3), node("x", usable=False)], ids=["taken by others", "unusable"])
def test_a_group_gets_other_nodes_once_it_cannot_have_its_own(worse: NodeRow, full: bool) -> None:
    fixture = Fixture(node("x", free=4), node("y", free=6))
    uid = fixture.placed("train", gpus=4)
    assert fixture.free() == {"x": 0, "y": 6}
    fixture.told(worse, *([node("y", free=6)] if full else []), full=full)
    assert fixture.free() == {"x": worse.gpus_free, "y": 2}
    assert fixture.nodes_of(uid) == ("y",)


def test_groups_keep_their_nodes_when_nodes_come_before_them_or_go() -> None:
    fixture = Fixture(node("m", free=4), node("n"))
    uid, other = fixture.placed("train", gpus=4), fixture.placed("other", gpus=8)
    assert fixture.free() == {"m": 0, "n": 0}
    fixture.told(node("a"), node("m", free=6), node("n"), full=True)
    assert fixture.free() == {"a": 8, "m": 2, "n": 0}
    fixture.told(node("a"), node("n"), full=True)
    assert fixture.free() == {"a": 4, "n": 0}
    assert (fixture.nodes_of(uid), fixture.nodes_of(other)) == (("a",), ("n",))


def test_a_part_of_a_gpu_is_taken_from_what_the_node_is_cut_into_now() -> None:
    fixture = Fixture(cut("x", mig_1g_10gb=2), cut("y", mig_2g_20gb=2))
    uid = fixture.placed("small", gpus=1, of="nvidia.com/mig-1g.10gb")
    fixture.free()
    assert fixture.nodes_of(uid) == ("x",)
    fixture.told(cut("x", mig_2g_20gb=2), cut("y", mig_1g_10gb=2))
    fixture.free()
    assert fixture.nodes_of(uid) == ("y",)
    fixture.told(cut("y", mig_2g_20gb=2))
    fixture.free()
    assert fixture.nodes_of(uid) == ()
    assert fixture.outlook is not None
    assert fixture.outlook.behind
