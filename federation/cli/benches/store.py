"""`muster bench store`: how fast a store commits the journal, with the real journal core and no server around it.

Ratios of one run say more than rates: a batch of 64 against a batch of one, on the same store at the same time.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import msgspec

from federation.cli.benches.load import percentile
from federation.cli.store.failures import told
from federation.core.records import Placed, encode_record
from federation.simulate.machine import Machine, machine
from storage.blob import LIST_LIMIT, Blob, BlobEffect, BlobName, BlobStore, Version, Written, perform
from storage.election import JournalTimings
from storage.entry import RECORDS_PER_ENTRY_MAX
from storage.errors import StoreError
from storage.journal import EntryLanded, Journal, JournalEffect, LeadershipLost
from storage.open import open_store
from storage.prefixed import PrefixedStore
from storage.reading import list_names

BATCH: Final = 64
P99_SIGMAS: Final = 2.326  # of a normal distribution
SAMPLES: Final = 512  # different records, of which batches are made

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """`latency_p50_ms` 0: none is added. `offered_per_s` 0: that part is left out."""

    seconds: float
    writers: int
    offered_per_s: float
    latency_p50_ms: float
    latency_p99_ms: float


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement; an acknowledgement comes when the journal reports the entry as landed."""

    records_per_second: float
    commits_per_second: float
    records_per_commit: float
    ack_p50_ms: float
    ack_p99_ms: float
    store_calls_per_commit: float
    bytes_per_record: float


class StoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """`writers`: each sends its next record when the last is acknowledged. `offered`: records come evenly, whatever
    happens."""

    bench: str = "store"
    store: str  # the address's scheme
    seconds: float
    added_latency_p50_ms: float
    added_latency_p99_ms: float
    batch_1: Rate
    batch_64: Rate
    batch_ratio: float
    writers_count: int
    writers: Rate
    offered_per_second: float
    offered: Rate | None
    machine: Machine


def bench_store(url: str, settings: StoreSettings, *, nonce: str, say: Say) -> StoreReport:
    """Measure the store at `url` under names of the bench's own, which are gone when this returns."""
    facts = machine()
    with _bench_store(url, nonce) as inner:
        store = _Counting(inner, _latencies(settings))
        say("batches of 1")
        batch_1 = _closed(store, settings, 1)
        say(f"batches of {BATCH}")
        batch_64 = _closed(store, settings, BATCH)
        say(f"{settings.writers} writers")
        writers = batch_64 if settings.writers == BATCH else _closed(store, settings, settings.writers)
        offered = None
        if settings.offered_per_s:
            say(f"{settings.offered_per_s:.0f} records/s")
            offered = _open_loop(store, settings)
    return StoreReport(
        store=url.partition(":")[0],
        seconds=settings.seconds,
        added_latency_p50_ms=settings.latency_p50_ms,
        added_latency_p99_ms=settings.latency_p99_ms,
        batch_1=batch_1,
        batch_64=batch_64,
        batch_ratio=round(batch_64.records_per_second / batch_1.records_per_second, 1),
        writers_count=settings.writers,
        writers=writers,
        offered_per_second=settings.offered_per_s,
        offered=offered,
        machine=facts,
    )


@contextmanager
def _bench_store(url: str, nonce: str) -> Iterator[BlobStore]:
    """A store within the store, removed at the end."""
    with told():
        outer = open_store(url)
        inner = PrefixedStore(outer, f"bench/{nonce}/")
        try:
            yield inner
        finally:
            for name in list(list_names(inner)):
                inner.delete(name)
            outer.close()


def _latencies(settings: StoreSettings) -> Iterator[float]:
    """Seconds to add to each call: lognormal, through the two percentiles; the same at every run."""
    if not settings.latency_p50_ms:
        return itertools.repeat(0.0)
    sigma = math.log(settings.latency_p99_ms / settings.latency_p50_ms) / P99_SIGMAS
    rng = random.Random(1)
    return (settings.latency_p50_ms / 1000 * math.exp(rng.gauss(0.0, sigma)) for _ in itertools.count())


@dataclass(slots=True)
class _Counting:
    """Implements `storage.blob.BlobStore` over another: counts calls and bytes, and adds latency."""

    store: BlobStore
    latencies: Iterator[float]
    calls: int = 0
    bytes_written: int = 0

    def create(self, name: BlobName, data: bytes) -> Written:
        self._call(len(data))
        return self.store.create(name, data)

    def replace(self, name: BlobName, data: bytes, version: Version) -> Written:
        self._call(len(data))
        return self.store.replace(name, data, version)

    def get(self, name: BlobName) -> Blob | None:
        self._call(0)
        return self.store.get(name)

    def list(self, prefix: str, start: str = "", limit: int = LIST_LIMIT) -> Sequence[BlobName]:
        self._call(0)
        return self.store.list(prefix, start, limit)

    def delete(self, name: BlobName) -> None:
        self._call(0)
        self.store.delete(name)

    def close(self) -> None:
        self.store.close()

    def _call(self, size: int) -> None:
        self.calls += 1
        self.bytes_written += size
        latency_s = next(self.latencies)
        if latency_s:
            time.sleep(latency_s)


@dataclass(slots=True)
class _Writer:
    """The journal's one leader, driven by hand."""

    store: _Counting
    journal: Journal
    samples: list[bytes]
    commits: int = 0
    acks_s: list[float] = field(default_factory=list)

    def commit(self, count: int) -> None:
        """`count` records are in the journal, and acknowledged, when this returns."""
        offset = self.commits % SAMPLES
        records = [self.samples[(offset + index) % SAMPLES] for index in range(count)]
        self.drive(self.journal.append(records, time.monotonic()))
        self.commits += 1

    def drive(self, effects: list[JournalEffect]) -> None:
        waiting = list(effects)
        while waiting or not self.journal.can_append:
            if not waiting:
                waiting = self.journal.tick(time.monotonic())
                time.sleep(0 if waiting else 0.01)
                continue
            effect = waiting.pop(0)
            if isinstance(effect, LeadershipLost):
                raise StoreError("another writer uses the bench's names: it cannot measure")
            if not isinstance(effect, EntryLanded) and isinstance(effect, BlobEffect):
                waiting += self.journal.handle(perform(self.store, effect), time.monotonic())


def _leader(store: _Counting) -> _Writer:
    """A writer that leads; its next entry follows all earlier ones of the bench."""
    timings = JournalTimings(silence_s=0, jitter_s=0)
    journal = Journal(writer="bench", nonce=f"bench-{store.calls}", lineage_candidate="0-bench", timings=timings)
    writer = _Writer(store, journal, _samples())
    writer.drive(journal.start(time.monotonic()))
    writer.commit(1)
    writer.commits = 0
    return writer


def _samples() -> list[bytes]:
    rng = random.Random(2)
    return [
        encode_record(
            Placed(
                actor="s-1",
                at_ms=1_800_000_000_000 + rng.randrange(10**9),
                uid=f"1800000000000-0123456789.{rng.randrange(10**12)}",
                cluster=f"c-{rng.randrange(200)}",
                effective_policy="StopAndMove",
            )
        )
        for _ in range(SAMPLES)
    ]


def _closed(store: _Counting, settings: StoreSettings, writers: int) -> Rate:
    """So many writers, each with one record at a time: all that wait go into the next batch."""
    writer = _leader(store)
    calls, written, began_s = store.calls, store.bytes_written, time.monotonic()
    while (before_s := time.monotonic()) - began_s < settings.seconds:
        writer.commit(writers)
        writer.acks_s.append(time.monotonic() - before_s)
    return _rate(writer, writer.commits * writers, began_s, calls, written)


def _open_loop(store: _Counting, settings: StoreSettings) -> Rate:
    """Records come evenly, and are acknowledged late when the store is slow: their waiting counts."""
    writer = _leader(store)
    calls, written, began_s = store.calls, store.bytes_written, time.monotonic()
    per_s, total = settings.offered_per_s, int(settings.offered_per_s * settings.seconds)
    sent = 0
    while sent < total:
        due = min(total, int((time.monotonic() - began_s) * per_s))
        count = min(due - sent, RECORDS_PER_ENTRY_MAX)
        if count <= 0:
            time.sleep(1 / per_s)
            continue
        writer.commit(count)
        now_s = time.monotonic()
        writer.acks_s += [now_s - (began_s + number / per_s) for number in range(sent, sent + count)]
        sent += count
    return _rate(writer, total, began_s, calls, written)


def _rate(writer: _Writer, records: int, began_s: float, calls: int, written: int) -> Rate:
    wall_s = time.monotonic() - began_s
    return Rate(
        records_per_second=round(records / wall_s, 1),
        commits_per_second=round(writer.commits / wall_s, 1),
        records_per_commit=round(records / writer.commits, 1),
        ack_p50_ms=round(percentile(writer.acks_s, 0.5) * 1000, 2),
        ack_p99_ms=round(percentile(writer.acks_s, 0.99) * 1000, 2),
        store_calls_per_commit=round((writer.store.calls - calls) / writer.commits, 2),
        bytes_per_record=round((writer.store.bytes_written - written) / records, 1),
    )
