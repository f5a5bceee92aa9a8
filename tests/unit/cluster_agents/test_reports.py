"""Capacity reports: when they leave, what they say, and how far `applied` reaches (DESIGN §5)."""

import pytest

from cluster_agents.core.events import Told
from cluster_agents.core.reports import node_kinds, node_rows
from cluster_agents.simkube.kubelet import types as kt
from federation.core.views import Taken, Views
from federation.protocol.lease import Timings
from federation.protocol.messages import DEVICE_KINDS_MAX, NODE_KINDS_MAX, Report, ReportWanted, Stamp
from federation.protocol.parts import ROWS_PER_PART_MAX
from placement.fleet import GPUS_PER_NODE_MAX, NodeRow
from placement.model import Taint
from tests.unit.cluster_agents.rig import FAST, Rig, node
from tests.unit.cluster_agents.test_inventory import inventory
from tests.unit.cluster_agents.test_inventory import node as written


def free(report: Report) -> dict[str, int]:
    return dict(zip(report.rows.name, report.rows.gpus_free, strict=True))


def test_nothing_is_reported_before_the_first_desired_answer() -> None:
    rig = Rig(start=False)
    rig.federation.up = False
    rig.start()
    rig.advance(20.0)
    assert rig.reports == []
    rig.federation.up = True
    rig.advance(10.0)
    assert rig.reports[0].follows is None
    assert free(rig.reports[0]) == {"n-1": 8, "n-2": 8}


def test_heartbeats_are_empty_deltas_on_the_report_before() -> None:
    rig = Rig().ready()
    rig.advance(20.0)
    before, last = rig.reports[-2:]
    assert last.follows == before.stamp
    assert last.stamp.seq == before.stamp.seq + 1
    assert last.rows.name == ()


def test_a_change_is_reported_within_a_second_as_a_delta_of_the_changed_rows() -> None:
    rig = Rig(node("n-1"), node("n-2")).ready()
    rig.advance(10.0)
    rig.reports.clear()
    rig.federation.place(pods=1, gpus=3)
    rig.ring()
    rig.advance(1.0)
    changed = [free(report) for report in rig.reports if report.rows.name]
    assert changed == [{"n-1": 5}]


def test_a_large_cluster_is_reported_in_parts_and_the_next_delta_follows_the_last() -> None:
    rig = Rig(*(node(f"n-{number:04d}") for number in range(ROWS_PER_PART_MAX + 1))).ready()
    rig.advance(20.0)
    first, second, delta = rig.reports[:3]
    assert [(len(one.rows.name), one.part, one.parts) for one in (first, second)] == [
        (500, 0, 2),
        (1, 1, 2),
    ]
    assert (first.follows, second.follows, delta.follows) == (None, first.stamp, second.stamp)
    assert delta.parts == 1


def test_a_full_report_comes_every_minute_and_when_asked_for() -> None:
    rig = Rig().ready()
    rig.advance(130.0)
    full = [report for report in rig.reports if report.follows is None]
    assert len(full) == 3
    rig.reports.clear()
    rig.tell(Told(ReportWanted(cluster="c-1")))
    rig.advance(1.5)
    assert [report.follows for report in rig.reports] == [None]


def test_applied_reaches_the_desired_state_when_all_is_decided() -> None:
    rig = Rig().ready()
    rig.federation.place(pods=1)
    rig.ring()
    rig.advance(2.0)
    assert rig.reports[-1].applied == rig.federation.position


def test_an_undecided_group_holds_applied_just_below_its_position() -> None:
    rig = Rig().ready()
    waiting = rig.federation.place(pods=1)
    rig.federation.specs.pop("l1.1")
    rig.federation.place(pods=1)
    rig.ring()
    rig.advance(2.0)
    position = int(waiting.rpartition(".")[2])
    assert rig.reports[-1].applied == position - 1


def test_a_group_placed_behind_its_victims_counts_as_decided_once_it_is_noted() -> None:
    rig = Rig(node("n-1")).ready()
    victim = rig.federation.place(pods=1, gpus=8, grace_s=30)
    rig.run(victim)
    heir = rig.federation.place(pods=1, gpus=8, after=(victim,))
    rig.federation.change(victim, intent="stop")
    rig.ring()
    rig.advance(1.0)
    assert rig.pods(heir) == []
    assert rig.reports[-1].applied == rig.federation.position


def test_a_group_given_up_counts_in_the_rows_until_its_last_container_ended() -> None:
    rig = Rig(node("n-1")).ready()
    token = rig.federation.place(pods=1, gpus=8)
    rig.run(token)
    rig.advance(2.0)
    rig.reports.clear()
    rig.federation.change(token, intent="stop")
    rig.ring()
    rig.advance(1.5)
    assert len(rig.live(token)) == 1
    assert [free(report) for report in rig.reports if report.rows.name] == []
    rig.advance(5.0)
    assert rig.live(token) == []
    assert [free(report) for report in rig.reports if report.rows.name] == [{"n-1": 8}]


def test_rows_show_a_group_from_the_moment_its_nodes_are_chosen() -> None:
    rig = Rig(node("n-1")).ready()
    rig.advance(10.0)
    rig.override = lambda call: 500 if call.path.endswith("/configmaps") else None
    rig.federation.place(pods=1, gpus=8)
    rig.ring()
    rig.advance(1.0)
    assert rig.pods() == []
    assert [free(report) for report in rig.reports if report.rows.name][-1] == {"n-1": 0}


def test_a_cluster_that_is_not_live_names_the_tokens_that_may_still_run() -> None:
    rig = Rig(node("n-1")).ready()
    token = rig.federation.place(pods=1)
    rig.run(token)
    rig.tell_kubelets(kt.NodeCut("n-1"))
    rig.federation.fence()
    rig.advance(FAST.renew_s + 20)
    last = rig.reports[-1]
    assert (last.live, last.epoch, last.tokens) == (False, 2, (token,))
    rig.tell_kubelets(kt.NodeHealed("n-1"))
    rig.advance(40.0)
    assert rig.reports[-1].tokens == ()


def test_no_report_comes_from_an_agent_that_lost_its_api_server_for_a_third_of_the_ttl() -> None:
    rig = Rig().ready()
    rig.advance(10.0)
    rig.api_up = False
    rig.advance(FAST.ttl_s / 3 + 1)
    rig.reports.clear()
    rig.advance(60.0)
    assert rig.reports == []


def pooled(count: int, *, tainted: bool) -> list[NodeRow]:
    """As many kinds of nodes, two nodes of the first and one of each other."""
    taint = (Taint("team", "red", "NoSchedule"),) if tainted else ()
    pools = [0, *range(count)]
    return [NodeRow(f"n-{at}", labels=(("pool", f"{pool:03}"),), taints=taint) for at, pool in enumerate(pools)]


def test_as_many_kinds_of_nodes_are_told_as_a_message_has_room_for() -> None:
    told = node_kinds(pooled(NODE_KINDS_MAX - 1, tainted=True))
    assert (len(told.kinds), set(told.tainted)) == (NODE_KINDS_MAX, {True})


def test_a_node_of_a_kind_too_many_is_told_without_labels_and_not_offered_if_it_is_tainted() -> None:
    plain, tainted = (node_kinds(pooled(NODE_KINDS_MAX, tainted=one)) for one in (False, True))
    assert (len(plain.kinds), plain.at[:3], plain.at[-1]) == (NODE_KINDS_MAX, (1, 1, 2), 0)
    assert (tainted.tainted[-2:], tainted.at[-1]) == ((True, False), 0)


def test_kinds_that_are_too_large_for_a_message_are_left_out() -> None:
    label = (("muster.io/" + "k" * 200, "v" * 63),)
    large = [NodeRow(f"n-{at}", labels=((f"{at:02}", "x"), *label * 12)) for at in range(40)]
    assert 10 < len(node_kinds(large).kinds) < 40


def test_a_tainted_node_is_not_usable_to_servers_that_know_no_taints() -> None:
    rows = [NodeRow("n-1", taints=(Taint("team", "red", "NoSchedule"),)), NodeRow("n-2"), NodeRow("n-3", usable=False)]
    assert node_rows(rows).usable == (False, True, False)
    assert node_kinds(rows).tainted == (True, False, False)


def test_kinds_of_parts_of_gpus_are_told_up_to_the_limit_those_of_the_most_nodes_first() -> None:
    rows = [
        NodeRow(f"n-{at:02}", devices=((f"1g.{at:02}gb", 7, at), ("shared/4", 8, 8))) for at in range(DEVICE_KINDS_MAX)
    ]
    told = node_kinds(rows)
    assert len(told.devices) == DEVICE_KINDS_MAX
    assert [len(one) for one in told.devices_at] == [2] * (DEVICE_KINDS_MAX - 1) + [1]
    assert told.devices_at[-1] == ((told.devices.index("shared/4"), 8, 8),)


@pytest.mark.parametrize("gpus_had", [GPUS_PER_NODE_MAX, GPUS_PER_NODE_MAX + 1, 2**70])
def test_a_node_that_says_it_had_any_number_of_gpus_spoils_no_report(gpus_had: int) -> None:
    """A server refuses what no node has, so that a cluster with one such node object would have been silent."""
    odd = written(gpus="0")
    odd["status"]["capacity"] = {"nvidia.com/gpu": str(gpus_had)}
    found = inventory(odd)
    rows = found.take_all()
    kinds = node_kinds(rows, [found.gpus_unhealthy(row.name) for row in rows])
    views = Views(Timings())
    told = Report(cluster="c-1", lineage="l", stamp=Stamp(1, 1), applied=0, rows=node_rows(rows), node_kinds=kinds)
    assert views.take(told, 0.0) is Taken.ACCEPTED
    view = views.get("c-1")
    assert view is not None
    assert view.unhealthy == {"n-1": GPUS_PER_NODE_MAX}
