"""What the agent asks its API server on its own account: which cluster this is, and whether a pod is really gone."""

from __future__ import annotations

from cluster_agents.core.books import Books
from cluster_agents.core.calls import AGENT, Calls, Request, Step
from cluster_agents.core.config import BACKOFF_S_MAX
from cluster_agents.core.events import WriteClass

NAMESPACE_PATH = "/api/v1/namespaces/kube-system"


class Identity:
    """Which cluster this really is: `uid` of namespace kube-system, empty until it was read."""

    def __init__(self) -> None:
        self.uid = ""
        self._at_s = 0.0

    def wake_at_s(self, calls: Calls) -> float:
        return float("inf") if self.uid or calls.busy(AGENT, Step.IDENTITY) else self._at_s

    def due(self, calls: Calls, now_s: float) -> bool:
        return now_s >= self.wake_at_s(calls)

    def ask(self, now_s: float) -> Request:
        """The read; it is due again a little later unless it is answered."""
        self._at_s = now_s + BACKOFF_S_MAX
        return Request(AGENT, Step.IDENTITY, "", "GET", NAMESPACE_PATH, write_class=WriteClass.READ)


class Doubts:
    """Pods that a list did not show: only a read of the pod itself proves that it is gone."""

    def __init__(self, books: Books, calls: Calls) -> None:
        self._books = books
        self._calls = calls
        self._at_s = 0.0

    def wake_at_s(self) -> float:
        return self._at_s if self._books.doubted else float("inf")

    def confirm(self, now_s: float) -> None:
        """Ask for each of them, now and then."""
        if now_s < self.wake_at_s():
            return
        self._at_s = now_s + BACKOFF_S_MAX
        for key in sorted(self._books.doubted):
            path = f"/api/v1/namespaces/{key.namespace}/pods/{key.name}"
            self._calls.want(Request(AGENT, Step.CONFIRM_GONE, str(key), "GET", path, write_class=WriteClass.READ))
