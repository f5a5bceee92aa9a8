"""Backups: consistent, proven while they are made, and continued; what is restored from them is another matter."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from storage.backends.memory import MemoryStore
from storage.backup import BACKUP_PREFIX, ForeignBackupError, back_up, read_manifest, view
from storage.blob import LIST_LIMIT, Blob, BlobName
from storage.entry import digest, entry_name
from storage.errors import CorruptError, UnavailableError, UnsupportedFormatError
from storage.finished import part_name
from storage.journal import Journal
from storage.reading import list_names, read_entries
from storage.root import FORMAT, Root, SnapshotPointer
from storage.snapshot import Index, ShardRef, encode_index, encode_shard, index_name, shard_name
from storage.verify import verify
from tests.unit.storage.bench import Bench, Server

AT_MS = 1_800_000_000_000


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def leader(bench: Bench) -> Server:
    """Of a journal with a TERM entry and three batches."""
    leader = bench.leader("a")
    for number in range(3):
        leader.append(b"%d" % number)
    return leader


def records(store: MemoryStore) -> list[bytes]:
    return [record for entry in read_entries(view(store)) for record in entry.records]


def test_a_backup_holds_every_entry_and_says_up_to_where(bench: Bench, leader: Server) -> None:
    place = MemoryStore()
    done = back_up(bench.store, place, made_ms=AT_MS)
    assert done.copied == 4
    assert (done.manifest.first_seq, done.manifest.last_seq, done.manifest.entries) == (1, 4, 4)
    assert (done.manifest.lineage, done.manifest.made_ms) == ("from-a", AT_MS)
    assert read_manifest(place) == done.manifest
    assert records(place) == [b"0", b"1", b"2"]


def test_a_backup_verifies_like_the_store_it_was_made_of(bench: Bench, leader: Server) -> None:
    place = MemoryStore()
    done = back_up(bench.store, place, made_ms=AT_MS)
    assert verify(view(place)) == verify(bench.store)
    assert done.manifest.head_digest == verify(bench.store).head_digest


def test_a_second_backup_copies_only_what_is_new(bench: Bench, leader: Server) -> None:
    place = MemoryStore()
    back_up(bench.store, place, made_ms=AT_MS)
    leader.append(b"3")
    done = back_up(bench.store, place, made_ms=AT_MS + 1)
    assert (done.copied, done.manifest.last_seq, done.manifest.entries) == (1, 5, 5)
    assert records(place) == [b"0", b"1", b"2", b"3"]


def test_no_server_takes_a_backup_for_a_journal_of_its_own(bench: Bench, leader: Server) -> None:
    place = MemoryStore()
    back_up(bench.store, place, made_ms=AT_MS)
    assert {name.startswith(BACKUP_PREFIX) for name in list_names(place)} == {True}
    there = Bench(store=place)
    assert there.leader("b").journal.lineage == "from-b"


def test_a_backup_of_another_lineage_is_not_continued(bench: Bench, leader: Server) -> None:
    place = MemoryStore()
    other = Bench()
    other.leader("b").append(b"x")
    back_up(other.store, place, made_ms=AT_MS)
    with pytest.raises(ForeignBackupError):
        back_up(bench.store, place, made_ms=AT_MS)
    assert records(place) == [b"x"]


def test_a_damaged_journal_ends_the_backup_and_leaves_the_one_before_whole(bench: Bench, leader: Server) -> None:
    place = MemoryStore()
    before = back_up(bench.store, place, made_ms=AT_MS).manifest
    leader.append(b"3")
    leader.append(b"4")
    blob = bench.store.get(entry_name(5))
    assert blob is not None
    bench.store.replace(entry_name(5), blob.data[:-1], blob.version)
    with pytest.raises(CorruptError) as found:
        back_up(bench.store, place, made_ms=AT_MS + 1)
    assert found.value.seq == 5
    assert read_manifest(place) == before
    assert verify(view(place)).bad is None


def test_a_journal_that_was_rewritten_since_the_last_backup_is_found_out(bench: Bench, leader: Server) -> None:
    place = MemoryStore()
    back_up(bench.store, place, made_ms=AT_MS)
    forged = Bench()
    forged_leader = forged.leader("a")
    for number in range(3):
        forged_leader.append(b"forged %d" % number)
    with pytest.raises(CorruptError, match="differs"):
        back_up(forged.store, place, made_ms=AT_MS)


def test_a_snapshot_and_the_journal_after_it_are_a_backup(bench: Bench, leader: Server) -> None:
    place = MemoryStore()
    tail = digest(bench.first_bytes[entry_name(2)])
    part = shard_name(2, "head-00000")
    shard = encode_shard(part, b"payload")
    index = encode_index(Index("from-a", 2, 1, tail, (ShardRef(part, digest(shard)),)))
    bench.store.create(part, shard)
    bench.store.create(index_name(2), index)
    pointer = SnapshotPointer(seq=2, term=1, digest=tail, index_digest=digest(index))
    bench.set_root(Root(format=FORMAT, lineage="from-a", nonce="n", snapshot=pointer, gc_floor=2))
    for seq in (1, 2):
        bench.store.delete(entry_name(seq))
    done = back_up(bench.store, place, made_ms=AT_MS)
    assert (done.manifest.first_seq, done.manifest.last_seq) == (3, 4)
    assert verify(view(place)) == verify(bench.store)
    assert verify(view(place)).shard_count == 1


class Moving(MemoryStore):
    """Takes a snapshot whenever somebody lists the snapshots, `times` times."""

    def __init__(self, bench: Bench, times: int) -> None:
        super().__init__()
        self.bench, self.times = bench, times

    def get(self, name: BlobName):  # type: ignore[no-untyped-def]
        return self.bench.store.get(name)

    def list(self, prefix: str, start: str = "", limit: int = LIST_LIMIT) -> Sequence[BlobName]:
        if prefix == "snapshot/" and self.times:
            self.times -= 1
            pointer = SnapshotPointer(seq=2, term=1, digest=bytes([self.times]) * 32)
            self.bench.set_root(Root(format=FORMAT, lineage="from-a", nonce=str(self.times), snapshot=pointer))
        return self.bench.store.list(prefix, start, limit)


@pytest.mark.parametrize("times", [1, 4])
def test_a_backup_begins_again_when_a_snapshot_was_taken_meanwhile(bench: Bench, leader: Server, times: int) -> None:
    assert back_up(Moving(bench, times), MemoryStore(), made_ms=AT_MS).manifest.last_seq == 4


def test_a_backup_that_never_comes_to_an_end_is_given_up(bench: Bench, leader: Server) -> None:
    place = MemoryStore()
    with pytest.raises(UnavailableError, match="changed during each of 5 attempts"):
        back_up(Moving(bench, 5), place, made_ms=AT_MS)
    assert read_manifest(place) is None


def test_a_manifest_of_a_later_version_is_refused() -> None:
    place = MemoryStore()
    place.create(
        BlobName(BACKUP_PREFIX + "MANIFEST"),
        b'{"format":2,"lineage":"l","made_ms":1,"first_seq":1,"last_seq":1,"head_digest":"","entries":1}',
    )
    with pytest.raises(UnsupportedFormatError):
        read_manifest(place)


def test_an_empty_journal_makes_an_empty_backup(bench: Bench) -> None:
    server = bench.server("a")
    assert isinstance(server.journal, Journal)
    bench.set_root(Root(format=FORMAT, lineage="from-a", nonce="n"))
    done = back_up(bench.store, MemoryStore(), made_ms=AT_MS)
    assert (done.manifest.first_seq, done.manifest.last_seq, done.manifest.entries) == (1, 0, 0)


class Archiving(MemoryStore):
    """A store whose server archives groups while its journal is copied."""

    def get(self, name: BlobName) -> Blob | None:
        if name == entry_name(2):
            self.create(part_name(1), b"groups that ended")
        return super().get(name)


def test_what_is_archived_while_the_journal_is_copied_is_in_the_backup(bench: Bench, leader: Server) -> None:
    """Its record may be among the entries, and then the groups are in the part alone."""
    source, place = Archiving(), MemoryStore()
    for name in list_names(bench.store):
        blob = bench.store.get(name)
        assert blob is not None
        source.create(name, blob.data)
    back_up(source, place, made_ms=AT_MS)
    assert view(place).get(part_name(1)) is not None
