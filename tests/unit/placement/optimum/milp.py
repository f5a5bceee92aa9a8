"""The best that any scheduler could do with an instance, by mixed-integer programming (HiGHS; Huangfu and Hall, 2018).

A gang stands in one domain of its level or nowhere; how many of its pods a node takes is a whole number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import highspy

from placement.engine import Pending
from placement.fleet import Fleet
from tests.unit.placement.optimum.instances import Instance, weight

GAP = 0.002  # of the optimum: a fifth of the percent that is allowed on average

Node = tuple[str, str, str, int]  # cluster, clique, name, free GPUs


class Packing:
    """The packings of one fleet as an integer program."""

    def __init__(self, fleet: Fleet, gangs: Iterable[Pending]) -> None:
        self._solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]  # it has no types
        self._solver.silent()
        self._solver.setOptionValue("mip_rel_gap", GAP)
        self._solver.setOptionValue("threads", 1)
        self._nodes = list(_nodes(fleet))
        self._used: dict[str, list[Any]] = {name: [] for _, _, name, _ in self._nodes}
        self._placed = [(weight(item) * item.request.gpus, self._add(item)) for item in gangs]
        for _, _, name, free in self._nodes:
            if self._used[name]:
                self._solver.addConstr(sum(self._used[name]) <= free)

    def _add(self, item: Pending) -> Any:
        """Whether the gang is placed, as a sum over its domains of which one at most is chosen."""
        (role,) = item.request.roles
        chosen = []
        for inside in self._domains(item.request.level_required):
            if sum(free // role.gpus for *_, free in inside) < role.count:
                continue
            here = self._solver.addBinary()
            pods = []
            for _, _, name, free in inside:
                if free >= role.gpus:
                    count = self._solver.addIntegral(0, min(role.count, free // role.gpus))
                    pods.append(count)
                    self._used[name].append(role.gpus * count)
            self._solver.addConstr(sum(pods) == role.count * here)
            chosen.append(here)
        placed = sum(chosen)
        if chosen:
            self._solver.addConstr(placed <= 1)
        return placed

    def _domains(self, level: str) -> list[list[Node]]:
        which = {"": 0, "clique": 1, "host": 2}[level]
        domains: dict[str, list[Node]] = {}
        for one in self._nodes:
            domains.setdefault(str(one[which]), []).append(one)
        return list(domains.values())

    def gpus_max(self) -> float:
        """No packing places more GPUs, weighted: the solver's bound, which its optimum reaches up to GAP."""
        self._solver.maximize(sum(gpus * placed for gpus, placed in self._placed))
        return float(self._solver.getInfo().mip_dual_bound)


def _nodes(fleet: Fleet) -> Iterator[Node]:
    for view in fleet.values():
        for row in view.table.rows():
            yield view.name, row.clique, row.name, row.gpus_free


def gpus_max(instance: Instance) -> float:
    """Weighted GPUs that the best choice of gangs takes, whoever came first."""
    return Packing(instance.fleet, instance.gangs).gpus_max()
