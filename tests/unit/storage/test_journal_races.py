"""Three servers over one store in which anything goes wrong, many times over; and proof that the check would notice.

Each run is drawn from one seed. A rule of the journal is then removed, and some run must show a violation.
"""

import random

import pytest

import storage.journal
from storage.blob import BlobCreate, Outcome
from storage.election import Role
from storage.entry import digest, entry_name
from storage.journal import (
    EntryLanded,
    FellBehind,
    Journal,
    JournalEffect,
    JournalOpened,
    LeadershipLost,
    LineageChanged,
    _Step,
)
from storage.root import FORMAT, Root, SnapshotPointer
from tests.unit.storage.bench import HASTY, TIMINGS, Bench, Fate, Server

WRITERS = ("a", "b", "c")
SEEDS = 150
STEPS = 250
FATES = (Fate.REPLY_LOST, Fate.NOT_DONE, Fate.LATE, Fate.CONFLICT)


class ViolationError(Exception):
    """A promise of the journal was broken."""


class Race:
    """One run. The truth about a number is what was created first under its name, whatever was collected since."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.bench = Bench()
        self.fault_rate = self.rng.choice([0.0, 0.05, 0.3])
        self.collect_rate = self.rng.choice([0.0, 0.02, 0.1])
        self.timings = self.rng.choice([TIMINGS, HASTY])
        self.sleep_rate = self.rng.choice([0.0, 0.6])
        self.boots = 0
        self.record_count = 0
        self.servers = [self.boot(writer) for writer in WRITERS]
        self.asleep: Server | None = None
        self.flying: dict[str, list[bytes]] = {}
        self.lost: set[bytes] = set()
        self.checked: dict[Server, int] = {}

    def boot(self, writer: str) -> Server:
        self.boots += 1
        server = self.bench.server(writer, boot=self.boots, timings=self.timings)
        server.begin()
        return server

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.disturb()
            self.act(self.rng.choice(self.servers))
        self.bench.land_late()
        self.asleep = None
        self.heal()

    def disturb(self) -> None:
        if self.rng.random() < self.collect_rate:
            self.collect()
        draw = self.rng.random()
        if draw < 0.03:
            self.crash(self.rng.choice(self.servers))
        elif draw < 0.06:
            self.bench.land_late()
        elif draw < 0.1:
            self.asleep = self.rng.choice(self.servers) if self.rng.random() < self.sleep_rate else None

    def act(self, server: Server) -> None:
        """Let one server do one thing; the others stand still meanwhile."""
        if server is self.asleep:
            self.bench.now_s += 2.0
            return
        journal = server.journal
        if server.effect is not None:
            faulty = self.rng.random() < self.fault_rate
            server.step(self.rng.choice(FATES) if faulty else Fate.PLAIN)
        elif journal.role is Role.STOPPED:
            self.crash(server)
        elif journal.can_append and self.rng.random() < 0.7:
            self.record_count += 1
            server.propose(b"%d" % self.record_count)
            self.flying[journal._nonce] = [b"%d" % self.record_count]
        else:
            self.bench.now_s += self.rng.choice([0.1, 1.0, 5.0])
            server.take(journal.tick(self.bench.now_s))
        self.check(server)

    def crash(self, server: Server) -> None:
        self.servers[self.servers.index(server)] = self.boot(server.journal._writer)

    def collect(self) -> None:
        """Snapshot what some server has seen, raise the floor, delete. Never below the floor of before."""
        seq = max(server.journal.next_seq for server in self.servers) - 1
        if self.timings is HASTY and not self.old_enough(seq):
            return
        root = self.bench.store.get(storage.root.ROOT_NAME)
        if root is None or seq <= self.bench.root().gc_floor:
            return
        term = max(server.journal.term for server in self.servers if server.journal.next_seq == seq + 1)
        pointer = SnapshotPointer(seq=seq, term=term, digest=digest(self.bench.first_bytes[entry_name(seq)]))
        lineage = self.bench.root().lineage
        self.bench.set_root(Root(format=FORMAT, lineage=lineage, nonce=f"gc{seq}", snapshot=pointer, gc_floor=seq))
        for number in range(1, seq + 1):
            self.bench.store.delete(entry_name(number))

    def old_enough(self, seq: int) -> bool:
        """Whether a collector may delete the entry by now; it sees it no earlier than it was written."""
        return self.bench.now_s - self.bench.first_at_s.get(entry_name(seq), 0.0) >= self.timings.keep_s

    def check(self, server: Server) -> None:
        """Look at what the server reported since the last look."""
        news = server.news
        for index in range(self.checked.get(server, 0), len(news)):
            match news[index]:
                case EntryLanded(entry):
                    self.check_landed(server, entry.seq, entry.records)
                case LeadershipLost(lost_records=count) if count:
                    later = news[index + 1 :]
                    if not any(isinstance(one, FellBehind | LineageChanged) for one in later):
                        self.lost.update(self.flying.get(server.journal._nonce, []))
                case _:
                    pass
        self.checked[server] = len(news)

    def check_landed(self, server: Server, seq: int, records: tuple[bytes, ...]) -> None:
        truth = self.bench.first_bytes.get(entry_name(seq))
        if truth is None:
            raise ViolationError(f"{seq} was reported as landed and never stored")
        if storage.entry.decode_entry(truth, seq).records != records:
            raise ViolationError(f"{seq} was reported with other records than were first stored")
        if self.lost.intersection(records):
            raise ViolationError(f"{records} were reported as lost and landed")

    def heal(self) -> None:
        """Everything works again: there must be one leader soon, and all must agree with it."""
        bench = self.bench
        for server in list(self.servers):
            server.settle()
            if server.journal.role is Role.STOPPED:
                self.crash(server)
        for server in self.servers:
            server.settle()
        bench.run(*self.servers, until_s=bench.now_s + 60.0)
        for server in self.servers:
            self.check(server)
        leaders = [server for server in self.servers if server.journal.role is Role.LEADING]
        if not leaders:
            raise ViolationError("nobody leads a minute after all is well")
        newest = max(leaders, key=lambda server: server.journal.term)
        newest.append(b"last")
        bench.run(*self.servers, until_s=bench.now_s + 12.0)
        heads = {server.journal.next_seq for server in self.servers if server.journal.role is not Role.STOPPED}
        apart_max = 2 if self.timings is HASTY else 0  # heartbeats within one poll
        if max(heads) - min(heads) > apart_max or b"last" not in newest.landed:
            raise ViolationError(f"servers end at {sorted(heads)}")


def violation(seeds: range) -> str | None:
    """Return the first broken promise in these runs, or None."""
    for seed in seeds:
        try:
            Race(seed).run(STEPS)
        except (ViolationError, AssertionError, storage.errors.StoreError) as error:
            return f"seed {seed}: {error!r}"
    return None


@pytest.mark.long
def test_no_run_breaks_a_promise() -> None:
    assert violation(range(SEEDS)) is None


def believe_refusal(journal: Journal, outcome: Outcome, now_s: float) -> list[JournalEffect]:
    if journal._step is _Step.WRITE and outcome is Outcome.REFUSED:
        return [*journal._lose(), journal._issue(_Step.LOOK)]
    return WRITTEN(journal, outcome, now_s)


def unknown_is_failed(journal: Journal, outcome: Outcome, now_s: float) -> list[JournalEffect]:
    if journal._step is _Step.WRITE and outcome is Outcome.UNKNOWN:
        return [*journal._lose(), journal._issue(_Step.LOOK)]
    return WRITTEN(journal, outcome, now_s)


def unknown_is_done(journal: Journal, outcome: Outcome, now_s: float) -> list[JournalEffect]:
    if journal._step is _Step.WRITE and outcome is Outcome.UNKNOWN:
        return WRITTEN(journal, Outcome.DONE, now_s)
    return WRITTEN(journal, outcome, now_s)


def anything_there_is_ours(journal: Journal, blob: storage.blob.Blob | None, now_s: float) -> list[JournalEffect]:
    return RESOLVED(journal, blob, now_s) if blob is None else journal._own_is_stored(now_s)


def absent_is_failed(journal: Journal, blob: storage.blob.Blob | None, now_s: float) -> list[JournalEffect]:
    if blob is None:
        return [*journal._lose(), journal._issue(_Step.LOOK)]
    return RESOLVED(journal, blob, now_s)


WRITTEN = Journal._written
RESOLVED = Journal._resolved


@pytest.mark.parametrize(
    ("where", "rule", "mutant"),
    [
        pytest.param(storage.journal, "counts", lambda seq, gc_floor: True, id="no floor rule"),
        pytest.param(Journal, "_written", believe_refusal, id="a refusal is believed"),
        pytest.param(Journal, "_written", unknown_is_failed, id="unknown is taken for failed"),
        pytest.param(Journal, "_written", unknown_is_done, id="unknown is taken for done"),
        pytest.param(Journal, "_resolved", anything_there_is_ours, id="the nonce is not compared"),
        pytest.param(Journal, "_resolved", absent_is_failed, id="absent is taken for failed"),
    ],
)
def test_a_journal_without_one_of_its_rules_is_caught(
    where: object, rule: str, mutant: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, rule, mutant)
    assert violation(range(SEEDS)) is not None


def test_runs_are_rich_enough_to_matter() -> None:
    kinds: set[str] = set()
    landed = 0
    for seed in range(30):
        race = Race(seed)
        race.run(STEPS)
        for server in race.servers:
            kinds.update(type(news).__name__ for news in server.news)
            landed += len(server.landed)
    assert kinds >= {"EntryLanded", "LeadershipWon", "JournalOpened"}
    assert landed > 120


def test_effects_name_only_the_journal_and_the_root() -> None:
    race = Race(1)
    race.run(STEPS)
    names = {name.split("/")[0] for name in race.bench.first_bytes}
    assert names == {"journal", "root"}
    assert JournalOpened in {type(news) for news in race.servers[0].news}
    assert not any(isinstance(server.effect, BlobCreate) for server in race.servers)
