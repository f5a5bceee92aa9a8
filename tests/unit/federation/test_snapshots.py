"""Snapshots of a running fleet: when one is taken, who begins from it, and what is deleted after it."""

from __future__ import annotations

from typing import Any

import pytest

from federation.core.snapshots import SnapshotRhythm
from placement.model import Phase
from storage.blob import BlobCreate, BlobEffect, BlobEvent, BlobFailed, BlobName, BlobReplace, BlobWritten, Outcome
from storage.election import JournalTimings
from storage.entry import entry_name, seq_of
from storage.root import ROOT_NAME, Root, decode_root
from storage.snapshot import decode_index, index_name
from tests.unit.federation.pictures import facts
from tests.unit.federation.pump import Pump, started
from tests.unit.federation.test_takeover import TAKEOVER_S

RHYTHM = SnapshotRhythm(every_s=20.0, entries_min=1, archive=False)
KEEP = JournalTimings(keep_s=60.0, keep_entries=2)


def fleet(servers: int = 1, **config: Any) -> Pump:
    return started(servers=servers, **({"snapshots": RHYTHM, "journal_timings": KEEP} | config))


def root_of(pump: Pump) -> Root:
    blob = pump.store.get(ROOT_NAME)
    assert blob is not None
    return decode_root(blob.data)


def snapshot_seq(pump: Pump) -> int:
    pointer = root_of(pump).snapshot
    return pointer.seq if pointer is not None else 0


def parts(pump: Pump) -> list[BlobName]:
    """The shards of the snapshot to which the root points, some of them stored by earlier ones."""
    pointer = root_of(pump).snapshot
    assert pointer is not None
    index = pump.store.get(index_name(pointer.seq))
    assert index is not None
    return [BlobName(ref.name) for ref in decode_index(index.data, pointer, pump.state.lineage).shards]


def entries(pump: Pump) -> list[int]:
    names = [name for spread in range(16) for name in pump.store.list(f"journal/{spread:02x}/")]
    return sorted(int(name.rpartition("/")[2]) for name in names)


def busy(pump: Pump) -> list[str]:
    """Groups that wait, run and ended."""
    [member] = pump.join("a")
    uids = [pump.submit(name) for name in ("runs", "ended", "waits")]
    pump.run(2.0)
    member.verdict(uids[0], "Bound", pods=1)
    member.verdict(uids[1], "Finished", succeeded=True)
    member.gpus_free = [0] * 4
    pump.submit("late")
    return uids


def test_a_server_that_restarts_begins_from_the_snapshot_and_knows_the_same() -> None:
    pump = fleet()
    uids = busy(pump)
    pump.run(45.0)
    before = facts(pump.state)
    at = snapshot_seq(pump)
    assert at > 5
    pump.start("server-0")
    pump.run(1.0)
    assert seq_of(pump.loaded["server-0"][0]) == at
    assert all(seq_of(one.position) > at for one in pump.folded["server-0"])
    again = facts(pump.state)
    assert again["head"] >= before["head"]
    for key in ("groups", "clusters", "queues", "names", "requests", "finished", "specs", "pending"):
        assert again[key] == before[key], key
    assert pump.group(uids[1]).phase is Phase.SUCCEEDED


def test_who_led_last_leads_again_at_once_though_its_election_is_in_the_snapshot() -> None:
    pump = fleet()
    busy(pump)
    pump.run(45.0)
    pump.start("server-0")
    pump.run(1.0)
    assert pump.leader.leading
    assert pump.submit("after")


def test_a_new_server_loads_what_the_others_have_folded() -> None:
    pump = fleet(servers=2)
    busy(pump)
    pump.run(45.0)
    pump.start("server-9")
    pump.run(5.0)
    assert facts(pump.replicas["server-9"].state) == facts(pump.leader.state)


def test_a_snapshot_is_taken_when_time_and_records_say_so() -> None:
    pump = fleet(snapshots=SnapshotRhythm(every_s=20.0, entries_min=10_000, idle_every_s=100.0, archive=False))
    pump.run(60.0)
    assert snapshot_seq(pump) == 0  # nothing but heartbeats
    pump.run(60.0)
    idle = snapshot_seq(pump)
    assert idle > 0
    pump.submit("train")
    pump.run(30.0)
    assert snapshot_seq(pump) > idle


def test_entries_are_deleted_once_they_are_old_and_a_snapshot_covers_them() -> None:
    pump = fleet()
    busy(pump)
    assert snapshot_seq(pump) > 0
    assert entries(pump)[0] == 1  # none is old enough
    pump.run(150.0)
    floor = root_of(pump).gc_floor
    assert 1 < floor < snapshot_seq(pump) - 1
    assert entries(pump)[0] == floor + 1
    assert set(pump.store.list("snapshot/")) == {index_name(snapshot_seq(pump)), *parts(pump)}


def test_entries_move_to_the_archive_where_they_are_to_be_kept() -> None:
    pump = fleet(snapshots=SnapshotRhythm(every_s=20.0, entries_min=1))
    first = pump.store.get(entry_name(1))
    busy(pump)
    pump.run(150.0)
    assert first is not None
    assert pump.store.get(entry_name(1)) is None
    kept = pump.store.get(BlobName(entry_name(1).replace("journal/", "archive/")))
    assert kept is not None
    assert kept.data == first.data


def test_a_follower_that_was_away_for_long_goes_on_from_a_snapshot() -> None:
    pump = fleet(servers=2)
    away = next(name for name in pump.up if not pump.replicas[name].leading)
    pump.run(1.0)
    pump.stop(away)
    busy(pump)
    pump.run(200.0)
    assert root_of(pump).gc_floor > pump.replicas[away].journal.next_seq
    pump.cut.discard(away)
    pump.run(5.0)
    assert "journal.fell_behind" in {note.event for note in pump.notes}
    assert facts(pump.replicas[away].state) == facts(pump.leader.state)


def test_a_leader_that_slept_while_others_collected_lost_nothing_and_follows() -> None:
    pump = fleet(servers=2)
    asleep = pump.leader.name
    uids = busy(pump)
    pump.stop(asleep)
    pump.run(TAKEOVER_S)
    pump.submit("while-asleep")
    pump.run(200.0)
    assert root_of(pump).gc_floor > 0
    pump.cut.discard(asleep)
    pump.run(10.0)
    assert not pump.replicas[asleep].leading
    assert facts(pump.replicas[asleep].state) == facts(pump.leader.state)
    assert pump.leader.state.group(uids[0]) is not None


def test_a_snapshot_in_progress_stops_with_leadership_and_the_next_leader_takes_its_own() -> None:
    pump = fleet(servers=2)
    first = pump.leader.name
    held: list[BlobEffect] = []

    def never_answers(server: str, effect: BlobEffect) -> BlobEvent | None:
        if server == first and isinstance(effect, BlobCreate) and effect.name.startswith("snapshot/"):
            held.append(effect)
            return BlobWritten(effect.op, Outcome.UNKNOWN)
        return None

    pump.on_store = never_answers
    before = snapshot_seq(pump)
    busy(pump)
    pump.run(30.0)
    assert held
    assert snapshot_seq(pump) == before
    pump.stop(first)
    pump.run(TAKEOVER_S + 60.0)
    assert snapshot_seq(pump) > before
    pump.cut.discard(first)
    pump.run(30.0)
    assert pump.replicas[first].state.keeper is None
    assert facts(pump.replicas[first].state) == facts(pump.leader.state)


def test_a_store_that_fails_now_and_then_only_delays_snapshots() -> None:
    pump = fleet()
    count = 0

    def every_third(server: str, effect: BlobEffect) -> BlobEvent | None:
        nonlocal count
        if not getattr(effect, "name", getattr(effect, "prefix", "")).startswith("snapshot/"):
            return None
        count += 1
        if count % 3:
            return None
        if isinstance(effect, BlobCreate | BlobReplace):
            return BlobWritten(effect.op, Outcome.UNKNOWN)
        return BlobFailed(effect.op, "slow down")

    pump.on_store = every_third
    busy(pump)
    pump.run(60.0)
    pump.start("server-0")
    pump.run(10.0)
    assert pump.loaded["server-0"]
    assert pump.leader.leading


@pytest.mark.parametrize("part", ["INDEX", "groups-a-00000", "head-00000"])
@pytest.mark.parametrize("how", ["flipped", "cut short", "gone"])
def test_a_server_does_not_start_from_a_damaged_snapshot_and_names_the_part(part: str, how: str) -> None:
    pump = fleet()
    busy(pump)
    pump.run(45.0)
    name = next(one for one in (index_name(snapshot_seq(pump)), *parts(pump)) if one.endswith(f"/{part}"))
    blob = pump.store.get(name)
    assert blob is not None
    pump.store.delete(name)
    if how == "flipped":
        at = len(blob.data) // 2
        pump.store.create(name, blob.data[:at] + bytes([blob.data[at] ^ 4]) + blob.data[at + 1 :])
    elif how == "cut short":
        pump.store.create(name, blob.data[:-1])
    pump.start("server-0")
    with pytest.raises(AssertionError, match=f"halted.*{name}"):
        pump.run(5.0)


def test_the_root_changed_by_somebody_else_meanwhile_is_left_alone() -> None:
    pump = fleet()
    changed = False

    def meddles(server: str, effect: BlobEffect) -> BlobEvent | None:
        nonlocal changed
        if isinstance(effect, BlobCreate) and effect.name.endswith("/INDEX") and not changed:
            changed = True
            blob = pump.store.get(ROOT_NAME)
            assert blob is not None
            pump.store.replace(ROOT_NAME, blob.data.replace(b'"nonce":"', b'"nonce":"other'), blob.version)
        return None

    pump.on_store = meddles
    busy(pump)
    pump.run(30.0)
    assert changed
    assert [note.event for note in pump.notes if note.event == "snapshot.abandoned"] == ["snapshot.abandoned"]
    pump.run(30.0)
    assert snapshot_seq(pump) > 0


def test_a_snapshot_stores_again_only_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("federation.core.dump.SHARD_RAW_BYTES", 300)
    pump = fleet()
    busy(pump)
    for number in range(20):
        pump.submit(f"waits-{number}")
    pump.run(21.0)
    pump.submit("one-more")
    pump.run(40.0)
    written = [dict(note.fields) for note in pump.notes if note.event == "snapshot.written"]
    assert written[0]["reused"] == "0"
    assert [(one["reused"], one["shards"]) for one in written[2:]] == [("0", "48"), ("45", "50"), ("49", "50")]
    before = facts(pump.state)
    pump.start("server-0")
    pump.run(1.0)
    assert pump.loaded["server-0"]
    assert facts(pump.state)["groups"] == before["groups"]


def test_a_leader_that_lost_the_lead_in_between_stores_everything_again() -> None:
    pump = fleet(servers=2)
    busy(pump)
    pump.run(21.0)
    first = pump.leader.name
    pump.stop(first)
    pump.run(TAKEOVER_S)
    before = [note for note in pump.notes if note.event == "snapshot.written"]
    pump.submit("one-more")
    pump.run(45.0)
    written = [dict(note.fields)["reused"] for note in pump.notes if note.event == "snapshot.written"]
    assert written[len(before)] == "0"
    assert int(written[-1]) > 0
