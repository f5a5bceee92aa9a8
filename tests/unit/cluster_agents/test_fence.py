"""What an agent may do under which lease, and what it stops when the lease ends (DESIGN §9 "Fence", §11)."""

import pytest

from federation.protocol.lease import LeaseState
from placement.model import FenceStrength
from tests.unit.cluster_agents.rig import FAST, GUARDED, Rig, node


def starts(rig: Rig) -> list[str]:
    return [call.path for call in rig.calls if call.write_class == "starts"]


def test_nothing_starts_before_the_cluster_was_admitted() -> None:
    rig = Rig()
    token = rig.federation.place(pods=2)
    rig.advance(60.0)
    assert rig.pods(token) == []
    assert starts(rig) == []


def test_a_cluster_that_is_not_admitted_reports_its_epoch_and_that_it_is_not_live() -> None:
    rig = Rig()
    rig.advance(10.0)
    last = rig.reports[-1]
    assert (last.live, last.epoch, last.tokens) == (False, 1, ())


def test_a_fence_undoes_a_group_that_may_not_be_held_and_releases_it_as_lease_lost() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    rig.run(token)
    rig.federation.fence()
    rig.advance(FAST.renew_s + 10)
    assert rig.live(token) == []
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.reasons) == ("Released", ("LeaseLost",))


@pytest.mark.parametrize("policy", ["HoldInPlace", "MoveAnyway"])
def test_a_bound_group_of_a_holding_policy_runs_on_through_a_fence(policy: str) -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2, policy=policy)
    rig.run(token)
    rig.federation.fence()
    rig.advance(120.0)
    assert len(rig.live(token)) == 2
    assert rig.reports[-1].tokens == (token,)


def test_a_group_whose_bound_never_landed_is_not_held() -> None:
    rig = Rig().ready()
    rig.federation.takes_verdicts = False
    token = rig.federation.place(pods=2, policy="HoldInPlace")
    rig.ring()
    rig.advance(3.0)
    assert len(rig.live(token)) == 2
    rig.federation.fence()
    rig.advance(FAST.renew_s + 10)
    assert rig.live(token) == []


def test_an_answer_that_a_home_had_ended_does_not_make_its_group_holdable() -> None:
    rig = Rig().ready()
    rig.federation.takes_verdicts = False
    token = rig.federation.place(pods=2, policy="HoldInPlace")
    rig.ring()
    rig.advance(3.0)
    rig.federation.fence()
    rig.federation.end(token)
    rig.federation.takes_verdicts = True  # answers `Bound` with the position at which the home ended
    rig.advance(FAST.renew_s + 10)
    assert rig.live(token) == []


def test_without_any_answer_the_agent_fences_at_the_deadline_counted_from_before_sending() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=1)
    rig.run(token)
    rig.until(lambda: rig.now_s >= 12.0)
    rig.federation.up = False
    renewed_s = rig.now_s
    rig.advance(FAST.ttl_s - FAST.renew_s - 0.5)
    assert len(rig.live(token)) == 1
    rig.until(lambda: bool(rig.agent.ledger.has(token)))
    assert rig.now_s - renewed_s <= FAST.ttl_s
    rig.advance(5.0)
    assert rig.live(token) == []


def test_a_restarted_agent_starts_nothing_and_fences_unless_a_renewal_succeeds_within_r() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=1)
    rig.run(token)
    rig.federation.renews = False
    waiting = rig.federation.place(pods=1)
    rig.restart()
    rig.until(lambda: rig.agent.active)
    acts_s = rig.now_s
    rig.advance(FAST.renew_s - 0.5)
    assert len(rig.live(token)) == 1
    rig.advance(6.0)
    assert rig.live(token) == []
    assert rig.pods(waiting) == []
    assert acts_s > 0


def test_a_restarted_agent_holds_what_the_intent_says_was_bound_without_any_server() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2, policy="HoldInPlace")
    rig.run(token)
    rig.advance(2.0)
    rig.federation.up = False
    rig.restart()
    rig.advance(120.0)
    assert len(rig.live(token)) == 2


def test_after_readmission_only_answers_from_the_floor_on_are_acted_on() -> None:
    rig = Rig().ready()
    old = rig.federation.place(pods=1)
    rig.run(old)
    rig.federation.fence()
    rig.advance(30.0)
    stale = rig.federation.desired(ask_id=1, since=0)
    rig.federation.admit()
    assert rig.federation.lease.state == LeaseState.ACTIVE
    rig.federation.up = True
    answers = rig.federation.desired
    frozen = rig.federation.position - 1

    def lagging(ask_id: int, since: int) -> object:
        answer = answers(ask_id, since)
        return type(answer)(**{f: getattr(answer, f) for f in answer.__struct_fields__} | {"as_of": frozen})

    new = rig.federation.place(pods=1)
    rig.federation.desired = lagging  # type: ignore[method-assign,assignment]
    rig.advance(20.0)
    assert rig.pods(new) == []
    assert stale.as_of < rig.federation.lease.floor
    rig.federation.desired = answers  # type: ignore[method-assign]
    rig.advance(20.0)
    assert rig.federation.heard(new) == ["Bound", "Running"]


def test_starts_are_never_sent_past_the_deadline_and_their_time_out_ends_before_it() -> None:
    rig = Rig(api_per_s=2.0, api_burst=10).ready()
    rig.federation.place(pods=16)
    rig.ring()
    rig.federation.renews = False
    rig.advance(60.0)
    deadline_s = rig.agent._fence.lease.deadline_s  # type: ignore[union-attr]
    assert deadline_s is None or deadline_s < rig.now_s
    late = [call for call in rig.calls if call.write_class == "starts" and call.timeout_s <= 0]
    assert late == []
    assert rig.live() == []


def test_an_agent_that_cannot_write_to_its_api_server_stops_renewing_after_a_third_of_the_ttl() -> None:
    rig = Rig().ready()
    rig.advance(10.0)
    rig.api_up = False
    cut_s = rig.now_s
    seen: list[tuple[float, int]] = []
    for _ in range(100):
        rig.advance(0.5)
        seen.append((rig.now_s - cut_s, rig.federation.lease.renew_seq))
    last_s = next(at for at, seq in seen if seq == seen[-1][1])
    assert 4.0 <= last_s <= FAST.ttl_s / 3 + 0.5


def test_a_lease_that_belongs_to_another_cluster_stops_the_process() -> None:
    rig = Rig()
    rig.federation.lease = type(rig.federation.lease)(cluster="c-1", state="Active", epoch=1, holder_uid="other")
    rig.advance(2.0)
    assert len(rig.stops) == 1
    assert rig.agent.wake_at_s(rig.now_s) == float("inf")


def test_guards_learn_the_remainder_of_the_lease_and_what_may_be_held() -> None:
    rig = Rig(node("n-1"), timing=GUARDED, fence_strength=FenceStrength.GUARD).ready()
    held = rig.federation.place(pods=1, policy="HoldInPlace")
    loose = rig.federation.place(pods=1)
    rig.run(held)
    rig.run(loose)
    rig.advance(6.0)
    guard = rig.kubelets.guard("n-1")
    assert guard is not None
    assert guard.hold == frozenset({held})
    assert guard.deadline_s is not None
    assert guard.deadline_s <= rig.agent._fence.lease.deadline_s  # type: ignore[union-attr,operator]
    rig.kill()
    rig.advance(60.0)
    assert rig.live() == rig.live(held) != []


def test_a_starting_agent_gives_guards_no_answer_and_a_fenced_one_no_time() -> None:
    rig = Rig(node("n-1"), timing=GUARDED, start=False)
    rig.federation.up = False
    rig.start()
    rig.advance(FAST.renew_s - 1)
    guard = rig.kubelets.guard("n-1")
    assert guard is not None
    assert guard.deadline_s is None
    rig.advance(10.0)
    assert guard.deadline_s is not None
    assert guard.deadline_s <= rig.now_s


def test_a_container_stopped_by_its_guard_is_a_lost_member_not_a_failure() -> None:
    rig = Rig(node("n-1"), timing=GUARDED).ready()
    token = rig.federation.place(pods=1)
    rig.run(token)
    rig.kill()
    rig.until(lambda: rig.live(token) == [])
    rig.start()
    rig.advance(40.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.reasons) == ("Released", ("MemberLost",))


@pytest.mark.parametrize("status", [401, 403, 500])
def test_an_agent_that_may_not_write_to_its_api_server_lets_its_lease_run_out(status: int) -> None:
    """It could not stop anything; while it renewed, nobody else would."""
    rig = Rig().ready()
    rig.advance(1.0)
    rig.override = lambda call: None if call.method == "GET" else status
    rig.advance(FAST.ttl_s / 3 + FAST.renew_s)
    before = rig.federation.lease.renew_seq
    rig.advance(FAST.ttl_s)
    assert rig.federation.lease.renew_seq == before


def test_a_write_that_is_refused_for_what_it_says_does_not_count_against_the_api_server() -> None:
    """A quota, or a webhook, that forbids pods: the lease in the cluster is renewed all the same."""
    rig = Rig().ready()
    rig.override = lambda call: 403 if call.path.endswith("/pods") and call.method == "POST" else None
    token = rig.federation.place(pods=1)
    before = rig.federation.lease.renew_seq
    rig.ring()
    rig.advance(FAST.ttl_s)
    assert rig.federation.given_up(token).reasons == ("TemplateRefused",)
    assert rig.federation.lease.renew_seq > before


NO_ROLE = 'pods is forbidden: User "agent" cannot create resource "pods" in API group "" in the namespace "default"'


def test_an_api_server_that_has_just_started_and_knows_no_roles_is_asked_again() -> None:
    rig = Rig().ready()
    until_s = rig.now_s + 2.0
    rig.said = NO_ROLE
    rig.override = lambda call: (
        403 if call.method == "POST" and call.path.endswith("/pods") and rig.now_s < until_s else None
    )
    token = rig.federation.place(pods=2)
    rig.run(token)
    assert rig.bound(token) == 2


def test_an_agent_without_its_role_says_so() -> None:
    rig = Rig().ready()
    rig.said = NO_ROLE
    rig.override = lambda call: 403 if call.path.endswith("/pods") and call.method == "POST" else None
    token = rig.federation.place(pods=1)
    rig.ring()
    rig.advance(FAST.ttl_s)
    verdict = rig.federation.given_up(token)
    assert verdict.reasons == ("ApiError",)
    assert NO_ROLE in verdict.detail
