"""The simulated API server beyond the conformance cases: fault switches, logs, backups, and limits."""

from cluster_agents.simkube.apiserver import ApiRequest, ApiServer, Gone, Watch, open_watch
from cluster_agents.simkube.apiserver.resources import RESOURCES
from cluster_agents.simkube.apiserver.store import HISTORY_MAX
from cluster_agents.simkube.apiserver.watch import EVENTS_PER_POLL_MAX
from tests.unit.simkube.mini import PODS, pod

CONFIGMAPS = "/api/v1/namespaces/default/configmaps"


def ask(api: ApiServer, method: str, path: str, body: object = None, at_s: float = 0.0, **query: str) -> int:
    request = ApiRequest(method, path, query, body, "application/merge-patch+json")  # type: ignore[arg-type]
    return api.handle(request, at_s).status


def names(api: ApiServer, **query: str) -> list[str]:
    body = api.handle(ApiRequest("GET", PODS, query), 0.0).body
    return [item["metadata"]["name"] for item in body["items"]]


def test_each_cluster_has_an_identity_of_its_own_and_the_same_one_every_time() -> None:
    def identity(name: str) -> str:
        body = ApiServer(name).handle(ApiRequest("GET", "/api/v1/namespaces/kube-system"), 0.0).body
        return str(body["metadata"]["uid"])

    assert identity("c-1") == identity("c-1")
    assert identity("c-1") != identity("c-2")


def test_discovery_names_what_is_served_and_no_gang_scheduling() -> None:
    api = ApiServer("c-1")
    groups = api.handle(ApiRequest("GET", "/apis"), 0.0).body["groups"]
    assert [group["name"] for group in groups] == ["batch", "coordination.k8s.io"]
    assert ask(api, "GET", "/apis/scheduling.k8s.io/v1beta1") == 404
    assert ask(api, "GET", "/version") == 200


def test_a_fail_rule_refuses_as_often_as_told_and_carries_nothing_out() -> None:
    api = ApiServer("c-1")
    api.faults.fail("create", "pods", 500, times=2)
    assert [ask(api, "POST", PODS, pod("a")) for _ in range(3)] == [500, 500, 201]
    assert ask(api, "GET", PODS) == 200


def test_an_applied_rule_carries_the_request_out_and_loses_its_reply() -> None:
    api = ApiServer("c-1")
    api.faults.fail("create", "pods", 504, applied=True)
    response = api.handle(ApiRequest("POST", PODS, {}, pod("a")), 0.0)
    assert (response.status, response.lost) == (504, True)
    assert names(api) == ["a"]


def test_a_rule_on_bindings_leaves_other_creates_alone() -> None:
    api = ApiServer("c-1")
    api.faults.fail("*", "pods/binding", 429)
    assert ask(api, "POST", PODS, pod("a")) == 201
    assert ask(api, "POST", f"{PODS}/a/binding", {"target": {"name": "n"}}) == 429
    assert ask(api, "POST", f"{PODS}/a/binding", {"target": {"name": "n"}}) == 201


def test_frozen_watches_show_nothing_new_and_stale_lists_only_where_allowed() -> None:
    api = ApiServer("c-1")
    ask(api, "POST", PODS, pod("a"))
    seen = api.latest_resource_version
    api.freeze_watches()
    ask(api, "POST", PODS, pod("b"))
    assert api.events_since("pods", None, seen) == []
    assert names(api, resourceVersion="0") == ["a"]
    assert names(api) == ["a", "b"]
    api.thaw_watches()
    events = api.events_since("pods", None, seen)
    assert not isinstance(events, Gone)
    assert [event.object["metadata"]["name"] for event in events] == ["b"]


def test_the_watch_history_is_bounded_and_what_fell_out_is_gone() -> None:
    api = ApiServer("c-1")
    start = api.latest_resource_version
    resource = RESOURCES["configmaps"]
    for i in range(2 * HISTORY_MAX):
        api.store.put(resource, {"metadata": {"name": "m", "namespace": "default", "uid": "u"}, "data": {"i": str(i)}})
    full = api.events_since("configmaps", None, start, limit=3 * HISTORY_MAX)
    assert not isinstance(full, Gone)
    assert len(full) == 2 * HISTORY_MAX
    api.store.put(resource, {"metadata": {"name": "m", "namespace": "default", "uid": "u"}})
    assert api.events_since("configmaps", None, start) == Gone(asked=start, oldest=start + HISTORY_MAX + 1)
    assert api.events_since("pods", None, start) == []  # other resources keep theirs


def test_stored_objects_are_replaced_and_never_changed_in_place() -> None:
    api = ApiServer("c-1")
    before = api.handle(ApiRequest("POST", PODS, {}, pod("a")), 0.0).body
    ask(api, "PATCH", f"{PODS}/a", {"metadata": {"labels": {"x": "1"}}})
    ask(api, "POST", f"{PODS}/a/binding", {"target": {"name": "n"}, "metadata": {"labels": {"y": "1"}}})
    ask(api, "DELETE", f"{PODS}/a")
    assert before["metadata"]["labels"] == {}
    assert "nodeName" not in before["spec"]
    assert "deletionTimestamp" not in before["metadata"]


def test_the_audit_tells_the_life_of_every_pod() -> None:
    api = ApiServer("c-1")
    ask(api, "POST", PODS, pod("a", group="g-1", token="L.5", gates=["g"]), 1.0)
    ask(api, "PATCH", f"{PODS}/a", {"spec": {"schedulingGates": None}}, 2.0)
    ask(api, "POST", f"{PODS}/a/binding", {"target": {"name": "n-1"}}, 3.0)
    ask(api, "DELETE", f"{PODS}/a", None, 4.0)
    ask(api, "DELETE", f"{PODS}/a", None, 5.0, gracePeriodSeconds="0")
    assert [(act.at_s, act.act, act.node, act.group, act.token) for act in api.audit.acts] == [
        (1.0, "created", "", "g-1", "L.5"),
        (2.0, "ungated", "", "g-1", "L.5"),
        (3.0, "bound", "n-1", "g-1", "L.5"),
        (4.0, "marked", "n-1", "g-1", "L.5"),
        (5.0, "removed", "n-1", "g-1", "L.5"),
    ]


def test_every_request_is_counted_by_what_became_of_it() -> None:
    api = ApiServer("c-1")
    ask(api, "POST", PODS, pod("a"))
    ask(api, "POST", PODS, pod("a"))
    assert api.audit.counts == {("POST", "pods", 201): 1, ("POST", "pods", 409): 1}


def test_a_restored_backup_forgets_later_writes_and_never_gives_a_uid_twice() -> None:
    api = ApiServer("c-1")
    ask(api, "POST", PODS, pod("a"))
    backup = api.backup()
    lost = api.handle(ApiRequest("POST", PODS, {}, pod("b")), 0.0).body
    watched_from = api.latest_resource_version
    api.restore(backup, 1.0)
    assert names(api) == ["a"]
    again = api.handle(ApiRequest("POST", PODS, {}, pod("b")), 1.0).body
    assert again["metadata"]["resourceVersion"] == lost["metadata"]["resourceVersion"]
    assert again["metadata"]["uid"] != lost["metadata"]["uid"]
    assert api.events_since("pods", None, watched_from) == []


def test_after_a_restart_only_watches_that_were_behind_are_gone() -> None:
    api = ApiServer("c-1")
    behind = api.latest_resource_version
    ask(api, "POST", PODS, pod("a"))
    restarted = ApiServer("c-1")
    restarted.resume(api.backup(), 1.0)
    assert restarted.events_since("pods", None, api.latest_resource_version) == []
    assert isinstance(restarted.events_since("pods", None, behind), Gone)


def test_a_watch_ends_when_its_time_is_over_and_not_before() -> None:
    api = ApiServer("c-1")
    request = ApiRequest("GET", PODS, {"watch": "true", "resourceVersion": "4", "timeoutSeconds": "30"})
    watch = open_watch(api, request, 100.0)
    assert isinstance(watch, Watch)
    assert (watch.poll(129.9), watch.ended, watch.wake_at_s) == ([], False, 130.0)
    assert (watch.poll(130.0), watch.ended) == ([], True)


def test_a_terminating_namespace_takes_no_new_objects_and_goes_when_it_is_empty() -> None:
    api = ApiServer("c-1")
    ask(api, "POST", "/api/v1/namespaces", {"metadata": {"name": "n"}})
    ask(api, "POST", "/api/v1/namespaces/n/configmaps", {"metadata": {"name": "m", "finalizers": ["a.b/c"]}})
    ask(api, "DELETE", "/api/v1/namespaces/n")
    api.step(1.0)
    assert ask(api, "POST", "/api/v1/namespaces/n/configmaps", {"metadata": {"name": "o"}}) == 403
    assert ask(api, "GET", "/api/v1/namespaces/n") == 200
    ask(api, "PATCH", "/api/v1/namespaces/n/configmaps/m", {"metadata": {"finalizers": None}})
    api.step(2.0)
    assert ask(api, "GET", "/api/v1/namespaces/n") == 404


def test_pods_of_a_job_that_are_refused_are_tried_again_and_stop_nobody() -> None:
    api, jobs = ApiServer("c-1"), "/apis/batch/v1/namespaces/default/jobs"
    spec = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "train:1"}]}
    both = {**spec, "nodeName": "n", "schedulingGates": [{"name": "g"}]}  # which no pod may have
    assert ask(api, "POST", jobs, {"metadata": {"name": "j"}, "spec": {"template": {"spec": both}}}) == 201
    api.step(0.0)
    assert names(api) == []
    assert api.wake_at_s == 10.0
    api.step(10.0)
    assert api.wake_at_s == 20.0
    assert ask(api, "POST", PODS, pod("a"), at_s=20.0) == 201


def test_events_expire_an_hour_after_they_were_written_last() -> None:
    api = ApiServer("c-1")
    events = "/api/v1/namespaces/default/events"
    ask(api, "POST", events, {"metadata": {"name": "e"}, "count": 1}, 0.0)
    ask(api, "PATCH", f"{events}/e", {"count": 2}, 1_000.0)
    api.step(4_599.0)
    assert ask(api, "GET", f"{events}/e", None, 4_599.0) == 200
    api.step(4_600.0)
    assert ask(api, "GET", f"{events}/e", None, 4_600.0) == 404


def test_dependents_go_with_their_owner_and_stay_if_another_owner_lives() -> None:
    api = ApiServer("c-1")
    owners = {}
    for name in ("x", "y"):
        made = api.handle(ApiRequest("POST", CONFIGMAPS, {}, {"metadata": {"name": name}}), 0.0).body
        owners[name] = {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": made["metadata"]["uid"]}
    for name, refs in (("only-x", ["x"]), ("both", ["x", "y"])):
        references = [owners[ref] for ref in refs]
        ask(api, "POST", CONFIGMAPS, {"metadata": {"name": name, "ownerReferences": references}})
    ask(api, "DELETE", f"{CONFIGMAPS}/x")
    api.step(1.0)
    assert ask(api, "GET", f"{CONFIGMAPS}/only-x") == 404
    kept = api.handle(ApiRequest("GET", f"{CONFIGMAPS}/both"), 1.0).body
    assert kept["metadata"]["ownerReferences"] == [owners["y"]]


def test_a_watcher_of_few_gets_the_one_that_concerns_it_behind_a_thousand_of_others() -> None:
    """The rest of a poll that found nothing would have waited for the next change, or the next bookmark."""
    api = ApiServer("c-1")
    watch = open_watch(api, ApiRequest("GET", CONFIGMAPS, {"labelSelector": "mine=yes", "watch": "true"}), 0.0)
    assert isinstance(watch, Watch)
    for number in range(EVENTS_PER_POLL_MAX):
        assert ask(api, "POST", CONFIGMAPS, {"metadata": {"name": f"other-{number}"}}) == 201
    assert ask(api, "POST", CONFIGMAPS, {"metadata": {"name": "mine", "labels": {"mine": "yes"}}}) == 201
    assert [event.object["metadata"]["name"] for event in watch.poll(1.0)] == ["mine"]
    assert watch.poll(1.0) == []
