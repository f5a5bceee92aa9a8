"""One simulated cluster under virtual time with no delays in between: what the tests of simkube are written in."""

from collections.abc import Mapping, Sequence
from typing import Any

from cluster_agents.simkube.apiserver import ApiRequest, ApiResponse, ApiServer, Gone, JsonObject
from cluster_agents.simkube.apiserver.types import JSON
from cluster_agents.simkube.kubelet import Kubelets, NodeShape, Timing
from cluster_agents.simkube.kubelet import types as kt
from cluster_agents.simkube.labels import GROUP_UID, TOKEN
from federation.protocol.messages import GuardAnswer

PODS = "/api/v1/namespaces/default/pods"
JOBS = "/apis/batch/v1/namespaces/default/jobs"
EXCHANGES_MAX = 10_000  # one moment's exchanges between kubelets and API server; more would be a loop

PROMPT = Timing(start_delay_s=(1.0, 1.0), stop_delay_s=(2.0, 2.0), guard_renewal_s=None)
GUARDED = Timing(start_delay_s=(1.0, 1.0), stop_delay_s=(2.0, 2.0), guard_renewal_s=5.0)


def pod(
    name: str,
    *,
    node: str = "",
    gpus: int = 0,
    mig: Mapping[str, int] | None = None,
    cpu: str = "1",
    group: str = "",
    token: str = "",
    annotations: Mapping[str, str] | None = None,
    finalizers: Sequence[str] = (),
    gates: Sequence[str] = (),
    policy: str = "Never",
    grace_s: int = 30,
) -> JsonObject:
    """A pod as people would write it."""
    limits: dict[str, str] = {"cpu": cpu, "memory": "1Gi"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    limits |= {f"nvidia.com/mig-{profile}": str(count) for profile, count in (mig or {}).items()}
    metadata: dict[str, Any] = {"name": name, "labels": {}, "annotations": dict(annotations or {})}
    if group:
        metadata["labels"] = {GROUP_UID: group, TOKEN: token}
    if finalizers:
        metadata["finalizers"] = list(finalizers)
    spec: dict[str, Any] = {
        "restartPolicy": policy,
        "terminationGracePeriodSeconds": grace_s,
        "containers": [{"name": "main", "image": "train:1", "resources": {"limits": limits}}],
    }
    if node:
        spec["nodeName"] = node
    if gates:
        spec["schedulingGates"] = [{"name": gate} for gate in gates]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


class MiniCluster:
    """API server, kubelets and (if `lease_until_s` is set) an agent that answers guards until its lease ends."""

    def __init__(self, nodes: Sequence[NodeShape], timing: Timing = PROMPT, *, seed: int = 1) -> None:
        self.now_s = 0.0
        self.api = ApiServer("c-1")
        self.kubelets = Kubelets("c-1", nodes, timing, seed=seed)
        self.lease_until_s: float | None = None
        self.hold: tuple[str, ...] = ()
        self.api_up = True
        self._seen = self.api.latest_resource_version
        self._exchange(self.kubelets.handle(kt.Booted(), 0.0))

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
    ) -> ApiResponse:
        """One request, and everything that follows from it at this moment."""
        response = self.api.handle(ApiRequest(method, path, query or {}, body, content_type), self.now_s)
        self._exchange([])
        return response

    def tell(self, event: kt.Event) -> None:
        """An event for the kubelets."""
        self._exchange(self.kubelets.handle(event, self.now_s))

    def advance(self, seconds: float) -> None:
        """Let virtual time pass, waking whoever asked for it."""
        until_s = self.now_s + seconds
        while True:
            wakes = [self.kubelets.wake_at_s, self.api.wake_at_s if self.api_up else None]
            at_s = min((w for w in wakes if w is not None), default=None)
            if at_s is None or at_s > until_s:
                break
            self.now_s = max(self.now_s, at_s)
            self.tell(kt.Tick())
        self.now_s = until_s
        self.tell(kt.Tick())

    def api_returns(self) -> None:
        """The API server is back after `api_up = False`: the kubelets list anew."""
        self.api_up = True
        self._seen = self.api.latest_resource_version
        bound = tuple(p for _, p in self.api.store.each("pods") if p["spec"].get("nodeName"))
        self.tell(kt.PodsListed(bound))

    def pod(self, name: str) -> JsonObject | None:
        """The pod as stored."""
        return self.api.store.get("pods", ("default", name))

    def phase(self, name: str) -> str:
        """The pod's phase, "absent" if there is none."""
        found = self.pod(name)
        return "absent" if found is None else str(found["status"]["phase"])

    def live(self) -> list[str]:
        """Names of the pods with a container now."""
        return sorted(run.name for run in self.kubelets.live())

    def _exchange(self, effects: list[kt.Effect]) -> None:
        """Carry effects out and show the watch until both sides are quiet."""
        for _ in range(EXCHANGES_MAX):
            if self.api_up:
                self.api.step(self.now_s)
            if effects:
                effects = [more for effect in effects for more in self._carried_out(effect)]
            elif self.api_up and self._seen < self.api.latest_resource_version:
                effects = self._shown()
            else:
                self.kubelets.check_invariants()
                return
        raise AssertionError("kubelets and API server never came to rest")

    def _carried_out(self, effect: kt.Effect) -> list[kt.Effect]:
        if isinstance(effect, kt.AskGuard):
            if self.lease_until_s is None:
                return []
            remaining_s = self.lease_until_s - self.now_s
            answer = GuardAnswer(ask_id=effect.ask.ask_id, remaining_s=remaining_s, hold=self.hold)
            return self.kubelets.handle(kt.GuardAnswered(effect.node, answer), self.now_s)
        if not self.api_up:
            return self.kubelets.handle(kt.ApiReply(effect.call_id, kt.NO_ANSWER, {}), self.now_s)
        response = self.api.handle(effect.request, self.now_s)
        status = kt.NO_ANSWER if response.lost else response.status
        return self.kubelets.handle(kt.ApiReply(effect.call_id, status, response.body), self.now_s)

    def _shown(self) -> list[kt.Effect]:
        events = self.api.events_since("pods", None, self._seen)
        assert not isinstance(events, Gone)
        self._seen = self.api.latest_resource_version
        effects: list[kt.Effect] = []
        for event in events:
            shown = kt.PodGone(event.object) if event.kind == "DELETED" else kt.PodSeen(event.object)
            effects += self.kubelets.handle(shown, self.now_s)
        return effects
