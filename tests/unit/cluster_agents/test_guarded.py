"""An agent whose nodes have guards: which nodes take pods, what pods tell the runtime, what a guard's note means."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from cluster_agents.core.config import GUARD_STOPPED, REQUIRED_PLUGINS
from cluster_agents.core.events import GuardAsked
from cluster_agents.core.pods import pod_view
from federation.protocol.messages import GuardAsk
from placement.model import FenceStrength
from tests.unit.cluster_agents.rig import FAST, Process, Rig, node, template
from tests.unit.cluster_agents.test_jobs import job
from tests.unit.cluster_agents.test_pods import pod as shown

TTL_S = FAST.ttl_s
GUARD = FenceStrength.GUARD


def guarded(*nodes: str) -> Rig:
    """Guards ask only where the test lets them."""
    return Rig(*(node(name) for name in nodes or ("n-1", "n-2")), fence_strength=GUARD)


def hears(rig: Rig, *nodes: str) -> None:
    for name in nodes:
        rig._guards[0] = lambda _: None
        rig.tell(GuardAsked(0, GuardAsk(node=name, ask_id=1)))


def usable(rig: Rig) -> set[str]:
    """By all that was reported."""
    rows = [row for report in rig.reports for row in zip(report.rows.name, report.rows.usable, strict=True)]
    return {name for name, may in dict(rows).items() if may}


def pass_time(rig: Rig, seconds: float, *asking: str) -> None:
    """The guards of these nodes go on asking."""
    end_s = rig.now_s + seconds
    while rig.now_s < end_s:
        hears(rig, *asking)
        rig.advance(min(FAST.renew_s, end_s - rig.now_s))


# --- which nodes take pods --------------------------------------------------------------------------------------------


def test_a_node_whose_guard_is_silent_takes_no_pods_until_it_asks() -> None:
    rig = guarded().ready()
    pass_time(rig, TTL_S + 5, "n-1")
    assert usable(rig) == {"n-1"}
    first, second = rig.federation.place(pods=1, gpus=8), rig.federation.place(pods=1, gpus=8)
    rig.ring()
    pass_time(rig, 10.0, "n-1")
    assert (rig.bound(first), rig.bound(second)) == (1, 0)
    hears(rig, "n-1", "n-2")
    rig.advance(2.0)
    assert usable(rig) == {"n-1", "n-2"}
    third = rig.federation.place(pods=1, gpus=8)
    rig.ring()
    rig.advance(5.0)
    assert rig.bound(third) == 1


def test_what_runs_on_a_node_whose_guard_has_become_silent_runs_on() -> None:
    rig = guarded("n-1").ready()
    token = rig.federation.place(pods=2)
    rig.run(token)
    pass_time(rig, 3 * TTL_S)
    assert usable(rig) == set()
    assert len(rig.live(token)) == 2


def test_before_a_node_was_waited_for_it_takes_pods() -> None:
    rig = guarded().ready()
    rig.advance(TTL_S / 2)
    assert usable(rig) == {"n-1", "n-2"}


def test_a_process_that_stood_by_gives_every_guard_its_time_when_it_begins_to_act() -> None:
    rig = guarded().ready()
    rig.start()
    pass_time_of_both(rig, 3 * TTL_S)
    rig.processes.pop(0)
    rig.reports.clear()
    rig.until(lambda: rig.agent.active)
    rig.advance(TTL_S / 2)
    assert usable(rig) == {"n-1", "n-2"}
    pass_time(rig, TTL_S, "n-2")
    assert usable(rig) == {"n-2"}


def test_a_process_that_acts_again_does_not_count_the_time_in_which_guards_asked_another() -> None:
    rig = guarded().ready()
    hears(rig, "n-1", "n-2")
    first = rig.processes.pop(0)  # it is paused
    second = rig.start()
    rig.until(lambda: second.core.active)
    pass_time(rig, 2 * TTL_S, "n-1", "n-2")
    rig.processes.insert(0, first)
    rig.advance(1.0)
    assert not first.core.active
    rig.processes.remove(second)
    rig.reports.clear()
    rig.until(lambda: first.core.active)
    rig.advance(TTL_S / 2)
    assert usable(rig) == {"n-1", "n-2"}


def pass_time_of_both(rig: Rig, seconds: float) -> None:
    """Guards ask the process that acts alone, by and by."""
    acting: Process = rig.processes[0]
    rig.processes.reverse()
    assert rig.processes[-1] is acting
    pass_time(rig, seconds, "n-1", "n-2")
    rig.processes.reverse()


def test_asks_of_unknown_nodes_are_answered_and_change_nothing() -> None:
    rig = guarded("n-1").ready()
    pass_time(rig, TTL_S + 5, "ghost")
    assert usable(rig) == set()
    hears(rig, "n-1", "ghost")
    rig.advance(2.0)
    assert usable(rig) == {"n-1"}


def test_where_the_fence_is_no_guard_nobody_waits_for_one() -> None:
    rig = Rig().ready()
    hears(rig, "n-1")
    rig.advance(5 * TTL_S)
    assert usable(rig) == {"n-1", "n-2"}


# --- what pods say to the runtime -------------------------------------------------------------------------------------


def required(rig: Rig, written: dict[str, str] | None = None) -> list[dict[str, str]]:
    """Of each pod of a group with these annotations, those that name plug-ins."""
    one = template()
    one["metadata"]["annotations"] |= written or {}
    token = rig.federation.place(roles=[{"name": "worker", "count": 2, "template": one}])
    rig.run(token)
    said = [pod["metadata"]["annotations"] for pod in rig.pods(token)]
    return [{key: value for key, value in one.items() if key.startswith(REQUIRED_PLUGINS)} for one in said]


def test_pods_of_a_guarded_cluster_require_the_guard() -> None:
    assert required(guarded().ready()) == [{REQUIRED_PLUGINS: "[muster-guard]"}] * 2


def test_pods_of_a_job_in_a_guarded_cluster_require_the_guard_too() -> None:
    rig = guarded().ready()
    token = job(rig)
    rig.run(token)
    assert {pod["metadata"]["annotations"][REQUIRED_PLUGINS] for pod in rig.pods(token)} == {"[muster-guard]"}


def test_pods_of_another_cluster_do_not_and_keep_what_their_template_says() -> None:
    assert required(Rig().ready()) == [{}] * 2
    assert required(Rig().ready(), {REQUIRED_PLUGINS: "[a]"}) == [{REQUIRED_PLUGINS: "[a]"}] * 2


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("", []),
        ("[]", []),
        ("[a]", ["a"]),
        ("[a, b-1]", ["a", "b-1"]),
        ("[\"a\", 'b']", ["a", "b"]),
        ("- a\n- b\n", ["a", "b"]),
        ("[a] #", ["a"]),
        ("[a #", ["a"]),
        ("[a]]\n", ["a"]),
    ],
    ids=[
        "nothing",
        "empty",
        "one",
        "two",
        "quoted",
        "block",
        "a comment after",
        "a comment within",
        "one bracket more",
    ],
)
@pytest.mark.parametrize("key", ["", "/pod", "/container.main"])
def test_a_templates_own_list_is_kept_and_cannot_leave_the_guard_out(key: str, written: str, names: list[str]) -> None:
    found = required(guarded().ready(), {f"{REQUIRED_PLUGINS}{key}": written})
    assert [yaml.safe_load(one[f"{REQUIRED_PLUGINS}{key}"]) for one in found] == [[*names, "muster-guard"]] * 2
    assert all("muster-guard" in yaml.safe_load(value) for one in found for value in one.values())
    assert all(REQUIRED_PLUGINS in one for one in found)


# --- what a guard's note means ----------------------------------------------------------------------------------------


def ended(message: str = f"step 7\n{GUARD_STOPPED}", code: int = 0) -> dict[str, Any]:
    return {"name": "main", "state": {"terminated": {"exitCode": code, "message": message}}}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (GUARD_STOPPED, "GuardFenced"),
        (f"step 7\n{GUARD_STOPPED}", "GuardFenced"),
        (f"{GUARD_STOPPED}\n \n", "GuardFenced"),
        (f"{GUARD_STOPPED}\nand then I failed", ""),
        (GUARD_STOPPED[:-1], ""),
        ("", ""),
    ],
    ids=["alone", "after others", "with white space", "before others", "cut off", "none"],
)
def test_the_note_is_the_last_line_of_what_a_container_left(message: str, reason: str) -> None:
    assert pod_view(shown(phase="Succeeded", containerStatuses=[ended(message)])).reason == reason


def test_one_container_with_the_note_is_enough_also_one_that_began() -> None:
    others = {"name": "b", "state": {"terminated": {"exitCode": 0}}}
    assert pod_view(shown(phase="Failed", containerStatuses=[others, ended()])).reason == "GuardFenced"
    assert pod_view(shown(phase="Failed", initContainerStatuses=[ended()])).reason == "GuardFenced"


def test_a_reason_that_the_kubelet_gives_counts_before_the_note() -> None:
    assert pod_view(shown(phase="Failed", reason="Evicted", containerStatuses=[ended()])).reason == "Evicted"


def ends_with(rig: Rig, token: str, phase: str, status: dict[str, Any]) -> None:
    """All pods of it have ended so while no agent looked."""
    rig.kill()
    for pod in rig.pods(token):
        path = f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}/status"
        assert rig.patch(path, {"status": {"phase": phase, "containerStatuses": [status]}}) == 200
    rig.advance(5.0)
    rig.start()
    rig.advance(60.0)


@pytest.mark.parametrize(("phase", "code"), [("Succeeded", 0), ("Failed", 143)])
@pytest.mark.parametrize("workload", ["pods", "job"])
def test_what_the_guard_ended_is_lost_however_it_ended(workload: str, phase: str, code: int) -> None:
    rig = guarded().ready()
    token = job(rig) if workload == "job" else rig.federation.place(pods=2)
    rig.run(token)
    ends_with(rig, token, phase, ended(code=code))
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.reasons) == ("Released", ("MemberLost",))
    assert (rig.pods(token), rig.objects("jobs")) == ([], [])


@pytest.mark.parametrize(("phase", "code", "succeeded"), [("Succeeded", 0, True), ("Failed", 1, False)])
@pytest.mark.parametrize("workload", ["pods", "job"])
def test_what_ended_by_itself_in_a_guarded_cluster_has_finished(
    workload: str, phase: str, code: int, *, succeeded: bool
) -> None:
    rig = guarded().ready()
    token = job(rig) if workload == "job" else rig.federation.place(pods=2)
    rig.run(token)
    ends_with(rig, token, phase, ended("all done", code))
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.succeeded) == ("Finished", succeeded)
