"""What people send and cannot be taken: a 4xx Problem that names reason, field and remedy, and the server lives on.

One server process for all of it; manifests also go through the command, whose message fits on two lines.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from federation.cli.main import run
from federation.cli.session import World
from tests.integration.server_process import ServerProcess, gang

GROUPS = "/v1/podgroups"
BULK = "/v1/podgroups:bulk"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with an operator, a submitter of one queue, a viewer, a cluster, and a group named `taken`."""
    found = ServerProcess(tmp_path_factory.mktemp("server"))
    found.init("c-1")
    _add_principal(found, "vision", verbs=["view", "submit"], queues=["vision"])
    _add_principal(found, "viewer", verbs=["view"], queues=[])
    found.start()
    with found.client() as client:
        for queue in ("vision", "default"):
            client.put(f"/v1/queues/{queue}", json={}).raise_for_status()
        client.put("/v1/clusters/c-1", json={}).raise_for_status()
        client.post(GROUPS, json=gang("taken"), headers={"Request-Id": "taken-1"}).raise_for_status()
        client.post(GROUPS, json=gang("ended")).raise_for_status()
        client.post(f"{GROUPS}/ended/cancel", json={}).raise_for_status()
    yield found
    found.stop()


def _add_principal(server: ServerProcess, name: str, **may: list[str]) -> None:
    path = server.root / "tokens.json"
    entries = json.loads(path.read_text())
    server.tokens[name] = secrets.token_urlsafe()
    entries["principals"].append({"name": name, "token": server.tokens[name], **may})
    path.write_text(json.dumps(entries))


@dataclass(frozen=True)
class Bad:
    """One call and the Problem it must get."""

    status: int
    reason: str
    field: str
    body: Any = None  # bytes as they are, anything else as JSON
    method: str = "POST"
    path: str = GROUPS
    who: str = "operator"
    headers: dict[str, str] = field(default_factory=dict)


def role(**changes: Any) -> dict[str, Any]:
    """A PodGroup `bad` whose only role is changed."""
    body = gang("bad")
    body["roles"][0].update(changes)
    return body


def pod(**spec: Any) -> dict[str, Any]:
    """A PodGroup `bad` with another pod spec."""
    return role(template={"spec": spec})


def limits(**amounts: Any) -> dict[str, Any]:
    return pod(containers=[{"name": "main", "resources": {"limits": amounts}}])


def gpus(amount: Any) -> dict[str, Any]:
    return limits(**{"nvidia.com/gpu": amount})


def job(spec: dict[str, Any], **annotations: str) -> dict[str, Any]:
    notes = {f"muster.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    template = {"spec": {"containers": []}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "bad", "annotations": notes},
        "spec": {"template": template, **spec},
    }


def own(metadata: Any, spec: Any, **more: Any) -> dict[str, Any]:
    return {"apiVersion": "muster.io/v1", "kind": "PodGroup", "metadata": metadata, "spec": spec, **more}


TEXTS = {
    "nothing": Bad(422, "BadJson", "body", b""),
    "cut off": Bad(422, "BadJson", "body", b'{"name": "bad"'),
    "YAML instead of JSON": Bad(422, "BadJson", "body", b"name: bad\n"),
    "not UTF-8": Bad(422, "BadJson", "body", b"\xff\xfe"),
    "null": Bad(422, "NotAMapping", "body", b"null"),
    "a list": Bad(422, "NotAMapping", "body", b"[]"),
    "a string": Bad(422, "NotAMapping", "body", b'"bad"'),
    "a key twice": Bad(422, "DuplicateKey", "name", b'{"name": "a", "name": "b"}'),
    "a key twice, deep": Bad(422, "DuplicateKey", "x", b'{"roles": [{"template": {"x": 1, "x": 2}}]}'),
    "NaN": Bad(422, "NotFinite", "body", b'{"priority": NaN}'),
    "infinity": Bad(422, "NotFinite", "body", b'{"priority": -Infinity}'),
    "a number beyond floats": Bad(422, "NotFinite", "body", b'{"priority": 1e999}'),
    "an integer without end": Bad(422, "BadJson", "body", b'{"priority": ' + b"9" * 10_000 + b"}"),
    "depth 40": Bad(422, "TooDeep", "body", b'{"a":' * 40 + b"1" + b"}" * 40),
    "100,000 brackets": Bad(422, "TooDeep", "body", b"[" * 100_000),
    "60,000 values": Bad(422, "TooLarge", "body", {"name": "bad", "roles": [0] * 60_000}),
    "over 1 MiB": Bad(413, "TooLarge", "body", b'"' + b"x" * MIB + b'"'),
    "10 MiB": Bad(413, "TooLarge", "body", b'"' + b"x" * (10 * MIB) + b'"'),
    "a manifest over 256 KiB": Bad(422, "Limit", "body", pod(containers=[], note="x" * 300_000)),
    "a lone surrogate": Bad(422, "BadTemplate", "roles", b'{"name": "bad", "roles": [{"template": {"a": "\\ud800"}}]}'),
}

MODEL = {
    "an empty mapping": Bad(422, "MissingField", "name", {}),
    "no roles": Bad(422, "OutOfRange", "roles", {"name": "bad", "roles": []}),
    "33 roles": Bad(422, "OutOfRange", "roles", {**gang("bad"), "roles": gang("x")["roles"] * 33}),
    "an unknown field": Bad(422, "UnknownField", "replicas", gang("bad", replicas=3)),
    "an unknown field of a role": Bad(422, "UnknownField", "roles[0].gpus", role(gpus=8)),
    "a name with capitals": Bad(422, "BadValue", "name", gang("Bad")),
    "a name with a blank": Bad(422, "BadValue", "name", gang("a b")),
    "a name with a slash": Bad(422, "BadValue", "name", gang("../etc")),
    "a name of 64 characters": Bad(422, "OutOfRange", "name", gang("x" * 64)),
    "an empty name": Bad(422, "OutOfRange", "name", gang("")),
    "a name that is a number": Bad(422, "BadType", "name", {**gang("bad"), "name": 7}),
    "a name with a line break": Bad(422, "BadValue", "name", gang("bad\n")),
    "a name with a terminal's escape": Bad(422, "BadValue", "name", gang("a\x1b[2J")),
    "a namespace with capitals": Bad(422, "BadValue", "namespace", gang("bad", namespace="Team")),
    "65 labels": Bad(422, "OutOfRange", "labels", gang("bad", labels={f"k{n}": "v" for n in range(65)})),
    "a label that is a number": Bad(422, "BadType", "labels.x", gang("bad", labels={"x": 1})),
    "a label key with a blank": Bad(422, "BadValue", "labels.a b", gang("bad", labels={"a b": "c"})),
    "no pods": Bad(422, "OutOfRange", "roles[0].count", gang("bad", pods=0)),
    "fewer than no pods": Bad(422, "OutOfRange", "roles[0].count", gang("bad", pods=-1)),
    "10,001 pods": Bad(422, "OutOfRange", "roles[0].count", gang("bad", pods=10_001)),
    "pods beyond any integer": Bad(422, "OutOfRange", "roles[0].count", gang("bad", pods=10**30)),
    "a count that is text": Bad(422, "BadType", "roles[0].count", role(count="2")),
    "a count that is broken": Bad(422, "BadType", "roles[0].count", role(count=1.5)),
    "a count that is a truth value": Bad(422, "BadType", "roles[0].count", role(count=True)),
    "10,002 pods in two roles": Bad(
        422, "BadValue", "roles", {"name": "bad", "roles": [{"name": n, "count": 5_001, "template": {}} for n in "ab"]}
    ),
    "a role's min_count above its count": Bad(422, "BadValue", "roles[0].min_count", role(min_count=3)),
    "min_count above the pods": Bad(422, "BadValue", "min_count", gang("bad", min_count=3)),
    "min_count 0": Bad(422, "OutOfRange", "min_count", gang("bad", min_count=0)),
    "two roles of one name": Bad(422, "BadValue", "roles", {"name": "bad", "roles": gang("x")["roles"] * 2}),
    "priority beyond Kubernetes'": Bad(422, "OutOfRange", "priority", gang("bad", priority=2_000_000_000)),
    "suspend that is text": Bad(422, "BadType", "suspend", gang("bad", suspend="false")),
    "suspend that is a number": Bad(422, "BadType", "suspend", gang("bad", suspend=1)),
    "grace over 600 s": Bad(422, "OutOfRange", "grace_s", gang("bad", grace_s=601)),
    "a negative run time": Bad(422, "OutOfRange", "max_run_s", gang("bad", max_run_s=-1)),
    "an unknown disconnect policy": Bad(422, "BadValue", "disconnect_policy", gang("bad", disconnect_policy="Stop")),
    "an unknown lease class": Bad(
        422, "BadValue", "clusters.lease_classes[0]", gang("bad", clusters={"lease_classes": ["sloppy"]})
    ),
    "an affinity that is text": Bad(
        422, "BadType", "clusters.affinity.region", gang("bad", clusters={"affinity": {"region": "eu"}})
    ),
    "an unknown topology field": Bad(422, "UnknownField", "topology.level", gang("bad", topology={"level": "rack"})),
    "a data set of a negative size": Bad(
        422, "OutOfRange", "data[0].size_gib", gang("bad", data=[{"name": "a", "size_gib": -1}])
    ),
    "an unknown workload": Bad(422, "BadValue", "workload", gang("bad", workload="cronjob")),
}

GPUS = {
    "a share over one GPU": Bad(422, "OutOfRange", "roles[0].gpu.milli", role(gpu={"milli": 1_001})),
    "a negative share": Bad(422, "OutOfRange", "roles[0].gpu.milli", role(gpu={"milli": -1})),
    "17 GPUs in a pod": Bad(422, "OutOfRange", "roles[0].gpu.whole", role(gpu={"whole": 17})),
    "whole and share": Bad(422, "BadValue", "roles[0].gpu", role(gpu={"whole": 1, "milli": 500})),
    "an impossible MIG profile": Bad(422, "BadValue", "roles[0].gpu.mig", role(gpu={"mig": "8g.80gb"})),
    "no MIG profile at all": Bad(422, "BadValue", "roles[0].gpu.mig", role(gpu={"mig": "half"})),
    "17 GPUs in the template": Bad(422, "BadTemplate", "roles[0].gpu", gpus(17)),
    "half a GPU in the template": Bad(422, "BadTemplate", "roles[0].gpu", gpus("500m")),
    "negative GPUs in the template": Bad(
        422, "BadTemplate", "roles[0].template.spec.containers[0].resources.limits.nvidia.com/gpu", gpus(-1)
    ),
    "GPUs that differ from the template's": Bad(422, "BadTemplate", "roles[0].gpu", role(gpu={"whole": 4})),
    "a CPU that is no quantity": Bad(
        422, "BadTemplate", "roles[0].template.spec.containers[0].resources.limits.cpu", limits(cpu="many")
    ),
    "more memory than any node": Bad(422, "BadTemplate", "roles[0].template.spec: memory", limits(memory="999999Ei")),
    "a template that is text": Bad(422, "BadType", "roles[0].template", role(template="pod")),
    "containers that are a mapping": Bad(
        422, "BadTemplate", "roles[0].template.spec.containers", pod(containers={"name": "main"})
    ),
}

_APART = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}}
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_POD_SPEC = "roles[0].template.spec"

NOT_DONE = {
    "pods that must stand together": Bad(
        422,
        "NotTaken",
        f"{_POD_SPEC}.affinity.podAffinity.{_REQUIRED}",
        pod(affinity={"podAffinity": {_REQUIRED: [_APART]}}),
    ),
    "pods that must stand apart": Bad(
        422,
        "NotTaken",
        f"{_POD_SPEC}.affinity.podAntiAffinity.{_REQUIRED}",
        pod(affinity={"podAntiAffinity": {_REQUIRED: [_APART]}}),
    ),
    "pods that must be spread": Bad(
        422,
        "NotTaken",
        f"{_POD_SPEC}.topologySpreadConstraints[0].whenUnsatisfiable",
        pod(topologySpreadConstraints=[{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]),
    ),
    "a node by its name": Bad(422, "NotTaken", f"{_POD_SPEC}.nodeName", pod(nodeName="node-1")),
    "claims of devices": Bad(422, "NotTaken", f"{_POD_SPEC}.resourceClaims", pod(resourceClaims=[{"name": "gpu"}])),
}

DIALECTS = {
    "a Pod": Bad(422, "UnknownKind", "kind", {"apiVersion": "v1", "kind": "Pod"}),
    "a kind without a version": Bad(422, "UnknownKind", "kind", {"kind": "PodGroup"}),
    "a version to come": Bad(422, "UnknownKind", "kind", {"apiVersion": "muster.io/v9", "kind": "PodGroup"}),
    "a Queue handed in as a group": Bad(
        422, "UnknownKind", "kind", {"apiVersion": "muster.io/v1", "kind": "Queue", "metadata": {"name": "q"}}
    ),
    "no metadata": Bad(422, "MissingField", "metadata", own(None, {})),
    "annotations of ours": Bad(422, "UnknownField", "metadata.annotations", own({"name": "a", "annotations": {}}, {})),
    "a spec that is a list": Bad(422, "BadType", "spec", own({"name": "a"}, [])),
    "a name in the spec": Bad(422, "UnknownField", "spec.name", own({"name": "a"}, {"name": "b"})),
    "a field beside the spec": Bad(422, "UnknownField", "data", own({"name": "a"}, {}, data=1)),
    "a Job that is no gang": Bad(422, "NotAGang", "spec.completions", job({"parallelism": 2, "completions": 9})),
    "a Job of no pods": Bad(422, "BadValue", "spec.parallelism", job({"parallelism": 0})),
    "a Job with an unknown wish": Bad(422, "UnknownField", "metadata.annotations.muster.io/prio", job({}, prio="1")),
    "a Job whose priority is a word": Bad(
        422, "BadValue", "metadata.annotations.muster.io/priority", job({}, priority="high")
    ),
}

RULES = {
    "an unknown queue": Bad(422, "UnknownQueue", "queue", gang("bad", queue="nowhere")),
    "a queue of others": Bad(403, "ForbiddenQueue", "queue", gang("bad"), who="vision"),
    "a submission by a viewer": Bad(403, "Forbidden", "Authorization", gang("bad", queue="vision"), who="viewer"),
    "a submission by an agent": Bad(403, "Forbidden", "Authorization", gang("bad"), who="agent:c-1"),
    "a name that is taken": Bad(409, "NameTaken", "name", gang("taken", pods=3)),
    "a request id with another body": Bad(
        409, "RequestIdConflict", "request_id", gang("taken", pods=9), headers={"Request-Id": "taken-1"}
    ),
    "a request id of 129 characters": Bad(422, "Limit", "Request-Id", gang("bad"), headers={"Request-Id": "x" * 129}),
    "no token": Bad(401, "Unauthenticated", "Authorization", gang("bad"), headers={"Authorization": ""}),
    "a wrong token": Bad(401, "Unauthenticated", "Authorization", gang("bad"), headers={"Authorization": "Bearer x"}),
}

ACTS = {
    "a group that is not there": Bad(404, "UnknownGroup", "name", method="GET", path=f"{GROUPS}/nobody"),
    "why about nobody": Bad(404, "UnknownGroup", "name", method="GET", path=f"{GROUPS}/nobody/explain"),
    "a history of nobody": Bad(404, "UnknownGroup", "name", method="GET", path=f"{GROUPS}/nobody/history"),
    "a cancel of nobody": Bad(404, "UnknownGroup", "name", {}, path=f"{GROUPS}/nobody/cancel"),
    "an act nobody knows": Bad(404, "NotFound", "act", {}, path=f"{GROUPS}/taken/explode"),
    "a resume of what has ended": Bad(409, "GroupFinished", "name", {}, path=f"{GROUPS}/ended/resume"),
    "a reason that is a list": Bad(422, "Invalid", "reason", {"reason": []}, path=f"{GROUPS}/taken/suspend"),
    "a reason without end": Bad(422, "Invalid", "reason", {"reason": "x" * 999}, path=f"{GROUPS}/taken/suspend"),
    "an act with an unknown field": Bad(422, "UnknownField", "force", {"force": True}, path=f"{GROUPS}/taken/cancel"),
    "a cancel by a viewer": Bad(403, "Forbidden", "Authorization", {}, path=f"{GROUPS}/taken/cancel", who="viewer"),
    "a cancel of another queue's group": Bad(
        403, "ForbiddenQueue", "queue", {}, path=f"{GROUPS}/taken/cancel", who="vision"
    ),
    "a size for nobody": Bad(404, "UnknownGroup", "name", {"count": 1}, path=f"{GROUPS}/nobody/resize"),
    "a size without a count": Bad(422, "MissingField", "count", {}, path=f"{GROUPS}/taken/resize"),
    "a size that is a text": Bad(422, "BadType", "count", {"count": "2"}, path=f"{GROUPS}/taken/resize"),
    "a size below none": Bad(422, "OutOfRange", "count", {"count": -1}, path=f"{GROUPS}/taken/resize"),
    "a size above all": Bad(422, "OutOfRange", "count", {"count": 10_001}, path=f"{GROUPS}/taken/resize"),
    "a size of a role without end": Bad(
        422, "OutOfRange", "role", {"count": 1, "role": "x" * 64}, path=f"{GROUPS}/taken/resize"
    ),
    "a size with an unknown field": Bad(
        422, "UnknownField", "force", {"count": 1, "force": True}, path=f"{GROUPS}/taken/resize"
    ),
    "a size of a group that is not elastic": Bad(
        409, "NotResizable", "name", {"count": 1}, path=f"{GROUPS}/taken/resize"
    ),
    "a size by a viewer": Bad(
        403, "Forbidden", "Authorization", {"count": 1}, path=f"{GROUPS}/taken/resize", who="viewer"
    ),
    "a size of another queue's group": Bad(
        403, "ForbiddenQueue", "queue", {"count": 1}, path=f"{GROUPS}/taken/resize", who="vision"
    ),
    "a page of no groups": Bad(422, "OutOfRange", "limit", method="GET", path=f"{GROUPS}?limit=0"),
    "a page of too many": Bad(422, "OutOfRange", "limit", method="GET", path=f"{GROUPS}?limit=1001"),
    "a mark that is a word": Bad(422, "BadType", "continue", method="GET", path=f"{GROUPS}?continue=x"),
    "an unknown filter": Bad(422, "UnknownField", "color", method="GET", path=f"{GROUPS}?color=red"),
    "decisions from before the start": Bad(422, "OutOfRange", "since", method="GET", path="/v1/decisions?since=-1"),
    "too many decisions": Bad(422, "OutOfRange", "limit", method="GET", path="/v1/decisions?limit=100000"),
    "decisions of an unknown field": Bad(422, "UnknownField", "uids", method="GET", path="/v1/decisions?uid=a&uids=b"),
    "a watch of an unknown field": Bad(422, "UnknownField", "from", method="GET", path="/v1/watch?from=5"),
    "groups of an unknown field": Bad(422, "UnknownField", "phases", method="GET", path=f"{GROUPS}?phases=Pending"),
    "an act with a query": Bad(422, "UnknownField", "reason", {}, path="/v1/clusters/c-1/cordon?reason=x"),
    "a watch from nowhere": Bad(422, "BadType", "since", method="GET", path="/v1/watch?since=now"),
    "a path that is not there": Bad(404, "NotFound", "path", method="GET", path="/v1/pods"),
    "a method that is not there": Bad(405, "MethodNotAllowed", "method", method="DELETE", path=f"{GROUPS}/taken"),
    "a queue of weight 0": Bad(422, "OutOfRange", "weight", {"weight": 0}, "PUT", "/v1/queues/q"),
    "a queue of a negative quota": Bad(
        422, "OutOfRange", "gpu_quota.A100", {"gpu_quota": {"A100": -1}}, "PUT", "/v1/queues/q"
    ),
    "a queue whose quota is a word": Bad(
        422, "BadType", "gpu_quota.A100", {"gpu_quota": {"A100": "many"}}, "PUT", "/v1/queues/q"
    ),
    "a queue with an unknown field": Bad(422, "UnknownField", "quota", {"quota": {}}, "PUT", "/v1/queues/q"),
    "a queue with a bad name": Bad(422, "BadValue", "name", {}, "PUT", "/v1/queues/The%20Queue"),
    "a queue by two names": Bad(422, "Invalid", "name", {"name": "other"}, "PUT", "/v1/queues/q"),
    "a queue by a submitter": Bad(403, "Forbidden", "Authorization", {}, "PUT", "/v1/queues/q", "vision"),
    "a queue that is not there": Bad(404, "UnknownQueue", "name", method="GET", path="/v1/queues/nowhere"),
    "a cluster with dots in its name": Bad(422, "BadValue", "name", {}, "PUT", "/v1/clusters/eu.1"),
    "a cluster of a sloppy lease": Bad(
        422, "BadValue", "lease_class", {"lease_class": "sloppy"}, "PUT", "/v1/clusters/c-9"
    ),
    "a cluster unguarded by a word": Bad(
        422, "BadType", "accept_unguarded", {"accept_unguarded": "yes"}, "PUT", "/v1/clusters/c-9"
    ),
    "a price that is no number": Bad(
        422, "BadValue", "labels", {"labels": {"muster.io/gpu-hour-cents": "2.30"}}, "PUT", "/v1/clusters/c-9"
    ),
    "carbon beyond any grid": Bad(
        422, "BadValue", "labels", {"labels": {"muster.io/carbon-g-per-kwh": "1000001"}}, "PUT", "/v1/clusters/c-9"
    ),
    "one data set twice": Bad(
        422, "BadValue", "data", gang("bad", data=[{"name": "laion"}, {"name": "laion", "size_gib": 5}])
    ),
    "a cordon of nobody": Bad(404, "UnknownCluster", "name", {}, path="/v1/clusters/c-9/cordon"),
    "a cluster act nobody knows": Bad(404, "NotFound", "act", {}, path="/v1/clusters/c-1/explode"),
    "confirm-dead without a reason": Bad(422, "MissingField", "reason", {}, path="/v1/clusters/c-1/confirm-dead"),
    "confirm-dead by a submitter": Bad(
        403, "Forbidden", "Authorization", {"reason": "gone"}, path="/v1/clusters/c-1/confirm-dead", who="vision"
    ),
    "an agent's call by a person": Bad(403, "Forbidden", "cluster", b"", path="/v1/agents/c-1/desired"),
    "an agent for another cluster": Bad(
        403, "Forbidden", "cluster", b"", path="/v1/agents/c-2/desired", who="agent:c-1"
    ),
    "an agent's noise": Bad(422, "Invalid", "body", b"\x00\xff", path="/v1/agents/c-1/desired", who="agent:c-1"),
    "bulk without items": Bad(422, "MissingField", "items", {}, path=BULK),
    "bulk of nothing": Bad(422, "MissingField", "items", {"items": []}, path=BULK),
    "bulk of 1,001": Bad(422, "Limit", "items", {"items": [{}] * 1_001}, path=BULK),
    "bulk that is a list": Bad(422, "NotAMapping", "body", [], path=BULK),
    "bulk with an unknown field": Bad(422, "UnknownField", "all", {"items": [{}], "all": True}, path=BULK),
}

CALLS = {**TEXTS, **MODEL, **GPUS, **NOT_DONE, **DIALECTS, **RULES, **ACTS}


@pytest.mark.parametrize("bad", CALLS.values(), ids=CALLS.keys())
def test_a_bad_call_is_a_problem_and_the_next_one_is_answered(server: ServerProcess, bad: Bad) -> None:
    content = bad.body if isinstance(bad.body, bytes) or bad.body is None else json.dumps(bad.body).encode()
    with server.client(bad.who) as client:
        answer = client.request(bad.method, bad.path, content=content, headers=bad.headers)
        problem = answer.json()
        told = (answer.status_code, problem["reason"], problem["field"])
        assert told == (bad.status, bad.reason, bad.field), problem["detail"]
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["detail"]
        assert problem["remedy"]
        assert len(answer.content) < 2_000
        assert client.get("/healthz").status_code == 200


def test_at_least_eighty_mistakes_are_known() -> None:
    assert len(CALLS) + len(YAML) >= 80


def test_items_of_a_bulk_call_are_refused_one_by_one(server: ServerProcess) -> None:
    items = [
        {"manifest": gang("bulk-1")},
        {"manifest": gang("bulk-1", pods=3)},
        {"manifest": gang("bulk-2", pods=0)},
        {"manifest": gang("bulk-3", queue="nowhere")},
        {"manifest": gang("bulk-4"), "request_id": 7},
        {"manifest": [1]},
        {"manifesto": {}},
        {"manifest": gpus("500m")},
        {"manifest": gang("bulk-5"), "request_id": "mine"},
    ]
    with server.client() as client:
        answer = client.post(BULK, json={"items": items}, headers={"Request-Id": "bulk"})
        again = client.post(BULK, json={"items": items}, headers={"Request-Id": "bulk"})
    told = [(item["status"], item.get("reason", item.get("request_id"))) for item in answer.json()["items"]]
    assert told == [
        (201, "bulk-0"),
        (409, "NameTaken"),
        (422, "OutOfRange"),
        (422, "UnknownQueue"),
        (422, "BadType"),
        (422, "NotAMapping"),
        (422, "BadType"),
        (422, "BadTemplate"),
        (201, "mine"),
    ]
    assert answer.json()["metadata"] == {"accepted": 2, "refused": 7}
    assert [item.get("uid") for item in again.json()["items"]] == [item.get("uid") for item in answer.json()["items"]]


# --- the same by the command, from YAML ------------------------------------------------------------------------------

OWN = "apiVersion: muster.io/v1\nkind: PodGroup\nmetadata: {name: bad}\nspec:\n  roles: [{template: {spec: {}}}]\n"
BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
EXIT_REFUSED, EXIT_USAGE = 4, 2

YAML = {
    "nothing": ("", "EmptyManifest"),
    "text": ("hello", "NotAMapping"),
    "a list": ("- a\n", "NotAMapping"),
    "a bomb of aliases": (BOMB, "AliasRefused"),
    "an anchor": ("a: &x 1\n", "AliasRefused"),
    "depth 40": ("{a: " * 40 + "1" + "}" * 40, "TooDeep"),
    "50,000 brackets": ("[" * 50_000, "BadYaml"),
    "a key twice": (OWN + "  priority: 1\n  priority: 2\n", "DuplicateKey"),
    "an unclosed list": ("a: [1\n", "BadYaml"),
    "a tab as indent": ("a:\n\tb: 1\n", "BadYaml"),
    "a control character": ("a: \x01\n", "BadYaml"),
    "a Python object": ("a: !!python/object/apply:os.system [ls]\n", "BadYaml"),
    "a number as key": ("1: a\n", "BadKey"),
    "over 256 KiB": ("# " + "x" * 300_000, "TooLarge"),
    "1,001 documents": ("---\na: 1\n" * 1_001, "TooMany"),
    "NaN as YAML writes it": (OWN + "  priority: .nan\n", "BadType"),
    "a yes that is text": (OWN + "  suspend: yes\n", "BadType"),
    "an octal": (OWN + "  priority: 0o17\n", "BadType"),
    "an unknown field": (OWN + "  replicas: 3\n", "UnknownField"),
    "a huge priority": (OWN + "  priority: 99999999999\n", "OutOfRange"),
    "a key of 9,000 characters": (OWN + f"  {'x' * 900}: 1\n", "UnknownField"),
    "a terminal's escape": (OWN + '  "\\e[2Jx": 1\n', "UnknownField"),
    "a Pod": ("apiVersion: v1\nkind: Pod\n", "NoGroup"),
    "a queue": ("apiVersion: muster.io/v1\nkind: Queue\nmetadata: {name: q}\n", "use `muster apply`"),
    "an unknown queue": (OWN + "  queue: nowhere\n", "UnknownQueue"),
    "a taken name": (OWN.replace("name: bad", "name: taken"), "NameTaken"),
    "min_count above the pods": (OWN + "  min_count: 2\n", "BadValue"),
    "a node by its name": (OWN.replace("spec: {}", "spec: {nodeName: node-1}"), "NotTaken"),
}


@pytest.mark.parametrize(("text", "reason"), YAML.values(), ids=YAML.keys())
def test_a_bad_manifest_is_told_by_the_command_in_two_lines(
    server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, reason: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    code = run(("submit", "-f", str(path)), _world(server))
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert (code, out) == (EXIT_REFUSED, "")
    assert reason in err
    assert len(lines) == 2
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("  ")
    assert max(len(line) for line in lines) <= 820
    assert all(char.isprintable() for line in lines for char in line)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("submit",), 2),
        (("submit", "-f", "/no/such/file"), 2),
        (("get", "nouns"), 2),
        (("get", "pg", "-l", "x"), 2),
        (("get", "pg", "nobody"), 3),
        (("describe", "cluster", "c-9"), 3),
        (("explain", "nobody"), 3),
        (("cancel", "nobody"), 3),
        (("cluster", "cordon", "c-9"), 3),
        (("resume", "ended"), 4),
        (("resize", "taken", "--count", "1"), 4),
        (("resize", "taken", "--count", "two"), 2),
        (("resize", "taken"), 2),
        (("cluster", "join", "eu.1"), 4),
        (("cluster", "confirm-dead", "c-1", "--reason", "x"), 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_that_cannot_be_done_exits_with_the_code_of_its_kind(
    server: ServerProcess, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int
) -> None:
    assert run(arguments, _world(server)) == code
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines()) <= 2) == ("", True)


def _world(server: ServerProcess) -> World:
    environment = {"HOME": str(server.root), "PATH": os.environ["PATH"]}
    return World({**environment, "MUSTER_SERVER": server.url, "MUSTER_TOKEN": server.tokens["operator"]})
