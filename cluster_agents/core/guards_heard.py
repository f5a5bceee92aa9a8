"""Which nodes have a guard that is heard of: the others take no new pods where the cluster's strength is `guard`.

After a TTL without an ask the guard of a node either is not there or has come to its deadline; either way nothing of
ours may start there. What runs there runs on, or is that guard's to stop.
"""

from __future__ import annotations

from cluster_agents.core.config import NEVER


class GuardsHeard:
    """By node of the inventory, when its guard was heard last, or when we could first have heard it."""

    def __init__(self, silent_after_s: float) -> None:
        assert silent_after_s > 0
        self._silent_after_s = silent_after_s
        self._appeared: set[str] = set()  # since time last passed
        self._heard_s: dict[str, float] = {}  # oldest first; none of these is silent
        self._silent: set[str] = set()

    def silent(self, node: str) -> bool:
        return node in self._silent

    @property
    def due_s(self) -> float:
        """When the next one becomes silent, unless it is heard."""
        if self._appeared:
            return 0.0
        return next(iter(self._heard_s.values()), NEVER) + self._silent_after_s

    def appeared(self, node: str) -> None:
        """A node that was not there."""
        self._appeared.add(node)

    def gone(self, node: str) -> None:
        self._appeared.discard(node)
        self._heard_s.pop(node, None)
        self._silent.discard(node)

    def heard(self, node: str, now_s: float) -> bool:
        """Its guard has asked; True when it was silent before. What no node is called is nobody's."""
        if node not in self._silent and self._heard_s.pop(node, None) is None:
            return False
        was_silent = node in self._silent
        self._silent.discard(node)
        self._heard_s[node] = now_s
        return was_silent

    def begin(self, now_s: float) -> list[str]:
        """From now on guards ask us: none is silent yet. Returns the nodes for which that is news."""
        before = sorted(self._silent)
        nodes = [*self._heard_s, *before, *sorted(self._appeared)]
        self._heard_s = dict.fromkeys(nodes, now_s)
        self._appeared, self._silent = set(), set()
        return before

    def pass_time(self, now_s: float) -> list[str]:
        """The nodes whose guards have become silent. O(those, and those that appeared)."""
        self._heard_s |= dict.fromkeys(sorted(self._appeared), now_s)
        self._appeared.clear()
        found: list[str] = []
        for node, heard_s in self._heard_s.items():
            if now_s < heard_s + self._silent_after_s:
                break
            found.append(node)
        for node in found:
            del self._heard_s[node]
        self._silent.update(found)
        return found
