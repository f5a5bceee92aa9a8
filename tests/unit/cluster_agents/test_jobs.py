"""Groups whose workload is a batch/v1 Job: its controller makes the pods, the agent binds them as one gang."""

from typing import Any

from tests.unit.cluster_agents.rig import Rig, template


def job(rig: Rig, *, pods: int = 2, mode: str = "Indexed", run_s: float | None = None, **spec: Any) -> str:
    document = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "train", "annotations": {"note": "mine"}},
        "spec": {"parallelism": pods, "completions": pods, "completionMode": mode, "backoffLimit": 0, "suspend": True},
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
