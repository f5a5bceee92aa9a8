"""Walking a whole journal."""

from collections.abc import Sequence

import pytest

from storage.backends.memory import MemoryStore
from storage.blob import Blob, BlobName
from storage.entry import digest, entry_name
from storage.errors import CorruptError
from storage.root import FORMAT, Root, SnapshotPointer
from storage.verify import verify
from tests.unit.storage.bench import Bench


@pytest.fixture
def bench() -> Bench:
    """A journal of a TERM entry, three batches of two records, and a heartbeat."""
    bench = Bench()
    leader = bench.leader("a")
    for number in range(3):
        leader.append(b"%d" % number, b"again" * 200)
    bench.run(leader, until_s=5.5)
    return bench


def test_a_whole_journal_is_counted_and_good(bench: Bench) -> None:
    verified = verify(bench.store)
    assert verified.bad is None
    assert (verified.first_seq, verified.entry_count, verified.record_count) == (1, 5, 6)
    assert (verified.term, verified.void_count, verified.lineage) == (1, 0, "from-a")
    assert verified.head_digest == digest(bench.first_bytes[entry_name(5)])


def test_a_journal_is_read_from_its_snapshot_on(bench: Bench) -> None:
    pointer = SnapshotPointer(seq=2, term=1, digest=digest(bench.first_bytes[entry_name(2)]))
    bench.set_root(Root(format=FORMAT, lineage="from-a", nonce="n", snapshot=pointer, gc_floor=2))
    bench.store.delete(entry_name(1))
    bench.store.delete(entry_name(2))
    verified = verify(bench.store)
    assert (verified.bad, verified.first_seq, verified.entry_count) == (None, 3, 3)


def test_a_missing_entry_is_named(bench: Bench) -> None:
    bench.store.delete(entry_name(3))
    verified = verify(bench.store)
    assert isinstance(verified.bad, CorruptError)
    assert verified.bad.seq == 3
    assert verified.entry_count == 2


def test_a_missing_last_entry_leaves_a_shorter_journal_with_another_digest(bench: Bench) -> None:
    before = verify(bench.store)
    bench.store.delete(entry_name(5))
    after = verify(bench.store)
    assert after.bad is None
    assert after.entry_count == 4
    assert after.head_digest != before.head_digest


def test_an_entry_that_lands_while_the_end_is_read_is_no_hole(bench: Bench) -> None:
    class Growing(MemoryStore):
        """Shows the last two entries only to those who look a second time."""

        looked = False

        def get(self, name: BlobName) -> Blob | None:
            if name == entry_name(4) and not self.looked:
                self.looked = True
                return None
            return bench.store.get(name)

        def list(self, prefix: str, start: str = "", limit: int = 1_000) -> Sequence[BlobName]:
            return bench.store.list(prefix, start, limit)

    verified = verify(Growing())
    assert verified.bad is None
    assert verified.entry_count == 3


def test_an_altered_entry_is_named(bench: Bench) -> None:
    blob = bench.store.get(entry_name(2))
    assert blob is not None
    bench.store.replace(entry_name(2), blob.data[:-3] + b"xyz", blob.version)
    verified = verify(bench.store)
    assert isinstance(verified.bad, CorruptError)
    assert verified.bad.seq == 2


def test_a_replaced_entry_with_a_right_checksum_is_found_by_the_chain(bench: Bench) -> None:
    other = Bench()
    leader = other.leader("b")
    leader.append(b"forged")
    bench.store.delete(entry_name(2))
    bench.store.create(entry_name(2), other.first_bytes[entry_name(2)])
    verified = verify(bench.store)
    assert isinstance(verified.bad, CorruptError)
    assert verified.bad.seq == 2


def test_a_store_without_a_root_has_no_journal() -> None:
    with pytest.raises(CorruptError):
        verify(MemoryStore())
