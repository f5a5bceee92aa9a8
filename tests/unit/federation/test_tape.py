"""The tape as the leader writes it: everything once, then changes; bounded, with a mark where something is missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from federation.core.ids import Ids
from federation.core.lineup import Lineup
from federation.core.placing import SeenView
from federation.core.state import State
from federation.core.tape import CLUSTER_BYTES, CYCLE_BYTES, NAME_BYTES, Looked, Moment, Tape
from federation.core.tape_store import ATTEMPTS_MAX, IN_FLIGHT_MAX, RETRY_S, TapeRhythm
from federation.core.taped import (
    NODES_PER_ITEM_MAX,
    AnyItem,
    Changes,
    Cycle,
    Gate,
    Nodes,
    UnreadableReelError,
    WriteReel,
    creation,
    decode_items,
    encode_items,
    write_reel,
)
from placement.engine import Bounds, Place, Plan, Policy
from placement.fleet import ClusterView, Fleet, NodeRow
from placement.model import ClusterName, FenceStrength, GroupUid, Position
from placement.worth import NodePolicy
from storage.backends.memory import MemoryStore
from storage.blob import BlobCreate, BlobFailed, BlobName, BlobWritten, Outcome, perform
from storage.entry import position
from storage.root import SnapshotPointer
from storage.snapshot import ShardRef
from storage.tape import ReelName, decode_reel, list_reels
from storage.tape_state import copied_states
from tests.builders import cluster, fleet, node, nodes

GOLDEN = Path(__file__).parents[2] / "golden" / "tape" / "v1-reel.bin"
LINEAGE = "1764093600000-tape"
AT_MS = 1_764_093_600_000
A = ClusterName("a")
ALL_OPEN = Gate.SEEN | Gate.ADMITTED


@dataclass
class Recorder:
    """A tape, the cycles that are told to it, and a store that takes its reels."""

    rhythm: TapeRhythm = field(default_factory=TapeRhythm)
    store: MemoryStore = field(default_factory=MemoryStore)
    policy: Policy = field(default_factory=Policy)
    seq: int = 10
    now_s: float = 100.0

    def __post_init__(self) -> None:
        self.tape = Tape(Ids("boot"), self.rhythm, self.policy)
        self.tape.lead(LINEAGE, term=3)

    def cycle(self, looked: Fleet, *, whole: bool = True, places: Iterable[Place] = (), **facts: Any) -> None:
        """One cycle, a second after the one before."""
        self.seq += 1
        self.now_s += 1.0
        moment = Moment(Position(position(self.seq)), AT_MS + self.seq * 1_000, self.now_s)
        lineup = Lineup()
        lineup.update(State(LINEAGE), lambda _uid: frozenset())
        self.tape.begins(moment, lineup, whole=whole)
        plan = Plan(tuple(places), (), evaluations=len(looked), exhausted=False, policy_version=1)
        given: dict[str, Any] = {"bounds": Bounds(200_000, gains=self.seq), "held": (), "shy": {}, "seen": {}}
        self.tape.ended(moment, Looked(looked, **(given | facts)), plan)

    def write(self, now_s: float | None = None) -> list[ReelName]:
        """All that is due in the store; the names of the reels."""
        wishes = self.tape.tick(self.now_s if now_s is None else now_s)
        while wishes:
            wish = wishes.pop(0)
            self.tape.handle(write_reel(self.store, wish), self.now_s)
            wishes += self.tape.tick(self.now_s)
        return list(list_reels(self.store))

    def items(self) -> list[AnyItem]:
        """Everything on tape, in order; what is open is closed."""
        self.write(self.now_s + self.rhythm.write_every_s)
        found: list[AnyItem] = []
        for name in list_reels(self.store):
            blob = self.store.get(name.blob)
            assert blob is not None
            found += decode_items(decode_reel(name, blob.data)[1])
        return found

    def cycles(self) -> list[Cycle]:
        return [item for item in self.items() if isinstance(item, Cycle)]


def with_free(view: ClusterView, **gpus: int) -> ClusterView:
    """The cluster after a report on some of its nodes."""
    rows = [row._replace(gpus_free=gpus[row.name]) for row in view.table.rows() if row.name in gpus]
    return replace(view, table=view.table.with_changes(rows))


# --- what is told ---------------------------------------------------------------------------------------------------


def test_the_first_cycle_of_a_term_tells_every_node_and_what_the_engine_remembers() -> None:
    recorder = Recorder()
    recorder.cycle(fleet(a=16, b=8))
    first, second, cycle = recorder.items()
    assert isinstance(first, Nodes)
    assert isinstance(second, Nodes)
    assert isinstance(cycle, Cycle)
    assert ([place.name for place in first.places], first.gpus_free, first.more) == (["n000", "n001"], (8, 8), False)
    assert (second.cluster, second.gpus_free, second.cpu_milli) == ("b", (8,), (64_000,))
    assert (cycle.head, cycle.gains, cycle.budget, cycle.evaluations) == (position(11), 11, 200_000, 2)
    assert cycle.gates == {"a": (ALL_OPEN, 0.0), "b": (ALL_OPEN, 0.0)}
    assert cycle.base is not None
    assert (cycle.base.policy, cycle.base.pass_open, cycle.base.missed) == (Policy(), False, 0)


def test_what_has_not_changed_is_not_told_again() -> None:
    recorder = Recorder()
    seen = fleet(a=16, b=8)
    recorder.cycle(seen)
    recorder.cycle(seen)
    assert [type(item) for item in recorder.items()] == [Nodes, Nodes, Cycle, Cycle]
    assert recorder.cycles()[1].gates == {}


def test_nodes_that_changed_are_told_by_their_place_in_the_table() -> None:
    recorder = Recorder()
    view = cluster("a", nodes(24))
    recorder.cycle(Fleet([view]))
    recorder.cycle(Fleet([with_free(view, n001=3)]))
    changes = recorder.items()[2]
    assert changes == Changes(cluster="a", nodes=(1,), gpus_free=(3,), cpu_milli=(64_000,), memory_mib=(524_288,))


def test_a_node_that_is_again_as_it_was_is_told_again() -> None:
    recorder = Recorder()
    view = cluster("a", nodes(16))
    recorder.cycle(Fleet([view]))
    recorder.cycle(Fleet([with_free(view, n001=3)]))
    recorder.cycle(Fleet([view]))
    told = [item for item in recorder.items() if isinstance(item, Changes)]
    assert [(item.nodes, item.gpus_free) for item in told] == [((1,), (3,)), ((1,), (8,))]


def test_what_is_taken_from_a_table_between_cycles_is_told() -> None:
    recorder = Recorder()
    view = cluster("a", nodes(16))
    recorder.cycle(Fleet([view]))
    view.table.free[0, 1] = 5
    view.table.version += 1
    recorder.cycle(Fleet([view]))
    changes = recorder.items()[2]
    assert isinstance(changes, Changes)
    assert (changes.nodes, changes.gpus_free) == ((1,), (5,))


def test_totals_and_usability_are_told_where_they_change() -> None:
    recorder = Recorder()
    view = cluster("a", node("n0"), node("n1"))
    recorder.cycle(Fleet([view]))
    worse = replace(view, table=view.table.with_changes([node("n1", gpus=4, usable=False)]))
    recorder.cycle(Fleet([worse]))
    changes = recorder.items()[2]
    assert isinstance(changes, Changes)
    assert (changes.nodes, changes.gpus_free, changes.gpus, changes.usable) == ((1,), (4,), (4,), (False,))


def test_parts_of_gpus_are_told_with_their_kinds_and_then_as_they_change() -> None:
    recorder = Recorder()
    cut = node("n1")._replace(devices=(("1g.10gb", 7, 7), ("shared/4", 8, 8)))
    view = cluster("a", node("n0"), cut)
    recorder.cycle(Fleet([view]))
    held = view.table.with_changes([cut._replace(devices=(("1g.10gb", 7, 5), ("shared/4", 8, 8)))])
    recorder.cycle(Fleet([replace(view, table=held)]))
    recut = held.with_changes([cut._replace(devices=(("3g.40gb", 2, 2),))])
    recorder.cycle(Fleet([replace(view, table=recut)]))
    whole, changes, anew = [item for item in recorder.items() if not isinstance(item, Cycle)]
    assert isinstance(whole, Nodes)
    assert (whole.kinds, whole.devices_free, whole.devices) == (
        ("1g.10gb", "shared/4"),
        ((0, 7), (0, 8)),
        ((0, 7), (0, 8)),
    )
    assert isinstance(changes, Changes)
    assert (changes.nodes, changes.devices_free, changes.devices) == ((1,), ((5,), (8,)), ())
    assert isinstance(anew, Nodes)
    assert (anew.kinds, anew.devices) == (("3g.40gb",), ((0, 2),))


def test_a_cluster_with_other_nodes_is_told_whole() -> None:
    recorder = Recorder()
    recorder.cycle(Fleet([cluster("a", nodes(16))]))
    recorder.cycle(Fleet([cluster("a", nodes(24))]))
    again = recorder.items()[2]
    assert isinstance(again, Nodes)
    assert len(again.places) == 3


@pytest.mark.parametrize(("count", "sizes"), [(NODES_PER_ITEM_MAX, [500]), (NODES_PER_ITEM_MAX + 1, [500, 1])])
def test_a_large_cluster_is_told_in_items_that_fit_into_a_reel(count: int, sizes: list[int]) -> None:
    recorder = Recorder()
    recorder.cycle(Fleet([cluster("a", nodes(8 * count))]))
    told = [item for item in recorder.items() if isinstance(item, Nodes)]
    assert [len(item.places) for item in told] == sizes
    assert [item.more for item in told] == [True] * (len(sizes) - 1) + [False]


def test_gates_and_what_groups_avoid_are_told_when_they_change() -> None:
    recorder = Recorder()
    view, uid = cluster("a", nodes(8)), GroupUid("g")
    recorder.cycle(Fleet([view]), shy={uid: frozenset({A})})
    recorder.cycle(Fleet([replace(view, silent=True, stale=True, view_age_s=31.5)]), shy={uid: frozenset({A})})
    recorder.cycle(Fleet([replace(view, tripped=True)]), shy={uid: frozenset({A})})
    recorder.cycle(Fleet([replace(view, half_open=True)]), shy={uid: frozenset({A})})
    recorder.cycle(Fleet([]), whole=False)
    first, second, open_, half_open, third = recorder.cycles()
    assert first.avoid == {"g": ("a",)}
    assert (second.avoid, second.gates) == ({}, {"a": (ALL_OPEN | Gate.SILENT | Gate.STALE, 31.5)})
    assert (open_.gates, half_open.gates) == (
        {"a": (ALL_OPEN | Gate.TRIPPED, 0.0)},
        {"a": (ALL_OPEN | Gate.HALF_OPEN, 0.0)},
    )
    assert (third.avoid, third.gates) == ({"g": ()}, {"a": (0, 0.0)})


THOUSAND = tuple(ClusterName(f"c-{number:03}") for number in range(1_000))


@pytest.mark.parametrize(
    ("avoided", "named", "but"),
    [
        (THOUSAND[3:], None, THOUSAND[:3]),
        (THOUSAND, None, ()),
        (THOUSAND[:16], THOUSAND[:16], None),
        (THOUSAND[:500], THOUSAND[:500], None),
        (THOUSAND[:501], None, THOUSAND[501:]),
        ((*THOUSAND, "left"), (*THOUSAND, "left"), None),
    ],
    ids=["all but three", "all", "a few", "half", "a little more", "one that is not in the fleet"],
)
def test_who_avoids_most_of_many_clusters_is_told_by_those_that_it_does_not_avoid(
    avoided: tuple[ClusterName, ...], named: tuple[str, ...] | None, but: tuple[str, ...] | None
) -> None:
    recorder = Recorder()
    recorder.cycle(fleet(a=8), shy={GroupUid("g"): frozenset(avoided)}, clusters=dict.fromkeys(THOUSAND))
    recorder.cycle(fleet(a=8), clusters=dict.fromkeys(THOUSAND))
    first, second = recorder.cycles()
    assert (first.avoid.get("g"), first.avoid_but.get("g")) == (named, but)
    assert (second.avoid, second.avoid_but) == ({"g": ()}, {})


def test_two_hundred_that_may_go_to_three_of_a_thousand_clusters_are_told_in_a_few_kilobytes() -> None:
    """It was 13 KB for each: 2.6 MB in one cycle, which counted as 10 KB; with 1,300 of them no store took the reel."""
    recorder = Recorder()
    shy = {GroupUid(f"l.{number}"): frozenset(THOUSAND[3:]) for number in range(200)}
    recorder.cycle(fleet(a=8), shy=shy, clusters=dict.fromkeys(THOUSAND))
    (cycle,) = recorder.cycles()
    assert len(encode_items([cycle])) < 10_000


def test_what_groups_avoid_by_name_counts_as_what_it_takes() -> None:
    plain, shy = Recorder(), Recorder()
    plain.cycle(fleet(a=8))
    shy.cycle(fleet(a=8), shy={GroupUid("l.1"): frozenset(THOUSAND[:500])}, clusters=dict.fromkeys(THOUSAND))
    assert shy.tape.bytes_held - plain.tape.bytes_held == NAME_BYTES + 500 * CLUSTER_BYTES


def test_a_cycle_says_whom_it_passed_over_and_what_the_batch_had_no_room_for() -> None:
    recorder = Recorder()
    seen = {A: SeenView(2, 7, FenceStrength.GUARD)}
    recorder.cycle(fleet(a=8), held=[GroupUid("h")], seen=seen)
    recorder.tape.not_taken("g")
    (cycle,) = recorder.cycles()
    assert (cycle.held, cycle.not_taken, cycle.views) == (("h",), ("g",), {"a": (2, 7, "guard")})


# --- bases ----------------------------------------------------------------------------------------------------------


def test_a_new_base_comes_after_half_an_hour_so_that_no_replay_goes_back_further() -> None:
    recorder = Recorder()
    recorder.cycle(fleet(a=8))
    recorder.now_s += 1_798.0
    recorder.cycle(fleet(a=8))
    recorder.cycle(fleet(a=8))
    assert [cycle.base is not None for cycle in recorder.cycles()] == [True, False, True]
    assert [name.base for name in list_reels(recorder.store)] == [True, True]


def test_a_base_in_the_midst_of_a_term_waits_for_a_cycle_that_sees_every_cluster() -> None:
    recorder = Recorder()
    recorder.cycle(fleet(a=8, b=8))
    recorder.now_s += 3_600.0
    recorder.cycle(fleet(a=8), whole=False)
    recorder.cycle(fleet(a=8, b=8))
    assert [cycle.base is not None for cycle in recorder.cycles()] == [True, False, True]


def test_the_next_term_begins_with_a_base_and_counts_its_reels_anew() -> None:
    recorder = Recorder()
    recorder.cycle(fleet(a=8))
    recorder.tape.follow()
    recorder.cycle(fleet(a=8))  # not while it follows
    recorder.tape.lead(LINEAGE, term=5)
    recorder.cycle(fleet(a=8))
    recorder.items()
    assert [(name.term, name.number, name.base) for name in list_reels(recorder.store)] == [(3, 1, True), (5, 1, True)]


def test_a_tape_that_is_off_writes_nothing() -> None:
    recorder = Recorder(TapeRhythm(on=False))
    recorder.cycle(fleet(a=8))
    assert (recorder.items(), recorder.tape.due_s) == ([], float("inf"))
    assert recorder.tape.snapshot_taken(POINTER, PARTS, recorder.now_s, AT_MS) == []


# --- limits ---------------------------------------------------------------------------------------------------------


def test_what_fits_into_the_buffer_is_kept_and_a_byte_more_is_left_out_and_counted() -> None:
    probe = Recorder()
    probe.cycle(fleet(a=8))
    needed = probe.tape.bytes_held
    for room, kept in ((needed, 1), (needed - 1, 0)):
        recorder = Recorder(TapeRhythm(buffer_bytes_max=room))
        recorder.cycle(fleet(a=8))
        assert (recorder.tape.cycles_count, recorder.tape.missed_count) == (kept, 1 - kept)


def test_after_cycles_that_were_left_out_the_tape_goes_on_with_a_base_that_says_how_many() -> None:
    probe = Recorder()
    probe.cycle(fleet(a=8))
    recorder = Recorder(TapeRhythm(buffer_bytes_max=probe.tape.bytes_held))
    recorder.cycle(fleet(a=8))  # fills the buffer
    for _ in range(3):
        recorder.cycle(fleet(a=8))
    recorder.write(recorder.now_s + 5.0)  # now there is room again
    recorder.cycle(fleet(a=8))  # too early for a base
    recorder.now_s += 10.0
    recorder.cycle(fleet(a=8))
    first, second = recorder.cycles()
    assert first.base is not None
    assert second.base is not None
    assert (first.base.missed, second.base.missed, recorder.tape.missed_count) == (0, 4, 4)
    assert recorder.tape.bytes_held == 0


def test_a_reel_is_closed_before_it_grows_too_large() -> None:
    recorder = Recorder(TapeRhythm(reel_bytes=2 * CYCLE_BYTES))
    for _ in range(6):
        recorder.cycle(fleet())
    recorder.items()
    assert [(name.number, name.base) for name in list_reels(recorder.store)] == [(1, True), (2, False), (3, False)]


def test_a_reel_is_written_five_seconds_after_its_first_cycle() -> None:
    recorder = Recorder()
    recorder.cycle(fleet(a=8))
    began_s = recorder.now_s
    recorder.cycle(fleet(a=8))
    assert recorder.tape.due_s == began_s + 5.0
    assert recorder.tape.tick(began_s + 4.9) == []
    assert len(recorder.tape.tick(began_s + 5.0)) == 1
    assert recorder.tape.due_s == float("inf")


def test_few_reels_are_on_their_way_at_once() -> None:
    recorder = Recorder(TapeRhythm(reel_bytes=1))
    for _ in range(5):
        recorder.cycle(fleet())
    first = recorder.tape.tick(recorder.now_s)
    assert len(first) == IN_FLIGHT_MAX
    assert recorder.tape.tick(recorder.now_s) == []
    recorder.tape.handle(write_reel(recorder.store, first[0]), recorder.now_s)
    assert len(recorder.tape.tick(recorder.now_s)) == 1


# --- the store does not answer --------------------------------------------------------------------------------------


def sent(recorder: Recorder) -> WriteReel:
    recorder.cycle(fleet(a=8))
    (wish,) = recorder.tape.tick(recorder.now_s + 5.0)
    return wish


def test_a_write_of_unknown_outcome_is_tried_again_with_the_same_bytes() -> None:
    recorder = Recorder()
    wish = sent(recorder)
    recorder.tape.handle(BlobWritten(wish.op, Outcome.UNKNOWN), recorder.now_s)
    (again,) = recorder.tape.tick(recorder.now_s + RETRY_S)
    first, second = creation(wish), creation(again)
    assert isinstance(first, BlobCreate)
    assert isinstance(second, BlobCreate)
    assert (first.name, first.data) == (second.name, second.data)
    recorder.tape.handle(BlobWritten(again.op, Outcome.REFUSED), recorder.now_s)  # the first one had landed
    assert (recorder.tape.bytes_held, recorder.tape.lost_count) == (0, 0)


def test_a_reel_that_no_attempt_brings_into_the_store_is_lost_and_a_base_follows() -> None:
    recorder = Recorder()
    wish = sent(recorder)
    for _ in range(ATTEMPTS_MAX - 1):
        recorder.tape.handle(BlobWritten(wish.op, Outcome.UNKNOWN), recorder.now_s)
        (wish,) = recorder.tape.tick(recorder.now_s + RETRY_S)
    recorder.tape.handle(BlobWritten(wish.op, Outcome.UNKNOWN), recorder.now_s)
    assert (recorder.tape.bytes_held, recorder.tape.lost_count) == (0, 1)
    recorder.now_s += 10.0
    recorder.cycle(fleet(a=8))
    (cycle,) = recorder.cycles()
    assert cycle.base is not None
    assert cycle.base.missed == 1


def test_a_reel_that_no_store_takes_is_lost() -> None:
    recorder = Recorder()
    wish = sent(recorder)
    recorder.tape.handle(BlobFailed(wish.op, "too large"), recorder.now_s)
    assert recorder.tape.lost_count == 1


def test_at_the_end_of_the_process_all_that_is_left_can_be_written() -> None:
    recorder = Recorder()
    recorder.cycle(fleet(a=8))
    (wish,) = recorder.tape.rest()
    assert (wish.reel.name.number, wish.reel.cycles) == (1, 1)


# --- states ---------------------------------------------------------------------------------------------------------

PARTS = tuple(ShardRef(f"snapshot/0000000000000009/part-{at}", b"") for at in range(3))
POINTER = SnapshotPointer(9, 3, b"digest")


def snapshotted() -> Recorder:
    """Its store holds the parts of a snapshot, and the INDEX."""
    recorder = Recorder()
    for name in (*(part.name for part in PARTS), "snapshot/0000000000000009/INDEX"):
        recorder.store.create(BlobName(name), name.encode())
    return recorder


def keep(recorder: Recorder, *, lose: str = "") -> int:
    """One offer of the snapshot; how many parts were copied. The write of `lose` has no known outcome."""
    effects = recorder.tape.snapshot_taken(POINTER, PARTS, recorder.now_s, AT_MS)
    written = 0
    while effects:
        effect = effects.pop(0)
        event = perform(recorder.store, effect)
        if isinstance(effect, BlobCreate):
            written += 1
            if lose and effect.data == lose.encode():
                event = BlobWritten(effect.op, Outcome.UNKNOWN)
        effects += recorder.tape.handle(event, recorder.now_s)
    return written


def test_a_snapshot_is_copied_with_its_index_last() -> None:
    recorder = snapshotted()
    effects = recorder.tape.snapshot_taken(POINTER, PARTS, recorder.now_s, AT_MS)
    order: list[bytes] = []
    while effects:
        effect = effects.pop(0)
        order += [effect.data[-6:]] if isinstance(effect, BlobCreate) else []
        effects += recorder.tape.handle(perform(recorder.store, effect), recorder.now_s)
    assert order == [b"part-0", b"part-1", b"part-2", b"/INDEX"]
    assert [(name.seq, name.number) for name in list_reels(recorder.store)] == [(9, 0), (9, 1), (9, 2), (9, 3)]


def test_the_next_copy_is_made_an_hour_later() -> None:
    recorder = snapshotted()
    assert keep(recorder) == 4
    recorder.now_s += 3_599.0
    assert keep(recorder) == 0
    recorder.now_s += 1.0
    assert keep(recorder) == 4


@pytest.mark.parametrize("lost", [PARTS[1].name, "snapshot/0000000000000009/INDEX"])
def test_after_a_copy_that_came_to_nothing_the_next_snapshot_is_copied(lost: str) -> None:
    recorder = snapshotted()
    keep(recorder, lose=lost)
    assert keep(recorder) == 4


def test_a_part_that_was_collected_meanwhile_ends_the_copy() -> None:
    recorder = snapshotted()
    recorder.store.delete(BlobName(PARTS[2].name))
    assert keep(recorder) == 2
    assert copied_states(list_reels(recorder.store)) == []


def test_a_follower_copies_nothing() -> None:
    recorder = snapshotted()
    recorder.tape.follow()
    assert keep(recorder) == 0


# --- the format -----------------------------------------------------------------------------------------------------


def golden() -> Recorder:
    """A base and a change, as the golden file holds them."""
    recorder = Recorder(policy=Policy(version=1, used_after_weight=1, preferred_met_weight=20_000))
    rows = [
        NodeRow("n0", "A100", 8, 8, 64_000, 64_000, 512_000, 512_000, "c0", "r0", "b0", "z0"),
        NodeRow("n1", "H100", 8, 2, 64_000, 32_000, 512_000, 256_000, "c1", "r0", "b0", "z0", usable=False),
    ]
    view = cluster("eu", rows)
    recorder.cycle(Fleet([view, cluster("us", fenced=True)]), shy={GroupUid("g"): frozenset({A})})
    recorder.cycle(Fleet([with_free(view, n0=3)]), held=[GroupUid("h")], seen={A: SeenView(2, 7, FenceStrength.NONE)})
    recorder.tape.not_taken("g")
    return recorder


def test_the_format_of_the_first_version_is_read_for_ever() -> None:
    name = ReelName(seq=11, wall_ms=AT_MS + 11_000, term=3, number=1, kind="base")
    lineage, raw = decode_reel(name, GOLDEN.read_bytes())
    assert lineage == LINEAGE
    first, *others = [item for item in decode_items(raw) if isinstance(item, Cycle)]
    assert first.base is not None
    assert first.base.node_policy == NodePolicy(hosted_weight=1, shares_weight=8, order_weight=4)
    today = golden().cycles()[0].base
    assert today is not None
    base = msgspec.structs.replace(first.base, node_policy=today.node_policy)
    told = [item for item in decode_items(raw) if not isinstance(item, Cycle)]
    assert [item for item in golden().items() if not isinstance(item, Cycle)] == told
    assert golden().cycles() == [msgspec.structs.replace(first, base=base), *others]


def test_what_later_versions_add_is_ignored() -> None:
    items = [{"kind": "Cycle", "head": 1, "at_ms": 2, "now_s": 3.0, "budget": 4, "gains": 5, "places_max": 6}]
    items[0] |= {"moves_max": 7, "added_later": {"much": True}}
    (cycle,) = decode_items(encode_items(items))  # type: ignore[arg-type]
    assert isinstance(cycle, Cycle)
    assert (cycle.moves_max, cycle.base) == (7, None)


def test_a_payload_of_something_else_is_unreadable() -> None:
    with pytest.raises(UnreadableReelError):
        decode_items(b"\x93\x01\x02\x03")
