"""An agent with the published role on a real cluster: gangs start whole, end, and leave nothing; nothing is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml

import muster
from tests.contract.kube_api import pod
from tests.integration.fleets import until
from tests.integration.server_process import gang
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.member import ROLE, USER, Member, member
from tests.servers.process import ROOT

EXAMPLES: Final = ROOT / "examples"

DECISION: Final = "authorization.k8s.io/decision"
AFTER_FAILURES: Final = {("get", "pods"), ("get", "jobs"), ("get", "services")}
"""Asked for only where an answer did not come, or was a conflict: what stands there now?"""

JsonObject = dict[str, Any]


@pytest.fixture(scope="module")
def fleet(kubernetes: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    with member(kubernetes, tmp_path_factory.mktemp("member")) as found:
        yield found


def pods_of(fleet: Member, uid: str) -> list[JsonObject]:
    status, listed = fleet.cluster.call("GET", f"/api/v1/pods?labelSelector=muster.io/group-uid={uid}")
    assert status == 200, listed
    return list(listed["items"])


def ours(fleet: Member, path: str) -> list[str]:
    """Names of what agents made and is still there."""
    status, listed = fleet.cluster.call("GET", f"{path}?labelSelector=muster.io/token")
    assert status == 200, listed
    return [item["metadata"]["name"] for item in listed["items"]]


def intents(fleet: Member) -> list[str]:
    path = "/api/v1/namespaces/muster-system/configmaps?labelSelector=muster.io/kind=intent"
    status, listed = fleet.cluster.call("GET", path)
    assert status == 200, listed
    return [item["metadata"]["name"] for item in listed["items"]]


def running(seconds: float, **fields: Any) -> JsonObject:
    """A manifest whose pods run so long, as simkube's kubelets read it."""
    manifest = gang(**fields)
    for role in manifest["roles"]:
        role["template"].setdefault("metadata", {})["annotations"] = {"simkube/run-seconds": str(seconds)}
    return manifest


def test_a_gang_is_bound_whole_runs_and_leaves_nothing_behind(fleet: Member) -> None:
    with fleet.client() as client:
        uid = client.submit(running(5, name="train", pods=3)).uid
    fleet.wait_for("train", "Running")
    nodes = [one["spec"]["nodeName"] for one in pods_of(fleet, uid)]
    assert len(set(nodes)) == 3
    fleet.wait_for("train", "Succeeded")
    until(lambda: not pods_of(fleet, uid), "its pods are still there")
    until(lambda: not ours(fleet, "/api/v1/services"), "its service is still there")
    until(lambda: not intents(fleet), "its intent is still there")


def test_a_job_is_made_bound_and_counted_by_its_controller(fleet: Member) -> None:
    manifest = yaml.safe_load((EXAMPLES / "job.yaml").read_text())
    template = manifest["spec"]["template"]
    template["metadata"] = {**template.get("metadata", {}), "annotations": {"simkube/run-seconds": "3"}}
    with fleet.client() as client:
        submitted = client.submit(manifest)
    fleet.wait_for(submitted.name, "Running")
    pods = pods_of(fleet, submitted.uid)
    assert sorted(one["metadata"]["annotations"]["muster.io/rank"] for one in pods) == ["0", "1"]
    fleet.wait_for(submitted.name, "Succeeded")
    until(lambda: not ours(fleet, "/apis/batch/v1/jobs"), "the Job is still there")
    assert not pods_of(fleet, submitted.uid)


def test_a_job_that_is_over_by_its_own_word_is_not_run_again(fleet: Member) -> None:
    manifest = yaml.safe_load((EXAMPLES / "job.yaml").read_text())
    manifest["metadata"]["name"] = "late"
    manifest["spec"]["activeDeadlineSeconds"] = 4
    with fleet.client() as client:
        submitted = client.submit(manifest)
    assert fleet.wait_for("late", "Failed").status.attempts == 1
    until(lambda: not pods_of(fleet, submitted.uid), "its pods are still there")


def test_a_cancelled_job_takes_its_pods_along(fleet: Member) -> None:
    manifest = yaml.safe_load((EXAMPLES / "job.yaml").read_text())
    manifest["metadata"]["name"] = "cancelled-job"
    with fleet.client() as client:
        submitted = client.submit(manifest)
        fleet.wait_for(submitted.name, "Running")
        client.cancel(submitted.name)
    fleet.wait_for(submitted.name, "Cancelled")
    until(lambda: not ours(fleet, "/apis/batch/v1/jobs"), "the Job is still there")
    until(lambda: not pods_of(fleet, submitted.uid), "its pods are still there")


def test_a_cancelled_gang_is_gone_from_the_cluster(fleet: Member) -> None:
    with fleet.client() as client:
        uid = client.submit(gang("cancelled", pods=2)).uid
        fleet.wait_for("cancelled", "Running")
        client.cancel("cancelled")
    fleet.wait_for("cancelled", "Cancelled")
    until(lambda: not pods_of(fleet, uid), "its pods are still there")


def test_an_elastic_gang_grows_into_what_becomes_free_and_shrinks_when_it_is_told_to(fleet: Member) -> None:
    with fleet.client() as client:
        client.submit(gang("other", pods=2))
        fleet.wait_for("other", "Running")
        uid = client.submit({**gang("tune", pods=4), "elastic": True, "min_count": 2}).uid
        fleet.wait_for("tune", "Running")
        assert len(pods_of(fleet, uid)) == 2
        client.cancel("other")
        until(lambda: fleet.group("tune").status.pods_bound == 4, "it does not grow")
        client.resize("tune", 2)
        until(lambda: len(pods_of(fleet, uid)) == 2, "it does not shrink")
        until(lambda: fleet.group("tune").status.pods_bound == 2, "the journal does not hear of it")
        client.cancel("tune")
    fleet.wait_for("tune", "Cancelled")


def refusals(client: muster.Client, uid: str, why: str) -> list[muster.results.Decision]:
    """Records in which the cluster gives the group back for this reason."""
    said = client.history(uid).items
    return [one for one in said if one.kind == "GaveUp" and why in str(one.detail)]


def test_what_the_api_server_refuses_is_told_in_its_own_words_and_leaves_nothing(fleet: Member) -> None:
    manifest = gang("refused", pods=2)
    manifest["roles"][0]["template"]["spec"]["containers"][0]["imagePullPolicy"] = "Sometimes"
    with fleet.client() as client:
        uid = client.submit(manifest).uid
        until(lambda: refusals(client, uid, 'imagePullPolicy: Unsupported value: "Sometimes"'), "nobody says why")
        assert not pods_of(fleet, uid)
        client.cancel("refused")
    until(lambda: not intents(fleet), "its intent is still there")


def test_a_gang_of_which_a_quota_admits_a_part_does_not_start(fleet: Member) -> None:
    for path, body in (
        ("/api/v1/namespaces", {"metadata": {"name": "small"}}),
        ("/api/v1/namespaces/small/resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}}),
    ):
        assert fleet.cluster.call("POST", path, body)[0] == 201
    path = "/api/v1/namespaces/small/resourcequotas/q"
    until(lambda: "used" in fleet.cluster.call("GET", path)[1].get("status", {}), "nobody counts the quota")
    with fleet.client() as client:
        uid = client.submit({**gang("half", pods=2), "namespace": "small"}).uid
        until(lambda: refusals(client, uid, "exceeded quota: q"), "nobody says why")
        until(lambda: not pods_of(fleet, uid), "a part of it is still there")
        assert not [run for run in fleet.runs() if run.pod.startswith("half-")]
        client.cancel(uid)


def test_a_namespace_that_is_deleted_takes_its_gangs_along(fleet: Member) -> None:
    assert fleet.cluster.call("POST", "/api/v1/namespaces", {"metadata": {"name": "doomed"}})[0] == 201
    with fleet.client() as client:
        uid = client.submit({**gang("inside", pods=2), "namespace": "doomed"}).uid
        until(lambda: client.get_group(uid).status.phase == "Running", "it does not run")
        assert fleet.cluster.call("DELETE", "/api/v1/namespaces/doomed")[0] == 200
        until(lambda: fleet.cluster.call("GET", "/api/v1/namespaces/doomed")[0] == 404, "something keeps it")
        client.cancel(uid)
    assert not pods_of(fleet, uid)


def test_a_gang_of_which_one_pod_is_evicted_starts_again_whole(fleet: Member) -> None:
    with fleet.client() as client:
        uid = client.submit(gang("drained", pods=2)).uid
        fleet.wait_for("drained", "Running")
        before = {one["metadata"]["uid"] for one in pods_of(fleet, uid)}
        name = pods_of(fleet, uid)[0]["metadata"]["name"]
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "default"}}
        assert fleet.cluster.call("POST", f"/api/v1/namespaces/default/pods/{name}/eviction", eviction)[0] == 201

        def again() -> bool:
            after = {one["metadata"]["uid"] for one in pods_of(fleet, uid)}
            return len(after) == 2 and not after & before and client.get_group(uid).status.phase == "Running"

        until(again, "it does not start again")
        client.cancel("drained")
    fleet.wait_for("drained", "Cancelled")


def test_gpus_that_others_use_are_left_to_them(fleet: Member) -> None:
    nodes = [item["metadata"]["name"] for item in fleet.cluster.call("GET", "/api/v1/nodes")[1]["items"]]
    pods = "/api/v1/namespaces/default/pods"
    for node in nodes[1:]:
        theirs = pod(f"theirs-{node}", gpus=8)
        theirs["spec"]["nodeName"] = node
        assert fleet.cluster.call("POST", pods, theirs)[0] == 201
    with fleet.client() as client:
        uid = client.submit(gang("beside", pods=2)).uid
        until(lambda: "NoRoom" in fleet.group("beside").status.reasons or why(client, uid), "nobody says why it waits")
        assert not pods_of(fleet, uid)
        for node in nodes[1:]:
            assert fleet.cluster.call("DELETE", f"{pods}/theirs-{node}")[0] == 200
        fleet.wait_for("beside", "Running")
        client.cancel("beside")
    fleet.wait_for("beside", "Cancelled")


def why(client: muster.Client, uid: str) -> bool:
    return any(one.needs > one.best for cluster in client.explain(uid).clusters for one in cluster.because)


def test_a_cluster_whose_api_server_was_away_goes_on(fleet: Member) -> None:
    with fleet.client() as client:
        uid = client.submit(gang("stays", pods=2)).uid
        fleet.wait_for("stays", "Running")
        before = {one["metadata"]["uid"] for one in pods_of(fleet, uid)}
        fleet.cluster.stop_api()
        client.submit(running(2, name="waits", pods=1))
        fleet.cluster.start_api()
        fleet.wait_for("waits", "Succeeded")
        assert {one["metadata"]["uid"] for one in pods_of(fleet, uid)} == before
        client.cancel("stays")
    fleet.wait_for("stays", "Cancelled")


def test_a_gang_that_is_being_built_when_its_api_server_goes_away_goes_on_where_it_was(fleet: Member) -> None:
    with fleet.client() as client:
        uid = client.submit(gang("built", pods=24, gpus=1)).uid
        until(lambda: bool(pods_of(fleet, uid)), "none of its pods is made")
        fleet.cluster.stop_api()
        fleet.cluster.start_api()
        assert fleet.wait_for("built", "Running").status.attempts == 1
        assert len(pods_of(fleet, uid)) == 24
        client.cancel("built")
    fleet.wait_for("built", "Cancelled")


def test_an_agent_that_was_killed_goes_on_with_what_it_finds(fleet: Member) -> None:
    with fleet.client() as client:
        uid = client.submit(gang("outlives", pods=2)).uid
    fleet.wait_for("outlives", "Running")
    before = {one["metadata"]["uid"] for one in pods_of(fleet, uid)}
    fleet.kill(fleet.agents[0])
    fleet.start_agent()
    with fleet.client() as client:
        client.submit(running(1, name="after", pods=2))
    fleet.wait_for("after", "Succeeded")
    assert {one["metadata"]["uid"] for one in pods_of(fleet, uid)} == before
    with fleet.client() as client:
        client.cancel("outlives")
    fleet.wait_for("outlives", "Cancelled")


def test_of_two_agents_one_acts_and_the_other_follows_it(fleet: Member) -> None:
    """After the others: guards ask where the first listened, and wait for an answer no longer than the lease lasts."""
    first, second = fleet.agents[0], fleet.start_agent()
    with fleet.client() as client:
        client.submit(running(1, name="by-one", pods=2))
        fleet.wait_for("by-one", "Succeeded")
        fleet.kill(first)
        client.submit(running(1, name="by-the-other", pods=2))
        fleet.wait_for("by-the-other", "Succeeded")
    assert fleet.agents == [second]


def test_the_published_role_grants_what_agents_ask_for_and_nothing_else(fleet: Member) -> None:
    asked = fleet.cluster.audit(USER)
    allowed = {asked_for(event) for event in asked if event["annotations"][DECISION] == "allow"}
    refused = {asked_for(event) for event in asked} - allowed
    assert refused <= AFTER_FAILURES  # an API server that has just started refuses all for a moment
    assert allowed <= granted()
    assert granted() - allowed <= AFTER_FAILURES


def test_the_published_flow_schemas_put_the_agent_into_priority_levels_that_there_are(fleet: Member) -> None:
    path = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas"
    levels = {}
    for name in ("muster-agent-lease", "muster-agent"):
        one = fleet.cluster.call("GET", f"{path}/{name}")[1]
        levels[name] = one["spec"]["priorityLevelConfiguration"]["name"]
        assert {c["type"]: c["status"] for c in one["status"]["conditions"]} == {"Dangling": "False"}
    assert levels == {"muster-agent-lease": "leader-election", "muster-agent": "workload-high"}


def asked_for(event: JsonObject) -> tuple[str, str]:
    what = event["objectRef"]
    part = f"/{what['subresource']}" if "subresource" in what else ""
    return event["verb"], what["resource"] + part


def granted() -> set[tuple[str, str]]:
    rules = [rule for one in yaml.safe_load_all(ROLE.read_text()) for rule in one.get("rules", [])]
    return {(verb, resource) for rule in rules for verb in rule["verbs"] for resource in rule["resources"]}
