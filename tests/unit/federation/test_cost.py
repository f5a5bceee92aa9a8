"""What a start costs, counted: calls of our own functions per group loaded and per record folded.

A start at full size is a loop over half a million of them; a call more in it is a tenth of a second more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

import pytest

from federation.core.load import Loader
from federation.core.records import decode_records
from federation.core.state import State
from federation.simulate.recovery_store import LINEAGE, RecoverySettings, RecoveryStore
from placement.model import Position
from storage.backends.memory import MemoryStore
from storage.blob import BlobName, BlobStore
from storage.entry import decode_entry, entry_name, position
from storage.root import ROOT_NAME, decode_root
from storage.snapshot import decode_index, decode_shard, index_name

SETTINGS = RecoverySettings(groups=6_000, pending=300, clusters=4, tail_records=6_000)


def calls(work: Callable[[], None]) -> int:
    """How many Python functions `work` enters."""
    count = 0

    def on_event(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        del frame, argument
        count += event == "call"

    sys.setprofile(on_event)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def filled() -> BlobStore:
    store = MemoryStore()
    RecoveryStore(store, SETTINGS).write()
    return store


def load(store: BlobStore, loaded: list[State]) -> None:
    root = store.get(ROOT_NAME)
    assert root is not None
    pointer = decode_root(root.data).snapshot
    assert pointer is not None
    index = store.get(index_name(pointer.seq))
    assert index is not None
    loader = Loader(LINEAGE)
    for ref in decode_index(index.data, pointer, LINEAGE).shards:
        shard = store.get(BlobName(ref.name))
        assert shard is not None
        loader.take(ref.name, decode_shard(BlobName(ref.name), shard.data, ref.digest))
    loaded.append(loader.finish("snapshot"))


def replay(store: BlobStore, state: State) -> None:
    seq = state.head // position(1) + 1
    while (blob := store.get(entry_name(seq))) is not None:
        first = Position(position(seq))
        entry = decode_entry(blob.data, seq)
        for index, record in enumerate(decode_records(entry.records, first)):
            state.apply(Position(first + index), record, entry.records[index])
        seq += 1


@pytest.mark.long
def test_a_group_is_loaded_with_at_most_eleven_calls() -> None:
    store, loaded = filled(), list[State]()
    assert calls(lambda: load(store, loaded)) <= 11 * (SETTINGS.groups + SETTINGS.pending)
    assert len(loaded[0].groups) == SETTINGS.groups + SETTINGS.pending


@pytest.mark.long
def test_a_record_is_folded_with_at_most_eleven_calls() -> None:
    store, loaded = filled(), list[State]()
    load(store, loaded)
    assert calls(lambda: replay(store, loaded[0])) <= 11 * SETTINGS.tail_records
    assert len(loaded[0].finished) == SETTINGS.tail_records // 5


@pytest.mark.long
def test_a_call_more_for_each_group_or_record_is_noticed() -> None:
    """The counts above can fail: they count what they should, and are within one of it."""
    store, loaded = filled(), list[State]()
    assert calls(lambda: load(store, loaded)) > 10 * (SETTINGS.groups + SETTINGS.pending)
    assert calls(lambda: replay(store, loaded[0])) > 10 * SETTINGS.tail_records
