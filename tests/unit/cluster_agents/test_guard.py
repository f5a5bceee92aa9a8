"""The node guard: when it fences, what it stops, and what answers count."""

from cluster_agents.core.guard import ASKS_REMEMBERED_MAX, Guard
from federation.protocol.messages import GuardAnswer, GuardAsk

R_S = 10.0


def started(at_s: float = 100.0, *, boot: int = 0, held_before: frozenset[str] = frozenset()) -> Guard:
    return Guard("n-1", boot, started_at_s=at_s, renewal_s=R_S, held_before=held_before)


def reply(ask: GuardAsk, remaining_s: float, *hold: str) -> GuardAnswer:
    return GuardAnswer(ask_id=ask.ask_id, remaining_s=remaining_s, hold=hold)


def test_the_deadline_counts_from_before_the_ask_not_from_the_answer() -> None:
    guard = started()
    ask = guard.ask(101.0)
    guard.answered(reply(ask, 30.0))  # however late it arrives
    assert guard.deadline_s == 131.0
    assert guard.due(130.9, ["L.1"]) == ()
    assert guard.due(131.0, ["L.1"]) == ("L.1",)


def test_a_starting_guard_permits_no_start_before_its_first_answer() -> None:
    guard = started(held_before=frozenset({"L.1"}))
    assert not guard.may_start("L.1", 100.0)
    assert not guard.may_start("L.2", 100.0)
    guard.answered(reply(guard.ask(100.0), 30.0))
    assert guard.may_start("L.2", 100.0)


def test_a_starting_guard_leaves_running_what_runs_for_one_renewal_then_fences() -> None:
    guard = started()
    guard.ask(100.0)
    assert guard.due(109.9, ["L.1"]) == ()
    assert guard.due(110.0, ["L.1"]) == ("L.1",)


def test_an_answer_within_one_renewal_keeps_a_starting_guard_from_fencing() -> None:
    guard = started()
    guard.answered(reply(guard.ask(100.0), 60.0))
    assert guard.due(110.0, ["L.1"]) == ()
    assert guard.fences_at_s == 160.0


def test_an_answer_to_an_ask_of_an_earlier_start_is_ignored() -> None:
    earlier = started(90.0, boot=0)
    ask = earlier.ask(95.0)
    guard = started(100.0, boot=1)
    guard.answered(reply(ask, 600.0, "L.1"))
    assert guard.deadline_s is None
    assert guard.hold == frozenset()


def test_a_repeated_or_overtaken_answer_moves_nothing_back() -> None:
    guard = started()
    first, second = guard.ask(100.0), guard.ask(110.0)
    guard.answered(reply(second, 60.0, "L.2"))
    guard.answered(reply(first, 60.0, "L.1"))
    guard.answered(reply(second, 60.0, "L.2"))
    assert guard.deadline_s == 170.0
    assert guard.hold == frozenset({"L.2"})


def test_a_shorter_remainder_does_not_shorten_what_was_told_before() -> None:
    guard = started()
    guard.answered(reply(guard.ask(100.0), 600.0))
    guard.answered(reply(guard.ask(110.0), 30.0))
    assert guard.deadline_s == 700.0


def test_held_tokens_run_past_the_deadline_and_may_start_again() -> None:
    guard = started()
    guard.answered(reply(guard.ask(100.0), 30.0, "L.2"))
    assert guard.due(500.0, ["L.3", "L.1", "L.2", "L.1"]) == ("L.1", "L.3")
    assert guard.may_start("L.2", 500.0)
    assert not guard.may_start("L.1", 500.0)


def test_after_a_reboot_a_held_token_may_not_start_on_the_word_of_an_agent_without_a_lease() -> None:
    guard = started(boot=1, held_before=frozenset({"L.2"}))
    guard.answered(reply(guard.ask(100.0), 0.0, "L.2"))
    assert not guard.may_start("L.2", 100.0)  # confirmed dead meanwhile, it may run elsewhere
    assert guard.due(110.0, ["L.2"]) == ()  # but what still runs may run on
    guard.answered(reply(guard.ask(110.0), 30.0, "L.2"))
    assert guard.may_start("L.2", 110.0)


def test_what_starts_after_the_deadline_is_due_as_well() -> None:
    guard = started()
    guard.answered(reply(guard.ask(100.0), 30.0))
    assert guard.due(131.0, []) == ()
    assert guard.due(400.0, ["L.9"]) == ("L.9",)


def test_a_container_of_ours_without_a_token_is_never_held() -> None:
    guard = started()
    guard.answered(reply(guard.ask(100.0), 30.0, "L.2"))
    assert guard.due(131.0, [""]) == ("",)


def test_a_fenced_agents_answer_of_no_remainder_gives_no_time() -> None:
    guard = started()
    guard.answered(reply(guard.ask(100.0), 0.0, "L.2"))
    assert guard.due(100.0, ["L.1", "L.2"]) == ("L.1",)


def test_a_new_deadline_ends_the_fence() -> None:
    guard = started()
    guard.answered(reply(guard.ask(100.0), 30.0))
    assert guard.fences(131.0)
    guard.answered(reply(guard.ask(140.0), 30.0))
    assert not guard.fences(140.0)
    assert guard.may_start("L.1", 140.0)


def test_a_restarted_guard_holds_what_it_knew_until_an_answer_says_otherwise() -> None:
    guard = started(held_before=frozenset({"L.1"}))
    assert guard.due(200.0, ["L.1", "L.2"]) == ("L.2",)
    guard.answered(reply(guard.ask(200.0), 0.0))
    assert guard.due(200.0, ["L.1", "L.2"]) == ("L.1", "L.2")


def test_the_guard_asks_at_its_start_and_then_every_renewal_interval_answered_or_not() -> None:
    guard = started()
    assert guard.ask_due_s == 100.0
    guard.ask(100.5)
    assert guard.ask_due_s == 110.5


def test_of_many_unanswered_asks_the_oldest_are_forgotten() -> None:
    guard = started()
    asks = [guard.ask(100.0 + i) for i in range(ASKS_REMEMBERED_MAX + 1)]
    guard.answered(reply(asks[0], 600.0))
    assert guard.deadline_s is None
    guard.answered(reply(asks[1], 600.0))
    assert guard.deadline_s == 701.0


def test_while_the_fleet_recovers_what_runs_goes_on_and_nothing_starts_until_a_newer_answer_lets_it() -> None:
    guard = started()
    first, second = guard.ask(100.0), guard.ask(105.0)
    guard.answered(GuardAnswer(ask_id=first.ask_id, remaining_s=60.0, hold=("L.2",), starts=False))
    assert guard.due(110.0, ["L.1", "L.2"]) == ()
    assert (guard.may_start("L.1", 110.0), guard.may_start("L.2", 110.0)) == (False, False)
    guard.answered(reply(second, 60.0))
    assert guard.may_start("L.1", 110.0)
