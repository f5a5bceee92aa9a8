"""Reading ahead: each entry is asked for once, some before they are wanted, and an absent one always anew."""

from __future__ import annotations

import threading

import pytest

from storage import ahead
from storage.ahead import AHEAD_MAX, ReadingAhead
from storage.archive import archived_name, seq_of_archived
from storage.backends.memory import MemoryStore
from storage.blob import Blob, BlobName
from storage.entry import entry_name
from storage.errors import UnavailableError
from storage.open import open_for_server, watchable


class Counting(MemoryStore):
    """Counts how often each name is read, and fails once for those that are told to."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[BlobName] = []
        self.fails: set[BlobName] = set()
        self._counting = threading.Lock()

    def get(self, name: BlobName) -> Blob | None:
        with self._counting:
            self.reads.append(name)
            if name in self.fails:
                self.fails.discard(name)
                raise UnavailableError("read", name, "trouble")
        return super().get(name)


def journal(entries: int, *, name_of: object = entry_name) -> Counting:
    assert callable(name_of)
    store = Counting()
    for seq in range(1, entries + 1):
        store.create(name_of(seq), b"entry %d" % seq)
    return store


def read(reader: ReadingAhead, first: int, last: int) -> list[bytes]:
    found = [reader.get(entry_name(seq)) for seq in range(first, last + 1)]
    return [blob.data for blob in found if blob is not None]


def test_a_run_of_entries_is_read_once_each_and_in_order() -> None:
    store = journal(100)
    reader = ReadingAhead(store)
    assert read(reader, 1, 100) == [b"entry %d" % seq for seq in range(1, 101)]
    reader.close()
    assert [store.reads.count(entry_name(seq)) for seq in range(1, 101)] == [1] * 100


@pytest.mark.parametrize(("limit", "highest"), [(AHEAD_MAX, 40 + AHEAD_MAX), (4, 44)])
def test_at_most_so_many_entries_are_asked_for_ahead(limit: int, highest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "AHEAD_MAX", limit)
    store = journal(100)
    reader = ReadingAhead(store)
    read(reader, 1, 40)
    asked = reader._journal.asked
    assert sorted(asked) == list(range(41, highest + 1))
    reader.close()
    assert entry_name(highest + 1) not in store.reads


def test_who_reads_one_entry_pays_for_one() -> None:
    store = journal(100)
    reader = ReadingAhead(store)
    reader.get(entry_name(7))
    reader.get(BlobName("root"))
    reader.close()
    assert store.reads == [entry_name(7), BlobName("root")]


def test_that_nothing_is_there_is_asked_anew_when_it_is_wanted() -> None:
    store = journal(3)
    reader = ReadingAhead(store)
    assert len(read(reader, 1, 3)) == 3
    for future in list(reader._journal.asked.values()):
        future.result()
    store.create(entry_name(4), b"written since")
    assert read(reader, 4, 4) == [b"written since"]
    assert read(reader, 5, 5) == []
    assert reader._journal.asked == {}
    store.create(entry_name(5), b"later")
    assert read(reader, 5, 5) == [b"later"]
    reader.close()


def test_what_could_not_be_read_ahead_is_read_again() -> None:
    store = journal(20)
    store.fails = {entry_name(seq) for seq in range(3, 20)}
    reader = ReadingAhead(store)
    found = []
    for seq in range(1, 21):
        try:
            found += read(reader, seq, seq)
        except UnavailableError:
            found += read(reader, seq, seq)
    assert found == [b"entry %d" % seq for seq in range(1, 21)]
    reader.close()


def test_the_archive_is_read_ahead_as_well() -> None:
    store = journal(30, name_of=archived_name)
    reader = ReadingAhead(store)
    for seq in range(1, 31):
        assert reader.get(archived_name(seq)) is not None
    reader.close()
    assert [store.reads.count(archived_name(seq)) for seq in range(1, 31)] == [1] * 30
    assert [seq_of_archived(name) for name in (archived_name(9), entry_name(9), "archive/x")] == [9, None, None]


def test_the_store_behind_is_found_through_all_that_stands_before_it() -> None:
    store = open_for_server("s3://nowhere/x")
    assert isinstance(store, ReadingAhead)
    assert watchable(store) is None
    store.close()
