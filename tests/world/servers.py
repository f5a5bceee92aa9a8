"""One federation server: a `Replica` in its host, and the carrying out of its effects in the simulated world."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, assert_never

from federation.core.events import (
    AgentAsked,
    AnswerAgent,
    AnswerPerson,
    CallStore,
    EntryFolded,
    Halt,
    HintArrived,
    Instant,
    Note,
    PersonAsked,
    PersonRequest,
    ReplicaEffect,
    ReplicaEvent,
    ReportArrived,
    Started,
    StateLoaded,
    StoreAnswered,
    TellAgent,
    TellReplicas,
    Tick,
)
from federation.core.replica import Replica
from federation.core.taped import WriteReel, creation
from federation.protocol.messages import AgentAsk, Report
from storage.blob import BlobCreate, BlobEvent, BlobRead, BlobReplace
from storage.election import Role
from tests.world.process import Process
from tests.world.violation import ViolationError

if TYPE_CHECKING:
    from tests.world.members import AgentHost
    from tests.world.world import World

WALL_MS_AT_START: Final = 1_780_000_000_000
_TICK: Final = Tick()


class ServerHost(Process):
    """`replica` is the core while the process is up."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(name, world.draw_clock(name), world.scheduler, world.trace)
        self.world = world
        self.replica: Replica | None = None
        self.folded_count = 0
        self._agents: dict[int, tuple[AgentHost, int, str]] = {}  # ticket -> who asked, its incarnation, by which path
        self._persons: dict[int, Any] = {}

    @property
    def caller(self) -> str:
        """This process, told apart from those before and after a crash."""
        return f"{self.name}#{self.incarnation}"

    @property
    def leads(self) -> bool:
        return self.replica is not None and self.replica.role is Role.LEADING

    def has_unbound_home(self, uid: str) -> bool:
        """Whether this replica knows a home of the group, and no `Bound` of it."""
        row = self.replica.state.group(uid) if self.replica is not None else None
        return row is not None and row.home is not None and not row.bound_at

    def explains(self, uid: str) -> bool:
        """Whether the replica can say why this group waits."""
        return self.replica is not None and bool(self.replica.why(uid))

    def finds_failing(self, cluster: str) -> bool:
        """Whether this replica tries the cluster with one group at a time, if with any."""
        if self.replica is None:
            return False
        status = self.replica.cluster_status(cluster, Instant(self.clock.local(self.scheduler.now_s), 0))
        return bool(status["breaker"] != "Closed")

    def _boot(self) -> None:
        self.folded_count = 0
        self._agents.clear()
        self._persons.clear()
        self.replica = self.world.make_replica(self.name, self.incarnation)
        self._handle(Started())

    def crash(self) -> None:
        super().crash()
        self.replica = None

    def _due_s(self) -> float | None:
        return self.replica.wake_at_s if self.replica is not None else None

    def _tick(self) -> ReplicaEvent:
        return _TICK

    # --- what arrives ---

    def asked_by_agent(self, agent: AgentHost, incarnation: int, path: str, ask: AgentAsk) -> None:
        if not self.up:
            return
        ticket = self.world.next_ticket()
        self._agents[ticket] = (agent, incarnation, path)
        self.deliver(0, AgentAsked(ticket, agent.cluster.name, ask))

    def asked_by_person(self, request: PersonRequest, answered: Any) -> None:
        if not self.up:
            return
        ticket = self.world.next_ticket()
        self._persons[ticket] = answered
        self.deliver(0, PersonAsked(ticket, request))

    def report_arrived(self, cluster: str, report: Report) -> None:
        self.deliver(0, ReportArrived(cluster, report))

    # --- the core ---

    def _step(self, event: ReplicaEvent) -> None:
        assert self.replica is not None
        now_s = self.scheduler.now_s
        facts = _facts(event)
        if facts:
            self.trace.note(now_s, self.name, type(event).__name__, facts)
        instant = Instant(self.clock.local(now_s), WALL_MS_AT_START + int(now_s * 1000.0))
        effects = self.replica.handle(event, instant)
        if isinstance(event, ReportArrived) and not any(map(_sets_aside, effects)):
            self.world.report_delivered(self.caller, event)
        for effect in effects:
            self._carry_out(effect)

    def _carry_out(self, effect: ReplicaEffect) -> None:
        world = self.world
        match effect:
            case CallStore(blob_effect):
                if isinstance(blob_effect, BlobCreate | BlobReplace):
                    self.trace.note(self.scheduler.now_s, self.name, type(blob_effect).__name__, blob_effect.name)
                world.store.call(self.name, self.caller, blob_effect, partial(self._store_answered, self.incarnation))
            case WriteReel():
                wish = creation(effect)
                assert isinstance(wish, BlobCreate)
                world.store.call(self.name, self.caller, wish, partial(self._store_answered, self.incarnation))
            case AnswerAgent(ticket, answer):
                agent, incarnation, path = self._agents[ticket]  # kept: a full desired state comes in parts
                world.answer_agent(self.name, agent, incarnation, path, answer)
            case AnswerPerson(ticket, answer):
                world.answer_person(self.name, self._persons.pop(ticket), answer)
            case EntryFolded():
                self._folded(effect)
            case StateLoaded(position):
                self.folded_count = world.history.count_to(position)
            case TellAgent(cluster, message):
                world.tell_agent(self.name, cluster, message)
            case TellReplicas(hint):
                world.tell_replicas(self.name, HintArrived(hint))
            case Note(event, fields):
                world.count_note(event)
                self.trace.note(self.scheduler.now_s, self.name, event, " ".join(f"{k}={v}" for k, v in fields))
            case Halt(why):
                raise ViolationError("crash", f"{self.name} halted: {why}", (self.name,))
            case _:
                assert_never(effect)

    def _folded(self, entry: EntryFolded) -> None:
        for position, record in entry.lines():
            self.world.folded(self, self.folded_count, position, record)
            self.folded_count += 1

    def _store_answered(self, incarnation: int, event: BlobEvent) -> None:
        self.deliver(incarnation, StoreAnswered(event))


def _sets_aside(effect: ReplicaEffect) -> bool:
    """A process that does not know the cluster yet has not heard the report: an older one may still be its first."""
    return isinstance(effect, Note) and effect.event == "report.set_aside"


def _facts(event: ReplicaEvent) -> str:
    """For the trace; "" for what it leaves out: wake-ups and plain reads, half of all events, show in what follows."""
    match event:
        case Tick() | StoreAnswered(BlobRead()):
            return ""
        case AgentAsked(_, principal, ask):
            return f"{principal} {type(ask).__name__} {getattr(ask, 'token', '')}"
        case PersonAsked(_, request):
            return type(request).__name__
        case ReportArrived(principal, report):
            return f"{principal} {report.stamp.boot}.{report.stamp.seq} applied={report.applied} live={report.live}"
        case StoreAnswered(answer):
            return f"{type(answer).__name__} {answer.op}"
        case Started() | HintArrived():
            return "-"
        case _:
            assert_never(event)
