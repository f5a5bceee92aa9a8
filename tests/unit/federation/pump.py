"""A federation in one thread for tests: real replicas over the memory store, virtual time, and scripted members.

A `Member` says what an agent would say and does nothing by itself but renew and report; tests send its verdicts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from federation.core.events import (
    Accepted,
    AgentAsked,
    AnswerAgent,
    AnswerPerson,
    CallStore,
    Declined,
    EntryFolded,
    Halt,
    HintArrived,
    Instant,
    JoinCluster,
    Note,
    PersonAsked,
    PersonRequest,
    ReplicaEvent,
    ReportArrived,
    SetIntent,
    Started,
    StateLoaded,
    StoreAnswered,
    SubmitGroup,
    TellAgent,
    TellReplicas,
    Tick,
)
from federation.core.invariants import check
from federation.core.records import AnyRecord
from federation.core.replica import Replica, ReplicaConfig
from federation.core.reported import NO_KINDS
from federation.core.rows import ClusterRow, GroupRow
from federation.core.state import State
from federation.core.taped import WriteReel, creation
from federation.protocol.lease import AgentLease, Timings
from federation.protocol.messages import (
    AgentAsk,
    DesiredAnswer,
    DesiredAsk,
    NodeKinds,
    NodeRows,
    RenewalAnswer,
    Report,
    ServerAnswer,
    Stamp,
    Verdict,
    VerdictAnswer,
)
from placement.model import PodGroup, Role
from storage.backends.memory import MemoryStore
from storage.blob import BlobEffect, BlobEvent, BlobFailed, BlobStore, perform

WALL_MS = 1_700_000_000_000
TIMINGS = Timings(ttl_s=30.0)
STEPS_MAX = 200_000


def pod_group(name: str, *, pods: int = 1, gpus: int = 8, of: str = "nvidia.com/gpu", **fields: Any) -> PodGroup:
    """A gang of `pods` pods of `gpus` GPUs each, or of so much `of` another resource."""
    container = {"name": "main", "image": "train", "resources": {"limits": {of: gpus}}}
    return PodGroup(name=name, roles=(Role(count=pods, template={"spec": {"containers": [container]}}),), **fields)


@dataclass
class Member:
    """One cluster's agent, as far as servers see it."""

    name: str
    pump: Pump
    nodes: int = 4
    gpus_free: list[int] = field(default_factory=list)
    node_kinds: NodeKinds = NO_KINDS
    strength: str = "guard"
    alive: bool = True
    holds: set[str] = field(default_factory=set)  # tokens with a container
    applied: int | None = None  # None: everything that is desired is shown at once
    boot: int = 1
    seq: int = 0
    ask_id: int = 0
    due_s: float = 0.0

    def __post_init__(self) -> None:
        self.gpus_free = self.gpus_free or [8] * self.nodes
        self.lease = AgentLease(self.name, f"uid-{self.name}", "boot-1", self.pump.timings.ttl_s, self.pump.now_s)

    def tick(self) -> None:
        if not self.alive or self.pump.now_s < self.due_s:
            return
        self.due_s = self.pump.now_s + 5.0
        self.renew()
        self.report()

    def renew(self) -> None:
        self.ask_id += 1
        renewal = self.lease.renew(self.pump.now_s, nonce=f"{self.name}-{self.ask_id}", ask_id=self.ask_id)
        answer = self.pump.ask_agent(self.name, renewal)
        if isinstance(answer, RenewalAnswer):
            self.lease.answered(answer)

    def report(self, *, follows: Stamp | None = None, **fields: Any) -> None:
        self.seq += 1
        live = self.lease.live(self.pump.now_s)
        rows = NodeRows(
            name=tuple(f"{self.name}-{index}" for index in range(self.nodes)),
            product=("A100",) * self.nodes,
            gpus=(8,) * self.nodes,
            gpus_free=tuple(self.gpus_free),
            cpu_milli=(64_000,) * self.nodes,
            cpu_milli_total=(64_000,) * self.nodes,
            memory_mib=(512_000,) * self.nodes,
            memory_mib_total=(512_000,) * self.nodes,
        )
        facts: dict[str, Any] = {
            "cluster": self.name,
            "lineage": self.pump.state.lineage,
            "stamp": Stamp(self.boot, self.seq),
            "follows": follows,
            "applied": self.pump.state.head if self.applied is None else self.applied,
            "epoch": self.lease.epoch,
            "live": live,
            "fence_strength": self.strength,
            "tokens": None if live else tuple(sorted(self.holds)),
            "rows": rows,
            "node_kinds": self.node_kinds,
        }
        self.pump.tell_all(ReportArrived(self.name, Report(**(facts | fields))))

    def desired(self, since: int = 0) -> DesiredAnswer | None:
        self.ask_id += 1
        answer = self.pump.ask_agent(
            self.name,
            DesiredAsk(ask_id=self.ask_id, cluster=self.name, since=since, lineage=self.pump.state.lineage),
        )
        assert answer is None or isinstance(answer, DesiredAnswer)
        return answer

    def verdict(self, uid: str, verdict: str, *, token: str | None = None, **fields: Any) -> VerdictAnswer | None:
        """Send a verdict about the group's present (or the given) token; the answer, once it landed."""
        if token is None:
            home = self.pump.group(uid).home
            assert home is not None
            token = str(home.token)
        self.ask_id += 1
        ask = Verdict(ask_id=self.ask_id, cluster=self.name, uid=uid, token=token, verdict=verdict, **fields)
        answer = self.pump.ask_agent(self.name, ask)
        assert answer is None or isinstance(answer, VerdictAnswer)
        return answer


class Line(NamedTuple):
    """A record that a replica folded, with its position."""

    position: int
    record: AnyRecord


class Pump:
    def __init__(
        self,
        *,
        servers: int = 1,
        timings: Timings = TIMINGS,
        store: BlobStore | None = None,
        **config: Any,
    ) -> None:
        """`config`: more of every server's `ReplicaConfig`."""
        self.now_s = 100.0
        self.timings = timings
        self.config = config
        self.store = store or MemoryStore()
        self.replicas: dict[str, Replica] = {}
        self.members: dict[str, Member] = {}
        self.cut: set[str] = set()  # servers that nothing reaches: paused, or dead
        self.folded: dict[str, list[Line]] = {}
        self.loaded: dict[str, list[int]] = {}  # positions of the snapshots that a server began from
        self.rung: list[tuple[str, object]] = []
        self.notes: list[Note] = []
        self.answers: dict[int, Accepted | Declined] = {}
        self.agent_answers: dict[int, list[ServerAnswer]] = {}
        self.on_store: Callable[[str, BlobEffect], BlobEvent | None] | None = None  # may replace the store's answer
        self._events: deque[tuple[str, ReplicaEvent]] = deque()
        self._ticket = 0
        self._boots = 0
        for index in range(servers):
            self.start(f"server-{index}")

    # --- servers ---

    def start(self, name: str) -> Replica:
        """Start (or restart) a server."""
        self._boots += 1
        self._events = deque((to, event) for to, event in self._events if to != name)
        self.folded[name] = []
        self.cut.discard(name)
        self.replicas[name] = Replica(ReplicaConfig(name=name, seed=self._boots, timings=self.timings, **self.config))
        self._events.append((name, Started()))
        return self.replicas[name]

    def stop(self, name: str) -> None:
        self.cut.add(name)

    @property
    def leader(self) -> Replica:
        leaders = [replica for name, replica in self.replicas.items() if replica.leading and name not in self.cut]
        assert len(leaders) == 1
        return leaders[0]

    @property
    def up(self) -> list[str]:
        return [name for name in self.replicas if name not in self.cut]

    @property
    def state(self) -> State:
        """The state of the server that has folded most."""
        return max((self.replicas[name].state for name in self.up), key=lambda state: state.head)

    def group(self, uid: str) -> GroupRow:
        row = self.state.group(uid)
        assert row is not None
        return row

    def cluster(self, name: str) -> ClusterRow:
        row = self.state.cluster(name)
        assert row is not None
        return row

    # --- time ---

    def run(self, seconds: float) -> None:
        """Let time pass; all that becomes due happens."""
        until_s = self.now_s + seconds
        self.drain()
        while True:
            due_s = min(
                [
                    *(self.replicas[name].wake_at_s or until_s for name in self.up),
                    *(member.due_s for member in self.members.values() if member.alive),
                    until_s,
                ]
            )
            self.now_s = max(self.now_s, min(due_s, until_s))
            for member in self.members.values():
                member.tick()
            for name in self.up:
                self._events.append((name, Tick()))
            self.drain()
            if self.now_s >= until_s:
                return

    def drain(self) -> None:
        for _ in range(STEPS_MAX):
            if not self._events:
                return
            self.step()
        raise AssertionError("the replicas do not come to rest")

    def step(self) -> None:
        """Handle the next event that waits."""
        name, event = self._events.popleft()
        if name not in self.cut:
            self._handle(name, event)

    def _handle(self, name: str, event: ReplicaEvent) -> None:
        replica = self.replicas[name]
        now = Instant(self.now_s, WALL_MS + int(self.now_s * 1000))
        for effect in replica.handle(event, now):
            match effect:
                case CallStore(wish):
                    answer = self.on_store(name, wish) if self.on_store is not None else None
                    self._events.append((name, StoreAnswered(answer or perform(self.store, wish))))
                case WriteReel():
                    self._events.append((name, StoreAnswered(self._reel(name, effect))))
                case AnswerPerson(ticket, reply):
                    assert ticket not in self.answers
                    self.answers[ticket] = reply
                case AnswerAgent(ticket, reply_to_agent):
                    self.agent_answers.setdefault(ticket, []).append(reply_to_agent)
                case TellAgent(cluster, message):
                    self.rung.append((cluster, message))
                case TellReplicas(hint):
                    self._events.extend((other, HintArrived(hint)) for other in self.up if other != name)
                case EntryFolded():
                    self.folded[name] += [Line(position, record) for position, record in effect.lines()]
                case StateLoaded():
                    self.loaded.setdefault(name, []).append(effect.position)
                case Note():
                    self.notes.append(effect)
                case Halt(why):
                    raise AssertionError(f"{name} halted: {why}")
        check(replica.state)

    def _reel(self, name: str, effect: WriteReel) -> BlobEvent:
        wish = creation(effect)
        if isinstance(wish, BlobFailed):
            return wish
        answer = self.on_store(name, wish) if self.on_store is not None else None
        return answer or perform(self.store, wish)

    # --- talking ---

    def tell(self, name: str, event: ReplicaEvent) -> None:
        self._events.append((name, event))
        self.drain()

    def tell_all(self, event: ReplicaEvent) -> None:
        self._events.extend((name, event) for name in self.up)
        self.drain()

    def ask(self, request: PersonRequest, *, server: str | None = None) -> Accepted | Declined | None:
        """Ask the leader (or `server`); None while there is no answer yet."""
        self._ticket += 1
        name = server or self.leader.name
        self.tell(name, PersonAsked(self._ticket, request))
        return self.answers.get(self._ticket)

    def answer(self, ticket: int) -> Accepted | Declined | None:
        return self.answers.get(ticket)

    @property
    def last_ticket(self) -> int:
        return self._ticket

    def ask_agent(self, principal: str, ask: AgentAsk, *, server: str | None = None) -> ServerAnswer | None:
        """Ask as a cluster's agent: the leader if there is one, else any server."""
        self._ticket += 1
        ticket = self._ticket
        leaders = [name for name in self.up if self.replicas[name].leading]
        to = server or (leaders or self.up)[0]
        self.tell(to, AgentAsked(ticket, principal, ask))
        return next(iter(self.agent_answers.get(ticket, [])), None)

    # --- the usual beginnings ---

    def join(self, *names: str, **fields: Any) -> list[Member]:
        """Clusters that join, report and are admitted."""
        joined = []
        for name in names:
            accepted = self.ask(JoinCluster(name, "fast", (), False, f"join-{name}", "olga"))
            assert isinstance(accepted, Accepted)
            joined.append(self.members.setdefault(name, Member(name, self, **fields)))
        self.run(20.0)
        return joined

    def submit(self, name: str, *, request_id: str = "", **fields: Any) -> str:
        """Submit a gang and return its uid."""
        accepted = self.ask(SubmitGroup(pod_group(name, **fields), request_id or f"submit-{name}", "sara"))
        assert isinstance(accepted, Accepted), accepted
        return accepted.uid

    def intend(self, uid: str, intent: str) -> Accepted | Declined | None:
        return self.ask(SetIntent(uid, intent, "", f"{intent}-{uid}-{self._ticket}", "sara"))


def started(*, servers: int = 1, **fields: Any) -> Pump:
    """A pump whose servers have a leader."""
    pump = Pump(servers=servers, **fields)
    pump.run(25.0)
    assert pump.leader.leading
    return pump
