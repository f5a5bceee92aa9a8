"""The engine's memory changes what decisions cost, never what they are."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.engine import Bounds, Pending, Place, decide, plan_cycle
from placement.fleet import ClusterView, Fleet, NodeRow, NodeTable, Shape
from placement.memory import Memory
from placement.model import ClusterName, GroupUid, Position, QueueName
from placement.node_order import LearntWorth, NodeWorth
from placement.quota import UNLIMITED, Quotas
from placement.score import DEFAULT_POLICY
from placement.waiting import Waiting
from tests.builders import BUDGET, cluster, fleet, node, request, role, table
from tests.unit.placement.drawn import FEW_GROUPS, a_fleet, a_queue, drawn, lawful, some_nodes, some_quotas
from tests.unit.placement.oracle import decide_slowly


def learnt_from(arrived: list[Pending]) -> NodeWorth | None:
    """What is known after these have come, three times each."""
    learnt = LearntWorth()
    for item in arrived * 3:
        learnt.asked(item.request)
    learnt.look(())
    return learnt.now


often = lawful(examples=120)


worths = drawn(a_queue).map(learnt_from) | st.none()


@pytest.mark.long
@often
@given(drawn(a_fleet), drawn(a_queue), drawn(some_quotas), worths)
def test_decisions_waits_and_their_reasons_are_those_of_the_engine_without_memory(
    where: Fleet, waiting: list[Pending], limits: Quotas, worth: NodeWorth | None
) -> None:
    plan = decide(where, waiting, policy=DEFAULT_POLICY, budget=BUDGET, quotas=limits, worth=worth)
    want = decide_slowly(where, waiting, policy=DEFAULT_POLICY, quotas=limits, worth=worth)
    assert (plan.decisions, plan.waiting) == want


@pytest.mark.long
@lawful(examples=60)  # each of four turns, against a slow engine
@given(st.data(), st.randoms(use_true_random=False))
def test_memory_that_lives_through_releases_and_reports_decides_like_a_new_one(
    data: st.DataObject, random: Random
) -> None:
    memory, waiting = Memory(), Waiting()
    where = data.draw(drawn(a_fleet, groups_left=FEW_GROUPS))
    everybody: dict[GroupUid, Pending] = {}
    held: list[Place] = []
    for turn in range(4):
        for item in data.draw(drawn(a_queue)):
            waiting.put(renamed := replace(item, uid=GroupUid(f"t{turn}-{item.uid}")))
            everybody[renamed.uid] = renamed
        for uid in [uid for uid in everybody if random.random() < 0.2]:
            del everybody[uid]
            waiting.remove(uid)
        worth = data.draw(worths)
        memory.follow(worth)
        want = decide_slowly(where, list(everybody.values()), policy=DEFAULT_POLICY, quotas=UNLIMITED, worth=worth)
        plan = plan_cycle(where, waiting, memory, policy=DEFAULT_POLICY, bounds=Bounds(BUDGET, gains=turn))
        assert plan.decisions == want[0]
        for place in plan.decisions:
            del everybody[place.uid]
            if random.random() < 0.7:
                where[place.cluster].table.take(place.assignment)
                held.append(place)
        for place in [place for place in held if random.random() < 0.4]:
            held.remove(place)
            if all(node in where[place.cluster].table.layout.row_by_name for node in place.assignment.nodes):
                where[place.cluster].table.give(place.assignment)
        where, held = reported(where, held, data, random)
        where.check_invariants()


def reported(where: Fleet, held: list[Place], data: st.DataObject, random: Random) -> tuple[Fleet, list[Place]]:
    """Some clusters report changed nodes, some close or open, one may join."""
    views = []
    for view in where.values():
        table = view.table
        if random.random() < 0.4:
            table = table.with_changes(data.draw(drawn(some_nodes, nodes_max=3)))
            held = [place for place in held if place.cluster != view.name]
        views.append(replace(view, table=table, cordoned=random.random() < 0.2))
    if random.random() < 0.3 and ClusterName("new") not in where:
        views.append(ClusterView(ClusterName("new"), NodeTable.build(data.draw(drawn(some_nodes)))))
    return Fleet(views), held


def test_memory_fills_nodes_by_worth_like_assign() -> None:
    """Where fullest first and worth differ: the scarce product is left to those that can use nothing else."""
    picky = request(role(gpus=1, products=("H100",), cpu_milli=8_000))
    anyone = request(role(gpus=1, cpu_milli=8_000))
    learnt = LearntWorth()
    for _ in range(10):
        learnt.asked(picky)
        learnt.asked(anyone)
    learnt.look(())
    where = fleet(cluster("eu", node("a", product="H100", free=4), node("b", product="T4", free=8)))
    item = Pending(GroupUid("g"), Position(1), 0, anyone, QueueName("default"))
    plans = [decide(where, [item], policy=DEFAULT_POLICY, budget=BUDGET, worth=one) for one in (None, learnt.now)]
    assert [plan.decisions[0].assignment.nodes for plan in plans] == [("a",), ("b",)]


def test_nodes_of_one_zone_between_which_others_stand_are_all_counted() -> None:
    """Nodes are ordered by clique, so those of a zone need not be neighbours."""

    def standing(*free: int) -> list[NodeRow]:
        return [
            node(name, clique=name, zone=zone, free=left) for name, zone, left in zip("abc", "xyx", free, strict=True)
        ]

    memory, zone, now = Memory(), ("zone", ""), table(standing(8, 8, 8))
    memory.sync(Fleet([ClusterView(ClusterName("eu"), now)]))
    assert memory.capacity(Shape(1, 0, 0, ()), zone).tolist() == [16]
    now = now.with_changes(standing(3, 5, 4))
    memory.sync(Fleet([ClusterView(ClusterName("eu"), now)]))
    assert memory.capacity(Shape(1, 0, 0, ()), zone).tolist() == [7]
    memory.sync(Fleet([ClusterView(ClusterName("eu"), now.with_changes(standing(3, 8, 3)))]))
    assert memory.capacity(Shape(1, 0, 0, ()), zone).tolist() == [8]


def test_node_in_no_zone_that_becomes_free_makes_no_zone_larger() -> None:
    def standing(outside: int) -> list[NodeRow]:
        return [node("a", zone="x", free=2), node("b", free=outside)]

    memory, zone, now = Memory(), ("zone", ""), table(standing(0))
    memory.sync(Fleet([ClusterView(ClusterName("eu"), now)]))
    assert memory.capacity(Shape(1, 0, 0, ()), zone).tolist() == [2]
    memory.sync(Fleet([ClusterView(ClusterName("eu"), now.with_changes(standing(8)))]))
    assert memory.capacity(Shape(1, 0, 0, ()), zone).tolist() == [2]


def test_gang_beside_a_full_node_leaves_to_others_what_it_did_not_take() -> None:
    """The nodes it takes are not neighbours."""
    where = fleet(cluster("eu", node("a", free=8), node("b", free=3), node("c", free=8)))
    gangs = (request(role(pods=2)), request(role(pods=3, gpus=1)))
    items = [
        Pending(GroupUid(f"g{at}"), Position(at), 0, gang, QueueName("default"), batch_at=Position(at))
        for at, gang in enumerate(gangs, start=1)
    ]
    plan = decide(where, items, policy=DEFAULT_POLICY, budget=BUDGET)
    assert [place.assignment.nodes for place in plan.decisions] == [("a", "c"), ("b",)]


def test_rack_of_which_a_gang_takes_several_nodes_holds_less_for_the_next() -> None:
    where = fleet(cluster("eu", *(node(name, rack="r1") for name in "abc"), node("z", rack="r2", free=0)))
    gangs = (request(role(pods=2), level_required="rack"), request(role(pods=2), level_required="rack"))
    items = [Pending(GroupUid(f"g{at}"), Position(at), 0, gang) for at, gang in enumerate(gangs, start=1)]
    plan = decide(where, items, policy=DEFAULT_POLICY, budget=BUDGET)
    assert [place.uid for place in plan.decisions] == ["g1"]
    assert [str(wait.because) for wait in plan.waiting] == [
        "NoDomainLargeEnough: needs 16 free GPUs in one rack, best is 8"
    ]
