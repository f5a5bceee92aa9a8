"""What leaves the kubelets and when they want to be woken: effects, calls under way, timers. Decides nothing."""

import heapq

from cluster_agents.simkube.apiserver.types import ApiRequest
from cluster_agents.simkube.kubelet.types import ApiCall, Effect


class Outbox:
    """Shared by pods and nodes of one cluster. `now_s` is the time of the event being handled."""

    def __init__(self, now_s: float, call_timeout_s: float) -> None:
        self.now_s = now_s
        self._call_timeout_s = call_timeout_s
        self._effects: list[Effect] = []
        self._calls: dict[int, tuple[str, str]] = {}  # call -> (node, pod uid or the node's purpose)
        self._call_last = 0
        self._call_timers: list[tuple[float, int]] = []
        self._timers: list[tuple[float, tuple[str, str]]] = []  # heap of (due, (node, pod uid or ""))
        self._due_s: dict[tuple[str, str], float] = {}  # the one valid timer of each

    @property
    def wake_at_s(self) -> float | None:
        """When the next timer or call time-out is due; None for never."""
        timers, call_timers = self._timers, self._call_timers
        while timers and self._due_s.get(timers[0][1]) != timers[0][0]:
            heapq.heappop(timers)
        while call_timers and call_timers[0][1] not in self._calls:
            heapq.heappop(call_timers)
        if not call_timers:
            return timers[0][0] if timers else None
        return min(timers[0][0], call_timers[0][0]) if timers else call_timers[0][0]

    def schedule(self, node: str, uid: str, at_s: float | None) -> None:
        """Wake this pod (or, with uid "", this node) then, and not when it was planned before."""
        key = (node, uid)
        if at_s is None:
            self._due_s.pop(key, None)
        elif self._due_s.get(key) != at_s:
            self._due_s[key] = at_s
            heapq.heappush(self._timers, (at_s, key))

    def next_timed_out(self) -> int | None:
        """A call that has waited too long, if any."""
        at_s = self.wake_at_s
        if at_s is None or at_s > self.now_s or not self._call_timers or self._call_timers[0][0] != at_s:
            return None
        return heapq.heappop(self._call_timers)[1]

    def next_due(self) -> tuple[str, str] | None:
        """The (node, pod uid or "") whose time has come, if any; in order of time, then name."""
        at_s = self.wake_at_s
        if at_s is None or at_s > self.now_s or not self._timers or self._timers[0][0] != at_s:
            return None
        _, key = heapq.heappop(self._timers)
        del self._due_s[key]
        return key

    def call(self, node: str, purpose: str, request: ApiRequest) -> int:
        """Send a request for the node; its reply, or its time-out, will be told under the id returned."""
        self._call_last += 1
        self._calls[self._call_last] = (node, purpose)
        heapq.heappush(self._call_timers, (self.now_s + self._call_timeout_s, self._call_last))
        self.emit(ApiCall(self._call_last, node, request))
        return self._call_last

    def close(self, call_id: int) -> tuple[str, str] | None:
        """Whose call this was; None if it timed out or was forgotten before."""
        return self._calls.pop(call_id, None)

    def forget_calls(self, node: str) -> None:
        """Whatever the node had under way will not be answered; it may have been carried out."""
        for call_id in [c for c, (name, _) in self._calls.items() if name == node]:
            del self._calls[call_id]

    def emit(self, effect: Effect) -> None:
        """Add to what this event answers."""
        self._effects.append(effect)

    def take(self) -> list[Effect]:
        """All effects since the last `take`."""
        effects, self._effects = self._effects, []
        return effects
