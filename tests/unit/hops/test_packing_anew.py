"""A plan that was packed anew, seen from both ends: servers decide it, and the agent, which chooses the nodes itself in
the order of the journal, finds room for all of it."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from federation.core import placer
from federation.core.events import Accepted, CordonCluster
from placement.engine import Plan, plan_cycle
from placement.model import Phase, Token
from placement.node_order import LearntWorth
from tests.unit.cluster_agents.rig import CLUSTER
from tests.unit.hops.fleet import Fleet, manifest

TIGHT = (0, 1, 2, 4, 5, 7)  # seeds on which room is made
NODES = 12


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """All that were made, in order."""
    made: list[Plan] = []

    def watched(*args: Any, **fields: Any) -> Plan:
        made.append(plan_cycle(*args, **fields))
        return made[-1]

    monkeypatch.setattr(placer, "plan_cycle", watched)
    return made


def decided_at_once(fleet: Fleet, *documents: dict[str, Any]) -> dict[str, str]:
    """Submit all of them while nothing may start, then let one cycle decide; their uids by name."""
    cordon(fleet, cordoned=True)
    uids = {document["metadata"]["name"]: fleet.submit(document) for document in documents}
    cordon(fleet, cordoned=False)
    return uids


def cordon(fleet: Fleet, *, cordoned: bool) -> None:
    answer = fleet.pump.ask(CordonCluster(CLUSTER, cordoned, False, "", f"cordon-{cordoned}", "olga"))
    assert isinstance(answer, Accepted)


def nodes_of(fleet: Fleet, uid: str) -> list[str]:
    return sorted(pod["spec"]["nodeName"] for pod in fleet.rig.pods(fleet.token(uid)))


def test_agent_binds_all_of_a_plan_in_which_an_urgent_gang_moved_over(plans: list[Plan]) -> None:
    fleet = Fleet(gpus=(6, 4))
    uids = decided_at_once(
        fleet,
        manifest("urgent", pods=1, gpus=2, priority=1),
        manifest("first", pods=1, gpus=4),
        manifest("second", pods=1, gpus=4),
    )
    fleet.advance(10.0)
    assert [plan.made_room for plan in plans if plan.decisions] == [True]
    assert {name: nodes_of(fleet, uid) for name, uid in uids.items()} == {
        "urgent": ["n-1"],
        "first": ["n-2"],
        "second": ["n-1"],
    }
    assert {fleet.group(uid).phase for uid in uids.values()} == {Phase.RUNNING}
    tokens = {name: Token.parse(fleet.token(uid)).position for name, uid in uids.items()}
    assert sorted(tokens, key=tokens.__getitem__) == ["first", "second", "urgent"]


@pytest.mark.parametrize("seed", TIGHT)
def test_agent_of_the_same_mind_refuses_nothing_on_a_nearly_full_cluster(
    monkeypatch: pytest.MonkeyPatch, plans: list[Plan], seed: int
) -> None:
    """Nobody learns what is usually asked for, so that server and agent agree on what nodes are worth."""
    monkeypatch.setattr(LearntWorth, "look", lambda *_: None)
    dice = Random(seed)
    fleet = Fleet(gpus=[dice.choice((8, 8, 7, 6, 5, 4, 2)) for _ in range(NODES)])
    uids = decided_at_once(fleet, *tight_queue(dice))
    fleet.advance(10.0)
    assert any(plan.made_room for plan in plans)
    placed = {place.uid for plan in plans for place in plan.decisions}
    assert [verdict for verdict in fleet.wire.verdicts if verdict.verdict == "Refused"] == []
    assert {uid for uid in uids.values() if fleet.group(uid).phase is Phase.RUNNING} == placed


def tight_queue(dice: Random) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number in range(30):
        gpus, pods = dice.choice(((1, 1), (2, 1), (2, 2), (4, 1), (8, 1), (4, 2), (8, 2)))
        on_one_host = not dice.randrange(3) and pods * gpus <= 8
        fields = {"topology": {"required": "host"}} if on_one_host else {}
        found.append(manifest(f"g-{number:02}", pods=pods, gpus=gpus, priority=dice.choice((0, 0, 1, 2)), **fields))
    return found
