"""When a cluster's breaker opens, how long it stays open, and what closes it (DESIGN §11.5)."""

from __future__ import annotations

import pytest

from federation.core.breaker import CLOSED, OPEN_MAX_S, PROBER, YOUNG_MAX, Breaker, Breakers, Fate, Stand, _Book
from federation.core.records import AnyRecord, Bound, ClusterCordoned, ClusterJoined, ClusterRemoved, GaveUp, Placed
from federation.core.state import State
from placement.model import ClusterName, GroupUid, Position
from tests.unit.federation.story import LINEAGE

A, B = ClusterName("a"), ClusterName("b")
HALF_OPEN = Stand(Breaker.HALF_OPEN)


class Watch:
    """Breakers of a fleet of two clusters (or fewer), told of one thing after another."""

    def __init__(self, *clusters: str) -> None:
        self.now_s = 1_000.0
        self.state = State(LINEAGE)
        for number, name in enumerate(clusters or (A, B), 1):
            self.state.apply(Position(8_192 * number), ClusterJoined(cluster=name))
        self.breakers = Breakers()

    def tell(self, *records: AnyRecord) -> None:
        for record in records:
            self.breakers.folded(self.state, record, self.now_s)

    def refuse(self, *uids: str, cluster: str = A, why: str = "KubeletRejected") -> None:
        self.tell(*(gave_up(uid, cluster, "Refused", why) for uid in uids))

    def bind(self, *uids: str, cluster: str = A) -> None:
        self.tell(*(Bound(uid=uid, token="t", cluster=cluster, pods=1) for uid in uids))

    def die(self, *uids: str, cluster: str = A, after_s: float = 2.0) -> None:
        """They are bound, and gone so much later."""
        self.bind(*uids, cluster=cluster)
        self.now_s += after_s
        self.tell(*(gave_up(uid, cluster, "Released", "MemberLost") for uid in uids))

    def fail(self, *uids: str, cluster: str = A, after_s: float = 2.0) -> None:
        """They are bound, and their containers end with an error so much later."""
        self.bind(*uids, cluster=cluster)
        self.now_s += after_s
        self.tell(*(gave_up(uid, cluster, "Finished") for uid in uids))

    def stands(self, cluster: str = A) -> Breaker:
        return self.breakers.stand(self.state, ClusterName(cluster), self.now_s).breaker


def gave_up(uid: str, cluster: str, verdict: str, *why: str, succeeded: bool = False) -> GaveUp:
    return GaveUp(uid=uid, token="t", cluster=cluster, verdict=verdict, reasons=why, succeeded=succeeded)


def groups(count: int, first: int = 0) -> list[str]:
    return [f"l.{number}" for number in range(first, first + count)]


# --- what opens it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("refused", "breaker"), [(9, Breaker.CLOSED), (10, Breaker.OPEN)])
def test_fewer_than_ten_attempts_say_nothing(refused: int, breaker: Breaker) -> None:
    watch = Watch()
    watch.refuse(*groups(refused))
    assert watch.stands() is breaker


@pytest.mark.parametrize(("refused", "breaker"), [(6, Breaker.CLOSED), (7, Breaker.OPEN)])
def test_it_opens_when_fewer_than_half_went_well(refused: int, breaker: Breaker) -> None:
    watch = Watch()
    watch.bind(*groups(6))
    watch.refuse(*groups(refused, first=6))
    assert watch.stands() is breaker


def test_a_group_that_fails_again_and_again_is_one_attempt() -> None:
    watch = Watch()
    for _ in range(100):
        watch.refuse("l.poison")
    watch.refuse(*groups(8))
    assert watch.stands() is Breaker.CLOSED
    watch.refuse("l.8")
    assert watch.stands() is Breaker.OPEN


@pytest.mark.parametrize(
    "said",
    [
        gave_up("", A, "Refused", "InsufficientGpus"),
        gave_up("", A, "Refused", "NoDomainLargeEnough"),
        gave_up("", A, "Refused", "LeaseLost"),
        gave_up("", A, "Released", "Drained"),
        gave_up("", A, "Released", "Cancelled"),
        gave_up("", A, "Released", "MemberLost"),  # of one that was not bound lately
        gave_up("", A, "Finished"),  # the same
        GaveUp(uid="", token="t", cluster=A, verdict="Refused", reasons=("ApiError",), late=True),
    ],
    ids=lambda said: f"{said.verdict} {' '.join(said.reasons)}{' late' if said.late else ''}",
)
def test_what_is_not_the_clusters_fault_opens_nothing(said: GaveUp) -> None:
    watch = Watch()
    for uid in groups(40):
        watch.tell(GaveUp(**{name: getattr(said, name) for name in said.__struct_fields__} | {"uid": uid}))
    assert watch.stands() is Breaker.CLOSED


def test_a_cluster_whose_gangs_die_within_seconds_is_open_though_all_were_bound() -> None:
    watch = Watch()
    for uid in groups(10):
        watch.die(uid)
    assert watch.stands() is Breaker.OPEN


def test_gangs_that_are_bound_while_those_before_them_die_are_no_successes() -> None:
    watch = Watch()
    for first in range(0, 100, 5):
        watch.bind(*groups(5, first=first))
        watch.now_s += 1.0
        if first >= 50:  # each lives for ten seconds
            watch.tell(*(gave_up(uid, A, "Released", "MemberLost") for uid in groups(5, first=first - 50)))
    assert watch.stands() is Breaker.OPEN


def test_a_few_of_many_that_were_bound_together_die_and_that_is_no_reason() -> None:
    watch = Watch()
    watch.bind(*groups(100))
    watch.now_s += 3.0
    watch.tell(*(gave_up(uid, A, "Released", "MemberLost") for uid in groups(15)))
    assert watch.stands() is Breaker.CLOSED


@pytest.mark.parametrize(("lived_s", "breaker"), [(19.0, Breaker.OPEN), (20.0, Breaker.CLOSED)])
def test_who_lived_for_twenty_seconds_was_bound_well(lived_s: float, breaker: Breaker) -> None:
    watch = Watch()
    watch.die(*groups(10), after_s=lived_s)
    assert watch.stands() is breaker


def test_only_the_newest_twenty_count_so_that_a_good_year_hides_nothing() -> None:
    watch = Watch()
    watch.bind(*groups(1_000))
    watch.now_s += 25.0
    watch.refuse(*groups(10, first=1_000))
    assert watch.stands() is Breaker.CLOSED
    watch.refuse("l.last")
    assert watch.stands() is Breaker.OPEN


@pytest.mark.parametrize(("passed_s", "breaker"), [(300.0, Breaker.OPEN), (301.0, Breaker.CLOSED)])
def test_what_happened_five_minutes_ago_says_nothing_of_today(passed_s: float, breaker: Breaker) -> None:
    watch = Watch()
    watch.refuse(*groups(9))
    watch.now_s += passed_s
    watch.refuse("l.9")
    assert watch.stands() is breaker


def test_each_cluster_has_a_breaker_of_its_own() -> None:
    watch = Watch()
    watch.refuse(*groups(10))
    watch.bind(*groups(10, first=10), cluster=B)
    assert (watch.stands(A), watch.stands(B)) == (Breaker.OPEN, Breaker.CLOSED)


# --- failures that may be the groups' own -----------------------------------------------------------------------------


def test_a_cluster_where_every_gang_ends_with_an_error_within_seconds_is_open() -> None:
    watch = Watch()
    watch.fail(*groups(10))
    assert watch.stands() is Breaker.OPEN


def test_gangs_that_fail_in_another_cluster_as_well_close_only_the_first() -> None:
    """A thousand jobs with the same slip of the pen close one cluster for a while, not the fleet."""
    watch = Watch()
    watch.fail(*groups(10), cluster=B)
    watch.fail(*groups(40, first=10))
    assert (watch.stands(A), watch.stands(B)) == (Breaker.CLOSED, Breaker.OPEN)


def test_the_only_cluster_is_not_blamed_for_gangs_that_end_with_an_error() -> None:
    watch = Watch("a")
    watch.fail(*groups(40))
    assert watch.stands() is Breaker.CLOSED
    watch.refuse(*groups(11, first=40))
    assert watch.stands() is Breaker.OPEN


def test_templates_that_one_cluster_alone_refuses_are_the_clusters_fault() -> None:
    watch = Watch()
    watch.refuse(*groups(10), why="TemplateRefused")
    watch.refuse(*groups(10, first=10), cluster=B, why="TemplateRefused")
    assert (watch.stands(A), watch.stands(B)) == (Breaker.OPEN, Breaker.CLOSED)


# --- how long, and what closes it -------------------------------------------------------------------------------------


def probe(watch: Watch, uid: str) -> None:
    """The group is placed there to see whether the cluster is well."""
    watch.tell(Placed(uid=uid, cluster=A, effective_policy="StopAndMove", actor=PROBER))


def test_it_stays_open_for_a_minute_and_twice_as_long_after_each_probe_that_fails() -> None:
    watch = Watch()
    watch.refuse(*groups(10))
    waits: list[float] = []
    for number in range(7):
        due_s = watch.breakers.due_s(watch.now_s)
        waits.append(due_s - watch.now_s)
        watch.now_s = due_s
        assert watch.stands() is Breaker.HALF_OPEN
        probe(watch, f"l.probe-{number}")
        watch.refuse(f"l.probe-{number}")
        assert watch.stands() is Breaker.OPEN
    assert waits == [60, 120, 240, 480, 960, 960, 960]
    assert waits[-1] == OPEN_MAX_S


@pytest.mark.parametrize(("due_since_s", "spared"), [(-60.0, True), (59.0, True), (60.0, False)])
def test_who_failed_there_is_no_probe_before_others_had_a_minute_to_be(due_since_s: float, spared: bool) -> None:
    """A poison group at the head of the queue kept it open for ever."""
    watch = Watch()
    watch.refuse(*groups(10))
    watch.now_s += 60.0 + due_since_s
    assert watch.breakers.spared(GroupUid("l.9"), watch.now_s) == ({A} if spared else set())
    assert watch.breakers.spared(GroupUid("l.10"), watch.now_s) == frozenset()
    if due_since_s > 0:
        assert watch.breakers.due_s(watch.now_s) == (watch.now_s + 1.0 if spared else float("inf"))


def free_s(watch: Watch, uid: str) -> float:
    """After how long the group may be the probe, by the times at which anything may change."""
    began_s = at_s = watch.now_s
    while watch.breakers.spared(GroupUid(uid), at_s) or watch.breakers.stand(watch.state, A, at_s) != HALF_OPEN:
        at_s = watch.breakers.due_s(at_s)
    return at_s - began_s


def test_a_probe_that_had_failed_there_before_lets_such_ones_wait_longer_and_nobody_else() -> None:
    """Ten poison groups in the only cluster were its probes in turn, and all others waited for up to 16 minutes."""
    watch = Watch()
    watch.refuse(*groups(10))
    waits: list[tuple[float, float, float]] = []
    for _ in range(6):
        waits.append((free_s(watch, "l.new"), free_s(watch, "l.1"), free_s(watch, "l.0")))
        watch.now_s += waits[-1][-1]
        probe(watch, "l.0")
        watch.refuse("l.0")
    first, *later = waits
    assert first == (60, 120, 120)
    assert later == [(60, 120, known_s) for known_s in (180, 240, 480, 960, 960)]


def test_of_those_who_failed_there_each_is_tried_again_before_one_is_for_the_third_time() -> None:
    watch = Watch()
    watch.refuse(*groups(10))
    assert [free_s(watch, uid) for uid in groups(10)] == [120] * 10
    turns: list[str] = []
    for _ in range(20):
        wait_s, uid = min((free_s(watch, uid), uid) for uid in groups(10))
        watch.now_s += wait_s
        turns.append(uid)
        probe(watch, uid)
        watch.refuse(uid)
    assert turns == groups(10) * 2


def test_whose_turn_it_was_is_remembered_of_no_more_than_failed_there_lately() -> None:
    watch = Watch()
    for number in range(100):
        watch.refuse(*groups(10, first=10 * number))
        watch.now_s += 2_000.0
        probe(watch, f"l.{10 * number}")
        watch.refuse(f"l.{10 * number}")
    assert watch.breakers._book(A).had_turns == {"l.980", "l.990"}


def test_a_new_trip_spares_those_who_failed_there_though_nothing_happened_to_them() -> None:
    watch = Watch()
    watch.refuse(*groups(10))
    assert sorted(watch.breakers.spared_anew()) == sorted(groups(10))
    assert watch.breakers.spared_anew() == []
    watch.now_s += 120.0
    assert watch.breakers.spared(GroupUid("l.1"), watch.now_s) == frozenset()
    probe(watch, "l.0")
    watch.refuse("l.0")
    assert watch.breakers.spared(GroupUid("l.1"), watch.now_s) == {A}
    assert "l.1" in watch.breakers.spared_anew()


def proven(watch: Watch, uid: str = "l.good") -> None:
    """A probe lives."""
    watch.now_s += 60.0
    probe(watch, uid)
    watch.bind(uid)
    watch.now_s += 20.0
    assert watch.stands() is Breaker.CLOSED


@pytest.mark.parametrize(("later_s", "breaker"), [(959.0, Breaker.CLOSED), (960.0, Breaker.OPEN)])
def test_who_failed_before_another_lived_there_says_nothing_of_it_by_failing_again(
    later_s: float, breaker: Breaker
) -> None:
    watch = Watch(A)
    watch.refuse(*groups(10))
    proven(watch)
    watch.now_s += later_s
    watch.refuse(*groups(10))
    assert watch.stands() is breaker


def test_others_that_fail_then_open_it_and_those_who_failed_before_are_spared_as_they_are() -> None:
    watch = Watch(A)
    watch.refuse(*groups(10))
    proven(watch)
    watch.refuse(*groups(10))
    watch.refuse(*groups(10, first=10))
    assert watch.stands() is Breaker.OPEN
    assert {watch.breakers.spared(GroupUid(uid), watch.now_s) for uid in groups(20)} == {frozenset({A})}
    assert set(groups(10)) <= set(watch.breakers.spared_anew())


def test_who_lives_there_itself_is_suspected_no_more() -> None:
    watch = Watch(A)
    watch.refuse(*groups(10))
    proven(watch)
    watch.bind(*groups(10))
    watch.now_s += 301.0
    assert watch.stands() is Breaker.CLOSED
    watch.die(*groups(10))
    watch.die(*groups(10))
    assert watch.stands() is Breaker.OPEN


def test_others_that_were_placed_before_it_opened_change_nothing() -> None:
    watch = Watch()
    watch.refuse(*groups(10))
    watch.now_s += 30.0
    watch.refuse(*groups(20, first=10))
    assert watch.breakers.stand(watch.state, A, watch.now_s) == (Breaker.OPEN, False, 30.0)


def test_an_operator_ends_it_at_once() -> None:
    watch = Watch()
    watch.refuse(*groups(10))
    watch.tell(ClusterCordoned(cluster=A, cordoned=True))
    assert watch.stands() is Breaker.OPEN
    watch.tell(ClusterCordoned(cluster=A, cordoned=False))
    assert watch.breakers.stand(watch.state, A, watch.now_s) == CLOSED
    assert watch.breakers.due_s(watch.now_s) == float("inf")


def test_an_operator_ends_it_while_a_probe_is_under_way_and_what_that_comes_to_is_one_attempt_of_ten() -> None:
    watch = Watch()
    watch.refuse(*groups(10))
    watch.now_s += 60.0
    probe(watch, "l.probe")
    watch.tell(ClusterCordoned(cluster=A, cordoned=False))
    watch.refuse("l.probe")
    assert watch.breakers.stand(watch.state, A, watch.now_s) == CLOSED
    watch.refuse(*groups(8))
    assert watch.stands() is Breaker.CLOSED
    watch.refuse("l.9")
    assert watch.stands() is Breaker.OPEN


def test_a_cluster_that_joins_under_the_name_of_one_that_left_is_judged_by_itself() -> None:
    watch = Watch()
    watch.refuse(*groups(10))
    watch.tell(ClusterRemoved(cluster=A))
    assert watch.breakers.stand(watch.state, A, watch.now_s) == CLOSED


def test_a_fault_that_comes_back_soon_keeps_it_open_for_longer_and_one_after_a_good_time_does_not() -> None:
    for good_s, wait_s in ((299.0, 120.0), (301.0, 60.0)):
        watch = Watch()
        watch.refuse(*groups(10))
        watch.now_s += 60.0
        probe(watch, "l.probe")
        watch.tell(gave_up("l.probe", A, "Finished", succeeded=True))
        assert watch.stands() is Breaker.CLOSED
        watch.now_s += good_s
        watch.refuse(*groups(10, first=10))
        assert watch.breakers.due_s(watch.now_s) == watch.now_s + wait_s


@pytest.mark.parametrize(("bound", "kept"), [(YOUNG_MAX, YOUNG_MAX), (YOUNG_MAX + 1, YOUNG_MAX)])
def test_no_more_of_those_bound_lately_are_remembered_than_may_be_at_home_there(bound: int, kept: int) -> None:
    watch = Watch()
    watch.bind(*groups(bound))
    watch.breakers._book(A).settle(watch.now_s)
    assert len(watch.breakers._book(A).young) == kept


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_an_attempt_is_not_weighed_against_those_of_a_thousand_other_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(*(f"c{number}" for number in range(50)))
    for number in range(50):
        watch.tell(*(gave_up(uid, f"c{number}", "Finished", succeeded=True) for uid in groups(20, 100 * number)))
    looked: list[str] = []
    recent = _Book.recent
    monkeypatch.setattr(_Book, "recent", lambda book, now_s: looked.append("") or recent(book, now_s))
    watch.tell(gave_up("l.9000", "c0", "Finished", succeeded=True))
    assert not looked
    watch.refuse("l.9001", cluster="c0")
    assert len(looked) == 1, "its own cluster's alone: elsewhere nothing is in doubt"


def test_attempts_in_doubt_are_counted_as_they_come_and_go() -> None:
    watch = Watch()
    for number in range(100):
        uid = f"l.{number % 7 if number % 3 else number}"
        watch.fail(uid) if number % 5 else watch.refuse(uid)
        book = watch.breakers._books[A]
        assert book.doubtful == sum(one.fate is Fate.DOUBTFUL for one in book.attempts.values())
