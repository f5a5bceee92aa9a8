"""A faulty API server: lost replies, conflicts, refusals and outages. Every gang ends whole or not at all."""

from collections.abc import Callable

import pytest

from cluster_agents.core.events import CallKube
from tests.unit.cluster_agents.rig import Rig, node

STEPS = {
    "intent": ("POST", "/configmaps"),
    "service": ("POST", "/services"),
    "pod": ("POST", "/pods"),
    "binding": ("POST", "/binding"),
}


def first(method: str, ending: str, times: int = 1) -> Callable[[CallKube], bool]:
    left = times

    def matches(call: CallKube) -> bool:
        nonlocal left
        if call.method == method and call.path.endswith(ending) and left > 0:
            left -= 1
            return True
        return False

    return matches


def forced(status: int, matches: Callable[[CallKube], bool]) -> Callable[[CallKube], int | None]:
    return lambda call: status if matches(call) else None


@pytest.mark.parametrize("step", STEPS)
def test_a_lost_reply_after_an_applied_write_is_read_back_not_taken_as_failed(step: str) -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=3)
    rig.lose_reply = first(*STEPS[step])
    rig.ring()
    rig.advance(10.0)
    assert rig.federation.heard(token) == ["Bound", "Running"]
    assert len(rig.pods()) == 3


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("status", [0, 401, 408, 429, 500, 503])
def test_a_write_that_was_not_carried_out_is_tried_again(step: str, status: int) -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=3)
    rig.override = forced(status, first(*STEPS[step], times=2))
    rig.ring()
    rig.advance(10.0)
    assert rig.federation.heard(token) == ["Bound", "Running"]


@pytest.mark.parametrize("step", STEPS)
def test_a_write_that_fails_again_and_again_ends_in_a_refusal(step: str) -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=3)
    rig.override = forced(500, first(*STEPS[step], times=1_000))
    rig.ring()
    rig.advance(40.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.reasons) == ("Refused", ("ApiError",))
    assert rig.pods() == []
    assert rig.intents() == []


def test_a_pod_bound_by_somebody_else_to_another_node_aborts_the_gang() -> None:
    rig = Rig(node("n-1"), node("n-2")).ready()
    token = rig.federation.place(pods=2, gpus=8)
    seen: list[CallKube] = []

    def steal(call: CallKube) -> int | None:
        if call.path.endswith("/binding") and not seen:
            seen.append(call)
            assert call.body is not None
            other = "n-2" if call.body["target"]["name"] == "n-1" else "n-1"
            assert rig.request("POST", call.path, {**call.body, "target": {"kind": "Node", "name": other}}) == 201
        return None

    rig.override = steal
    rig.ring()
    rig.advance(40.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.reasons) == ("Refused", ("BindConflict",))
    assert rig.live() == []
    assert rig.pods() == []


def test_a_pod_deleted_before_it_was_bound_aborts_the_gang() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    seen: list[CallKube] = []

    def vanish(call: CallKube) -> int | None:
        if call.path.endswith("/binding") and not seen:
            seen.append(call)
            rig.request("DELETE", call.path.removesuffix("/binding"))
        return None

    rig.override = vanish
    rig.ring()
    rig.advance(40.0)
    assert rig.federation.given_up(token).reasons == ("BindConflict",)
    assert rig.pods() == []


def test_a_gang_of_which_a_node_went_before_it_was_bound_starts_nothing() -> None:
    """Its pods were bound, and those on other nodes started, before it was undone."""
    rig = Rig(node("n-1"), node("n-2")).ready()
    token = rig.federation.place(pods=2, gpus=8)

    def take_away(call: CallKube) -> int | None:
        if call.path.endswith("/pods") and len(rig.sent("POST", "/pods")) == 2:
            assert rig.request("DELETE", "/api/v1/nodes/n-2") == 200
        return None

    rig.override = take_away
    rig.ring()
    rig.advance(20.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.reasons, verdict.detail) == (("BindConflict",), "node n-2 is gone")
    assert rig.sent("POST", "/binding") == []
    assert rig.pods() == []


def test_a_gang_that_cannot_be_bound_in_time_is_undone_whole() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=3)
    blocked = first("POST", "/binding", times=1)
    stuck = {"path": ""}

    def stall(call: CallKube) -> int | None:
        if blocked(call):
            stuck["path"] = call.path
        return 429 if call.path == stuck["path"] else None

    rig.override = stall
    rig.ring()
    rig.advance(60.0)
    verdict = rig.federation.given_up(token)
    assert verdict.verdict == "Refused"
    assert rig.live() == []


@pytest.mark.parametrize("step", STEPS)
def test_a_server_that_has_too_much_to_do_is_waited_for(step: str) -> None:
    """Five refusals in eleven seconds ended the gang, for any one of its pods."""
    rig = Rig().ready()
    token = rig.federation.place(pods=3)
    busy_until_s = rig.now_s + 14.0
    method, ending = STEPS[step]
    rig.override = lambda call: (
        429 if call.method == method and call.path.endswith(ending) and rig.now_s < busy_until_s else None
    )
    rig.ring()
    rig.advance(30.0)
    assert rig.federation.heard(token) == ["Bound", "Running"]
    assert len(rig.pods()) == 3


@pytest.mark.parametrize("status", [0, 503])
@pytest.mark.parametrize("step", STEPS)
def test_what_the_server_put_off_counts_for_nothing_when_another_try_fails(step: str, status: int) -> None:
    """One time-out after five 429s was told as "unknown 6 times", and gave the gang up."""
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    (method, ending), writes = STEPS[step], 2 if step in {"pod", "binding"} else 1
    said: list[int] = []

    def busy(call: CallKube) -> int | None:
        if call.method != method or not call.path.endswith(ending) or status in said:
            return None
        said.append(status if len(said) >= 5 * writes else 429)
        return said[-1]

    rig.override = busy
    rig.ring()
    rig.advance(40.0)
    assert said[-1] == status
    assert rig.federation.heard(token) == ["Bound", "Running"]


def test_a_gang_for_which_the_server_never_has_time_is_placed_elsewhere() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=3)
    rig.override = lambda call: 429 if call.method == "POST" and call.path.endswith("/pods") else None
    rig.ring()
    rig.advance(150.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.reasons) == ("Refused", ("BindDeadline",))
    assert rig.pods() == []


def test_a_refused_template_is_named_as_such() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    rig.override = forced(422, first("POST", "/pods"))
    rig.ring()
    rig.advance(10.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.reasons, verdict.detail) == ("Refused", ("TemplateRefused",), "forced")


@pytest.mark.parametrize("status", [0, 409, 429, 500])
def test_undoing_is_repeated_until_it_is_done(status: int) -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=3)
    rig.run(token)
    failing = {"left": 9}

    def fail(call: CallKube) -> int | None:
        touches = call.method in {"DELETE", "PATCH"} or call.path.endswith("/muster-ledger")
        if touches and failing["left"]:
            failing["left"] -= 1
            return status
        return None

    rig.override = fail
    rig.federation.change(token, intent="stop", stop_reason="Cancelled")
    rig.ring()
    rig.advance(90.0)
    assert failing["left"] == 0
    assert rig.federation.given_up(token).verdict == "Released"
    assert rig.pods() == []
    assert rig.intents() == []
    assert rig.agent.ledger.entries() == []


def test_a_lost_reply_to_a_ledger_write_is_read_back() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=1)
    rig.run(token)
    rig.lose_reply = first("PUT", "/muster-ledger", times=3)
    rig.federation.change(token, intent="stop", stop_reason="Cancelled")
    rig.ring()
    rig.advance(30.0)
    assert rig.federation.given_up(token).verdict == "Released"
    assert rig.agent.ledger.entries() == []


def test_a_list_that_does_not_show_a_running_pod_is_doubted_until_the_pod_itself_was_read() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    rig.run(token)
    from cluster_agents.core.events import Kind, Listed

    rig.tell(Listed(Kind.PODS, ()))
    rig.advance(10.0)
    assert rig.federation.heard(token) == ["Bound", "Running"]
    assert len(rig.live(token)) == 2
    assert len([c for c in rig.sent("GET") if "/pods/" in c.path]) == 2


def test_events_out_of_order_repeated_and_malformed_change_nothing() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    rig.run(token)
    from cluster_agents.core.events import Changed, Kind

    for pod in rig.pods(token):
        older = {**pod, "metadata": {**pod["metadata"], "resourceVersion": "1"}, "status": {"phase": "Failed"}}
        rig.tell(Changed(Kind.PODS, older))
        rig.tell(Changed(Kind.PODS, pod))
    for junk in ({}, {"metadata": None}, {"metadata": {"name": 3}}, {"metadata": {"name": "x", "labels": []}}):
        for kind in Kind:
            rig.tell(Changed(kind, junk))
            rig.tell(Changed(kind, junk, deleted=True))
    rig.advance(10.0)
    assert rig.federation.heard(token) == ["Bound", "Running"]
    assert len(rig.live(token)) == 2


def test_the_api_budget_paces_creates_and_bindings() -> None:
    rig = Rig(api_per_s=2.0, api_burst=4).ready()
    token = rig.federation.place(pods=8)
    began_s = rig.now_s
    rig.ring()
    rig.until(lambda: rig.federation.heard(token) == ["Bound", "Running"])
    assert rig.now_s - began_s > 6.0


def test_a_list_answered_with_something_else_is_read_again_before_the_agent_acts() -> None:
    """Taken as an empty one, no gang was known after a restart, and what ran was stopped as nobody's."""
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    rig.run(token)
    rig.kill()
    rig.override = forced(200, first("GET", "/configmaps"))
    rig.start()
    rig.until(lambda: rig.agent.active)
    rig.advance(20.0)
    assert len(rig.live(token)) == 2
    assert rig.federation.heard(token) == ["Bound", "Running"]


def test_an_intent_that_a_proxy_says_it_took_is_looked_for_before_any_pod_is_made() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    rig.override = forced(200, first("POST", "/configmaps"))
    rig.ring()
    rig.advance(10.0)
    assert rig.federation.heard(token) == ["Bound", "Running"]
    assert len(rig.intents()) == 1


def test_a_give_up_that_a_proxy_says_it_took_is_in_the_ledger_before_anything_is_undone() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    rig.run(token)
    rig.override = forced(200, first("PUT", "/configmaps/muster-ledger"))
    rig.federation.change(token, intent="stop", stop_reason="Cancelled")
    rig.advance(30.0)
    assert rig.federation.given_up(token).reasons == ("Cancelled",)
    assert rig.live(token) == []


@pytest.mark.long
def test_a_burst_that_the_request_budget_takes_long_for_is_bound_one_after_another() -> None:
    rig = Rig(api_per_s=2.0, api_burst=20).ready()
    tokens = [rig.federation.place(pods=1, gpus=0) for _ in range(150)]  # 450 requests, 225 s
    rig.ring()
    rig.advance(40.0)
    assert 10 < sum(rig.federation.heard(token) == ["Bound", "Running"] for token in tokens) < 50
    rig.advance(260.0)
    assert {tuple(rig.federation.heard(token)) for token in tokens} == {("Bound", "Running")}


def test_an_agent_that_may_not_write_its_lease_says_so_once_and_again_after_it_might() -> None:
    rig = Rig(start=False)
    rig.said = "leases is forbidden"
    rig.override = lambda call: 403 if "/leases" in call.path and call.method == "POST" else None
    rig.start()
    rig.advance(30.0)
    said = [dict(note.fields) for note in rig.notes if note.event == "api.refused"]
    assert said == [{"cluster": "c-1", "step": "lease-write", "why": "403 leases is forbidden"}]
    rig.override = lambda _: None
    rig.advance(30.0)
    assert rig.agent.active
    rig.override = lambda call: 403 if "/leases" in call.path and call.method == "PUT" else None
    rig.advance(30.0)
    assert len([note for note in rig.notes if note.event == "api.refused"]) == 2


def test_what_the_server_says_of_a_write_that_conflicts_again_and_again_is_told() -> None:
    rig = Rig().ready()
    rig.override = forced(409, first("POST", "/binding", times=1_000))
    rig.said = "pod has non-empty .spec.schedulingGates"
    token = rig.federation.place()
    rig.ring()
    rig.advance(60.0)
    assert rig.federation.given_up(token).detail.endswith("5 times: pod has non-empty .spec.schedulingGates")


@pytest.mark.long
def test_gangs_that_share_a_used_up_request_budget_are_bound_one_after_another() -> None:
    """Two that were bound in turns were both half bound for too long, again and again."""
    rig = Rig(*(node(f"n-{number}") for number in range(8)), api_per_s=20.0, api_burst=1_100).ready()
    rig.agent._calls._tokens, rig.agent._calls._debt = 0.0, 1_000.0  # as after a large gang was undone
    tokens = [rig.federation.place(pods=350, gpus=0) for _ in range(2)]
    rig.ring()
    rig.advance(200.0)
    assert [rig.federation.heard(token) for token in tokens] == [["Bound", "Running"]] * 2


@pytest.mark.long
def test_a_group_starts_while_a_large_one_is_undone_and_right_after_it() -> None:
    rig = Rig(*(node(f"n-{number}") for number in range(8)), api_per_s=20.0, api_burst=1_100).ready()
    large = rig.federation.place(pods=500, gpus=0)
    rig.run(large)
    rig.federation.change(large, intent="stop", stop_reason="Cancelled")
    rig.ring()
    rig.until(lambda: rig.pods(large) == [])
    token = rig.federation.place(pods=4)
    rig.ring()
    rig.advance(5.0)
    assert rig.federation.heard(token) == ["Bound", "Running"]
