"""What a server writes follows the format of its store, and changes when the format is raised under it."""

from __future__ import annotations

import pytest

from federation.core import archive, books, formats, records
from federation.core.events import SetIntent
from federation.core.formats import newest
from federation.core.records import Archived, Bound, GaveUp, decode_record
from federation.core.shards import Kind, decode_shard
from placement.model import GroupUid, Position
from storage.finished import part_name
from storage.reading import read_entries, read_root
from storage.root import FORMAT
from storage.snapshot import decode_index, index_name
from storage.snapshot import decode_shard as unpacked
from storage.upgrade import upgrade
from tests.unit.federation.pictures import loaded, shards_of
from tests.unit.federation.pump import Pump, started
from tests.unit.federation.story import LINEAGE, Story
from tests.unit.federation.test_archive import ended, put
from tests.unit.federation.test_golden import RECORDS
from tests.unit.federation.test_snapshots import RHYTHM

KINDS_FIRST = {
    *("Submitted", "Placed", "Bound", "Running", "GaveUp", "IntentSet", "QueueApplied"),
    *("ClusterJoined", "ClusterCordoned", "ClusterFenced", "FenceDone", "ClusterAdmitted", "ClusterConfirmedDead"),
    *("Restored", "Adopted", "Unheld", "Recovered"),
}
SHARDS_FIRST = {"head", "queues", "clusters", "ended", "requests", "finished", "specs", "groups"}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "PART_ROWS_MAX", 3)
    monkeypatch.setattr(books, "FINISHED_KEPT_MAX", 2)


def cancelled(pump: Pump, *names: str) -> None:
    for uid in [pump.submit(name) for name in names]:
        pump.ask(SetIntent(GroupUid(uid), "cancel", "", f"cancel-{uid}", "sara"))
    pump.run(1.0)


def kinds_in_journal(pump: Pump) -> set[str]:
    return {
        type(decode_record(data, Position(entry.first_position + index))).__name__
        for entry in read_entries(pump.store)
        for index, data in enumerate(entry.records)
    }


def kinds_in_snapshot(pump: Pump) -> set[str]:
    pointer = read_root(pump.store).snapshot
    assert pointer is not None
    blob = pump.store.get(index_name(pointer.seq))
    assert blob is not None
    found = set()
    for ref in decode_index(blob.data, pointer, read_root(pump.store).lineage).shards:
        shard = pump.store.get(ref.name)
        assert shard is not None
        found.add(decode_shard(unpacked(ref.name, shard.data, ref.digest), ref.name).kind.value)
    return found


def test_every_kind_of_record_has_a_format() -> None:
    kinds = {kind.__name__ for kind in records.AnyRecord.__args__}
    assert {kind.__name__ for kind in formats.RECORD_FORMATS} == kinds - KINDS_FIRST


def test_records_ask_for_the_newest_format_among_them() -> None:
    bound = Bound(uid="u", token="t", cluster="c", pods=1)
    assert newest([]) == 1
    assert newest([bound, GaveUp(uid="u", token="t", cluster="c", verdict="Released")]) == 1
    archived = Archived(part=1, count=1, last="u", digest=b"", keys=b"")
    assert newest([bound, archived]) == 2
    assert newest([RECORDS["Recreated"], archived]) == 3
    assert newest([archived, RECORDS["SubmittedChild"]]) == 4
    assert newest([RECORDS["SubmittedChild"], RECORDS["ClusterRemoved"]]) == 5
    assert newest([RECORDS["Archived"], RECORDS["Quarantined"]]) == 5


def test_a_new_store_begins_with_the_newest_format_its_server_may_write() -> None:
    assert read_root(started().store).format == FORMAT
    assert read_root(started(format_max=1).store).format == 1


def test_a_store_of_the_first_format_gets_nothing_that_its_older_servers_do_not_read() -> None:
    pump = started(format_max=1, snapshots=RHYTHM)
    pump.config["format_max"] = FORMAT
    pump.start("server-0")  # the new version, on the store of the old one
    pump.run(25.0)
    cancelled(pump, *"abcdefgh")
    pump.run(40.0)
    assert len(pump.state.leaving) == 6
    assert kinds_in_journal(pump) <= KINDS_FIRST
    assert kinds_in_snapshot(pump) <= SHARDS_FIRST
    assert pump.store.list("finished/") == []
    pump.config["format_max"] = 1
    pump.start("server-0")  # and back to the old one
    pump.run(25.0)
    assert pump.leader.state.groups.keys() == pump.state.groups.keys()
    assert pump.state.newest("default", "h") is not None


def test_a_leader_writes_the_newer_format_soon_after_it_was_raised_and_everybody_reads_it() -> None:
    pump = started(servers=2, format_max=1)
    pump.config["format_max"] = FORMAT
    for name in list(pump.replicas):
        pump.start(name)
    pump.run(25.0)
    cancelled(pump, *"abcdefgh")
    assert (pump.state.parts_count, len(pump.state.leaving)) == (0, 6)
    assert upgrade(pump.store, nonce="u").after == FORMAT
    pump.run(31.0)
    assert {note.event for note in pump.notes} >= {"format.raised"}
    assert [replica.state.parts_count for replica in pump.replicas.values()] == [2, 2]
    assert [len(replica.state.leaving) for replica in pump.replicas.values()] == [0, 0]
    assert pump.store.list("finished/") == [part_name(1), part_name(2)]


def test_an_older_server_stops_when_the_format_is_raised_under_it_and_says_why() -> None:
    pump = started(servers=2, format_max=1)
    follower = next(name for name in pump.replicas if name != pump.leader.name)
    pump.config["format_max"] = FORMAT
    pump.start(pump.leader.name)
    pump.run(25.0)
    assert upgrade(pump.store, nonce="u").after == FORMAT
    with pytest.raises(
        AssertionError, match=f"halted: 'root' has format {FORMAT}; this version reads 1 and older: upgrade it"
    ):
        pump.run(31.0)
    assert not pump.replicas[follower].caught_up


def test_a_newer_record_in_an_older_store_is_never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    pump = started(format_max=1)
    monkeypatch.setattr(formats, "ARCHIVE", 1)  # a writer that forgot to ask
    with pytest.raises(AssertionError):
        cancelled(pump, *"abcde")
    assert kinds_in_journal(pump) <= KINDS_FIRST


def test_a_picture_for_an_older_store_leaves_out_who_waits_for_the_archive() -> None:
    story = Story()
    ended(story, *"abcd")
    assert len(story.state.leaving) == 2
    shards = shards_of(story.state, store_format=1)
    kinds = {decode_shard(shard.payload, shard.name).kind for shard in shards}
    assert kinds.isdisjoint({Kind.LEAVING, Kind.PARTS})
    assert loaded(LINEAGE, shards).groups == story.state.groups


def test_a_picture_keeps_the_archive_that_the_journal_has_already() -> None:
    story = Story()
    ended(story, *"abcde")
    put(story)
    shards = shards_of(story.state, store_format=1)
    assert Kind.PARTS in {decode_shard(shard.payload, shard.name).kind for shard in shards}
