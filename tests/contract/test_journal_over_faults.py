"""Ten thousand appends through the real client and the real journal, over an S3 whose answers go wrong in every way.

Two servers; both die, sleep and take over from one another. Time is virtual; the store and the client are not.
"""

import contextlib
import json
import random
import urllib.request
from urllib.parse import parse_qs, urlsplit

import pytest

from storage.blob import BlobEffect, BlobStore, Outcome, perform
from storage.election import JournalTimings, Role
from storage.errors import CorruptError, StoreError
from storage.journal import EntryLanded, FellBehind, Journal, JournalEffect, LeadershipLost, LineageChanged, _Step
from storage.open import open_store
from storage.verify import verify
from tests.servers.kinds import Servers
from tests.servers.loopback_s3 import Fault

APPENDS = 10_000
DEATHS = 8
SLEEPS = 30
RATE = 0.2  # of all requests: some two faults per append that meets one
TIMINGS = JournalTimings(
    heartbeat_s=1.0, silence_s=3.0, jitter_s=2.0, poll_s=1.0, retry_s=0.5
)  # a failed read begins silence anew


class Server:
    """One server's journal and what it was told."""

    def __init__(self, name: str, boot: int, store: BlobStore, now_s: float) -> None:
        self.name = name
        self.store = store
        self.journal = Journal(
            writer=name, nonce=f"{name}{boot}", lineage_candidate=f"from-{name}{boot}", timings=TIMINGS
        )
        self.effect: BlobEffect | None = None
        self.in_flight: tuple[bytes, ...] = ()
        self.acknowledged: list[bytes] = []
        self.given_up: list[bytes] = []
        self.unclear: list[bytes] = []
        self.take(self.journal.start(now_s))

    def take(self, effects: list[JournalEffect]) -> None:
        for effect in effects:
            match effect:
                case EntryLanded(entry) if entry.own:
                    self.acknowledged += entry.records
                    self.in_flight = ()
                case LeadershipLost():
                    self.given_up += self.in_flight
                    self.in_flight = ()
                case FellBehind() | LineageChanged():
                    raise AssertionError("nothing is collected here, and nothing restored")
                case effect if isinstance(effect, BlobEffect):
                    self.effect = effect
                case _:
                    pass
        self.journal.check_invariants()

    def step(self, now_s: float) -> None:
        """Do one thing: the call that is due, or what the clock asks for."""
        if self.effect is None:
            self.take(self.journal.tick(now_s))
        if self.effect is not None:
            effect, self.effect = self.effect, None
            self.take(self.journal.handle(perform(self.store, effect), now_s))

    def append(self, record: bytes, now_s: float) -> None:
        self.in_flight = (record,)
        self.take(self.journal.append([record], now_s))


class Fleet:
    """Two servers over one store, disturbed by one seed."""

    def __init__(self, url: str, seed: int, appends: int) -> None:
        self.rng = random.Random(seed)
        self.appends = appends
        self.store = open_store(url)
        self.now_s = 0.0
        self.boots = 0
        self.appended = 0
        self.deaths_due = sorted(self.rng.sample(range(50, appends // 4), DEATHS))  # early: each replays all before
        self.sleeps_due = sorted(self.rng.sample(range(50, appends), SLEEPS))
        self.asleep: Server | None = None
        self.gone: list[Server] = []
        self.servers = [self.boot("a"), self.boot("b")]

    def boot(self, name: str) -> Server:
        self.boots += 1
        return Server(name, self.boots, self.store, self.now_s)

    def run(self) -> None:
        while self.appended < self.appends:
            self.disturb()
            for server in self.servers:
                if server is self.asleep:
                    continue
                if server.journal.can_append and server.effect is None:
                    self.appended += 1
                    server.append(b"%d" % self.appended, self.now_s)
                server.step(self.now_s)
            self.now_s += 0.02 if self.asleep is None else 0.25

    def disturb(self) -> None:
        """Let one die, or the leader fall asleep, when so many appends were made; wake the sleeper some time."""
        if self.deaths_due and self.appended >= self.deaths_due[0]:
            del self.deaths_due[0]
            dies = self.rng.randrange(2)
            self.gone.append(self.servers[dies])
            self.servers[dies] = self.boot(self.servers[dies].name)
        elif self.sleeps_due and self.appended >= self.sleeps_due[0]:
            del self.sleeps_due[0]
            self.asleep = next((server for server in self.servers if server.journal.role is Role.LEADING), None)
        elif self.rng.random() < 0.02:  # after some 12 s: some sleepers are deposed, some are not
            self.asleep = None

    def settle(self) -> None:
        """All awake, no appends: until both have reached the same end."""
        self.asleep = None
        for _ in range(2_000):
            for server in self.servers:
                server.step(self.now_s)
            self.now_s += 0.05


def journal_of(store: BlobStore) -> list[bytes]:
    """What a server that starts now finds."""
    found: list[bytes] = []
    journal = Journal(writer="reader", nonce="reader", lineage_candidate="none", timings=TIMINGS)
    waiting = journal.start(0.0)
    while waiting:
        effect = waiting.pop(0)
        if isinstance(effect, EntryLanded) and not effect.entry.void:
            found += effect.entry.records
        elif isinstance(effect, BlobEffect):
            waiting += journal.handle(perform(store, effect), 0.0)
    assert journal.role is Role.FOLLOWING
    return found


def faults(url: str, setting: str | None = None) -> dict[str, int]:
    endpoint = parse_qs(urlsplit(url).query)["endpoint"][0]
    body = setting.encode() if setting else None
    request = urllib.request.Request(f"{endpoint}/_faults", data=body, method="PUT" if setting else "GET")
    with urllib.request.urlopen(request, timeout=10.0) as answer:
        counts: dict[str, int] = json.loads(answer.read())
    return counts


@pytest.fixture
def faulty(servers: Servers) -> str:
    return servers.new_store("loopback")


def broken(fleet: Fleet) -> list[str]:
    """The promises that were not kept, once all is well again."""
    try:
        journal = journal_of(fleet.store)
    except CorruptError:
        return ["the digests agree"]
    servers = fleet.gone + fleet.servers
    acknowledged = [record for server in servers for record in server.acknowledged]
    given_up = {record for server in servers for record in server.given_up}
    in_order = sorted(acknowledged, key=int)  # they were appended in the order of their numbers
    promises = {
        "what was acknowledged is there": set(acknowledged) <= set(journal),
        "what was given up is not there": not given_up & set(journal),
        "nothing is there twice": len(set(journal)) == len(journal),
        "nothing was acknowledged twice": len(set(acknowledged)) == len(acknowledged),
        "all is in order": [record for record in journal if record in set(acknowledged)] == in_order,
        "the digests agree": verify(fleet.store).bad is None,
        "most was acknowledged": len(acknowledged) > fleet.appends * 0.9,
    }
    return [promise for promise, kept in promises.items() if not kept]


def test_no_acknowledged_record_is_lost_and_none_is_there_twice(faulty: str) -> None:
    fleet = Fleet(faulty, seed=21, appends=APPENDS)
    faults(faulty, f"{RATE} 22")
    fleet.run()
    happened = faults(faulty, "0 0")
    fleet.settle()
    assert min(happened.get(fault.name, 0) for fault in Fault) >= 100
    assert len(fleet.gone) == DEATHS
    assert verify(fleet.store).term > DEATHS // 2
    assert broken(fleet) == []
    fleet.store.close()


def believes_it_done(journal: Journal, outcome: Outcome, now_s: float) -> list[JournalEffect]:
    unknown = journal._step is _Step.WRITE and outcome is Outcome.UNKNOWN
    return WRITTEN(journal, Outcome.DONE if unknown else outcome, now_s)


def believes_it_failed(journal: Journal, outcome: Outcome, now_s: float) -> list[JournalEffect]:
    if journal._step is _Step.WRITE and outcome is not Outcome.DONE:
        return [*journal._lose(), journal._issue(_Step.LOOK)]
    return WRITTEN(journal, outcome, now_s)


WRITTEN = Journal._written


@pytest.mark.parametrize(
    ("mutant", "promise"),
    [
        (believes_it_done, "the digests agree"),
        (believes_it_failed, "what was given up is not there"),
    ],
    ids=["unknown is taken for done", "unknown and refused are taken for failed"],
)
def test_a_journal_that_believes_the_store_is_caught(
    mutant: object, promise: str, faulty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet(faulty, seed=23, appends=400)
    faults(faulty, f"{RATE} 24")
    monkeypatch.setattr(Journal, "_written", mutant)
    with contextlib.suppress(StoreError):  # it may notice by itself
        fleet.run()
    monkeypatch.undo()
    faults(faulty, "0 0")
    for server in fleet.servers:
        server.effect = None
    assert promise in broken(fleet)
    fleet.store.close()
