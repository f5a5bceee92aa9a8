"""`muster-agent` with one planted bug: `agent.py BUG [the agent's own arguments]`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from cluster_agents import main as agent
from cluster_agents.core.fence import Fence, Standing
from federation.protocol.lease import AgentLease


def fence_ignored() -> None:
    """The lease has no end: neither the agent nor the guards it answers stop anything when it has run out."""

    def standing(self: Fence, now_s: float) -> Standing:
        del now_s
        return Standing.STARTING if self.lease.deadline_s is None else Standing.LIVE

    def remaining_s(self: AgentLease, now_s: float) -> float:
        del now_s
        return 0.0 if self.deadline_s is None else self.ttl_s

    def live(self: Fence, now_s: float) -> bool:
        del now_s
        return self.lease.deadline_s is not None

    def pass_time(self: Fence, now_s: float) -> bool:
        del self, now_s
        return False

    Fence.standing = standing  # type: ignore[method-assign]
    Fence.live = live  # type: ignore[method-assign]
    Fence.pass_time = pass_time  # type: ignore[method-assign]
    AgentLease.remaining_s = remaining_s  # type: ignore[method-assign]


BUGS: Final[dict[str, Callable[[], None]]] = {"fence-ignored": fence_ignored}

if __name__ == "__main__":
    BUGS[sys.argv.pop(1)]()
    sys.exit(agent.main())
