"""When which fault strikes whom, and how it ends. Every fault is drawn before the run; healing undoes them all.

It also keeps since when each cluster is undisturbed: promise 1 counts its 60 s only then.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from cluster_agents.simkube.apiserver.types import ApiRequest
from cluster_agents.simkube.kubelet.types import NodeBooted, NodeCrashed, NodeCut, NodeHealed
from federation.core.events import Accepted, ConfirmDead, CordonCluster, Declined, Refused, SetIntent
from tests.world.client import join_id
from tests.world.draw import FOCUS_FACTOR, FOCUSED, WEIGHTS, Fault
from tests.world.members import AgentHost, ClusterHost
from tests.world.violation import ViolationError

if TYPE_CHECKING:
    from tests.world.servers import ServerHost
    from tests.world.world import World

FIRST_FAULT_S: Final = 45.0  # the fleet is up and admitted first, in most seeds
CONFIRM_TRIES: Final = 12
CONFIRM_EVERY_S: Final = 15.0
CLEAR_TRIES: Final = 100  # more than API errors are ever planted at once
ALLOWED_DECLINES: Final = frozenset({Refused.GROUP_FINISHED, Refused.INVALID})

Action = Callable[[], None]


@dataclass(slots=True)
class _Power:
    """Of one cluster: whether it is off, and whether somebody has vouched for that."""

    off: bool = True
    vouched: bool = False


def _ours(cluster: ClusterHost) -> list[tuple[str, str]]:
    """Namespace and name of every pod that carries a token."""
    pods = cluster.api.store.each("pods")
    return [key for key, pod in pods if (pod["metadata"].get("labels") or {}).get("muster.io/token")]


class Injector:
    """Draws the seed's faults and carries them out."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.counts: Counter[str] = Counter()
        self._world = world
        self._rng = rng
        self._active: dict[int, Action] = {}  # what heals the faults under way
        self._numbers = 0
        self._disturbances: Counter[str] = Counter()  # cluster -> faults under way
        self._quiet_since_s = dict.fromkeys(world.clusters, 0.0)
        self._requests = 0
        self._hosts: dict[Fault, Action] = {
            Fault.CUT_CLUSTER: self._cut_cluster,
            Fault.CUT_AND_RESTARTS: self._cut_and_restarts,
            Fault.STALL_AND_CUT: self._stall_and_cut,
            Fault.CUT_BUS: self._cut_bus,
            Fault.CUT_BUS_ONE_WAY: self._cut_bus_one_way,
            Fault.CUT_HTTPS: self._cut_https,
            Fault.CUT_LEASE_REPLIES: self._cut_replies,
            Fault.CUT_API: self._cut_api,
            Fault.CUT_API_ONE_WAY: self._cut_api_one_way,
            Fault.CUT_STORE: self._cut_store,
            Fault.CUT_NODE: self._cut_node,
            Fault.BUS_OUTAGE: self._bus_outage,
            Fault.STORE_OUTAGE: self._store_outage,
            Fault.SLOW_STORE: self._slow_store,
            Fault.CRASH_SERVER: self._crash_server,
            Fault.CRASH_AGENT: self._crash_agent,
            Fault.CRASH_API: self._crash_api,
            Fault.CRASH_NODE: self._crash_node,
            Fault.CRASH_CLUSTER: self._crash_cluster,
            Fault.PAUSE_SERVER: self._pause_server,
            Fault.PAUSE_AGENT: self._pause_agent,
            Fault.SECOND_AGENT: self._second_agent,
            Fault.API_ERRORS: self._api_errors,
            Fault.API_LOST_REPLIES: self._api_lost_replies,
            Fault.FREEZE_WATCH: self._freeze_watch,
            Fault.COMPACT_WATCH: self._compact_watch,
            Fault.FOREIGN_PODS: self._foreign_pods,
            Fault.DELETE_PODS: self._delete_pods,
            Fault.CORDON: self._cordon,
            Fault.DRAIN: self._drain,
            Fault.CANCEL: lambda: self._set_intent("cancel"),
            Fault.MOVE: lambda: self._set_intent("move"),
            Fault.SUSPEND: self._suspend,
        }
        assert set(self._hosts) == set(Fault)

    def schedule(self) -> None:
        """Draw when each fault of the safety phase strikes, by the weights of the seed's focus."""
        setting, rng = self._world.setting, self._rng
        faults = list(Fault)
        focused = FOCUSED[setting.focus]
        weights = [WEIGHTS[fault] * (FOCUS_FACTOR if fault in focused else 1.0) for fault in faults]
        count = round(setting.faults_expected * rng.uniform(0.5, 1.5))
        for _ in range(count):
            at_s = rng.uniform(FIRST_FAULT_S, setting.safety_s - 5.0)
            fault = rng.choices(faults, weights)[0]
            self._world.scheduler.at(at_s, self._strike, fault)

    def heal(self) -> None:
        """End everything under way: the liveness phase has no fault."""
        for number in sorted(self._active):
            self._active.pop(number)()
        world = self._world
        world.store.available = True
        world.store.slow.clear()
        for server in world.servers:
            server.resume()
            server.start()
        for cluster in world.clusters.values():
            cluster.api.faults.clear()
            cluster.poke_streams()

    def quiet_since(self) -> dict[str, float]:
        """Per cluster, since when nothing disturbs its agent, API server and nodes; now if something does."""
        now_s = self._world.scheduler.now_s
        return {name: now_s if self._disturbances[name] else since for name, since in self._quiet_since_s.items()}

    def disturb(self, cluster: str, length_s: float) -> None:
        """Something else disturbs the cluster for a while."""
        self._during(length_s, lambda: None, cluster)

    def quiet_s(self, cluster: str) -> float:
        """How long nothing has disturbed the cluster."""
        return 0.0 if self._disturbances[cluster] else self._world.scheduler.now_s - self._quiet_since_s[cluster]

    # --- common parts ---

    def _strike(self, fault: Fault) -> None:
        self.counts[fault.value] += 1
        self._hosts[fault]()

    def _note(self, what: str, facts: str) -> None:
        self._world.trace.note(self._world.scheduler.now_s, "fault", what, facts)

    def _during(self, length_s: float, undo: Action, *clusters: str) -> None:
        """`undo` runs after `length_s`, or at the heal; meanwhile `clusters` count as disturbed."""
        self._numbers += 1
        number = self._numbers
        for name in clusters:
            self._disturbances[name] += 1

        def end() -> None:
            for name in clusters:
                self._disturbances[name] -= 1
                self._quiet_since_s[name] = self._world.scheduler.now_s
            undo()

        self._active[number] = end
        self._world.scheduler.after(length_s, self._over, number)

    def _over(self, number: int) -> None:
        end = self._active.pop(number, None)
        if end is not None:
            end()

    def _cut(self, length_s: float, ways: list[str], *clusters: str) -> None:
        network = self._world.network
        self._note("cut", f"{' '.join(ways)} for {length_s:.1f} s")
        network.cut(ways)

        def undo() -> None:
            self._note("heal", " ".join(ways))
            network.heal(ways)
            for agent in self._world.agents:
                if f"bus>{agent.name}" in ways:
                    self._world.release_old_reports(agent)
            for cluster in self._world.clusters.values():
                cluster.poke_streams()

        self._during(length_s, undo, *clusters)

    def _agent(self) -> AgentHost:
        """Mostly one whose cluster has homes: the others have little to lose."""
        busy = [agent for agent in self._world.agents if self._homes(agent.cluster.name)]
        return self._rng.choice(busy if busy and self._rng.random() < 0.8 else self._world.agents)

    def _homes(self, cluster: str) -> int:
        facts = self._world.history.clusters.get(cluster)
        return len(facts.homes) if facts is not None else 0

    def _server(self) -> ServerHost:
        """Any, but the leader more often: its faults matter most."""
        leaders = [server for server in self._world.servers if server.leads]
        return (
            self._rng.choice(leaders) if leaders and self._rng.random() < 0.5 else self._rng.choice(self._world.servers)
        )

    def _cluster(self) -> ClusterHost:
        clusters = list(self._world.clusters.values())
        busy = [cluster for cluster in clusters if self._homes(cluster.name)]
        return self._rng.choice(busy if busy and self._rng.random() < 0.8 else clusters)

    def _long_s(self) -> float:
        """Often enough for a fence, sometimes not."""
        return self._rng.choice((self._rng.uniform(5.0, 40.0), self._rng.uniform(40.0, 200.0)))

    def _short_s(self) -> float:
        return self._rng.uniform(1.0, 40.0)

    # --- links ---

    def _cut_cluster(self) -> None:
        cluster = self._cluster()
        ways = [f"{link}{agent.name}" for agent in cluster.agents for link in ("bus>", "bus<", "https>", "https<")]
        self._cut(self._long_s(), ways, cluster.name)

    def _cut_and_restarts(self) -> None:
        """The cluster is cut, and its agent begins anew again and again: no restart may lengthen its life."""
        agent = self._agent()
        cluster, length_s = agent.cluster, self._rng.uniform(60.0, 200.0)
        ways = [f"{link}{agent.name}" for link in ("bus>", "bus<", "https>", "https<")]
        self._cut(length_s, ways, cluster.name)
        at_s = self._rng.uniform(2.0, 12.0)
        while at_s < length_s:
            self._world.scheduler.after(at_s, self._restart, agent)
            at_s += self._rng.uniform(17.0, 28.0)  # a new process acts some 13 s after its start

    def _stall_and_cut(self) -> None:
        """Answers take longer and longer, but never stay away for a whole TTL; then nothing leaves the cluster.

        An agent that counted its deadline from the answers would outlive its fence by as long as they took.
        """
        agent, ttl_s, rng = self._agent(), self._world.setting.timings.ttl_s, self._rng
        ways = [f"bus<{agent.name}", f"https<{agent.name}"]
        first_s, second_s = ttl_s * rng.uniform(0.6, 0.75), ttl_s * rng.uniform(1.2, 1.4)
        self._note("slower answers", f"{agent.name} by {first_s:.1f}, then {second_s:.1f} s")
        network, after = self._world.network, self._world.scheduler.after
        network.slow_down(ways, first_s)
        after(ttl_s, self._slow_down, ways, second_s)
        cut_s, length_s = ttl_s * 2.5 + rng.uniform(0.0, 10.0), rng.uniform(100.0, 180.0)
        up = [f"bus>{agent.name}", f"https>{agent.name}"]
        after(cut_s, self._cut_if_ill, length_s, up, agent.cluster.name)
        self._during(cut_s + length_s, lambda: network.slow_down(ways, 0.0), agent.cluster.name)

    def _slow_down(self, ways: list[str], by_s: float) -> None:
        if not self._world.healed:
            self._world.network.slow_down(ways, by_s)

    def _cut_if_ill(self, length_s: float, ways: list[str], cluster: str) -> None:
        if not self._world.healed:
            self._cut(length_s, ways, cluster)

    def _restart(self, agent: AgentHost) -> None:
        if agent.up and agent in agent.cluster.agents and not self._world.healed:
            agent.crash()
            agent.start()

    def _cut_bus(self) -> None:
        agent = self._agent()
        self._cut(self._long_s(), [f"bus>{agent.name}", f"bus<{agent.name}"])

    def _cut_bus_one_way(self) -> None:
        agent, side = self._agent(), self._rng.choice("<>")
        self._cut(self._long_s(), [f"bus{side}{agent.name}"])

    def _cut_https(self) -> None:
        agent = self._agent()
        ways = [f"https{side}{agent.name}" for side in self._rng.choice(("<", ">", "<>"))]
        self._cut(self._long_s(), ways)

    def _cut_replies(self) -> None:
        """Asks arrive, answers do not: the lease is renewed and the agent never hears of it."""
        agent = self._agent()
        self._cut(self._long_s(), [f"bus<{agent.name}", f"https<{agent.name}"], agent.cluster.name)

    def _cut_api(self) -> None:
        agent = self._agent()
        self._cut(self._long_s(), [f"api>{agent.name}", f"api<{agent.name}"], agent.cluster.name)

    def _cut_api_one_way(self) -> None:
        agent, side = self._agent(), self._rng.choice("<>")
        self._cut(self._long_s(), [f"api{side}{agent.name}"], agent.cluster.name)

    def _cut_store(self) -> None:
        server = self._server()
        sides = self._rng.choice(("<", ">", "<>"))
        self._cut(self._long_s(), [f"store{side}{server.name}" for side in sides])

    def _bus_outage(self) -> None:
        ways = [f"bus{side}{agent.name}" for agent in self._world.agents for side in "<>"]
        self._cut(self._short_s(), ways)

    def _store_outage(self) -> None:
        store, length_s = self._world.store, self._short_s()
        self._note("store outage", f"{length_s:.1f} s")
        store.available = False

        def undo() -> None:
            store.available = True

        self._during(length_s, undo)

    def _slow_store(self) -> None:
        """This server lags behind: everything it asks of the store takes long."""
        store, server, length_s = self._world.store, self._server(), self._long_s()
        factor = self._rng.choice((5.0, 20.0))
        self._note("slow store", f"{server.name} x{factor:.0f} for {length_s:.1f} s")
        store.slow[server.name] = factor

        def undo() -> None:
            store.slow.pop(server.name, None)

        self._during(length_s, undo)

    # --- processes ---

    def _crash_server(self) -> None:
        server = self._server()
        server.crash()
        self._during(self._rng.choice((0.5, self._short_s(), self._long_s())), server.start)

    def _pause_server(self) -> None:
        server = self._server()
        server.pause()
        self._during(self._short_s(), server.resume)

    def _crash_agent(self) -> None:
        agent = self._agent()
        agent.crash()
        length_s = self._rng.choice((0.2, 2.0, self._rng.uniform(2.0, 20.0), self._long_s()))
        self._during(length_s, agent.start, agent.cluster.name)

    def _pause_agent(self) -> None:
        agent = self._agent()
        agent.pause()
        self._during(self._long_s(), agent.resume, agent.cluster.name)

    def _second_agent(self) -> None:
        """A second process under the same name; later one of the two goes away."""
        world, agent = self._world, self._agent()
        cluster = agent.cluster
        if len(cluster.agents) > 1:
            return
        second = AgentHost(world, cluster, "b" if agent.name.endswith("/a") else "a")
        world.agents.append(second)
        cluster.agents.append(second)
        second.start()
        goes = self._rng.choice((agent, second))

        def undo() -> None:
            goes.crash()
            cluster.agents.remove(goes)
            world.agents.remove(goes)
            for stays in cluster.agents:
                stays.start()

        self._during(self._long_s(), undo, cluster.name)

    def _crash_api(self) -> None:
        cluster, length_s = self._cluster(), self._short_s()
        compacted = self._rng.random() < 0.5
        self._note("api server crash", f"{cluster.name} for {length_s:.1f} s")
        cluster.crash_api()
        self._during(length_s, lambda: cluster.restart_api(compacted=compacted), cluster.name)

    # --- nodes and pods ---

    def _cut_node(self) -> None:
        cluster = self._cluster()
        node, agent_too, length_s = self._node(cluster), self._rng.random() < 0.7, self._long_s()
        self._note("node cut", f"{node} agent_too={agent_too} for {length_s:.1f} s")
        cluster.nodes.deliver(0, NodeCut(node, agent_too))
        self._during(length_s, lambda: cluster.nodes.deliver(0, NodeHealed(node)), cluster.name)

    def _crash_node(self) -> None:
        cluster = self._cluster()
        node, length_s = self._node(cluster), self._long_s()
        self._note("node crash", f"{node} for {length_s:.1f} s")
        cluster.nodes.deliver(0, NodeCrashed(node))
        self._during(length_s, lambda: cluster.nodes.deliver(0, NodeBooted(node)), cluster.name)

    def _crash_cluster(self) -> None:
        """Power off: nodes, API server and agents. An operator who has seen it may vouch that it is dead.

        Without guards nothing but the operator keeps what is bound there from starting once the power is back, so
        whoever vouched deletes it first, as `docs/operating.md` says.
        """
        cluster, length_s = self._cluster(), self._rng.uniform(60.0, 250.0)
        self._note("cluster power off", f"{cluster.name} for {length_s:.1f} s")
        nodes = [f"{cluster.name}-n{index:02d}" for index in range(cluster.shape.nodes)]
        for node in nodes:
            cluster.nodes.deliver(0, NodeCrashed(node))
        cluster.crash_api()
        down = list(cluster.agents)
        for agent in down:
            agent.crash()
        power = _Power()
        if self._rng.random() < 0.7:
            wait_s = self._rng.uniform(20.0, 60.0)
            self._world.scheduler.after(wait_s, self._confirm_dead, cluster, CONFIRM_TRIES, power)

        def undo() -> None:
            power.off = False
            self._note("cluster power on", cluster.name)
            cluster.restart_api(compacted=False)
            if power.vouched and not cluster.shape.guarded:
                self._clear(cluster)
            for node in nodes:
                cluster.nodes.deliver(0, NodeBooted(node))
            for agent in down:
                if agent in cluster.agents:
                    agent.start()
            self._world.leaving.powered(cluster.name)

        self._during(length_s, undo, cluster.name)

    def _clear(self, cluster: ClusterHost) -> None:
        """Take away every pod of ours, before any kubelet looks; what an API error prevents is asked for again."""
        for namespace, name in _ours(cluster):
            request = ApiRequest(
                "DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}", body={"gracePeriodSeconds": 0}
            )
            statuses = (cluster.handle(request).status for _ in range(CLEAR_TRIES))
            assert any(status in {200, 404} for status in statuses), f"{name} cannot be deleted"

    def _confirm_dead(self, cluster: ClusterHost, tries: int, power: _Power) -> None:
        """The person looks again before each try: only a cluster without power is vouched for."""
        if not power.off or not tries:
            return
        power.vouched = True  # whatever the answer will be: it may be lost

        def done(answer: Accepted | Declined) -> None:
            if isinstance(answer, Declined):
                self._world.scheduler.after(CONFIRM_EVERY_S, self._confirm_dead, cluster, tries - 1, power)
            else:
                self._world.leaving.vouched(cluster.name)

        request = ConfirmDead(cluster.name, "power is off", self._request_id("confirm"), "olga")
        self._world.client.ask(request, done)

    def _foreign_pods(self) -> None:
        """Somebody else's pods take GPUs: views are wrong and kubelets reject."""
        cluster, world = self._cluster(), self._world
        names = []
        for _ in range(self._rng.randint(1, 6)):
            self._requests += 1
            name, node = f"other-{self._requests}", self._node(cluster)
            names.append(name)
            resources = {"nvidia.com/gpu": str(self._rng.choice((1, 4, 8)))}
            body = {
                "kind": "Pod",
                "apiVersion": "v1",
                "metadata": {"name": name, "namespace": "default"},
                "spec": {
                    "nodeName": node,
                    "restartPolicy": "Never",
                    "containers": [{"name": "main", "image": "x", "resources": {"limits": resources}}],
                },
            }
            cluster.handle(ApiRequest("POST", "/api/v1/namespaces/default/pods", {}, body))
        self._note("foreign pods", f"{cluster.name} {' '.join(names)}")

        def undo() -> None:
            for name in names:
                cluster.handle(ApiRequest("DELETE", f"/api/v1/namespaces/default/pods/{name}"))

        del world
        self._during(self._long_s(), undo, cluster.name)

    def _delete_pods(self) -> None:
        """Somebody deletes some of our pods."""
        cluster = self._cluster()
        keys = _ours(cluster)
        for namespace, name in self._rng.sample(keys, min(len(keys), self._rng.randint(1, 3))):
            self._note("pod deleted", f"{cluster.name} {name}")
            cluster.handle(ApiRequest("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}"))
        self._during(1.0, lambda: None, cluster.name)

    def _node(self, cluster: ClusterHost) -> str:
        return f"{cluster.name}-n{self._rng.randrange(cluster.shape.nodes):02d}"

    # --- API server ---

    def _api_errors(self) -> None:
        cluster = self._cluster()
        for _ in range(self._rng.randint(1, 6)):
            verb = self._rng.choice(("create", "update", "patch", "delete", "get", "list", "*"))
            status = self._rng.choice((409, 429, 500, 503))
            applied = self._rng.random() < 0.3
            cluster.api.faults.fail(verb, "*", status, times=self._rng.randint(1, 8), applied=applied)
        self._note("api errors", cluster.name)
        self._during(self._short_s(), cluster.api.faults.clear, cluster.name)

    def _api_lost_replies(self) -> None:
        cluster = self._cluster()
        cluster.loses_replies = True
        self._note("api loses replies", cluster.name)

        def undo() -> None:
            cluster.loses_replies = False

        self._during(self._long_s(), undo, cluster.name)

    def _freeze_watch(self) -> None:
        cluster = self._cluster()
        cluster.api.freeze_watches()
        self._note("watches frozen", cluster.name)

        def undo() -> None:
            cluster.api.thaw_watches()
            cluster.poke_streams()

        self._during(self._short_s(), undo, cluster.name)

    def _compact_watch(self) -> None:
        cluster = self._cluster()
        cluster.api.compact()
        cluster.poke_streams()
        self._during(1.0, lambda: None, cluster.name)

    # --- operators ---

    def _request_id(self, what: str) -> str:
        self._requests += 1
        return f"{what}-{self._requests}"

    def _done(self, answer: Accepted | Declined) -> None:
        if isinstance(answer, Declined) and answer.why not in ALLOWED_DECLINES:
            raise ViolationError("S7", f"an operator's request was declined: {answer.why} {answer.detail}")

    def _done_with(self, uid: str, answer: Accepted | Declined) -> None:
        """A group that a restore lost is unknown from then on."""
        lost = self._world.history.is_lost(uid)
        if not (lost and isinstance(answer, Declined) and answer.why is Refused.UNKNOWN_GROUP):
            self._done(answer)

    def _cordon_request(self, cluster: str, *, cordoned: bool, drain: bool) -> None:
        """Nobody cordons a cluster before its join was answered: in bad weather that takes a while."""
        if join_id(cluster) in self._world.client.unanswered:
            return
        request = CordonCluster(cluster, cordoned, drain, "exercise", self._request_id("cordon"), "olga")
        self._world.client.ask(request, lambda answer: self._done_in(cluster, answer))

    def _done_in(self, cluster: str, answer: Accepted | Declined) -> None:
        """A cluster that was removed may be gone."""
        unknown = isinstance(answer, Declined) and answer.why is Refused.UNKNOWN_CLUSTER
        if not (unknown and self._world.leaving.has_left(cluster)):
            self._done(answer)

    def _cordon(self) -> None:
        name = self._cluster().name
        self._cordon_request(name, cordoned=True, drain=False)
        self._during(self._long_s(), lambda: self._cordon_request(name, cordoned=False, drain=False))

    def _drain(self) -> None:
        name = self._cluster().name
        self._cordon_request(name, cordoned=True, drain=True)
        self._during(self._long_s(), lambda: self._cordon_request(name, cordoned=False, drain=False), name)

    def _uid(self) -> str | None:
        acks = self._world.acks.acks
        return acks[self._rng.choice(sorted(acks))].uid if acks else None

    def _known_as(self, uid: str) -> str:
        facts = self._world.history.group(uid)
        return facts.known_as if facts is not None else uid

    def _set_intent(self, intent: str) -> None:
        uid = self._uid()
        if uid is not None:
            done = partial(self._done_with, uid)
            self._world.client.ask(
                SetIntent(self._known_as(uid), intent, "exercise", self._request_id(intent), "alice"), done
            )

    def _suspend(self) -> None:
        uid = self._uid()
        if uid is None:
            return

        def ask(intent: str) -> None:
            done = partial(self._done_with, uid)
            self._world.client.ask(
                SetIntent(self._known_as(uid), intent, "exercise", self._request_id(intent), "alice"), done
            )

        ask("suspend")
        self._during(self._long_s(), lambda: ask("run"))
