"""Walking a whole journal."""

from collections.abc import Sequence

import msgspec
import pytest

from storage.archive import archived_name, oldest_kept
from storage.backends.memory import MemoryStore
from storage.blob import Blob, BlobName
from storage.entry import GENESIS, EntryHeader, EntryKind, digest, encode_entry, entry_name
from storage.errors import CorruptError
from storage.reading import read_entries
from storage.root import ROOT_NAME, encode_root
from storage.snapshot import shard_name
from storage.snapshot_writer import End
from storage.verify import expect_no_hole, verify
from tests.unit.storage.bench import Bench
from tests.unit.storage.snapshotting import Snapshotting


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


# --- with snapshots and collections ------------------------------------------------------------------------------


def collected(*, archive: bool) -> Snapshotting:
    """Twelve entries, a snapshot at the ninth, and those up to the sixth collected."""
    bench = Snapshotting()
    writer = bench.writer(9, gc_floor=6)
    bench.write(writer, [b"head", b"groups"])
    assert writer.end is End.DONE
    bench.collect(bench.collector(writer, archive=archive))
    return bench


def change(bench: Snapshotting, name: BlobName, data: bytes | None) -> None:
    bench.store.delete(name)
    if data is not None:
        bench.store.create(name, data)


@pytest.mark.parametrize(("archive", "first", "entries", "archived"), [(False, 7, 6, 0), (True, 1, 12, 6)])
def test_a_journal_is_read_from_the_oldest_entry_that_is_kept(
    archive: bool, first: int, entries: int, archived: int
) -> None:
    verified = verify(collected(archive=archive).store)
    assert (verified.bad, verified.first_seq, verified.entry_count) == (None, first, entries)
    assert (verified.archived_count, verified.shard_count, verified.term) == (archived, 2, 1)


@pytest.mark.parametrize(
    ("name", "seq"),
    [
        (archived_name(3), 3),
        (entry_name(7), 7),
        (entry_name(9), 9),
        (entry_name(11), 11),
        (shard_name(9, "s-1"), 9),
        (shard_name(9, "INDEX"), 9),
    ],
)
@pytest.mark.parametrize("how", ["flipped", "dropped", "cut short", "of another"])
def test_whatever_is_damaged_the_first_bad_one_is_named(name: BlobName, seq: int, how: str) -> None:
    bench = collected(archive=True)
    blob = bench.store.get(name)
    other = bench.store.get(entry_name(12) if "journal" in name or "archive" in name else shard_name(9, "s-0"))
    assert blob is not None
    assert other is not None
    at = len(blob.data) * 2 // 3
    damaged = {
        "flipped": blob.data[:at] + bytes([blob.data[at] ^ 1]) + blob.data[at + 1 :],
        "dropped": None,
        "cut short": blob.data[:-1],
        "of another": other.data,
    }
    change(bench, name, damaged[how])
    verified = verify(bench.store)
    assert isinstance(verified.bad, CorruptError)
    assert (verified.bad.name, verified.bad.seq) == (name, seq)


def test_two_entries_that_changed_places_are_noticed_at_the_first() -> None:
    bench = collected(archive=False)
    change(bench, entry_name(10), bench.entries[11])
    change(bench, entry_name(11), bench.entries[10])
    verified = verify(bench.store)
    assert isinstance(verified.bad, CorruptError)
    assert verified.bad.seq == 10


def test_a_snapshot_that_stands_on_another_journal_is_noticed() -> None:
    bench = collected(archive=False)
    root = bench.root
    assert root.snapshot is not None
    bench.digests[9] = b"another digest of thirty-two byte"[:32]
    writer = bench.writer(9)
    change(bench, ROOT_NAME, encode_root(msgspec.structs.replace(root, snapshot=None, gc_floor=0)))
    for name in bench.store.list("snapshot/"):
        bench.store.delete(name)
    bench.write(writer, [b"head"])
    change(bench, ROOT_NAME, encode_root(msgspec.structs.replace(bench.root, gc_floor=6)))
    verified = verify(bench.store)
    assert isinstance(verified.bad, CorruptError)
    assert verified.bad.name == entry_name(9)


@pytest.mark.parametrize(
    ("dropped", "missing"), [((10,), 10), ((10, 11), 10), ((11,), 11), ((12,), None), ((8,), None)]
)
def test_a_server_refuses_to_start_over_a_hole_that_it_would_take_for_the_end(
    dropped: tuple[int, ...], missing: int | None
) -> None:
    """Nothing after the last, or before the snapshot, is needed to start."""
    bench = collected(archive=False)
    for seq in dropped:
        bench.store.delete(entry_name(seq))
    if missing is None:
        expect_no_hole(bench.store)
    else:
        with pytest.raises(CorruptError) as caught:
            expect_no_hole(bench.store)
        assert caught.value.seq == missing


def test_a_store_that_nobody_used_yet_has_no_hole() -> None:
    expect_no_hole(MemoryStore())


@pytest.mark.parametrize(("archive", "seqs"), [(True, [*range(1, 13)]), (False, [*range(7, 13)])])
def test_the_log_is_read_back_to_the_oldest_entry_that_is_kept(archive: bool, seqs: list[int]) -> None:
    bench = collected(archive=archive)
    first = oldest_kept(bench.store, bench.root.gc_floor)
    assert [entry.header.seq for entry in read_entries(bench.store, first)] == seqs


@pytest.mark.parametrize("seq", [1, 3, 6])
@pytest.mark.parametrize("left", ["an entry", "anything"])
def test_what_a_sleeper_left_under_an_archived_entrys_name_is_passed_by(seq: int, left: str) -> None:
    bench = collected(archive=True)
    before, entries = verify(bench.store), [*read_entries(bench.store)]
    prev_digest = entries[seq - 2].digest if seq > 1 else GENESIS
    header = EntryHeader(
        seq=seq, term=1, kind=EntryKind.HEARTBEAT, writer="a", nonce="late", prev_digest=prev_digest, count=0
    )
    bench.store.create(entry_name(seq), encode_entry(header) if left == "an entry" else b"left by a sleeper")
    assert before.bad is None
    assert verify(bench.store) == before
    assert [*read_entries(bench.store)] == entries
