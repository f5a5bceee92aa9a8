"""What a leader decided, decided again from journal and tape: equal, or the difference is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from federation.core import batch
from federation.core.events import Accepted, SubmitGroup
from federation.core.records import Placed
from federation.core.snapshots import SnapshotRhythm
from federation.core.tape_store import TapeRhythm
from federation.core.taped import AnyItem, Changes, Cycle, Nodes, decode_items, encode_items
from federation.protocol.messages import NodeKinds
from federation.simulate import journal as journal_module
from federation.simulate.journal import Stretch, replay
from federation.simulate.journal_sight import SeenCluster, sight
from placement.engine import Policy
from placement.model import Position
from storage.archive import archived_name
from storage.blob import BlobStore
from storage.election import JournalTimings
from storage.entry import SEQ_FIRST, seq_of
from storage.reading import read_root
from storage.tape import ReelName, decode_reel, encode_reel, list_reels
from storage.tape_state import copied_states
from tests.unit.federation.pump import WALL_MS, Pump, pod_group, started

RHYTHM = TapeRhythm(write_every_s=1.0)
TAKEOVER_S = 25.0
PLACED_BYTES = 240  # of a decision about a small group, or a little more


def fleet(*, groups: int = 6, nodes: int = 8, rhythm: TapeRhythm = RHYTHM, **config: Any) -> Pump:
    """A small cluster `a` and a larger one `b`; groups come one by one, as long as there is room."""
    pump = started(tape=rhythm, **config)
    pump.join("a", nodes=2)
    pump.join("b", nodes=nodes)
    for member in pump.members.values():
        member.applied = 0  # reports show all nodes free: what is placed is subtracted
    submit(pump, groups)
    return pump


def submit(pump: Pump, groups: int, *, prefix: str = "g") -> None:
    for number in range(groups):
        pump.submit(f"{prefix}-{number}", pods=1 + number % 2)
        pump.run(1.5)


def placed(pump: Pump) -> list[tuple[int, Placed]]:
    lines = pump.folded[pump.leader.name]
    return [(line.position, line.record) for line in lines if isinstance(line.record, Placed)]


def altered(store: BlobStore, change: Callable[[AnyItem], AnyItem | None]) -> None:
    """Every item on tape through `change`; None takes it off."""
    for name in reels(store):
        items = [change(item) for item in decode_items(read(store, name))]
        lineage, _ = decode_reel(name, data_of(store, name))
        store.delete(name.blob)
        store.create(name.blob, encode_reel(name, lineage, encode_items([item for item in items if item])))


def reels(store: BlobStore) -> list[ReelName]:
    """Those with cycles."""
    return [name for name in list_reels(store) if name.kind != "state"]


def data_of(store: BlobStore, name: ReelName) -> bytes:
    blob = store.get(name.blob)
    assert blob is not None
    return blob.data


def read(store: BlobStore, name: ReelName) -> bytes:
    return decode_reel(name, data_of(store, name))[1]


# --- equal ----------------------------------------------------------------------------------------------------------


def test_every_decision_of_a_leader_is_made_again_from_journal_and_tape() -> None:
    pump = fleet()
    found = replay(pump.store, Stretch())
    assert (found.decisions, found.equal, found.different, found.not_covered) == (6, 6, 0, {})
    assert (found.terms, found.not_landed, found.first_difference) == (1, 0, None)
    assert found.cycles >= 6


def test_decisions_about_parts_of_gpus_are_made_again_as_others_beside_them() -> None:
    pump = started(tape=RHYTHM)
    cut = NodeKinds(devices=("1g.10gb", "shared/4"), devices_at=(((0, 3, 3), (1, 4, 4)), ()))
    (member,) = pump.join("a", nodes=2, node_kinds=cut)
    member.applied = 0
    small = {"gpus": 1, "of": "nvidia.com/mig-1g.10gb"}
    for name, fields in (("s-0", small), ("whole", {}), ("s-1", {**small, "pods": 2}), ("s-2", small)):
        pump.submit(name, **fields)
        pump.run(1.5)
    assert [pump.group(str(record.uid)).name for _, record in placed(pump)] == ["s-0", "whole", "s-1"]
    member.applied = pump.state.head
    member.node_kinds = NodeKinds(devices=("1g.10gb",), devices_at=(((0, 4, 1),), ()))
    pump.run(6.0)
    assert [pump.group(str(record.uid)).name for _, record in placed(pump)][3:] == ["s-2"]
    pump.run(2.0)
    found = replay(pump.store, Stretch())
    assert (found.decisions, found.equal, found.different, found.not_covered) == (4, 4, 0, {})


def packed_anew(patch: pytest.MonkeyPatch, *, decisions: int) -> Pump:
    """`urgent` moved over for `second`, all in one cycle, of which so many decisions find room in a batch."""
    pump = started(tape=RHYTHM)
    (member,) = pump.join("a", nodes=2, gpus_free=[0, 0])
    pump.submit("urgent", gpus=2, priority=1)
    pump.submit("first", gpus=4)
    pump.submit("second", gpus=4)
    member.applied = pump.state.head
    member.gpus_free = [6, 4]
    patch.setattr(batch, "BATCH_BYTES_MAX", decisions * PLACED_BYTES)
    member.report()
    pump.run(3.0)
    return pump


@pytest.mark.parametrize(
    ("decisions", "entries"),
    [(3, [["first", "second", "urgent"]]), (2, [["first", "second"], ["urgent"]])],
    ids=["all at once", "the batch has no room for one"],
)
def test_decisions_that_were_packed_anew_are_made_again(
    monkeypatch: pytest.MonkeyPatch, decisions: int, entries: list[list[str]]
) -> None:
    pump = packed_anew(monkeypatch, decisions=decisions)
    landed: dict[int, list[str]] = {}
    for position, record in placed(pump):
        landed.setdefault(seq_of(Position(position)), []).append(pump.group(str(record.uid)).name)
    assert list(landed.values()) == entries
    found = replay(pump.store, Stretch())
    assert (found.decisions, found.equal, found.different, found.not_covered) == (3, 3, 0, {})


def test_who_avoids_nearly_all_of_many_clusters_is_decided_again_alike() -> None:
    """It waits for all of them between two tries, and goes to no fourth."""
    pump = started(tape=RHYTHM)
    pump.join(*(f"c-{number:02}" for number in range(20)), nodes=1)
    poison = pump.submit("poison")
    for second in range(300):
        home = pump.group(poison).home
        if home is not None:
            pump.members[home.cluster].verdict(poison, "Refused", reasons=("KubeletRejected",))
        if second % 20 == 0:
            pump.submit(f"g-{second}")
        pump.run(1.0)
    found = replay(pump.store, Stretch())
    items = [item for name in reels(pump.store) for item in decode_items(read(pump.store, name))]
    told = [item.avoid_but[poison] for item in items if isinstance(item, Cycle) and poison in item.avoid_but]
    assert {len(others) for others in told} >= {0, 3}
    assert (found.different, found.not_covered) == (0, {})
    assert found.equal == found.decisions > 15


def test_the_decisions_of_every_leader_are_made_again() -> None:
    pump = fleet(nodes=20, servers=3)
    for _ in range(2):
        pump.stop(pump.leader.name)
        pump.run(TAKEOVER_S)
        submit(pump, 2, prefix=f"by-{pump.leader.name}")
    found = replay(pump.store, Stretch())
    assert (found.decisions, found.equal, found.terms) == (10, 10, 3)


def test_a_base_in_the_midst_of_a_term_is_as_good_as_its_beginning() -> None:
    pump = fleet(groups=8, rhythm=TapeRhythm(write_every_s=1.0, base_every_s=4.0))
    (position, _) = placed(pump)[-1]
    bases = [name.seq for name in reels(pump.store) if name.base]
    found = replay(pump.store, Stretch(position, position))
    assert len(bases) >= 3
    assert (found.decisions, found.equal) == (1, 1)
    assert found.cycles == 1


def test_groups_that_wait_and_what_was_found_blocked_come_back_with_a_base() -> None:
    pump = fleet(groups=0, rhythm=TapeRhythm(write_every_s=1.0, base_every_s=2.0))
    for number in range(6):
        pump.submit(f"large-{number}", pods=9, priority=number)
        pump.submit(f"fits-{number}", pods=1)
        pump.run(3.0)
    found = replay(pump.store, Stretch())
    assert (found.decisions, found.equal, found.different) == (6, 6, 0)
    cycles = [item for name in reels(pump.store) for item in decode_items(read(pump.store, name))]
    assert any(item.base.pass_blocked for item in cycles if isinstance(item, Cycle) and item.base is not None)


def test_only_the_asked_for_stretch_is_counted() -> None:
    pump = fleet()
    positions = [position for position, _ in placed(pump)]
    found = replay(pump.store, Stretch(positions[1], positions[3]))
    assert (found.decisions, found.equal) == (3, 3)


# --- different ------------------------------------------------------------------------------------------------------


def test_one_row_that_is_otherwise_on_tape_is_found_and_both_sides_are_named() -> None:
    pump = fleet()
    (position, first), *_ = placed(pump)
    assert first.cluster == "a"

    def full(item: AnyItem) -> AnyItem:
        if isinstance(item, Nodes) and item.cluster == "a" and item.gpus_free:
            return msgspec.structs.replace(item, gpus_free=(0, *item.gpus_free[1:]))
        return item

    altered(pump.store, full)
    found = replay(pump.store, Stretch(position, position))
    assert (found.equal, found.different) == (0, 1)
    assert found.first_difference is not None
    assert found.first_difference.position == position
    assert found.first_difference.recorded == first
    assert found.first_difference.replayed is not None
    assert found.first_difference.replayed.candidates != first.candidates


def test_another_weight_of_a_score_is_found() -> None:
    pump = fleet()
    position, first = placed(pump)[0]
    found = replay(pump.store, Stretch(), policy=Policy(used_after_weight=-1))
    assert found.different > 0
    assert found.first_difference is not None
    assert (found.first_difference.position, found.first_difference.recorded) == (position, first)
    assert found.first_difference.replayed is not None
    assert found.first_difference.replayed.cluster == "b"


def test_other_nodes_in_the_same_cluster_are_found_though_the_record_does_not_name_them() -> None:
    pump = fleet(groups=1)

    def moved(item: AnyItem) -> AnyItem:
        if isinstance(item, Nodes) and item.cluster == "a" and item.places:
            first, second = item.places
            return msgspec.structs.replace(item, places=(first._replace(name="a-x"), second))  # type: ignore[arg-type]
        return item

    altered(pump.store, moved)
    found = replay(pump.store, Stretch())
    assert (found.equal, found.different) == (1, 1)
    assert found.first_difference is not None
    assert "chose other nodes" in found.first_difference.why


def test_a_decision_that_the_journal_does_not_have_is_found() -> None:
    pump = fleet(groups=1)
    pump.submit("large", pods=11)
    pump.run(2.0)

    def larger(item: AnyItem) -> AnyItem:
        if isinstance(item, Nodes) and item.cluster == "b" and item.places:
            more = {name: (*getattr(item, name), 8, 8, 8, 8) for name in ("gpus", "gpus_free")}
            rest = {
                name: getattr(item, name) + getattr(item, name)[:4]
                for name in ("cpu_milli", "memory_mib", "cpu_milli_total", "memory_mib_total")
            }
            places = item.places + tuple(place._replace(name=f"z{place.name}") for place in item.places[:4])  # type: ignore[arg-type]
            return msgspec.structs.replace(item, places=places, **more, **rest)
        return item

    altered(pump.store, larger)
    found = replay(pump.store, Stretch())
    assert found.first_difference is not None
    assert found.different >= 1


# --- not covered ----------------------------------------------------------------------------------------------------


def test_decisions_of_a_leader_without_tape_are_not_covered() -> None:
    pump = fleet(rhythm=TapeRhythm(on=False))
    found = replay(pump.store, Stretch())
    assert (found.decisions, found.equal, found.not_covered) == (6, 0, {journal_module.NO_TAPE: 6})


def test_what_is_not_written_yet_is_not_covered() -> None:
    pump = fleet(rhythm=TapeRhythm(write_every_s=1_000.0))
    submit(pump, 1, prefix="late")
    found = replay(pump.store, Stretch())
    assert found.not_covered == {journal_module.NO_TAPE: 7}
    for wish in pump.leader.tape.rest():
        pump.store.create(wish.reel.name.blob, wish.reel.encoded())
    assert replay(pump.store, Stretch()).equal == 7


def test_after_a_reel_that_is_gone_the_next_base_covers_again() -> None:
    pump = fleet(groups=10, nodes=20, rhythm=TapeRhythm(write_every_s=1.0, base_every_s=6.0))
    lost = next(name for name in reels(pump.store)[2:] if not name.base)
    pump.store.delete(lost.blob)
    found = replay(pump.store, Stretch())
    assert (found.decisions, found.different) == (10, 0)
    assert list(found.not_covered) == [f"reel {lost.number} of term {lost.term} is missing"]
    assert found.equal == 10 - sum(found.not_covered.values())
    assert found.equal >= 5


def test_a_damaged_reel_is_named() -> None:
    pump = fleet(groups=3, rhythm=TapeRhythm(write_every_s=1_000.0, base_every_s=10_000.0))
    (wish,) = pump.leader.tape.rest()
    pump.store.create(wish.reel.name.blob, wish.reel.encoded()[:-1])
    found = replay(pump.store, Stretch())
    (why,) = found.not_covered
    assert wish.reel.name.blob in why
    assert "checksum" in why
    assert found.not_covered[why] == 3


def test_a_tape_that_contradicts_the_journal_covers_nothing() -> None:
    pump = fleet(groups=2)

    def elsewhere(item: AnyItem) -> AnyItem:
        return msgspec.structs.replace(item, head=item.head + 1) if isinstance(item, Cycle) else item

    altered(pump.store, elsewhere)
    found = replay(pump.store, Stretch())
    assert (found.equal, found.different) == (0, 0)
    assert sum(found.not_covered.values()) == 2


def test_cycles_that_were_left_out_for_want_of_room_are_not_covered() -> None:
    pump = fleet(groups=2, rhythm=TapeRhythm(write_every_s=1.0, missed_wait_s=3.0))
    reels = pump.leader.tape._store
    reels.bytes_held += RHYTHM.buffer_bytes_max  # the store has not kept up
    submit(pump, 2, prefix="left-out")
    reels.bytes_held -= RHYTHM.buffer_bytes_max
    pump.run(10.0)
    submit(pump, 3, prefix="again")
    found = replay(pump.store, Stretch())
    assert found.not_covered == {"the store did not keep up with the tape": 2}
    assert (found.equal, found.different) == (5, 0)


def test_where_old_entries_are_gone_replay_begins_with_the_snapshot() -> None:
    """Without an archive; what the snapshot came after is not covered."""
    pump = fleet(
        groups=3,
        nodes=20,
        rhythm=TapeRhythm(write_every_s=1.0, base_every_s=1.0),
        snapshots=SnapshotRhythm(every_s=5.0, entries_min=1, archive=False),
        journal_timings=JournalTimings(keep_s=1.0, keep_entries=1),
    )
    pump.run(15.0)
    submit(pump, 3, prefix="late")
    root = read_root(pump.store)
    assert root.snapshot is not None
    assert root.gc_floor > seq_of(placed(pump)[2][0])
    after = [position for position, _ in placed(pump) if seq_of(position) > root.snapshot.seq]
    found = replay(pump.store, Stretch(after[-1], after[-1]))
    assert (found.decisions, found.equal) == (1, 1)
    whole = replay(pump.store, Stretch())
    assert whole.different == 0
    assert set(whole.not_covered) <= {journal_module.NO_STATE}
    assert whole.equal >= 1


def collected(*, rhythm: TapeRhythm) -> Pump:
    """A fleet whose store has lost its first entries, as after a restore; six decisions, three snapshots and more."""
    pump = fleet(
        groups=6,
        nodes=20,
        rhythm=rhythm,
        snapshots=SnapshotRhythm(every_s=3.0, entries_min=1, archive=True),
        journal_timings=JournalTimings(keep_s=1.0, keep_entries=1),
    )
    pump.run(10.0)
    pump.store.delete(archived_name(SEQ_FIRST))
    return pump


def test_a_state_is_kept_on_tape_so_that_old_decisions_need_no_first_entry() -> None:
    """Without it they would stand on a state that is no longer kept: the root's snapshot is younger than they are."""
    pump = collected(rhythm=TapeRhythm(write_every_s=1.0, base_every_s=1.0, state_every_s=1.0))
    position, _ = placed(pump)[2]
    root = read_root(pump.store)
    assert root.snapshot is not None
    assert seq_of(position) < root.snapshot.seq
    found = replay(pump.store, Stretch(position, position))
    assert (found.decisions, found.equal) == (1, 1)
    for name in list_reels(pump.store):
        if name.kind == "state":
            pump.store.delete(name.blob)
    assert replay(pump.store, Stretch(position, position)).not_covered == {journal_module.NO_STATE: 1}


def test_a_damaged_copy_of_a_state_is_passed_over_for_an_older_one() -> None:
    pump = collected(rhythm=TapeRhythm(write_every_s=1.0, base_every_s=1.0, state_every_s=1.0))
    position, _ = placed(pump)[4]
    states = [name for name in copied_states(list_reels(pump.store)) if name.seq < seq_of(position)]
    assert len(states) >= 2
    pump.store.delete(states[-1]._replace(number=1).blob)
    found = replay(pump.store, Stretch(position, position))
    assert (found.decisions, found.equal) == (1, 1)


def test_reels_that_are_older_than_a_replay_needs_go_with_the_next_snapshot() -> None:
    rhythm = TapeRhythm(write_every_s=1.0, base_every_s=1.0, state_every_s=1.0, kept_ms=5_000)
    pump = collected(rhythm=rhythm)
    first, *_, last = (position for position, _ in placed(pump))
    pump.run(4.0)
    submit(pump, 3, prefix="late")
    assert replay(pump.store, Stretch(first, last)).equal == 0
    oldest_ms = min(name.wall_ms for name in reels(pump.store))
    assert WALL_MS + pump.now_s * 1_000 - oldest_ms <= 5_000 + 2 * 3_000  # a snapshot or two ago


def test_a_copy_is_made_once_an_hour() -> None:
    pump = collected(rhythm=TapeRhythm(write_every_s=1.0))
    assert len(copied_states(list_reels(pump.store))) == 1


# --- one position ---------------------------------------------------------------------------------------------------


def test_what_the_engine_saw_of_each_cluster_is_shown_for_one_decision() -> None:
    pump = fleet(groups=2)
    position, record = placed(pump)[0]
    pump.members["a"].gpus_free = [0, 0]
    pump.run(10.0)  # what is reported later does not change what was seen
    seen = sight(pump.store, position)
    assert seen is not None
    assert (seen.record, seen.name, seen.uid) == ("Placed", "default/g-0", record.uid)
    assert seq_of(seen.head) == seq_of(position) - 1
    a, b = seen.clusters
    assert (a.answer, a.gpus_free, a.gpus, a.nodes, a.score) == ("chosen", 16, 16, 2, record.candidates[0].score)
    assert b == SeenCluster(
        cluster="b",
        answer="fits",
        why="",
        nodes=8,
        gpus_free=64,
        gpus=64,
        score=record.candidates[1].score,
        terms=dict(record.candidates[1].terms),
    )


def test_why_a_cluster_was_out_of_the_question_is_shown_with_quantities() -> None:
    pump = fleet(groups=0)
    pump.submit("large", pods=3)
    pump.run(2.0)
    seen = sight(pump.store, placed(pump)[0][0])
    assert seen is not None
    assert [cluster.answer for cluster in seen.clusters] == ["LargerThanCluster", "chosen"]
    assert "needs 3" in seen.clusters[0].why or "needs 24" in seen.clusters[0].why


def test_what_nodes_were_worth_something_for_is_that_of_the_moment() -> None:
    pump = fleet(groups=10)
    early, late = placed(pump)[0][0], placed(pump)[-1][0]
    first, last = sight(pump.store, early), sight(pump.store, late)
    assert first is not None
    assert last is not None
    assert first.mix == ()  # eight arrivals before anything is looked at
    ((cpu, gpus, milli, products, share),) = [msgspec.structs.astuple(kind) for kind in last.mix]
    assert (cpu, gpus, milli, products, share) == (0, 8, 1000, (), 1000)


def test_for_a_record_that_is_no_decision_the_last_cycle_before_it_is_shown() -> None:
    pump = fleet(groups=2)
    uid = pump.submit("large", pods=11)
    position = int(uid.rpartition(".")[2])
    pump.run(3.0)
    seen = sight(pump.store, position)
    assert seen is not None
    assert (seen.record, seen.uid) == ("Submitted", "")
    assert [cluster.answer for cluster in seen.clusters] == ["open", "open"]


@pytest.mark.parametrize("at", [0, 1 << 40])
def test_where_no_tape_tells_nothing_is_shown(at: int) -> None:
    pump = fleet(groups=1, rhythm=TapeRhythm(on=False))
    assert sight(pump.store, at) is None


def test_changes_on_tape_are_smaller_than_what_is_told_whole() -> None:
    pump = fleet(groups=6)
    items = [item for name in reels(pump.store) for item in decode_items(read(pump.store, name))]
    assert sum(isinstance(item, Nodes) for item in items) <= 4
    assert sum(isinstance(item, Changes) for item in items) >= 4


def test_a_divided_spread_group_and_groups_that_rather_do_not_fail_together_are_decided_again_alike() -> None:
    pump = started(tape=RHYTHM)
    pump.join("a", "b", "c", nodes=4)
    group = pod_group("web", pods=7, spread={"clusters": {"min": 2, "max": 4}, "min_per_cluster": 2})
    assert isinstance(pump.ask(SubmitGroup(group, "r-1", "sara")), Accepted)
    pump.run(1.5)
    for number in range(3):
        pump.submit(f"chat-{number}", failure_spread="chat")
        pump.run(1.5)
    pump.members["a"].verdict(pump.state.names["default", "web-1"], "Released", reasons=("Drained",))
    pump.run(5.0)
    assert [one.cluster for _, one in placed(pump)] == ["a", "b", "c", "a", "b", "c", "a"]
    found = replay(pump.store, Stretch())
    assert (found.decisions, found.equal, found.different, found.not_covered) == (7, 7, 0, {})
