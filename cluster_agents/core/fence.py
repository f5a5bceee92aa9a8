"""The agent's standing under its cluster's lease: may it start groups, must it stop them (DESIGN §9, §11).

A starting agent has no deadline: it starts nothing, and fences unless a renewal asked for after its start succeeds
within R. What fencing does to each group is decided in `reconcile` and `binding`.
"""

from __future__ import annotations

from enum import Enum, auto

from cluster_agents.core.config import AgentConfig
from federation.protocol.lease import AgentLease, LeaseNews
from federation.protocol.messages import Renewal, RenewalAnswer

STARTING_TRIES = 4  # renewals asked for within the R that a starting agent has


class Standing(Enum):
    STARTING = auto()  # no deadline yet: starts nothing, stops nothing
    LIVE = auto()
    FENCED = auto()  # starts nothing; holds only what may be held


class Fence:
    """Since this process became the one that acts, at `now_s`."""

    def __init__(self, config: AgentConfig, *, holder_uid: str, holder_boot: str, now_s: float) -> None:
        timings = config.timings
        self._timings = timings
        self.lease = AgentLease(
            cluster=config.cluster,
            holder_uid=holder_uid,
            holder_boot=holder_boot,
            ttl_s=timings.ttl_s,
            started_at_s=now_s,
        )
        self._fence_by_s = now_s + timings.renew_s
        self._fenced = False
        self.renew_due_s = now_s
        self._api_ok_s = now_s

    def standing(self, now_s: float) -> Standing:
        """Call `pass_time` first: the deadline alone does not undo anything."""
        if self._fenced:
            return Standing.FENCED
        return Standing.LIVE if self.lease.live(now_s) else Standing.STARTING

    def live(self, now_s: float) -> bool:
        return not self._fenced and self.lease.live(now_s)

    def remaining_s(self, now_s: float) -> float | None:
        """What guards may count on; None while a starting agent cannot say."""
        match self.standing(now_s):
            case Standing.STARTING:
                return None
            case Standing.LIVE:
                return self.lease.remaining_s(now_s)
            case Standing.FENCED:
                return 0.0

    @property
    def deadline_s(self) -> float | None:
        return None if self._fenced else self.lease.deadline_s

    def pass_time(self, now_s: float) -> bool:
        """True when the agent must fence now: its deadline passed, or a starting agent had no answer within R."""
        if self._fenced:
            return False
        deadline_s = self._fence_by_s if self.lease.deadline_s is None else self.lease.deadline_s
        if now_s < deadline_s:
            return False
        self._fenced = True
        return True

    # --- renewals -----------------------------------------------------------------------------------------------------

    def api_answered(self, now_s: float) -> None:
        """A call to our API server was answered: we can still stop what we would have to stop."""
        self._api_ok_s = now_s

    def renewing(self, now_s: float) -> bool:
        """Who could not write to its API server for TTL/3 must not keep its cluster's lease alive."""
        return now_s - self._api_ok_s < self._timings.ttl_s / 3

    def renew(self, now_s: float, *, ask_id: int) -> Renewal | None:
        """The renewal that is due (`renew_due_s`), if it may be sent."""
        assert now_s >= self.renew_due_s
        starting = self.lease.deadline_s is None and not self._fenced
        self.renew_due_s = now_s + self._timings.renew_s / (STARTING_TRIES if starting else 1)
        if not self.renewing(now_s):
            return None
        return self.lease.renew(now_s, nonce=f"{self.lease.holder_boot}/{ask_id}", ask_id=ask_id)

    def answered(self, answer: RenewalAnswer, now_s: float) -> LeaseNews:
        """Take an answer in. FENCED: stop now. RENEWED: live again if its deadline lies ahead."""
        before = (self.lease.epoch, self.lease.renew_seq)
        news = self.lease.answered(answer)
        match news:
            case LeaseNews.FENCED:
                self._fenced = True
            case LeaseNews.RENEWED if self.lease.live(now_s):
                self._fenced = False
            case LeaseNews.NOTHING if (self.lease.epoch, self.lease.renew_seq) != before:
                self.renew_due_s = now_s  # our number or epoch was old: try at once with the one we learnt
            case _:
                pass
        return news

    def wake_at_s(self) -> float:
        if self._fenced:
            return self.renew_due_s
        deadline_s = self._fence_by_s if self.lease.deadline_s is None else self.lease.deadline_s
        return min(self.renew_due_s, deadline_s)
