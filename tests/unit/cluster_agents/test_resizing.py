"""A group that grows and shrinks where it runs: one token, those that ran untouched, the intent before all else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from cluster_agents.core import roster
from cluster_agents.core.events import AgentEffect, AskServers, CallKube
from cluster_agents.core.plan import Plan, read_intent
from federation.protocol.messages import Verdict
from tests.unit.cluster_agents.rig import Rig, node, template


def placed(rig: Rig, *counts: int, pods: int = 4, **spec: Any) -> str:
    """An elastic group that runs with so many of its pods."""
    token = rig.federation.place(pods=pods, **{"elastic": True, "min_count": 2, **spec})
    rig.federation.change(token, counts=counts)
    rig.run(token)
    return token


def resize(rig: Rig, token: str, *counts: int, wait_s: float = 30.0) -> int:
    position = rig.federation.resize(token, *counts)
    rig.ring()
    rig.advance(wait_s)
    return position


def ranks(rig: Rig, token: str) -> list[int]:
    return sorted(int(pod["metadata"]["labels"]["muster.io/rank"]) for pod in rig.pods(token))


def uids(rig: Rig, token: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in rig.pods(token)}


def plan_of(rig: Rig, token: str) -> Plan:
    """As its intent has it."""
    found = [read_intent(obj) for _, obj in rig.api.store.each("configmaps")]
    return next(one.plan for one in found if one is not None and one.plan.token == token)


def test_a_group_grows_under_its_token_and_those_that_ran_are_the_same_pods() -> None:
    rig = Rig().ready()
    token = placed(rig, 2)
    before = uids(rig, token)
    position = resize(rig, token, 4)
    assert rig.bound(token) == 4
    assert before < uids(rig, token)
    assert ranks(rig, token) == [0, 1, 2, 3]
    assert rig.federation.sized(token) == [((4,), position)]
    assert rig.federation.heard(token) == ["Bound", "Running", "Sized"]
    assert len(rig.live(token)) == 4


def test_pods_that_join_know_a_world_of_the_new_size_and_the_leader_that_the_others_know() -> None:
    rig = Rig().ready()
    token = placed(rig, 1, min_count=1)
    resize(rig, token, 3)
    env = {
        pod["metadata"]["labels"]["muster.io/rank"]: {
            one["name"]: one["value"] for one in pod["spec"]["containers"][0]["env"]
        }
        for pod in rig.pods(token)
    }
    assert [env[rank]["MUSTER_WORLD_SIZE"] for rank in "012"] == ["1", "3", "3"]
    assert len({env[rank]["MUSTER_LEADER_ADDR"] for rank in "012"}) == 1
    assert all(pod["spec"]["subdomain"] for pod in rig.pods(token))


def test_a_group_shrinks_by_the_highest_ranks_and_their_nodes_are_free_again() -> None:
    rig = Rig().ready()
    token = placed(rig, 4)
    position = resize(rig, token, 2)
    assert ranks(rig, token) == [0, 1]
    assert rig.federation.sized(token) == [((2,), position)]
    assert sum(one.gpus for one in rig.agent.gangs[token].holdings.values()) == 2
    deleted = [call.path.rsplit("/", 1)[1] for call in rig.calls if call.method == "DELETE" and "/pods/" in call.path]
    assert sorted(name.split("-")[2] for name in set(deleted)) == ["2", "3"]


def test_pods_that_leave_get_the_grace_of_the_group() -> None:
    rig = Rig().ready()
    token = placed(rig, 3, grace_s=45)
    resize(rig, token, 2)
    graces = [call.body["gracePeriodSeconds"] for call in rig.calls if call.method == "DELETE" and call.body]
    assert graces == [45]


def test_a_group_that_shrank_grows_again_into_the_ranks_that_are_free() -> None:
    rig = Rig().ready()
    token = placed(rig, 4)
    resize(rig, token, 2)
    resize(rig, token, 3)
    assert ranks(rig, token) == [0, 1, 2]
    assert [counts for counts, _ in rig.federation.sized(token)] == [(2,), (3,)]


def test_of_several_roles_each_keeps_its_ranks() -> None:
    rig = Rig().ready()
    roles = [{"name": name, "count": 3, "min_count": 1, "template": template()} for name in ("server", "worker")]
    token = placed(rig, 2, 2, roles=roles, min_count=2)
    resize(rig, token, 3, 3)
    found = sorted(
        (int(pod["metadata"]["labels"]["muster.io/rank"]), pod["metadata"]["labels"]["muster.io/role"])
        for pod in rig.pods(token)
    )
    assert found == [(0, "server"), (1, "server"), (2, "worker"), (3, "worker"), (4, "server"), (5, "worker")]
    resize(rig, token, 1, 3)
    assert ranks(rig, token) == [0, 2, 3, 5]


def test_where_not_one_pod_more_fits_the_group_stays_as_it_was() -> None:
    rig = Rig(node("n-1", gpus=2)).ready()
    token = placed(rig, 2)
    position = resize(rig, token, 4)
    assert rig.bound(token) == 2
    assert rig.federation.sized(token) == [((2,), position)]
    verdict = rig.federation.verdicts[-1]
    assert verdict.reasons == ("InsufficientGpus",)
    assert "2" in verdict.detail


def test_as_many_pods_join_as_there_is_room_for_and_the_journal_hears_why_no_more() -> None:
    rig = Rig(node("n-1", gpus=3)).ready()
    token = placed(rig, 2)
    position = resize(rig, token, 4)
    assert (rig.bound(token), len(rig.live(token))) == (3, 3)
    assert rig.federation.sized(token) == [((3,), position)]
    verdict = rig.federation.verdicts[-1]
    assert (verdict.reasons, "needs 2 free GPUs, best is 1" in verdict.detail) == (("InsufficientGpus",), True)


def nodes_of(rig: Rig, token: str) -> list[str]:
    return sorted(pod["spec"]["nodeName"] for pod in rig.pods(token))


def test_a_group_that_must_stand_in_one_rack_grows_in_that_rack_though_another_has_more_room() -> None:
    racks = {rack: {"muster.io/rack": rack} for rack in "ab"}
    shapes = [node("a-1", gpus=2, **racks["a"]), node("a-2", gpus=1, **racks["a"]), node("b-1", gpus=8, **racks["b"])]
    rig = Rig(*shapes).ready()
    token = placed(rig, 2, topology={"required": "rack"})
    assert nodes_of(rig, token) == ["a-1", "a-2"]
    position = resize(rig, token, 4)
    assert nodes_of(rig, token) == ["a-1", "a-1", "a-2"]
    assert rig.federation.sized(token) == [((3,), position)]
    assert rig.federation.verdicts[-1].reasons == ("NoDomainLargeEnough",)


def test_a_report_names_gangs_that_could_get_more_pods_where_they_stand_and_no_others() -> None:
    racks = {rack: {"muster.io/rack": rack} for rack in "ab"}
    rig = Rig(node("a-1", gpus=5, **racks["a"]), node("b-1", gpus=8, **racks["b"])).ready()
    token = placed(rig, 2, topology={"required": "rack"})
    anywhere = placed(rig, 2)
    rig.advance(3.0)
    assert (rig.reports[-1].roomy, anywhere > token) == ((token,), True)
    other = rig.federation.place(pods=1)
    rig.run(other)
    rig.advance(3.0)
    assert nodes_of(rig, other) == ["a-1"]
    assert rig.reports[-1].roomy == ()
    rig.federation.change(other, intent="stop", stop_reason="Cancelled")
    rig.advance(60.0)
    assert rig.reports[-1].roomy == (token,)
    rig.restart()
    rig.advance(30.0)
    assert rig.reports[-1].roomy == (token,), "what it was made from is asked for again"
    resize(rig, token, 4)
    assert rig.reports[-1].roomy == ()


def test_a_report_names_no_gang_that_would_not_grow_since_members_of_it_are_gone() -> None:
    """It was asked to, and declined, again and again."""
    rig = Rig(node("n-1", gpus=8)).ready()
    token = placed(rig, 3, topology={"required": "host"}, disruption_mode="single")
    rig.advance(10.0)
    assert rig.reports[-1].roomy == (token,)
    first = next(pod["metadata"] for pod in rig.pods(token))
    assert rig.request("DELETE", f"/api/v1/namespaces/{first['namespace']}/pods/{first['name']}") == 200
    rig.advance(40.0)
    assert (token in rig.agent.gangs, rig.reports[-1].roomy) == (True, ())
    resize(rig, token, 4)
    assert rig.federation.verdicts[-1].reasons == ("MemberLost",)


def test_a_report_names_no_gang_whose_host_takes_no_more_pods_whatever_else_is_free() -> None:
    rig = Rig(replace(node("n-1", gpus=8), pods_max=3), node("n-2", gpus=1)).ready()
    token = placed(rig, 3, topology={"required": "host"})
    rig.advance(10.0)
    assert (nodes_of(rig, token), rig.reports[-1].roomy) == (["n-1"] * 3, ())
    resize(rig, token, 4)
    assert rig.federation.verdicts[-1].reasons == ("InsufficientPods",)


def test_a_restarted_agent_asks_little_at_a_time_what_its_elastic_gangs_were_made_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Thousands at once, every four seconds, would leave no room for verdicts: `servers` drops what is too much."""
    monkeypatch.setattr(roster, "RECALLS_MAX", 3)
    rig = Rig().ready()
    tokens = [rig.federation.place(pods=2, elastic=True, min_count=1) for _ in range(5)]
    for token in tokens:
        rig.federation.change(token, counts=(1,))
    rig.ring()
    rig.advance(20.0)
    assert len(rig.live()) == len(tokens)
    rig.federation.specs.clear()
    rig.federation.asked.clear()
    rig.restart()
    totals = [0]
    for _ in range(80):
        rig.advance(0.5)
        totals.append(rig.federation.asked["SpecAsk"])
    assert max(after - before for before, after in pairwise(totals)) == 3
    assert totals[-1] == len(tokens)
    rig.advance(60.0)
    assert rig.federation.asked["SpecAsk"] == 2 * len(tokens), "once a minute"


def test_of_a_role_that_stands_apart_pods_join_only_where_fewer_of_it_stand() -> None:
    rig = Rig(node("n-1", gpus=8), node("n-2", gpus=8), node("n-3", gpus=8)).ready()
    roles = [{"name": "worker", "count": 4, "template": template(), "topology": {"per_host": 1}}]
    token = placed(rig, 2, roles=roles)
    held = nodes_of(rig, token)
    position = resize(rig, token, 4)
    assert nodes_of(rig, token) == ["n-1", "n-2", "n-3"]
    assert len(set(held)) == 2
    assert rig.federation.sized(token) == [((3,), position)]
    assert rig.federation.verdicts[-1].reasons == ("TooFewHosts",)


def test_pods_that_cannot_be_bound_in_time_leave_again_and_no_other_is_touched() -> None:
    rig = Rig().ready()
    token = placed(rig, 2)
    before = uids(rig, token)
    rig.override = lambda call: 503 if call.path.endswith("/binding") else None
    position = resize(rig, token, 4, wait_s=200.0)
    assert uids(rig, token) == before
    assert rig.federation.sized(token) == [((2,), position)]
    assert rig.federation.verdicts[-1].reasons in {("BindDeadline",), ("ApiError",)}
    assert sum(one.gpus for one in rig.agent.gangs[token].holdings.values()) == 2


def test_a_pod_that_is_not_taken_by_the_api_server_leaves_the_group_as_it_was() -> None:
    rig = Rig().ready()
    token = placed(rig, 2)
    before = uids(rig, token)
    rig.override = lambda call: 422 if call.method == "POST" and call.path.endswith("/pods") else None
    position = resize(rig, token, 3)
    assert uids(rig, token) == before
    assert rig.federation.sized(token) == [((2,), position)]
    assert rig.federation.verdicts[-1].reasons == ("TemplateRefused",)


def test_what_is_said_of_a_resize_once_is_not_tried_again_when_there_is_room_later() -> None:
    """Else the journal would be told two outcomes, and the older could come last."""
    rig = Rig(node("n-1", gpus=5)).ready()
    token = placed(rig, 2)
    other = rig.federation.place(pods=3)
    rig.run(other)
    rig.federation.takes_verdicts = False
    position = resize(rig, token, 4)
    rig.federation.change(other, intent="stop", stop_reason="Cancelled")
    rig.advance(60.0)
    rig.restart()
    rig.federation.takes_verdicts = True
    rig.advance(60.0)
    assert rig.bound(token) == 2
    assert rig.federation.sized(token) == [((2,), position)]


def test_a_report_shows_a_resize_only_once_the_nodes_are_held() -> None:
    rig = Rig().ready()
    token = placed(rig, 2)
    rig.restart()  # the next process has no manifest: growing waits for it
    rig.advance(10.0)
    del rig.federation.specs[rig.federation.homes[token].uid]
    position = resize(rig, token, 4)
    assert rig.reports[-1].applied < position
    taken = 16 - sum(_free(rig).values())
    assert taken == 2
    rig.federation.specs.update(_spec(rig, token))
    rig.advance(30.0)
    assert rig.reports[-1].applied >= position
    assert 16 - sum(_free(rig).values()) == 4


def test_a_gang_without_enough_living_members_is_not_made_smaller() -> None:
    rig = Rig().ready()
    token = placed(rig, 4, disruption_mode="single")
    first = next(pod["metadata"] for pod in rig.pods(token) if pod["metadata"]["labels"]["muster.io/rank"] == "0")
    assert rig.request("DELETE", f"/api/v1/namespaces/{first['namespace']}/pods/{first['name']}") == 200
    rig.advance(40.0)
    position = resize(rig, token, 2)
    assert rig.federation.sized(token) == [((4,), position)]
    assert rig.federation.verdicts[-1].reasons == ("MemberLost",)


def _free(rig: Rig) -> dict[str, int]:
    free: dict[str, int] = {}
    for report in rig.reports:
        free.update(zip(report.rows.name, report.rows.gpus_free, strict=True))
    return free


def _spec(rig: Rig, token: str) -> dict[str, bytes]:
    other = rig.federation.place(pods=4, elastic=True, min_count=2)
    uid = rig.federation.homes[other].uid
    rig.federation.end(other)
    return {rig.federation.homes[token].uid: rig.federation.specs[uid]}


# --- an agent that dies in the middle ---------------------------------------------------------------------------------


def calls(method: str, ending: str, nth: int = 1) -> Callable[[AgentEffect], bool]:
    left = nth

    def matches(effect: AgentEffect) -> bool:
        nonlocal left
        if isinstance(effect, CallKube) and effect.method == method and ending in effect.path:
            left -= 1
            return left == 0
        return False

    return matches


def says_sized(effect: AgentEffect) -> bool:
    return isinstance(effect, AskServers) and isinstance(effect.ask, Verdict) and effect.ask.verdict == "Sized"


MOMENTS: dict[str, Callable[[], Callable[[AgentEffect], bool]]] = {
    "the intent": lambda: calls("PATCH", "/muster-intent"),
    "one of two pods": lambda: calls("POST", "/pods", 1),
    "both pods": lambda: calls("POST", "/pods", 2),
    "one of two bindings": lambda: calls("POST", "/binding", 1),
    "both bindings": lambda: calls("POST", "/binding", 2),
    "the last intent": lambda: calls("PATCH", "/muster-intent", 2),
    "the verdict": lambda: says_sized,
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_growing_is_finished_by_the_next_process_when_the_agent_dies(when: str, moment: str) -> None:
    rig = Rig().ready()
    token = placed(rig, 2)
    before = uids(rig, token)
    rig.advance(20.0)
    if when == "before":
        rig.die_before = MOMENTS[moment]()
    else:
        rig.die_after = MOMENTS[moment]()
    position = resize(rig, token, 4, wait_s=10.0)
    assert rig.processes == [], "the agent was to die"
    rig.start()
    rig.advance(90.0)
    assert rig.bound(token) == 4
    assert before < uids(rig, token)
    assert rig.federation.sized(token) == [((4,), position)]
    assert (plan_of(rig, token).joining, plan_of(rig, token).leaving) == ((), ())


SHRINKING = {
    "the intent": lambda: calls("PATCH", "/muster-intent"),
    "one of two deletes": lambda: calls("DELETE", "/pods/", 1),
    "both deletes": lambda: calls("DELETE", "/pods/", 2),
    "the last intent": lambda: calls("PATCH", "/muster-intent", 2),
    "the verdict": lambda: says_sized,
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("moment", SHRINKING)
def test_shrinking_is_finished_by_the_next_process_when_the_agent_dies(when: str, moment: str) -> None:
    rig = Rig().ready()
    token = placed(rig, 4)
    rig.advance(20.0)
    if when == "before":
        rig.die_before = SHRINKING[moment]()
    else:
        rig.die_after = SHRINKING[moment]()
    position = resize(rig, token, 2, wait_s=10.0)
    assert rig.processes == [], "the agent was to die"
    rig.start()
    rig.advance(90.0)
    assert ranks(rig, token) == [0, 1]
    assert rig.federation.sized(token) == [((2,), position)]
    assert sum(one.gpus for one in rig.agent.gangs[token].holdings.values()) == 2


# --- the end in the middle of it --------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(4,), (2,)])
def test_a_group_that_is_stopped_while_it_is_resized_leaves_nothing_of_either_size(counts: tuple[int, ...]) -> None:
    rig = Rig().ready()
    token = placed(rig, 3)
    rig.federation.resize(token, *counts)
    rig.ring()
    rig.advance(0.5)
    rig.federation.change(token, intent="stop", stop_reason="Suspended")
    rig.ring()
    rig.advance(90.0)
    assert rig.pods(token) == []
    assert rig.federation.given_up(token).reasons == ("Suspended",)
    assert token not in rig.agent.gangs
    assert _free(rig) == {"n-1": 8, "n-2": 8}


def test_a_cluster_that_is_fenced_while_a_held_group_grows_starts_no_more_of_it() -> None:
    rig = Rig().ready()
    token = placed(rig, 2, policy="HoldInPlace")
    rig.advance(20.0)
    before = uids(rig, token)
    rig.override = lambda call: 503 if call.path.endswith("/binding") else None
    rig.federation.resize(token, 4)
    rig.ring()
    rig.advance(1.0)
    rig.federation.fence()
    rig.advance(8.0)  # it hears of it with the next renewal
    rig.override = lambda _: None
    rig.advance(120.0)
    assert uids(rig, token) == before
    assert len(rig.live(token)) == 2


def test_a_pod_of_the_token_without_a_seat_is_deleted() -> None:
    """As one that an earlier process asked for, and that came to be after it was given back."""
    rig = Rig().ready()
    token = placed(rig, 2)
    late = next(call for call in rig.calls if call.method == "POST" and call.path.endswith("/pods"))
    assert late.body is not None
    metadata = {**late.body["metadata"], "name": late.body["metadata"]["name"].replace("-0-", "-7-")}
    assert rig.request("POST", late.path, {**late.body, "metadata": metadata}) == 201
    rig.advance(1.0)
    assert [call.path for call in rig.sent("DELETE") if "-7-" in call.path] != []
    rig.advance(30.0)
    assert ranks(rig, token) == [0, 1]
    assert rig.bound(token) == 2


def test_another_plan_in_the_intent_is_gone_on_with() -> None:
    """A write of an earlier process may land after the next one has read what stands."""
    rig = Rig().ready()
    token = placed(rig, 2)
    rig.advance(20.0)
    rig.die_after = calls("PATCH", "/muster-intent")
    resize(rig, token, 4, wait_s=5.0)
    assert plan_of(rig, token).joining == (2, 3)
    rig.start()
    rig.advance(60.0)
    assert rig.bound(token) == 4


def test_a_gang_tells_another_journal_how_many_pods_it_has() -> None:
    """The backup may be older than its last resize."""
    rig = Rig().ready()
    token = placed(rig, 3)
    position = resize(rig, token, 2)
    rig.federation.verdicts.clear()
    rig.federation.lineage = "l2"
    rig.federation.position += 100
    rig.advance(30.0)
    assert rig.federation.sized(token) == [((2,), position)]


def test_a_write_of_an_earlier_process_that_lands_late_finds_its_version_gone() -> None:
    rig = Rig().ready()
    token = placed(rig, 2)
    rig.advance(20.0)
    rig.die_before = calls("PATCH", "/muster-intent")
    rig.override = lambda call: 0 if call.method == "PATCH" and "/muster-intent" in call.path else None
    resize(rig, token, 4, wait_s=1.0)
    rig.die_before = lambda _: False
    rig.start()
    rig.override = lambda _: None
    rig.advance(60.0)
    assert plan_of(rig, token).settled == 4
    late = next(call for call in rig.calls if call.method == "PATCH" and "/muster-intent" in call.path and call.body)
    body = {**late.body, "data": {"plan": "another"}} if late.body is not None else {}
    assert rig.patch(late.path, body) == 409
    assert plan_of(rig, token).settled == 4


def test_an_order_of_a_lost_journal_is_forgotten() -> None:
    rig = Rig().ready()
    token = placed(rig, 2)
    rig.restart()
    spec = dict(rig.federation.specs)
    rig.federation.specs.clear()  # so that it cannot begin
    resize(rig, token, 4, wait_s=3.0)
    rig.federation.lineage = "l2"
    rig.federation.position += 100
    rig.federation.change(token, counts=(2,), resized_at=0)
    rig.advance(15.0)
    rig.federation.specs.update(spec)
    rig.advance(30.0)
    assert rig.bound(token) == 2
