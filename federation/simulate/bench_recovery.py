"""How long a server takes from its start to its first decision, with many groups in a snapshot and a minute of journal.

The store is filled by this process, the start is measured in another one, so that its memory is that of a server.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from federation.core.events import (
    EntryFolded,
    PersonAsked,
    ReplicaEffect,
    ReportArrived,
    Started,
    StateLoaded,
    SubmitGroup,
)
from federation.core.records import Placed
from federation.core.replica import Replica, ReplicaConfig
from federation.protocol import collector
from federation.protocol.messages import NodeRows, Report, Stamp
from federation.simulate.machine import Machine, cpu_wait_s, machine, memory_peak_mib
from federation.simulate.recovery_store import LINEAGE, RecoverySettings, RecoveryStore
from federation.simulate.server_clock import ServerClock
from placement.model import PodGroup, Role
from storage.blob import BlobName, BlobStore
from storage.election import JournalTimings
from storage.open import open_store
from storage.snapshot import SNAPSHOT_PREFIX

NODES: Final = 5_000  # of the one cluster that reports first: the first decision needs no more
GPUS_PER_NODE: Final = 8
STORE_LIMIT_S: Final = 600.0


class RecoveryFigures(msgspec.Struct, frozen=True, kw_only=True):
    """`*_s` are seconds of the server itself: it has this core and this disk, and waits for nobody else."""

    groups: int
    tail_records: int
    snapshot_mib: int
    load_s: float
    """From the start until the snapshot is the state."""
    replay_s: float
    """And then until the journal is read to its end."""
    replay_records_per_s: float
    first_decision_s: float
    """From the start, with the first cluster's report at hand."""
    load_cpu_s: float
    """Of CPU: what is left of the times above when others do not have the cores."""
    replay_cpu_s: float
    first_decision_cpu_s: float
    cpu_wait_share: float  # of that time others had the cores
    memory_peak_mib: int


class RecoveryReport(msgspec.Struct, frozen=True, kw_only=True):
    figures: RecoveryFigures
    machine: Machine


def bench_recovery(settings: RecoverySettings, *, url: str = "") -> RecoveryReport:
    """Fill the store at `url` (a SQLite file of its own by default) and start a server from it."""
    facts = machine()
    with tempfile.TemporaryDirectory(prefix="muster-recovery-") as folder:
        url = url or f"sqlite:///{Path(folder) / 'journal.db'}"
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            pool.apply(fill, (url, settings))
        with context.Pool(1) as pool:
            figures = pool.apply(measure_calmly, (url, settings))
    return RecoveryReport(figures=figures, machine=facts)


def fill(url: str, settings: RecoverySettings) -> None:
    store = open_store(url)
    try:
        RecoveryStore(store, settings).write()
    finally:
        store.close()


class Elapsed(NamedTuple):
    """Since the start: by the clock, and of CPU."""

    wall_s: float
    cpu_s: float


class _Start:
    """One server's start, and what it came to."""

    def __init__(self) -> None:
        self.loaded = self.caught_up = self.placed = Elapsed(0.0, 0.0)
        self._began = Elapsed(time.perf_counter(), time.process_time())

    def elapsed(self) -> Elapsed:
        return Elapsed(time.perf_counter() - self._began.wall_s, time.process_time() - self._began.cpu_s)

    def on_effect(self, effect: ReplicaEffect) -> None:
        match effect:
            case StateLoaded():
                self.loaded = self.elapsed()
            case EntryFolded() if self.caught_up.wall_s and not self.placed.wall_s:
                if any(isinstance(record, Placed) for record in effect.records):
                    self.placed = self.elapsed()
            case _:
                pass


def measure_calmly(url: str, settings: RecoverySettings) -> RecoveryFigures:
    """As a server's process does it."""
    collector.calm()
    collector.hold()
    return measure(url, settings)


def measure(url: str, settings: RecoverySettings) -> RecoveryFigures:
    """Start a server from the store, in this process."""
    waited_s, start = cpu_wait_s(), _Start()
    store = open_store(url)
    timings = JournalTimings(silence_s=0.0, jitter_s=0.0)  # whoever led is gone, and everybody knows
    replica = Replica(ReplicaConfig(name="s-1", seed="bench", journal_timings=timings))
    clock = ServerClock(replica, store, start.on_effect)
    clock.feed(Started())
    clock.run(lambda: replica.caught_up, limit_s=STORE_LIMIT_S)
    collector.settle()
    start.caught_up = start.elapsed()
    clock.run(lambda: replica.leading, limit_s=STORE_LIMIT_S)
    clock.feed(ReportArrived("c000", _report(replica.state.head)))
    clock.feed(PersonAsked(1, SubmitGroup(_group(), "first", "sara")))
    clock.run(lambda: start.placed.wall_s > 0, limit_s=STORE_LIMIT_S)
    snapshot_bytes = _snapshot_bytes(store)
    store.close()
    loaded, caught_up, placed = start.loaded, start.caught_up, start.placed
    replay_s = caught_up.wall_s - loaded.wall_s
    return RecoveryFigures(
        groups=settings.groups,
        tail_records=settings.tail_records,
        snapshot_mib=snapshot_bytes // 2**20,
        load_s=round(loaded.wall_s, 2),
        replay_s=round(replay_s, 2),
        replay_records_per_s=round(settings.tail_records / replay_s, 0),
        first_decision_s=round(placed.wall_s, 2),
        load_cpu_s=round(loaded.cpu_s, 2),
        replay_cpu_s=round(caught_up.cpu_s - loaded.cpu_s, 2),
        first_decision_cpu_s=round(placed.cpu_s, 2),
        cpu_wait_share=round((cpu_wait_s() - waited_s) / placed.wall_s, 3),
        memory_peak_mib=memory_peak_mib(),
    )


def _snapshot_bytes(store: BlobStore) -> int:
    names = [name for page in _pages(store) for name in page]
    return sum(len(blob.data) for name in names if (blob := store.get(name)) is not None)


def _pages(store: BlobStore) -> Iterator[Sequence[BlobName]]:
    start = ""
    while page := store.list(SNAPSHOT_PREFIX, start):
        yield page
        start = page[-1]


def _report(applied: int) -> Report:
    """All nodes of the first cluster, nearly full."""
    return Report(
        cluster="c000",
        lineage=LINEAGE,
        stamp=Stamp(1, 1),
        follows=None,
        applied=applied,
        epoch=1,
        live=True,
        fence_strength="guard",
        tokens=None,
        rows=NodeRows(
            name=tuple(f"n{number:04}" for number in range(NODES)),
            product=("H100",) * NODES,
            gpus=(GPUS_PER_NODE,) * NODES,
            gpus_free=tuple(GPUS_PER_NODE if number % 50 == 0 else 0 for number in range(NODES)),
            cpu_milli=(64_000,) * NODES,
            cpu_milli_total=(64_000,) * NODES,
            memory_mib=(1_000_000,) * NODES,
            memory_mib_total=(1_000_000,) * NODES,
        ),
    )


def _group() -> PodGroup:
    container = {"name": "main", "image": "train", "resources": {"limits": {"nvidia.com/gpu": GPUS_PER_NODE}}}
    return PodGroup(name="first", roles=(Role(count=8, template={"spec": {"containers": [container]}}),))
