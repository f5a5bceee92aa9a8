"""One agent core over simkube's cores and a scripted federation, under virtual time without delays.

What tests of the agent are written in. Faults are switched on by name; nothing here is random.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster_agents.core.config import AgentConfig
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
    Shown,
    Started,
    Stop,
    Tick,
    Told,
)
from cluster_agents.core.reconcile import Reconciler
from cluster_agents.simkube.apiserver import ApiRequest, ApiServer, Gone
from cluster_agents.simkube.kubelet import Kubelets, NodeShape, Timing
from cluster_agents.simkube.kubelet import types as kt
from federation.protocol.lease import LeaseState, RenewalResult, Timings, apply_renewal
from federation.protocol.messages import (
    CLAIMS_MAX,
    AgentAsk,
    Claim,
    Claims,
    ClaimsAnswer,
    DesiredAnswer,
    DesiredAsk,
    DesiredGroup,
    Doorbell,
    GuardAnswer,
    LeaseBody,
    Renewal,
    RenewalAnswer,
    Report,
    ServerAnswer,
    SpecAnswer,
    SpecAsk,
    Verdict,
    VerdictAnswer,
)

CLUSTER = "c-1"
LINEAGE = "l1"
EXCHANGES_MAX = 100_000
PROMPT = Timing(start_delay_s=(1.0, 1.0), stop_delay_s=(2.0, 2.0), guard_renewal_s=None)
GUARDED = Timing(start_delay_s=(1.0, 1.0), stop_delay_s=(2.0, 2.0), guard_renewal_s=5.0)
FAST = Timings(ttl_s=30.0)


def node(name: str, *, gpus: int = 8, **labels: str) -> NodeShape:
    found = {"nvidia.com/gpu.product": "A100", **{key.replace("__", "/"): value for key, value in labels.items()}}
    return NodeShape(name, gpus=gpus, labels=found)


def template(*, gpus: int = 1, run_s: float | None = None, fail_s: float | None = None) -> dict[str, Any]:
    limits = {"cpu": "1", "memory": "1Gi"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    annotations = {}
    if run_s is not None:
        annotations["simkube/run-seconds"] = str(run_s)
    if fail_s is not None:
        annotations["simkube/fail-after-seconds"] = str(fail_s)
    return {
        "metadata": {"annotations": annotations},
        "spec": {"containers": [{"name": "main", "image": "train:1", "resources": {"limits": limits}}]},
    }


class Federation:
    """The other side, as far as one agent sees it: a lease, homes by position, and where verdicts landed."""

    def __init__(self) -> None:
        self.lease = LeaseBody(cluster=CLUSTER, state=LeaseState.FENCED, epoch=1)
        self.position = 100
        self.lineage = LINEAGE
        self.homes: dict[str, DesiredGroup] = {}
        self.changed_at: dict[str, int] = {}
        self.ended_at: dict[str, int] = {}
        self.specs: dict[str, bytes] = {}
        self.origins: dict[str, bytes] = {}  # none: a server of an older version
        self.verdicts: list[Verdict] = []
        self.wanted: list[str] = []  # groups that a restored fleet asks for, until it is told
        self.claims: list[Claims] = []
        self.verdict_counts: Counter[tuple[str, str]] = Counter()
        self.up = True
        self.takes_verdicts = True
        self.sends_specs = False  # along with desired state, as servers do with small ones
        self.asked: Counter[str] = Counter()  # by kind of message
        self.renews = True
        self._uids = 0

    def admit(self) -> None:
        """As the leader does after a report that shows nothing it does not home there."""
        self.position += 1
        self.lease = _replace(self.lease, state=LeaseState.ACTIVE, floor=self.position)

    def recover(self) -> None:
        """A restored fleet: the lease lives and lets nothing start."""
        self.position += 1
        self.lease = _replace(self.lease, state=LeaseState.RECOVERING)

    def fence(self) -> None:
        self.position += 1
        self.lease = _replace(self.lease, state=LeaseState.FENCED, epoch=self.lease.epoch + 1)

    def place(
        self,
        *,
        pods: int = 2,
        gpus: int = 1,
        policy: str = "StopAndMove",
        run_s: float | None = None,
        fail_s: float | None = None,
        after: tuple[str, ...] = (),
        **spec: Any,
    ) -> str:
        """Home a new group here; the token."""
        self._uids += 1
        uid = f"{LINEAGE}.{self._uids}"
        grace_s = spec.pop("grace_s", 30)
        roles = [{"name": "worker", "count": pods, "template": template(gpus=gpus, run_s=run_s, fail_s=fail_s)}]
        document = {"name": f"train-{self._uids}", "grace_s": grace_s, "roles": roles, **spec}
        self.specs[uid] = zlib.compress(json.dumps(document).encode())
        self.position += 1
        token = f"{LINEAGE}.{self.position}"
        self.homes[token] = DesiredGroup(
            uid=uid,
            token=token,
            intent="run",
            policy=policy,
            spec_digest=str(self._uids),
            grace_s=grace_s,
            after=after,
        )
        self.changed_at[token] = self.position
        return token

    def change(self, token: str, **changes: Any) -> None:
        self.position += 1
        self.homes[token] = _replace(self.homes[token], **changes)
        self.changed_at[token] = self.position

    def resize(self, token: str, *counts: int) -> int:
        """Ask for so many pods of each role; the position."""
        self.change(token, counts=counts, resized_at=self.position + 1)
        return self.position

    def sized(self, token: str) -> list[tuple[tuple[int, ...], int]]:
        """The outcomes of resizes that were heard of a token, each once, in order."""
        found = [(one.counts, one.resized_at) for one in self.verdicts if (one.token, one.verdict) == (token, "Sized")]
        return list(dict.fromkeys(found))

    def end(self, token: str) -> None:
        """The home ends without the agent (FenceDone, confirm-dead)."""
        self.position += 1
        del self.homes[token]
        self.ended_at[token] = self.position

    def given_up(self, token: str) -> Verdict:
        """The last give-up verdict heard of a token."""
        return next(v for v in reversed(self.verdicts) if v.token == token and v.verdict not in {"Bound", "Running"})

    def heard(self, token: str) -> list[str]:
        """The verdicts heard of a token, each once, in the order of first hearing."""
        return list(dict.fromkeys(v.verdict for v in self.verdicts if v.token == token))

    def answer(self, ask: AgentAsk) -> ServerAnswer | None:
        if not self.up:
            return None
        self.asked[type(ask).__name__] += 1
        match ask:
            case Renewal():
                return self._renewed(ask) if self.renews else None
            case DesiredAsk():
                return self.desired(ask.ask_id, ask.since)
            case SpecAsk():
                origin = self.origins.get(ask.uid, b"")
                return SpecAnswer(ask_id=ask.ask_id, uid=ask.uid, spec=self.specs.get(ask.uid), origin=origin)
            case Verdict():
                return self._judged(ask)
            case Claims():
                self.claims.append(ask)
                told = {claim.uid for claim in ask.groups}
                self.wanted = [uid for uid in self.wanted if uid not in told]
                return ClaimsAnswer(ask_id=ask.ask_id, wanted=tuple(self.wanted[:CLAIMS_MAX]))

    def claimed(self) -> dict[str, Claim]:
        """All claims heard so far, by group."""
        return {claim.uid: claim for ask in self.claims for claim in ask.groups}

    def desired(self, ask_id: int, since: int) -> DesiredAnswer:
        full = since == 0
        return DesiredAnswer(
            ask_id=ask_id,
            cluster=CLUSTER,
            lineage=self.lineage,
            since=since,
            as_of=self.position,
            full=full,
            groups=tuple(self.homes[t] for t in sorted(self.homes) if full or self.changed_at[t] > since),
            ended=() if full else tuple(sorted(t for t, at in self.ended_at.items() if at > since)),
            specs=self._new_specs(since) if self.sends_specs and not full else {},
            origins=self.origins if self.sends_specs and not full else {},
        )

    def _new_specs(self, since: int) -> dict[str, bytes]:
        return {one.uid: self.specs[one.uid] for token, one in self.homes.items() if self.changed_at[token] > since}

    def _renewed(self, ask: Renewal) -> RenewalAnswer:
        result = apply_renewal(self.lease, ask, nonce="r")
        if isinstance(result, LeaseBody):
            self.lease = result
            return RenewalAnswer(ask_id=ask.ask_id, result=RenewalResult.RENEWED, body=result)
        return RenewalAnswer(ask_id=ask.ask_id, result=result, body=self.lease)

    def _judged(self, verdict: Verdict) -> VerdictAnswer | None:
        self.verdicts.append(verdict)
        self.verdict_counts[(verdict.token, verdict.verdict)] += 1
        if not self.takes_verdicts:
            return None
        token = verdict.token
        if token in self.homes:
            if verdict.verdict == "Sized":
                if self.homes[token].counts != verdict.counts:
                    self.change(token, counts=verdict.counts)
                landed = self.position
            elif verdict.verdict in {"Bound", "Running"}:
                if verdict.verdict == "Bound" and not self.homes[token].bound:
                    self.change(token, bound=True)
                landed = self.position
            else:
                self.end(token)
                landed = self.position
        else:
            landed = self.ended_at.get(token, self.position)
        return VerdictAnswer(
            ask_id=verdict.ask_id,
            uid=verdict.uid,
            token=token,
            verdict=verdict.verdict,
            landed_at=landed,
            resized_at=verdict.resized_at,
        )


def _replace(struct: Any, **changes: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(struct, **changes)


class AgentDiedError(Exception):
    """The test let the agent die at this point."""


@dataclass
class Process:
    """One agent process: its core and what its watches have shown it."""

    core: Reconciler
    seen: dict[Kind, int] = field(default_factory=dict)
    watching: bool = True


class Rig:
    """API server, kubelets, one or more agent processes, federation."""

    def __init__(
        self,
        *nodes: NodeShape,
        timing: Timing = PROMPT,
        timings: Timings = FAST,
        start: bool = True,
        **config: Any,
    ) -> None:
        self.now_s = 0.0
        self.timings = timings
        self._config = config
        self.api = ApiServer(CLUSTER)
        self.kubelets = Kubelets(CLUSTER, nodes or (node("n-1"), node("n-2")), timing, seed=1)
        self.federation = Federation()
        self.api_up = True
        self.together = False  # what the API server says arrives in handfuls, as at a busy process
        self.swallow = False  # calls to an API server that is away are never answered, not even as unknown
        self.calls: list[CallKube] = []
        self.reports: list[Report] = []
        self.notes: list[Note] = []
        self.stops: list[str] = []
        self.override: Callable[[CallKube], int | None] = lambda _: None
        self.said = "forced"  # with it
        """The status to answer with instead of carrying the call out; None: carry out."""
        self.admit: Callable[[dict[str, Any]], dict[str, Any]] = lambda pod: pod
        """What admission makes of a pod that an agent creates."""
        self.lose_reply: Callable[[CallKube], bool] = lambda _: False
        self.die_before: Callable[[AgentEffect], bool] = lambda _: False
        self.die_after: Callable[[AgentEffect], bool] = lambda _: False
        self._boots = 0
        self._guards: dict[int, Callable[[GuardAnswer], None]] = {}
        self._tickets = 0
        self._pods_seen = self.api.latest_resource_version
        self.processes: list[Process] = []
        self._queue: list[tuple[Process | None, Any]] = []
        self._tell_kubelets(kt.Booted())
        self._exchange()
        if start:
            self.start()

    # --- processes ----------------------------------------------------------------------------------------------------

    @property
    def agent(self) -> Reconciler:
        return self.processes[-1].core

    def start(self, *, listed: bool = True) -> Process:
        """Start one more agent process."""
        self._boots += 1
        config = AgentConfig(cluster=CLUSTER, boot_nonce=f"boot-{self._boots}", timings=self.timings, **self._config)
        process = Process(Reconciler(config))
        self.processes.append(process)
        self._to_agent(process, Started())
        if listed:
            self.relist(process)
        self._exchange()
        return process

    def kill(self) -> None:
        self.processes.pop()
        self._queue = [
            (process, event) for process, event in self._queue if process is None or process in self.processes
        ]

    def restart(self) -> None:
        """The agent is killed and started again at once."""
        self.kill()
        self.start()

    def relist(self, process: Process) -> None:
        for kind in Kind:
            process.seen[kind] = self.api.latest_resource_version
            items = tuple(obj for _, obj in self.api.store.each(kind.value) if _shown(kind, obj))
            self._to_agent(process, Listed(kind, items))

    # --- time ---------------------------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        for _ in range(EXCHANGES_MAX):
            wakes = [self.kubelets.wake_at_s, self.api.wake_at_s if self.api_up else None]
            wakes += [process.core.wake_at_s(self.now_s) for process in self.processes]
            at_s = min(w for w in (*wakes, until_s) if w is not None)
            if at_s >= until_s:
                break
            self.now_s = max(self.now_s, at_s)
            self._tick()
        else:
            raise AssertionError("somebody wakes again and again")
        self.now_s = until_s
        self._tick()

    def until(self, condition: Callable[[], bool], *, within_s: float = 120.0) -> None:
        """Let time pass in small steps until the condition holds."""
        end_s = self.now_s + within_s
        while not condition():
            assert self.now_s < end_s, "it never happened"
            self.advance(0.25)

    def _tick(self) -> None:
        self._tell_kubelets(kt.Tick())
        for process in list(self.processes):
            self._to_agent(process, Tick())
        self._exchange()

    # --- conveniences -------------------------------------------------------------------------------------------------

    def ready(self) -> Rig:
        """An admitted cluster whose agent is live."""
        self.advance(1.0)
        self.federation.admit()
        self.advance(self.timings.renew_s + 1)
        return self

    def ring(self) -> None:
        self.tell(Told(Doorbell(cluster=CLUSTER, position=self.federation.position)))

    def tell(self, event: AgentEvent) -> None:
        self._to_agent(self.processes[-1], event)
        self._exchange()

    def run(self, token: str) -> None:
        """Until the group's containers run."""
        self.ring()
        self.until(lambda: "Running" in self.federation.heard(token))

    def pods(self, token: str = "") -> list[dict[str, Any]]:
        found = [obj for _, obj in self.api.store.each("pods")]
        return [p for p in found if not token or p["metadata"]["labels"].get("muster.io/token") == token]

    def bound(self, token: str) -> int:
        return sum(bool(pod["spec"].get("nodeName")) for pod in self.pods(token))

    def live(self, token: str = "") -> list[str]:
        return sorted(run.name for run in self.kubelets.live() if not token or run.token == token)

    def objects(self, plural: str) -> list[str]:
        return [obj["metadata"]["name"] for _, obj in self.api.store.each(plural)]

    def intents(self) -> list[str]:
        return [name for name in self.objects("configmaps") if name.startswith("muster-intent")]

    def sent(self, method: str, ending: str = "") -> list[CallKube]:
        return [call for call in self.calls if call.method == method and call.path.endswith(ending)]

    def set_node(self, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Somebody edits a Node object."""
        obj = self.api.store.get("nodes", ("", name))
        assert obj is not None
        response = self.request("PUT", f"/api/v1/nodes/{name}", change(json.loads(json.dumps(obj))))
        assert response == 200, response

    def request(self, method: str, path: str, body: Any = None, query: Mapping[str, str] | None = None) -> int:
        """Somebody else talks to the API server."""
        status = self.api.handle(ApiRequest(method, path, query or {}, body), self.now_s).status
        self._exchange()
        return status

    def patch(self, path: str, body: Any) -> int:
        """Somebody else merges into an object."""
        status = self.api.handle(ApiRequest("PATCH", path, {}, body, "application/merge-patch+json"), self.now_s).status
        self._exchange()
        return status

    # --- the wires ----------------------------------------------------------------------------------------------------

    def _to_agent(self, process: Process, event: AgentEvent) -> None:
        self._queue.append((process, event))

    def _tell_kubelets(self, event: kt.Event) -> None:
        self._queue.append((None, event))

    def tell_kubelets(self, event: kt.Event) -> None:
        self._tell_kubelets(event)
        self._exchange()

    def _exchange(self) -> None:
        """Deliver until all are quiet."""
        for _ in range(EXCHANGES_MAX):
            if self.api_up:
                self.api.step(self.now_s)
            if not self._queue:
                self._show_changes()
            if not self._queue:
                return
            process, event = self._queue.pop(0)
            if process is None:
                self._kubelets_act(event)
            else:
                self._agent_acts(process, self._arrived(process, event))
        raise AssertionError("they never came to rest")

    def _arrived(self, process: Process, event: AgentEvent) -> list[AgentEvent]:
        """The event and, if it is so set, what the API server said to this process right after it."""
        arrived = [event]
        while self.together and isinstance(event, Shown) and self._queue:
            other, following = self._queue[0]
            if other is not process or not isinstance(following, Shown):
                break
            arrived.append(following)
            self._queue.pop(0)
        return arrived

    def _agent_acts(self, process: Process, events: list[AgentEvent]) -> None:
        shown = [event for event in events if isinstance(event, Shown)]
        if len(shown) > 1:
            effects = process.core.handle_shown(shown, self.now_s)
        else:
            effects = process.core.handle(events[0], self.now_s)
        process.core.check_invariants()
        for effect in effects:
            if self.die_before(effect):
                self.die_before = lambda _: False
                return self._die(process)
            self._carry_out(process, effect)
            if self.die_after(effect):
                self.die_after = lambda _: False
                return self._die(process)
        return None

    def _die(self, process: Process) -> None:
        self.processes.remove(process)
        self._queue = [(other, event) for other, event in self._queue if other is not process]

    def _carry_out(self, process: Process, effect: AgentEffect) -> None:
        match effect:
            case CallKube():
                self._call(process, effect)
            case AskServers(ask):
                answer = self.federation.answer(ask)
                if answer is not None:
                    self._to_agent(process, ServerAnswered(answer))
            case SendReport(report):
                self.reports.append(report)
            case AnswerGuard(ticket, answer):
                self._guards[ticket](answer)
            case Note():
                self.notes.append(effect)
            case Stop(why):
                self.stops.append(why)

    def _call(self, process: Process, call: CallKube) -> None:
        self.calls.append(call)
        if not self.api_up:
            if not self.swallow:
                self._to_agent(process, KubeAnswered(call.call_id, 0, {}))
            return
        forced = self.override(call)
        if forced is not None:
            self._to_agent(process, KubeAnswered(call.call_id, forced, {"message": self.said}))
            return
        body = dict(call.body) if call.body is not None else None
        if body is not None and call.method == "POST" and call.path.endswith("/pods"):
            body = self.admit(body)
        request = ApiRequest(call.method, call.path, dict(call.query), body, call.content_type)
        response = self.api.handle(request, self.now_s)
        lost = response.lost or self.lose_reply(call)
        self._to_agent(
            process, KubeAnswered(call.call_id, 0 if lost else response.status, {} if lost else response.body)
        )

    def _kubelets_act(self, event: kt.Event) -> None:
        for effect in self.kubelets.handle(event, self.now_s):
            match effect:
                case kt.AskGuard(name, ask):
                    self._tickets += 1
                    self._guards[self._tickets] = lambda answer, name=name: self._tell_kubelets(
                        kt.GuardAnswered(name, answer)
                    )
                    for process in self.processes:
                        self._to_agent(process, GuardAsked(self._tickets, ask))
                case kt.ApiCall(call_id, _, request):
                    if not self.api_up:
                        self._tell_kubelets(kt.ApiReply(call_id, kt.NO_ANSWER, {}))
                        continue
                    response = self.api.handle(request, self.now_s)
                    self._tell_kubelets(kt.ApiReply(call_id, response.status, response.body))

    def _show_changes(self) -> None:
        if not self.api_up:
            return
        if self._pods_seen < self.api.latest_resource_version:
            for kind, obj in self._changes("pods", self._pods_seen):
                self._tell_kubelets(kt.PodGone(obj) if kind == "DELETED" else kt.PodSeen(obj))
            self._pods_seen = self.api.latest_resource_version
        for process in self.processes:
            for kind in Kind:
                seen = process.seen.get(kind)
                if seen is None or not process.watching or seen >= self.api.latest_resource_version:
                    continue
                for change, obj in self._changes(kind.value, seen):
                    if _shown(kind, obj):
                        self._to_agent(process, Changed(kind, obj, change == "DELETED"))
                process.seen[kind] = self.api.latest_resource_version

    def _changes(self, plural: str, seen: int) -> list[tuple[str, dict[str, Any]]]:
        events = self.api.events_since(plural, None, seen)
        assert not isinstance(events, Gone)
        return [(event.kind, event.object) for event in events]


def _shown(kind: Kind, obj: Mapping[str, Any]) -> bool:
    labels = obj["metadata"].get("labels") or {}
    match kind:
        case Kind.CONFIGMAPS:
            return "muster.io/kind" in labels
        case Kind.JOBS:
            return "muster.io/token" in labels
        case _:
            return True
