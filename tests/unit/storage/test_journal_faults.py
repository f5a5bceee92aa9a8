"""The journal when the store's answers are lost, late or false, and when collectors and sleepers meet."""

import pytest

import storage.journal
from storage.blob import BlobCreate, BlobGet
from storage.election import Role
from storage.entry import EntryKind, decode_entry, digest, encode_entry, entry_name
from storage.errors import CorruptError
from storage.journal import FellBehind, Journal, LeadershipLost, LeadershipWon
from storage.root import FORMAT, ROOT_NAME, Root, SnapshotPointer
from tests.unit.storage.bench import HASTY, Bench, Fate, Server, name_of


def collect_up_to(bench: Bench, seq: int, *, term: int) -> None:
    """Do what a collector does once a snapshot covers `seq`: floor first, then the deletions."""
    pointer = SnapshotPointer(seq=seq, term=term, digest=digest(bench.first_bytes[entry_name(seq)]))
    bench.set_root(Root(format=FORMAT, lineage=bench.root().lineage, nonce="gc", snapshot=pointer, gc_floor=seq))
    for number in range(1, seq + 1):
        bench.store.delete(entry_name(number))


def test_an_append_whose_answer_was_lost_is_found_and_lands_once() -> None:
    leader = Bench().leader("a")
    leader.propose(b"one")
    leader.step(Fate.REPLY_LOST)
    assert isinstance(leader.effect, BlobGet)
    assert leader.journal.stalled
    assert leader.landed == []
    leader.settle()
    assert leader.landed == [b"one"]
    assert not leader.journal.stalled
    assert leader.journal.next_seq == 3


def test_an_append_that_never_arrived_is_repeated_with_the_same_name_and_bytes() -> None:
    bench = Bench()
    leader = bench.leader("a")
    leader.propose(b"one")
    first = leader.effect
    assert isinstance(first, BlobCreate)
    leader.step(Fate.NOT_DONE)
    leader.step()
    assert leader.journal.stalled
    assert not leader.journal.can_append
    assert leader.journal.wake_at_s == 0.5
    leader.bench.now_s = 0.5
    leader.take(leader.journal.tick(0.5))
    second = leader.effect
    assert isinstance(second, BlobCreate)
    assert (second.name, second.data) == (first.name, first.data)
    leader.settle()
    assert leader.landed == [b"one"]


def test_an_append_that_lands_late_is_recognised_when_the_repeat_is_refused() -> None:
    bench = Bench()
    leader = bench.leader("a")
    leader.propose(b"one")
    leader.step(Fate.LATE)
    leader.step()
    bench.land_late()
    bench.run(leader, until_s=1.0)
    assert leader.landed == [b"one"]
    assert len(leader.entries) == 2


def test_a_refusal_with_nothing_there_is_not_believed() -> None:
    bench = Bench()
    leader = bench.leader("a")
    leader.propose(b"one")
    leader.step(Fate.CONFLICT)
    leader.settle()
    bench.run(leader, until_s=1.0)
    assert leader.landed == [b"one"]
    assert leader.other_news() == [LeadershipWon(1)]


def test_a_stalled_journal_stays_stalled_until_the_store_answers() -> None:
    bench = Bench()
    leader = bench.leader("a")
    leader.propose(b"one")
    for _ in range(20):
        leader.step(Fate.NOT_DONE)
        if leader.effect is None:
            bench.now_s += 0.5
            leader.take(leader.journal.tick(bench.now_s))
        assert leader.journal.stalled
        assert leader.journal.role is Role.LEADING
    leader.settle()
    bench.run(leader, until_s=bench.now_s + 1.0)
    assert leader.landed == [b"one"]


def test_nothing_lands_while_the_root_cannot_be_read() -> None:
    bench = Bench()
    leader = bench.leader("a")
    leader.propose(b"one")
    leader.step()
    for _ in range(3):
        leader.step(Fate.NOT_DONE)
        bench.now_s += 0.5
        leader.take(leader.journal.tick(bench.now_s))
    assert leader.landed == []
    leader.settle()
    assert leader.landed == [b"one"]


@pytest.mark.parametrize("fate", [Fate.REPLY_LOST, Fate.NOT_DONE, Fate.LATE, Fate.CONFLICT])
def test_the_first_root_is_one_root_whatever_happens_to_its_create(fate: Fate) -> None:
    bench = Bench()
    server = bench.server("a")
    server.begin()
    server.step()
    assert isinstance(server.effect, BlobCreate)
    server.step(fate)
    other = bench.server("b")
    other.start()
    bench.land_late()
    server.settle()
    bench.run(server, other, until_s=3.0)
    assert server.journal.lineage == other.journal.lineage == bench.root().lineage


def test_an_own_entry_that_reads_back_altered_stops_the_server() -> None:
    bench = Bench()
    leader = bench.leader("a")
    leader.propose(b"one")
    assert isinstance(leader.effect, BlobCreate)
    ours = leader.effect
    leader.step(Fate.NOT_DONE)
    header = decode_entry(ours.data, 2).header
    bench.store.create(ours.name, encode_entry(header, (b"two",)))
    with pytest.raises(CorruptError, match="not as we wrote it"):
        leader.settle()


def test_an_unreadable_entry_under_the_own_number_stops_the_server() -> None:
    bench = Bench()
    leader = bench.leader("a")
    leader.propose(b"one")
    assert isinstance(leader.effect, BlobCreate)
    bench.store.create(leader.effect.name, b"unreadable")
    with pytest.raises(CorruptError):
        leader.settle()


def deposed_while_asleep(bench: Bench) -> tuple[Server, Server]:
    """`a` sleeps before its create of two records arrives; `b` takes its number with a TERM entry."""
    sleeper = bench.leader("a")
    sleeper.propose(b"lost", b"too")
    heir = bench.follower("b")
    bench.run(heir, until_s=25.0)
    assert heir.journal.role is Role.LEADING
    return sleeper, heir


def test_a_deposed_leader_learns_it_from_its_next_create_and_follows() -> None:
    bench = Bench()
    sleeper, heir = deposed_while_asleep(bench)
    heir.append(b"new")
    sleeper.settle()
    assert sleeper.other_news() == [LeadershipWon(1), LeadershipLost(1, 2)]
    assert sleeper.landed == []
    assert sleeper.journal.role is Role.FOLLOWING
    assert sleeper.journal.term == 2
    assert sleeper.records == heir.records == [b"new"]


def test_the_entry_that_deposed_a_leader_is_reported_to_it_once() -> None:
    bench = Bench()
    sleeper, heir = deposed_while_asleep(bench)
    sleeper.settle()
    assert [(entry.seq, entry.kind, entry.own) for entry in sleeper.entries] == [
        (1, EntryKind.TERM, True),
        *((entry.seq, entry.kind, False) for entry in heir.entries[1:]),
    ]


def asleep_over_a_collection(bench: Bench) -> tuple[Server, Server]:
    """As above, and what `b` wrote since is in a snapshot: the sleeper's number is free again, below the floor."""
    sleeper, heir = deposed_while_asleep(bench)
    heir.append(b"acknowledged")
    collect_up_to(bench, heir.journal.next_seq - 1, term=2)
    return sleeper, heir


def test_a_create_that_succeeds_below_the_floor_does_not_count() -> None:
    bench = Bench()
    sleeper, heir = asleep_over_a_collection(bench)
    floor = bench.root().gc_floor
    sleeper.settle()
    assert sleeper.landed == []
    assert sleeper.other_news() == [LeadershipWon(1), LeadershipLost(1, 2), FellBehind(2, floor)]
    assert sleeper.journal.role is Role.STOPPED
    heir.append(b"more")
    assert heir.landed == [b"acknowledged", b"more"]


def asleep(bench: Bench, *, for_s: float) -> tuple[Server, Server]:
    """A leader that spares itself looks at the root falls asleep over a create; its heir writes, and collects it all
    `for_s` after the sleeper had sent the entry before."""
    sleeper = bench.leader("a", timings=HASTY)
    heir = bench.server("b", timings=HASTY)
    sleeper.append(b"before")
    sleeper.propose(b"lost")
    heir.start()
    bench.run(heir, until_s=bench.now_s + min(for_s, 3.5))
    assert heir.journal.role is Role.LEADING
    heir.append(b"acknowledged")
    bench.now_s = for_s
    collect_up_to(bench, heir.journal.next_seq - 1, term=2)
    return sleeper, heir


def test_a_leader_that_spares_itself_looks_at_the_root_looks_when_it_slept_for_long() -> None:
    sleeper, _ = asleep(Bench(), for_s=HASTY.keep_s)
    sleeper.settle()
    assert sleeper.landed == [b"before"]
    assert isinstance(sleeper.other_news()[-1], FellBehind)


def test_if_entries_were_deleted_young_a_leader_that_spares_itself_looks_would_acknowledge_what_is_void() -> None:
    """Why `keep_s` binds whoever deletes: here it is not kept."""
    sleeper, heir = asleep(Bench(), for_s=HASTY.unread_s - 0.1)
    sleeper.settle()
    assert sleeper.landed == [b"before", b"lost"]
    assert b"lost" not in heir.records


def test_if_the_root_were_never_read_a_leader_that_slept_for_long_would_acknowledge_what_is_void(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Journal, "_counts_unread", lambda journal, now_s: True)
    sleeper, heir = asleep(Bench(), for_s=HASTY.keep_s)
    sleeper.settle()
    assert sleeper.landed == [b"before", b"lost"]
    assert b"lost" not in heir.records


def test_without_the_floor_rule_the_sleeper_would_acknowledge_what_no_one_else_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storage.journal, "counts", lambda seq, gc_floor: True)
    bench = Bench()
    sleeper, heir = asleep_over_a_collection(bench)
    sleeper.settle()
    assert sleeper.landed == [b"lost", b"too"]
    assert b"lost" not in heir.records


def test_a_lagging_follower_does_not_take_a_sleepers_entry_below_the_floor_for_real() -> None:
    bench = Bench()
    sleeper = bench.leader("a")
    lagging = bench.follower("c")
    sleeper.propose(b"never decided")
    heir = bench.follower("b")
    bench.run(heir, until_s=25.0)
    collect_up_to(bench, heir.journal.next_seq - 1, term=2)
    sleeper.step()
    lagging.hint()
    lagging.settle()
    assert lagging.records == []
    assert lagging.other_news() == [FellBehind(2, bench.root().gc_floor)]


def test_without_the_floor_rule_a_lagging_follower_would_serve_a_decision_never_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storage.journal, "counts", lambda seq, gc_floor: True)
    bench = Bench()
    sleeper = bench.leader("a")
    lagging = bench.follower("c")
    sleeper.propose(b"never decided")
    heir = bench.follower("b")
    bench.run(heir, until_s=25.0)
    collect_up_to(bench, heir.journal.next_seq - 1, term=2)
    sleeper.step()
    lagging.hint()
    lagging.settle()
    assert lagging.records == [b"never decided"]


def test_what_a_sleeper_left_below_the_floor_is_not_called_corruption() -> None:
    bench = Bench()
    sleeper = bench.leader("a")
    sleeper.propose(b"never decided")
    lagging = bench.server("c")
    lagging.begin()
    lagging.step()
    heir = bench.follower("b")
    bench.run(heir, until_s=25.0)
    collect_up_to(bench, heir.journal.next_seq - 1, term=2)
    bench.store.create(entry_name(1), b"left by a sleeper")
    lagging.settle()
    assert lagging.other_news() == [FellBehind(1, bench.root().gc_floor)]


def test_a_read_that_failed_is_repeated() -> None:
    bench = Bench()
    leader = bench.leader("a")
    follower = bench.follower("b")
    leader.append(b"one")
    follower.hint()
    follower.step(Fate.NOT_DONE)
    assert follower.journal.wake_at_s == 0.5
    bench.run(follower, until_s=0.6)
    assert follower.records == [b"one"]


def test_a_server_that_cannot_read_the_root_at_start_tries_again() -> None:
    bench = Bench()
    server = bench.server("a")
    server.begin()
    assert name_of(server.effect) == ROOT_NAME
    server.step(Fate.NOT_DONE)
    bench.run(server, until_s=1.0)
    assert server.journal.role is Role.LEADING
