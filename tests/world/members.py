"""One member cluster: simkube's API server and kubelets, and the agent processes beside them, all real cores.

The hosts here do what the shells do: carry requests, feed watches, and time calls out. They decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, assert_never

from cluster_agents.core.events import (
    AgentEffect,
    AgentEvent,
    AnswerGuard,
    AskServers,
    CallKube,
    Changed,
    GuardAsked,
    Kind,
    KubeAnswered,
    Listed,
    Note,
    SendReport,
    ServerAnswered,
    Started,
    Stop,
    Tick,
    Told,
)
from cluster_agents.core.reconcile import Reconciler
from cluster_agents.simkube.apiserver.selectors import selector_of
from cluster_agents.simkube.apiserver.server import ApiServer, event_of
from cluster_agents.simkube.apiserver.types import ApiRequest, ApiResponse, Gone
from cluster_agents.simkube.kubelet import types as kubelet
from tests.world.process import Process
from tests.world.violation import ViolationError

if TYPE_CHECKING:
    from tests.world.draw import ClusterShape
    from tests.world.world import World

AGENT_NAMESPACE: Final = "muster-system"
LIST_RETRY_S: Final = 1.5  # the reflector's pause after a failed list or while its connection is cut
CONTROLLERS_LAG_S: Final = 0.05  # controllers see writes this much later
LANDS_LATE_MAX_S: Final = 5.0  # a request may reach the API server this long after its client gave it up
LIST_TIMEOUT_S: Final = 10.0

WATCHED: Final[dict[Kind, tuple[str, str]]] = {
    Kind.NODES: ("/api/v1/nodes", ""),
    Kind.PODS: ("/api/v1/pods", ""),
    Kind.CONFIGMAPS: (f"/api/v1/namespaces/{AGENT_NAMESPACE}/configmaps", "muster.io/kind"),
    Kind.JOBS: ("/apis/batch/v1/jobs", "muster.io/token"),
}

_AGENT_TICK: Final = Tick()
_KUBELET_TICK: Final = kubelet.Tick()

Answered = Callable[[int, Any], None]


class KubeletHost(Process):
    """All kubelets and guards of one cluster, on one clock. Their nodes are cut and crashed one by one."""

    def __init__(self, world: World, cluster: ClusterHost) -> None:
        super().__init__(
            f"{cluster.name}/nodes", world.draw_clock(f"{cluster.name}/nodes"), world.scheduler, world.trace
        )
        self.world = world
        self.cluster = cluster
        self.kubelets = world.make_kubelets(cluster, self.local_s)
        self._logged = 0
        self._acted = 0

    def _boot(self) -> None:
        self._handle(kubelet.Booted())

    def _due_s(self) -> float | None:
        return self.kubelets.wake_at_s

    def _tick(self) -> kubelet.Event:
        return _KUBELET_TICK

    def _step(self, event: kubelet.Event) -> None:
        asks: list[kubelet.AskGuard] = []
        for effect in self.kubelets.handle(event, self.local_s):
            match effect:
                case kubelet.ApiCall(call_id, _, request):
                    self._call(call_id, request)
                case kubelet.AskGuard():
                    asks.append(effect)
                case _:
                    assert_never(effect)
        if asks:
            self.world.ask_guards(self, asks)
        log = self.kubelets.run_log
        while self._logged < len(log):
            self.world.run_logged(self.cluster, log[self._logged])
            self._logged += 1

    def guards_answered(self, answers: list[kubelet.GuardAnswered]) -> None:
        self.deliver_all(0, list(answers))

    def _call(self, call_id: int, request: ApiRequest) -> None:
        def answered(status: int, body: Any) -> None:
            self.deliver(0, kubelet.ApiReply(call_id, status, body))

        ways = (f"api>{self.name}", f"api<{self.name}")
        self.cluster.call(ways, request, kubelet.Timing().call_timeout_s, answered, late=False)


class ClusterHost:
    """One member cluster's API server, whose objects survive its process; it feeds watches and logs pod acts."""

    def __init__(self, world: World, shape: ClusterShape) -> None:
        self.world = world
        self.shape = shape
        self.name = shape.name
        self.api = ApiServer(shape.name)
        self.api_up = True
        self.loses_replies = False  # a fault window: some replies are lost, some requests land late
        self.streams: list[Stream] = []
        self.agents: list[AgentHost] = []
        self._acted = 0
        self._step_at_s: float | None = None
        self.api.handle(_namespace(AGENT_NAMESPACE), 0.0)
        self.nodes = KubeletHost(world, self)

    def start(self) -> None:
        Stream(self, self.nodes.name, "pods", "/api/v1/pods", "", self._pods_listed, self._pod_changed).open()
        self.nodes.start()

    def _pods_listed(self, items: tuple[Any, ...]) -> None:
        self.nodes.deliver(0, kubelet.PodsListed(items))

    def _pod_changed(self, item: Any, deleted: bool) -> None:
        self.nodes.deliver(0, kubelet.PodGone(item) if deleted else kubelet.PodSeen(item))

    # --- requests ---

    def call(
        self, ways: tuple[str, str], request: ApiRequest, timeout_s: float, answered: Answered, *, late: bool = True
    ) -> None:
        """Carry one request there and its response back; `answered` hears exactly one outcome, status 0 if unknown.

        `late`: some requests reach the server after their client gave them up. Not those of kubelets: an old status
        that lands late is put right by a real kubelet, which compares what the server shows.
        """
        world = self.world
        network, scheduler, mean_s = world.network, world.scheduler, world.network.weather.api_delay_s
        there_s, back_s = network.delay(mean_s), network.delay(mean_s)
        luck = world.api_rng.random() if self.loses_replies else 1.0
        if network.is_cut(ways[0]) or luck < 0.05:
            scheduler.after(timeout_s, answered, 0, {})
            return
        if luck < 0.15 and late:
            there_s = timeout_s + world.api_rng.random() * LANDS_LATE_MAX_S
        there_s = min(there_s, timeout_s + LANDS_LATE_MAX_S)
        reply_lost = 0.15 <= luck < 0.3 or there_s + back_s > timeout_s
        if reply_lost:
            scheduler.after(timeout_s, answered, 0, {})
        scheduler.after(there_s, self._arrive, ways[1], request, back_s, timeout_s - there_s, answered, reply_lost)

    def _arrive(
        self, way_back: str, request: ApiRequest, back_s: float, left_s: float, answered: Answered, reply_lost: bool
    ) -> None:
        scheduler = self.world.scheduler
        response = self.handle(request) if self.api_up else None
        if reply_lost:
            return
        if response is None or response.lost or self.world.network.is_cut(way_back):
            scheduler.after(max(left_s, 0.0), answered, 0, {})
        else:
            scheduler.after(back_s, answered, response.status, response.body)

    def handle(self, request: ApiRequest) -> ApiResponse:
        """What the API server does with a request, at once; watchers and checkers see the consequences."""
        response = self.api.handle(request, self.world.scheduler.now_s)
        self._changed()
        return response

    def gpus_asked_on(self, node: str) -> dict[str, int]:
        """GPUs by pod of ours that is bound to the node and has not ended, as the API server has them."""
        asked = {}
        for (_, name), pod in self.api.store.each("pods"):
            ours = "muster.io/token" in (pod["metadata"].get("labels") or {})
            if (
                ours
                and pod["spec"].get("nodeName") == node
                and pod["status"].get("phase") not in {"Succeeded", "Failed"}
            ):
                asked[name] = gpus_of(pod)
        return asked

    def _changed(self) -> None:
        acts = self.api.audit.acts
        while self._acted < len(acts):
            act = acts[self._acted]
            self._acted += 1
            self.world.pod_acted(self, act)
        for stream in self.streams:
            stream.poke()
        self._plan_step()

    def _plan_step(self) -> None:
        """Controllers act when one of them has something to do, soon after the write that gave it to them."""
        wake_s = self.api.wake_at_s
        if wake_s is None:
            return
        at_s = max(wake_s, self.world.scheduler.now_s + CONTROLLERS_LAG_S)
        if self._step_at_s is None or at_s < self._step_at_s:
            self._step_at_s = at_s
            self.world.scheduler.at(at_s, self._step, at_s)

    def _step(self, at_s: float) -> None:
        if at_s != self._step_at_s:
            return  # an earlier one took its place
        self._step_at_s = None
        if not self.api_up:
            return
        before = self.api.latest_resource_version
        self.api.step(self.world.scheduler.now_s)
        if self.api.latest_resource_version != before:
            self._changed()
        else:
            self._plan_step()

    # --- faults ---

    def crash_api(self) -> None:
        self.api_up = False
        for stream in self.streams:
            stream.broken()

    def restart_api(self, *, compacted: bool) -> None:
        self.api_up = True
        if compacted:
            self.api.compact()
        self._changed()

    def poke_streams(self) -> None:
        for stream in self.streams:
            stream.poke()


class Stream:
    """A reflector of one kind: list, then watch; list again when history is gone. One ordered connection."""

    def __init__(
        self,
        cluster: ClusterHost,
        owner: str,
        plural: str,
        path: str,
        labels: str,
        listed: Callable[[tuple[Any, ...]], None],
        changed: Callable[[Any, bool], None],
    ) -> None:
        self._cluster = cluster
        self._ways = (f"api>{owner}", f"api<{owner}")
        self._plural = plural
        self._request = ApiRequest("GET", path, {"labelSelector": labels} if labels else {})
        self._table = cluster.api.store.tables[plural]
        self._selector = selector_of(plural, labels, "")
        self._listed = listed
        self._changed = changed
        self._revision: int | None = None
        self._pending = False  # a look is scheduled
        self._arrives_s = 0.0  # one connection delivers in order
        self._life = 0
        self.closed = False

    def open(self) -> None:
        self._cluster.streams.append(self)
        self._list(self._life)

    def close(self) -> None:
        self.closed = True
        self._cluster.streams.remove(self)

    def broken(self) -> None:
        """The connection is gone; what was not delivered will be watched again from the same revision."""
        self._pending = False

    def poke(self) -> None:
        """Something may have changed: look soon, if it is our kind and no look is due already."""
        if self._pending or self._revision is None:
            return
        revisions = self._table.revisions
        if (not revisions or revisions[-1] <= self._revision) and self._table.compacted <= self._revision:
            return
        self._pending = True
        world = self._cluster.world
        world.scheduler.after(world.network.delay(world.network.weather.watch_delay_s), self._look)

    def _look(self) -> None:
        if self.closed or not self._pending:
            return
        self._pending = False
        cluster = self._cluster
        network = cluster.world.network
        if not cluster.api_up or network.is_cut(*self._ways):
            self._pending = True
            cluster.world.scheduler.after(LIST_RETRY_S, self._look)
            return
        assert self._revision is not None
        changes = cluster.api.changes_since(self._plural, self._revision)
        if isinstance(changes, Gone):
            self._revision = None
            self._list(self._life)
            return
        if not changes:
            return
        self._revision = changes[-1].revision
        for change in changes:
            event = event_of(change, "", self._selector)
            if event is not None:
                self._changed(event.object, event.kind == "DELETED")
        self.poke()

    def _list(self, life: int) -> None:
        if not self.closed and life == self._life:
            self._cluster.call(self._ways, self._request, LIST_TIMEOUT_S, self._list_answered)

    def _list_answered(self, status: int, body: Any) -> None:
        if self.closed:
            return
        if status != 200:
            self._cluster.world.scheduler.after(LIST_RETRY_S, self._list, self._life)
            return
        self._revision = int(body["metadata"]["resourceVersion"])
        self._listed(tuple(body["items"]))
        self.poke()


class AgentHost(Process):
    """One agent process. A cluster may have two under one name; only the holder of the local lease acts."""

    def __init__(self, world: World, cluster: ClusterHost, suffix: str) -> None:
        super().__init__(
            f"{cluster.name}/{suffix}", world.draw_clock(f"{cluster.name}/{suffix}"), world.scheduler, world.trace
        )
        self.world = world
        self.cluster = cluster
        self.reconciler: Reconciler | None = None
        self.part_at_s: dict[str, float] = {}  # when the newest part of a report reaches a server
        self.stuck_reports: list[Any] = []  # sent into a cut connection; a broken NATS delivers them after newer ones
        self._streams: list[Stream] = []
        self._guards: dict[int, str] = {}  # ticket -> node
        self._guard_answers: list[kubelet.GuardAnswered] = []

    @property
    def process(self) -> str:
        """This process, told apart from those before and after a crash."""
        return f"{self.name}#{self.incarnation}"

    def _boot(self) -> None:
        self.reconciler = self.world.make_reconciler(self)
        self._guards.clear()
        self._handle(Started())
        for kind, (path, labels) in WATCHED.items():
            self._open(kind, path, labels, self.incarnation)

    def _open(self, kind: Kind, path: str, labels: str, incarnation: int) -> None:
        def listed(items: tuple[Any, ...]) -> None:
            self.deliver(incarnation, Listed(kind, items))

        def changed(item: Any, deleted: bool) -> None:
            self.deliver(incarnation, Changed(kind, item, deleted))

        stream = Stream(self.cluster, self.name, kind.value, path, labels, listed, changed)
        self._streams.append(stream)
        stream.open()

    def crash(self) -> None:
        super().crash()
        self.reconciler = None
        for stream in self._streams:
            stream.close()
        self._streams.clear()

    def _due_s(self) -> float | None:
        return self.reconciler.wake_at_s(self.local_s) if self.reconciler is not None else None

    def _tick(self) -> AgentEvent:
        return _AGENT_TICK

    def guards_asked(self, asks: list[kubelet.AskGuard]) -> None:
        """Asks that left together arrive together, and so do their answers: one message each way saves time."""
        if not self.up:
            return
        events = []
        for ask in asks:
            ticket = self.world.next_ticket()
            self._guards[ticket] = ask.node
            events.append(GuardAsked(ticket, ask.ask))
        self.deliver_all(0, events)
        self._send_guard_answers()

    def resume(self) -> None:
        super().resume()
        self._send_guard_answers()

    def _send_guard_answers(self) -> None:
        if self._guard_answers:
            answers, self._guard_answers = self._guard_answers, []
            self.world.answer_guards(self.cluster.nodes, answers)

    def server_answered(self, incarnation: int, answer: Any) -> None:
        self.deliver(incarnation, ServerAnswered(answer))

    def told(self, message: Any) -> None:
        self.deliver(0, Told(message))

    def _step(self, event: AgentEvent) -> None:
        assert self.reconciler is not None
        now_s = self.scheduler.now_s
        if not isinstance(event, GuardAsked | Tick):
            self.trace.note(now_s, self.name, type(event).__name__, _facts(event))
        for effect in self.reconciler.handle(event, self.local_s):
            self._carry_out(effect)

    def _carry_out(self, effect: AgentEffect) -> None:
        world = self.world
        match effect:
            case CallKube():
                self._call(effect)
            case AskServers(ask):
                self.trace.note(
                    self.scheduler.now_s, self.name, "asks", f"{type(ask).__name__} {getattr(ask, 'token', '')}"
                )
                world.ask_servers(self, ask)
            case SendReport(report):
                world.send_report(self, report)
            case AnswerGuard(ticket, answer):
                self._guard_answers.append(kubelet.GuardAnswered(self._guards.pop(ticket), answer))
            case Note(event, fields):
                world.count_note(event)
                self.trace.note(self.scheduler.now_s, self.name, event, " ".join(f"{k}={v}" for k, v in fields))
            case Stop(why):
                raise ViolationError("crash", f"{self.name} stopped: {why}", (self.name,))
            case _:
                assert_never(effect)

    def _call(self, call: CallKube) -> None:
        incarnation = self.incarnation

        def answered(status: int, body: Any) -> None:
            self.deliver(incarnation, KubeAnswered(call.call_id, status, body))

        now_s = self.scheduler.now_s
        self.trace.note(now_s, self.name, call.method, f"{call.path} id={call.call_id} {call.write_class}")
        query = dict(call.query)
        body: Any = call.body
        request = ApiRequest(call.method, call.path, query, body, call.content_type)
        self.cluster.call((f"api>{self.name}", f"api<{self.name}"), request, call.timeout_s, answered)


def _facts(event: AgentEvent) -> str:
    match event:
        case KubeAnswered(call_id, status, _):
            return f"id={call_id} status={status}"
        case ServerAnswered(answer):
            facts = f"{type(answer).__name__} {getattr(answer, 'token', '')} {getattr(answer, 'result', '')}"
            return f"{facts} as_of={getattr(answer, 'as_of', '')} landed_at={getattr(answer, 'landed_at', '')}"
        case Changed(kind, item, deleted):
            return f"{kind.value} {item['metadata']['name']}{' deleted' if deleted else ''}"
        case Listed(kind, items):
            return f"{kind.value} {len(items)}"
        case Told(message):
            return type(message).__name__
        case _:
            return ""


def gpus_of(pod: Any) -> int:
    """Whole GPUs that a pod asks for."""
    limits = [(container.get("resources") or {}).get("limits") or {} for container in pod["spec"]["containers"]]
    return sum(int(limit.get("nvidia.com/gpu", 0)) for limit in limits)


def _namespace(name: str) -> ApiRequest:
    body = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}}
    return ApiRequest("POST", "/api/v1/namespaces", {}, body)
