"""Two small controllers: contents of namespaces that are being deleted, and the expiry of Events."""

from collections import deque
from typing import Final

from cluster_agents.simkube.apiserver import deletion
from cluster_agents.simkube.apiserver.resources import RESOURCES, Route
from cluster_agents.simkube.apiserver.store import Change, Key, Store

EVENT_TTL_S: Final = 3_600.0  # kube-apiserver --event-ttl


class Namespaces:
    """Empties a Terminating namespace, then removes it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._terminating: dict[str, None] = {}
        self._dirty = False

    @property
    def wake_at_s(self) -> float | None:
        """Now, if anything changed in a Terminating namespace."""
        return float("-inf") if self._dirty else None

    def observe(self, change: Change) -> None:
        """Namespaces newly marked, and removals inside those already marked."""
        if change.plural == "namespaces" and "deletionTimestamp" in change.shown["metadata"]:
            if change.after is None:
                self._terminating.pop(change.key[1], None)
            else:
                self._terminating[change.key[1]] = None
                self._dirty = True
        elif change.after is None and change.key[0] in self._terminating:
            self._dirty = True

    def step(self, now_s: float) -> None:  # noqa: ARG002 - controllers share one shape
        """Delete what is inside; remove the namespaces that are empty."""
        self._dirty = False
        for name in list(self._terminating):
            if not self._emptied(name):
                continue
            if self._store.get("namespaces", ("", name)) is not None:
                self._store.remove("namespaces", ("", name))

    def _emptied(self, name: str) -> bool:
        empty = True
        for plural, resource in RESOURCES.items():
            if not resource.namespaced:
                continue
            for key, obj in self._store.each(plural, name):
                if "deletionTimestamp" not in obj["metadata"]:
                    options = deletion.DeleteOptions(None, None, None, "Background")
                    deletion.delete(self._store, Route(resource, key[0], key[1], ""), options)
                empty = empty and self._store.get(plural, key) is None
        return empty


class EventExpiry:
    """Removes Events an hour after they were written last."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._written: deque[tuple[float, Key, int]] = deque()

    @property
    def wake_at_s(self) -> float | None:
        """When the oldest write runs out."""
        return self._written[0][0] + EVENT_TTL_S if self._written else None

    def observe(self, change: Change) -> None:
        """Note each write of an Event."""
        if change.plural == "events" and change.after is not None:
            self._written.append((change.at_s, change.key, change.revision))

    def step(self, now_s: float) -> None:
        """Remove those that were not written again."""
        while self._written and self._written[0][0] + EVENT_TTL_S <= now_s:
            _, key, revision = self._written.popleft()
            event = self._store.get("events", key)
            if event is not None and event["metadata"]["resourceVersion"] == str(revision):
                self._store.remove("events", key)
