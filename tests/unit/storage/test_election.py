"""Who leads: silence, candidates, terms. The store decides; time only says when to try."""

import pytest

from storage.election import JournalTimings, Role, Silence, Standing, counts, standing
from storage.entry import EntryHeader, EntryKind
from storage.errors import CorruptError
from storage.journal import LeadershipWon
from tests.unit.storage.bench import TIMINGS, Bench, Fate


def header(kind: EntryKind, term: int) -> EntryHeader:
    return EntryHeader(seq=9, term=term, kind=kind, writer="w", nonce="n", prev_digest=bytes(32), count=0)


@pytest.mark.parametrize(
    ("kind", "term", "newest_term", "wanted"),
    [
        pytest.param(EntryKind.TERM, 3, 2, Standing.VALID, id="a higher term opens"),
        pytest.param(EntryKind.TERM, 4, 2, Standing.VALID, id="a term may be skipped"),
        pytest.param(EntryKind.TERM, 2, 2, Standing.VOID, id="a term cannot be won twice"),
        pytest.param(EntryKind.TERM, 1, 2, Standing.VOID, id="nor an older one"),
        pytest.param(EntryKind.BATCH, 2, 2, Standing.VALID, id="the leader's batch stands"),
        pytest.param(EntryKind.BATCH, 1, 2, Standing.VOID, id="a deposed leader's does not"),
        pytest.param(EntryKind.HEARTBEAT, 1, 2, Standing.VOID, id="nor its heartbeat"),
    ],
)
def test_an_entry_stands_by_its_term(kind: EntryKind, term: int, newest_term: int, wanted: Standing) -> None:
    assert standing(header(kind, term), newest_term) is wanted


def test_an_entry_of_a_term_nobody_won_is_corrupt() -> None:
    with pytest.raises(CorruptError):
        standing(header(EntryKind.BATCH, 3), 2)


def test_an_entry_counts_only_above_the_floor() -> None:
    assert counts(8, gc_floor=7)
    assert not counts(7, gc_floor=7)


def test_silence_is_over_after_its_time_and_the_servers_own_jitter() -> None:
    silence = Silence("a", JournalTimings(silence_s=15.0, jitter_s=0.0))
    silence.restart(100.0, next_seq=7)
    assert not silence.is_over(114.9)
    assert silence.is_over(115.0)


def test_jitter_differs_between_servers_and_stays_in_its_bound() -> None:
    timings = JournalTimings(silence_s=10.0, jitter_s=2.0)
    ends: list[int] = []
    for writer in ("a", "b", "c"):
        silence = Silence(writer, timings)
        silence.restart(0.0, next_seq=7)
        ends.append(next(ms for ms in range(10_000, 12_001) if silence.is_over(ms / 1000)))
    assert len(set(ends)) == 3


def test_a_follower_takes_over_after_the_leader_fell_silent() -> None:
    bench = Bench()
    bench.leader("a").append(b"one")
    heir = bench.follower("b")
    bench.run(heir, until_s=15.0)
    assert heir.journal.role is Role.FOLLOWING
    bench.run(heir, until_s=20.1)
    assert heir.journal.role is Role.LEADING
    assert heir.other_news() == [LeadershipWon(2)]
    assert heir.entries[-1].kind is EntryKind.TERM or heir.entries[-1].kind is EntryKind.HEARTBEAT
    assert heir.records == [b"one"]


def test_heartbeats_keep_followers_from_running() -> None:
    bench = Bench()
    leader, follower = bench.leader("a"), bench.follower("b")
    bench.run(leader, follower, until_s=300.0)
    assert follower.journal.role is Role.FOLLOWING
    assert leader.journal.term == 1
    assert len(follower.entries) == len(leader.entries) == 60


def test_of_several_followers_one_leads_and_the_rest_follow() -> None:
    bench = Bench()
    bench.leader("a")
    others = [bench.follower(name) for name in ("b", "c", "d")]
    bench.run(*others, until_s=60.0)
    roles = sorted(server.journal.role.value for server in others)
    assert roles == ["following", "following", "leading"]
    assert {server.journal.term for server in others} == {2}


def test_of_two_candidates_for_one_number_one_wins() -> None:
    bench = Bench()
    first, second = bench.server("a"), bench.server("b")
    first.begin()
    second.begin()
    for _ in range(5):  # read root, create it, read it, look, read root
        first.step()
        second.step()
    assert first.journal.role is Role.CAMPAIGNING
    assert second.journal.role is Role.CAMPAIGNING
    first.settle()
    second.settle()
    assert (first.journal.role, second.journal.role) == (Role.LEADING, Role.FOLLOWING)
    assert second.other_news() == []
    assert second.entries[0].writer == "a"


def test_a_candidate_whose_answer_was_lost_finds_that_it_won() -> None:
    bench = Bench()
    server = bench.server("a")
    server.begin()
    while server.journal.role is not Role.CAMPAIGNING:
        server.step()
    server.step(Fate.REPLY_LOST)
    assert server.other_news() == []
    server.settle()
    assert server.other_news() == [LeadershipWon(1)]


def test_a_failed_read_restarts_the_silence() -> None:
    bench = Bench()
    bench.leader("a")
    follower = bench.follower("b")
    bench.run(follower, until_s=14.5)
    follower.hint()
    follower.step(Fate.NOT_DONE)
    bench.run(follower, until_s=29.0)
    assert follower.journal.role is Role.FOLLOWING
    bench.run(follower, until_s=34.6)
    assert follower.journal.role is Role.LEADING


def test_a_follower_that_slept_looks_before_it_runs() -> None:
    bench = Bench()
    leader, follower = bench.leader("a"), bench.follower("b")
    bench.run(leader, until_s=120.0)
    follower.tick()
    assert follower.journal.role is Role.FOLLOWING
    assert len(follower.entries) == len(leader.entries)


def test_a_leader_that_restarts_leads_again_at_once() -> None:
    bench = Bench()
    bench.leader("a").append(b"one")
    again = bench.server("a", boot=2)
    again.start()
    assert bench.now_s == 0.0
    assert again.journal.role is Role.LEADING
    assert again.journal.term == 2
    assert again.records == [b"one"]


def test_a_leader_that_restarts_after_another_won_follows() -> None:
    bench = Bench()
    bench.leader("a")
    heir = bench.follower("b")
    bench.run(heir, until_s=25.0)
    again = bench.server("a", boot=2)
    again.start()
    assert again.journal.role is Role.FOLLOWING


def test_where_one_process_has_the_store_no_silence_is_needed() -> None:
    bench = Bench()
    bench.leader("a")
    only = bench.server("b", timings=JournalTimings(silence_s=0.0, jitter_s=0.0))
    only.start()
    assert only.journal.role is Role.LEADING


def test_takeover_lasts_silence_jitter_and_one_poll_at_most() -> None:
    bench = Bench()
    bench.leader("a")
    heir = bench.follower("b")
    bench.run(heir, until_s=TIMINGS.silence_s + TIMINGS.jitter_s + TIMINGS.poll_s)
    assert heir.journal.role is Role.LEADING
