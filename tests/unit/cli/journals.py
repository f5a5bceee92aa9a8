"""A small journal of real records, equal at every run, in any store: what `muster store` is shown."""

from __future__ import annotations

from collections.abc import Sequence

from federation.core.admission import admit
from federation.core.events import SubmitGroup
from federation.core.records import (
    AnyRecord,
    Bound,
    ClusterAdmitted,
    ClusterFenced,
    ClusterJoined,
    Placed,
    Submitted,
    encode_record,
)
from federation.core.state import State
from storage.blob import BlobEffect, BlobStore, perform
from storage.journal import Journal, JournalEffect
from storage.open import open_store
from storage.root import FORMAT
from tests.unit.federation.pump import pod_group

AT_MS = 1_800_000_000_000
LINEAGE = "1800000000000-abc"
UID = f"{LINEAGE}.16385"
TOKEN = f"{LINEAGE}.24576"


def submitted(name: str) -> Submitted:
    """What the server records for a small gang of sara's."""
    records = admit(State(LINEAGE), SubmitGroup(pod_group(name), f"submit-{name}", "sara"), at_ms=AT_MS + 1_000)
    assert isinstance(records, tuple)
    (record,) = records
    assert isinstance(record, Submitted)
    return record


BATCHES: list[list[AnyRecord]] = [
    [
        ClusterJoined(actor="operator", at_ms=AT_MS, cluster="c-1"),
        submitted("train"),
        ClusterFenced(actor="muster:failover", at_ms=AT_MS + 1_000, cluster="c-1", epoch=1),
        ClusterAdmitted(actor="muster:failover", at_ms=AT_MS + 1_000, cluster="c-1", epoch=1),
    ],
    [Placed(actor="s-1", at_ms=AT_MS + 2_000, uid=UID, cluster="c-1", effective_policy="StopAndMove")],
    [Bound(actor="agent:c-1", at_ms=AT_MS + 3_000, uid=UID, token=TOKEN, cluster="c-1", pods=2)],
]


def write_journal(
    store: BlobStore, batches: Sequence[Sequence[AnyRecord]] = BATCHES, *, format_max: int = FORMAT
) -> None:
    """A TERM entry and one entry per batch, written by `s-1`."""
    journal = Journal(writer="s-1", nonce="boot-1", lineage_candidate=LINEAGE, format_max=format_max)
    _drive(store, journal, journal.start(0.0))
    for batch in batches:
        _drive(store, journal, journal.append([encode_record(record) for record in batch], 0.0))


def journal_at(url: str) -> str:
    """The address of a store with the journal in it."""
    store = open_store(url)
    write_journal(store)
    store.close()
    return url


def _drive(store: BlobStore, journal: Journal, effects: list[JournalEffect]) -> None:
    waiting = list(effects)
    while waiting:
        effect = waiting.pop(0)
        if isinstance(effect, BlobEffect):
            waiting += journal.handle(perform(store, effect), 0.0)
