"""Clients that fight over a few blobs of one store, over a network that loses, delays and forgets; and their history.

Contention is what matters: eight clients meet on four blobs at a time.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from storage.blob import BlobName, BlobStore, Outcome, Version, Written
from storage.errors import UnavailableError
from tests.linearizability.checker import Answer, Kind, Operation, is_linearizable

CLIENTS = 8
KEYS = 20
KEYS_AT_ONCE = 4
OPERATIONS_PER_KEY = 200
LOST = 0.04  # carried out, the answer lost
LATE = 0.04  # nobody knows; carried out when somebody else calls
DROPPED = 0.04  # never carried out, and nobody knows
LANDS = 0.3  # how readily a late one lands during another's call

History = dict[BlobName, list[Operation]]


class Network:
    """What lies between a client and the store."""

    def __init__(self, rng: random.Random, *, faulty: bool) -> None:
        self._rng = rng
        self._faulty = faulty
        self._late: list[Callable[[], Written]] = []
        self._lock = threading.Lock()

    def write(self, call: Callable[[], Written]) -> Written:
        if not self._faulty:
            return call()
        with self._lock:
            fate = self._rng.random()
            landing = self._late.pop() if self._late and self._rng.random() < LANDS else None
            if fate < LATE:
                self._late.append(call)
        if landing is not None:
            landing()
        if fate < LATE or fate > 1 - DROPPED:
            return Written(Outcome.UNKNOWN)
        written = call()
        return Written(Outcome.UNKNOWN) if fate > 1 - DROPPED - LOST else written

    def settle(self) -> None:
        """Let everything land that is still on its way."""
        while self._late:
            self._late.pop()()


class Client:
    """One caller. It replaces what it saw last, which others may have replaced since."""

    def __init__(
        self,
        name: str,
        store: BlobStore,
        rng: random.Random,
        *,
        network: Network,
        recover: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.store = store
        self.network = network
        self.rng = rng
        self.recover = recover
        self.numbers = itertools.count(1)
        self.seen: dict[BlobName, tuple[str, Version]] = {}
        self.history: list[tuple[BlobName, Operation]] = []

    def work(self, keys: Sequence[BlobName], disturb: Callable[[], None] | None = None) -> None:
        """Call the store once for each of `keys`, and `disturb` once in the middle."""
        for number, key in enumerate(keys):
            if disturb is not None and number == len(keys) // 2:
                disturb()
            draw = self.rng.random()
            if draw < 0.35:
                self.get(key)
            elif draw < 0.8 and key in self.seen:
                self.replace(key)
            elif draw < 0.93:
                self.create(key)
            else:
                self.delete(key)

    def get(self, key: BlobName) -> None:
        called = self.begin(key, Kind.GET)
        try:
            blob = self.store.get(key)
        except UnavailableError:
            self.recover()
            return
        read = blob.data.decode() if blob else None
        self.note(key, Operation(self.name, Kind.GET, called, time.monotonic_ns(), Answer.DONE, read=read))
        if blob is not None:
            self.seen[key] = (blob.data.decode(), blob.version)

    def create(self, key: BlobName) -> None:
        content = f"{self.name}-{next(self.numbers)}"
        self.write(key, Kind.CREATE, content, "", lambda: self.store.create(key, content.encode()))

    def replace(self, key: BlobName) -> None:
        content = f"{self.name}-{next(self.numbers)}"
        expected, version = self.seen[key]
        self.write(key, Kind.REPLACE, content, expected, lambda: self.store.replace(key, content.encode(), version))

    def write(self, key: BlobName, kind: Kind, content: str, expected: str, call: Callable[[], Written]) -> None:
        called = self.begin(key, kind, content, expected)
        written = self.network.write(call)
        answer = Answer[written.outcome.name]
        returned = time.monotonic_ns()
        self.note(key, Operation(self.name, kind, called, returned, answer, wrote=content, expected=expected))
        if written.version is not None:
            self.seen[key] = (content, written.version)
        if written.why:
            self.recover()

    def delete(self, key: BlobName) -> None:
        called = self.begin(key, Kind.DELETE)
        answer = Answer.DONE
        try:
            self.store.delete(key)
        except UnavailableError:
            answer = Answer.UNKNOWN
        self.note(key, Operation(self.name, Kind.DELETE, called, time.monotonic_ns(), answer))
        if answer is Answer.UNKNOWN:
            self.recover()

    def begin(self, key: BlobName, kind: Kind, content: str = "", expected: str = "") -> int:
        """What happens before a call; the time of it."""
        return time.monotonic_ns()

    def note(self, key: BlobName, operation: Operation) -> None:
        self.history.append((key, operation))


def history_of(
    stores: Sequence[BlobStore],
    seed: int,
    *,
    keys: int = KEYS,
    faulty: bool = True,
    disturb: Callable[[], None] | None = None,
    recover: Callable[[], None] = lambda: None,
) -> History:
    """Let the clients, spread over `stores`, work through all keys, a few at a time.

    One of them calls `disturb` in the middle of each few; each calls `recover` when the store itself did not answer.
    """
    rng = random.Random(seed)
    network = Network(random.Random(rng.random()), faulty=faulty)
    clients = [
        Client(f"c{n}", stores[n % len(stores)], random.Random(rng.random()), network=network, recover=recover)
        for n in range(CLIENTS)
    ]
    for few in key_groups(keys):
        shares = shares_of(few, rng)
        threads = [
            threading.Thread(target=client.work, args=(share, None if n else disturb))
            for n, (client, share) in enumerate(zip(clients, shares, strict=True))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    network.settle()
    return by_key(entry for client in clients for entry in client.history)


def key_groups(keys: int) -> list[list[BlobName]]:
    names = [BlobName(f"k/{number:02d}") for number in range(keys)]
    return [names[first : first + KEYS_AT_ONCE] for first in range(0, keys, KEYS_AT_ONCE)]


def shares_of(few: Sequence[BlobName], rng: random.Random) -> list[list[BlobName]]:
    """Which blobs each client calls, one after the other."""
    calls = [name for name in few for _ in range(OPERATIONS_PER_KEY)]
    rng.shuffle(calls)
    return [calls[number::CLIENTS] for number in range(CLIENTS)]


def by_key(entries: Iterable[tuple[BlobName, Operation]]) -> History:
    history: History = defaultdict(list)
    for key, operation in entries:
        history[key].append(operation)
    return history


def unexplained(history: History) -> list[BlobName]:
    """The blobs whose answers no order explains."""
    return [key for key in sorted(history) if not is_linearizable(history[key])]
