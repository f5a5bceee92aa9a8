"""An elastic group through a whole replica: placed with what fits, recorded, told to its agent, kept by snapshots."""

from __future__ import annotations

from federation.core.decisions import summary
from federation.core.records import Placed
from federation.protocol.messages import DesiredGroup
from placement.model import ClusterName, Reason
from tests.unit.federation.pictures import facts, loaded, shards_of
from tests.unit.federation.pump import Pump, started


def elastic(pump: Pump, name: str = "train", *, pods: int = 6, at_least: int = 2) -> str:
    return pump.submit(name, pods=pods, min_count=at_least, elastic=True)


def placements(pump: Pump) -> list[Placed]:
    return [line.record for line in pump.folded[pump.leader.name] if isinstance(line.record, Placed)]


def desired(pump: Pump) -> DesiredGroup:
    (home,) = pump.state.clusters[ClusterName("a")].tokens.values()
    row = pump.state.groups[home]
    answer = pump.members["a"].desired()
    assert answer is not None
    return next(group for group in answer.groups if group.uid == row.uid)


def test_an_elastic_group_is_placed_with_the_pods_that_fit_and_its_agent_is_told() -> None:
    pump = started()
    pump.join("a", nodes=4)
    uid = elastic(pump)
    assert [one.counts for one in placements(pump)] == [(4,)]
    assert summary(placements(pump)[0]) == "placed on a with 4 pods"
    assert desired(pump).counts == (4,)
    assert pump.group(uid).placed.pods == 4


def test_a_group_that_fits_whole_is_placed_as_ever() -> None:
    pump = started()
    pump.join("a", nodes=6)
    elastic(pump)
    assert [one.counts for one in placements(pump)] == [()]
    assert desired(pump).counts == ()


def test_only_the_pods_that_were_placed_are_subtracted() -> None:
    pump = started()
    pump.join("a", nodes=4, gpus_free=[8, 8, 8, 4], applied=0)  # the agent notes nothing yet
    elastic(pump)
    small = pump.submit("small", gpus=4)
    assert [one.counts for one in placements(pump)] == [(3,), ()]
    assert pump.group(small).home is not None


def test_a_group_that_lost_its_home_is_sized_anew() -> None:
    pump = started()
    (a,) = pump.join("a", nodes=4)
    uid = elastic(pump)
    a.nodes, a.gpus_free = 6, [8] * 6
    a.report()
    assert a.verdict(uid, "Released", reasons=("Drained",)) is not None
    pump.run(6.0)
    assert [one.counts for one in placements(pump)] == [(4,), ()]
    assert pump.group(uid).counts == ()


def test_bound_pods_that_do_not_run_yet_count_as_bound() -> None:
    pump = started()
    (a,) = pump.join("a", nodes=4)
    uid = elastic(pump)
    a.verdict(uid, "Bound", pods=4)
    a.verdict(uid, "Running", pods=2)
    assert pump.group(uid).pods_bound == 4


def test_the_quota_is_charged_with_the_whole_group() -> None:
    pump = started()
    pump.join("a", nodes=4)
    elastic(pump)
    queue = pump.state.queue("default")
    assert queue is not None
    assert queue.used("*") == 48


def test_a_snapshot_keeps_the_size() -> None:
    pump = started()
    pump.join("a", nodes=4)
    uid = elastic(pump)
    again = loaded(pump.state.lineage, shards_of(pump.state))
    assert facts(again) == facts(pump.state)
    row = again.group(uid)
    assert row is not None
    assert (row.counts, row.request.elastic) == ((4,), True)


def test_why_names_what_the_smallest_size_lacks() -> None:
    pump = started()
    pump.join("a", nodes=4)
    uid = elastic(pump, pods=8, at_least=5)
    told = pump.leader.why(uid)
    assert told is not None
    assert told.because is not None
    assert (told.because.reason, told.because.needs) == (Reason.LARGER_THAN_CLUSTER, 5)
