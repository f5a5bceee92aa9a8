"""Sizes changed in the midst of many faults: what ran stays, each resize has one outcome, and nothing is left over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from cluster_agents.core.plan import Plan, read_intent
from cluster_agents.core.stages import Stage
from tests.unit.cluster_agents.rig import Rig, node, template
from tests.unit.cluster_agents.test_storm import Storm

PODS, LEAST = 6, 2


class Resizes:
    """A group that is given sizes again and again, each once the one before has been answered, as servers see to."""

    def __init__(self, rig: Rig, storm: Storm, **spec: Any) -> None:
        self.rig = rig
        self.storm = storm
        self.asked: dict[int, tuple[int, ...]] = {}
        self.token = rig.federation.place(pods=PODS, elastic=True, min_count=LEAST, policy="HoldInPlace", **spec)
        rig.federation.change(self.token, counts=(storm.rng.randint(LEAST, PODS - 1),))
        rig.run(self.token)

    @property
    def answered(self) -> bool:
        position = self.rig.federation.homes[self.token].resized_at
        return not position or position in {at for _, at in self.rig.federation.sized(self.token)}

    def go_on(self) -> None:
        """Ask for another size, if it is time."""
        home = self.rig.federation.homes.get(self.token)
        if home is not None and home.bound and self.answered and self.storm.rng.random() < 0.3:
            counts = (self.storm.rng.randint(LEAST, PODS),)
            self.asked[self.rig.federation.resize(self.token, *counts)] = counts

    def plan(self) -> Plan:
        """As its intent has it."""
        found = [read_intent(obj) for _, obj in self.rig.api.store.each("configmaps")]
        return next(one.plan for one in found if one is not None and one.plan.token == self.token)


def blow(rig: Rig, storm: Storm, resizes: Resizes, look: Callable[[], None] = lambda: None) -> bool:
    """Faults and resizes, with a look now and then, and then calm; False if the group was given up meanwhile."""
    storm.begin()
    for _ in range(60):
        storm.blow(3, deletes=False)
        look()
        if resizes.token not in rig.federation.homes:
            break
        resizes.go_on()
    storm.end()
    rig.advance(240.0)
    return resizes.token in rig.federation.homes


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_after_a_storm_a_group_has_the_size_that_it_says(seed: int) -> None:
    rig = Rig(*(node(f"n-{number}", gpus=gpus) for number, gpus in enumerate((2, 2, 2 - seed % 2)))).ready()
    storm = Storm(rig, seed)
    resizes = Resizes(rig, storm)
    first = {pod["metadata"]["uid"] for pod in rig.pods(resizes.token)[:LEAST]}
    if not blow(rig, storm, resizes):  # then nothing of it is left
        assert rig.pods(resizes.token) == []
        assert rig.intents() == []
        return
    plan, outcomes = resizes.plan(), rig.federation.sized(resizes.token)
    assert len({position for _, position in outcomes}) == len(outcomes), "a resize has one outcome"
    assert [position for _, position in outcomes] == sorted(resizes.asked)
    assert (plan.joining, plan.leaving) == ((), ())
    assert rig.bound(resizes.token) == len(rig.pods(resizes.token)) == plan.pods
    assert rig.federation.homes[resizes.token].counts == plan.counts
    assert rig.agent.gangs[resizes.token].stage is Stage.WHOLE
    assert first <= {pod["metadata"]["uid"] for pod in rig.pods(resizes.token)}, "the lowest ranks are never touched"
    held = rig.agent.gangs[resizes.token].holdings
    assert sum(amounts.gpus for amounts in held.values()) == plan.pods


@pytest.mark.parametrize("seed", range(4))
def test_in_a_storm_a_group_grows_in_its_rack_alone_and_no_host_gets_more_of_it_than_it_may(seed: int) -> None:
    racks = {f"n-{number}": "a" for number in range(5)} | {f"m-{number}": "b" for number in range(6)}
    gpus = {"a": 2, "b": 8}
    rig = Rig(*(node(name, gpus=gpus[rack], **{"muster.io/rack": rack}) for name, rack in racks.items())).ready()
    storm = Storm(rig, seed)
    roles = [{"name": "worker", "count": PODS, "template": template(), "topology": {"per_host": 2 - seed % 2}}]
    resizes = Resizes(rig, storm, roles=roles, topology={"required": "rack"})
    (rack,) = {racks[pod["spec"]["nodeName"]] for pod in rig.pods(resizes.token)}
    most = set[int]()

    def look() -> None:
        hosts = Counter(pod["spec"]["nodeName"] for pod in rig.pods(resizes.token) if pod["spec"].get("nodeName"))
        assert {racks[name] for name in hosts} <= {rack}
        assert max(hosts.values(), default=0) <= 2 - seed % 2
        most.add(hosts.total())

    blow(rig, storm, resizes, look)
    assert max(most) > min(most - {0}), "it grew or shrank"
