"""All kubelets of one cluster as one pure state machine: events in, API calls and guard asks out, and a run log.

They live on when their API server is killed, restarted or cut off. Time is an argument, draws come from the seed.
"""

from collections.abc import Sequence
from typing import Final, assert_never

from cluster_agents.core.guard import Guard
from cluster_agents.simkube.apiserver.times import EPOCH_OFFSET_S
from cluster_agents.simkube.apiserver.types import JsonObject
from cluster_agents.simkube.kubelet import types
from cluster_agents.simkube.kubelet.node import Node, PodRun
from cluster_agents.simkube.kubelet.nodes import NodeKeeper, new_guard
from cluster_agents.simkube.kubelet.outbox import Outbox
from cluster_agents.simkube.kubelet.pods import PodKeeper
from cluster_agents.simkube.kubelet.types import NO_ANSWER, Effect, NodeShape, Timing
from cluster_agents.simkube.runlog import STARTED, RunLogEntry

NODES_MAX: Final = 5_000  # Kubernetes' tested envelope, and DESIGN §15's


class Kubelets:
    """The kubelets, and the guards beside them, of one cluster.

    The host delivers what the watch on pods shows, in order; carries out every `ApiCall` at most once and answers each
    with one `ApiReply`; and calls with `Tick` no later than `wake_at_s`.
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
        self._out = Outbox(now_s, timing.call_timeout_s)
        self._nodes = {shape.name: Node(shape, new_guard(timing, shape.name, 0, now_s)) for shape in nodes}
        self._pods = PodKeeper(cluster, self._nodes, timing, self._out, seed=seed, epoch_offset_s=epoch_offset_s)
        self._keeper = NodeKeeper(self._nodes, timing, self._out, self._pods, epoch_offset_s=epoch_offset_s)

    @property
    def run_log(self) -> list[RunLogEntry]:
        """Everything that ever ran, in the order it was noted; only grows. Times are the `now_s` given to `handle`."""
        return self._pods.run_log

    @property
    def wake_at_s(self) -> float | None:
        """When a `Tick` is due at the latest; None for never."""
        return self._out.wake_at_s

    def live(self) -> list[PodRun]:
        """Every pod with a container now, by node and uid. For checkers; do not change what it returns."""
        return sorted((run for run in self._pods.runs.values() if run.live), key=lambda run: (run.node, run.uid))

    def knows(self, node: str) -> bool:
        """Is this one of the nodes?"""
        return node in self._nodes

    def guard(self, node: str) -> Guard | None:
        """The node's guard; None where the cluster has none."""
        return self._nodes[node].guard

    def handle(self, event: types.Event, now_s: float) -> list[Effect]:
        """Take one event in; answers what to send. Also does everything that has become due by `now_s`."""
        assert now_s >= self._out.now_s
        self._out.now_s = now_s
        match event:
            case types.Booted():
                for name in self._nodes:
                    self._keeper.touch(name)
            case types.PodSeen(pod):
                self._pods.seen(pod)
            case types.PodGone(pod):
                self._pods.gone(pod)
            case types.PodsListed(pods, node):
                self._pods.listed(pods, node, None)
            case types.ApiReply(call_id, status, body):
                self._replied(call_id, status, body)
            case types.GuardAnswered(node, answer):
                self._keeper.guard_answered(node, answer)
            case types.Tick():
                pass
            case types.NodeCut() | types.NodeHealed() | types.NodeCrashed() | types.NodeBooted():
                self._keeper.link_changed(event)
            case types.GuardRestarted(node):
                self._keeper.restart_guard(node)
            case types.GpusLost(node, indices):
                self._keeper.gpus_lost(node, indices)
            case _:
                assert_never(event)
        self._run_due()
        return self._out.take()

    def check_invariants(self) -> None:
        """Room, devices and the run log agree."""
        for node in self._nodes.values():
            node.check_invariants()
        open_uids: set[str] = set()
        for entry in self.run_log:
            (open_uids.add if entry.event == STARTED else open_uids.discard)(entry.uid)
        assert open_uids == {run.uid for run in self._pods.runs.values() if run.live}

    def _run_due(self) -> None:
        """Everything due by now, in order of time, then node, then pod."""
        while (at_s := self.wake_at_s) is not None and at_s <= self._out.now_s:
            call_id = self._out.next_timed_out()
            if call_id is not None:
                self._replied(call_id, NO_ANSWER, {})
                continue
            due = self._out.next_due()
            assert due is not None
            node, uid = due
            if not uid:
                self._keeper.touch(node)
            elif uid in self._pods.runs:
                self._pods.advance(self._pods.runs[uid])

    def _replied(self, call_id: int, status: int, body: JsonObject) -> None:
        caller = self._out.close(call_id)
        if caller is None:
            return  # timed out before, or its node was cut or crashed since
        name, purpose = caller
        node = self._nodes[name]
        if purpose in node.calls:
            del node.calls[purpose]
            self._keeper.replied(node, purpose, status, body)
            return
        run = self._pods.runs.get(purpose)
        if run is not None and run.call_id == call_id:
            self._pods.replied(run, status, body)
