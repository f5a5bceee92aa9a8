"""Groups whose workload is a batch/v1 Job: its controller makes the pods, the agent binds them as one gang."""

from typing import Any

from tests.unit.cluster_agents.rig import Rig, template

EXITED = {"name": "main", "state": {"terminated": {"exitCode": 1}}}


def job(
    rig: Rig,
    *,
    pods: int = 2,
    mode: str = "Indexed",
    run_s: float | None = None,
    within_s: int | None = None,
    **spec: Any,
) -> str:
    said = {"parallelism": pods, "completions": pods, "completionMode": mode, "backoffLimit": 0, "suspend": True}
    document = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "train", "annotations": {"note": "mine"}},
        "spec": said | ({} if within_s is None else {"activeDeadlineSeconds": within_s}),
    }
    roles = [{"name": "worker", "count": pods, "template": template(run_s=run_s, **spec)}]
    return rig.federation.place(roles=roles, workload="job", workload_object=document)


def test_a_job_is_created_as_submitted_and_its_pods_are_bound_whole() -> None:
    rig = Rig().ready()
    token = job(rig, pods=3)
    rig.ring()
    rig.advance(10.0)
    created = next(obj for _, obj in rig.api.store.each("jobs"))
    assert created["spec"]["completionMode"] == "Indexed"
    assert created["spec"]["suspend"] is False
    assert created["metadata"]["annotations"] == {"note": "mine"}
    assert rig.bound(token) == 3
    assert rig.federation.heard(token) == ["Bound", "Running"]


def test_ranks_of_an_indexed_job_are_its_completion_indices() -> None:
    rig = Rig().ready()
    token = job(rig, pods=3)
    rig.run(token)
    for pod in rig.pods(token):
        metadata = pod["metadata"]
        index = metadata["annotations"]["batch.kubernetes.io/job-completion-index"]
        assert metadata["labels"]["muster.io/rank"] == index
        (rank,) = (one for one in pod["spec"]["containers"][0]["env"] if one["name"] == "MUSTER_RANK")
        assert rank["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.annotations['muster.io/rank']"
        assert metadata["annotations"]["muster.io/rank"] == index


def test_a_job_that_completes_is_finished_and_cleaned_up() -> None:
    rig = Rig().ready()
    token = job(rig, pods=2, mode="NonIndexed", run_s=5)
    rig.ring()
    rig.advance(40.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.succeeded) == ("Finished", True)
    assert rig.pods() == []
    assert rig.objects("jobs") == []
    assert rig.intents() == []


def test_undoing_suspends_the_job_before_its_pods_are_deleted() -> None:
    rig = Rig().ready()
    token = job(rig, pods=2)
    rig.run(token)
    before = len(rig.calls)
    rig.federation.change(token, intent="stop", stop_reason="Cancelled")
    rig.ring()
    rig.advance(40.0)
    touched = [c for c in rig.calls[before:] if "/jobs/" in c.path or (c.method == "DELETE" and "/pods/" in c.path)]
    assert touched[0].method == "PATCH"
    assert touched[0].body is not None
    assert touched[0].body["spec"] == {"suspend": True}
    assert rig.federation.given_up(token).verdict == "Released"
    assert rig.live() == []
    assert rig.objects("jobs") == []


def test_a_failed_pod_of_a_job_ends_the_gang() -> None:
    rig = Rig().ready()
    token = job(rig, pods=2, fail_s=3)
    rig.ring()
    rig.advance(40.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.succeeded) == ("Finished", False)
    assert rig.pods() == []
    assert rig.objects("jobs") == []


def test_a_restarted_agent_goes_on_with_a_half_bound_job() -> None:
    from tests.unit.cluster_agents.test_restart import writes

    rig = Rig().ready()
    token = job(rig, pods=3)
    rig.die_after = writes("POST", "/binding", 2)
    rig.ring()
    rig.advance(3.0)
    assert rig.processes == []
    rig.start()
    rig.advance(40.0)
    assert rig.federation.heard(token) == ["Bound", "Running"]
    assert len(rig.pods(token)) == 3


def test_a_job_whose_own_deadline_passes_is_finished_and_not_run_again() -> None:
    rig = Rig().ready()
    token = job(rig, within_s=8)
    rig.run(token)
    rig.advance(40.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.succeeded) == ("Finished", False)
    assert verdict.detail == "DeadlineExceeded: Job was active longer than specified deadline"
    assert rig.objects("jobs") == []


def test_a_job_that_ended_while_no_agent_looked_is_finished() -> None:
    rig = Rig().ready()
    token = job(rig, within_s=8)
    rig.run(token)
    rig.kill()
    rig.advance(30.0)
    rig.start()
    rig.advance(40.0)
    assert rig.federation.given_up(token).verdict == "Finished"


def shown(rig: Rig, kind: str, reason: str) -> None:
    """The Job's controller says so."""
    (name,) = rig.objects("jobs")
    condition = {"type": kind, "status": "True", "reason": reason, "message": "it is so"}
    said = rig.patch(f"/apis/batch/v1/namespaces/default/jobs/{name}/status", {"status": {"conditions": [condition]}})
    assert said == 200


def test_a_job_whose_success_policy_was_met_by_some_of_its_pods_succeeded() -> None:
    rig = Rig().ready()
    token = job(rig)
    rig.run(token)
    shown(rig, "SuccessCriteriaMet", "SuccessPolicy")
    rig.advance(40.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.succeeded, verdict.detail) == ("Finished", True, "SuccessPolicy: it is so")


def test_a_job_that_lost_a_pod_moves_although_it_may_not_try_again() -> None:
    rig = Rig().ready()
    token = job(rig)
    rig.run(token)
    name = rig.pods(token)[0]["metadata"]["name"]
    rig.request("DELETE", f"/api/v1/namespaces/default/pods/{name}")
    rig.advance(40.0)
    assert rig.federation.given_up(token).reasons == ("MemberLost",)


def test_a_job_whose_pod_was_evicted_and_that_then_ran_out_of_retries_moves() -> None:
    rig = Rig().ready()
    token = job(rig, fail_s=20)
    rig.run(token)
    target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    path = f"/api/v1/namespaces/default/pods/{rig.pods(token)[0]['metadata']['name']}"
    rig.kill()
    assert rig.patch(f"{path}/status", {"status": {"conditions": [target]}}) == 200
    assert rig.request("DELETE", path) == 200
    rig.advance(30.0)  # the other pod fails, and so does the Job
    rig.start()
    rig.advance(40.0)
    assert rig.federation.given_up(token).reasons == ("MemberLost",)


def test_a_job_of_which_a_pod_failed_while_no_agent_looked_failed_although_its_other_pods_were_deleted() -> None:
    rig = Rig().ready()
    token = job(rig)
    rig.run(token)
    path = f"/api/v1/namespaces/default/pods/{rig.pods(token)[0]['metadata']['name']}"
    rig.kill()
    assert rig.patch(f"{path}/status", {"status": {"phase": "Failed", "containerStatuses": [EXITED]}}) == 200
    rig.advance(30.0)
    assert any("deletionTimestamp" in pod["metadata"] for pod in rig.pods(token))
    rig.start()
    rig.advance(60.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.succeeded) == ("Finished", False)


def test_a_job_whose_controller_says_nothing_of_a_lost_pod_is_not_waited_for_without_end() -> None:
    rig = Rig().ready()
    token = job(rig)
    rig.run(token)
    pod = rig.pods(token)[0]["metadata"]["name"]
    rig.api.controllers._all = rig.api.controllers._all[1:]  # without that of Jobs
    rig.request("DELETE", f"/api/v1/namespaces/default/pods/{pod}")
    rig.advance(4.0)
    assert rig.federation.heard(token) == ["Bound", "Running"]
    rig.advance(30.0)
    assert rig.live(token) == []


def test_a_job_that_is_given_no_pods_is_refused_with_the_words_in_which_one_is() -> None:
    rig = Rig().ready()
    rig.api.controllers._all = rig.api.controllers._all[1:]  # without that of Jobs, as if its pods were refused
    rig.said = 'pods "x" is forbidden: violates PodSecurity'
    rig.override = lambda call: 403 if dict(call.query).get("dryRun") == "All" else None
    token = job(rig)
    rig.ring()
    rig.advance(20.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.reasons, verdict.detail) == (("TemplateRefused",), rig.said)
    assert rig.objects("jobs") == []


def test_a_job_that_is_given_no_pods_for_no_reason_is_refused_at_the_deadline() -> None:
    rig = Rig().ready()
    rig.api.controllers._all = rig.api.controllers._all[1:]  # without that of Jobs
    token = job(rig)
    rig.ring()
    rig.advance(110.0)
    assert rig.federation.heard(token) == []
    assert rig.pods() == []
    rig.advance(40.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.reasons, verdict.detail) == (("BindDeadline",), "its Job's controller made 0 of 2 pods in time")
