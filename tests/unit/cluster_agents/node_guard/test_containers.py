"""Which containers may start on a node, and which are asked to end and ended when."""

import pytest

from cluster_agents.node_guard.containers import CONTAINERS_MAX, FORGOTTEN_AFTER_S, Container, Containers
from placement.model import GRACE_S_MAX
from tests.unit.cluster_agents.node_guard.leases import DEADLINE_S, RENEWAL_S, START_S, lease, leased, starting

GRACE_S = 20.0


def ours(name: str = "a", token: str = "L.1", grace_s: float = GRACE_S) -> Container:
    return Container(name, token, f"team/{name}", grace_s)


def stops(containers: Containers, now_s: float) -> list[tuple[str, str]]:
    return [(one.container.id, "kill" if one.kill else "ask") for one in containers.stops(now_s)]


def running(*some: Container, hold: tuple[str, ...] = ()) -> Containers:
    """Under a lease until `DEADLINE_S`."""
    containers = Containers(leased(*hold))
    containers.listed(some or (ours(),))
    return containers


def test_before_the_deadline_all_may_start_and_from_it_on_only_what_is_held() -> None:
    containers = running(hold=("L.2",))
    assert containers.may_start(ours(), DEADLINE_S - 0.1)
    assert not containers.may_start(ours(), DEADLINE_S)
    assert containers.may_start(ours("b", "L.2"), DEADLINE_S + 1_000)


def test_before_any_answer_nothing_may_start() -> None:
    containers = Containers(starting("L.1"))
    assert not containers.may_start(ours(), START_S)
    assert containers.known == ()


def test_what_may_start_is_known_and_what_may_not_is_not() -> None:
    containers = running()
    containers.may_start(ours("b"), START_S)
    containers.may_start(ours("c"), DEADLINE_S)
    assert [one.id for one in containers.known] == ["a", "b"]


def test_of_so_many_containers_the_last_may_start_and_one_more_may_not_but_one_of_them_may_again() -> None:
    containers = running(*(ours(f"c{number}") for number in range(CONTAINERS_MAX - 1)))
    assert containers.may_start(ours("last"), START_S)
    assert not containers.may_start(ours("more"), START_S)
    assert containers.may_start(ours("last"), START_S)
    containers.gone("c0")
    assert containers.may_start(ours("more"), START_S)


def test_who_is_due_is_asked_to_end_and_ended_when_its_grace_is_over() -> None:
    containers = running(ours("a"), ours("b", grace_s=0), ours("c", "L.2"), hold=("L.2",))
    assert stops(containers, DEADLINE_S - 0.1) == []
    assert stops(containers, DEADLINE_S) == [("a", "ask"), ("b", "kill")]
    assert stops(containers, DEADLINE_S + GRACE_S - 0.1) == [("a", "ask"), ("b", "kill")]
    assert stops(containers, DEADLINE_S + GRACE_S) == [("a", "kill"), ("b", "kill")]


def test_a_guard_that_nobody_answers_ends_what_an_earlier_start_knew_but_for_what_that_held() -> None:
    containers = Containers(starting("L.2"), [ours("a"), ours("b", "L.2")])
    assert stops(containers, START_S + RENEWAL_S - 0.1) == []
    assert stops(containers, START_S + RENEWAL_S) == [("a", "ask")]


def test_who_was_asked_to_end_is_ended_though_the_lease_lives_again() -> None:
    guard = leased()
    containers = Containers(guard, [ours()])
    assert stops(containers, DEADLINE_S) == [("a", "ask")]
    lease(guard, DEADLINE_S + 1, 600.0, "L.1")
    assert stops(containers, DEADLINE_S + 2) == [("a", "ask")]
    assert stops(containers, DEADLINE_S + GRACE_S) == [("a", "kill")]


def test_a_listing_keeps_who_is_being_stopped_and_since_when_and_drops_who_is_gone() -> None:
    containers = running(ours("a"), ours("b"))
    containers.stops(DEADLINE_S)
    containers.listed([ours("a"), ours("c")])
    assert containers.stopping == {"a": DEADLINE_S}
    assert stops(containers, DEADLINE_S + GRACE_S) == [("a", "kill"), ("c", "ask")]


def test_a_later_start_of_the_guard_goes_on_with_the_grace_that_an_earlier_one_began() -> None:
    before = running(ours("a"), ours("b"))
    before.stops(DEADLINE_S)
    containers = Containers(starting(), [ours("a")], before.stopping)
    assert stops(containers, DEADLINE_S + GRACE_S) == [("a", "kill")]
    assert containers.stopping == {"a": DEADLINE_S}  # the other is known to nobody any more


def test_one_without_a_process_is_looked_for_so_long_and_then_forgotten() -> None:
    containers = running(ours("a"), ours("b"))
    containers.stops(DEADLINE_S)
    containers.ended(["a"], DEADLINE_S + FORGOTTEN_AFTER_S - 0.1)
    assert [one.id for one in containers.known] == ["a", "b"]
    containers.ended(["a"], DEADLINE_S + FORGOTTEN_AFTER_S)
    assert [one.id for one in containers.known] == ["b"]
    assert containers.stopping.keys() == {"b"}


def test_one_that_nobody_stops_is_not_forgotten_for_having_no_process() -> None:
    containers = running()
    containers.ended(["a"], DEADLINE_S + 10 * FORGOTTEN_AFTER_S)
    assert [one.id for one in containers.known] == ["a"]


@pytest.mark.parametrize("grace_s", [-1.0, GRACE_S_MAX + 1.0, float("nan")])
def test_a_grace_that_no_group_may_have_is_a_bug(grace_s: float) -> None:
    with pytest.raises(AssertionError):
        ours(grace_s=grace_s)
