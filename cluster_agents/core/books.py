"""What the cluster's API server showed: nodes, pods, Jobs and intents, kept from lists, watch events and answers.

Notes changes only and says whom they touch. What is missing from a list that may be stale is doubted, not believed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cluster_agents.core.config import KIND_INTENT, LABEL_KIND, LABEL_TOKEN, AgentConfig
from cluster_agents.core.events import Kind, KubeObject
from cluster_agents.core.inventory import Inventory
from cluster_agents.core.jobs import JobBook, JobView, job_view
from cluster_agents.core.objects import Departed, mapping, text, version
from cluster_agents.core.plan import Intent, read_intent
from cluster_agents.core.pods import MalformedObjectError, PodBook, PodChange, PodKey, PodView, pod_view


class Touched(NamedTuple):
    """A token of ours whose pod `key` changed (None: another of its objects). `before`: the pod as it was."""

    token: str
    key: PodKey | None = None
    before: PodView | None = None


class Books:
    """The caches of one process; they outlive its being the one that acts."""

    def __init__(self, config: AgentConfig) -> None:
        self.pods = PodBook()
        self.jobs = JobBook()
        self.inventory = Inventory(config)
        self.intents: dict[str, Intent] = {}
        self.doubted: dict[PodKey, str] = {}  # pods of ours that a list did not show, with their uid
        self.malformed = 0
        self.now_s = 0.0  # set by the reconciler before each event
        self._shown_at_s: dict[PodKey, float] = {}  # when a pod of ours last came or changed here
        self._intent_objects: dict[str, tuple[str, int]] = {}  # token -> uid and version of its ConfigMap
        self._intents_departed = Departed()

    # --- from the shell -----------------------------------------------------------------------------------------------

    def listed(self, kind: Kind, items: Iterable[KubeObject]) -> list[Touched]:
        """A complete list of one kind."""
        match kind:
            case Kind.NODES:
                return self._nodes_listed(items)
            case Kind.PODS:
                return self._pods_listed(items)
            case Kind.JOBS:
                return self._jobs_listed(items)
            case Kind.CONFIGMAPS:
                return self._intents_listed(items)

    def changed(self, kind: Kind, item: KubeObject, *, deleted: bool) -> list[Touched]:
        """One watch event."""
        match kind:
            case Kind.NODES:
                return self._node_changed(item, deleted=deleted)
            case Kind.PODS:
                return self.pod_deleted(item) if deleted else self.put_pod(item)
            case Kind.JOBS:
                return self._job_changed(item, deleted=deleted)
            case Kind.CONFIGMAPS:
                return self._intent_changed(item, deleted=deleted)

    # --- pods ---------------------------------------------------------------------------------------------------------

    def put_pod(self, item: KubeObject) -> list[Touched]:
        """A pod as a watch event or an answer shows it. Each write of ours is shown twice; the second is not read."""
        metadata = mapping(item, "metadata")
        key = PodKey(text(metadata, "namespace"), text(metadata, "name"))
        if self.pods.passed(key, text(metadata, "uid"), version(item)):
            self.doubted.pop(key, None)
            return []
        try:
            view = pod_view(item)
        except MalformedObjectError:
            self.malformed += 1
            return []
        self.doubted.pop(view.key, None)
        return self._pod_touched(self.pods.put(view))

    def pod_deleted(self, item: KubeObject) -> list[Touched]:
        """A pod is gone; `item` is its last state, which may tell that its containers had ended."""
        try:
            view = pod_view(item)
        except MalformedObjectError:
            self.malformed += 1
            return []
        touched = self._pod_touched(self.pods.put(view))
        return touched + self._pod_touched(self.pods.remove(view.key, view.uid, view.version))

    def pod_missing(self, key: PodKey, *, asked_at_s: float) -> list[Touched]:
        """An answer says that there is no such pod. It counts only if the pod was not shown since it was asked for: a
        create that lands late is seen by the watch before the answer to an older read arrives."""
        if self._shown_at_s.get(key, asked_at_s - 1.0) >= asked_at_s:
            return []
        self.doubted.pop(key, None)
        view = self.pods.get(key)
        return [] if view is None else self._pod_touched(self.pods.remove(key, view.uid, view.version))

    def pods_fresh(self, items: Iterable[KubeObject], at_version: int) -> list[Touched]:
        """All pods of ours, read from the API server itself as of `at_version`."""
        touched: list[Touched] = []
        shown: set[str] = set()
        for item in items:
            shown.add(text(item, "metadata", "uid"))
            touched += self.put_pod(item)
        for view in sorted(self.pods.ours(), key=lambda view: view.key):
            if view.uid in shown:
                continue
            if not view.labelled and not view.quiet:
                self.doubted[view.key] = view.uid  # that list goes by labels
            else:
                touched += self._pod_touched(self.pods.remove(view.key, view.uid, at_version))
        return touched

    def _pods_listed(self, items: Iterable[KubeObject]) -> list[Touched]:
        touched: list[Touched] = []
        shown: set[PodKey] = set()
        for item in items:
            shown.add(PodKey(text(item, "metadata", "namespace"), text(item, "metadata", "name")))
            touched += self.put_pod(item)
        for view in self.pods.missing(shown):
            if view.token and not view.quiet:
                self.doubted[view.key] = view.uid  # the list may be older than our own last write
            else:
                touched += self._pod_touched(self.pods.remove(view.key, view.uid, view.version))
        return touched

    def _pod_touched(self, change: PodChange | None) -> list[Touched]:
        if change is None:
            return []
        self.inventory.pod_changed(change)
        if change.after is not None and change.after.token:
            self._shown_at_s[change.key] = self.now_s
        else:
            self._shown_at_s.pop(change.key, None)
        tokens = {view.token for view in (change.before, change.after) if view is not None and view.token}
        return [Touched(token, change.key, change.before) for token in sorted(tokens)]

    # --- nodes --------------------------------------------------------------------------------------------------------

    def _nodes_listed(self, items: Iterable[KubeObject]) -> list[Touched]:
        touched: list[Touched] = []
        shown: set[str] = set()
        for item in items:
            shown.add(text(item, "metadata", "name"))
            touched += self._node_changed(item, deleted=False)
        for name in self.inventory.nodes():
            if name not in shown:
                touched += self._node_dropped(name)
        return touched

    def _node_changed(self, item: KubeObject, *, deleted: bool) -> list[Touched]:
        name = text(item, "metadata", "name")
        if deleted:
            return self._node_dropped(name)
        was_dead = self.inventory.proven_dead(name)
        try:
            self.inventory.put_node(item)
        except MalformedObjectError:
            self.malformed += 1
            return []
        return self._pods_on(name) if was_dead != self.inventory.proven_dead(name) else []

    def _node_dropped(self, name: str) -> list[Touched]:
        return self._pods_on(name) if self.inventory.drop_node(name) else []

    def _pods_on(self, node: str) -> list[Touched]:
        """Nodes come and go seldom: looking through our pods is cheap enough."""
        return [Touched(view.token, view.key, view) for view in self.pods.ours() if view.node == node]

    # --- Jobs ---------------------------------------------------------------------------------------------------------

    def put_job(self, item: KubeObject) -> list[Touched]:
        return self._job_changed(item, deleted=False)

    def job_missing(self, token: str, path: str) -> list[Touched]:
        """An answer says that there is no such Job."""
        gone = [one for one in self.jobs.all_of(token) if path.endswith(f"/{one.namespace}/jobs/{one.name}")]
        return [Touched(token) for one in gone if self.jobs.remove(token, one.uid)]

    def _jobs_listed(self, items: Iterable[KubeObject]) -> list[Touched]:
        touched: list[Touched] = []
        shown: set[str] = set()
        for item in items:
            view = job_view(item)
            if view is not None:
                shown.add(view.uid)
                touched += self._put_job(view)
        gone = [one for token in self.jobs.tokens() for one in self.jobs.all_of(token) if one.uid not in shown]
        return touched + [Touched(one.token) for one in gone if self.jobs.remove(one.token, one.uid)]

    def _job_changed(self, item: KubeObject, *, deleted: bool) -> list[Touched]:
        view = job_view(item)
        if view is None:
            return []
        if deleted:
            return [Touched(view.token)] if self.jobs.remove(view.token, view.uid) else []
        return self._put_job(view)

    def _put_job(self, view: JobView) -> list[Touched]:
        return [Touched(view.token)] if self.jobs.put(view) else []

    # --- intents ------------------------------------------------------------------------------------------------------

    def intents_fresh(self, items: Iterable[KubeObject]) -> None:
        """All ConfigMaps of ours, read from the API server itself."""
        self.intents.clear()
        self._intents_listed(items)

    def _intents_listed(self, items: Iterable[KubeObject]) -> list[Touched]:
        touched: list[Touched] = []
        before = self.intents
        self.intents = {}
        for item in items:
            touched += self._intent_changed(item, deleted=False)
        return touched + [Touched(token) for token in sorted(before.keys() - self.intents.keys())]

    def intent(self, token: str) -> tuple[Intent, int] | None:
        """The intent of this token as it was shown last, and its version."""
        intent = self.intents.get(token)
        return (intent, self._intent_objects[token][1]) if intent is not None else None

    def put_intent(self, item: KubeObject, *, again: bool = False) -> list[Touched]:
        """`again`: it has its labels back, without which watches had said that it was deleted."""
        if again:
            self._intents_departed.discard(text(item, "metadata", "uid"))
        return self._intent_changed(item, deleted=False)

    def intent_missing(self, token: str) -> None:
        """Our delete of it was answered; watch events that are still on their way are history."""
        self.intents.pop(token, None)
        uid, _ = self._intent_objects.pop(token, ("", 0))
        self._intents_departed.add(uid)

    def _intent_changed(self, item: KubeObject, *, deleted: bool) -> list[Touched]:
        if text(item, "metadata", "labels", LABEL_KIND) != KIND_INTENT:
            return []
        token, uid = text(item, "metadata", "labels", LABEL_TOKEN), text(item, "metadata", "uid")
        _, known_version = self._intent_objects.get(token, ("", 0))
        if uid in self._intents_departed or version(item) < known_version:
            return []
        if version(item) == known_version and token in self.intents and not deleted:
            return []
        intent = read_intent(item)
        if intent is None:
            self.malformed += 1
            return []
        if deleted:
            self.intent_missing(token)
        else:
            self.intents[token] = intent
            self._intent_objects[token] = (uid, version(item))
        return [Touched(token)]
