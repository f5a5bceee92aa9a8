"""What an agent relies on in a cluster besides binding: lists, watches, the Job controller, kubelets.

Every case runs against simkube's core and over HTTP, and asks nothing that a real cluster would not do.
"""

from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.kube_api import FINALIZER, MERGE, Case, JsonObject, job, pod

# --- lists and watches -----------------------------------------------------------------------------------------------


def test_a_list_comes_in_pages_of_one_consistent_state(case: Case) -> None:
    for i in range(5):
        case.create(case.pods, pod(f"p-{i}"))
    _, first = case.kube.request("GET", case.pods, {"limit": "2"})
    assert first["metadata"]["remainingItemCount"] == 3
    case.kube.request("DELETE", f"{case.pods}/p-3")
    case.create(case.pods, pod("p-2a"))
    _, second = case.kube.request("GET", case.pods, {"limit": "2", "continue": first["metadata"]["continue"]})
    _, third = case.kube.request("GET", case.pods, {"limit": "2", "continue": second["metadata"]["continue"]})
    names = [item["metadata"]["name"] for page in (first, second, third) for item in page["items"]]
    assert names == ["p-0", "p-1", "p-2", "p-3", "p-4"]
    assert first["metadata"]["resourceVersion"] == third["metadata"]["resourceVersion"]
    assert "continue" not in third["metadata"]


def test_a_continue_token_from_before_a_compaction_is_expired(case: Case) -> None:
    for i in range(3):
        case.create(case.pods, pod(f"p-{i}"))
    _, first = case.kube.request("GET", case.pods, {"limit": "2"})
    case.kube.forget_history()
    status, body = case.kube.request("GET", case.pods, {"limit": "2", "continue": first["metadata"]["continue"]})
    assert (status, body["reason"]) == (410, "Expired")


def test_lists_select_by_labels_and_by_node(case: Case) -> None:
    case.create(case.pods, pod("a", labels={"tier": "x"}))
    case.create(case.pods, pod("b", labels={"tier": "y"}))
    case.create(case.pods, pod("c"))
    case.bind("b", "no-such-node")

    def names(**query: str) -> list[str]:
        _, listed = case.kube.request("GET", case.pods, query)
        return [item["metadata"]["name"] for item in listed["items"]]

    assert names(labelSelector="tier in (x, y)") == ["a", "b"]
    assert names(labelSelector="tier!=x") == ["b", "c"]
    assert names(labelSelector="!tier") == ["c"]
    assert names(fieldSelector="spec.nodeName=no-such-node") == ["b"]
    assert names(fieldSelector="spec.nodeName=") == ["a", "c"]


def test_a_watch_tells_every_change_since_its_version_in_order(case: Case) -> None:
    version = case.version()
    case.create(case.pods, pod("p"))
    case.bind("p", "no-such-node")
    case.kube.request("DELETE", f"{case.pods}/p", body={"gracePeriodSeconds": 0})
    events = case.events(case.pods, 4, resourceVersion=version)
    assert [e["type"] for e in events] == ["ADDED", "MODIFIED", "MODIFIED", "DELETED"]
    assert [e["object"]["spec"].get("nodeName") for e in events] == [None, *["no-such-node"] * 3]
    assert ["deletionTimestamp" in e["object"]["metadata"] for e in events] == [False, False, True, True]
    versions = [int(e["object"]["metadata"]["resourceVersion"]) for e in events]
    assert versions == sorted(set(versions))


def test_a_watch_without_a_version_begins_with_what_is_there(case: Case) -> None:
    case.create(case.pods, pod("a"))
    case.create(case.pods, pod("b"))
    events = case.events(case.pods, 2)
    assert [(e["type"], e["object"]["metadata"]["name"]) for e in events] == [("ADDED", "a"), ("ADDED", "b")]


def test_an_object_that_begins_to_match_a_watch_is_added_and_one_that_ceases_is_deleted(case: Case) -> None:
    version = case.version()
    case.create(case.pods, pod("p"))
    case.bind("p", "no-such-node")
    query = {"resourceVersion": version, "fieldSelector": "spec.nodeName=no-such-node"}
    assert [e["type"] for e in case.events(case.pods, 1, **query)] == ["ADDED"]
    query["fieldSelector"] = "spec.nodeName="
    assert [e["type"] for e in case.events(case.pods, 2, **query)] == ["ADDED", "DELETED"]


def test_a_bookmark_carries_the_version_reached_though_nothing_matched(case: Case) -> None:
    version = case.version()
    case.create(case.configmaps, {"metadata": {"name": "m"}, "data": {}})
    newest = int(case.version())
    query = {"resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": "3"}
    (event,) = case.events(case.pods, 1, **query)
    assert event["type"] == "BOOKMARK"
    assert int(event["object"]["metadata"]["resourceVersion"]) >= newest
    assert event["object"]["kind"] == "Pod"


def test_a_watch_from_before_a_compaction_ends_with_410(case: Case) -> None:
    version = case.version()
    case.create(case.pods, pod("p"))
    case.kube.forget_history()
    events = case.events(case.pods, 5, resourceVersion=version)
    assert [(e["type"], e["object"]["code"], e["object"]["reason"]) for e in events] == [("ERROR", 410, "Expired")]


# --- controllers -----------------------------------------------------------------------------------------------------


def controlled(case: Case, name: str) -> list[JsonObject]:
    _, listed = case.kube.request("GET", case.pods, {"labelSelector": f"batch.kubernetes.io/job-name={name}"})
    return list(listed["items"])


def job_status(**wanted: Any) -> Callable[[JsonObject | None], bool]:
    return lambda j: j is not None and all(j["status"].get(key, 0) == value for key, value in wanted.items())


def test_an_indexed_job_makes_one_pod_per_index_with_owner_labels_and_index(case: Case) -> None:
    made = case.create(case.jobs, job("train", 3, completionMode="Indexed"))
    case.wait(case.jobs, "train", job_status(active=3))
    pods = controlled(case, "train")
    key = "batch.kubernetes.io/job-completion-index"
    assert sorted(p["metadata"]["annotations"][key] for p in pods) == ["0", "1", "2"]
    owner = pods[0]["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == (
        "Job",
        "train",
        made["metadata"]["uid"],
        True,
    )
    env = {p["metadata"]["annotations"][key]: p["spec"]["containers"][0]["env"] for p in pods}
    (variable,) = env["2"]
    assert variable["name"] == "JOB_COMPLETION_INDEX"
    assert variable["valueFrom"]["fieldRef"]["fieldPath"] == f"metadata.labels['{key}']"
    assert sorted(p["metadata"]["labels"][key] for p in pods) == ["0", "1", "2"]


def test_a_suspended_job_makes_no_pods_and_suspending_deletes_them(case: Case) -> None:
    case.create(case.jobs, job("train", 2, suspend=True))
    case.wait(case.jobs, "train", lambda j: j is not None and bool(j["status"].get("conditions")))
    assert controlled(case, "train") == []
    for suspend, active in ((False, 2), (True, 0)):
        body = {"spec": {"suspend": suspend}}
        case.kube.request("PATCH", f"{case.jobs}/train", body=body, content_type=MERGE)
        case.wait(case.jobs, "train", job_status(active=active))
    assert [p for p in controlled(case, "train") if "deletionTimestamp" not in p["metadata"]] == []


@pytest.mark.parametrize(
    ("field", "container"),
    [
        ("name", {"name": "Main"}),
        ("limits", {"name": "main", "resources": {"requests": {"nvidia.com/gpu": "1"}}}),
    ],
)
def test_a_job_whose_pods_would_be_refused_is_refused(case: Case, field: str, container: dict[str, Any]) -> None:
    body = job("train", 1)
    body["spec"]["template"]["spec"]["containers"] = [{"image": "train:1", **container}]
    code, answer = case.kube.request("POST", case.jobs, body=body)
    assert (code, field in str(answer["message"])) == (422, True), answer


def test_a_lost_pod_of_a_job_is_replaced(case: Case) -> None:
    case.create(case.jobs, job("train", 1, backoffLimit=6))
    case.wait(case.jobs, "train", job_status(active=1))
    (lost,) = controlled(case, "train")
    case.kube.request("DELETE", f"{case.pods}/{lost['metadata']['name']}")
    case.wait(case.jobs, "train", job_status(active=1, failed=1))
    (replacement,) = controlled(case, "train")
    assert replacement["metadata"]["uid"] != lost["metadata"]["uid"]


def test_a_job_whose_pods_fail_beyond_its_back_off_limit_fails(case: Case) -> None:
    spec = job("train", 1, backoffLimit=0)
    spec["spec"]["template"]["metadata"] = {"annotations": {"simkube/fail-after-seconds": "0"}}
    case.create(case.jobs, spec)
    case.wait(case.jobs, "train", job_status(active=1))
    (made,) = controlled(case, "train")
    case.bind(made["metadata"]["name"])
    done = case.wait(case.jobs, "train", lambda j: j is not None and bool(conditions(j, "Failed")))
    failed = conditions(done, "Failed")
    assert [(c["status"], c["reason"]) for c in failed] == [("True", "BackoffLimitExceeded")]


def test_a_job_that_is_active_for_longer_than_it_may_fails_and_its_pods_are_deleted_before_it_says_so(
    case: Case,
) -> None:
    case.create(case.jobs, job("train", 1, activeDeadlineSeconds=2))
    case.wait(case.jobs, "train", job_status(active=1))
    (made,) = controlled(case, "train")
    kept = {"metadata": {"finalizers": [*made["metadata"]["finalizers"], FINALIZER]}}
    case.kube.request("PATCH", f"{case.pods}/{made['metadata']['name']}", body=kept, content_type=MERGE)
    done = case.wait(case.jobs, "train", lambda j: j is not None and bool(conditions(j, "Failed")))
    failed = conditions(done, "Failed")
    assert [(c["status"], c["reason"]) for c in failed] == [("True", "DeadlineExceeded")]
    assert "deletionTimestamp" in case.get(made["metadata"]["name"])["metadata"]
    free = {"metadata": {"finalizers": []}}
    case.kube.request("PATCH", f"{case.pods}/{made['metadata']['name']}", body=free, content_type=MERGE)


def conditions(job: JsonObject, kind: str) -> list[JsonObject]:
    return [c for c in job["status"].get("conditions") or () if c["type"] == kind]


def test_deleting_a_job_in_the_foreground_takes_its_pods_first(case: Case) -> None:
    case.create(case.jobs, job("train", 2))
    case.wait(case.jobs, "train", job_status(active=2))
    case.kube.request("DELETE", f"{case.jobs}/train", body={"propagationPolicy": "Foreground"})
    case.wait(case.jobs, "train", lambda j: j is None)
    assert controlled(case, "train") == []


def test_deleting_a_job_without_a_policy_orphans_its_pods(case: Case) -> None:
    case.create(case.jobs, job("train", 1))
    case.wait(case.jobs, "train", job_status(active=1))
    case.kube.request("DELETE", f"{case.jobs}/train")
    case.wait(case.jobs, "train", lambda j: j is None)
    (orphan,) = controlled(case, "train")
    assert "ownerReferences" not in orphan["metadata"]
    assert "deletionTimestamp" not in orphan["metadata"]


# --- kubelets --------------------------------------------------------------------------------------------------------


def phase(*wanted: str) -> Callable[[JsonObject | None], bool]:
    return lambda p: p is not None and p["status"].get("phase") in wanted


def test_a_bound_pod_runs_and_succeeds(case: Case) -> None:
    case.create(case.pods, pod("p", run_s=0))
    case.bind("p")
    ended = case.wait(case.pods, "p", phase("Succeeded"))
    assert ended["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({"cpu": 65}, "OutOfcpu", id="cpu"),
        pytest.param({"gpus": 5}, "UnexpectedAdmissionError", id="GPUs"),
    ],
)
def test_a_kubelet_fails_a_pod_it_has_no_room_for(case: Case, fields: JsonObject, reason: str) -> None:
    case.create(case.pods, pod("p", **fields))
    assert case.bind("p")[0] == 201  # the API server does not look
    failed = case.wait(case.pods, "p", phase("Failed"))
    assert failed["status"]["reason"] == reason
    assert case.bind("p")[0] == 409


def test_a_running_pod_that_is_deleted_ends_before_it_is_gone_and_a_finalizer_keeps_its_outcome(case: Case) -> None:
    case.create(case.pods, pod("p", finalizers=[FINALIZER]))
    case.bind("p")
    case.wait(case.pods, "p", phase("Running"))
    case.kube.request("DELETE", f"{case.pods}/p")
    ended = case.wait(case.pods, "p", lambda p: p is not None and p["metadata"].get("deletionGracePeriodSeconds") == 0)
    assert ended["status"]["phase"] in {"Failed", "Succeeded"}
    assert "terminated" in ended["status"]["containerStatuses"][0]["state"]
    body = {"metadata": {"finalizers": None}}
    case.kube.request("PATCH", f"{case.pods}/p", body=body, content_type=MERGE)
    assert case.kube.request("GET", f"{case.pods}/p")[0] == 404
