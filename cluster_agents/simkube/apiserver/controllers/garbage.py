"""The garbage collector: what an object's deletion does to those that name it as owner."""

from cluster_agents.simkube.apiserver import deletion, metadata
from cluster_agents.simkube.apiserver.resources import RESOURCES, Route
from cluster_agents.simkube.apiserver.store import Change, Key, Store
from cluster_agents.simkube.apiserver.types import JsonObject


def drop_finalizer(store: Store, plural: str, key: Key, finalizer: str) -> None:
    """The object without that finalizer; removed if that was all that kept it."""
    obj = store.get(plural, key)
    if obj is None or finalizer not in (obj["metadata"].get("finalizers") or ()):
        return
    kept = [f for f in obj["metadata"]["finalizers"] if f != finalizer]
    new = metadata.with_metadata(obj, finalizers=kept or None)
    store.put(RESOURCES[plural], new)
    if deletion.finished(new):
        store.remove(plural, key)


class Garbage:
    """Deletes dependents of vanished owners; serves the finalizers `foregroundDeletion` and `orphan`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._dirty: dict[str, None] = {}  # uids of owners to look at

    @property
    def wake_at_s(self) -> float | None:
        """Now, if any owner is dirty."""
        return float("-inf") if self._dirty else None

    def observe(self, change: Change) -> None:
        """Owners that vanished or are going, and objects whose owner may not exist."""
        shown = change.shown["metadata"]
        if change.after is None or "deletionTimestamp" in shown:
            self._dirty[shown["uid"]] = None
        if change.before is None or change.after is None:
            for owner in shown.get("ownerReferences") or ():
                self._dirty[owner["uid"]] = None

    def step(self, now_s: float) -> None:  # noqa: ARG002 - controllers share one shape
        """Look at every dirty owner once."""
        dirty, self._dirty = self._dirty, {}
        for uid in dirty:
            place = self._store.by_uid(uid)
            if place is None:
                self._collect(uid)
            else:
                self._serve_finalizers(uid, *place)

    def _collect(self, uid: str) -> None:
        for plural, key in self._store.owned_by(uid):
            obj = self._store.get(plural, key)
            if obj is None:
                continue
            owners: list[JsonObject] = obj["metadata"]["ownerReferences"]
            living = [owner for owner in owners if self._store.by_uid(owner["uid"]) is not None]
            if living:
                self._store.put(RESOURCES[plural], metadata.with_metadata(obj, ownerReferences=living))
            else:
                self._delete(plural, key)

    def _serve_finalizers(self, uid: str, plural: str, key: Key) -> None:
        obj = self._store.get(plural, key)
        assert obj is not None
        if "deletionTimestamp" not in obj["metadata"]:
            return
        finalizers = obj["metadata"].get("finalizers") or ()
        if deletion.ORPHAN in finalizers:
            self._orphan(uid)
            drop_finalizer(self._store, plural, key, deletion.ORPHAN)
        elif deletion.FOREGROUND in finalizers:
            dependents = self._store.owned_by(uid)
            for dependent in dependents:
                self._delete(*dependent)
            if not self._store.owned_by(uid):
                drop_finalizer(self._store, plural, key, deletion.FOREGROUND)

    def _orphan(self, uid: str) -> None:
        for plural, key in self._store.owned_by(uid):
            obj = self._store.get(plural, key)
            if obj is not None:
                kept = [owner for owner in obj["metadata"]["ownerReferences"] if owner["uid"] != uid]
                self._store.put(RESOURCES[plural], metadata.with_metadata(obj, ownerReferences=kept or None))

    def _delete(self, plural: str, key: Key) -> None:
        obj = self._store.get(plural, key)
        if obj is None or "deletionTimestamp" in obj["metadata"]:
            return
        route = Route(RESOURCES[plural], key[0], key[1], "")
        deletion.delete(self._store, route, deletion.DeleteOptions(None, obj["metadata"]["uid"], None, "Background"))
