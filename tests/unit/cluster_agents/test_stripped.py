"""Admission, or people, take off the labels by which agents and guards know what is ours."""

from __future__ import annotations

from typing import Any

import pytest

from cluster_agents.core.events import CallKube, Changed, Kind
from federation.protocol.messages import Verdict
from tests.unit.cluster_agents.rig import Rig
from tests.unit.cluster_agents.test_jobs import job

LABELS = ("muster.io/token", "muster.io/group-uid")


def stripped(obj: dict[str, Any]) -> dict[str, Any]:
    metadata = obj["metadata"]
    labels = {name: value for name, value in metadata["labels"].items() if name not in LABELS}
    return {**obj, "metadata": {**metadata, "labels": labels}}


def strip(rig: Rig, plural: str) -> None:
    """From now on, of all that is made of this kind."""
    handle = rig.api.handle

    def admitted(request: Any, now_s: float) -> Any:
        if request.method == "POST" and request.path.endswith(f"/{plural}") and request.body["metadata"].get("labels"):
            request = type(request)(request.method, request.path, request.query, stripped(request.body))
        elif request.method == "POST" and request.path.endswith("/jobs") and plural == "pods":
            spec = request.body["spec"]  # from which its controller makes them
            body = {**request.body, "spec": {**spec, "template": stripped(spec["template"])}}
            request = type(request)(request.method, request.path, request.query, body)
        return handle(request, now_s)

    rig.api.handle = admitted  # type: ignore[method-assign]


def ours(rig: Rig, plural: str) -> list[str]:
    return [name for name in rig.objects(plural) if name.startswith(("train-", "muster-intent", "m-"))]


def refused(rig: Rig, token: str, *, within_s: float = 30.0) -> Verdict:
    """What became of the gang after a while: its template was refused."""
    rig.ring()
    rig.advance(within_s)
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.reasons) == ("Refused", ("TemplateRefused",))
    return verdict


@pytest.mark.parametrize("lost", [False, True], ids=["answered", "unanswered"])
def test_a_gang_whose_pods_lose_their_labels_starts_nothing_says_why_and_leaves_nothing(lost: bool) -> None:
    """They stood there for ever, with our finalizer, known to nobody."""
    rig = Rig().ready()
    strip(rig, "pods")
    if lost:
        rig.lose_reply = lambda call: call.method == "POST" and call.path.endswith("/pods")
    token = rig.federation.place(pods=2)
    verdict = refused(rig, token)
    assert "took the labels off pod train-1-" in verdict.detail
    assert not rig.kubelets.live()
    assert [ours(rig, plural) for plural in ("pods", "services", "configmaps")] == [[], [], []]


def test_a_restarted_agent_knows_pods_without_labels_by_what_their_containers_are_told() -> None:
    rig = Rig().ready()
    strip(rig, "pods")
    rig.die_before = lambda effect: isinstance(effect, CallKube) and effect.path.endswith("/muster-ledger")
    token = rig.federation.place(pods=2)
    rig.ring()
    assert rig.processes == []
    assert len(ours(rig, "pods")) == 2
    rig.start()
    rig.advance(40.0)
    assert rig.federation.given_up(token).verdict == "Refused"
    assert ours(rig, "pods") == []


@pytest.mark.parametrize("lost", [False, True], ids=["answered", "unanswered"])
@pytest.mark.parametrize("plural", ["jobs", "pods"])
def test_a_job_that_loses_its_labels_or_whose_pods_do_leaves_nothing(plural: str, lost: bool) -> None:
    rig = Rig().ready()
    strip(rig, plural)
    if lost:
        rig.lose_reply = lambda call: call.method == "POST" and call.path.endswith("/jobs")
    token = job(rig, pods=2)
    refused(rig, token, within_s=60.0)
    assert not rig.kubelets.live()
    assert [ours(rig, kind) for kind in ("jobs", "pods", "services", "configmaps")] == [[], [], [], []]


def test_a_gang_whose_intent_loses_its_labels_is_refused_before_any_pod_is_made() -> None:
    """The next process would have taken it for nobody's, and stopped it."""
    rig = Rig().ready()
    strip(rig, "configmaps")
    token = rig.federation.place(pods=2)
    rig.ring()
    rig.advance(30.0)
    assert rig.federation.given_up(token).reasons == ("TemplateRefused",)
    assert rig.sent("POST", "/pods") == []
    assert ours(rig, "configmaps") == []


def test_an_intent_that_loses_its_labels_while_its_gang_runs_gets_them_back() -> None:
    """It was read as fast as answers came; the next process would not have found it, and stopped the gang."""
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    rig.run(token)
    (name,) = rig.intents()
    rig.calls.clear()
    before = rig.api.store.get("configmaps", ("muster-system", name))
    assert before is not None
    gone = {"metadata": {"labels": dict.fromkeys((*LABELS, "muster.io/kind"))}}
    assert rig.patch(f"/api/v1/namespaces/muster-system/configmaps/{name}", gone) == 200
    rig.tell(Changed(Kind.CONFIGMAPS, before, deleted=True))  # as a watch by label says it
    rig.advance(10.0)
    after = rig.api.store.get("configmaps", ("muster-system", name))
    assert after is not None
    assert after["metadata"]["labels"] == before["metadata"]["labels"]
    assert len(rig.sent("GET", name)) == 1
    rig.restart()
    rig.advance(30.0)
    assert rig.federation.heard(token) == ["Bound", "Running"]
    assert len(rig.live(token)) == 2


def test_an_intent_whose_labels_admission_takes_off_again_and_again_is_not_read_without_end() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    rig.run(token)
    (name,) = rig.intents()
    before = rig.api.store.get("configmaps", ("muster-system", name))
    assert before is not None
    gone = {"metadata": {"labels": dict.fromkeys((*LABELS, "muster.io/kind"))}}
    rig.override = lambda call: (
        rig.request("GET", call.path) if call.method == "PATCH" and call.path.endswith(name) else None
    )
    assert rig.patch(f"/api/v1/namespaces/muster-system/configmaps/{name}", gone) == 200
    rig.tell(Changed(Kind.CONFIGMAPS, before, deleted=True))
    rig.calls.clear()
    rig.advance(60.0)
    assert len(rig.live(token)) == 2
    assert len(rig.sent("GET", name)) < 30


def test_who_takes_over_does_not_take_a_running_pod_for_gone_because_it_lost_its_labels() -> None:
    """It was given up while its container ran, and started elsewhere."""
    rig = Rig().ready()
    rig.start()
    token = rig.federation.place(pods=2)
    first, second = rig.processes
    rig.run(token)
    (name, _) = [pod["metadata"]["name"] for pod in rig.pods(token)]
    assert rig.patch(f"/api/v1/namespaces/default/pods/{name}", {"metadata": {"labels": dict.fromkeys(LABELS)}}) == 200
    rig.processes.remove(first)
    rig.until(lambda: second.core.active)
    rig.advance(60.0)
    assert rig.federation.heard(token) == ["Bound", "Running"]
    assert len(rig.live()) == 2


def test_a_gang_whose_pods_admission_gives_to_another_scheduler_is_refused() -> None:
    """That one would bind them as they come."""
    rig = Rig().ready()
    rig.admit = lambda pod: {**pod, "spec": {**pod["spec"], "schedulerName": "default-scheduler"}}
    token = rig.federation.place(pods=2)
    verdict = refused(rig, token)
    assert "to another scheduler" in verdict.detail
    assert rig.sent("POST", "/binding") == []
    assert rig.pods() == []


def test_pods_that_join_and_are_given_to_another_scheduler_leave_again_and_no_other_does() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=4, elastic=True, min_count=2)
    rig.federation.change(token, counts=(2,))
    rig.run(token)
    rig.admit = lambda pod: {**pod, "spec": {**pod["spec"], "schedulerName": "default-scheduler"}}
    position = rig.federation.resize(token, 4)
    rig.ring()
    rig.advance(40.0)
    assert rig.federation.sized(token) == [((2,), position)]
    assert len(rig.live(token)) == 2
    assert len(rig.pods(token)) == 2
