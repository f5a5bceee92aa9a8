"""Becoming the process that acts: claim the ledger, then read what is in the cluster from the API server itself.

A watch may lag behind the last writes of the process before us; verdicts built on it would be wrong. What is found is
made into gangs in `reconcile`.
"""

from __future__ import annotations

from typing import Final

from cluster_agents.core.books import Books, Touched
from cluster_agents.core.calls import TAKEOVER, Outcome, Request, Step, outcome
from cluster_agents.core.config import BACKOFF_S_MAX, LABEL_KIND, LABEL_TOKEN, AgentConfig
from cluster_agents.core.events import Kind, KubeObject, WriteClass
from cluster_agents.core.objects import is_list, items, text, version

PAGE_ITEMS: Final = 500  # Kubernetes' own client uses chunks of 500
PAGES_MAX: Final = 1_000


class Takeover:
    """The fresh lists, one page under way at a time."""

    def __init__(self, config: AgentConfig) -> None:
        self._lists = [
            (Kind.CONFIGMAPS, f"/api/v1/namespaces/{config.namespace}/configmaps", LABEL_KIND),
            (Kind.JOBS, "/apis/batch/v1/jobs", LABEL_TOKEN),
            (Kind.PODS, "/api/v1/pods", LABEL_TOKEN),
        ]
        self._items: list[KubeObject] = []
        self._pages = 0
        self._continue = ""
        self._asked = False
        self._retry_at_s = 0.0

    @property
    def done(self) -> bool:
        return not self._lists

    def wake_at_s(self) -> float:
        return float("inf") if self._asked or self.done else self._retry_at_s

    def next_request(self, now_s: float) -> Request | None:
        """The next page to read."""
        if self.done or self._asked or now_s < self._retry_at_s:
            return None
        kind, path, label = self._lists[0]
        query = [("labelSelector", label), ("limit", str(PAGE_ITEMS))]
        if self._continue:
            query.append(("continue", self._continue))
        self._asked = True
        return Request(TAKEOVER, Step.LIST, kind.value, "GET", path, write_class=WriteClass.READ, query=tuple(query))

    def answered(self, status: int, body: KubeObject, books: Books, now_s: float) -> list[Touched]:
        """Take a page in; whole lists go into the books. An expired or failed list begins anew."""
        self._asked = False
        if outcome(status) is not Outcome.DONE or not is_list(body) or self._pages >= PAGES_MAX:
            self._items, self._continue, self._pages = [], "", 0
            self._retry_at_s = now_s + BACKOFF_S_MAX / 5
            return []
        self._items.extend(items(body, "items"))
        self._pages += 1
        self._continue = text(body, "metadata", "continue")
        return [] if self._continue else self._whole(body, books)

    def _whole(self, body: KubeObject, books: Books) -> list[Touched]:
        kind = self._lists.pop(0)[0]
        found, self._items, self._pages = self._items, [], 0
        match kind:
            case Kind.CONFIGMAPS:
                books.intents_fresh(found)
                return []
            case Kind.JOBS:
                return books.listed(Kind.JOBS, found)
            case _:
                return books.pods_fresh(found, version(body))
