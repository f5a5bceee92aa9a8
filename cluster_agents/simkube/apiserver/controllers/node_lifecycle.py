"""Node lifecycle and pod garbage: silent nodes become Unknown and tainted, their pods are marked; pods of vanished
nodes are failed and force-deleted. As in Kubernetes, none of this stops a container.
"""

import heapq
from typing import Final

from cluster_agents.simkube.apiserver import deletion, pods
from cluster_agents.simkube.apiserver.resources import RESOURCES, Route
from cluster_agents.simkube.apiserver.store import Change, Key, Store
from cluster_agents.simkube.apiserver.types import JsonObject

LEASE_NAMESPACE: Final = "kube-node-lease"
LEASE_DURATION_DEFAULT_S: Final = 40
QUARANTINE_S: Final = 40.0  # pod GC waits this long for a vanished node to come back
TAINT_EFFECTS: Final = ("NoSchedule", "NoExecute")


class NodeLifecycle:
    """Watches node leases by *observed changes*, as the real controller does, never by the time written in them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._beat_s: dict[str, float] = {}  # node -> when its lease was last seen to change
        self._lasts_s: dict[str, float] = {}
        self._deadlines: list[tuple[float, str]] = []  # heap, one entry per node, corrected when popped
        self._tainted_at_s: dict[str, float] = {}
        self._gone_at_s: dict[str, float] = {}
        self._pods_on: dict[str, dict[Key, None]] = {}
        self._evictions: list[tuple[float, Key, str]] = []  # heap of (due, pod, pod uid)
        self._returned: dict[str, None] = {}

    @property
    def wake_at_s(self) -> float | None:
        """The earliest of: a lease running out, an eviction, the end of a quarantine, a node back."""
        if self._returned:
            return float("-inf")
        times = [heap[0][0] for heap in (self._deadlines, self._evictions) if heap]
        times += [at_s + QUARANTINE_S for at_s in self._gone_at_s.values()]
        return min(times, default=None)

    def observe(self, change: Change) -> None:
        """Follow leases, nodes and where pods are."""
        match change.plural:
            case "leases" if change.key[0] == LEASE_NAMESPACE and change.after is not None:
                self._beat(change.key[1], change)
            case "nodes":
                self._node_changed(change)
            case "pods":
                self._pod_changed(change)
            case _:
                pass

    def _beat(self, node: str, change: Change) -> None:
        assert change.after is not None
        duration = (change.after.get("spec") or {}).get("leaseDurationSeconds") or LEASE_DURATION_DEFAULT_S
        self._lasts_s[node] = float(duration)
        if node in self._beat_s:
            self._beat_s[node] = change.at_s

    def _node_changed(self, change: Change) -> None:
        node = change.key[1]
        if change.after is None:
            self._beat_s.pop(node, None)
            self._tainted_at_s.pop(node, None)
            if self._pods_on.get(node):
                self._gone_at_s[node] = change.at_s
        elif change.before is None:
            self._gone_at_s.pop(node, None)
            if node not in self._beat_s:
                self._beat_s[node] = change.at_s
                heapq.heappush(self._deadlines, (change.at_s + self._lasting_s(node), node))
            if any(t["key"] == pods.UNREACHABLE for t in change.after.get("spec", {}).get("taints") or ()):
                self._tainted_at_s[node] = change.at_s  # found tainted after a restart of ours
        elif node in self._tainted_at_s and is_ready(change.after):
            self._returned[node] = None

    def _pod_changed(self, change: Change) -> None:
        before = (change.before or {}).get("spec", {}).get("nodeName")
        after = (change.after or {}).get("spec", {}).get("nodeName")
        if before and not after:
            self._pods_on.get(before, {}).pop(change.key, None)
        if after and not before:
            self._pods_on.setdefault(after, {})[change.key] = None
            if after not in self._beat_s:
                self._gone_at_s.setdefault(after, change.at_s)
            elif after in self._tainted_at_s and change.after is not None:
                self._plan_eviction(change.key, change.after, change.at_s)

    def _lasting_s(self, node: str) -> float:
        return self._lasts_s.get(node, LEASE_DURATION_DEFAULT_S)

    def step(self, now_s: float) -> None:
        """Taint the silent, clear the returned, evict and collect what is due."""
        returned, self._returned = self._returned, {}
        for node in returned:
            self._clear(node)
        while self._deadlines and self._deadlines[0][0] <= now_s:
            _, node = heapq.heappop(self._deadlines)
            self._check_silence(node, now_s)
        while self._evictions and self._evictions[0][0] <= now_s:
            _, key, uid = heapq.heappop(self._evictions)
            self._evict(key, uid)
        for node in [n for n, at_s in self._gone_at_s.items() if at_s + QUARANTINE_S <= now_s]:
            self._gone_at_s.pop(node)
            for key in list(self._pods_on.get(node, ())):
                self._collect(key)

    def _check_silence(self, node: str, now_s: float) -> None:
        beat_s = self._beat_s.get(node)
        if beat_s is None:
            return
        deadline_s = beat_s + self._lasting_s(node)
        if deadline_s > now_s:
            heapq.heappush(self._deadlines, (deadline_s, node))
            return
        heapq.heappush(self._deadlines, (now_s + self._lasting_s(node), node))
        if node not in self._tainted_at_s:
            self._taint(node, now_s)

    def _taint(self, node: str, now_s: float) -> None:
        obj = self._store.get("nodes", ("", node))
        if obj is None:
            return
        self._tainted_at_s[node] = now_s
        unknown = {
            "type": "Ready",
            "status": "Unknown",
            "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
        }
        status = pods.with_condition(obj.get("status") or {}, unknown, self._store.now_text)
        taints = [t for t in (obj.get("spec") or {}).get("taints") or () if t["key"] != pods.UNREACHABLE]
        taints += [{"key": pods.UNREACHABLE, "effect": e, "timeAdded": self._store.now_text} for e in TAINT_EFFECTS]
        self._put_node(obj, {**(obj.get("spec") or {}), "taints": taints}, status)
        for key in list(self._pods_on.get(node, ())):
            pod = self._store.get("pods", key)
            if pod is not None:
                self._mark_not_ready(pod)
                self._plan_eviction(key, pod, now_s)

    def _clear(self, node: str) -> None:
        obj = self._store.get("nodes", ("", node))
        if obj is None or not is_ready(obj):
            return
        del self._tainted_at_s[node]
        spec = dict(obj.get("spec") or {})
        kept = [t for t in spec.pop("taints", None) or () if t["key"] != pods.UNREACHABLE]
        self._put_node(obj, {**spec, "taints": kept} if kept else spec, obj.get("status") or {})

    def _put_node(self, obj: JsonObject, spec: JsonObject, status: JsonObject) -> None:
        new = {**obj, "metadata": dict(obj["metadata"]), "spec": spec, "status": status}
        self._store.put(RESOURCES["nodes"], new)

    def _mark_not_ready(self, pod: JsonObject) -> None:
        conditions = pod["status"].get("conditions") or ()
        if not any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
            return
        not_ready = {"type": "Ready", "status": "False", "reason": "NodeNotReady"}
        status = pods.with_condition(pod["status"], not_ready, self._store.now_text)
        self._store.put(RESOURCES["pods"], {**pod, "metadata": dict(pod["metadata"]), "status": status})

    def _plan_eviction(self, key: Key, pod: JsonObject, now_s: float) -> None:
        seconds = _tolerated_s(pod)
        if seconds is not None:
            heapq.heappush(self._evictions, (now_s + seconds, key, pod["metadata"]["uid"]))

    def _evict(self, key: Key, uid: str) -> None:
        pod = self._store.get("pods", key)
        if pod is None or pod["metadata"]["uid"] != uid or "deletionTimestamp" in pod["metadata"]:
            return
        if pod["spec"]["nodeName"] in self._tainted_at_s:
            route = Route(RESOURCES["pods"], key[0], key[1], "")
            deletion.delete(self._store, route, deletion.DeleteOptions(None, uid, None, None))

    def _collect(self, key: Key) -> None:
        pod = self._store.get("pods", key)
        if pod is None:
            return
        if not pods.is_terminal(pod):
            target = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}
            status = pods.with_condition({**pod["status"], "phase": "Failed"}, target, self._store.now_text)
            self._store.put(RESOURCES["pods"], {**pod, "metadata": dict(pod["metadata"]), "status": status})
        deletion.force(self._store, Route(RESOURCES["pods"], key[0], key[1], ""), key)


def is_ready(node: JsonObject) -> bool:
    """Condition Ready is True."""
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _tolerated_s(pod: JsonObject) -> float | None:
    """How long the pod tolerates an unreachable node; None for ever."""
    tolerated: list[float] = []
    for toleration in pod["spec"].get("tolerations") or ():
        if toleration.get("key") in {None, "", pods.UNREACHABLE} and toleration.get("effect") in {
            None,
            "",
            "NoExecute",
        }:
            seconds = toleration.get("tolerationSeconds")
            if seconds is None:
                return None
            tolerated.append(float(seconds))
    return min(tolerated, default=0.0)
