"""Which gangs could get more pods where their others let them stand: for the placer, which does not know where that is.

Asked only of gangs that may not grow just anywhere. How one grows is `resizing`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from cluster_agents.core.plan import Plan
from federation.protocol.messages import ROOMY_MAX
from placement.assignment import Assignment
from placement.elastic import counts_of, largest_growth
from placement.fleet import NodeTable
from placement.joining import assign_joining
from placement.model import GangRequest

LOOKS_PER_REPORT_MAX: Final = 64  # gangs asked anew; the others are told as they were


class Roomy:
    """Answers are kept while neither the gang nor any node changes."""

    def __init__(self) -> None:
        self._answers: dict[str, tuple[Plan, NodeTable, bool]] = {}
        self._after = ""  # the token that was asked last

    def of(self, gangs: Iterable[tuple[str, Plan, GangRequest]], table: NodeTable) -> tuple[str, ...]:
        """The tokens of those that could get one pod more at least, in order; ROOMY_MAX at most."""
        known = {token: (plan, request) for token, plan, request in gangs}
        self._answers = {token: answer for token, answer in self._answers.items() if token in known}
        for token in self._turn(sorted(known), table, known):
            plan, request = known[token]
            self._answers[token] = plan, table, _could_grow(plan, request, table)
            self._after = token
        roomy = sorted(token for token, (plan, _, could) in self._answers.items() if could and plan is known[token][0])
        return tuple(roomy[:ROOMY_MAX])

    def _turn(
        self, tokens: Sequence[str], table: NodeTable, known: dict[str, tuple[Plan, GangRequest]]
    ) -> Sequence[str]:
        """Those to be asked now, beginning behind the one that was asked last."""
        stale = [token for token in tokens if self._answers.get(token, (None, None))[:2] != (known[token][0], table)]
        ordered = [*(one for one in stale if one > self._after), *(one for one in stale if one <= self._after)]
        return ordered[:LOOKS_PER_REPORT_MAX]


def _could_grow(plan: Plan, request: GangRequest, table: NodeTable) -> bool:
    standing = plan.standing()

    def fits(more: GangRequest) -> bool | None:
        return isinstance(assign_joining(table, more, standing), Assignment) or None

    return largest_growth(request, plan.counts, counts_of(request), fits) is not None
