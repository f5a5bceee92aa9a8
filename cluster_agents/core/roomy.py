"""Which gangs could get more pods where their others let them stand: for the placer, which does not know where that is.

Asked only of gangs that may not grow just anywhere. How one grows is `resizing`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

from cluster_agents.core.inventory import Inventory
from cluster_agents.core.plan import Plan
from cluster_agents.core.pod_places import within_pod_places
from federation.protocol.messages import ROOMY_MAX
from placement.assignment import Assignment
from placement.elastic import could_grow, counts_of
from placement.fleet import NodeTable
from placement.joining import assign_joining
from placement.model import GangRequest

LOOKS_PER_REPORT_MAX: Final = 64  # gangs asked anew; the others are told as they were


class Roomy:
    """Answers are kept while neither the gang nor any node changes."""

    def __init__(self) -> None:
        self._answers: dict[str, tuple[Plan, NodeTable, bool]] = {}
        self._after = ""  # the token that was asked last
        self._named = ""  # and the one that was named last

    def of(self, gangs: Iterable[tuple[str, Plan, GangRequest]], inventory: Inventory) -> tuple[str, ...]:
        """The tokens of those that could get one pod more at least, in order; ROOMY_MAX at most, in turn: some may not
        grow for reasons that are not known here."""
        table = inventory.table()
        known = {token: (plan, request) for token, plan, request in gangs}
        self._answers = {token: answer for token, answer in self._answers.items() if token in known}
        stale = [
            token for token in sorted(known) if self._answers.get(token, (None, None))[:2] != (known[token][0], table)
        ]
        for token in _behind(self._after, stale)[:LOOKS_PER_REPORT_MAX]:
            plan, request = known[token]
            self._answers[token] = plan, table, _could_grow(plan, request, inventory)
            self._after = token
        roomy = sorted(token for token, (plan, _, could) in self._answers.items() if could and plan is known[token][0])
        if len(roomy) > ROOMY_MAX:
            roomy = _behind(self._named, roomy)[:ROOMY_MAX]
            self._named = roomy[-1]
        return tuple(sorted(roomy))


def _behind(last: str, tokens: Sequence[str]) -> list[str]:
    """The same, beginning behind this one."""
    return [*(one for one in tokens if one > last), *(one for one in tokens if one <= last)]


def _could_grow(plan: Plan, request: GangRequest, inventory: Inventory) -> bool:
    near = partial(assign_joining, standing=plan.standing())

    def fits(more: GangRequest) -> bool:
        return isinstance(within_pod_places(inventory, more, near), Assignment)

    return could_grow(request, plan.counts, counts_of(request), fits)
