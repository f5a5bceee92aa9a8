"""Reels of the tape: what their names say, what a damaged one costs, and how long they are kept."""

from __future__ import annotations

import itertools

import pytest

from storage import tape as tape_module
from storage.backends.memory import MemoryStore
from storage.blob import BlobCreate, BlobEffect, BlobFailed, BlobName, BlobStore, OpId, perform
from storage.errors import CorruptError, LimitError, UnsupportedFormatError
from storage.frame import seal
from storage.tape import KEPT_MS, STATE_EVERY_MS, ReelName, TapeCollector, decode_reel, encode_reel, list_reels

NOW_MS = 1_764_093_600_000
NAME = ReelName(seq=12, wall_ms=NOW_MS, term=3, number=4, kind="base")
LINEAGE = "1764093600000-tape"
RAW = b"what the engine saw " * 100


def reel(number: int, *, age_ms: int) -> ReelName:
    return ReelName(seq=number, wall_ms=NOW_MS - age_ms, term=1, number=number, kind="base" if number == 1 else "more")


def recorded(*names: ReelName) -> MemoryStore:
    store = MemoryStore()
    for name in names:
        store.create(name.blob, encode_reel(name, LINEAGE, RAW))
    return store


def collect(store: BlobStore, before_ms: int = NOW_MS - KEPT_MS) -> TapeCollector:
    """A whole collection, answers in the order of the questions."""
    ops = itertools.count(1)
    collector = TapeCollector(lambda: OpId(next(ops)), before_ms=before_ms)
    effects: list[BlobEffect] = collector.start()
    while effects:
        effects += collector.handle(perform(store, effects.pop(0)))
    assert collector.done
    return collector


def test_a_name_says_after_which_entry_when_whose_and_whether_replay_can_begin_there() -> None:
    assert NAME.blob == "tape/0000000000000012-1764093600000-00000003-00000004-base"
    assert ReelName.of(NAME.blob) == NAME


def test_names_sort_in_the_order_of_the_journal() -> None:
    later = NAME._replace(seq=100, wall_ms=NOW_MS - 5, number=1)
    assert sorted([later.blob, NAME.blob]) == [NAME.blob, later.blob]


@pytest.mark.parametrize("name", ["tape/", "tape/12-1-1-1-base", f"{NAME.blob}x", "journal/00/0000000000000012"])
def test_what_is_no_reel_has_no_reel_name(name: str) -> None:
    assert ReelName.of(name) is None


def test_what_was_written_is_read() -> None:
    assert decode_reel(NAME, encode_reel(NAME, LINEAGE, RAW)) == (LINEAGE, RAW)


@pytest.mark.parametrize("at", [0, 5, 20, -1])
def test_a_flipped_bit_is_noticed(at: int) -> None:
    data = bytearray(encode_reel(NAME, LINEAGE, RAW))
    data[at] ^= 1
    with pytest.raises(CorruptError, match=NAME.blob):
        decode_reel(NAME, bytes(data))


def test_a_reel_under_another_name_is_noticed() -> None:
    with pytest.raises(CorruptError, match="it says that it is"):
        decode_reel(NAME._replace(number=5), encode_reel(NAME, LINEAGE, RAW))


def test_a_reel_of_a_later_version_is_refused() -> None:
    head = tape_module._encoder.encode({"name": NAME.blob, "lineage": LINEAGE, "schema_version": 2})
    with pytest.raises(UnsupportedFormatError, match="tape 2; this version reads tape 1 and older"):
        decode_reel(NAME, seal(b"MJT\n", head, RAW))


def test_a_reel_is_at_most_as_large_as_every_store_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    small = RAW[:500]  # stored as it is
    monkeypatch.setattr(tape_module, "REEL_PACKED_BYTES_MAX", 500)
    encode_reel(NAME, LINEAGE, small)
    with pytest.raises(LimitError, match="packed bytes per reel is 500, got 501"):
        encode_reel(NAME, LINEAGE, small + b"!")


def test_a_reel_unpacked_is_at_most_what_readers_accept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tape_module, "REEL_RAW_BYTES_MAX", 2_000)
    encode_reel(NAME, LINEAGE, RAW)
    with pytest.raises(LimitError, match="bytes per reel is 2000, got 2001"):
        encode_reel(NAME, LINEAGE, RAW + b"!")


def test_reels_are_kept_for_24_hours() -> None:
    store = recorded(reel(1, age_ms=KEPT_MS + 2), reel(2, age_ms=KEPT_MS + 1), reel(3, age_ms=KEPT_MS))
    assert collect(store).deleted_count == 2
    assert [name.number for name in list_reels(store)] == [3]


def test_a_state_is_kept_an_hour_longer_since_cycles_stand_on_it() -> None:
    old, older = (
        reel(number, age_ms=KEPT_MS + STATE_EVERY_MS + more)._replace(kind="state") for number, more in ((2, 0), (1, 1))
    )
    store = recorded(older, old, reel(3, age_ms=KEPT_MS + 1), reel(4, age_ms=0))
    assert collect(store).deleted_count == 2
    assert [name.number for name in list_reels(store)] == [2, 4]


def test_collection_goes_on_over_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tape_module, "LIST_LIMIT", 10)
    store = recorded(*(reel(number, age_ms=KEPT_MS + 100 - number) for number in range(1, 131)))
    ten = Paged(store)
    assert collect(ten).deleted_count == 99
    assert [name.number for name in list_reels(store)] == list(range(100, 131))


class Paged(MemoryStore):
    """The same blobs, ten names a page."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__()
        self._store = store

    def list(self, prefix: str, start: str = "", limit: int = 10) -> list[BlobName]:
        return list(self._store.list(prefix, start, min(limit, 10)))

    def delete(self, name: BlobName) -> None:
        self._store.delete(name)


def test_other_blobs_under_the_prefix_are_left_alone() -> None:
    store = recorded(reel(1, age_ms=KEPT_MS + 1))
    store.create(BlobName("tape/0-later-version"), b"?")
    collect(store)
    assert list(store.list("tape/")) == ["tape/0-later-version"]


def test_a_collection_ends_where_the_store_does_not_answer() -> None:
    store = recorded(reel(1, age_ms=KEPT_MS + 1), reel(2, age_ms=KEPT_MS + 1))
    ops = itertools.count(1)
    collector = TapeCollector(lambda: OpId(next(ops)), before_ms=NOW_MS - KEPT_MS)
    (listing,) = collector.start()
    first, second = collector.handle(perform(store, listing))
    assert collector.handle(BlobFailed(first.op, "timed out")) == []
    assert not collector.done
    assert collector.handle(perform(store, second)) == []
    assert collector.done
    assert not isinstance(first, BlobCreate)
