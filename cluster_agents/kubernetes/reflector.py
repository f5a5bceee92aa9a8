"""Keeps the agent's core up to date with one kind of object: list in pages, watch with bookmarks, list again on 410.

What a list means for the objects known before (which are gone) is the core's to find out: it gets the whole list.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from cluster_agents.core.events import AgentEvent, Changed, Kind, Listed
from cluster_agents.core.objects import is_list
from cluster_agents.kubernetes.transport import KubeTransport, WatchEndedError

PAGE: Final = 500
LIST_TIMEOUT_S: Final = 30.0
WATCH_S: Final = 300  # then the server ends the watch and we go on from the last resourceVersion
IDLE_S: Final = 330.0  # a watch that says nothing for this long, bookmarks included, is dead
BACKOFF_S_MIN: Final = 0.1
BACKOFF_S_MAX: Final = 10.0
PAGES_MAX: Final = 1_000  # 500,000 objects; more is not a cluster we serve

log = structlog.get_logger()
Feed = Callable[[AgentEvent], None]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a kind is listed, and by which label."""

    kind: Kind
    path: str
    selector: str = ""


def sources(namespace: str) -> tuple[Source, ...]:
    """All the agent watches: nodes, all pods (capacity), its own Jobs and intents. The ledger, which it alone
    changes, and often, is read by its name."""
    return (
        Source(Kind.NODES, "/api/v1/nodes"),
        Source(Kind.PODS, "/api/v1/pods"),
        Source(Kind.CONFIGMAPS, f"/api/v1/namespaces/{namespace}/configmaps", "muster.io/kind=intent"),
        Source(Kind.JOBS, "/apis/batch/v1/jobs", "muster.io/token"),
    )


class _NoListError(WatchEndedError):
    """The list was refused, or not answered: an agent without it does nothing, and its operator has to know why."""


class _TooOldError(Exception):
    """The resourceVersion is no longer in the server's memory: list again."""


@dataclass(slots=True)
class Reflector:
    transport: KubeTransport
    source: Source
    feed: Feed
    lists: int = 0
    _told: str = ""  # why there is no list, as it was logged last

    async def run(self) -> None:
        """Until cancelled; every failure is retried with jittered back-off."""
        backoff_s = BACKOFF_S_MIN
        version = ""
        while True:
            try:
                if not version:
                    version = await self._list()
                    backoff_s = BACKOFF_S_MIN
                version = await self._watch(version)
                backoff_s = BACKOFF_S_MIN
                continue
            except _TooOldError:
                version = ""
            except _NoListError as error:
                self._tell(str(error))
            except WatchEndedError as error:
                log.debug("watch.ended", kind=self.source.kind.value, why=str(error))
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.5))
            backoff_s = min(BACKOFF_S_MAX, backoff_s * 2)

    def _tell(self, why: str) -> None:
        """Once, however often it is tried again."""
        if why != self._told:
            self._told = why
            log.warning("list.failed", kind=self.source.kind.value, path=self.source.path, why=why)

    async def _list(self) -> str:
        """Feed the whole list; the resourceVersion to watch from. _NoListError when it cannot be had."""
        items: list[Mapping[str, Any]] = []
        mark = ""
        for _ in range(PAGES_MAX):
            query = [*self._query(), ("limit", str(PAGE)), *([("continue", mark)] if mark else [])]
            status, body = await self.transport.call("GET", self.source.path, query=query, timeout_s=LIST_TIMEOUT_S)
            if status == 410:
                raise _TooOldError
            if status != 200:
                raise _NoListError(f"list answered {status}: {body.get('message', '')}")
            if not is_list(body):
                raise _NoListError("list answered 200 with no list")
            items.extend(item for item in body.get("items") or () if isinstance(item, dict))
            metadata = body.get("metadata") or {}
            mark = str(metadata.get("continue") or "")
            if not mark:
                self.lists += 1
                self._told = ""
                self.feed(Listed(self.source.kind, tuple(items)))
                return str(metadata.get("resourceVersion", ""))
        raise _NoListError(f"more than {PAGES_MAX} pages")

    async def _watch(self, version: str) -> str:
        """Feed changes until the server ends the watch; the resourceVersion to go on from."""
        query = [
            *self._query(),
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", version),
            ("timeoutSeconds", str(WATCH_S)),
        ]
        try:
            async for event in self.transport.stream(self.source.path, query, idle_s=IDLE_S):
                version = self._take(event, version)
        except WatchEndedError:
            if version == query[-2][1]:
                raise
        return version

    def _take(self, event: Mapping[str, Any], version: str) -> str:
        item = event.get("object")
        if not isinstance(item, dict):
            return version
        what = event.get("type")
        if what == "ERROR":
            if item.get("code") in {410, 504}:
                raise _TooOldError
            raise WatchEndedError(str(item.get("message", item.get("code"))))
        if what in {"ADDED", "MODIFIED", "DELETED"}:
            self.feed(Changed(self.source.kind, item, deleted=what == "DELETED"))
        return str((item.get("metadata") or {}).get("resourceVersion") or version)

    def _query(self) -> list[tuple[str, str]]:
        return [("labelSelector", self.source.selector)] if self.source.selector else []
