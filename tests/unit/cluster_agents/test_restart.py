"""An agent killed at any step, and started again, brings every group to a whole or an end."""

from collections.abc import Callable

import pytest

from cluster_agents.core.events import AgentEffect, AskServers, CallKube
from cluster_agents.simkube.apiserver import ApiRequest
from federation.protocol.messages import Verdict
from tests.unit.cluster_agents.rig import LINEAGE, Rig


def writes(method: str, ending: str, nth: int = 1) -> Callable[[AgentEffect], bool]:
    """The nth call of this kind."""
    left = nth

    def matches(effect: AgentEffect) -> bool:
        nonlocal left
        if isinstance(effect, CallKube) and effect.method == method and effect.path.endswith(ending):
            left -= 1
            return left == 0
        return False

    return matches


def says(verdict: str) -> Callable[[AgentEffect], bool]:
    def matches(effect: AgentEffect) -> bool:
        return isinstance(effect, AskServers) and isinstance(effect.ask, Verdict) and effect.ask.verdict == verdict

    return matches


POINTS = [
    "before the intent",
    "after the intent",
    "after the service",
    "after one of three pods",
    "after all pods",
    "after one of three bindings",
    "after two of three bindings",
    "after all bindings",
    "before the verdict",
    "after the verdict",
]


@pytest.mark.parametrize("point", POINTS)
def test_a_group_is_finished_by_the_next_process_when_the_agent_dies(point: str) -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=3)
    if point.startswith("before"):
        rig.die_before = _moment(point)
    else:
        rig.die_after = _moment(point)
    rig.ring()
    rig.advance(2.0)
    assert rig.processes == [], "the agent was to die"
    rig.start()
    rig.advance(60.0)
    assert rig.bound(token) == 3
    assert len(rig.live(token)) == 3
    assert len(rig.pods()) == 3
    assert rig.federation.heard(token) == ["Bound", "Running"]


def _moment(point: str) -> Callable[[AgentEffect], bool]:
    match point:
        case "before the intent" | "after the intent":
            return writes("POST", "/configmaps")
        case "after the service":
            return writes("POST", "/services")
        case "after one of three pods":
            return writes("POST", "/pods", 1)
        case "after all pods":
            return writes("POST", "/pods", 3)
        case "after one of three bindings":
            return writes("POST", "/binding", 1)
        case "after two of three bindings":
            return writes("POST", "/binding", 2)
        case "after all bindings":
            return writes("POST", "/binding", 3)
        case _:
            return says("Bound")


ENDINGS = [
    "before the ledger entry",
    "after the ledger entry",
    "after a delete",
    "before the verdict",
    "after the verdict",
]


def _ending(point: str) -> tuple[str, Callable[[AgentEffect], bool]]:
    match point:
        case "before the ledger entry":
            return "before", writes("PUT", "/muster-ledger")
        case "after the ledger entry":
            return "after", writes("PUT", "/muster-ledger")
        case "after a delete":
            return "after", lambda e: isinstance(e, CallKube) and e.method == "DELETE" and "/pods/" in e.path
        case "before the verdict":
            return "before", says("Released")
        case _:
            return "after", says("Released")


@pytest.mark.parametrize("point", ENDINGS)
def test_a_give_up_is_carried_to_its_end_by_the_next_process_when_the_agent_dies(point: str) -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=3)
    rig.run(token)
    rig.federation.change(token, intent="stop", stop_reason="Cancelled")
    when, effect = _ending(point)
    if when == "before":
        rig.die_before = effect
    else:
        rig.die_after = effect
    rig.ring()
    rig.advance(10.0)
    assert rig.processes == [], "the agent was to die"
    rig.start()
    rig.advance(60.0)
    assert rig.federation.given_up(token).verdict == "Released"
    assert rig.live() == []
    assert rig.pods() == []
    assert rig.intents() == []
    assert rig.agent.ledger.entries() == []


def test_what_was_given_up_is_never_built_again_by_a_restarted_agent() -> None:
    rig = Rig().ready()
    rig.federation.takes_verdicts = False  # the journal goes on homing it here
    token = rig.federation.place(pods=17)
    rig.ring()
    rig.advance(5.0)
    rig.restart()
    rig.advance(60.0)
    assert rig.agent.ledger.has(token)
    assert rig.pods() == []
    assert rig.federation.heard(token) == ["Refused"]


def test_an_intent_that_is_not_desired_any_more_is_given_up_not_finished() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=3)
    rig.die_after = writes("POST", "/binding", 1)
    rig.ring()
    rig.advance(2.0)
    rig.federation.end(token)
    rig.start()
    rig.advance(60.0)
    assert rig.federation.given_up(token).reasons == ("NotDesired",)
    assert rig.bound(token) == 0
    assert rig.intents() == []


def test_orphans_without_intent_and_desire_are_deleted_and_given_up() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    rig.run(token)
    rig.kill()
    rig.request("DELETE", f"/api/v1/namespaces/muster-system/configmaps/{rig.intents()[0]}")
    rig.federation.end(token)
    rig.start()
    rig.advance(60.0)
    assert rig.federation.given_up(token).reasons == ("NotDesired",)
    assert rig.pods() == []
    assert rig.live() == []


def test_a_half_bound_gang_is_undone_by_a_restarted_agent_that_no_server_answers() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=3)
    rig.die_after = writes("POST", "/binding", 2)
    rig.ring()
    rig.advance(2.0)
    rig.federation.up = False
    rig.start()
    rig.advance(60.0)
    assert rig.bound(token) == 0
    assert rig.live() == []


def test_a_restarted_agent_does_not_trust_a_watch_that_lags_behind_its_predecessor() -> None:
    rig = Rig().ready()
    standby = rig.start()
    standby.watching = False
    token = rig.federation.place(pods=2)
    first = rig.processes[0]
    rig.until(lambda: len(rig.live(token)) == 2)
    rig.processes.remove(first)
    rig.federation.change(token, intent="stop", stop_reason="Cancelled")
    rig.advance(60.0)
    assert standby.core.active
    assert rig.federation.heard(token) == ["Bound", "Running"]
    assert rig.live(token) == []
    standby.watching = True
    rig.advance(5.0)
    assert rig.federation.given_up(token).verdict == "Released"
    assert rig.live(token) == []


def test_a_bound_gang_that_lost_pods_while_no_agent_ran_is_released_not_completed_again() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2, policy="HoldInPlace")
    rig.run(token)
    rig.advance(2.0)
    rig.kill()
    gone = rig.pods(token)[0]["metadata"]["name"]
    path = f"/api/v1/namespaces/default/pods/{gone}"
    rig.request("DELETE", path)
    rig.advance(5.0)
    patch = {"metadata": {"finalizers": None}}
    rig.api.handle(ApiRequest("PATCH", path, {}, patch, "application/merge-patch+json"), rig.now_s)
    rig.start()
    rig.advance(60.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.reasons) == ("Released", ("MemberLost",))
    assert rig.live() == []
    assert len(rig.sent("POST", "/pods")) == 2


def test_a_running_gang_keeps_its_own_grace_when_the_agent_dies_between_give_up_and_delete() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2, grace_s=300)
    rig.run(token)
    rig.federation.change(token, intent="stop", stop_reason="Drained")
    rig.die_after = writes("PUT", "/muster-ledger")
    rig.ring()
    rig.advance(1.0)
    rig.start()
    rig.advance(30.0)
    graces = {call.body["gracePeriodSeconds"] for call in rig.sent("DELETE") if call.body and "/pods/" in call.path}
    assert graces == {300}


def test_an_intent_that_somebody_deletes_is_written_again_and_the_next_process_leaves_the_gang_alone() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2, policy="HoldInPlace")
    rig.run(token)
    rig.advance(5.0)
    (name,) = rig.intents()
    before = rig.live(token)
    rig.override = lambda call: 403 if call.method == "POST" and call.path.endswith("/configmaps") else None
    assert rig.request("DELETE", f"/api/v1/namespaces/muster-system/configmaps/{name}") == 200
    rig.advance(60.0)
    assert rig.live(token) == before
    rig.override = lambda _: None
    rig.advance(10.0)
    assert rig.intents() == [name]
    (kept,) = [obj for _, obj in rig.api.store.each("configmaps") if obj["metadata"]["name"] == name]
    assert kept["data"]["bound"] == "true"
    rig.restart()
    rig.advance(30.0)
    assert rig.live(token) == before
    assert rig.federation.heard(token) == ["Bound", "Running"]


def test_reports_go_on_counting_after_ledger_and_lease_were_deleted_as_an_installation_anew_does() -> None:
    """They began at 1 again, and servers that had heard of more left all of them aside: nothing was placed there."""
    rig = Rig(boot_min=1_000).ready()
    for _ in range(3):
        rig.restart()
        rig.until(lambda: rig.agent.active)
    rig.advance(20.0)
    last = rig.reports[-1].stamp
    assert last.boot == 1_003
    rig.kill()
    for path in ("/api/v1/namespaces/muster-system/configmaps/muster-ledger", LEASE):
        assert rig.request("DELETE", path) == 200
    rig._config["boot_min"] = 2_000
    rig.start()
    rig.advance(30.0)
    assert rig.reports[-1].stamp > last


LEASE = "/apis/coordination.k8s.io/v1/namespaces/muster-system/leases/muster-agent"


def test_how_far_the_ledger_had_come_is_known_though_somebody_deleted_it_before_the_restart() -> None:
    """An answer from before what landed would have counted again: it homes here what has moved on."""
    rig = Rig().ready()
    token = rig.federation.place(pods=2, run_s=1.0)
    rig.run(token)
    rig.until(lambda: rig.agent.ledger.landed_in(LINEAGE) > 0)
    landed = rig.agent.ledger.landed_in(LINEAGE)
    rig.advance(5.0)
    rig.kill()
    assert rig.request("DELETE", "/api/v1/namespaces/muster-system/configmaps/muster-ledger") == 200
    rig.start()
    rig.until(lambda: rig.agent.active)
    assert rig.agent.ledger.landed_in(LINEAGE) == landed
    rig.restart()
    rig.until(lambda: rig.agent.active)
    assert rig.agent.ledger.landed_in(LINEAGE) == landed


def test_what_somebody_else_writes_into_the_lease_of_agents_is_no_position() -> None:
    rig = Rig().ready()
    path = "/apis/coordination.k8s.io/v1/namespaces/muster-system/leases/muster-agent"
    for written in ("l1/-5", "l1/1e9", "l1", "/", f"l1/{'9' * 5_000}"):
        assert rig.patch(path, {"metadata": {"annotations": {"muster.io/landed": written}}}) == 200
        rig.restart()
        rig.until(lambda: rig.agent.active)
        assert rig.agent.ledger.landed_in(LINEAGE) == 0
