"""Finished groups after their window: they wait, a part holds them, a record says so, and every server forgets them."""

from __future__ import annotations

import pytest

from federation.core import archive, books
from federation.core.archive import archived, is_due, may_hold, next_part, parts_with, rows_of
from federation.core.archiver import Archiver
from federation.core.events import SetIntent
from federation.core.ids import Ids
from federation.core.records import Archived, encode_record
from federation.core.state import FoldError
from placement.model import GroupUid
from storage.backends.memory import MemoryStore
from storage.blob import BlobCreate, BlobEffect, BlobEvent, BlobGet, BlobRead, BlobWritten, Outcome, perform
from storage.entry import digest
from storage.finished import part_name
from storage.verify import verify
from tests.unit.federation.pictures import facts, loaded, shards_of
from tests.unit.federation.pump import Pump, started
from tests.unit.federation.story import LINEAGE, Story
from tests.unit.federation.test_snapshots import RHYTHM
from tests.unit.federation.test_takeover import TAKEOVER_S


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "PART_ROWS_MAX", 3)
    monkeypatch.setattr(books, "FINISHED_KEPT_MAX", 2)


def ended(story: Story, *names: str) -> list[str]:
    """Groups that were cancelled, in this order."""
    uids = []
    for name in names:
        uids.append(story.submit(name, labels={"team": name}))
        story.intend(uids[-1], "cancel")
    return uids


def put(story: Story) -> Archived:
    """Archive the next part as a leader does; the record."""
    record = archived(story.state.parts_count + 1, next_part(story.state), at_ms=story.at_ms, actor="muster:archive")
    story.record(record)
    return record


# --- the fold ----------------------------------------------------------------------------------------------------


def test_groups_past_their_window_wait_until_a_part_holds_them() -> None:
    story = Story()
    first, second, *_ = ended(story, "a", "b", "c", "d")
    assert list(story.state.leaving) == [first, second]
    assert story.state.group(first) is None
    assert not is_due(story.state)
    third = ended(story, "e")
    assert is_due(story.state)
    assert put(story).count == 3
    assert list(story.state.leaving) == []
    assert story.state.leaving_bytes == 0
    assert third[0] in story.state.groups


def test_a_part_gives_back_the_rows_as_they_were() -> None:
    story = Story()
    ended(story, "a", "b", "c", "d", "e")
    rows = list(story.state.leaving.values())
    assert rows_of(1, next_part(story.state)) == rows
    assert [type(line.record).__name__ for line in rows_of(1, next_part(story.state))[0].history] == [
        "Submitted",
        "IntentSet",
    ]


def test_equal_states_make_equal_parts_also_in_a_later_lineage() -> None:
    story = Story()
    ended(story, "a", "b", "c", "d", "e")
    again = loaded(LINEAGE, shards_of(story.state))
    again.lineage = again.lineage.__class__("0000000000009-later")
    assert next_part(again) == next_part(story.state)


def test_a_part_ends_at_its_rows_or_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story()
    ended(story, "a", "b", "c", "d", "e", "f")
    assert len(story.state.leaving) == 4
    assert len(rows_of(1, next_part(story.state))) == 3
    one = len(next(iter(story.state.leaving.values())).history_packed)
    monkeypatch.setattr(archive, "PART_ROWS_MAX", 100)
    assert not is_due(story.state)
    monkeypatch.setattr(archive, "PART_BYTES_MAX", story.state.leaving_bytes + 1)
    assert not is_due(story.state)
    monkeypatch.setattr(archive, "PART_BYTES_MAX", story.state.leaving_bytes)
    assert is_due(story.state)
    monkeypatch.setattr(archive, "PART_BYTES_MAX", one)
    assert len(rows_of(1, next_part(story.state))) == 1
    monkeypatch.setattr(archive, "PART_BYTES_MAX", one + 1)
    assert len(rows_of(1, next_part(story.state))) == 2


def test_a_part_that_does_not_follow_the_one_before_is_refused() -> None:
    story = Story()
    ended(story, "a", "b", "c", "d", "e")
    record = archived(1, next_part(story.state), at_ms=0, actor="")
    put(story)
    with pytest.raises(FoldError, match="newest part is 1"):
        story.record(record)


def test_what_waits_is_bounded_and_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "LEAVING_MAX", 3)
    story = Story()
    uids = ended(story, "a", "b", "c", "d", "e")
    assert list(story.state.leaving) == uids[:3]
    uids += ended(story, "f")
    assert list(story.state.leaving) == uids[1:4]


def test_a_part_whose_groups_were_dropped_meanwhile_takes_nobody_else_along(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story()
    uids = ended(story, "a", "b", "c", "d", "e")
    record = archived(1, next_part(story.state), at_ms=0, actor="")
    monkeypatch.setattr(books, "LEAVING_MAX", 3)
    uids += ended(story, "f", "g", "h")
    assert list(story.state.leaving) == uids[3:6]
    story.record(record)
    assert list(story.state.leaving) == uids[3:6]


def test_parts_are_found_as_long_as_they_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "PARTS_KEPT_MAX", 2)
    story = Story()
    first = ended(story, "a", "b", "c", "d", "e")[0]
    put(story)
    ended(story, "f", "g", "h")
    put(story)
    assert [number for number, _ in parts_with(story.state, first, "default")] == [1]
    ended(story, "i", "j", "k")
    put(story)
    assert [part.part for part in story.state.parts] == [2, 3]
    assert story.state.parts_count == 3
    assert parts_with(story.state, first, "default") == []


def test_a_snapshot_keeps_who_waits_and_what_is_in_the_archive() -> None:
    story = Story()
    ended(story, "a", "b", "c", "d", "e")
    put(story)
    ended(story, "f")
    again = loaded(LINEAGE, shards_of(story.state))
    assert facts(again) == facts(story.state)
    assert (len(again.leaving), again.parts_count) == (1, 1)


def test_the_record_stays_small_and_finds_every_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    keys = [f"1700000000000-abcdef0123.{number}" for number in range(2 * archive.PART_ROWS_MAX)]
    packed = archive.keys_of(keys)
    assert all(may_hold(packed, archive._probes(key)) for key in keys)
    others = [f"1700000000000-abcdef0123.x{number}" for number in range(20_000)]
    assert sum(may_hold(packed, archive._probes(key)) for key in others) < 40
    record = Archived(part=1, count=192, last=keys[0], digest=bytes(32), keys=packed, at_ms=1_700_000_000_000)
    assert len(encode_record(record)) < 1_200


# --- the leader's hand -------------------------------------------------------------------------------------------


def cancelled(pump: Pump, *names: str) -> list[str]:
    uids = [pump.submit(name) for name in names]
    for uid in uids:
        pump.ask(SetIntent(GroupUid(uid), "cancel", "", f"cancel-{uid}", "sara"))
    pump.run(1.0)
    return uids


def test_a_leader_archives_and_everybody_who_replays_the_journal_agrees() -> None:
    pump = started(servers=2, snapshots=RHYTHM)
    uids = cancelled(pump, *"abcdef")
    pump.run(1.0)
    assert pump.state.parts_count == 1
    blob = pump.store.get(part_name(1))
    assert blob is not None
    assert [row.uid for row in rows_of(1, blob.data, pump.state.parts[0].digest)] == uids[:3]
    first, second = (facts(replica.state) for replica in pump.replicas.values())
    assert first == second
    pump.run(40.0)
    pump.start("server-2")
    pump.run(1.0)
    assert facts(pump.replicas["server-2"].state) == facts(pump.state)
    assert verify(pump.store).finished_count == 1


def test_whoever_leads_next_finds_the_part_that_was_written_and_puts_it_on_record() -> None:
    pump = started(servers=2)
    leader = pump.leader.name

    def lost(name: str, wish: BlobEffect) -> BlobEvent | None:
        """The part lands, and the leader that wrote it is cut off before it hears so."""
        if not isinstance(wish, BlobCreate) or wish.name != part_name(1):
            return None
        answer = perform(pump.store, wish)
        if name == leader:
            pump.stop(name)
        return answer

    pump.on_store = lost
    cancelled(pump, *"abcde")
    pump.run(TAKEOVER_S + 5.0)
    assert pump.leader.name != leader
    assert pump.state.parts_count == 1
    assert len(pump.state.leaving) == 0


def test_a_write_that_was_not_answered_is_looked_up_and_tried_again() -> None:
    pump = started()
    answers: list[BlobEvent | None] = []

    def unknown_once(name: str, wish: BlobEffect) -> BlobEvent | None:
        del name
        if isinstance(wish, BlobCreate) and wish.name == part_name(1) and not answers:
            answers.append(BlobWritten(wish.op, Outcome.UNKNOWN))
            return answers[0]
        return None

    pump.on_store = unknown_once
    cancelled(pump, *"abcde")
    pump.run(1.0)
    assert (len(answers), pump.state.parts_count) == (1, 0)
    pump.run(11.0)
    assert pump.state.parts_count == 1


def test_what_is_stored_under_the_name_and_is_no_part_is_left_alone_and_told_of() -> None:
    pump = started()
    pump.store.create(part_name(1), b"somebody else's")
    cancelled(pump, *"abcde")
    pump.run(1.0)
    assert pump.state.parts_count == 0
    assert len(pump.state.leaving) == 3
    assert "archive.trouble" in {note.event for note in pump.notes}


def test_the_part_that_nobody_finds_any_more_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("federation.core.archiver.PARTS_KEPT_MAX", 1)
    monkeypatch.setattr(books, "PARTS_KEPT_MAX", 1)
    pump = started()
    cancelled(pump, *"abcdefgh")
    pump.run(1.0)
    assert pump.state.parts_count == 2
    assert [part.part for part in pump.state.parts] == [2]
    assert pump.store.list("finished/") == [part_name(2)]


def test_a_follower_writes_nothing() -> None:
    story, archiver = Story(), Archiver(Ids("s-2"))
    ended(story, "a", "b", "c", "d", "e")
    assert archiver.tick(story.state, 1.0) == []
    archiver.lead(1.0)
    (wish,) = archiver.tick(story.state, 1.0)
    assert isinstance(wish, BlobCreate)
    archiver.follow()
    assert archiver.handle(BlobWritten(wish.op, Outcome.DONE), 1.0) == []
    assert not archiver.has_news(story.state)


def test_what_another_leader_wrote_counts_as_it_is() -> None:
    story, archiver, store = Story(), Archiver(Ids("s-1")), MemoryStore()
    ended(story, "a", "b", "c", "d", "e")
    theirs = next_part(story.state)
    store.create(part_name(1), theirs)
    archiver.lead(1.0)
    (wish,) = archiver.tick(story.state, 1.0)
    (look,) = archiver.handle(perform(store, wish), 1.0)
    assert isinstance(look, BlobGet)
    archiver.handle(BlobRead(look.op, store.get(part_name(1))), 1.0)
    record = archiver.proposal(story.state, at_ms=5)
    assert record is not None
    assert (record.part, record.digest, record.at_ms) == (1, digest(theirs), 5)
