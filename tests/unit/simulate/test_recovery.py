"""The benchmark of a server's start, at small size: what it fills a store with is what a server then knows."""

from __future__ import annotations

from pathlib import Path

from federation.core.invariants import check
from federation.core.state import State
from federation.simulate.bench_recovery import measure
from federation.simulate.recovery_store import RecoverySettings, RecoveryStore
from storage.blob import BlobStore
from storage.open import open_store
from storage.verify import verify
from tests.unit.federation.pictures import facts
from tests.unit.federation.pump import Pump

SETTINGS = RecoverySettings(groups=60, pending=5, clusters=3, tail_records=1_500)


def filled(store: BlobStore) -> State:
    made = RecoveryStore(store, SETTINGS)
    made.write()
    return made.state


def test_a_server_that_starts_from_the_store_knows_what_was_written(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/journal.db")
    state = filled(store)
    check(state)
    pump = Pump(store=store)
    pump.run(1.0)
    assert facts(pump.state) == facts(state)
    store.close()


def test_the_store_is_whole(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/journal.db")
    filled(store)
    verified = verify(store)
    assert (verified.bad, verified.record_count) == (None, 1_500)
    store.close()


def test_the_start_is_measured_to_the_first_decision(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/journal.db"
    store = open_store(url)
    filled(store)
    store.close()
    figures = measure(url, SETTINGS)
    assert (figures.groups, figures.tail_records) == (60, 1_500)
    assert 0 <= figures.load_s <= figures.first_decision_s
    assert figures.first_decision_s > 0
    assert 0 <= figures.load_cpu_s <= figures.first_decision_cpu_s
    assert figures.memory_peak_mib > 0
