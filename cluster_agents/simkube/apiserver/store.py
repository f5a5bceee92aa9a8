"""The objects, their one revision counter, and the watch history. Knows nothing of what a kind means.

Copy on write: a stored dict is never mutated, only replaced, so answers and snapshots share it without copying.
"""

import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from cluster_agents.simkube.apiserver.resources import RESOURCES, Resource
from cluster_agents.simkube.apiserver.times import EPOCH_OFFSET_S, rfc3339
from cluster_agents.simkube.apiserver.types import Gone, JsonObject

HISTORY_MAX: Final = 10_000
"""Changes kept per resource for watchers; a start of 5,000 nodes or a 1,024-pod gang with all its updates fits."""

NAME_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"  # Kubernetes' own: no vowels, no look-alikes
NAME_SUFFIX_LENGTH: Final = 5

Key: TypeAlias = tuple[str, str]
"""(namespace or "", name)"""


@dataclass(frozen=True, slots=True)
class Change:
    """One write. `before` is None for a create, `after` None for a removal; `shown` is what a watcher gets."""

    revision: int
    plural: str
    key: Key
    before: JsonObject | None
    after: JsonObject | None
    shown: JsonObject
    at_s: float


@dataclass(frozen=True, slots=True)
class Backup:
    """All objects at one revision. Restoring it begins a new life of the store, as restoring etcd does."""

    revision: int
    life: int
    tables: Mapping[str, Mapping[Key, JsonObject]]


class Table:
    """The objects of one resource, and their latest changes."""

    __slots__ = ("_order", "compacted", "history", "objects", "revisions")

    def __init__(self) -> None:
        self.objects: dict[Key, JsonObject] = {}
        self.history: list[Change] = []
        self.revisions: list[int] = []  # parallel to history, for bisection
        self.compacted = 0  # the newest revision no longer in the history
        self._order: list[Key] | None = None

    def ordered(self) -> list[Key]:
        """All keys in list order. Sorted anew only after a create or a removal."""
        if self._order is None:
            self._order = sorted(self.objects)
        return self._order

    def apply(self, change: Change) -> None:
        """Make the change visible and remember it; the oldest half of an overlong history is dropped."""
        if change.after is None:
            del self.objects[change.key]
            self._order = None
        else:
            if change.before is None:
                self._order = None
            self.objects[change.key] = change.after
        self.history.append(change)
        self.revisions.append(change.revision)
        if len(self.history) > 2 * HISTORY_MAX:
            self.forget(len(self.history) - HISTORY_MAX)

    def forget(self, count: int) -> None:
        """Drop the oldest `count` changes: a watch from before them is Gone."""
        if count:
            self.compacted = self.revisions[count - 1]
            del self.history[:count]
            del self.revisions[:count]

    def since(self, revision: int, limit: int, until: int) -> list[Change] | Gone:
        """Up to `limit` changes after `revision` and not after `until`, in order."""
        if revision < self.compacted:
            return Gone(revision, self.compacted)
        start = bisect_right(self.revisions, revision)
        stop = min(bisect_right(self.revisions, until), start + limit)
        return self.history[start:stop]


class Store:
    """Every table of one cluster behind one revision counter; indexes owners, and notes changes for controllers."""

    def __init__(self, cluster: str, *, epoch_offset_s: float = EPOCH_OFFSET_S) -> None:
        self.cluster = cluster
        self.now_s = 0.0
        self.epoch_offset_s = epoch_offset_s
        self.revision = 0
        self.life = 0
        self.tables = {plural: Table() for plural in RESOURCES}
        self.unseen: list[Change] = []  # for the controllers, drained by every step
        self._uids: dict[str, tuple[str, Key]] = {}
        self._owned: dict[str, dict[tuple[str, Key], None]] = {}

    @property
    def now_text(self) -> str:
        """The present as `metav1.Time`."""
        return rfc3339(self.epoch_offset_s + self.now_s)

    def unix_s(self, at_s: float) -> float:
        """Unix seconds of a virtual time."""
        return self.epoch_offset_s + at_s

    def get(self, plural: str, key: Key) -> JsonObject | None:
        """The object, or None."""
        return self.tables[plural].objects.get(key)

    def by_uid(self, uid: str) -> tuple[str, Key] | None:
        """Where the living object of this uid is."""
        return self._uids.get(uid)

    def owned_by(self, uid: str) -> list[tuple[str, Key]]:
        """Objects that name `uid` as owner, in order of arrival."""
        return list(self._owned.get(uid, ()))

    def each(self, plural: str, namespace: str = "") -> Iterator[tuple[Key, JsonObject]]:
        """Objects in list order; safe against writes during the iteration only for those already yielded."""
        table = self.tables[plural]
        for key in list(table.ordered()):
            if not namespace or key[0] == namespace:
                obj = table.objects.get(key)
                if obj is not None:
                    yield key, obj

    def fresh_uid(self) -> str:
        """The uid of the object created next: unique over lives and clusters, and equal in equal runs."""
        cluster = zlib.crc32(self.cluster.encode())
        return f"{cluster:08x}-{self.life & 0xFFFF:04x}-4000-8000-{self.revision + 1:012x}"

    def fresh_suffix(self) -> str:
        """Five characters for `generateName`; distinct for 14 million creates in a row."""
        number = ((self.revision + 1) * 8_121_989 + self.life) % len(NAME_ALPHABET) ** NAME_SUFFIX_LENGTH
        letters = ""
        for _ in range(NAME_SUFFIX_LENGTH):
            number, digit = divmod(number, len(NAME_ALPHABET))
            letters += NAME_ALPHABET[digit]
        return letters

    def put(self, resource: Resource, obj: JsonObject) -> JsonObject:
        """Create or replace the object; afterwards it carries the next resourceVersion. Its metadata must be fresh."""
        metadata = obj["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        before = self.tables[resource.plural].objects.get(key)
        self.revision += 1
        metadata["resourceVersion"] = str(self.revision)
        self._record(Change(self.revision, resource.plural, key, before, obj, obj, self.now_s))
        return obj

    def remove(self, plural: str, key: Key) -> JsonObject:
        """Take the object away; returns its last state, which carries the revision of the removal."""
        before = self.tables[plural].objects[key]
        self.revision += 1
        last = {**before, "metadata": {**before["metadata"], "resourceVersion": str(self.revision)}}
        self._record(Change(self.revision, plural, key, before, None, last, self.now_s))
        return last

    def _record(self, change: Change) -> None:
        self.tables[change.plural].apply(change)
        self._index(change.plural, change.key, change.before, change.after)
        self.unseen.append(change)

    def _index(self, plural: str, key: Key, before: JsonObject | None, after: JsonObject | None) -> None:
        replaced = before is not None and after is not None
        if replaced and _owners(before) == _owners(after):
            return
        entry = (plural, key)
        if before is not None:
            self._uids.pop(before["metadata"]["uid"], None)
            for owner in _owners(before):
                owned = self._owned.get(owner["uid"], {})
                owned.pop(entry, None)
                if not owned:
                    self._owned.pop(owner["uid"], None)
        if after is not None:
            self._uids[after["metadata"]["uid"]] = entry
            for owner in _owners(after):
                self._owned.setdefault(owner["uid"], {})[entry] = None

    def compact(self) -> None:
        """Forget every change so far: watches from older revisions are Gone."""
        for table in self.tables.values():
            table.forget(len(table.history))
            table.compacted = self.revision

    def backup(self) -> Backup:
        """All objects as they are now."""
        return Backup(self.revision, self.life, {plural: dict(t.objects) for plural, t in self.tables.items()})

    def restore(self, backup: Backup, *, life: int) -> None:
        """Become the backup; every older watch is Gone. A new `life` keeps the uids of later objects distinct."""
        self.revision = backup.revision
        self.life = life
        self.tables = {plural: Table() for plural in RESOURCES}
        self._uids.clear()
        self._owned.clear()
        self.unseen.clear()
        for plural, objects in backup.tables.items():
            table = self.tables[plural]
            table.compacted = backup.revision
            for key, obj in objects.items():
                table.objects[key] = obj
                self._index(plural, key, None, obj)
                self.unseen.append(Change(backup.revision, plural, key, None, obj, obj, self.now_s))


def _owners(obj: JsonObject | None) -> Sequence[JsonObject]:
    return () if obj is None else obj["metadata"].get("ownerReferences") or ()
