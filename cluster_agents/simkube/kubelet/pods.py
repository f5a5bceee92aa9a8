"""The pods on the nodes of one cluster: admission, start, stop, end, and the reports that say so."""

from collections.abc import Mapping, Sequence
from typing import Final, assert_never

from cluster_agents.simkube.apiserver.times import rfc3339
from cluster_agents.simkube.apiserver.types import ApiRequest, JsonObject
from cluster_agents.simkube.kubelet import objects
from cluster_agents.simkube.kubelet.asks import ask_of, drawn
from cluster_agents.simkube.kubelet.node import Node, Outcome, PodRun, Stage
from cluster_agents.simkube.kubelet.outbox import Outbox
from cluster_agents.simkube.kubelet.types import Timing
from cluster_agents.simkube.labels import FAIL_AFTER_SECONDS, GROUP_UID, RUN_SECONDS
from cluster_agents.simkube.runlog import ENDED, STARTED, RunLogEntry

CONFLICT_STATUSES: Final = frozenset({404, 409, 422})  # about this pod's object: the watch will say what became of it
TERMINAL: Final = frozenset({"Succeeded", "Failed"})


class PodKeeper:
    """Every pod bound to one of `nodes`. Level-triggered: `advance` may be called for any pod at any time."""

    def __init__(
        self,
        cluster: str,
        nodes: Mapping[str, Node],
        timing: Timing,
        out: Outbox,
        *,
        seed: int,
        epoch_offset_s: float,
    ) -> None:
        self.run_log: list[RunLogEntry] = []
        self.runs: dict[str, PodRun] = {}
        self._cluster = cluster
        self._nodes = nodes
        self._timing = timing
        self._out = out
        self._seed = seed
        self._epoch_offset_s = epoch_offset_s

    # --- pods seen and gone -------------------------------------------------------------------------------------------

    def seen(self, pod: JsonObject) -> None:
        node = self._nodes.get(pod["spec"].get("nodeName") or "")
        if node is None or not node.reachable:
            return
        run = self.runs.get(pod["metadata"]["uid"])
        if run is None:
            self._take_on(node, pod)
        elif _revision(pod) >= _revision(run.pod):
            run.pod = pod
            self.advance(run)

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
        node.pods[run.uid] = self.runs[run.uid] = run
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
                run.start_at_s = self._out.now_s + self._draw(run, "start", self._timing.start_delay_s)
        self.advance(run)

    def gone(self, pod: JsonObject) -> None:
        """The watch says so. A list that is under way may still show it."""
        uid, node = pod["metadata"]["uid"], self._nodes.get(pod["spec"].get("nodeName") or "")
        if node is not None and "list" in node.calls:
            node.gone_meanwhile.add(uid)
        self._gone(uid)

    def _gone(self, uid: str) -> None:
        run = self.runs.get(uid)
        if run is not None and self._nodes[run.node].reachable:
            run.gone = True
            self.advance(run)

    def listed(self, pods: Sequence[JsonObject], only: str | None, revision: int | None) -> None:
        """A full list. With `revision`, it raced the watch: pods known from later revisions are not thereby gone, and
        those that the watch took away meanwhile do not come back."""
        present = {pod["metadata"]["uid"] for pod in pods}
        for uid in [u for u, run in self.runs.items() if u not in present and only in {None, run.node}]:
            if revision is None or _revision(self.runs[uid].pod) <= revision:
                self._gone(uid)
        gone = self._nodes[only].gone_meanwhile if only is not None and revision is not None else set[str]()
        for pod in pods:
            if pod["metadata"]["uid"] in gone:
                continue
            run = self.runs.get(pod["metadata"]["uid"])
            if run is not None and revision is None and self._nodes[run.node].reachable:
                run.pod = pod  # also when older: the server may have been restored from a backup
                run.confirmed = False
            self.seen(pod)
        gone.clear()

    # --- a pod's containers -------------------------------------------------------------------------------------------

    def advance(self, run: PodRun) -> None:
        """Do all that is due for one pod, then plan its next moment. Level-triggered: safe to call at any time."""
        node = self._nodes[run.node]
        for _ in Stage:  # a pod passes each stage at most once at one moment
            if not self._moved(node, run):
                break
        if run.stage is Stage.ENDED and run.gone:
            del self.runs[run.uid], node.pods[run.uid]
            self._out.schedule(run.node, run.uid, None)
            return
        self._report(node, run)
        self._out.schedule(run.node, run.uid, self._due_of(node, run))

    def _moved(self, node: Node, run: PodRun) -> bool:
        """Let the pod take its next step if it is due; True if it did."""
        match run.stage:
            case Stage.WAITING:
                if run.deleting:
                    message = "The container could not be located when the pod was deleted"
                    self._end(node, run, Outcome("Failed", "ContainerStatusUnknown", message, objects.KILLED_EXIT_CODE))
                    return True
                if self._out.now_s >= run.start_at_s and self._may_start(node, run):
                    self._start(run)
                    return True
            case Stage.RUNNING:
                why = self._stop_reason(node, run)
                if why:
                    run.stage, run.stop_why = Stage.STOPPING, why
                    stop_s = self._draw(run, "stop", self._timing.stop_delay_s)
                    run.stop_at_s = self._out.now_s + min(stop_s, run.grace_s)
                    return True
                outcome = self._natural_end(run)
                if outcome is not None:
                    self._end(node, run, outcome)
                    return True
            case Stage.STOPPING:
                if run.deleting:
                    run.stop_at_s = min(run.stop_at_s, self._out.now_s + run.grace_s)
                if self._out.now_s >= run.stop_at_s:
                    self._end(node, run, Outcome("Failed", run.stop_why, "", objects.KILLED_EXIT_CODE))
                    return True
            case Stage.ENDED:
                pass
            case _:
                assert_never(run.stage)
        return False

    def _may_start(self, node: Node, run: PodRun) -> bool:
        if node.guard is None or not run.ours or not self._timing.guard_gates_starts:
            return True
        return node.guard.may_start(run.token, self._out.now_s)

    def _stop_reason(self, node: Node, run: PodRun) -> str:
        if run.deleting:
            return "Deleted"
        if node.guard is not None and run.ours and node.guard.due(self._out.now_s, (run.token,)):
            return "GuardFenced"
        return ""

    def _start(self, run: PodRun) -> None:
        run.stage = Stage.RUNNING
        run.started_at_s = self._out.now_s
        self._log(run, STARTED, "restart" if run.restarts else "")

    def _natural_end(self, run: PodRun) -> Outcome | None:
        """How the containers end by themselves, if they have by now."""
        at_s, phase = _planned_end(run)
        if at_s is None or self._out.now_s < at_s:
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
            run.start_at_s = self._out.now_s + self._timing.restart_delay_s
            return
        run.stage = Stage.ENDED
        run.outcome = outcome
        node.release(run)

    def _due_of(self, node: Node, run: PodRun) -> float | None:
        """When this pod next wants attention without any event. A guard's leave comes as an event."""
        times: list[float] = []
        match run.stage:
            case Stage.WAITING if self._out.now_s < run.start_at_s:
                times.append(run.start_at_s)
            case Stage.RUNNING:
                ends_at_s, _ = _planned_end(run)
                if ends_at_s is not None:
                    times.append(ends_at_s)
            case Stage.STOPPING:
                times.append(run.stop_at_s)
            case _:
                pass
        if run.call_id is None and run.retry_at_s > self._out.now_s and node.reachable:
            times.append(run.retry_at_s)
        return min(times, default=None)

    def _draw(self, run: PodRun, what: str, span_s: tuple[float, float]) -> float:
        return drawn(self._seed, f"{run.uid}|{what}|{run.restarts}", *span_s)

    def _log(self, run: PodRun, event: str, why: str) -> None:
        assert event in {STARTED, ENDED}
        self.run_log.append(
            RunLogEntry(
                cluster=self._cluster,
                node=run.node,
                namespace=run.namespace,
                pod=run.name,
                uid=run.uid,
                group=run.labels.get(GROUP_UID, ""),
                token=run.token,
                event="started" if event == STARTED else "ended",
                at_s=self._out.now_s,
                gpus=run.gpus,
                why=why,
                instances=run.instances,
            )
        )

    # --- reports to the API server ------------------------------------------------------------------------------------

    def _report(self, node: Node, run: PodRun) -> None:
        """Send what the API server does not know yet: one call at a time, after its back-off."""
        if run.call_id is not None or run.gone or not node.reachable or self._out.now_s < run.retry_at_s:
            return
        request = self._report_due(run)
        if request is not None:
            run.call_id = self._out.call(run.node, run.uid, request)

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
        now_text = rfc3339(self._epoch_offset_s + self._out.now_s)
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

    def replied(self, run: PodRun, status: int, body: JsonObject) -> None:
        """Take in the answer to the pod's one call."""
        run.call_id = None
        self._note_reply(run, status, body)
        self.advance(run)

    def _note_reply(self, run: PodRun, status: int, body: JsonObject) -> None:
        if not 200 <= status < 300:
            run.attempts += 1
            worst = status in CONFLICT_STATUSES
            run.retry_at_s = self._out.now_s + (
                self._timing.retry_max_s if worst else back_off_s(self._timing, run.attempts)
            )
            return
        run.attempts, run.retry_at_s = 0, 0.0
        if run.stage is Stage.ENDED and run.outcome is not None and run.acked == run.outcome.phase:
            run.confirmed = True
        else:
            run.acked = (body.get("status") or {}).get("phase", run.acked)

    def rejoin(self, node: Node) -> None:
        """The node reaches its API server again: say at once what could not be said."""
        for run in list(node.pods.values()):
            run.retry_at_s = 0.0
            self.advance(run)

    def crash(self, node: Node) -> None:
        """Every container of the node ends now, and its kubelet forgets them all."""
        for uid, run in list(node.pods.items()):
            if run.live:
                self._log(run, ENDED, "NodeCrashed")
            if run.stage is not Stage.ENDED:
                run.stage = Stage.ENDED
                node.release(run)
            del node.pods[uid], self.runs[uid]
            self._out.schedule(node.shape.name, uid, None)


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


def back_off_s(timing: Timing, attempts: int) -> float:
    """How long to wait after that many failures in a row."""
    return min(timing.retry_s * 2.0 ** min(attempts - 1, 16), timing.retry_max_s)
