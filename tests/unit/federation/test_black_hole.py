"""A cluster that fails all it gets, in a fleet with real servers: it gets a probe now and then (L5), never nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from federation.core.breaker import PROBER, Breaker
from federation.core.events import CordonCluster, Instant
from federation.core.records import Placed
from federation.core.tape_store import TapeRhythm
from federation.simulate.journal import Stretch, replay
from placement.model import ClusterName, Phase, Reason
from tests.unit.federation.pump import WALL_MS, Line, Member, Pump, started

HOLE = "a"  # of equals the engine takes the first by name


def refuses(fleet: Fleet, uid: str) -> None:
    fleet.member(HOLE).verdict(uid, "Refused", reasons=("KubeletRejected",))


def loses(fleet: Fleet, uid: str) -> None:
    fleet.member(HOLE).verdict(uid, "Bound", pods=1)
    fleet.later(3.0, lambda: fleet.member(HOLE).verdict(uid, "Released", reasons=("MemberLost",)))


def fails(fleet: Fleet, uid: str) -> None:
    fleet.member(HOLE).verdict(uid, "Bound", pods=1)
    fleet.later(3.0, lambda: fleet.member(HOLE).verdict(uid, "Finished"))


def serves(fleet: Fleet, uid: str) -> None:
    name = fleet.home(uid)
    fleet.member(name).verdict(uid, "Bound", pods=1)
    fleet.later(25.0, lambda: fleet.member(name).verdict(uid, "Finished", succeeded=True))


@dataclass
class Fleet:
    """Members that do with each group what they always do."""

    pump: Pump
    in_hole: Callable[[Fleet, str], None] = refuses
    seen: int = 0
    plans: list[tuple[float, Callable[[], object]]] = field(default_factory=list)
    placed: list[tuple[float, str, bool]] = field(default_factory=list)  # when, where, as a probe

    def member(self, name: str) -> Member:
        return self.pump.members[name]

    def home(self, uid: str) -> str:
        home = self.pump.group(uid).home
        assert home is not None
        return home.cluster

    def later(self, delay_s: float, action: Callable[[], object]) -> None:
        self.plans.append((self.pump.now_s + delay_s, action))

    def run(self, seconds: int, *, submits: int = 0) -> None:
        """Second by second: groups come, and what was placed meets its fate."""
        for _ in range(seconds):
            for number in range(submits):
                self.pump.submit(f"g-{self.pump.now_s:.0f}-{number}")
            self.pump.run(1.0)
            due = [action for at_s, action in self.plans if at_s <= self.pump.now_s]
            self.plans = [plan for plan in self.plans if plan[0] > self.pump.now_s]
            for action in due:
                action()
            self.meet()

    def meet(self) -> None:
        while self.seen < len(self.lines):
            record = self.lines[self.seen].record
            self.seen += 1
            if isinstance(record, Placed):
                self.placed.append((self.pump.now_s, record.cluster, record.actor == PROBER))
                fate = self.in_hole if record.cluster == HOLE else serves
                fate(self, record.uid)

    @property
    def lines(self) -> list[Line]:
        return self.pump.folded[self.pump.leader.name]

    def share(self, since_s: float) -> float:
        """Of all placements since then, those into the hole."""
        where = [cluster for at_s, cluster, _ in self.placed if at_s >= since_s]
        assert len(where) > 100
        return where.count(HOLE) / len(where)

    def stands(self) -> Breaker:
        return self.pump.leader.breakers.stand(self.pump.state, ClusterName(HOLE), self.pump.now_s).breaker

    def status(self, name: str = HOLE, server: str = "server-0") -> dict[str, object]:
        now = Instant(self.pump.now_s, WALL_MS)
        return self.pump.replicas[server].cluster_status(name, now)


def fleet(*others: str, in_hole: Callable[[Fleet, str], None] = refuses, **fields: Any) -> Fleet:
    pump = started(**fields)
    pump.join(HOLE, *others, nodes=24)
    found = Fleet(pump, in_hole)
    found.seen = len(found.lines)
    return found


@pytest.mark.long
@pytest.mark.parametrize("in_hole", [refuses, loses, fails])
def test_a_cluster_that_fails_everything_gets_less_than_two_percent_of_placements_after_a_minute(
    in_hole: Callable[[Fleet, str], None],
) -> None:
    where = fleet("b", "c", "d", in_hole=in_hole)
    began_s = where.pump.now_s
    where.run(105, submits=3)
    assert where.share(began_s + 60.0) < 0.02
    assert any(probe for _, cluster, probe in where.placed if cluster == HOLE), "it is tried again"
    assert where.stands() is not Breaker.CLOSED


def test_one_group_that_lives_for_a_while_closes_it() -> None:
    where = fleet()
    where.run(20, submits=1)
    assert where.stands() is Breaker.OPEN
    where.in_hole = serves
    where.run(65)
    assert [probe for _, _, probe in where.placed].count(True) == 1
    assert (where.stands(), where.status()["state"]) == (Breaker.HALF_OPEN, "Failing")
    where.run(25)
    assert (where.stands(), where.status()["state"]) == (Breaker.CLOSED, "Active")
    assert len(where.pump.state.pending) == 0, "who waited is placed at once"


def test_where_all_clusters_fail_groups_wait_for_that_reason_and_are_tried_one_at_a_time() -> None:
    where = fleet()
    where.run(30, submits=1)
    uid = where.pump.submit("late")
    where.run(1)
    told = where.pump.leader.why(uid)
    assert told is not None
    assert told.because is not None
    assert told.because.reason is Reason.CLUSTER_FAILING
    assert "most groups failed there lately; the next one is tried in" in str(told.because)
    assert told.change == "wait until a, where most groups failed, is well again"
    before = len(where.placed)
    where.run(600)
    tried = where.placed[before:]
    assert all(probe for _, _, probe in tried)
    gaps = [round(later[0] - earlier[0]) for earlier, later in pairwise(tried)]
    assert gaps == [120, 240]


def test_a_group_that_would_fail_anywhere_does_not_keep_a_cluster_closed_that_is_well_again() -> None:
    where = fleet()
    poison = where.pump.submit("poison", priority=9)
    where.run(20, submits=1)

    def of_each(one: Fleet, uid: str) -> None:
        (refuses if uid == poison else serves)(one, uid)

    where.in_hole = of_each
    where.run(100)
    assert where.stands() is Breaker.CLOSED
    assert [row.uid for row in where.pump.state.pending_groups()] == [poison]


def test_in_the_only_cluster_that_is_well_again_one_that_fails_by_itself_is_not_every_probe() -> None:
    """All had failed there, and the first in the queue went on to fail: the others were not tried in three hours."""
    where = fleet()
    poison = where.pump.submit("poison", priority=9)
    good = [where.pump.submit(f"good-{number}") for number in range(12)]
    where.run(30)
    assert (len(where.placed), where.stands()) == (13, Breaker.OPEN)
    where.in_hole = lambda one, uid: (refuses if uid == poison else serves)(one, uid)
    where.run(420)
    assert {where.pump.group(uid).phase for uid in good} == {Phase.SUCCEEDED}
    assert where.stands() is Breaker.CLOSED


@pytest.mark.parametrize("later_s", [30, 400])
def test_in_the_only_cluster_ten_that_fail_by_themselves_let_others_in_within_two_minutes_and_are_quarantined(
    later_s: int,
) -> None:
    """They were probes one after the other, for hours, and a healthy group behind them was never tried."""
    where = fleet()
    poison = [where.pump.submit(f"poison-{number}") for number in range(10)]
    where.in_hole = lambda one, uid: (refuses if uid in poison else serves)(one, uid)
    where.run(later_s)
    assert where.stands() is not Breaker.CLOSED
    good = where.pump.submit("good")
    where.run(120)
    assert where.pump.group(good).phase is Phase.SUCCEEDED
    where.run(900)
    assert {where.pump.group(uid).phase for uid in poison} == {Phase.QUARANTINED}
    assert where.stands() is Breaker.CLOSED


def test_a_probe_that_is_cancelled_proves_nothing_and_the_next_one_follows() -> None:
    where = fleet()
    where.run(20, submits=1)
    where.in_hole = lambda _fleet, _uid: None
    where.run(60)
    at_s, _, probe = where.placed[-1]
    (uid,) = [row.uid for row in where.pump.state.groups.values() if row.home is not None]
    assert probe
    where.pump.intend(uid, "cancel")
    where.member(HOLE).verdict(uid, "Released", reasons=("Cancelled",))
    where.run(1)
    assert where.placed[-1][0] > at_s
    assert where.placed[-1][2]


def test_a_probe_that_lives_closes_it_though_its_binding_was_not_seen() -> None:
    """Its record was in a snapshot that this server began anew from, say, or `Running` came first."""
    where = fleet()
    where.run(20, submits=1)
    where.in_hole = lambda one, uid: one.member(HOLE).verdict(uid, "Running", pods=1) and None
    where.run(65)
    assert (where.placed[-1][2], where.stands()) == (True, Breaker.HALF_OPEN)
    where.run(25)
    assert (where.stands(), len(where.pump.state.pending)) == (Breaker.CLOSED, 0)


def test_uncordon_closes_it_at_once() -> None:
    where = fleet()
    where.run(20, submits=1)
    where.in_hole = serves
    where.pump.ask(CordonCluster(HOLE, cordoned=False, drain=False, reason="repaired", request_id="u-1", actor="olga"))
    where.run(12)
    assert (where.stands(), len(where.pump.state.pending)) == (Breaker.CLOSED, 0)


@pytest.mark.long
def test_what_was_decided_while_it_opened_and_closed_is_decided_again_from_the_tape() -> None:
    where = fleet("b", tape=TapeRhythm(write_every_s=1.0))
    where.run(70, submits=2)
    where.in_hole = serves
    where.run(30, submits=2)
    where.pump.run(2.0)
    again = replay(where.pump.store, Stretch())
    assert [probe for _, _, probe in where.placed].count(True) >= 1
    assert (again.equal, again.different, again.not_covered) == (len(where.placed), 0, {})


@pytest.mark.long
def test_every_server_shows_it_and_the_next_leader_knows_it() -> None:
    where = fleet("b", servers=2)
    where.run(30, submits=3)
    first = where.pump.leader.name
    other = next(name for name in where.pump.replicas if name != first)
    for server in (first, other):
        status = where.status(server=server)
        assert (status["state"], status["breaker"]) == ("Failing", "Open")
        assert where.status("b", server)["breaker"] == "Closed"
    where.pump.stop(first)
    where.pump.run(25.0)
    where.seen = len(where.lines)
    assert where.pump.leader.name == other
    assert where.stands() is not Breaker.CLOSED
