"""Failure spread through a whole replica: homes are counted as they begin and end, and survive a restart."""

from __future__ import annotations

from federation.core.events import Accepted, JoinCluster
from tests.unit.federation.pictures import facts, loaded, shards_of
from tests.unit.federation.pump import Member, Pump, started


def fleet() -> Pump:
    """a and b in eu, c in us, of four nodes each; `a` would be chosen first."""
    pump = started()
    for name, region in (("a", "eu"), ("b", "eu"), ("c", "us")):
        request = JoinCluster(name, "fast", (("region", region),), False, f"join-{name}", "olga")
        assert isinstance(pump.ask(request), Accepted)
        pump.members[name] = Member(name, pump)
    pump.run(20.0)
    return pump


def home(pump: Pump, uid: str) -> str:
    row = pump.group(uid)
    assert row.home is not None
    return row.home.cluster


def test_groups_with_one_word_get_homes_far_from_one_another_and_others_the_fullest() -> None:
    pump = fleet()
    chats = [pump.submit(f"chat-{number}", failure_spread="chat") for number in range(3)]
    assert [home(pump, uid) for uid in chats] == ["a", "c", "b"]
    assert pump.state.beside == {"default/chat": {"a": 1, "b": 1, "c": 1}}
    other = pump.submit("other")
    assert home(pump, other) == "a"


def test_who_has_ended_counts_no_more() -> None:
    pump = fleet()
    first = pump.submit("chat-0", failure_spread="chat")
    pump.members["a"].verdict(first, "Finished", succeeded=True)
    assert pump.state.beside == {}
    assert home(pump, pump.submit("chat-1", failure_spread="chat")) == "a"


def test_a_snapshot_and_a_new_leader_know_where_they_are() -> None:
    pump = fleet()
    pump.submit("chat-0", failure_spread="chat")
    assert facts(loaded(pump.state.lineage, shards_of(pump.state))) == facts(pump.state)
    pump.start("server-0")
    pump.run(30.0)
    assert home(pump, pump.submit("chat-1", failure_spread="chat")) == "c"
