"""What the agent's shell adds to the calls of its core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from cluster_agents.core.config import AgentConfig
from cluster_agents.core.events import CallKube, WriteClass
from cluster_agents.core.reconcile import Reconciler
from cluster_agents.loop import AgentLoop


@dataclass
class Calls:
    """An API server that takes everything."""

    queries: list[dict[str, str]] = field(default_factory=list)

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Any = (),
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        timeout_s: float,
    ) -> tuple[int, Mapping[str, Any]]:
        self.queries.append(dict(query))
        return 201, {}


@pytest.mark.parametrize(
    ("remaining_s", "told"), [(5.0, "5000ms"), (2.9, "2900ms"), (0.3, "300ms"), (0.0011, "1ms"), (0.0001, "1ms")]
)
async def test_a_server_is_given_no_longer_for_what_starts_something_than_remains_of_the_lease(
    remaining_s: float, told: str
) -> None:
    kube = Calls()
    loop = AgentLoop(Reconciler(AgentConfig("c-1", "boot")), kube)
    await loop._call(CallKube(1, "POST", "/api/v1/namespaces/default/pods", {}, remaining_s, WriteClass.STARTS))
    assert kube.queries == [{"timeout": told}]
