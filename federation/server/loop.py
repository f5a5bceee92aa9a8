"""The one loop around a `Replica`: requests, messages, store answers and time become events; effects are carried out.

Everything runs on one asyncio loop; only store calls leave it, to one thread, in the order they were asked for (what
snapshots ask, which can wait, goes to others). No decision is taken here.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, TypeVar, assert_never

import structlog

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
    Note,
    PersonAsked,
    PersonRequest,
    Refused,
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
from federation.core.taped import WriteReel, write_reel
from federation.protocol import subjects
from federation.protocol.bus import Bus
from federation.protocol.messages import (
    AgentAsk,
    AnyMessage,
    JournalHint,
    Renewal,
    Report,
    ServerAnswer,
    UnreadableMessageError,
    Verdict,
    decode_message,
    encode_message,
)
from federation.server.finished import FinishedGroups
from placement.explain import Explanation
from placement.model import ClusterName, GroupUid
from storage.blob import BlobEffect, BlobEvent, BlobFailed, BlobName, BlobStore, BlobWritten, Outcome, perform
from storage.entry import ENTRIES_PREFIX, seq_of_entry
from storage.open import watchable

EVENTS_QUEUED_MAX: Final = 20_000  # past this the server sheds: people get 429, hints and reports are dropped
PERSON_TIMEOUT_S: Final = 30.0  # past this the outcome is unknown to the caller, who repeats with the same request id
AGENT_TIMEOUT_S: Final = 8.0
TICK_S_MAX: Final = 1.0
BACKGROUND_THREADS: Final = 16  # snapshots: as many shards as a start asks for at once
REST_TIMEOUT_S: Final = 5.0  # for the end of the tape, when the server stops
EVENTS_PER_TURN: Final = 256  # then the loop lets HTTP and the bus breathe

T = TypeVar("T")

log = structlog.get_logger()


class Follower(Protocol):
    """Gets the committed records in order, as they are folded."""

    def folded(self, entry: EntryFolded) -> None: ...


@dataclass(slots=True)
class Counters:
    """What `/metrics` shows of the loop."""

    events: int = 0
    messages_set_aside: int = 0
    shed: int = 0
    notes: dict[str, int] = field(default_factory=dict)


class HaltedError(Exception):
    """The replica met a record it cannot read or fold; the process must end and name it."""


@dataclass(slots=True)
class ReplicaLoop:
    replica: Replica
    store: BlobStore
    follower: Follower
    bus: Bus | None = None
    counters: Counters = field(default_factory=Counters)
    caught_up: asyncio.Event = field(default_factory=asyncio.Event)  # set once the journal was read to its end
    finished: FinishedGroups = field(init=False)
    _events: deque[ReplicaEvent] = field(default_factory=deque)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _people: dict[int, asyncio.Future[Accepted | Declined]] = field(default_factory=dict)
    _agents: dict[int, asyncio.Future[Sequence[ServerAnswer]]] = field(default_factory=dict)
    _ticket: int = 0
    _read_trouble: str = ""
    _write_trouble: str = ""
    _store_thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "store"))
    _background: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(BACKGROUND_THREADS, "background")
    )
    _sending: set[asyncio.Task[None]] = field(default_factory=set)
    _fault: BaseException | None = None  # of a store call

    def __post_init__(self) -> None:
        self.finished = FinishedGroups(self.store, lambda: self.replica.state)

    # --- what the API and the bus call ---------------------------------------------------------------------------

    async def ask(self, request: PersonRequest) -> Accepted | Declined:
        """The core's answer, after the record landed; UNAVAILABLE when none came in time."""
        if len(self._events) >= EVENTS_QUEUED_MAX:
            self.counters.shed += 1
            return Declined(Refused.QUEUE_FULL, f"{len(self._events)} events wait, at most {EVENTS_QUEUED_MAX}")
        ticket = self._next_ticket()
        future: asyncio.Future[Accepted | Declined] = asyncio.get_running_loop().create_future()
        self._people[ticket] = future
        self.feed(PersonAsked(ticket, request))
        try:
            async with asyncio.timeout(PERSON_TIMEOUT_S):
                return await future
        except TimeoutError:
            why = f"; the store: {self.store_trouble}" if self.store_trouble else ""
            return Declined(Refused.UNAVAILABLE, f"no outcome within {PERSON_TIMEOUT_S:.0f} s{why}")
        finally:
            self._people.pop(ticket, None)

    async def ask_for_agent(self, principal: str, ask: AgentAsk) -> Sequence[ServerAnswer]:
        """The core's answer to an agent, in parts if it is large; empty: this replica has none to give."""
        ticket = self._next_ticket()
        asked = AgentAsked(ticket, principal, ask)
        if isinstance(ask, Renewal):  # two a cluster and interval: what keeps a cluster in the fleet is not shed
            self.feed(asked)
        elif not self.offer(asked):
            return ()
        future: asyncio.Future[Sequence[ServerAnswer]] = asyncio.get_running_loop().create_future()
        self._agents[ticket] = future
        try:
            async with asyncio.timeout(AGENT_TIMEOUT_S):
                return await future
        except TimeoutError:
            return ()
        finally:
            self._agents.pop(ticket, None)

    def feed(self, event: ReplicaEvent) -> None:
        self._events.append(event)
        self._wake.set()

    def offer(self, event: ReplicaEvent) -> bool:
        """Take what its sender says again later, unless too much waits already."""
        if len(self._events) >= EVENTS_QUEUED_MAX:
            self.counters.shed += 1
            return False
        self.feed(event)
        return True

    async def join_bus(self, bus: Bus) -> None:
        """Subscribe to everything agents and other servers say."""
        self.bus = bus
        await bus.subscribe(subjects.report("*"), self._on_report)
        await bus.subscribe(subjects.JOURNAL_HINT, self._on_hint)
        for kind in subjects.ANY_REPLICA:
            await bus.subscribe(f"{subjects.PREFIX}.*.{kind}", self._on_ask, queue=subjects.QUEUE_GROUP)
        await bus.subscribe(f"{subjects.PREFIX}.*.verdict", self._on_ask)

    def hear_store(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Look at new entries as soon as the store tells of them; False when it tells nothing, which costs polls."""

        def heard(name: BlobName) -> None:
            loop.call_soon_threadsafe(self._on_entry, name)

        teller = watchable(self.store)
        if teller is not None:
            teller.watch(ENTRIES_PREFIX, heard)
        return teller is not None

    # --- what the API reads --------------------------------------------------------------------------------------

    @property
    def leading(self) -> bool:
        return self.replica.leading

    @property
    def leader(self) -> str:
        """Name of the server that won the newest term, as far as this one has read."""
        return self.replica.leader_name

    @property
    def position(self) -> int:
        """What this server has folded up to."""
        return self.replica.state.head

    @property
    def store_trouble(self) -> str:
        """Why the store did not answer the last time it was written to, or read; empty when it did."""
        return self._write_trouble or self._read_trouble

    def status(self) -> dict[str, Any]:
        """For `/readyz`: caught up with the journal, its role, and the newest position."""
        journal = self.replica.journal
        return {
            "ready": self.replica.caught_up,
            "name": self.replica.name,
            "role": journal.role.name.lower(),
            "leader": self.leader,
            "term": journal.term,
            "lineage": journal.lineage or "",
            "position": self.replica.state.head,
            "stalled": journal.stalled,
            "store_trouble": self.store_trouble,
            "recovering": bool(self.replica.state.recovering_since),
            "waiting_for": self.replica.waiting_for(now()),
            "format": self.replica.format_max,
            "format_written": journal.format,
            "bus": bool(self.bus and self.bus.connected),
        }

    def why(self, uid: GroupUid) -> Explanation | None:
        return self.replica.why(uid, now())

    def cluster_status(self, name: ClusterName) -> dict[str, Any]:
        return self.replica.cluster_status(name, now())

    # --- the loop ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Runs until cancelled; HaltedError when the journal cannot be followed any further. What a store call raised
        that is no answer of a store's is raised here."""
        self.feed(Started())
        try:
            while True:
                await self._wait()
                if self._fault is not None:
                    raise self._fault
                self._turn()
                if self.replica.caught_up:
                    self.caught_up.set()
                await asyncio.sleep(0)
        finally:
            self._write_rest()
            self._background.shutdown(wait=True, cancel_futures=True)
            self._store_thread.shutdown(wait=True)

    def _write_rest(self) -> None:
        """The end of the tape: what a stop in good order need not lose."""
        rest = [self._background.submit(_write_reel, self.store, wish) for wish in self.replica.tape.rest()]
        wait(rest, REST_TIMEOUT_S)

    async def _wait(self) -> None:
        """For an event; a cancellation that comes together with one ends it all the same."""
        if self._events:
            return
        now_s = now().mono_s
        wake_at_s = self.replica.wake_at_s
        pause_s = TICK_S_MAX if wake_at_s is None else min(TICK_S_MAX, max(0.0, wake_at_s - now_s))
        self._wake.clear()
        try:
            async with asyncio.timeout(pause_s):
                await self._wake.wait()
        except TimeoutError:
            self._events.append(Tick())

    def _turn(self) -> None:
        for _ in range(min(len(self._events), EVENTS_PER_TURN)):
            event = self._events.popleft()
            self.counters.events += 1
            parts: dict[int, list[ServerAnswer]] = {}
            for effect in self.replica.handle(event, now()):
                if isinstance(effect, AnswerAgent):
                    parts.setdefault(effect.ticket, []).append(effect.answer)
                else:
                    self._carry_out(effect)
            if isinstance(event, AgentAsked) and not self._may_follow(event):
                parts.setdefault(event.ticket, [])
            for ticket, answers in parts.items():
                _resolve(self._agents.get(ticket), answers)

    def _may_follow(self, asked: AgentAsked) -> bool:
        """Whether an answer that is not there yet may still come: else nobody waits for it, nor holds a connection."""
        match asked.ask:
            case Renewal():
                return True
            case Verdict():
                return self.replica.leading and not self.replica.state.recovering_since
            case _:
                return False

    def _carry_out(self, effect: ReplicaEffect) -> None:
        match effect:
            case CallStore(effect=wish, background=background):
                self._call_store(wish, self._background if background else self._store_thread)
            case WriteReel():
                self._in_background(partial(_write_reel, self.store, effect))
            case AnswerPerson(ticket, answer):
                _resolve(self._people.get(ticket), answer)
            case AnswerAgent():
                raise AssertionError("answers to agents are gathered by `_turn`")
            case TellAgent(cluster, message):
                self._publish(subjects.doorbell(cluster), message)
            case TellReplicas(hint):
                self._publish(subjects.JOURNAL_HINT, hint)
            case EntryFolded():
                self.follower.folded(effect)
            case StateLoaded(position):
                log.info("state.loaded", position=position)
            case Note(event, fields):
                self.counters.notes[event] = self.counters.notes.get(event, 0) + 1
                log.info(event, **dict(fields))
            case Halt(why):
                raise HaltedError(why)
            case _:
                assert_never(effect)

    def _call_store(self, wish: BlobEffect, threads: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        done = loop.run_in_executor(threads, perform, self.store, wish)
        done.add_done_callback(self._store_answered)

    def _in_background(self, work: Callable[[], BlobEvent]) -> None:
        done = asyncio.get_running_loop().run_in_executor(self._background, work)
        done.add_done_callback(self._store_answered)

    def _store_answered(self, future: asyncio.Future[BlobEvent]) -> None:
        if future.cancelled():
            return
        fault = future.exception()
        if fault is not None:  # no answer will ever come: better to end than to wait for it
            self._fault = fault
            self._wake.set()
            return
        self._note_trouble(future.result())
        self.feed(StoreAnswered(future.result()))

    def _note_trouble(self, event: BlobEvent) -> None:
        """Keep what is wrong with the store for those who wait; it is logged when it begins, changes and ends."""
        before = self.store_trouble
        match event:
            case BlobFailed(why=why):
                self._read_trouble = why
            case BlobWritten(outcome=Outcome.UNKNOWN, why=why):
                self._write_trouble = why or "an answer was lost"
            case BlobWritten():
                self._write_trouble = ""
            case _:
                self._read_trouble = ""
        if self.store_trouble != before:
            (log.error if self.store_trouble else log.info)("store.trouble", why=self.store_trouble or "over")

    def _publish(self, subject: str, message: AnyMessage) -> None:
        if self.bus is None:
            return
        task = asyncio.ensure_future(self.bus.publish(subject, encode_message(message)))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    # --- the bus -------------------------------------------------------------------------------------------------

    async def _on_report(self, subject: str, body: bytes) -> Sequence[bytes]:
        message = self._read(body)
        if isinstance(message, Report):
            self.offer(ReportArrived(subjects.cluster_of(subject), message))
        return ()

    async def _on_hint(self, subject: str, body: bytes) -> Sequence[bytes]:
        del subject
        message = self._read(body)
        if isinstance(message, JournalHint):
            self.offer(HintArrived(message))
        return ()

    def _on_entry(self, name: str) -> None:
        seq = seq_of_entry(name)
        if seq is not None:
            self.offer(HintArrived(JournalHint(seq=seq)))

    async def _on_ask(self, subject: str, body: bytes) -> Sequence[bytes]:
        message = self._read(body)
        if message is None or not isinstance(message, AgentAsk):
            return ()
        answers = await self.ask_for_agent(subjects.cluster_of(subject), message)
        return [encode_message(answer) for answer in answers]

    def _read(self, body: bytes) -> AnyMessage | None:
        try:
            return decode_message(body)
        except UnreadableMessageError as error:
            self.counters.messages_set_aside += 1
            log.warning("message.set_aside", why=str(error))
            return None

    def _next_ticket(self) -> int:
        self._ticket += 1
        return self._ticket


def now() -> Instant:
    """CLOCK_BOOTTIME where there is one: it goes on through a suspend, so windows notice it."""
    return Instant(time.clock_gettime(time.CLOCK_BOOTTIME), time.time_ns() // 1_000_000)


def _write_reel(store: BlobStore, wish: WriteReel) -> BlobEvent:
    """The tape decides nothing: what is wrong with a reel costs that reel."""
    try:
        return write_reel(store, wish)
    except Exception as error:  # noqa: BLE001  whatever it is
        log.error("reel.not_written", why=repr(error))
        return BlobFailed(wish.op, repr(error))


def _resolve(future: asyncio.Future[T] | None, answer: T) -> None:
    if future is not None and not future.done():
        future.set_result(answer)
