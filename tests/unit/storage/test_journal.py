"""The journal of one server when the store answers plainly: opening, appending, following, leading."""

import pytest

from storage.blob import BlobCreate, BlobGet, BlobListed, BlobRead, OpId
from storage.election import JournalTimings, Role
from storage.entry import EntryHeader, EntryKind, digest, encode_entry, entry_name, position
from storage.errors import CorruptError, LimitError, LocalProtocolError, UnsupportedFormatError
from storage.journal import (
    UNCONFIRMED_MAX,
    FellBehind,
    Journal,
    JournalOpened,
    LeadershipLost,
    LeadershipWon,
    LineageChanged,
)
from storage.root import FORMAT, ROOT_NAME, Root, SnapshotPointer
from tests.unit.storage.bench import SPARING, Bench, name_of


def put_entry(
    bench: Bench, seq: int, *, term: int, kind: EntryKind, prev: bytes, records: tuple[bytes, ...] = ()
) -> bytes:
    """Store an entry by hand and return its digest."""
    header = EntryHeader(
        seq=seq, term=term, kind=kind, writer="hand", nonce=f"hand-{seq}", prev_digest=prev, count=len(records)
    )
    data = encode_entry(header, records)
    bench.store.create(entry_name(seq), data)
    return digest(data)


def test_the_first_server_creates_the_root_and_leads_at_once() -> None:
    bench = Bench()
    server = bench.leader("a")
    assert bench.root() == Root(format=FORMAT, lineage="from-a", nonce="a1")
    assert server.news[0] == JournalOpened("from-a", None)
    assert [(entry.seq, entry.kind, entry.own) for entry in server.entries] == [(1, EntryKind.TERM, True)]
    assert server.other_news() == [LeadershipWon(1)]
    assert server.journal.lineage == "from-a"


def test_a_journal_that_exists_keeps_its_lineage() -> None:
    bench = Bench()
    bench.leader("a")
    assert bench.follower("b").journal.lineage == "from-a"


def test_a_batch_lands_whole_in_order_and_at_positions_that_follow() -> None:
    bench = Bench()
    leader = bench.leader("a")
    leader.append(b"one", b"two", b"three")
    entry = leader.entries[-1]
    assert entry.records == (b"one", b"two", b"three")
    assert entry.first_position == position(2) == 16_384
    assert leader.journal.head_position == 16_386
    assert leader.journal.next_seq == 3


def test_every_server_sees_the_same_entries() -> None:
    bench = Bench()
    leader = bench.leader("a")
    leader.append(b"one")
    leader.append(b"two", b"three")
    follower = bench.follower("b")
    leader.append(b"four")
    bench.run(follower, until_s=1.5)
    assert follower.records == [b"one", b"two", b"three", b"four"]
    assert [entry.first_position for entry in follower.entries] == [entry.first_position for entry in leader.entries]
    assert not any(entry.own for entry in follower.entries)
    assert follower.journal.head_position == leader.journal.head_position


def test_nothing_is_reported_before_the_root_was_read_after_the_create() -> None:
    leader = Bench().leader("a")
    leader.propose(b"one")
    assert isinstance(leader.effect, BlobCreate)
    leader.step()
    assert isinstance(leader.effect, BlobGet)
    assert leader.effect.name == ROOT_NAME
    assert leader.landed == []
    leader.step()
    assert leader.landed == [b"one"]


def test_one_batch_is_in_flight_at_a_time() -> None:
    leader = Bench().leader("a")
    assert leader.journal.can_append
    leader.propose(b"one")
    assert not leader.journal.can_append
    with pytest.raises(LocalProtocolError):
        leader.propose(b"two")
    leader.step()
    assert not leader.journal.can_append
    leader.step()
    assert leader.journal.can_append


def test_a_follower_cannot_append() -> None:
    bench = Bench()
    bench.leader("a")
    with pytest.raises(LocalProtocolError):
        bench.follower("b").propose(b"one")


def test_an_append_of_nothing_is_a_bug() -> None:
    leader = Bench().leader("a")
    with pytest.raises(LocalProtocolError):
        leader.propose()


def test_a_batch_beyond_the_limit_is_refused_and_the_leader_goes_on() -> None:
    leader = Bench().leader("a")
    with pytest.raises(LimitError):
        leader.propose(*[b"x"] * 4_097)
    leader.append(*[b"x"] * 4_096)
    assert len(leader.landed) == 4_096


def test_an_answer_nobody_waits_for_is_a_bug() -> None:
    leader = Bench().leader("a")
    with pytest.raises(LocalProtocolError):
        leader.journal.handle(BlobRead(OpId(1), None), 0.0)
    leader.propose(b"one")
    assert leader.effect is not None
    with pytest.raises(LocalProtocolError):
        leader.journal.handle(BlobListed(leader.effect.op, ()), 0.0)


def test_a_journal_starts_once() -> None:
    leader = Bench().leader("a")
    with pytest.raises(LocalProtocolError):
        leader.begin()


def test_an_idle_leader_shows_every_five_seconds_that_it_lives() -> None:
    bench = Bench()
    leader = bench.leader("a")
    bench.run(leader, until_s=10.5)
    assert [entry.kind for entry in leader.entries] == [EntryKind.TERM, EntryKind.HEARTBEAT, EntryKind.HEARTBEAT]
    assert leader.journal.wake_at_s == 15.0


def test_a_busy_leader_needs_no_heartbeat() -> None:
    bench = Bench()
    leader = bench.leader("a")
    for second in range(1, 9):
        bench.run(leader, until_s=float(second))
        leader.append(b"work")
    assert [entry.kind for entry in leader.entries] == [EntryKind.TERM] + [EntryKind.BATCH] * 8


def test_a_hint_makes_a_follower_look_at_once() -> None:
    bench = Bench()
    leader = bench.leader("a")
    follower = bench.follower("b")
    leader.append(b"one")
    follower.hint()
    follower.settle()
    assert bench.now_s == 0.0
    assert follower.records == [b"one"]


def test_a_hint_during_a_look_makes_it_look_again() -> None:
    bench = Bench()
    leader = bench.leader("a")
    follower = bench.follower("b")
    follower.hint()
    assert follower.effect is not None
    answer_from_before = BlobRead(follower.effect.op, None)
    leader.append(b"one")
    follower.hint()
    follower.answer(answer_from_before)
    follower.settle()
    assert follower.records == [b"one"]


def test_a_follower_that_was_told_the_number_reads_the_entry_and_the_root_and_no_more() -> None:
    bench = Bench()
    leader = bench.leader("a")
    follower = bench.follower("b")
    leader.append(b"one")
    follower.hint(2)
    assert name_of(follower.effect) == entry_name(2)
    follower.step()
    assert name_of(follower.effect) == ROOT_NAME
    follower.step()
    assert follower.records == [b"one"]
    assert follower.effect is None


def test_a_follower_reads_on_to_the_newest_entry_it_was_told_of() -> None:
    bench = Bench()
    leader = bench.leader("a")
    follower = bench.follower("b")
    leader.append(b"one")
    leader.append(b"two")
    follower.hint(2)
    follower.step()
    follower.hint(3)
    follower.settle()
    assert follower.records == [b"one", b"two"]


def test_a_hint_of_an_entry_that_was_read_changes_nothing() -> None:
    bench = Bench()
    leader = bench.leader("a")
    follower = bench.follower("b")
    leader.append(b"one")
    follower.hint(2)
    follower.settle()
    follower.hint(2)
    assert follower.effect is None


def test_a_hint_of_an_entry_that_does_not_exist_costs_one_look_and_is_forgotten() -> None:
    bench = Bench()
    leader = bench.leader("a")
    follower = bench.follower("b")
    follower.hint(2**62)
    follower.settle()
    assert follower.journal.wake_at_s == bench.now_s + JournalTimings().poll_s
    leader.append(b"one")
    follower.hint(2)
    follower.step()
    assert name_of(follower.effect) == ROOT_NAME


def test_a_hint_to_a_leader_changes_nothing() -> None:
    leader = Bench().leader("a")
    leader.hint()
    assert leader.effect is None


def test_a_long_replay_reads_the_root_once_per_sixty_four_entries() -> None:
    bench = Bench()
    leader = bench.leader("a")
    for number in range(2 * UNCONFIRMED_MAX):
        leader.append(b"%d" % number)
    reader = bench.server("b")
    reader.begin()
    root_read_count = 0
    while reader.effect is not None:
        root_read_count += name_of(reader.effect) == ROOT_NAME
        reader.step()
    assert len(reader.records) == 128
    assert root_read_count == 4  # to open, twice for 64, and for the entry that remained


def test_a_void_entry_is_reported_as_void_and_leaves_the_term() -> None:
    bench = Bench()
    bench.set_root(Root(format=FORMAT, lineage="l", nonce="n"))
    tail = put_entry(bench, 1, term=1, kind=EntryKind.TERM, prev=bytes(32))
    tail = put_entry(bench, 2, term=2, kind=EntryKind.TERM, prev=tail)
    tail = put_entry(bench, 3, term=1, kind=EntryKind.BATCH, prev=tail, records=(b"from a leader long deposed",))
    tail = put_entry(bench, 4, term=2, kind=EntryKind.TERM, prev=tail)
    put_entry(bench, 5, term=2, kind=EntryKind.BATCH, prev=tail, records=(b"stands",))
    follower = bench.follower("b")
    assert [entry.void for entry in follower.entries] == [False, False, True, True, False]
    assert follower.records == [b"stands"]
    assert follower.journal.term == 2


def test_an_entry_of_a_term_nobody_won_stops_the_reader() -> None:
    bench = Bench()
    bench.set_root(Root(format=FORMAT, lineage="l", nonce="n"))
    tail = put_entry(bench, 1, term=1, kind=EntryKind.TERM, prev=bytes(32))
    put_entry(bench, 2, term=2, kind=EntryKind.BATCH, prev=tail, records=(b"r",))
    with pytest.raises(CorruptError) as caught:
        bench.server("b").start()
    assert caught.value.seq == 2


def test_an_entry_that_does_not_continue_the_chain_stops_the_reader() -> None:
    bench = Bench()
    bench.set_root(Root(format=FORMAT, lineage="l", nonce="n"))
    put_entry(bench, 1, term=1, kind=EntryKind.TERM, prev=bytes(32))
    put_entry(bench, 2, term=1, kind=EntryKind.BATCH, prev=bytes(32), records=(b"r",))
    with pytest.raises(CorruptError) as caught:
        bench.server("b").start()
    assert caught.value.seq == 2


def test_an_altered_entry_stops_the_reader_and_names_its_number() -> None:
    bench = Bench()
    leader = bench.leader("a")
    leader.append(b"one")
    blob = bench.store.get(entry_name(2))
    assert blob is not None
    bench.store.replace(entry_name(2), blob.data[:-1] + b"\x00", blob.version)
    with pytest.raises(CorruptError) as caught:
        bench.server("b").start()
    assert caught.value.seq == 2
    assert caught.value.name == entry_name(2)


def test_replay_begins_after_the_snapshot() -> None:
    bench = Bench()
    leader = bench.leader("a")
    leader.append(b"one")
    tail = digest(bench.first_bytes[entry_name(2)])
    leader.append(b"two")
    pointer = SnapshotPointer(seq=2, term=1, digest=tail)
    bench.set_root(Root(format=FORMAT, lineage="from-a", nonce="n", snapshot=pointer, gc_floor=2))
    bench.store.delete(entry_name(1))
    bench.store.delete(entry_name(2))
    reader = bench.follower("b")
    assert reader.news[0] == JournalOpened("from-a", pointer)
    assert reader.records == [b"two"]
    assert reader.journal.term == 1


def test_a_snapshot_at_the_tail_leaves_the_head_below_the_next_entry() -> None:
    bench = Bench()
    pointer = SnapshotPointer(seq=2, term=1, digest=bytes(32))
    bench.set_root(Root(format=FORMAT, lineage="l", nonce="n", snapshot=pointer, gc_floor=2))
    reader = bench.follower("b")
    assert reader.journal.next_seq == 3
    assert reader.journal.head_position == position(3) - 1


def test_a_restore_under_its_feet_stops_a_leader() -> None:
    bench = Bench()
    leader = bench.leader("a")
    bench.set_root(Root(format=FORMAT, lineage="restored", nonce="n"))
    leader.append(b"one", b"two")
    assert leader.landed == []
    assert leader.other_news()[1:] == [LeadershipLost(1, 2), LineageChanged("from-a", "restored")]
    assert leader.journal.role is Role.STOPPED
    assert leader.journal.wake_at_s is None
    assert leader.journal.tick(1e9) == []


def test_a_restore_under_its_feet_stops_a_follower_at_the_next_entry() -> None:
    bench = Bench()
    leader = bench.leader("a")
    follower = bench.follower("b")
    leader.append(b"one")
    bench.set_root(Root(format=FORMAT, lineage="restored", nonce="n"))
    follower.hint()
    follower.settle()
    assert follower.records == []
    assert follower.other_news() == [LineageChanged("from-a", "restored")]


def test_a_root_of_a_later_format_is_not_touched() -> None:
    bench = Bench()
    bench.set_root(Root(format=FORMAT + 1, lineage="l", nonce="n"))
    with pytest.raises(UnsupportedFormatError):
        bench.server("a").start()


def test_a_root_that_vanished_stops_the_server() -> None:
    bench = Bench()
    leader = bench.leader("a")
    bench.store.delete(ROOT_NAME)
    with pytest.raises(CorruptError):
        leader.append(b"one")


def test_a_follower_whose_next_entry_was_collected_says_so_instead_of_running() -> None:
    bench = Bench()
    leader = bench.leader("a")
    follower = bench.follower("b")
    leader.append(b"one")
    tail = digest(bench.first_bytes[entry_name(2)])
    pointer = SnapshotPointer(seq=2, term=1, digest=tail)
    bench.set_root(Root(format=FORMAT, lineage="from-a", nonce="n", snapshot=pointer, gc_floor=2))
    bench.store.delete(entry_name(2))
    bench.run(follower, until_s=30.0)
    assert follower.other_news() == [FellBehind(2, 2)]
    assert follower.journal.role is Role.STOPPED
    assert bench.store.get(entry_name(2)) is None


def test_equal_inputs_give_equal_bytes() -> None:
    first, second = Bench(), Bench()
    for bench in (first, second):
        leader = bench.leader("a")
        leader.append(b"one", b"two")
        bench.run(leader, until_s=20.0)
    assert first.first_bytes == second.first_bytes


def test_a_journal_does_nothing_before_it_is_started() -> None:
    journal = Journal(writer="a", nonce="n", lineage_candidate="l")
    assert journal.role is Role.STARTING
    assert journal.tick(1e9) == []
    assert journal.hint(1, 0.0) == []
    assert journal.next_seq == 1
    assert journal.head_position == 0


def test_soon_after_an_own_entry_was_sent_the_next_batch_lands_without_a_look_at_the_root() -> None:
    leader = Bench().leader("a", timings=SPARING)
    leader.propose(b"one")
    leader.step()
    assert leader.effect is None
    assert leader.landed == [b"one"]


@pytest.mark.parametrize(("later_s", "looks"), [(3.99, False), (4.0, True)])
def test_the_root_is_read_again_once_the_own_entry_before_is_a_tenth_of_the_age_that_is_kept(
    later_s: float, looks: bool
) -> None:
    bench = Bench()
    leader = bench.leader("a", timings=SPARING)
    leader.append(b"one")
    bench.now_s += 0.5
    leader.propose(b"two")
    bench.now_s += later_s - 0.5
    leader.step()
    assert (leader.effect is not None) is looks


def test_a_leader_that_is_never_idle_reads_the_root_now_and_then() -> None:
    bench = Bench()
    leader = bench.leader("a", timings=SPARING)
    looks = []
    for number in range(100):
        bench.now_s += 1.0
        leader.propose(b"%d" % number)
        leader.step()
        looks.append(leader.effect is not None)
        leader.settle()
    assert looks.count(True) == 3


def test_the_first_entry_of_a_term_counts_only_after_a_look_at_the_root() -> None:
    bench = Bench()
    server = bench.server("a", timings=SPARING)
    server.begin()
    while not isinstance(server.effect, BlobCreate) or server.effect.name == ROOT_NAME:
        server.step()
    server.step()
    assert isinstance(server.effect, BlobGet)
    assert server.effect.name == ROOT_NAME
