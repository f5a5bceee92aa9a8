"""The nodes of one cluster: registration, heartbeats, links that break and heal, and the guard beside each kubelet."""

import math
from collections.abc import Mapping
from typing import assert_never

from cluster_agents.core.guard import Guard
from cluster_agents.simkube.apiserver.times import rfc3339, rfc3339_micro
from cluster_agents.simkube.apiserver.types import ApiRequest, JsonObject
from cluster_agents.simkube.kubelet import objects, types
from cluster_agents.simkube.kubelet.node import Node, Stage
from cluster_agents.simkube.kubelet.outbox import Outbox
from cluster_agents.simkube.kubelet.pods import PodKeeper, back_off_s
from cluster_agents.simkube.kubelet.types import Timing
from federation.protocol.messages import GuardAnswer


class NodeKeeper:
    """Every node, and what its kubelet says of itself. Level-triggered: `touch` may be called at any time."""

    def __init__(
        self, nodes: Mapping[str, Node], timing: Timing, out: Outbox, pods: PodKeeper, *, epoch_offset_s: float
    ) -> None:
        self._nodes = nodes
        self._timing = timing
        self._out = out
        self._pods = pods
        self._epoch_offset_s = epoch_offset_s

    # --- nodes --------------------------------------------------------------------------------------------------------

    def touch(self, name: str) -> None:
        """All that is due for the node itself: guard, registration, heartbeat, status, list."""
        node = self._nodes[name]
        if not node.up:
            self._out.schedule(name, "", None)
            return
        self._touch_guard(node)
        if node.reachable and self._out.now_s >= node.retry_at_s:
            for purpose, request in self._node_requests(node):
                node.calls[purpose] = self._out.call(name, purpose, request)
        self._out.schedule(name, "", self._node_due_s(node))

    def _node_requests(self, node: Node) -> list[tuple[str, ApiRequest]]:
        """What the node wants to send and is not already sending."""
        beats = self._out.now_s >= node.beat_at_s
        if node.registered and not (beats or node.status_due or node.list_due):
            return []
        name, now_unix_s = node.shape.name, self._epoch_offset_s + self._out.now_s
        now_text = rfc3339(now_unix_s)
        wanted: list[tuple[str, ApiRequest]] = []
        if not node.registered:
            return [("register", objects.create_node(node.shape, now_text))] if not node.calls else []
        # Only under a renewed lease: else the controller may take it for lost just after it said that it is ready.
        if node.status_due and not beats and "beat" not in node.calls:
            gpus_well = node.shape.gpus - len(node.ill)
            wanted.append(("status", objects.patch_node_status(node.shape, gpus_well, now_text)))
        if node.list_due:
            wanted.append(("list", objects.list_pods_of(name)))
        if beats:
            stamp = rfc3339_micro(now_unix_s)
            renew = objects.renew_lease(name, stamp)
            create = objects.create_lease(name, self._timing.lease_s, stamp)
            wanted.append(("beat", renew if node.lease_made else create))
        return [(purpose, request) for purpose, request in wanted if purpose not in node.calls]

    def _node_due_s(self, node: Node) -> float | None:
        times: list[float] = []
        if node.guard is not None:
            times.append(node.guard.ask_due_s)
            if not node.guard.fences(self._out.now_s):
                times.append(node.guard.fences_at_s)
        if node.reachable:
            wants = not node.registered or node.status_due or node.list_due
            if wants and not node.calls:
                times.append(max(node.retry_at_s, self._out.now_s))
            if node.registered and "beat" not in node.calls:
                times.append(max(node.beat_at_s, node.retry_at_s))
        return min(times, default=None)

    def replied(self, node: Node, purpose: str, status: int, body: JsonObject) -> None:
        ok = 200 <= status < 300
        if ok or (purpose == "register" and status == 409):
            node.attempts, node.retry_at_s = 0, 0.0
        else:
            node.attempts += 1
            node.retry_at_s = self._out.now_s + back_off_s(self._timing, node.attempts)
        match purpose:
            case "register" if ok or status == 409:
                node.registered, node.status_due = True, status == 409
            case "status" if ok:
                node.status_due = False
            case "status" if status == 404:
                node.registered = False  # somebody deleted the Node: register anew
            case "list" if ok:
                node.list_due = False
                self._pods.listed(body.get("items") or (), node.shape.name, int(body["metadata"]["resourceVersion"]))
            case "beat":
                self._beaten(node, status)
            case _:
                pass
        self.touch(node.shape.name)

    def _beaten(self, node: Node, status: int) -> None:
        """A lease answer. After any failed heartbeat the node says anew that it is ready: it may have been tainted."""
        match status:
            case 200 | 201:
                if node.lease_made and self._out.now_s - node.beat_at_s > self._timing.heartbeat_s:
                    node.status_due = True
                node.lease_made = True
                node.beat_at_s = self._out.now_s + self._timing.heartbeat_s
            case 404:
                node.lease_made = False
                node.status_due = True
            case 409:
                node.lease_made = True
            case _:
                node.status_due = True

    def link_changed(self, event: types.NodeCut | types.NodeHealed | types.NodeCrashed | types.NodeBooted) -> None:
        node = self._nodes[event.node]
        match event:
            case types.NodeCut(_, agent_too):
                node.cut, node.agent_cut = True, agent_too
                self._forget_calls(node)
            case types.NodeHealed():
                node.cut = node.agent_cut = False
                self._rejoin(node)
            case types.NodeCrashed():
                self._forget_calls(node)
                node.up = False
                self._pods.crash(node)
            case types.NodeBooted():
                if not node.up:
                    node.up = True
                    node.boots += 1
                    held = node.guard.hold if node.guard is not None else frozenset()
                    node.guard = new_guard(self._timing, event.node, node.boots, self._out.now_s, held)
                    self._rejoin(node)
            case _:
                assert_never(event)
        self.touch(event.node)

    def _rejoin(self, node: Node) -> None:
        node.list_due = node.status_due = True
        node.beat_at_s = -math.inf
        node.retry_at_s, node.attempts = 0.0, 0
        self._pods.rejoin(node)

    def _forget_calls(self, node: Node) -> None:
        self._out.forget_calls(node.shape.name)
        node.calls.clear()
        for run in node.pods.values():
            run.call_id = None

    def gpus_lost(self, name: str, indices: frozenset[int]) -> None:
        node = self._nodes[name]
        assert all(0 <= index < node.shape.gpus for index in indices)
        node.ill = indices
        node.status_due = True
        self.touch(name)

    # --- guards -------------------------------------------------------------------------------------------------------

    def restart_guard(self, name: str) -> None:
        node = self._nodes[name]
        if node.up and node.guard is not None:
            node.boots += 1
            node.guard = new_guard(self._timing, name, node.boots, self._out.now_s, node.guard.hold)
            self.touch(name)

    def _touch_guard(self, node: Node) -> None:
        guard = node.guard
        if guard is None:
            return
        if self._out.now_s >= guard.ask_due_s:
            ask = guard.ask(self._out.now_s)
            if not node.agent_cut:
                self._out.emit(types.AskGuard(node.shape.name, ask))
        if guard.fences(self._out.now_s):
            self._apply_guard(node, stops=True)

    def guard_answered(self, name: str, answer: GuardAnswer) -> None:
        node = self._nodes[name]
        if node.guard is None or not node.up or node.agent_cut:
            return
        node.guard.answered(answer)
        self._apply_guard(node, stops=node.guard.fences(self._out.now_s))
        self._out.schedule(name, "", self._node_due_s(node))

    def _apply_guard(self, node: Node, *, stops: bool) -> None:
        """Let start what waited for leave, and if the guard fences (`stops`) stop what must stop."""
        for run in list(node.pods.values()):
            if run.ours and (run.stage is Stage.WAITING or (stops and run.stage is Stage.RUNNING)):
                self._pods.advance(run)


def new_guard(timing: Timing, node: str, boot: int, now_s: float, held: frozenset[str] = frozenset()) -> Guard | None:
    """A guard that starts now; None where the cluster has none."""
    if timing.guard_renewal_s is None:
        return None
    return Guard(node, boot, started_at_s=now_s, renewal_s=timing.guard_renewal_s, held_before=held)
