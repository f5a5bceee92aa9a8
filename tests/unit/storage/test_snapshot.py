"""Writing, reading and collecting snapshots: whole or not at all, wherever it stops and whoever else does it."""

from __future__ import annotations

import random
from collections import deque
from pathlib import Path

import pytest

from storage import gc as gc_module
from storage import snapshot as snapshot_module
from storage.archive import archived_name
from storage.backends.memory import MemoryStore
from storage.blob import Blob, BlobCreate, BlobEffect, BlobName, Outcome, Version, Written, perform
from storage.entry import SEQ_FIRST, entry_name
from storage.errors import CorruptError, LimitError, UnavailableError, UnsupportedFormatError
from storage.frame import seal
from storage.gc import Collector
from storage.root import ROOT_NAME, SnapshotPointer, encode_root
from storage.snapshot import (
    Index,
    ShardRef,
    decode_index,
    decode_shard,
    encode_index,
    encode_shard,
    index_name,
    seq_of_part,
    shard_name,
)
from storage.snapshot_reader import ReaderEffect, SnapshotGone, SnapshotReader
from storage.snapshot_writer import End, SnapshotWriter
from storage.verify import verify
from tests.unit.storage.snapshotting import ENTRIES, LINEAGE, Snapshotting

GOLDEN = Path(__file__).parents[2] / "golden" / "journal"
SHARDS = [b"head", b"groups" * 200, b"more groups"]
LATER = [b"head again", b"groups" * 100]


def names(bench: Snapshotting, prefix: str) -> list[str]:
    return list(bench.store.list(prefix))


def entries(bench: Snapshotting) -> list[int]:
    return [seq for seq in range(SEQ_FIRST, ENTRIES + 1) if bench.store.get(entry_name(seq)) is not None]


def taken(bench: Snapshotting, seq: int, shards: list[bytes], *, gc_floor: int = 0) -> SnapshotWriter:
    writer = bench.writer(seq, gc_floor=gc_floor)
    bench.write(writer, shards)
    assert writer.end is End.DONE
    return writer


# --- one after the other -----------------------------------------------------------------------------------------


def test_a_snapshot_comes_back_as_it_was_written() -> None:
    bench = Snapshotting()
    taken(bench, 5, SHARDS)
    pointer = bench.root.snapshot
    assert pointer is not None
    assert (pointer.seq, pointer.term, pointer.digest, pointer.term_writer) == (5, 1, bench.digests[5], "w")
    assert bench.read(pointer) == SHARDS
    assert names(bench, "snapshot/") == [
        "snapshot/0000000000000005/INDEX",
        *(f"snapshot/0000000000000005/s-{index}" for index in range(3)),
    ]


def test_the_root_changes_last_and_once() -> None:
    bench = Snapshotting()
    seen: list[str] = []
    original = bench.perform

    def watched(effect: BlobEffect) -> object:
        if not isinstance(effect, BlobCreate):
            seen.append(f"{type(effect).__name__} {getattr(effect, 'name', '')}")
        else:
            seen.append(effect.name.rpartition("/")[2])
        return original(effect)

    bench.perform = watched  # type: ignore[method-assign,assignment]
    taken(bench, 5, SHARDS)
    assert seen == ["BlobGet root", "s-0", "s-1", "s-2", "INDEX", "BlobReplace root"]


def test_collection_deletes_up_to_the_floor_and_every_earlier_snapshot() -> None:
    bench = Snapshotting()
    taken(bench, 3, SHARDS)
    writer = taken(bench, 9, LATER, gc_floor=6)
    collector = bench.collector(writer)
    bench.collect(collector)
    assert (collector.done, collector.failed) == (True, False)
    assert (collector.entries_count, collector.parts_count) == (6, 4)
    assert entries(bench) == [7, 8, 9, 10, 11, 12]
    assert {seq_of_part(name) for name in names(bench, "snapshot/")} == {9}


def test_collection_with_an_archive_moves_entries_unchanged() -> None:
    bench = Snapshotting()
    writer = taken(bench, 9, LATER, gc_floor=6)
    bench.collect(bench.collector(writer, archive=True))
    assert entries(bench) == [7, 8, 9, 10, 11, 12]
    for seq in range(1, 7):
        blob = bench.store.get(archived_name(seq))
        assert blob is not None
        assert blob.data == bench.entries[seq]


def test_the_floor_never_falls() -> None:
    bench = Snapshotting()
    taken(bench, 5, SHARDS, gc_floor=4)
    taken(bench, 9, LATER, gc_floor=2)
    assert bench.root.gc_floor == 4


def test_a_collection_goes_through_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc_module, "LIST_LIMIT", 2)

    class Pages(MemoryStore):
        def list(self, prefix: str, start: str = "", limit: int = 2) -> list[BlobName]:
            return list(super().list(prefix, start, 2))

    bench = Snapshotting(Pages())
    taken(bench, 3, SHARDS)
    writer = taken(bench, 12, LATER, gc_floor=12)
    bench.collect(bench.collector(writer))
    assert entries(bench) == []
    assert {seq_of_part(name) for name in MemoryStore.list(bench.store, "snapshot/")} == {12}  # type: ignore[arg-type]


# --- crashes -----------------------------------------------------------------------------------------------------


def whole_run(bench: Snapshotting, *, archive: bool) -> None:
    """A first snapshot, a second with a floor, and the collection after it."""
    for seq, shards, floor in ((3, SHARDS, 0), (9, LATER, 6)):
        writer = bench.writer(seq, gc_floor=floor)
        bench.write(writer, shards)
        if writer.end is End.DONE:
            bench.collect(bench.collector(writer, archive=archive))


STEPS = 60


def test_the_whole_run_has_fewer_steps_than_are_tried() -> None:
    bench = Snapshotting()
    whole_run(bench, archive=True)
    assert 45 < bench.performed < STEPS


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize("step", range(STEPS))
def test_a_crash_at_any_step_harms_nothing_and_the_next_run_cleans_up(step: int, archive: bool) -> None:
    bench = Snapshotting(crash_after=step)
    whole_run(bench, archive=archive)
    bench.crash_after = None
    root = bench.root
    if root.snapshot is not None:
        assert bench.read(root.snapshot) == (SHARDS if root.snapshot.seq == 3 else LATER)
    assert set(entries(bench)) >= set(range(root.gc_floor + 1, ENTRIES + 1))
    writer = bench.writer(ENTRIES, gc_floor=8, nonce="next")
    bench.write(writer, SHARDS)
    assert writer.end is End.DONE
    bench.collect(bench.collector(writer, archive=archive))
    assert entries(bench) == [9, 10, 11, 12]
    assert {seq_of_part(name) for name in names(bench, "snapshot/")} == {ENTRIES}
    for seq in range(1, 9) if archive else ():
        blob = bench.store.get(archived_name(seq))
        assert blob is not None
        assert blob.data == bench.entries[seq]


# --- two at once -------------------------------------------------------------------------------------------------


def test_of_two_that_write_at_once_the_second_to_swap_is_overtaken() -> None:
    bench = Snapshotting()
    slow = bench.writer(5, nonce="slow")
    waiting = slow.start()
    event = bench.perform(waiting[0])
    assert event is not None
    effects = [*slow.handle(event, 0.0), *slow.put("s-0", b"slow"), *slow.close()]
    taken(bench, 9, LATER)
    while effects:
        event = bench.perform(effects.pop(0))
        assert event is not None
        effects += slow.handle(event, 0.0)
    assert slow.end is End.OVERTAKEN
    assert bench.root.snapshot is not None
    assert bench.read(bench.root.snapshot) == LATER


def test_an_older_snapshot_does_not_take_the_place_of_a_later_one() -> None:
    bench = Snapshotting()
    taken(bench, 9, LATER)
    writer = bench.writer(9, nonce="again")
    bench.write(writer, SHARDS)
    assert writer.end is End.OVERTAKEN


def test_parts_of_a_later_snapshot_are_not_collected_since_somebody_may_be_writing_it() -> None:
    bench = Snapshotting()
    writer = taken(bench, 5, SHARDS)
    bench.store.create(shard_name(9, "s-0"), b"under way")
    bench.collect(bench.collector(writer))
    assert bench.store.get(shard_name(9, "s-0")) is not None


def test_what_another_server_left_under_the_same_name_ends_the_attempt() -> None:
    bench = Snapshotting()
    bench.store.create(shard_name(5, "s-1"), b"of another server")
    writer = bench.writer(5)
    bench.write(writer, SHARDS)
    assert writer.end is End.CONFLICT
    assert bench.root.snapshot is None


def test_what_this_server_wrote_before_under_the_same_name_is_taken_as_it_is() -> None:
    bench = Snapshotting(crash_after=3)
    bench.write(bench.writer(5), SHARDS)
    bench.crash_after = None
    taken(bench, 5, SHARDS)


def test_a_reader_whose_snapshot_is_collected_under_it_is_sent_to_the_next() -> None:
    bench = Snapshotting()
    taken(bench, 3, SHARDS)
    before = bench.root.snapshot
    assert before is not None
    bench.collect(bench.collector(taken(bench, 9, LATER)))
    gone = bench.read(before)
    assert gone == SnapshotGone(bench.root.snapshot)  # type: ignore[arg-type]
    assert isinstance(gone, SnapshotGone)
    assert bench.read(gone.pointer) == LATER


def test_a_reader_says_that_its_snapshot_is_gone_with_its_last_answer() -> None:
    bench = Snapshotting()
    taken(bench, 3, SHARDS)
    before = bench.root.snapshot
    assert before is not None
    reader = SnapshotReader(bench.new_op, lineage=LINEAGE, pointer=before)
    asked = deque(reader.start())
    asked.extend(answered(bench, reader, asked.popleft()))
    assert len(asked) == len(SHARDS) > 1
    bench.collect(bench.collector(taken(bench, 9, LATER)))
    [root] = answered(bench, reader, asked.popleft())
    assert answered(bench, reader, root) == []
    while len(asked) > 1:
        assert answered(bench, reader, asked.popleft()) == []
    last = asked.popleft()
    assert answered(bench, reader, last) == [SnapshotGone(bench.root.snapshot)]  # type: ignore[arg-type]
    assert not reader.owns(last.op)  # type: ignore[union-attr]


def answered(bench: Snapshotting, reader: SnapshotReader, wish: ReaderEffect) -> list[ReaderEffect]:
    """What the reader does with the answer to this wish."""
    event = bench.perform(wish)  # type: ignore[arg-type]
    assert event is not None
    return reader.handle(event, bench.now_s)


# --- unknown outcomes ----------------------------------------------------------------------------------------------


class Flaky(MemoryStore):
    """Every operation may be carried out without answer, or not at all."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        self.calm = True

    def _fails(self) -> str:
        return "" if self.calm else self.rng.choice(["", "", "before", "after"])

    def create(self, name: BlobName, data: bytes) -> Written:
        fails = self._fails()
        written = super().create(name, data) if fails != "before" else Written(Outcome.UNKNOWN)
        return Written(Outcome.UNKNOWN) if fails else written

    def replace(self, name: BlobName, data: bytes, version: Version) -> Written:
        fails = self._fails()
        written = super().replace(name, data, version) if fails != "before" else Written(Outcome.UNKNOWN)
        return Written(Outcome.UNKNOWN) if fails else written

    def get(self, name: BlobName) -> Blob | None:
        if self._fails() == "before":
            raise UnavailableError("get", name, "time-out")
        return super().get(name)

    def delete(self, name: BlobName) -> None:
        fails = self._fails()
        if fails != "before":
            super().delete(name)
        if fails:
            raise UnavailableError("delete", name, "time-out")


@pytest.mark.parametrize("seed", range(40))
def test_unknown_outcomes_leave_a_whole_snapshot_or_the_one_before(seed: int) -> None:
    store = Flaky(seed)
    bench = Snapshotting(store)
    taken(bench, 3, SHARDS)
    store.calm = False
    writer = bench.writer(9, gc_floor=6)
    bench.write(writer, LATER)
    if writer.end is End.DONE:
        bench.collect(bench.collector(writer, archive=True))
    store.calm = True
    assert writer.end in {End.DONE, End.NO_ANSWER}
    pointer = bench.root.snapshot
    assert pointer is not None
    assert bench.read(pointer) == (LATER if pointer.seq == 9 else SHARDS)
    assert (pointer.seq == 9) or writer.end is not End.DONE
    for seq in range(1, ENTRIES + 1):
        held = bench.store.get(entry_name(seq)) or bench.store.get(archived_name(seq))
        assert held is not None
        assert held.data == bench.entries[seq]


def test_a_copy_that_was_refused_and_is_not_there_keeps_the_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store may refuse for other reasons than that the name is taken (409 of S3)."""
    bench = Snapshotting()
    writer = taken(bench, 9, LATER, gc_floor=6)
    monkeypatch.setattr(bench.store, "create", lambda name, data: Written(Outcome.REFUSED))
    collector = bench.collector(writer, archive=True)
    bench.collect(collector)
    assert collector.failed
    assert entries(bench) == list(range(1, ENTRIES + 1))


# --- damage and limits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["INDEX", "s-0", "s-1"])
@pytest.mark.parametrize("bit", [0, 7, 64, 77, 300, -1])
def test_every_flipped_bit_of_a_part_is_noticed_and_the_part_named(part: str, bit: int) -> None:
    bench = Snapshotting()
    taken(bench, 5, SHARDS)
    name = BlobName(f"snapshot/0000000000000005/{part}")
    blob = bench.store.get(name)
    assert blob is not None
    bits = bit % (8 * len(blob.data))
    damaged = bytearray(blob.data)
    damaged[bits // 8] ^= 1 << bits % 8
    bench.store.replace(name, bytes(damaged), blob.version)
    assert bench.root.snapshot is not None
    with pytest.raises(CorruptError) as caught:
        bench.read(bench.root.snapshot)
    assert (caught.value.name, caught.value.seq) == (name, 5)


def test_two_shards_that_changed_places_are_noticed() -> None:
    bench = Snapshotting()
    taken(bench, 5, SHARDS)
    one, two = (bench.store.get(shard_name(5, f"s-{index}")) for index in (0, 2))
    assert one is not None
    assert two is not None
    bench.store.replace(shard_name(5, "s-0"), two.data, one.version)
    assert bench.root.snapshot is not None
    with pytest.raises(CorruptError, match="digest"):
        bench.read(bench.root.snapshot)


def test_an_index_of_another_lineage_is_refused() -> None:
    index = Index(LINEAGE, 5, 1, b"d" * 32, ())
    pointer = SnapshotPointer(5, 1, b"d" * 32)
    assert decode_index(encode_index(index), pointer, LINEAGE) == index
    with pytest.raises(CorruptError, match="not of the snapshot"):
        decode_index(encode_index(index), pointer, "0000000000002-l")


def test_a_shard_of_a_later_version_is_refused_as_such() -> None:
    name = shard_name(5, "x")
    data = seal(b"MJS\n", snapshot_module._encoder.encode({"name": name, "schema_version": 2}), b"")
    with pytest.raises(UnsupportedFormatError, match="snapshot 2"):
        decode_shard(name, data, b"")


@pytest.mark.parametrize(("shards", "fits"), [(3, True), (4, False)])
def test_a_snapshot_has_so_many_shards_at_most(shards: int, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "SHARDS_MAX", 3)
    bench = Snapshotting()
    writer = bench.writer(5)
    bench.write(writer, [b"x"] * shards)
    assert writer.end is (End.DONE if fits else End.TOO_LARGE)


@pytest.mark.parametrize(("extra", "fits"), [(0, True), (1, False)])
def test_a_shard_is_so_large_at_most(extra: int, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "SHARD_PACKED_BYTES_MAX", 500)
    name = shard_name(5, "x")
    raw = b"x" * (500 + extra)  # too short to be packed
    if fits:
        assert decode_shard(name, encode_shard(name, raw), b"") == raw
    else:
        with pytest.raises(LimitError, match="500, got 501"):
            encode_shard(name, raw)


# --- golden files --------------------------------------------------------------------------------------------------

GOLDEN_SHARD = (shard_name(42, "groups-eu-1-00000"), b"sixteen bytes..." * 64)
GOLDEN_INDEX = Index(LINEAGE, 42, 7, bytes(range(32)), (ShardRef(GOLDEN_SHARD[0], bytes(range(32, 64))),))


def test_what_the_first_version_wrote_is_read_and_written_alike() -> None:
    shard = (GOLDEN / "v1-snapshot-shard.bin").read_bytes()
    assert decode_shard(GOLDEN_SHARD[0], shard, b"") == GOLDEN_SHARD[1]
    index = (GOLDEN / "v1-snapshot-index.bin").read_bytes()
    pointer = SnapshotPointer(42, 7, bytes(range(32)))
    assert decode_index(index, pointer, LINEAGE) == GOLDEN_INDEX
    assert encode_index(GOLDEN_INDEX) == index


@pytest.mark.parametrize(
    ("name", "seq"), [("snapshot/0000000000000042/INDEX", 42), ("snapshot/readme", None), ("snapshot/x/y", None)]
)
def test_the_snapshot_of_a_part_follows_from_its_name(name: str, seq: int | None) -> None:
    assert seq_of_part(name) == seq


def test_collecting_needs_a_root_that_points_to_a_snapshot() -> None:
    bench = Snapshotting()
    with pytest.raises(AssertionError):
        Collector(bench.new_op, root=bench.root, refs=(), archive=False)


def test_the_index_is_named_after_its_snapshot() -> None:
    assert index_name(42) == "snapshot/0000000000000042/INDEX"


def test_a_swap_that_was_done_and_not_answered_is_found_done() -> None:
    bench = Snapshotting()
    writer = bench.writer(5)
    effects = [*writer.start(), *writer.put("s-0", b"x"), *writer.close()]
    while effects:
        effect = effects.pop(0)
        event = perform(bench.store, effect)
        if getattr(effect, "name", "") == ROOT_NAME and type(effect).__name__ == "BlobReplace":
            event = type(event)(event.op, Outcome.UNKNOWN)  # type: ignore[call-arg,arg-type]
        effects += writer.handle(event, 0.0)
    assert writer.end is End.DONE
    assert encode_root(writer.root) == encode_root(bench.root)


# --- shards that the snapshot before has stored ------------------------------------------------------------------

CHANGED = [b"head again", b"groups" * 200, b"more groups", b"and more"]


def test_a_shard_that_would_hold_the_same_is_not_written_again() -> None:
    bench = Snapshotting()
    first = taken(bench, 3, SHARDS)
    bench.performed = 0
    second = bench.writer(6, gc_floor=2, reuse=first.reusable)
    bench.write(second, CHANGED)
    assert (second.end, second.reused_count) == (End.DONE, 2)
    assert bench.performed == 5  # the root, two shards, the INDEX, the root
    bench.collect(bench.collector(second))
    assert names(bench, "snapshot/") == [
        "snapshot/0000000000000003/s-1",
        "snapshot/0000000000000003/s-2",
        "snapshot/0000000000000006/INDEX",
        "snapshot/0000000000000006/s-0",
        "snapshot/0000000000000006/s-3",
    ]
    pointer = bench.root.snapshot
    assert pointer is not None
    assert bench.read(pointer) == CHANGED
    assert (verify(bench.store).bad, verify(bench.store).shard_count) == (None, 4)
    third = bench.writer(9, reuse=second.reusable)
    bench.write(third, [*CHANGED[1:3], b"last"])
    bench.collect(bench.collector(third))
    assert [name for name in names(bench, "snapshot/") if "0006" in name] == []
    assert third.reused_count == 2


def test_shards_of_a_snapshot_that_was_replaced_are_not_relied_on() -> None:
    """Another leader took one meanwhile: whether the old shards are still there is not known."""
    bench = Snapshotting()
    first = taken(bench, 3, SHARDS)
    other = taken(bench, 5, LATER)
    bench.collect(bench.collector(other))
    late = bench.writer(6, reuse=first.reusable)
    bench.write(late, CHANGED)
    assert late.end is End.OVERTAKEN
    pointer = bench.root.snapshot
    assert pointer is not None
    assert bench.read(pointer) == LATER


def test_wherever_it_stops_the_root_points_to_a_whole_snapshot() -> None:
    for crash_after in range(60):
        bench = Snapshotting()
        first = taken(bench, 3, SHARDS)
        bench.performed, bench.crash_after = 0, crash_after
        second = bench.writer(6, gc_floor=2, reuse=first.reusable)
        bench.write(second, CHANGED)
        if second.end is End.DONE:
            bench.collect(bench.collector(second))
        ended = bench.performed < crash_after
        bench.crash_after = None
        pointer = bench.root.snapshot
        assert pointer is not None
        assert bench.read(pointer) == (SHARDS if pointer.seq == 3 else CHANGED), crash_after
        if ended:
            return
    raise AssertionError("it never came to its end")
