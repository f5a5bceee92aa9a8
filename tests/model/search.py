"""Breadth-first search over (journal, cluster, cluster) states; knows nothing of what the steps mean.

A state is packed into one integer of three numbered parts, and the steps of a (journal, cluster) pair are computed
once: equivalent to a search over tuples, except that a million states take some 25 s and 250 MB.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tests.model.moves import Step, steps
from tests.model.rules import Setting
from tests.model.state import CLUSTERS, Cluster, Journal, Site

PART_BITS = 24  # 16 million different journals or clusters; checked when a number is given out
PART_MASK = (1 << PART_BITS) - 1
STATES_MAX = 20_000_000  # about 5 GB; a search that reaches it is reported as not exhausted

Goal = Callable[[Journal, Cluster, Cluster], bool]
Hashed = TypeVar("Hashed", bound=Hashable)


def double_run(_: Journal, first: Cluster, second: Cluster) -> bool:
    """What must never be: the group has a live container in both clusters (S1 broken)."""
    return first.runs() and second.runs()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search found. `trace` is a shortest way to the goal, None if no state searched meets it."""

    states_count: int
    steps_count: int
    exhausted: bool
    trace: tuple[str, ...] | None


class Numbered(Generic[Hashed]):
    """Gives equal values the same small number."""

    def __init__(self) -> None:
        self.values: list[Hashed] = []
        self._numbers: dict[Hashed, int] = {}

    def number(self, value: Hashed) -> int:
        """The value's number; a new value gets the next one."""
        number = self._numbers.setdefault(value, len(self.values))
        if number == len(self.values):
            assert number <= PART_MASK
            self.values.append(value)
        return number


class Search:
    """One search under one setting, until a state meets the goal, all were seen, or `states_max` is passed."""

    def __init__(self, setting: Setting, goal: Goal = double_run, *, states_max: int = STATES_MAX) -> None:
        self._setting = setting
        self._goal = goal
        self._states_max = states_max
        self._journals: Numbered[Journal] = Numbered()
        self._clusters: Numbered[Cluster] = Numbered()
        self._known: tuple[dict[int, list[tuple[int, int]]], ...] = ({}, {})

    def run(self) -> Outcome:
        """Search from the empty journal."""
        first, second = (self._clusters.number(Cluster()) for _ in CLUSTERS)
        start = _pack(self._journals.number(Journal()), first, second)
        parents = {start: start}
        frontier, steps_count = [start], 0
        while frontier and len(parents) <= self._states_max:
            discovered: list[int] = []
            for state in frontier:
                successors = self._successors(state)
                steps_count += len(successors)
                for successor in successors:
                    if successor in parents:
                        continue
                    parents[successor] = state
                    discovered.append(successor)
                    if self._meets_goal(successor):
                        return Outcome(len(parents), steps_count, False, self._trace(parents, successor))
            frontier = discovered
        return Outcome(len(parents), steps_count, not frontier, None)

    def _successors(self, state: int) -> list[int]:
        journal, first, second = _unpack(state)
        of_first = [_pack(after, changed, second) for after, changed in self._steps(0, journal, first)]
        return of_first + [_pack(after, first, changed) for after, changed in self._steps(1, journal, second)]

    def _steps(self, index: int, journal: int, cluster: int) -> list[tuple[int, int]]:
        key = journal << PART_BITS | cluster
        known = self._known[index].get(key)
        if known is None:
            sites = [after for _, after in self._told(index, journal, cluster)]
            known = [(self._journals.number(site.journal), self._clusters.number(site.cluster)) for site in sites]
            self._known[index][key] = known
        return known

    def _told(self, index: int, journal: int, cluster: int) -> list[Step]:
        site = Site(CLUSTERS[index], self._journals.values[journal], self._clusters.values[cluster])
        return list(steps(self._setting, site))

    def _meets_goal(self, state: int) -> bool:
        journal, first, second = _unpack(state)
        return self._goal(self._journals.values[journal], self._clusters.values[first], self._clusters.values[second])

    def _trace(self, parents: dict[int, int], state: int) -> tuple[str, ...]:
        told: list[str] = []
        while parents[state] != state:
            journal, first, second = _unpack(parents[state])
            possible = self._told(0, journal, first) + self._told(1, journal, second)
            told.append(possible[self._successors(parents[state]).index(state)][0])
            state = parents[state]
        return tuple(reversed(told))


def _pack(journal: int, first: int, second: int) -> int:
    return (journal << PART_BITS | first) << PART_BITS | second


def _unpack(state: int) -> tuple[int, int, int]:
    return state >> 2 * PART_BITS, state >> PART_BITS & PART_MASK, state & PART_MASK
