"""A whole federation on one thread: three servers, the store, the bus, clusters with agents, people, and checkers.

`seed` fixes every fault and every delay. The world carries messages and watches; the product decides everything else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from cluster_agents.core.config import KIND_LEDGER, LABEL_KIND, LABEL_TOKEN, AgentConfig
from cluster_agents.core.ledger import read_page
from cluster_agents.core.reconcile import Reconciler
from cluster_agents.simkube.kubelet.kubelets import Kubelets
from cluster_agents.simkube.kubelet.types import AskGuard, GuardAnswered, NodeShape, Timing
from cluster_agents.simkube.runlog import STARTED, RunLogEntry
from federation.core.events import Accepted, Declined, HintArrived, JoinCluster, ReportArrived
from federation.core.records import AnyRecord, Placed, Resized
from federation.core.replica import Replica, ReplicaConfig
from federation.core.snapshots import SnapshotRhythm
from federation.core.tape_store import TapeRhythm
from federation.protocol.messages import AgentAsk, DesiredAnswer, Report, Verdict
from placement.model import FenceStrength
from storage.entry import decode_entry, entry_name, seq_of
from storage.root import ROOT_NAME, decode_root
from tests.world import dramas
from tests.world.checkers import AckChecker, BoundChecker, CapacityChecker, RunChecker, ViewChecker, check_node
from tests.world.client import Client, join_id
from tests.world.draw import (
    CALM,
    CLOCK_ERROR_MAX,
    GPUS_PER_NODE,
    NODES_PER_CLIQUE,
    SERVERS,
    Restores,
    Setting,
    draw,
    stream,
)
from tests.world.failing import Failing
from tests.world.history import History
from tests.world.injector import Injector
from tests.world.leaving import Leaving
from tests.world.members import AgentHost, ClusterHost, KubeletHost
from tests.world.network import Network
from tests.world.resizes import Resizer
from tests.world.restore import Restorer
from tests.world.scheduler import Clock, Scheduler
from tests.world.servers import ServerHost
from tests.world.settled import SettledChecker
from tests.world.store import SimStore
from tests.world.trace import Trace
from tests.world.violation import ViolationError

if TYPE_CHECKING:
    from cluster_agents.simkube.apiserver.audit import PodAct

CHECK_EVERY_S: Final = 5.0  # how often checkers that need time look
STUCK_REPORTS_MAX: Final = 64  # what the abandoned connection of a cut NATS client can hold
OLD_REPORT_DELAY_S: Final = 20.0  # how long after the heal they may still arrive (measured on a real NATS)
GUARD_DELAY_S: Final = 0.02
START_SPREAD_S: Final = 3.0
SNAPSHOTS: Final = SnapshotRhythm(every_s=20.0, entries_min=20, idle_every_s=120.0, archive=False)
KEEP_S: Final = 60.0  # so that sleepers wake up to a journal whose entries are gone
KEEP_ENTRIES: Final = 20
TAPE_EVERY_S: Final = 2.0
TAPE_BASE_EVERY_S: Final = 60.0  # some bases fall into the midst of a term
QUIET_S: Final = 30.0  # after a disturbance an agent sees its cluster as it is again


class World:
    """One seed's fleet. `run` raises `ViolationError` at the first broken promise."""

    def __init__(
        self,
        seed: int,
        minutes: float,
        *,
        keep_trace: bool = False,
        taped: bool = False,
        restores: Restores = Restores.DRAWN,
    ) -> None:
        self.setting: Setting = draw(seed, minutes, restores)
        self.tape_rhythm = TapeRhythm(
            on=taped, write_every_s=TAPE_EVERY_S, base_every_s=TAPE_BASE_EVERY_S, state_every_s=TAPE_BASE_EVERY_S
        )
        self.scheduler = Scheduler()
        self.trace = Trace(keep_all=keep_trace)
        self.network = Network(self.scheduler, stream(seed, "network"), self.setting.weather)
        self.store = SimStore(self.scheduler, self.network, stream(seed, "store"))
        self.api_rng = stream(seed, "api")
        self.notes: Counter[str] = Counter()
        self.timings = self.setting.timings
        self.healed = False
        self._slow_desired: dict[str, tuple[str, float, float]] = {}
        self.on_committed: list[Callable[[AnyRecord], None]] = []
        self._clock_rng = stream(seed, "clocks")
        self._route_rng = stream(seed, "routes")
        self._tickets = 0
        self._build_checkers()
        self.servers = [ServerHost(self, f"s-{index + 1}") for index in range(SERVERS)]
        self.clusters = {shape.name: ClusterHost(self, shape) for shape in self.setting.clusters}
        self.agents = [AgentHost(self, cluster, "a") for cluster in self.clusters.values()]
        for agent in self.agents:
            agent.cluster.agents.append(agent)
        self.client = Client(self, stream(seed, "client"))
        self.leaving = Leaving(self)
        self.failing = Failing(self)
        self.injector = Injector(self, stream(seed, "faults"))
        self.restorer = Restorer(self, stream(seed, "restorer"))
        self.settled = SettledChecker(self)

    def _build_checkers(self) -> None:
        shapes = self.setting.clusters
        never_fenced = frozenset(s.name for s in shapes if not s.guarded and not s.accept_unguarded)
        self.history = History(self._lineage, fence_wait_s, never_fenced)
        node_gpus = {(s.name, f"{s.name}-n{i:02d}"): GPUS_PER_NODE for s in shapes for i in range(s.nodes)}
        self.runs = RunChecker(self.history, node_gpus, frozenset(s.name for s in shapes if not s.guarded))
        self.bound = BoundChecker(self.history, self.timings.undo_s)
        self.capacity = CapacityChecker(self.history, self.given_up)
        self.acks = AckChecker(self.history)
        self.views = ViewChecker(self.timings.view_stale_s)

    def run(self) -> None:
        """The safety phase with faults, then the heal and the liveness phase, with every checker on."""
        self._start()
        self.scheduler.run_until(self.setting.safety_s)
        self._heal()
        for at_s in self.settled.looks_at(self.setting):
            self.scheduler.run_until(at_s)
            self.settled.look()
        self.scheduler.run_until(self.setting.end_s)
        self.settled.judge()
        self.acks.check()

    # --- phases ---

    def _start(self) -> None:
        rng = stream(self.setting.seed, "start")
        for host in [*self.servers, *self.agents]:
            self.scheduler.at(rng.random() * START_SPREAD_S, host.start)
        for cluster in self.clusters.values():
            self.scheduler.at(rng.random(), cluster.start)
            name = cluster.shape.name
            self.scheduler.at(1.0 + rng.random() * 5.0, self.join, name, join_id(name))
        for group in self.setting.groups:
            self.scheduler.at(group.at_s, self.client.submit, group)
        self.injector.schedule()
        Resizer(self).schedule()
        self.restorer.schedule()
        self.failing.schedule()
        dramas.stage(self, stream(self.setting.seed, "dramas"))
        self.scheduler.after(CHECK_EVERY_S, self._look)

    def join(self, cluster: str, request_id: str) -> None:
        """Its operator makes it part of the fleet, for the first time or again."""
        shape = self.clusters[cluster].shape
        labels = (("region", shape.region),)
        join = JoinCluster(cluster, shape.lease_class, labels, shape.accept_unguarded, request_id, "olga")
        self.client.ask(join, self._joined)

    def _joined(self, answer: Accepted | Declined) -> None:
        if isinstance(answer, Declined):
            raise ViolationError("S7", f"a cluster may not join: {answer.why} {answer.detail}")

    def _heal(self) -> None:
        self.trace.note(self.scheduler.now_s, "world", "heal")
        self.healed = True
        self.network.weather = CALM
        self.network.heal_all()
        self._slow_desired.clear()
        self.injector.heal()

    def _look(self) -> None:
        now_s = self.scheduler.now_s
        weather = self.network.weather
        slack_s = 10.0 + 20.0 * (weather.api_delay_s + weather.watch_delay_s)
        self.bound.check(now_s, self.injector.quiet_since(), slack_s)
        self.scheduler.after(CHECK_EVERY_S, self._look)

    def new_store(self, store: SimStore) -> None:
        """The old one is lost, with all that is still under way to it."""
        store.unknown_count = self.store.unknown_count
        self.store = store

    # --- making processes ---

    def draw_clock(self, name: str) -> Clock:
        del name
        rng = self._clock_rng
        return Clock(1.0 + rng.uniform(-CLOCK_ERROR_MAX, CLOCK_ERROR_MAX), rng.uniform(0.0, 1_000_000.0))

    def make_replica(self, name: str, incarnation: int) -> Replica:
        journal = replace(self.setting.journal_timings, keep_s=KEEP_S, keep_entries=KEEP_ENTRIES)
        return Replica(
            ReplicaConfig(
                name=name,
                timings=self.timings,
                journal_timings=journal,
                seed=f"{name}-{incarnation}",
                snapshots=replace(SNAPSHOTS, archive=self.tape_rhythm.on),  # a replay needs all entries
                tape=self.tape_rhythm,
            )
        )

    def make_reconciler(self, agent: AgentHost) -> Reconciler:
        shape = agent.cluster.shape
        return Reconciler(
            AgentConfig(
                cluster=shape.name,
                boot_nonce=f"{agent.name}-{agent.incarnation}",
                timings=self.timings,
                fence_strength=FenceStrength.GUARD if shape.guarded else FenceStrength.NONE,
                api_per_s=1_000.0,
            )
        )

    def make_kubelets(self, cluster: ClusterHost, now_s: float) -> Kubelets:
        shape = cluster.shape
        rng = stream(self.setting.seed, f"kubelets-{shape.name}")
        timing = Timing(
            stop_delay_s=(0.1, rng.choice((1.0, 5.0, 30.0))),
            heartbeat_s=self.setting.node_heartbeat_s,
            lease_s=2.5 * self.setting.node_heartbeat_s,
            guard_renewal_s=self.timings.renew_s if shape.guarded else None,
        )
        nodes = [
            NodeShape(
                name=f"{shape.name}-n{index:02d}",
                gpus=GPUS_PER_NODE,
                labels={
                    "nvidia.com/gpu.product": shape.product,
                    "nvidia.com/gpu.count": str(GPUS_PER_NODE),
                    "nvidia.com/gpu.clique": f"q{index // NODES_PER_CLIQUE}",
                    "topology.kubernetes.io/region": shape.region,
                },
            )
            for index in range(shape.nodes)
        ]
        return Kubelets(shape.name, nodes, timing, seed=rng.getrandbits(32), now_s=now_s)

    def next_ticket(self) -> int:
        self._tickets += 1
        return self._tickets

    def count_note(self, event: str) -> None:
        self.notes[event] += 1

    # --- agents and servers ---

    def ask_servers(self, agent: AgentHost, ask: AgentAsk) -> None:
        """On both paths: NATS to one of the queue group (verdicts: to whoever listens), HTTPS to any replica."""
        network, weather, rng = self.network, self.network.weather, self._route_rng
        incarnation = agent.incarnation
        connected = [server for server in self.servers if server.up and not network.is_cut(f"bus<{server.name}")]
        chosen = connected if isinstance(ask, Verdict) else rng.sample(connected, 1) if connected else []
        for server in chosen:
            ways = (f"bus>{agent.name}", f"bus<{server.name}")
            network.send(weather.bus_delay_s, ways, server.asked_by_agent, agent, incarnation, "bus", ask)
        server = rng.choice(self.servers)
        ways = (f"https>{agent.name}", "")
        network.send(weather.https_delay_s, ways, server.asked_by_agent, agent, incarnation, "https", ask)

    def answer_agent(self, server: str, agent: AgentHost, incarnation: int, path: str, answer: Any) -> None:
        weather = self.network.weather
        if path == "bus":
            ways, mean_s = (f"bus>{server}", f"bus<{agent.name}"), weather.bus_delay_s
        else:
            ways, mean_s = (f"https<{agent.name}", ""), weather.https_delay_s
        slow = self._slow_desired.get(agent.name)
        if (
            slow is not None
            and isinstance(answer, DesiredAnswer)
            and server != slow[0]
            and self.scheduler.now_s < slow[2]
        ):
            self.scheduler.after(slow[1], self.network.send, mean_s, ways, agent.server_answered, incarnation, answer)
            return
        self.network.send(mean_s, ways, agent.server_answered, incarnation, answer)

    def slow_desired(self, agent: AgentHost, fast_server: str, delay_s: float, length_s: float) -> None:
        """For a while, desired states from all servers but one take longer to reach this agent."""
        self._slow_desired[agent.name] = (fast_server, delay_s, self.scheduler.now_s + length_s)

    def tell_agent(self, server: str, cluster: str, message: Any) -> None:
        for agent in self.clusters[cluster].agents:
            ways = (f"bus>{server}", f"bus<{agent.name}")
            self.network.send(self.network.weather.bus_delay_s, ways, agent.told, message)

    def tell_replicas(self, sender: str, event: HintArrived) -> None:
        for server in self.servers:
            if server.name != sender:
                ways = (f"bus>{sender}", f"bus<{server.name}")
                self.network.send(self.network.weather.bus_delay_s, ways, server.deliver, 0, event)

    def send_report(self, agent: AgentHost, report: Report) -> None:
        quiet = self.injector.quiet_s(report.cluster) > QUIET_S
        self.capacity.reported(agent.process, report, agent.cluster.shape.nodes * GPUS_PER_NODE if quiet else 0)
        if self.network.is_cut(f"bus>{agent.name}"):
            if len(agent.stuck_reports) < STUCK_REPORTS_MAX:
                agent.stuck_reports.append(report)
            return
        for server in self.servers:
            ways = (f"bus>{agent.name}", f"bus<{server.name}")
            mean_s = self.network.weather.bus_delay_s
            before_s = agent.part_at_s.get(server.name, 0.0) if report.part else 0.0  # a connection keeps their order
            at_s = self.network.send(
                mean_s, ways, server.report_arrived, agent.cluster.name, report, not_before_s=before_s
            )
            if report.parts > 1:
                agent.part_at_s[server.name] = max(at_s, before_s)

    def release_old_reports(self, agent: AgentHost) -> None:
        """The connection is back: with some luck, what was stuck in the abandoned one arrives now, after newer ones."""
        stuck, agent.stuck_reports = agent.stuck_reports, []
        rng = self._route_rng
        if rng.random() >= self.network.weather.old_reports:
            return
        for report in stuck:
            for server in self.servers:
                delay_s = rng.random() * OLD_REPORT_DELAY_S
                self.scheduler.after(delay_s, server.report_arrived, agent.cluster.name, report)

    def report_delivered(self, caller: str, event: ReportArrived) -> None:
        report = event.report
        follows = (report.follows.boot, report.follows.seq) if report.follows is not None else None
        stamp = (report.stamp.boot, report.stamp.seq)
        self.views.delivered(caller, report.cluster, stamp, follows, report.age_s, self.scheduler.now_s)

    # --- guards ---

    def ask_guards(self, nodes: KubeletHost, asks: list[AskGuard]) -> None:
        """Through the agent's Service: to any of its processes."""
        up = [agent for agent in nodes.cluster.agents if agent.up]
        if up:
            agent = up[0] if len(up) == 1 else self._route_rng.choice(up)
            self.network.send(GUARD_DELAY_S, (f"guard>{nodes.cluster.name}",), agent.guards_asked, asks)

    def answer_guards(self, nodes: KubeletHost, answers: list[GuardAnswered]) -> None:
        self.network.send(GUARD_DELAY_S, (f"guard<{nodes.cluster.name}",), nodes.guards_answered, answers)

    # --- what checkers hear ---

    def folded(self, server: ServerHost, index: int, position: int, record: AnyRecord) -> None:
        new = index == len(self.history.records)
        self.history.folded(index, position, record, self.scheduler.now_s, server.name)
        if not new:
            return
        self.trace.note(self.scheduler.now_s, server.name, "committed", f"{position} {_about(record)}")
        if isinstance(record, Placed) or (isinstance(record, Resized) and not record.count):
            self._check_placed(position, record)
        self.failing.folded(position, record, self.scheduler.now_s)
        for listener in list(self.on_committed):
            listener(record)

    def _check_placed(self, position: int, record: Placed | Resized) -> None:
        name = entry_name(seq_of(position))
        data = self.store.journal_landed[name]
        asked_at_s, caller = self.store.journal_asked[name][data]
        writer = decode_entry(data, seq_of(position)).header.writer
        assert caller.startswith(f"{writer}#")
        stamp = (record.stamp[1], record.stamp[2]) if record.stamp is not None else None
        self.views.placed(caller, record.cluster, stamp, asked_at_s, (record.uid, record.cluster))

    def acknowledged(self, request_id: str, answer: Accepted) -> None:
        first_uid = answer.uid.partition("~")[0]  # of a spread group, which is no group itself
        self.acks.acknowledged(request_id, first_uid, answer.position, self.scheduler.now_s)

    def answer_person(self, server: str, answered: Any, answer: Accepted | Declined) -> None:
        del server
        self.network.send(self.network.weather.https_delay_s, (), answered, answer)

    def run_logged(self, cluster: ClusterHost, entry: RunLogEntry) -> None:
        """One line of a kubelet's run log."""
        facts = f"{entry.node} {entry.pod} {entry.token} {entry.why}"
        self.trace.note(self.scheduler.now_s, cluster.name, f"container {entry.event}", facts)
        if entry.event == STARTED:
            now_s = self.scheduler.now_s
            self.runs.started(cluster.name, entry.node, entry.uid, entry.group, entry.token, entry.gpus, now_s)
        else:
            self.runs.ended(cluster.name, entry.node, entry.uid, entry.group, entry.token)

    def pod_acted(self, cluster: ClusterHost, act: PodAct) -> None:
        self.trace.note(self.scheduler.now_s, cluster.name, f"pod {act.act}", f"{act.name} {act.node} {act.token}")
        if act.act == "created" and act.token and len(cluster.agents) == 1:
            self.capacity.accepted(cluster.agents[0].process, act.token)
        if act.act == "bound" and act.token:
            gpus = cluster.gpus_asked_on(act.node)
            check_node(cluster.name, act.node, gpus, GPUS_PER_NODE, (act.group, act.token, cluster.name))
        self.bound.acted(cluster.name, act.act, act.uid, act.node, act.group, act.token, self.scheduler.now_s)

    def ledger_tokens(self, configmap: Any) -> set[str]:
        """Give-ups that this ConfigMap holds, if it is a ledger."""
        if (configmap["metadata"].get("labels") or {}).get(LABEL_KIND) != KIND_LEDGER:
            return set()
        return {entry.token for entry in read_page(configmap).entries}

    def given_up(self, cluster: str) -> set[str]:
        """Tokens in the ledger of this cluster's agent."""
        tokens: set[str] = set()
        for _, configmap in self.clusters[cluster].api.store.each("configmaps"):
            tokens |= self.ledger_tokens(configmap)
        return tokens

    def tokens_known_in(self, cluster: ClusterHost) -> set[str]:
        """Tokens that the agent's own ConfigMaps name: intents, and give-ups not known to have landed."""
        labels = [obj["metadata"].get("labels") or {} for _, obj in cluster.api.store.each("configmaps")]
        return {one[LABEL_TOKEN] for one in labels if LABEL_TOKEN in one} | self.given_up(cluster.name)

    def _lineage(self) -> str:
        return decode_root(self.store.blobs[ROOT_NAME].data).lineage


def fence_wait_s(grace_s: float) -> float:
    """K by `DESIGN.md` §11, written out here: the product's own sum is among what is checked."""
    return 1.04 * grace_s + 10.0


def _about(record: AnyRecord) -> str:
    words = [type(record).__name__]
    for key in (
        "uid",
        "token",
        "cluster",
        "verdict",
        "reasons",
        "intent",
        "counts",
        "epoch",
        "grace_s",
        "name",
        "late",
    ):
        value = getattr(record, key, None)
        if value not in (None, "", ()):
            words.append(f"{key}={value}")
    return " ".join(words)
