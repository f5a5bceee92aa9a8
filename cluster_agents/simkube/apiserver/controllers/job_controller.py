"""The Job controller: creates, counts and replaces the pods of batch/v1 Jobs.

No TTL, no pod failure policy, no success policy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cluster_agents.simkube.apiserver import deletion, jobs, metadata, pods
from cluster_agents.simkube.apiserver.controllers.garbage import drop_finalizer
from cluster_agents.simkube.apiserver.resources import RESOURCES, Route
from cluster_agents.simkube.apiserver.store import Change, Key, Store
from cluster_agents.simkube.apiserver.times import unix_of
from cluster_agents.simkube.apiserver.types import JsonObject, RefusedError

BACKOFF_BASE_S: Final = 10.0
BACKOFF_MAX_S: Final = 360.0
ENV_INDEX: Final = "JOB_COMPLETION_INDEX"


@dataclass(frozen=True, slots=True)
class _Tally:
    """A job's pods by what they mean for it."""

    active: tuple[JsonObject, ...]
    succeeded: tuple[JsonObject, ...]
    failed: tuple[JsonObject, ...]


class JobController:
    """Keeps every unfinished job at its wanted number of active pods."""

    def __init__(self, store: Store, back_off_s: float) -> None:
        self._store = store
        self._back_off_s = back_off_s
        self._dirty: dict[Key, None] = {}
        self._retry_at_s: dict[Key, float] = {}
        self._failed_last_s: dict[Key, float] = {}
        self._tracked: dict[Key, None] = {}  # pods that may have lost the job that counts them

    @property
    def wake_at_s(self) -> float | None:
        """Now if a job is dirty, else when a back-off ends."""
        if self._dirty or self._tracked:
            return float("-inf")
        return min(self._retry_at_s.values(), default=None)

    def observe(self, change: Change) -> None:
        """A job changed, or a pod that a job controls."""
        if change.plural == "jobs":
            if change.after is not None:
                self._dirty[change.key] = None
            else:
                self._forget(change.key)
                owned = self._store.owned_by(change.shown["metadata"]["uid"])
                self._tracked.update({key: None for plural, key in owned if plural == "pods"})
        elif change.plural == "pods":
            owner = metadata.controller_of(change.shown)
            if owner is not None and owner.get("kind") == "Job":
                self._dirty[(change.key[0], owner["name"])] = None
            elif jobs.TRACKING in (change.shown["metadata"].get("finalizers") or ()):
                self._tracked[change.key] = None

    def _forget(self, key: Key) -> None:
        for memory in (self._dirty, self._retry_at_s, self._failed_last_s):
            memory.pop(key, None)

    def step(self, now_s: float) -> None:
        """Sync every dirty job and every one whose back-off has ended."""
        dirty, self._dirty = self._dirty, {}
        for key in [k for k, at_s in self._retry_at_s.items() if at_s <= now_s]:
            del self._retry_at_s[key]
            dirty[key] = None
        for key in dirty:
            job = self._store.get("jobs", key)
            if job is not None:
                self._sync(key, job, now_s)
        tracked, self._tracked = self._tracked, {}
        for key in tracked:
            self._release_orphan(key)

    def _release_orphan(self, key: Key) -> None:
        """A pod without a living job is counted by nobody, so nothing should keep it."""
        pod = self._store.get("pods", key)
        owner = None if pod is None else metadata.controller_of(pod)
        if pod is not None and (owner is None or self._store.by_uid(owner["uid"]) is None):
            self._untrack(pod)

    def _sync(self, key: Key, job: JsonObject, now_s: float) -> None:
        tally = self._tally(job)
        status = self._counted(key, job, tally, now_s)
        suspended = bool(job["spec"].get("suspend"))
        if jobs.is_finished(job) or "deletionTimestamp" in job["metadata"]:
            status["active"] = len(tally.active)
        elif suspended:
            status = _suspended(status, self._store.now_text)
            self._delete(tally.active)
            status["active"] = 0
        else:
            status = self._progress(key, job, status, tally, now_s)
        self._write_status(job, {k: v for k, v in status.items() if v != 0})

    def _tally(self, job: JsonObject) -> _Tally:
        owned: list[JsonObject] = []
        for plural, key in self._store.owned_by(job["metadata"]["uid"]):
            pod = self._store.get(plural, key)
            if plural == "pods" and pod is not None:
                owned.append(pod)
        ended = [p for p in owned if jobs.TRACKING in (p["metadata"].get("finalizers") or ())]
        return _Tally(
            active=tuple(p for p in owned if not pods.is_terminal(p) and "deletionTimestamp" not in p["metadata"]),
            succeeded=tuple(p for p in ended if p["status"].get("phase") == "Succeeded"),
            failed=tuple(p for p in ended if _is_failed(p)),
        )

    def _counted(self, key: Key, job: JsonObject, tally: _Tally, now_s: float) -> JsonObject:
        """The status with newly ended pods counted, each exactly once: its tracking finalizer goes with the count."""
        status: JsonObject = dict(job.get("status") or {})
        indexes = _indexes(status.get("completedIndexes", ""))
        for pod in tally.succeeded:
            index = _index_of(pod)
            if index is None or index not in indexes:
                status["succeeded"] = status.get("succeeded", 0) + 1
            if index is not None:
                indexes.add(index)
            self._untrack(pod)
        for pod in tally.failed:
            # Pods that a suspension deleted are no failures of the job.
            if pods.is_terminal(pod) or not job["spec"].get("suspend"):
                status["failed"] = status.get("failed", 0) + 1
                self._failed_last_s[key] = now_s
            self._untrack(pod)
        if job["spec"]["completionMode"] == "Indexed" and indexes:
            status["completedIndexes"] = _ranges(sorted(indexes))
        return status

    def _untrack(self, pod: JsonObject) -> None:
        key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        drop_finalizer(self._store, "pods", key, jobs.TRACKING)

    def _progress(self, key: Key, job: JsonObject, status: JsonObject, tally: _Tally, now_s: float) -> JsonObject:
        spec, now_text = job["spec"], self._store.now_text
        status.setdefault("startTime", now_text)
        if any(c["type"] == "Suspended" and c["status"] == "True" for c in status.get("conditions") or ()):
            resumed = {"type": "Suspended", "status": "False", "reason": "JobResumed", "message": "Job resumed"}
            status = {**pods.with_condition(status, resumed, now_text), "startTime": now_text}
        succeeded, wanted = status.get("succeeded", 0), spec.get("completions")
        if status.get("failed", 0) > spec["backoffLimit"]:
            self._delete(tally.active)
            failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}
            return {**pods.with_condition(status, failed, now_text), "active": 0}
        if (wanted is not None and succeeded >= wanted) or (wanted is None and succeeded and not tally.active):
            done = {"type": "Complete", "status": "True", "reason": "CompletionsReached"}
            return {**pods.with_condition(status, done, now_text), "active": 0, "completionTime": now_text}
        if self._past_deadline(key, job, status, now_s):
            self._delete(tally.active)
            why = "Job was active longer than specified deadline"
            failed = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": why}
            return {**pods.with_condition(status, failed, now_text), "active": 0}
        missing = _missing(spec, succeeded, len(tally.active))
        if missing < 0:
            self._delete(tally.active[missing:])
        elif missing and self._may_create(key, status.get("failed", 0), now_s):
            made = self._create(job, status, tally, missing)
            if made < missing:
                self._retry_at_s[key] = min(self._retry_at_s.get(key, now_s + BACKOFF_MAX_S), now_s + self._back_off_s)
            missing = made
        else:
            missing = 0
        return {**status, "active": len(tally.active) + missing}

    def _past_deadline(self, key: Key, job: JsonObject, status: JsonObject, now_s: float) -> bool:
        """Whether the job was active for as long as it may be; if not, it is looked at again when it was."""
        limit_s = job["spec"].get("activeDeadlineSeconds")
        if limit_s is None:
            return False
        left_s: float = unix_of(status["startTime"]) + limit_s - unix_of(self._store.now_text)
        if left_s > 0:
            self._retry_at_s[key] = now_s + left_s
        return left_s <= 0

    def _may_create(self, key: Key, failures: int, now_s: float) -> bool:
        """After failures, not before the back-off (10 s, doubling, at most 6 min) since the last one has passed."""
        last_s = self._failed_last_s.get(key)
        if not failures or last_s is None:
            return True
        at_s = last_s + min(self._back_off_s * 2.0 ** min(failures - 1, 10), BACKOFF_MAX_S)
        if now_s >= at_s:
            return True
        self._retry_at_s[key] = at_s
        return False

    def _create(self, job: JsonObject, status: JsonObject, tally: _Tally, count: int) -> int:
        """How many were made: all, or those before the first that the server refuses."""
        indexes: Sequence[int | None] = [None] * count
        if job["spec"]["completionMode"] == "Indexed":
            taken = _indexes(status.get("completedIndexes", "")) | {_index_of(pod) for pod in tally.active}
            indexes = [index for index in range(job["spec"]["completions"]) if index not in taken][:count]
        for made, index in enumerate(indexes):
            try:
                self._put_pod(job, index)
            except RefusedError:
                return made
        return len(indexes)

    def _put_pod(self, job: JsonObject, index: int | None) -> None:
        pod = _pod_of(job, index, self._store.fresh_suffix())
        route = Route(RESOURCES["pods"], job["metadata"]["namespace"], "", "")
        named = metadata.created(self._store, route, pod)
        self._store.put(RESOURCES["pods"], pods.created(self._store, named))

    def _delete(self, doomed: Sequence[JsonObject]) -> None:
        for pod in doomed:
            sent = pod["metadata"]
            route = Route(RESOURCES["pods"], sent["namespace"], sent["name"], "")
            deletion.delete(self._store, route, deletion.DeleteOptions(None, sent["uid"], None, "Background"))

    def _write_status(self, job: JsonObject, status: JsonObject) -> None:
        if status != (job.get("status") or {}):
            self._store.put(RESOURCES["jobs"], {**job, "metadata": dict(job["metadata"]), "status": status})


def _is_failed(pod: JsonObject) -> bool:
    if pod["status"].get("phase") == "Failed":
        return True
    return "deletionTimestamp" in pod["metadata"] and pod["status"].get("phase") != "Succeeded"


def _missing(spec: JsonObject, succeeded: int, active: int) -> int:
    """How many pods to create; negative: how many to delete."""
    completions: int | None = spec.get("completions")
    parallelism: int = spec["parallelism"]
    if completions is None:
        # A work queue: once one pod has succeeded, no new ones start.
        return min(0, parallelism - active) if succeeded else parallelism - active
    return min(parallelism, completions - succeeded) - active


def _suspended(status: JsonObject, now_text: str) -> JsonObject:
    condition = {"type": "Suspended", "status": "True", "reason": "JobSuspended", "message": "Job suspended"}
    suspended = pods.with_condition(status, condition, now_text)
    return {key: value for key, value in suspended.items() if key != "startTime"}


def _pod_of(job: JsonObject, index: int | None, suffix: str) -> JsonObject:
    template, sent = job["spec"]["template"], job["metadata"]
    own: JsonObject = template.get("metadata") or {}
    labels, annotations = dict(own.get("labels") or {}), dict(own.get("annotations") or {})
    spec: JsonObject = template["spec"]
    name = f"{sent['name']}-{suffix}"
    if index is not None:
        name = f"{sent['name']}-{index}-{suffix}"
        labels[jobs.COMPLETION_INDEX] = str(index)
        annotations[jobs.COMPLETION_INDEX] = str(index)
        from_label = {"apiVersion": "v1", "fieldPath": f"metadata.labels['{jobs.COMPLETION_INDEX}']"}
        env = {"name": ENV_INDEX, "valueFrom": {"fieldRef": from_label}}
        spec = {
            **spec,
            "hostname": f"{sent['name']}-{index}",
            "containers": [{**c, "env": [*(c.get("env") or ()), env]} for c in spec["containers"]],
        }
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": sent["name"],
        "uid": sent["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owner],
            "finalizers": [*(own.get("finalizers") or ()), jobs.TRACKING],
        },
        "spec": spec,
    }


def _index_of(pod: JsonObject) -> int | None:
    text = (pod["metadata"].get("annotations") or {}).get(jobs.COMPLETION_INDEX)
    return int(text) if text else None


def _indexes(text: str) -> set[int]:
    """The set written as "1,3-5"."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first:
            found.update(range(int(first), int(last or first) + 1))
    return found


def _ranges(indexes: Sequence[int]) -> str:
    """ "1,3-5" for 1, 3, 4, 5."""
    parts: list[list[int]] = []
    for index in indexes:
        if parts and parts[-1][1] == index - 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
