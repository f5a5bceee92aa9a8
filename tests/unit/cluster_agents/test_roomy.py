"""Which gangs a report names that could get more pods where they stand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster_agents.core.inventory import Inventory
from cluster_agents.core.plan import Plan, PlanRole
from cluster_agents.core.pods import Amounts
from cluster_agents.core.roomy import LOOKS_PER_REPORT_MAX, Roomy
from federation.protocol.messages import ROOMY_MAX
from placement.fleet import NodeTable
from placement.joining import Standing, assign_joining
from placement.model import GangRequest, RoleRequest
from tests.unit.cluster_agents import test_inventory

ROLE = RoleRequest(name="worker", count=512, min_count=1, gpus=1)
REQUEST = GangRequest(roles=(ROLE,), min_count=1, level_required="rack", elastic=True)


def gangs(count: int) -> Iterator[tuple[str, Plan, GangRequest]]:
    for number in range(count):
        token = f"l1.{number:03d}"
        plan = Plan(
            uid=token,
            token=token,
            namespace="default",
            name="g",
            workload="",
            policy="StopAndMove",
            disruption_mode="all",
            min_count=1,
            grace_s=30,
            spec_digest="",
            roles=(PlanRole("worker", 1, 1, 1, 0, 0),),
            nodes=("n-1",),
            growable=True,
        )
        yield token, plan, REQUEST


def inventory(*, free: int) -> Inventory:
    found = test_inventory.inventory()
    found.hold({"n-1": Amounts(gpus=8 - free)})
    return found


def test_of_more_gangs_than_a_report_may_name_all_are_named_in_turn() -> None:
    """Some may not grow for reasons of others, as a size that a person gave: they kept all others out."""
    many, made, found = list(gangs(ROOMY_MAX + 2)), Roomy(), inventory(free=8)
    for _ in range(0, len(many), LOOKS_PER_REPORT_MAX):
        made.of(many, found)
    named = [made.of(many, found) for _ in range(2)]
    assert [len(one) for one in named] == [ROOMY_MAX, ROOMY_MAX]
    assert {*named[0], *named[1]} == {token for token, _, _ in many}


@pytest.mark.parametrize(("free", "looks"), [(8, 1), (0, 2)])
def test_whether_a_gang_could_grow_costs_two_looks_at_the_nodes_at_most(
    free: int, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How much is for who orders it: the search for that took ten looks of a gang of 512, for 64 gangs a second."""
    asked: list[int] = []

    def counted(nodes: NodeTable, more: GangRequest, standing: Standing) -> object:
        asked.append(more.pods)
        return assign_joining(nodes, more, standing)

    monkeypatch.setattr("cluster_agents.core.roomy.assign_joining", counted)
    assert len(Roomy().of(gangs(1), inventory(free=free))) == (free > 0)
    assert asked == [1, 511][:looks]
