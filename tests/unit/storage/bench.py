"""A small bench for the journal: servers over one memory store, each of whose operations can be made to go wrong."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass, field

from storage.backends.memory import MemoryStore
from storage.blob import (
    BlobCreate,
    BlobEffect,
    BlobEvent,
    BlobFailed,
    BlobGet,
    BlobName,
    BlobReplace,
    BlobWritten,
    Outcome,
    perform,
)
from storage.election import JournalTimings, Role
from storage.journal import (
    Entry,
    EntryLanded,
    FellBehind,
    Journal,
    JournalEffect,
    JournalOpened,
    LeadershipLost,
    LeadershipWon,
    LineageChanged,
)
from storage.root import ROOT_NAME, Root, decode_root, encode_root

TIMINGS = JournalTimings(heartbeat_s=5.0, silence_s=15.0, jitter_s=4.0, poll_s=1.0, retry_s=0.5, root_read_s=0.0)
"""The root is read after every entry."""
SPARING = dataclasses.replace(TIMINGS, root_read_s=30.0, keep_s=40.0)
"""It is not, within 4 s after the own entry before was sent."""
HASTY = dataclasses.replace(SPARING, heartbeat_s=0.5, silence_s=1.0, jitter_s=1.0)
"""Take-overs come sooner than that."""

News = JournalOpened | EntryLanded | LeadershipWon | LeadershipLost | LineageChanged | FellBehind


class Fate(enum.Enum):
    """What becomes of one store operation."""

    PLAIN = "carried out and answered"
    REPLY_LOST = "carried out, the answer lost"
    NOT_DONE = "not carried out, and nobody knows"
    LATE = "not carried out yet, and nobody knows; it lands when `land_late` is called"
    CONFLICT = "a create refused though nothing is there"


@dataclass
class Bench:
    """One store and one clock for all servers."""

    store: MemoryStore = field(default_factory=MemoryStore)
    now_s: float = 0.0
    late: list[BlobEffect] = field(default_factory=list)
    first_bytes: dict[BlobName, bytes] = field(default_factory=dict)
    """What was created first under each name: the truth, whatever is deleted and made again."""
    first_at_s: dict[BlobName, float] = field(default_factory=dict)

    def carry_out(self, effect: BlobEffect, fate: Fate = Fate.PLAIN) -> BlobEvent:
        if fate is Fate.PLAIN:
            return self._carry_out(effect)
        if fate is Fate.CONFLICT and isinstance(effect, BlobCreate):
            return BlobWritten(effect.op, Outcome.REFUSED)
        if fate is Fate.REPLY_LOST:
            self._carry_out(effect)
        if fate is Fate.LATE:
            self.late.append(effect)
        if isinstance(effect, BlobCreate | BlobReplace):
            return BlobWritten(effect.op, Outcome.UNKNOWN)
        return BlobFailed(effect.op, "timed out")

    def land_late(self) -> None:
        for effect in self.late:
            self._carry_out(effect)
        self.late.clear()

    def _carry_out(self, effect: BlobEffect) -> BlobEvent:
        event = perform(self.store, effect)
        if isinstance(effect, BlobCreate) and isinstance(event, BlobWritten) and event.outcome is Outcome.DONE:
            self.first_bytes.setdefault(effect.name, effect.data)
            self.first_at_s.setdefault(effect.name, self.now_s)
        return event

    def root(self) -> Root:
        blob = self.store.get(ROOT_NAME)
        assert blob is not None
        return decode_root(blob.data)

    def set_root(self, root: Root) -> None:
        blob = self.store.get(ROOT_NAME)
        if blob is None:
            self.store.create(ROOT_NAME, encode_root(root))
        else:
            self.store.replace(ROOT_NAME, encode_root(root), blob.version)

    def server(self, writer: str, *, boot: int = 1, timings: JournalTimings = TIMINGS) -> Server:
        return Server(self, writer, boot, timings)

    def leader(self, writer: str, *, timings: JournalTimings = TIMINGS) -> Server:
        server = self.server(writer, timings=timings)
        server.start()
        assert server.journal.role is Role.LEADING
        return server

    def follower(self, writer: str) -> Server:
        server = self.server(writer)
        server.start()
        assert server.journal.role is Role.FOLLOWING
        return server

    def run(self, *servers: Server, until_s: float) -> None:
        """Let time pass and the servers work, everything going well."""
        while True:
            times = [server.journal.wake_at_s for server in servers]
            wake_at_s = min((time_s for time_s in times if time_s is not None), default=until_s)
            if wake_at_s >= until_s:
                self.now_s = until_s
                return
            self.now_s = max(self.now_s, wake_at_s)
            for server in servers:
                server.tick()


class Server:
    """A shell of the journal in miniature. `effect` is its operation in flight, if any."""

    def __init__(self, bench: Bench, writer: str, boot: int, timings: JournalTimings) -> None:
        self.bench = bench
        self.journal = Journal(
            writer=writer, nonce=f"{writer}{boot}", lineage_candidate=f"from-{writer}", timings=timings
        )
        self.effect: BlobEffect | None = None
        self.news: list[News] = []

    def begin(self) -> None:
        self.take(self.journal.start(self.bench.now_s))

    def start(self) -> None:
        self.begin()
        self.settle()

    def take(self, effects: list[JournalEffect]) -> None:
        self.journal.check_invariants()
        for effect in effects:
            if isinstance(effect, News):
                self.news.append(effect)
            else:
                assert self.effect is None, "one operation at a time"
                self.effect = effect

    def step(self, fate: Fate = Fate.PLAIN) -> None:
        """Carry out the operation in flight and hand the answer over."""
        assert self.effect is not None
        effect, self.effect = self.effect, None
        self.answer(self.bench.carry_out(effect, fate))

    def answer(self, event: BlobEvent) -> None:
        self.effect = None
        self.take(self.journal.handle(event, self.bench.now_s))

    def settle(self) -> None:
        while self.effect is not None:
            self.step()

    def tick(self) -> None:
        self.take(self.journal.tick(self.bench.now_s))
        self.settle()

    def hint(self, seq: int | None = None) -> None:
        """Somebody spoke of entry `seq`, by default of the next one."""
        self.take(self.journal.hint(seq or self.journal.next_seq, self.bench.now_s))

    def propose(self, *records: bytes) -> None:
        """Begin an append; its create is then the operation in flight."""
        self.take(self.journal.append(records, self.bench.now_s))

    def append(self, *records: bytes) -> None:
        self.propose(*records)
        self.settle()

    @property
    def entries(self) -> list[Entry]:
        return [news.entry for news in self.news if isinstance(news, EntryLanded)]

    @property
    def records(self) -> list[bytes]:
        return [record for entry in self.entries if not entry.void for record in entry.records]

    @property
    def landed(self) -> list[bytes]:
        """Records that this server was told are its own and in the journal for good."""
        return [record for entry in self.entries if entry.own for record in entry.records]

    def other_news(self) -> list[News]:
        return [news for news in self.news if not isinstance(news, EntryLanded | JournalOpened)]


def name_of(effect: BlobEffect | None) -> str:
    assert isinstance(effect, BlobCreate | BlobGet)
    return effect.name
