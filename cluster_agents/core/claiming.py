"""Telling a fleet that recovers from a backup what the groups were made from that run here and that it does not know.

The fleet says which: a claim without groups asks for that. What was kept of a group stands in its intent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from cluster_agents.core.config import AgentConfig
from cluster_agents.core.plan import Intent
from federation.protocol.messages import CLAIMS_BYTES_MAX, CLAIMS_MAX, Claim, Claims, ClaimsAnswer

CLAIM_EVERY_S: Final = 1.0
"""Between claims while nothing is wanted, or nobody answers: the fleet stands still meanwhile."""


class Claiming:
    """One at a time; the next leaves as soon as an answer says what is wanted."""

    def __init__(self, config: AgentConfig) -> None:
        self._cluster = config.cluster
        self._wanted: tuple[str, ...] = ()
        self._ask_id = 0
        self.due_s = float("-inf")

    def ask(self, now_s: float, ask_id: int, intents: Iterable[Intent]) -> Claims:
        """What is wanted, as far as one message holds it."""
        self.due_s = now_s + CLAIM_EVERY_S
        self._ask_id = ask_id
        wanted, self._wanted = self._wanted, ()
        groups = tuple(_fitting(wanted[:CLAIMS_MAX], intents)) if wanted else ()
        return Claims(ask_id=ask_id, cluster=self._cluster, groups=groups)

    def answered(self, answer: ClaimsAnswer) -> bool:
        """Take in what is wanted; False when it says nothing new."""
        if answer.ask_id != self._ask_id or not answer.wanted:
            return False
        self._wanted = answer.wanted
        self.due_s = float("-inf")
        self._ask_id = 0  # its answer on the other path says the same
        return True


def _fitting(wanted: tuple[str, ...], intents: Iterable[Intent]) -> Iterator[Claim]:
    """A claim for each of these groups, until the message is full; where nothing was kept, it says so."""
    asked = set(wanted)
    kept = {one.plan.uid: one for one in intents if one.spec and one.plan.uid in asked}
    room = CLAIMS_BYTES_MAX
    for number, uid in enumerate(wanted):
        claim = kept[uid].claim() if uid in kept else Claim(uid)
        room -= len(uid) + len(claim.spec) + len(claim.origin)
        if number and room < 0:
            return
        yield claim
