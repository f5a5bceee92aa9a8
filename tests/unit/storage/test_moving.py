"""A journal moved to another store: interrupted anywhere, with a leader still running, it stays one journal."""

from __future__ import annotations

import pytest

from storage.archive import archived_name
from storage.backends.memory import MemoryStore
from storage.blob import Blob, BlobName, Outcome, Version, Written
from storage.entry import digest, entry_name
from storage.errors import StoreMovedError, UnavailableError
from storage.journal import LeadershipLost
from storage.moving import TOMBSTONE, OccupiedError, move
from storage.reading import list_names, read_entries, read_root
from storage.root import FORMAT, ROOT_NAME, Root, SnapshotPointer
from storage.snapshot import Index, encode_index, index_name
from storage.verify import verify
from tests.unit.storage.bench import Bench, Server

URL = "s3://bucket/new"
LEASE = BlobName("leases/from-a/c-1")


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.store.create(LEASE, b"lease")
    bench.store.create(BlobName("archive/00/0000000000000001"), b"old")
    bench.store.create(BlobName("servers/s-1"), b"address")
    return bench


@pytest.fixture
def leader(bench: Bench) -> Server:
    leader = bench.leader("a")
    for number in range(3):
        leader.append(b"%d" % number)
    return leader


def records(store: MemoryStore) -> list[bytes]:
    return [record for entry in read_entries(store) for record in entry.records]


def test_all_of_it_goes_on_in_the_new_store(bench: Bench, leader: Server) -> None:
    target = MemoryStore()
    before = verify(bench.store)
    moved = move(bench.store, target, target_url=URL, nonce="n")
    assert verify(target) == before
    assert (moved.lineage, moved.first_seq, moved.last_seq, moved.leases) == ("from-a", 1, 4, 1)
    assert moved.head_digest == before.head_digest
    lease, archived = target.get(LEASE), target.get(BlobName("archive/00/0000000000000001"))
    assert (lease and lease.data, archived and archived.data) == (b"lease", b"old")
    assert target.get(BlobName("servers/s-1")) is None


def test_what_was_archived_and_what_still_waits_for_it_are_moved_too(bench: Bench, leader: Server) -> None:
    for name in list(list_names(bench.store, "archive/")):
        bench.store.delete(name)
    first, tail = bench.first_bytes[entry_name(1)], digest(bench.first_bytes[entry_name(2)])
    bench.store.create(archived_name(1), first)
    bench.store.delete(entry_name(1))
    index = encode_index(Index("from-a", 2, 1, tail, ()))
    bench.store.create(index_name(2), index)
    pointer = SnapshotPointer(seq=2, term=1, digest=tail, index_digest=digest(index))
    bench.set_root(Root(format=FORMAT, lineage="from-a", nonce="n", snapshot=pointer, gc_floor=2))
    before, target = verify(bench.store), MemoryStore()
    move(bench.store, target, target_url=URL, nonce="n")
    assert (before.bad, before.entry_count) == (None, 4)
    assert verify(target) == before


def test_a_server_goes_on_where_the_old_one_stopped(bench: Bench, leader: Server) -> None:
    target = MemoryStore()
    move(bench.store, target, target_url=URL, nonce="n")
    there = Bench(store=target)
    again = there.server("a", boot=2)
    again.start()
    again.append(b"3")
    assert records(target) == [b"0", b"1", b"2", b"3"]


def test_nobody_starts_on_the_old_store(bench: Bench, leader: Server) -> None:
    move(bench.store, MemoryStore(), target_url=URL, nonce="n")
    with pytest.raises(StoreMovedError) as refused:
        bench.server("b").start()
    assert refused.value.moved_to == URL


def test_a_leader_that_still_runs_acknowledges_nothing_more(bench: Bench, leader: Server) -> None:
    target = MemoryStore()
    move(bench.store, target, target_url=URL, nonce="n")
    landed = list(leader.landed)
    leader.propose(b"late")
    with pytest.raises(StoreMovedError):
        leader.settle()
    assert leader.landed == landed
    assert [news for news in leader.news if isinstance(news, LeadershipLost)] != []
    assert records(target) == [b"0", b"1", b"2"]


def test_what_a_leader_had_created_before_the_seal_is_moved_too(bench: Bench, leader: Server) -> None:
    class Sealing(MemoryStore):
        """The leader's create lands just before the root is replaced."""

        def get(self, name: BlobName) -> Blob | None:
            return bench.store.get(name)

        def list(self, prefix: str, start: str = "", limit: int = 1_000):  # type: ignore[no-untyped-def]
            return bench.store.list(prefix, start, limit)

        def create(self, name: BlobName, data: bytes) -> Written:
            return bench.store.create(name, data)

        def replace(self, name: BlobName, data: bytes, version: Version) -> Written:
            if name == ROOT_NAME:
                leader.step()
            return bench.store.replace(name, data, version)

    target = MemoryStore()
    leader.propose(b"just in time")
    move(Sealing(), target, target_url=URL, nonce="n")
    assert records(target) == [b"0", b"1", b"2", b"just in time"]


def test_a_lease_renewed_meanwhile_is_moved_as_renewed_and_then_never_again(bench: Bench, leader: Server) -> None:
    class Renewing(MemoryStore):
        """An agent's renewal is applied after the lease was read, once."""

        renewed = False

        def get(self, name: BlobName) -> Blob | None:
            found = bench.store.get(name)
            if name == LEASE and found is not None and not self.renewed:
                self.renewed = True
                assert bench.store.replace(LEASE, b"renewed", found.version).outcome is Outcome.DONE
            return found

        def list(self, prefix: str, start: str = "", limit: int = 1_000):  # type: ignore[no-untyped-def]
            return bench.store.list(prefix, start, limit)

        def create(self, name: BlobName, data: bytes) -> Written:
            return bench.store.create(name, data)

        def replace(self, name: BlobName, data: bytes, version: Version) -> Written:
            return bench.store.replace(name, data, version)

    target = MemoryStore()
    move(Renewing(), target, target_url=URL, nonce="n")
    there, here = target.get(LEASE), bench.store.get(LEASE)
    assert (there and there.data, here and here.data) == (b"renewed", TOMBSTONE)


class Dying(MemoryStore):
    """Fails at the write of this number and at all later ones: whoever moves dies there."""

    def __init__(self, inner: MemoryStore, writes: int) -> None:
        super().__init__()
        self.inner, self.writes = inner, writes

    def _die(self, name: str) -> None:
        self.writes -= 1
        if self.writes < 0:
            raise UnavailableError("write", name, "died")

    def get(self, name: BlobName) -> Blob | None:
        return self.inner.get(name)

    def list(self, prefix: str, start: str = "", limit: int = 1_000):  # type: ignore[no-untyped-def]
        return self.inner.list(prefix, start, limit)

    def create(self, name: BlobName, data: bytes) -> Written:
        self._die(name)
        return self.inner.create(name, data)

    def replace(self, name: BlobName, data: bytes, version: Version) -> Written:
        self._die(name)
        return self.inner.replace(name, data, version)


@pytest.mark.parametrize(
    ("at_source", "writes"),
    [*((True, writes) for writes in range(3)), *((False, writes) for writes in range(7))],
)
def test_a_move_interrupted_at_any_write_is_completed_by_the_next(
    bench: Bench, leader: Server, at_source: bool, writes: int
) -> None:
    before = verify(bench.store)
    target = MemoryStore()
    stores = (Dying(bench.store, writes), target) if at_source else (bench.store, Dying(target, writes))
    with pytest.raises(UnavailableError):
        move(*stores, target_url=URL, nonce="n")
    assert target.get(ROOT_NAME) is None
    move(bench.store, target, target_url=URL, nonce="m")
    assert verify(target) == before
    lease = target.get(LEASE)
    assert lease is not None
    assert lease.data == b"lease"


def test_an_interrupted_move_goes_on_to_the_same_place_only(bench: Bench, leader: Server) -> None:
    with pytest.raises(UnavailableError):
        move(bench.store, Dying(MemoryStore(), 5), target_url=URL, nonce="n")
    with pytest.raises(StoreMovedError):
        move(bench.store, MemoryStore(), target_url="s3://bucket/other", nonce="n")


def test_a_store_with_a_journal_is_not_moved_into(bench: Bench, leader: Server) -> None:
    other = Bench()
    other.leader("b")
    with pytest.raises(OccupiedError):
        move(bench.store, other.store, target_url=URL, nonce="n")
    assert read_root(bench.store).lineage == "from-a"
    leader.append(b"3")
    assert leader.landed[-1] == b"3"


def test_a_finished_move_may_be_asked_for_again_until_the_new_store_is_used(bench: Bench, leader: Server) -> None:
    target = MemoryStore()
    moved = move(bench.store, target, target_url=URL, nonce="n")
    assert move(bench.store, target, target_url=URL, nonce="m") == moved
    assert bench.store.get(entry_name(6)) is None
