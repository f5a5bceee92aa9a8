"""What an agent relies on in an API server: create, bind, gates, writes, deletes, finalizers.

Every case runs against simkube's core and over HTTP, and asks nothing that a real kube-apiserver would not do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.contract.kube_api import FINALIZER, MERGE, Case, JsonObject, pod

STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
GATE = "muster.io/gang"
ANOTHER_UID = "00000000-0000-4000-8000-000000000000"

# --- one request, one answer -----------------------------------------------------------------------------------------

Answer = tuple[int, JsonObject]


@dataclass(frozen=True)
class Row:
    """What is there, what is asked, and the answer's status and reason ("" for a success)."""

    title: str
    given: Callable[[Case], Any]
    ask: Callable[[Case], Answer]
    status: int
    reason: str = ""


def a_pod(**fields: Any) -> Callable[[Case], Any]:
    return lambda c: c.create(c.pods, pod("p", **fields))


def a_bound_pod(**fields: Any) -> Callable[[Case], Any]:
    def given(c: Case) -> None:
        c.create(c.pods, pod("p", **fields))
        assert c.bind("p")[0] == 201

    return given


def a_pod_being_deleted(c: Case) -> None:
    c.create(c.pods, pod("p", finalizers=[FINALIZER]))
    assert c.kube.request("DELETE", f"{c.pods}/p")[0] == 200


def nothing(_: Case) -> None:
    pass


def patched(body: Any, content_type: str = MERGE) -> Callable[[Case], Answer]:
    return lambda c: c.kube.request("PATCH", f"{c.pods}/p", body=body, content_type=content_type)


def deleted(**options: Any) -> Callable[[Case], Answer]:
    return lambda c: c.kube.request("DELETE", f"{c.pods}/p", body=options)


def put_pod(**fields: Any) -> Callable[[Case], Answer]:
    return lambda c: c.kube.request("POST", c.pods, body=pod("p", **fields))


def with_stale_version(c: Case) -> Answer:
    stale = c.get("p")
    patched({"metadata": {"labels": {"seen": "1"}}})(c)
    return c.kube.request("PUT", f"{c.pods}/p", body={**stale, "metadata": {**stale["metadata"], "labels": {"a": "b"}}})


def renamed_uid(found: JsonObject) -> JsonObject:
    return {**found, "metadata": {**found["metadata"], "uid": ANOTHER_UID}}


def bound_with_stale_version(c: Case) -> Answer:
    version = c.get("p")["metadata"]["resourceVersion"]
    patched({"metadata": {"labels": {"seen": "1"}}})(c)
    return c.bind("p", resourceVersion=version)


ROWS = [
    Row("a create is answered 201", nothing, put_pod(), 201),
    Row("a second create of the same name is AlreadyExists", a_pod(), put_pod(), 409, "AlreadyExists"),
    Row(
        "a name that is no RFC 1123 name is refused",
        nothing,
        lambda c: c.kube.request("POST", c.pods, body=pod("P_1")),
        422,
        "Invalid",
    ),
    Row(
        "a pod without containers is refused",
        nothing,
        lambda c: c.kube.request("POST", c.pods, body={"metadata": {"name": "p"}, "spec": {"containers": []}}),
        422,
        "Invalid",
    ),
    Row(
        "a container without a name is refused",
        nothing,
        lambda c: c.kube.request("POST", c.pods, body={"metadata": {"name": "p"}, "spec": {"containers": [{}]}}),
        422,
        "Invalid",
    ),
    Row(
        "two containers of one name are refused",
        nothing,
        lambda c: c.kube.request(
            "POST", c.pods, body={"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "i"}] * 2}}
        ),
        422,
        "Invalid",
    ),
    Row("a GPU request that is no whole number is refused", nothing, put_pod(gpus="0.5"), 422, "Invalid"),
    Row(
        "a create in a namespace that is not there is refused",
        nothing,
        lambda c: c.kube.request("POST", "/api/v1/namespaces/absent/pods", body=pod("p")),
        404,
        "NotFound",
    ),
    Row(
        "a read of a pod that is not there is NotFound",
        nothing,
        lambda c: c.kube.request("GET", f"{c.pods}/p"),
        404,
        "NotFound",
    ),
    Row("a binding is answered 201", a_pod(), lambda c: c.bind("p"), 201),
    Row("a second binding to the same node conflicts", a_bound_pod(), lambda c: c.bind("p"), 409, "Conflict"),
    Row("a second binding to another node conflicts", a_bound_pod(), lambda c: c.bind("p", "node-2"), 409, "Conflict"),
    Row("a binding to a node that is not there is accepted", a_pod(), lambda c: c.bind("p", "no-such-node"), 201),
    Row("a binding of a gated pod conflicts", a_pod(gates=[GATE]), lambda c: c.bind("p"), 409, "Conflict"),
    Row("a binding of a pod being deleted conflicts", a_pod_being_deleted, lambda c: c.bind("p"), 409, "Conflict"),
    Row("a binding with another pod's uid conflicts", a_pod(), lambda c: c.bind("p", uid=ANOTHER_UID), 409, "Conflict"),
    Row("a binding with an old resourceVersion conflicts", a_pod(), bound_with_stale_version, 409, "Conflict"),
    Row("a binding of a pod that is not there is NotFound", nothing, lambda c: c.bind("p"), 404, "NotFound"),
    Row("a binding without a target is refused", a_pod(), lambda c: c.bind("p", ""), 500),
    Row("a gate may be removed", a_pod(gates=[GATE]), patched({"spec": {"schedulingGates": None}}), 200),
    Row(
        "a gate may be removed by a JSON patch",
        a_pod(gates=[GATE]),
        patched([{"op": "remove", "path": "/spec/schedulingGates/0"}], JSON_PATCH),
        200,
    ),
    Row("a gate may not be added", a_pod(), patched({"spec": {"schedulingGates": [{"name": GATE}]}}), 422, "Invalid"),
    Row(
        "a gate may not be put back",
        a_pod(gates=[GATE, "b"]),
        patched({"spec": {"schedulingGates": [{"name": GATE}, {"name": "c"}]}}),
        422,
        "Invalid",
    ),
    Row(
        "a node selector may be added while gated",
        a_pod(gates=[GATE]),
        patched({"spec": {"nodeSelector": {"a": "b"}}}),
        200,
    ),
    Row(
        "a node selector may not be added without a gate",
        a_pod(),
        patched({"spec": {"nodeSelector": {"a": "b"}}}),
        422,
        "Invalid",
    ),
    Row("nodeName may not be written by a patch", a_pod(), patched({"spec": {"nodeName": "node-1"}}), 422, "Invalid"),
    Row("a bound pod cannot be unbound", a_bound_pod(), patched({"spec": {"nodeName": None}}), 422, "Invalid"),
    Row("an update with an old resourceVersion conflicts", a_pod(), with_stale_version, 409, "Conflict"),
    Row(
        "a patch that names another uid is refused",
        a_pod(),
        patched({"metadata": {"uid": ANOTHER_UID}}),
        422,
        "Invalid",
    ),
    Row(
        "a strategic patch that names another uid is refused",
        a_pod(),
        patched({"metadata": {"uid": ANOTHER_UID}}, STRATEGIC),
        422,
        "Invalid",
    ),
    Row(
        "an update that names another uid conflicts",
        a_pod(),
        lambda c: c.kube.request("PUT", f"{c.pods}/p", body=renamed_uid(c.get("p"))),
        409,
        "Conflict",
    ),
    Row(
        "a JSON patch whose test fails is refused",
        a_pod(),
        patched([{"op": "test", "path": "/metadata/labels", "value": {"a": "b"}}], JSON_PATCH),
        422,
        "Invalid",
    ),
    Row("a patch in an unknown dialect is refused", a_pod(), patched({}, "text/plain"), 415, "UnsupportedMediaType"),
    Row(
        "a delete with another pod's uid conflicts",
        a_pod(),
        deleted(preconditions={"uid": ANOTHER_UID}),
        409,
        "Conflict",
    ),
    Row(
        "a delete with an old resourceVersion conflicts",
        a_pod(),
        deleted(preconditions={"resourceVersion": "1"}),
        409,
        "Conflict",
    ),
    Row("a delete of a pod that is not there is NotFound", nothing, deleted(), 404, "NotFound"),
    Row(
        "a finalizer may not be added to a pod being deleted",
        a_pod_being_deleted,
        patched({"metadata": {"finalizers": [FINALIZER, "a.b/c"]}}),
        422,
        "Invalid",
    ),
    Row(
        "a lease may not be updated without its resourceVersion",
        lambda c: c.create(c.leases, {"metadata": {"name": "l"}, "spec": {}}),
        lambda c: c.kube.request("PUT", f"{c.leases}/l", body={"metadata": {"name": "l"}, "spec": {}}),
        422,
        "Invalid",
    ),
    Row(
        "a ConfigMap above 1 MiB is refused",
        nothing,
        lambda c: c.kube.request(
            "POST", c.configmaps, body={"metadata": {"name": "m"}, "data": {"k": "x" * 1_048_577}}
        ),
        422,
        "Invalid",
    ),
    Row(
        "a field selector on an unknown field is refused",
        nothing,
        lambda c: c.kube.request("GET", c.pods, {"fieldSelector": "spec.cpu=1"}),
        400,
        "BadRequest",
    ),
    Row(
        "a path that nothing serves is not found",
        nothing,
        lambda c: c.kube.request("GET", "/apis/scheduling.k8s.io/v1beta1/podgroups"),
        404,
        "NotFound",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=[row.title for row in ROWS])
def test_one_request_is_answered_as_kubernetes_answers_it(case: Case, row: Row) -> None:
    row.given(case)
    status, body = row.ask(case)
    assert (status, body.get("reason", "")) == (row.status, row.reason), body


# --- binding ---------------------------------------------------------------------------------------------------------


def test_a_binding_sets_the_node_and_the_condition_and_merges_labels_and_annotations(case: Case) -> None:
    made = case.create(case.pods, pod("p", labels={"a": "1", "b": "1"}, annotations={"x": "1"}))
    uid = made["metadata"]["uid"]
    status, body = case.bind("p", uid=uid, labels={"b": "2"}, annotations={"muster.io/token": "L.7"})
    assert (status, body["kind"], body["status"]) == (201, "Status", "Success")
    bound = case.get("p")
    assert bound["spec"]["nodeName"] == "node-1"
    assert bound["metadata"]["labels"] == {"a": "1", "b": "2"}
    assert bound["metadata"]["annotations"] == {"x": "1", "muster.io/token": "L.7"}
    assert ("PodScheduled", "True") in [(c["type"], c["status"]) for c in bound["status"]["conditions"]]


def test_a_binding_clears_the_nominated_node(case: Case) -> None:
    case.create(case.pods, pod("p"))
    body = {"status": {"nominatedNodeName": "node-9"}}
    case.kube.request("PATCH", f"{case.pods}/p/status", body=body, content_type=MERGE)
    assert case.get("p")["status"]["nominatedNodeName"] == "node-9"
    case.bind("p", "no-such-node")
    assert "nominatedNodeName" not in case.get("p")["status"]


def test_a_gated_pod_says_so_and_binds_once_its_last_gate_is_gone(case: Case) -> None:
    made = case.create(case.pods, pod("p", gates=["a", "b"]))
    assert [(c["type"], c["reason"]) for c in made["status"]["conditions"]] == [("PodScheduled", "SchedulingGated")]
    for gate in ("b", "a"):
        assert case.bind("p")[0] == 409
        body = {"spec": {"schedulingGates": [{"$patch": "delete", "name": gate}]}}
        case.kube.request("PATCH", f"{case.pods}/p", body=body, content_type=STRATEGIC)
    assert case.bind("p")[0] == 201


def test_a_pod_made_again_under_the_same_name_has_another_uid_and_refuses_the_old_ones_binding(case: Case) -> None:
    first = case.create(case.pods, pod("p"))
    case.kube.request("DELETE", f"{case.pods}/p")
    second = case.create(case.pods, pod("p"))
    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    assert case.bind("p", uid=first["metadata"]["uid"])[0] == 409
    assert case.bind("p", uid=second["metadata"]["uid"])[0] == 201


# --- writes ----------------------------------------------------------------------------------------------------------


def test_a_merge_patch_merges_objects_and_null_removes(case: Case) -> None:
    case.create(case.pods, pod("p", labels={"a": "1", "b": "1"}))
    patched({"metadata": {"labels": {"b": None, "c": "1"}}})(case)
    assert case.get("p")["metadata"]["labels"] == {"a": "1", "c": "1"}


def test_a_write_that_changes_nothing_leaves_the_resource_version(case: Case) -> None:
    made = case.create(case.pods, pod("p", labels={"a": "1"}))
    _, after = patched({"metadata": {"labels": {"a": "1"}}})(case)
    assert after["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def test_a_status_write_leaves_the_spec_and_a_spec_write_leaves_the_status(case: Case) -> None:
    case.create(case.pods, pod("p"))
    body = {"status": {"message": "m"}, "spec": {"nodeName": "node-1"}}
    assert case.kube.request("PATCH", f"{case.pods}/p/status", body=body, content_type=MERGE)[0] == 200
    patched({"status": {"message": "n"}, "metadata": {"labels": {"a": "1"}}})(case)
    found = case.get("p")
    assert (found["status"]["message"], found["metadata"]["labels"]) == ("m", {"a": "1"})
    assert "nodeName" not in found["spec"]


def test_generate_name_gives_each_object_a_name_of_its_own(case: Case) -> None:
    names = set()
    for _ in range(20):
        body = pod("p")
        body["metadata"] = {"generateName": "train-"}
        names.add(case.create(case.pods, body)["metadata"]["name"])
    assert len(names) == 20
    assert {len(name) for name in names} == {len("train-") + 5}
    assert all(name.startswith("train-") for name in names)


def test_versions_only_grow_and_uids_are_never_used_twice(case: Case) -> None:
    made = [case.create(case.pods, pod(f"p-{i}"))["metadata"] for i in range(5)]
    versions = [int(m["resourceVersion"]) for m in made]
    assert versions == sorted(set(versions))
    assert len({m["uid"] for m in made}) == 5


# --- deletes ---------------------------------------------------------------------------------------------------------


def test_an_unbound_pod_is_gone_at_once_whatever_the_grace(case: Case) -> None:
    case.create(case.pods, pod("p"))
    deleted(gracePeriodSeconds=30)(case)
    assert case.kube.request("GET", f"{case.pods}/p")[0] == 404


def test_a_bound_pod_stays_marked_until_its_kubelet_confirms(case: Case) -> None:
    case.create(case.pods, pod("p"))
    case.bind("p", "no-such-node")
    status, answer = deleted(gracePeriodSeconds=20)(case)
    assert (status, answer["metadata"]["deletionGracePeriodSeconds"]) == (200, 20)
    assert case.get("p")["metadata"]["deletionTimestamp"] > answer["metadata"]["creationTimestamp"]
    uid = answer["metadata"]["uid"]
    deleted(gracePeriodSeconds=0, preconditions={"uid": uid})(case)  # what the kubelet sends last
    assert case.kube.request("GET", f"{case.pods}/p")[0] == 404


def test_a_second_delete_may_shorten_the_grace_but_not_lengthen_it(case: Case) -> None:
    case.create(case.pods, pod("p"))
    case.bind("p", "no-such-node")
    deleted(gracePeriodSeconds=100)(case)
    first = case.get("p")["metadata"]
    deleted(gracePeriodSeconds=20)(case)
    second = case.get("p")["metadata"]
    deleted(gracePeriodSeconds=600)(case)
    third = case.get("p")["metadata"]
    assert [m["deletionGracePeriodSeconds"] for m in (first, second, third)] == [100, 20, 20]
    assert second["deletionTimestamp"] < first["deletionTimestamp"]


def test_a_finalizer_keeps_a_deleted_pod_until_it_is_removed(case: Case) -> None:
    a_pod_being_deleted(case)
    assert "deletionTimestamp" in case.get("p")["metadata"]
    patched({"metadata": {"finalizers": None}})(case)
    assert case.kube.request("GET", f"{case.pods}/p")[0] == 404


def test_who_removes_the_last_finalizer_is_answered_with_the_version_that_the_pod_had(case: Case) -> None:
    case.create(case.pods, pod("p", finalizers=[FINALIZER]))
    case.kube.request("DELETE", f"{case.pods}/p")
    before = case.get("p")["metadata"]["resourceVersion"]
    status, answered = patched({"metadata": {"finalizers": None}})(case)
    assert (status, answered["metadata"]["resourceVersion"]) == (200, before)
    assert "finalizers" not in answered["metadata"]
    assert case.kube.request("GET", f"{case.pods}/p")[0] == 404


def test_removing_the_last_finalizer_of_a_bound_pod_still_waits_for_its_kubelet(case: Case) -> None:
    case.create(case.pods, pod("p", finalizers=[FINALIZER]))
    case.bind("p", "no-such-node")
    deleted(gracePeriodSeconds=30)(case)
    patched({"metadata": {"finalizers": None}})(case)
    assert case.get("p")["metadata"]["deletionGracePeriodSeconds"] == 30


def test_a_delete_of_a_collection_takes_only_what_the_selector_names(case: Case) -> None:
    for name, group in (("a", "1"), ("b", "1"), ("c", "2")):
        case.create(case.pods, pod(name, labels={"group": group}))
    case.kube.request("DELETE", case.pods, {"labelSelector": "group=1"})
    _, listed = case.kube.request("GET", case.pods)
    assert [item["metadata"]["name"] for item in listed["items"]] == ["c"]


def test_a_create_that_is_only_tried_is_checked_and_makes_nothing(case: Case) -> None:
    tried = {"dryRun": "All"}
    bad = pod("p", gpus="0.5")
    assert [case.kube.request("POST", case.pods, tried, body)[0] for body in (pod("p"), bad)] == [201, 422]
    assert case.kube.request("GET", f"{case.pods}/p")[0] == 404
