"""Tries every order of events of the protocol within bounds, breadth first. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from tests.model_store.protocol import Bounds, Rule, State, first_state, next_states, violation

STATES_MAX = 3_000_000  # memory: some 3 GB


@dataclass(frozen=True, slots=True)
class Searched:
    states: int
    broken: str | None
    events: int
    """How many events lead to what is broken, at least; else the longest way without repetition."""


def search(bounds: Bounds, rules: frozenset[Rule]) -> Searched:
    """Look at every state within `bounds`, or up to the nearest one that breaks a promise."""
    layer: list[State] = [first_state(bounds)]
    seen: set[State] = set(layer)
    events = 0
    while layer:
        events += 1
        following: list[State] = []
        for state in layer:
            for after in next_states(state, bounds, rules):
                if after in seen:
                    continue
                seen.add(after)
                broken = violation(after, rules)
                if broken is not None:
                    return Searched(len(seen), broken, events)
                following.append(after)
        assert len(seen) <= STATES_MAX
        layer = following
    return Searched(len(seen), None, events)
