"""All kubelets of one cluster as one pure state machine: events in, API calls and guard asks out, and a run log.

They live on when their API server is killed, restarted or cut off. Time is an argument, draws come from the seed.
"""

import heapq
from collections.abc import Sequence
from typing import Final, assert_never

from cluster_agents.core.guard import Guard
from cluster_agents.simkube.apiserver.times import EPOCH_OFFSET_S, rfc3339, rfc3339_micro
from cluster_agents.simkube.apiserver.types import ApiRequest, JsonObject
from cluster_agents.simkube.kubelet import objects, types
from cluster_agents.simkube.kubelet.asks import ask_of, drawn
from cluster_agents.simkube.kubelet.node import Node, Outcome, PodRun, Stage
from cluster_agents.simkube.kubelet.types import NO_ANSWER, Effect, NodeShape, Timing
from cluster_agents.simkube.labels import FAIL_AFTER_SECONDS, GROUP_UID, RUN_SECONDS
from cluster_agents.simkube.runlog import ENDED, STARTED, RunLogEntry
from federation.protocol.messages import GuardAnswer

NODES_MAX: Final = 5_000  # Kubernetes' tested envelope, and DESIGN §15's
CONFLICT_STATUSES: Final = frozenset({404, 409, 422})  # about this pod's object: the watch will say what became of it
TERMINAL: Final = frozenset({"Succeeded", "Failed"})


class Kubelets:
    """The kubelets, and the guards beside them, of one cluster.

    The host delivers what the watch on pods shows, in order; carries out every `ApiCall` at most once and answers each
    with one `ApiReply`; and calls with `Tick` no later than `wake_at_s`. `run_log` only grows.
    """

    def __init__(
        self,
        cluster: str,
        nodes: Sequence[NodeShape],
        timing: Timing,
        *,
        seed: int,
        now_s: float = 0.0,
        epoch_offset_s: float = EPOCH_OFFSET_S,
    ) -> None:
        assert len(nodes) <= NODES_MAX
        self.cluster = cluster
        self.timing = timing
        self.run_log: list[RunLogEntry] = []
        self._seed = seed
        self._epoch_offset_s = epoch_offset_s
        self._now_s = now_s
        self._nodes = {shape.name: Node(shape, self._new_guard(shape.name, 0, now_s)) for shape in nodes}
        self._runs: dict[str, PodRun] = {}
        self._calls: dict[int, tuple[str, str]] = {}  # call -> (node, pod uid or purpose)
        self._call_last = 0
        self._timers: list[tuple[float, str, str]] = []  # heap of (due, node, pod uid or "")
        self._due_s: dict[tuple[str, str], float] = {}
        self._call_timers: list[tuple[float, int]] = []
        self._effects: list[Effect] = []

    # --- what the host sees -------------------------------------------------------------------------------------------

    @property
    def wake_at_s(self) -> float | None:
        """When a `Tick` is due at the latest; None for never."""
        while self._timers and self._due_s.get(self._timers[0][1:]) != self._timers[0][0]:
            heapq.heappop(self._timers)
        while self._call_timers and self._call_timers[0][1] not in self._calls:
            heapq.heappop(self._call_timers)
        heads = [heap[0][0] for heap in (self._timers, self._call_timers) if heap]
        return min(heads, default=None)

    def live(self) -> list[PodRun]:
        """Every pod with a container now, by node and uid. For checkers; do not change what it returns."""
        return sorted((run for run in self._runs.values() if run.live), key=lambda run: (run.node, run.uid))

    def guard(self, node: str) -> Guard | None:
        """The node's guard, None where there is none or the node is down."""
        return self._nodes[node].guard

    def handle(self, event: types.Event, now_s: float) -> list[Effect]:
        """Take one event in; answers what to send. Also does everything that has become due by `now_s`."""
        assert now_s >= self._now_s
        self._now_s = now_s
        self._effects = []
        match event:
            case types.Booted():
                for name in self._nodes:
                    self._touch_node(name)
            case types.PodSeen(pod):
                self._seen(pod)
            case types.PodGone(pod):
                self._gone(pod["metadata"]["uid"])
            case types.PodsListed(pods, node):
                self._listed(pods, node, None)
            case types.ApiReply(call_id, status, body):
                self._replied(call_id, status, body)
            case types.GuardAnswered(node, answer):
                self._guard_answered(node, answer)
            case types.Tick():
                pass
            case types.NodeCut() | types.NodeHealed() | types.NodeCrashed() | types.NodeBooted():
                self._node_event(event)
            case types.GuardRestarted(node):
                self._restart_guard(node)
            case types.GpusLost(node, indices):
                self._gpus_lost(node, indices)
            case _:
                assert_never(event)
        self._run_due()
        effects, self._effects = self._effects, []
        return effects

    def check_invariants(self) -> None:
        """Room, devices and the run log agree."""
        for node in self._nodes.values():
            node.check_invariants()
        open_uids: set[str] = set()
        for entry in self.run_log:
            (open_uids.add if entry.event == STARTED else open_uids.discard)(entry.uid)
        assert open_uids == {run.uid for run in self._runs.values() if run.live}

    # --- timers -------------------------------------------------------------------------------------------------------

    def _schedule(self, node: str, uid: str, at_s: float | None) -> None:
        key = (node, uid)
        if at_s is None:
            self._due_s.pop(key, None)
        elif self._due_s.get(key) != at_s:
            self._due_s[key] = at_s
            heapq.heappush(self._timers, (at_s, node, uid))

    def _run_due(self) -> None:
        """Everything due by now, in order of time, then node, then pod."""
        while (at_s := self.wake_at_s) is not None and at_s <= self._now_s:
            if self._call_timers and self._call_timers[0][0] == at_s:
                _, call_id = heapq.heappop(self._call_timers)
                self._replied(call_id, NO_ANSWER, {})
                continue
            _, node, uid = heapq.heappop(self._timers)
            del self._due_s[(node, uid)]
            if uid:
                run = self._runs.get(uid)
                if run is not None:
                    self._advance(run)
            else:
                self._touch_node(node)

    # --- pods seen and gone -------------------------------------------------------------------------------------------

    def _seen(self, pod: JsonObject) -> None:
        node = self._nodes.get(pod["spec"].get("nodeName") or "")
        if node is None or not node.reachable:
            return
        run = self._runs.get(pod["metadata"]["uid"])
        if run is None:
            self._take_on(node, pod)
        elif _revision(pod) >= _revision(run.pod):
            run.pod = pod
            self._advance(run)

    def _take_on(self, node: Node, pod: JsonObject) -> None:
        """A pod not known on this node: admit it, refuse it, or settle what an earlier life of the node left behind."""
        metadata, phase = pod["metadata"], pod["status"].get("phase", "Pending")
        run = PodRun(
            uid=metadata["uid"],
            namespace=metadata["namespace"],
            name=metadata["name"],
            node=node.shape.name,
            pod=pod,
            ask=ask_of(pod["spec"]),
            stage=Stage.ENDED,
        )
        node.pods[run.uid] = self._runs[run.uid] = run
        lost = phase == "Running" and pod["spec"].get("restartPolicy") == "Never"
        if phase in TERMINAL:
            run.acked, run.outcome = phase, Outcome(phase)
        elif lost or run.deleting:
            message = "The container could not be located when the pod was looked for"
            run.outcome = Outcome("Failed", "ContainerStatusUnknown", message, objects.KILLED_EXIT_CODE)
        else:
            run.outcome = node.refusal(pod, run.ask)
            if run.outcome is None:
                run.stage = Stage.WAITING
                node.admit(run)
                run.start_at_s = self._now_s + self._draw(run, "start", self.timing.start_delay_s)
        self._advance(run)

    def _gone(self, uid: str) -> None:
        run = self._runs.get(uid)
        if run is not None and self._nodes[run.node].reachable:
            run.gone = True
            self._advance(run)

    def _listed(self, pods: Sequence[JsonObject], only: str | None, revision: int | None) -> None:
        """A full list. With `revision`, it raced the watch: pods known from later revisions are not thereby gone."""
        present = {pod["metadata"]["uid"] for pod in pods}
        for uid in [u for u, run in self._runs.items() if u not in present and only in {None, run.node}]:
            if revision is None or _revision(self._runs[uid].pod) <= revision:
                self._gone(uid)
        for pod in pods:
            run = self._runs.get(pod["metadata"]["uid"])
            if run is not None and revision is None and self._nodes[run.node].reachable:
                run.pod = pod  # also when older: the server may have been restored from a backup
                run.confirmed = False
            self._seen(pod)

    # --- a pod's containers -------------------------------------------------------------------------------------------

    def _advance(self, run: PodRun) -> None:
        """Do all that is due for one pod, then plan its next moment. Level-triggered: safe to call at any time."""
        node = self._nodes[run.node]
        for _ in Stage:  # a pod passes each stage at most once at one moment
            if not self._moved(node, run):
                break
        if run.stage is Stage.ENDED and run.gone:
            del self._runs[run.uid], node.pods[run.uid]
            self._schedule(run.node, run.uid, None)
            return
        self._report(node, run)
        self._schedule(run.node, run.uid, self._due_of(node, run))

    def _moved(self, node: Node, run: PodRun) -> bool:
        """Let the pod take its next step if it is due; True if it did."""
        match run.stage:
            case Stage.WAITING:
                if run.deleting:
                    message = "The container could not be located when the pod was deleted"
                    self._end(node, run, Outcome("Failed", "ContainerStatusUnknown", message, objects.KILLED_EXIT_CODE))
                    return True
                if self._now_s >= run.start_at_s and self._may_start(node, run):
                    self._start(run)
                    return True
            case Stage.RUNNING:
                why = self._stop_reason(node, run)
                if why:
                    run.stage, run.stop_why = Stage.STOPPING, why
                    stop_s = self._draw(run, "stop", self.timing.stop_delay_s)
                    run.stop_at_s = self._now_s + min(stop_s, run.grace_s)
                    return True
                outcome = self._natural_end(run)
                if outcome is not None:
                    self._end(node, run, outcome)
                    return True
            case Stage.STOPPING:
                if run.deleting:
                    run.stop_at_s = min(run.stop_at_s, self._now_s + run.grace_s)
                if self._now_s >= run.stop_at_s:
                    self._end(node, run, Outcome("Failed", run.stop_why, "", objects.KILLED_EXIT_CODE))
                    return True
            case Stage.ENDED:
                pass
            case _:
                assert_never(run.stage)
        return False

    def _may_start(self, node: Node, run: PodRun) -> bool:
        if node.guard is None or not run.ours or not self.timing.guard_gates_starts:
            return True
        return node.guard.may_start(run.token, self._now_s)

    def _stop_reason(self, node: Node, run: PodRun) -> str:
        if run.deleting:
            return "Deleted"
        if node.guard is not None and run.ours and node.guard.due(self._now_s, (run.token,)):
            return "GuardFenced"
        return ""

    def _start(self, run: PodRun) -> None:
        run.stage = Stage.RUNNING
        run.started_at_s = self._now_s
        self._log(run, STARTED, "restart" if run.restarts else "")

    def _natural_end(self, run: PodRun) -> Outcome | None:
        """How the containers end by themselves, if they have by now."""
        at_s, phase = _planned_end(run)
        if at_s is None or self._now_s < at_s:
            return None
        if phase == "Failed":
            return Outcome("Failed", "Error", "", 1)
        return Outcome("Succeeded")

    def _end(self, node: Node, run: PodRun, outcome: Outcome) -> None:
        """The containers have ended; with a restart policy that asks for it they will start again after a back-off."""
        if run.live:
            self._log(run, ENDED, outcome.reason or outcome.phase)
        policy = run.pod["spec"].get("restartPolicy", "Always")
        again = policy == "Always" or (policy == "OnFailure" and outcome.phase == "Failed")
        if again and not run.deleting:
            run.stage = Stage.WAITING
            run.restarts += 1
            run.start_at_s = self._now_s + self.timing.restart_delay_s
            return
        run.stage = Stage.ENDED
        run.outcome = outcome
        node.release(run)

    def _due_of(self, node: Node, run: PodRun) -> float | None:
        """When this pod next wants attention without any event. A guard's leave comes as an event."""
        times: list[float] = []
        match run.stage:
            case Stage.WAITING if self._now_s < run.start_at_s:
                times.append(run.start_at_s)
            case Stage.RUNNING:
                ends_at_s, _ = _planned_end(run)
                if ends_at_s is not None:
                    times.append(ends_at_s)
            case Stage.STOPPING:
                times.append(run.stop_at_s)
            case _:
                pass
        if run.call_id is None and run.retry_at_s > self._now_s and node.reachable:
            times.append(run.retry_at_s)
        return min(times, default=None)

    def _draw(self, run: PodRun, what: str, span_s: tuple[float, float]) -> float:
        return drawn(self._seed, f"{run.uid}|{what}|{run.restarts}", *span_s)

    def _log(self, run: PodRun, event: str, why: str) -> None:
        assert event in {STARTED, ENDED}
        self.run_log.append(
            RunLogEntry(
                cluster=self.cluster,
                node=run.node,
                namespace=run.namespace,
                pod=run.name,
                uid=run.uid,
                group=run.labels.get(GROUP_UID, ""),
                token=run.token,
                event="started" if event == STARTED else "ended",
                at_s=self._now_s,
                gpus=run.gpus,
                why=why,
            )
        )

    # --- reports to the API server ------------------------------------------------------------------------------------

    def _report(self, node: Node, run: PodRun) -> None:
        """Send what the API server does not know yet: one call at a time, after its back-off."""
        if run.call_id is not None or run.gone or not node.reachable or self._now_s < run.retry_at_s:
            return
        request = self._report_due(run)
        if request is not None:
            run.call_id = self._call(run.node, run.uid, request)

    def _report_due(self, run: PodRun) -> ApiRequest | None:
        if run.stage is Stage.ENDED:
            assert run.outcome is not None
            if run.acked != run.outcome.phase:
                status = self._ended_status(run, run.outcome)
                return objects.report_status(run.namespace, run.name, run.uid, status)
            if run.deleting and not run.confirmed and run.pod["metadata"].get("deletionGracePeriodSeconds"):
                return objects.confirm_stopped(run.namespace, run.name, run.uid)
            return None
        if run.live and run.acked != "Running":
            started = rfc3339(self._epoch_offset_s + run.started_at_s)
            status = objects.running_status(run.pod, started=started, restarts=run.restarts)
            return objects.report_status(run.namespace, run.name, run.uid, status)
        return None

    def _ended_status(self, run: PodRun, outcome: Outcome) -> JsonObject:
        now_text = rfc3339(self._epoch_offset_s + self._now_s)
        if not outcome.ran:
            return objects.rejected_status(outcome.reason, outcome.message, now_text)
        return objects.ended_status(
            run.pod,
            phase=outcome.phase,
            reason=outcome.reason,
            message=outcome.message,
            exit_code=outcome.exit_code,
            restarts=run.restarts,
            now_text=now_text,
        )

    def _call(self, node: str, purpose: str, request: ApiRequest) -> int:
        self._call_last += 1
        self._calls[self._call_last] = (node, purpose)
        heapq.heappush(self._call_timers, (self._now_s + self.timing.call_timeout_s, self._call_last))
        self._effects.append(types.ApiCall(self._call_last, node, request))
        return self._call_last

    def _replied(self, call_id: int, status: int, body: JsonObject) -> None:
        node_name, purpose = self._calls.pop(call_id, ("", ""))
        if not node_name:
            return  # timed out before, or its node crashed since
        node = self._nodes[node_name]
        if purpose in node.calls:
            del node.calls[purpose]
            self._node_replied(node, purpose, status, body)
            return
        run = self._runs.get(purpose)
        if run is not None and run.call_id == call_id:
            run.call_id = None
            self._pod_replied(run, status, body)
            self._advance(run)

    def _pod_replied(self, run: PodRun, status: int, body: JsonObject) -> None:
        if not 200 <= status < 300:
            run.attempts += 1
            worst = status in CONFLICT_STATUSES
            run.retry_at_s = self._now_s + (self.timing.retry_max_s if worst else self._back_off_s(run.attempts))
            return
        run.attempts, run.retry_at_s = 0, 0.0
        if run.stage is Stage.ENDED and run.outcome is not None and run.acked == run.outcome.phase:
            run.confirmed = True
        else:
            run.acked = (body.get("status") or {}).get("phase", run.acked)

    def _back_off_s(self, attempts: int) -> float:
        doublings = min(attempts - 1, 16)
        return min(self.timing.retry_s * 2.0**doublings, self.timing.retry_max_s)

    # --- nodes --------------------------------------------------------------------------------------------------------

    def _touch_node(self, name: str) -> None:
        """All that is due for the node itself: guard, registration, heartbeat, status, list."""
        node = self._nodes[name]
        if not node.up:
            self._schedule(name, "", None)
            return
        self._touch_guard(node)
        if node.reachable and self._now_s >= node.retry_at_s:
            for purpose, request in self._node_requests(node):
                node.calls[purpose] = self._call(name, purpose, request)
        self._schedule(name, "", self._node_due_s(node))

    def _node_requests(self, node: Node) -> list[tuple[str, ApiRequest]]:
        """What the node wants to send and is not already sending."""
        name, now_unix_s = node.shape.name, self._epoch_offset_s + self._now_s
        now_text = rfc3339(now_unix_s)
        wanted: list[tuple[str, ApiRequest]] = []
        if not node.registered:
            return [("register", objects.create_node(node.shape, now_text))] if not node.calls else []
        if node.status_due:
            gpus_well = node.shape.gpus - len(node.ill)
            wanted.append(("status", objects.patch_node_status(node.shape, gpus_well, now_text)))
        if node.list_due:
            wanted.append(("list", objects.list_pods_of(name)))
        if self._now_s >= node.beat_at_s:
            stamp = rfc3339_micro(now_unix_s)
            renew = objects.renew_lease(name, stamp)
            create = objects.create_lease(name, self.timing.lease_s, stamp)
            wanted.append(("beat", renew if node.lease_made else create))
        return [(purpose, request) for purpose, request in wanted if purpose not in node.calls]

    def _node_due_s(self, node: Node) -> float | None:
        times: list[float] = []
        if node.guard is not None:
            times.append(node.guard.ask_due_s)
            if not node.guard.fences(self._now_s):
                times.append(node.guard.fences_at_s)
        if node.reachable:
            wants = not node.registered or node.status_due or node.list_due
            if wants and not node.calls:
                times.append(max(node.retry_at_s, self._now_s))
            if node.registered and "beat" not in node.calls:
                times.append(max(node.beat_at_s, node.retry_at_s))
        return min(times, default=None)

    def _node_replied(self, node: Node, purpose: str, status: int, body: JsonObject) -> None:
        ok = 200 <= status < 300
        if ok or (purpose == "register" and status == 409):
            node.attempts, node.retry_at_s = 0, 0.0
        else:
            node.attempts += 1
            node.retry_at_s = self._now_s + self._back_off_s(node.attempts)
        match purpose:
            case "register" if ok or status == 409:
                node.registered, node.status_due = True, status == 409
            case "status" if ok:
                node.status_due = False
            case "status" if status == 404:
                node.registered = False  # somebody deleted the Node: register anew
            case "list" if ok:
                node.list_due = False
                self._listed(body.get("items") or (), node.shape.name, int(body["metadata"]["resourceVersion"]))
            case "beat":
                self._beaten(node, status)
            case _:
                pass
        self._touch_node(node.shape.name)

    def _beaten(self, node: Node, status: int) -> None:
        """A lease answer. After any failed heartbeat the node says anew that it is ready: it may have been tainted."""
        match status:
            case 200 | 201:
                if node.lease_made and self._now_s - node.beat_at_s > self.timing.heartbeat_s:
                    node.status_due = True
                node.lease_made = True
                node.beat_at_s = self._now_s + self.timing.heartbeat_s
            case 404:
                node.lease_made = False
                node.status_due = True
            case 409:
                node.lease_made = True
            case _:
                node.status_due = True

    def _node_event(self, event: types.NodeCut | types.NodeHealed | types.NodeCrashed | types.NodeBooted) -> None:
        node = self._nodes[event.node]
        match event:
            case types.NodeCut(_, agent_too):
                node.cut, node.agent_cut = True, agent_too
                self._forget_calls(node)
            case types.NodeHealed():
                node.cut = node.agent_cut = False
                self._rejoin(node)
            case types.NodeCrashed():
                self._crash(node)
            case types.NodeBooted():
                if not node.up:
                    node.up = True
                    node.boots += 1
                    held = node.guard.hold if node.guard is not None else frozenset()
                    node.guard = self._new_guard(event.node, node.boots, self._now_s, held)
                    self._rejoin(node)
            case _:
                assert_never(event)
        self._touch_node(event.node)

    def _rejoin(self, node: Node) -> None:
        node.list_due = node.status_due = True
        node.retry_at_s, node.attempts = 0.0, 0
        for run in list(node.pods.values()):
            run.retry_at_s = 0.0
            self._advance(run)

    def _forget_calls(self, node: Node) -> None:
        """Whatever was under way will not be answered; it may have been carried out."""
        for call_id in [c for c, (name, _) in self._calls.items() if name == node.shape.name]:
            del self._calls[call_id]
        node.calls.clear()
        for run in node.pods.values():
            run.call_id = None

    def _crash(self, node: Node) -> None:
        self._forget_calls(node)
        node.up = False
        for uid, run in list(node.pods.items()):
            if run.live:
                self._log(run, ENDED, "NodeCrashed")
            if run.stage is not Stage.ENDED:
                run.stage = Stage.ENDED
                node.release(run)
            del node.pods[uid], self._runs[uid]
            self._schedule(node.shape.name, uid, None)

    def _gpus_lost(self, name: str, indices: frozenset[int]) -> None:
        node = self._nodes[name]
        assert all(0 <= index < node.shape.gpus for index in indices)
        node.ill = indices
        node.status_due = True
        self._touch_node(name)

    # --- guards -------------------------------------------------------------------------------------------------------

    def _new_guard(self, node: str, boot: int, now_s: float, held: frozenset[str] = frozenset()) -> Guard | None:
        renewal_s = self.timing.guard_renewal_s
        if renewal_s is None:
            return None
        return Guard(node, boot, started_at_s=now_s, renewal_s=renewal_s, held_before=held)

    def _restart_guard(self, name: str) -> None:
        node = self._nodes[name]
        if node.up and node.guard is not None:
            node.boots += 1
            node.guard = self._new_guard(name, node.boots, self._now_s, node.guard.hold)
            self._touch_node(name)

    def _touch_guard(self, node: Node) -> None:
        guard = node.guard
        if guard is None:
            return
        if self._now_s >= guard.ask_due_s:
            ask = guard.ask(self._now_s)
            if not node.agent_cut:
                self._effects.append(types.AskGuard(node.shape.name, ask))
        if guard.fences(self._now_s):
            self._apply_guard(node)

    def _guard_answered(self, name: str, answer: GuardAnswer) -> None:
        node = self._nodes[name]
        if node.guard is None or not node.up or node.agent_cut:
            return
        node.guard.answered(answer)
        self._apply_guard(node)
        self._schedule(name, "", self._node_due_s(node))

    def _apply_guard(self, node: Node) -> None:
        """Stop what must stop, and let start what waited for leave."""
        for run in list(node.pods.values()):
            if run.ours and run.stage in {Stage.WAITING, Stage.RUNNING}:
                self._advance(run)


def _revision(pod: JsonObject) -> int:
    return int(pod["metadata"]["resourceVersion"])


def _planned_end(run: PodRun) -> tuple[float | None, str]:
    """When the containers end by themselves, and as what; None for never. The earlier of success and failure wins."""
    annotations = run.pod["metadata"].get("annotations") or {}
    ends: list[tuple[float, str]] = []
    for key, phase in ((FAIL_AFTER_SECONDS, "Failed"), (RUN_SECONDS, "Succeeded")):
        seconds = _seconds(annotations.get(key))
        if seconds is not None:
            ends.append((run.started_at_s + seconds, phase))
    return min(ends, default=(None, ""))


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None
