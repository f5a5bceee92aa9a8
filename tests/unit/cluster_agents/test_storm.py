"""Many faults at once, drawn from a seed: when they end, every group is whole or gone, and nothing is left over."""

import random

import pytest

from cluster_agents.core.events import AgentEffect, CallKube
from tests.unit.cluster_agents.rig import Rig, node, template

STATUSES = [0, 0, 409, 429, 500, 503]


class Storm:
    """Faults of one seed: refused calls, lost replies, deaths of the agent, pods deleted by somebody."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.rig = rig
        self.rng = random.Random(seed)
        self.refused = self.rng.choice([0.02, 0.1, 0.3])
        self.lost = self.rng.choice([0.02, 0.1])
        self.death = self.rng.choice([0.0, 0.01, 0.03])

    def begin(self) -> None:
        self.rig.override = self._status
        self.rig.lose_reply = lambda _: self.rng.random() < self.lost
        self._arm()

    def _arm(self) -> None:
        dies = self._dies
        if self.rng.random() < 0.5:
            self.rig.die_before = dies
        else:
            self.rig.die_after = dies

    def _status(self, call: CallKube) -> int | None:
        if "/leases/" in call.path:
            return None  # two thirds of a minute without the local lease would be another test
        return self.rng.choice(STATUSES) if self.rng.random() < self.refused else None

    def _dies(self, effect: AgentEffect) -> bool:
        return isinstance(effect, CallKube) and "/leases" not in effect.path and self.rng.random() < self.death

    def blow(self, seconds: int, *, deletes: bool = True) -> None:
        for _ in range(seconds):
            self.rig.advance(1.0)
            if not self.rig.processes:
                self.rig.start()
                self._arm()
            if deletes and self.rng.random() < 0.02 and (pods := self.rig.pods()):
                pod = self.rng.choice(pods)["metadata"]
                self.rig.request("DELETE", f"/api/v1/namespaces/{pod['namespace']}/pods/{pod['name']}")
            self.rig.ring() if self.rig.processes else None

    def end(self) -> None:
        self.rig.override = lambda _: None
        self.rig.lose_reply = lambda _: False
        self.rig.die_before = self.rig.die_after = lambda _: False
        if not self.rig.processes:
            self.rig.start()


@pytest.mark.long
@pytest.mark.parametrize("together", [False, True], ids=["one by one", "in handfuls"])
@pytest.mark.parametrize("seed", range(8))
def test_after_a_storm_every_group_is_whole_or_gone(seed: int, *, together: bool) -> None:
    rig = Rig(*(node(f"n-{number}") for number in range(4))).ready()
    rig.together = together
    storm = Storm(rig, seed)
    storm.begin()
    tokens: list[str] = []
    for number in range(6):
        pods = storm.rng.randint(1, 6)
        run_s = storm.rng.choice([None, None, 10.0])
        job = {}
        if number % 3 == 2:
            job = {
                "workload": "job",
                "workload_object": {"spec": {"completionMode": "Indexed", "backoffLimit": 0}},
                "roles": [{"name": "worker", "count": pods, "template": template(run_s=run_s)}],
            }
        policy = storm.rng.choice(["StopAndMove", "HoldInPlace"])
        tokens.append(rig.federation.place(pods=pods, run_s=run_s, policy=policy, grace_s=10, **job))
        storm.blow(storm.rng.randint(1, 8))
        if storm.rng.random() < 0.3 and (homes := sorted(rig.federation.homes)):
            rig.federation.change(storm.rng.choice(homes), intent="stop", stop_reason="Cancelled")
    storm.blow(30)
    storm.end()
    rig.advance(90.0)
    for token in tokens:
        gang = rig.agent.gangs.get(token)
        if token in rig.federation.homes:
            assert gang is not None
            assert gang.stage == "whole"
            assert rig.bound(token) == len(rig.live(token)) == gang.plan.pods  # type: ignore[union-attr]
        else:
            assert gang is None
            assert rig.pods(token) == []
            assert rig.live(token) == []
    whole = [gang.plan for gang in rig.agent.gangs.values() if gang.stage == "whole" and gang.plan is not None]
    assert len(rig.intents()) == len(whole)
    assert len(rig.objects("services")) == sum(plan.pods > 1 for plan in whole)
    assert rig.agent.ledger.entries() == []
