"""What tests of the node guard are written in: a clock that only they move, and a guard under a lease."""

from __future__ import annotations

from dataclasses import dataclass

from cluster_agents.core.guard import Guard
from federation.protocol.messages import GuardAnswer

START_S = 1_000.0
RENEWAL_S = 10.0
DEADLINE_S = START_S + 60.0  # of `leased`


@dataclass
class Clock:
    now_s: float = START_S

    def __call__(self) -> float:
        return self.now_s


def starting(*held_before: str) -> Guard:
    """No agent has answered it yet."""
    held = frozenset(held_before)
    return Guard("n-1", 1, started_at_s=START_S, renewal_s=RENEWAL_S, held_before=held)


def lease(guard: Guard, at_s: float, remaining_s: float, *hold: str) -> None:
    """An agent answers what was asked at this time."""
    guard.answered(GuardAnswer(ask_id=guard.ask(at_s).ask_id, remaining_s=remaining_s, hold=hold))


def leased(*hold: str) -> Guard:
    guard = starting()
    lease(guard, START_S, DEADLINE_S - START_S, *hold)
    return guard
