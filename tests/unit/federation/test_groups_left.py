"""How many groups may have their home in one cluster: as many as its agent answers for."""

from __future__ import annotations

import pytest

from cluster_agents.core.config import LEDGER_ENTRIES_MAX
from placement.filters import cluster_refusal
from placement.model import GROUPS_PER_CLUSTER_MAX, ClusterName, GroupUid, Position, Reason
from tests.builders import gang
from tests.unit.federation.pump import started


@pytest.mark.parametrize(("homes", "left"), [(0, 10_000), (9_999, 1), (10_000, 0), (10_001, 0)])
def test_a_cluster_has_as_many_homes_as_its_agent_has_entries_for(homes: int, left: int) -> None:
    pump = started()
    pump.join("a", nodes=4)
    tokens = pump.state.clusters[ClusterName("a")].tokens
    tokens.update({Position(-number): GroupUid(f"l.{number}") for number in range(homes)})
    view = pump.leader.placer.fleet(pump.state, pump.now_s)[ClusterName("a")]
    because = cluster_refusal(view, gang("g", gpus=8))
    assert view.groups_left == left
    assert (because is not None and because.reason is Reason.TOO_MANY_GROUPS) == (left == 0)
    assert GROUPS_PER_CLUSTER_MAX == LEDGER_ENTRIES_MAX
