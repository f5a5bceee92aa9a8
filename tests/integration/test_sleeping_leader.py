"""A leader is paused until the others have decided, taken snapshots and deleted what follows its last entry."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import muster
from federation.cli.local import commands
from federation.cli.local.commands import NATS
from federation.cli.local.fleet import LocalFleet
from federation.core.records import Placed, decode_records
from muster.retry import RetryRule
from placement.model import Position
from storage.blob import BlobStore
from storage.entry import entry_name
from storage.open import open_store
from storage.reading import entry_bounds, read_entries, read_root
from storage.verify import verify
from tests.integration.fleets import leader, until
from tests.integration.server_process import gang

SOON = Path(__file__).with_name("soon")
FREE_NUMBERS = 20  # behind its last entry: a sleeper that did not look at the floor would append there for seconds


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[LocalFleet]:
    """Its servers collect soon: see `soon/sitecustomize.py`."""
    store = f"file://{tmp_path}/store"
    found = LocalFleet.make(tmp_path, clusters=["c-1"], nodes=["4xA100-80:8"], preset="fast", replicas=3, store=store)
    found.environment = {**os.environ, "PYTHONPATH": str(SOON)}
    try:
        found.up()
        yield found
    finally:
        found.down()


@pytest.fixture
def store(fleet: LocalFleet) -> Iterator[BlobStore]:
    found = open_store(fleet.state.store)
    yield found
    found.close()


def client_of(fleet: LocalFleet, *roles: str) -> muster.Client:
    urls = ",".join(commands.url(fleet.state, role) for role in roles)
    return muster.Client(urls, fleet.token, retry=RetryRule(60))


def free_after(store: BlobStore, seq: int) -> int:
    """How many of the next numbers nobody holds."""
    return next(
        count for count in range(FREE_NUMBERS + 1) if count == FREE_NUMBERS or store.get(entry_name(seq + 1 + count))
    )


def placed(store: BlobStore) -> Counter[str]:
    """How often each group was placed, by uid: the whole journal says it, what was collected included."""
    found: Counter[str] = Counter()
    for entry in read_entries(store):
        for record in decode_records(() if entry.void else entry.records, Position(entry.first_position)):
            found.update([record.uid] if isinstance(record, Placed) else [])
    return found


def test_what_it_appends_where_entries_were_deleted_counts_for_nobody(fleet: LocalFleet, store: BlobStore) -> None:
    led = leader(fleet)
    others = [role for role in fleet.servers if role != led]
    with client_of(fleet, led) as client:
        before = client.submit(gang("before", pods=1, gpus=1), request_id="before").uid
    fleet.kill(NATS)  # nobody tells it, when it wakes up, that others have gone on
    fleet.signal(led, signal.SIGSTOP)
    try:
        newest = entry_bounds(store)[1]
        with client_of(fleet, *others) as client:
            meanwhile = [
                client.submit(gang(f"meanwhile-{n}", pods=1, gpus=1), request_id=f"m-{n}").uid for n in range(16)
            ]
        until(
            lambda: read_root(store).gc_floor > newest + FREE_NUMBERS,
            "the others do not collect past the sleeper's last entry",
        )
        until(lambda: free_after(store, newest) >= FREE_NUMBERS, "what follows it is not deleted")
    finally:
        fleet.signal(led, signal.SIGCONT)
    with client_of(fleet, led) as client:
        awake = client.submit(gang("awake", pods=1, gpus=1), request_id="awake").uid
        until(lambda: client.readiness()["role"] == "following", "it believes that it leads")
    until(lambda: placed(store)[awake] == 1, "what it was given is not placed")
    assert placed(store) == dict.fromkeys((before, *meanwhile, awake), 1)
    assert leader(fleet) in others
    assert verify(store).bad is None
