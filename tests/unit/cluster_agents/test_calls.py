"""Calls to the API server: budget, deadline, time-outs, and what is still open."""

import pytest

from cluster_agents.core.calls import Calls, Outcome, Request, Step, outcome, unauthorized
from cluster_agents.core.config import ANSWER_SLACK_S, CALL_TIMEOUT_S, STARTS_IN_FLIGHT_MAX, AgentConfig
from cluster_agents.core.events import WriteClass


def calls(*, per_s: float = 20.0, burst: int = 1_000) -> Calls:
    return Calls(AgentConfig(cluster="c-1", boot_nonce="b", api_per_s=per_s, api_burst=burst), first_id=1)


def start(name: str = "p", owner: str = "l1.5") -> Request:
    return Request(owner, Step.CREATE_POD, name, "POST", "/pods", {}, WriteClass.STARTS)


def undo(name: str = "p", owner: str = "l1.5") -> Request:
    return Request(owner, Step.DELETE_POD, name, "DELETE", f"/pods/{name}", {})


@pytest.mark.parametrize(
    ("status", "means"),
    [
        (0, Outcome.UNKNOWN),
        (200, Outcome.DONE),
        (201, Outcome.DONE),
        (401, Outcome.BUSY),
        (403, Outcome.REFUSED),
        (404, Outcome.MISSING),
        (408, Outcome.UNKNOWN),
        (409, Outcome.CONFLICT),
        (422, Outcome.REFUSED),
        (429, Outcome.THROTTLED),
        (500, Outcome.BUSY),
        (504, Outcome.UNKNOWN),
    ],
)
def test_a_status_means_one_of_seven_things(status: int, means: Outcome) -> None:
    assert outcome(status) is means


@pytest.mark.parametrize(
    ("message", "meant"),
    [
        (
            'pods is forbidden: User "agent" cannot create resource "pods" in API group "" in the namespace "default"',
            True,
        ),
        ('pods "p" is forbidden: User "agent" cannot create resource "pods/binding" in API group ""', True),
        ('pods "p" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1', False),
        ('pods "p" is forbidden: violates PodSecurity "restricted:latest": User cannot be root', False),
        (
            'pods "p" is forbidden: error looking up service account n/default: serviceaccount "default" not found',
            False,
        ),
        ("", False),
    ],
)
def test_who_may_not_do_it_is_told_from_what_may_not_be(message: str, meant: bool) -> None:
    assert unauthorized(message) is meant


def test_a_start_does_not_leave_without_a_deadline_or_after_it() -> None:
    made = calls()
    made.want(start())
    assert made.drain(10.0, None) == []
    assert made.drain(10.0, 10.0) == []
    assert len(made.drain(10.0, 11.0)) == 1


def test_the_time_out_of_a_start_is_no_longer_than_what_remains() -> None:
    made = calls()
    made.want(start("a"))
    made.want(undo("a"))
    sent = {call.method: call.timeout_s for call in made.drain(10.0, 11.5)}
    assert sent == {"POST": 1.5, "DELETE": CALL_TIMEOUT_S}
    made.want(start("b"))
    assert [call.timeout_s for call in made.drain(10.0, 100.0)] == [CALL_TIMEOUT_S]


def test_undoing_goes_before_starting_and_is_not_held_up_by_the_budget() -> None:
    made = calls(per_s=1.0, burst=2)
    for name in "abc":
        made.want(start(name))
        made.want(undo(name))
    assert [call.method for call in made.drain(0.0, 60.0)] == ["DELETE", "DELETE", "DELETE"]
    assert made.drain(1.0, 60.0) == []
    assert [call.method for call in made.drain(2.5, 60.0)] == ["POST"]


@pytest.mark.parametrize(
    ("asked", "wait_s"),
    [(None, 1.0), (3, 3.0), (0, 1.0), (-5, 1.0), ("soon", 1.0), (0.5, 1.0), (10, 10.0), (11, 10.0), (10**400, 10.0)],
    ids=lambda value: str(value)[:8],
)
def test_while_the_server_has_too_much_to_do_nothing_is_started_and_undoing_goes_on(
    asked: object, wait_s: float
) -> None:
    made = calls()
    made.throttled({"details": {"retryAfterSeconds": asked}} if asked is not None else {}, 100.0)
    made.want(start())
    made.want(undo())
    assert [call.method for call in made.drain(100.0, 200.0)] == ["DELETE"]
    assert made.drain(100.0 + wait_s - 0.01, 200.0) == []
    lost_at_s = 100.0 + CALL_TIMEOUT_S + ANSWER_SLACK_S
    assert made.wake_at_s(100.0, 200.0, may_send=True) == min(100.0 + wait_s, lost_at_s)
    assert [call.method for call in made.drain(100.0 + wait_s, 200.0)] == ["POST"]


def test_the_same_call_is_not_wanted_twice_while_it_is_open() -> None:
    made = calls()
    made.want(start())
    made.want(start())
    (call,) = made.drain(0.0, 60.0)
    made.want(start())
    assert made.drain(0.0, 60.0) == []
    assert made.answered(call.call_id) is not None
    made.want(start())
    assert len(made.drain(0.0, 60.0)) == 1


def test_at_most_so_many_starts_are_under_way() -> None:
    made = calls()
    for number in range(STARTS_IN_FLIGHT_MAX + 1):
        made.want(start(str(number)))
    sent = made.drain(0.0, 60.0)
    assert len(sent) == STARTS_IN_FLIGHT_MAX
    made.answered(sent[0].call_id)
    assert len(made.drain(0.0, 60.0)) == 1


def test_starts_count_as_open_until_answered_and_cancelling_reaches_only_what_has_not_left() -> None:
    made = calls(burst=1)
    made.want(start("a"))
    made.want(start("b"))
    (call,) = made.drain(0.0, 60.0)
    assert made.starts_of("l1.5") == 2
    made.cancel_starts("l1.5")
    assert made.starts_of("l1.5") == 1
    assert made.drain(100.0, 160.0) == []
    made.answered(call.call_id)
    assert made.starts_of("l1.5") == 0
    made.check_invariants()


def test_an_answer_that_never_comes_makes_the_call_expire_once() -> None:
    made = calls()
    made.want(start())
    (call,) = made.drain(0.0, 60.0)
    assert made.expired(CALL_TIMEOUT_S) == []
    assert made.expired(CALL_TIMEOUT_S + 2.0) == [call.call_id]
    assert made.answered(call.call_id) is not None
    assert made.answered(call.call_id) is None
    assert made.expired(1_000.0) == []


def first(owner: str, followed_by: int = 2) -> Request:
    return Request(owner, Step.WRITE_INTENT, "", "POST", "/cm", {}, WriteClass.STARTS, followed_by=followed_by)


def test_gangs_wait_to_begin_until_those_before_them_are_further_on() -> None:
    made = calls(per_s=1.0, burst=10)
    for number in range(20):
        made.want(first(f"l1.{number}", followed_by=5))
    assert len(made.drain(0.0, 100.0)) == 4  # 5 left, and 10 s of them: 4 x 5 are more than 6 and 10
    assert made.waits_its_turn("l1.4", 0.0)
    assert not made.waits_its_turn("l1.3", 0.0)
    made.want(start("a", owner="l1.0"))
    assert [call.path for call in made.drain(0.0, 100.0)] == ["/pods"]
    made.follows("l1.0", 0)
    assert [call.path for call in made.drain(0.0, 100.0)] == ["/cm"]
    made.check_invariants()


def test_a_gang_that_waits_to_begin_and_is_given_up_is_forgotten() -> None:
    made = calls(per_s=1.0, burst=4)
    for number in range(4):
        made.want(first(f"l1.{number}", followed_by=100))
    made.drain(0.0, 100.0)
    assert made.waits_its_turn("l1.3", 0.0)
    for number in range(4):
        made.cancel_starts(f"l1.{number}")
    assert not made.waits_its_turn("l1.3", 0.0)
    made.check_invariants()
    assert made.wake_at_s(0.0, 100.0, may_send=True) == CALL_TIMEOUT_S + ANSWER_SLACK_S


def test_a_gang_that_waits_to_begin_does_so_when_the_budget_has_grown_though_those_before_it_stand_still() -> None:
    made = calls(per_s=1.0, burst=60)
    made.want(first("l1.0", followed_by=50))
    for number in range(20):
        made.want(undo(str(number)))
    sent = made.drain(0.0, 1_000.0)
    made.want(first("l1.1"))
    assert made.drain(0.0, 1_000.0) == []
    for call in sent:
        made.answered(call.call_id)
    assert made.wake_at_s(0.0, 1_000.0, may_send=True) == 1.0  # 39 left, 40 and 10 s of them are enough for 50
    (begun,) = made.drain(1.0, 1_000.0)
    made.answered(begun.call_id)
    made.want(first("l1.2"))
    made.follows("l1.0", 100)
    assert made.drain(1.0, 1_000.0) == []
    assert made.wake_at_s(1.0, 1_000.0, may_send=True) == float("inf")  # more than there ever are


def test_a_gang_is_bound_beside_a_half_bound_one_only_if_the_budget_is_enough_for_both() -> None:
    made = calls(per_s=1.0, burst=5)
    assert made.may_bind("l1.1", 100, within_s=10.0)
    assert made.may_bind("l1.1", 100, within_s=10.0)
    assert not made.may_bind("l1.2", 6, within_s=10.0)
    made.settled("l1.1")
    assert made.may_bind("l1.2", 6, within_s=10.0)
    assert made.may_bind("l1.3", 9, within_s=10.0)  # 5 are left, and 10 come in time
    made.want(Request("l1.2", Step.BIND_POD, "p", "POST", "/pods/p/binding", {}, WriteClass.STARTS))
    assert not made.may_bind("l1.4", 1, within_s=10.0)
    made.drain(0.0, 100.0)
    assert not made.may_bind("l1.4", 1, within_s=10.0)
    made.drain(10.0, 100.0)


def used_up(owed: int) -> Calls:
    """What undid a large gang took all of the budget, and so much more."""
    made = calls(per_s=20.0, burst=1_000)
    left = 1_000 + owed
    while left:
        for number in range(min(left, 64)):
            made.want(undo(str(number)))
            left -= 1
        for call in made.drain(0.0, 60.0):
            made.answered(call.call_id)
    return made


def starts_within(made: Calls, from_s: int, until_s: int) -> int:
    """How many of as many as one likes leave, one look a second."""
    left = 0
    for second in range(from_s, until_s):
        for number in range(30):
            made.want(start(f"{second}-{number}"))
        for call in made.drain(second + 1.0, 1_000.0):
            made.answered(call.call_id)
            left += 1
        made.cancel_starts("l1.5")
        made.check_invariants()
    return left


def test_others_start_at_half_the_pace_while_what_undid_a_large_gang_is_made_up_for() -> None:
    """For 55 s nothing started at all."""
    made = used_up(800)
    assert starts_within(made, 0, 10) == 100
    assert starts_within(made, 10, 80) == 700
    assert starts_within(made, 80, 90) == 200


def test_no_more_is_made_up_for_than_within_a_bind_deadline() -> None:
    made = used_up(5_000)
    assert starts_within(made, 0, 100) == 1_000
    assert starts_within(made, 100, 110) == 200


def test_a_half_bound_gang_has_the_whole_budget_whatever_was_undone() -> None:
    made = used_up(800)
    assert made.may_bind("l1.9", 500, within_s=15.0)
    assert starts_within(made, 0, 10) == 200
    made.settled("l1.9")
    assert starts_within(made, 10, 20) == 100
