"""The HTTP API of a real server process: what submitters, operators, agents and strangers get."""

from __future__ import annotations

import socket
import subprocess
import sys

import httpx
import pytest

from federation.protocol.messages import (
    DesiredAnswer,
    DesiredAsk,
    Renewal,
    RenewalAnswer,
    decode_answers,
    encode_message,
)
from tests.integration.server_process import ServerProcess, gang


def test_a_submission_is_answered_with_its_identity_and_can_be_read_back(server: ServerProcess) -> None:
    with server.client() as client:
        answer = client.post("/v1/podgroups", json=gang("read-back", pods=3, priority=5))
        assert answer.status_code == 201
        view = client.get(f"/v1/podgroups/{answer.json()['uid']}").json()
        assert view["metadata"]["name"] == "read-back"
        assert (view["spec"]["pods"], view["spec"]["gpus"], view["spec"]["priority"]) == (3, 24, 5)
        assert view["status"]["phase"] == "Pending"
        assert client.get("/v1/podgroups/read-back").json()["metadata"]["uid"] == answer.json()["uid"]


def test_the_same_request_id_gives_the_same_group_and_another_body_a_conflict(server: ServerProcess) -> None:
    headers = {"Request-Id": "once-only"}
    with server.client() as client:
        first = client.post("/v1/podgroups", json=gang("repeated"), headers=headers)
        again = client.post("/v1/podgroups", json=gang("repeated"), headers=headers)
        other = client.post("/v1/podgroups", json=gang("repeated", pods=9), headers=headers)
    assert first.json()["uid"] == again.json()["uid"]
    assert (other.status_code, other.json()["reason"]) == (409, "RequestIdConflict")


def test_a_live_name_is_taken_and_free_again_after_cancel(server: ServerProcess) -> None:
    with server.client() as client:
        client.post("/v1/podgroups", json=gang("taken")).raise_for_status()
        second = client.post("/v1/podgroups", json=gang("taken"))
        assert (second.status_code, second.json()["reason"]) == (409, "NameTaken")
        client.post("/v1/podgroups/taken/cancel", json={"reason": "test"}).raise_for_status()
        assert client.get("/v1/podgroups/taken").json()["status"]["phase"] == "Cancelled"
        assert client.post("/v1/podgroups", json=gang("taken")).status_code == 201


def test_history_and_the_decision_log_show_each_decision_with_its_actor(server: ServerProcess) -> None:
    with server.client() as client:
        uid = client.post("/v1/podgroups", json=gang("told")).json()["uid"]
        client.post("/v1/podgroups/told/cancel", json={"reason": "enough"}).raise_for_status()
        history = client.get("/v1/podgroups/told/history").json()["items"]
        assert [(item["kind"], item["actor"], item["uid"]) for item in history] == [
            ("Submitted", "operator", uid),
            ("IntentSet", "operator", uid),
        ]
        decisions = client.get(f"/v1/decisions?uid={uid}").json()["items"]
        assert [item["position"] for item in decisions] == [item["position"] for item in history]
        newest = client.get(f"/v1/decisions?uid={uid}&before={2**63 - 1}&limit=1").json()["items"]
        assert newest == decisions[1:]
        assert client.get(f"/v1/decisions?uid={uid}&before={newest[0]['position']}").json()["items"] == decisions[:1]


def test_the_watch_stream_resumes_after_the_last_seen_position(server: ServerProcess) -> None:
    with server.client() as client:
        uid = client.post("/v1/podgroups", json=gang("watched")).json()["uid"]
        position = int(client.get("/v1/podgroups/watched").json()["metadata"]["resourceVersion"])
        client.post("/v1/podgroups/watched/cancel", json={}).raise_for_status()
        headers = {"Last-Event-ID": str(position)}
        with client.stream("GET", f"/v1/watch?uid={uid}", headers=headers) as stream:
            kinds = []
            for line in stream.iter_lines():
                if line.startswith("event: "):
                    kinds.append(line.removeprefix("event: "))
                    break
        assert kinds == ["IntentSet"]


def test_a_watch_from_beyond_the_journal_is_refused(server: ServerProcess) -> None:
    with server.client() as client:
        head = int(client.get("/v1/podgroups").json()["metadata"]["resourceVersion"])
        refused = client.get("/v1/watch", headers={"Last-Event-ID": str(head + 2**40)}, timeout=30.0)
    assert (refused.status_code, refused.json()["reason"]) == (409, "BeyondHead")


def test_lists_come_in_pages_that_miss_and_repeat_nothing(server: ServerProcess) -> None:
    with server.client() as client:
        for number in range(5):
            body = gang(f"page-{number}", labels={"set": "paged"})
            client.post("/v1/podgroups", json=body).raise_for_status()
        names: list[str] = []
        mark = "0"
        while mark:
            page = client.get("/v1/podgroups", params={"label": "set=paged", "limit": 2, "continue": mark}).json()
            names += [item["metadata"]["name"] for item in page["items"]]
            mark = page["metadata"]["continue"]
    assert names == [f"page-{number}" for number in range(5)]


def test_why_a_group_waits_is_said_in_words(server: ServerProcess) -> None:
    with server.client() as client:
        client.post("/v1/podgroups", json=gang("waits")).raise_for_status()
        why = client.get("/v1/podgroups/waits/explain").json()
    assert why["phase"] == "Pending"
    assert why["summary"]
    assert why["change"]


def test_a_queue_is_applied_and_an_unknown_one_refused(server: ServerProcess) -> None:
    with server.client() as client:
        refused = client.post("/v1/podgroups", json=gang("no-queue", queue="research"))
        assert (refused.status_code, refused.json()["reason"]) == (422, "UnknownQueue")
        client.put("/v1/queues/research", json={"weight": 3, "gpu_quota": {"*": 64}}).raise_for_status()
        assert client.post("/v1/podgroups", json=gang("no-queue", queue="research")).status_code == 201
        assert client.get("/v1/queues/research").json()["spec"]["gpu_quota"] == {"*": 64}


def test_a_cluster_that_joined_by_mistake_is_removed_and_a_repeat_changes_nothing(server: ServerProcess) -> None:
    with server.client() as client:
        client.put("/v1/clusters/typo", json={}).raise_for_status()
        remove = {
            "url": "/v1/clusters/typo/remove",
            "json": {"reason": "typo"},
            "headers": {"Request-Id": "remove-once"},
        }
        first = client.post(**remove).raise_for_status().json()
        assert "typo" not in {item["metadata"]["name"] for item in client.get("/v1/clusters").json()["items"]}
        assert client.post(**remove).raise_for_status().json() == first
        again = client.post("/v1/clusters/typo/remove", json={})
    assert (again.status_code, again.json()["reason"]) == (404, "UnknownCluster")


def test_a_cluster_joins_and_is_cordoned(server: ServerProcess) -> None:
    with server.client() as client:
        client.put("/v1/clusters/c-1", json={"lease_class": "fast", "labels": {"region": "eu"}}).raise_for_status()
        client.post("/v1/clusters/c-1/cordon", json={"reason": "cables"}).raise_for_status()
        view = client.get("/v1/clusters/c-1").json()
    assert view["metadata"]["labels"] == {"region": "eu"}
    assert (view["spec"]["cordoned"], view["spec"]["drain"], view["spec"]["cordon_reason"]) == (True, False, "cables")


def test_an_agent_gets_desired_state_and_its_lease_by_https(server: ServerProcess) -> None:
    with server.client() as client:
        client.put("/v1/clusters/c-2", json={}).raise_for_status()
    with server.client("agent:c-2") as agent:
        body = encode_message(DesiredAsk(ask_id=1, cluster="c-2", since=0))
        (answer,) = decode_answers(agent.post("/v1/agents/c-2/desired", content=body).content)
        assert isinstance(answer, DesiredAnswer)
        assert (answer.full, answer.groups) == (True, ())
        renewal = Renewal(
            ask_id=2, cluster="c-2", epoch=0, renew_seq=1, ttl_s=6, holder_uid="u", holder_boot="b", nonce="n"
        )
        (reply,) = decode_answers(agent.post("/v1/agents/c-2/lease", content=encode_message(renewal)).content)
    assert isinstance(reply, RenewalAnswer)
    assert reply.result in {"fenced", "unavailable"}, "a cluster that was not admitted has nothing to renew"


@pytest.mark.parametrize(
    ("principal", "method", "path", "status"),
    [
        ("agent:c-1", "GET", "/v1/podgroups", 403),
        ("agent:c-1", "POST", "/v1/agents/c-2/desired", 403),
        ("operator", "POST", "/v1/agents/c-1/desired", 403),
    ],
    ids=["an agent reads no groups", "an agent speaks for no other cluster", "a person does not speak for a cluster"],
)
def test_each_principal_may_do_only_its_own(
    server: ServerProcess, principal: str, method: str, path: str, status: int
) -> None:
    with server.client(principal) as client:
        body = encode_message(DesiredAsk(ask_id=1, cluster="c-1", since=0))
        assert client.request(method, path, content=body if method == "POST" else None).status_code == status


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", "Basic b3BlcmF0b3I="])
def test_without_a_known_token_nothing_is_told(server: ServerProcess, authorization: str) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    answer = httpx.get(f"{server.url}/v1/podgroups", headers=headers, trust_env=False)
    assert (answer.status_code, answer.json()["reason"]) == (401, "Unauthenticated")


def test_openapi_lists_every_route_that_is_served(server: ServerProcess) -> None:
    document = httpx.get(f"{server.url}/openapi.json", trust_env=False).json()
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {
        "/v1/podgroups",
        "/v1/podgroups:bulk",
        "/v1/podgroups/{ref}",
        "/v1/podgroups/{ref}/explain",
        "/v1/podgroups/{ref}/history",
        "/v1/podgroups/{ref}/{act}",
        "/v1/podgroups/{ref}/resize",
        "/v1/clusters",
        "/v1/clusters/{name}",
        "/v1/clusters/{name}/{act}",
        "/v1/queues",
        "/v1/queues/{name}",
        "/v1/decisions",
        "/v1/watch",
        "/v1/agents/{cluster}/report",
        "/v1/agents/{cluster}/{kind}",
        "/v1/store/names",
        "/v1/store/blobs",
        "/healthz",
        "/readyz",
        "/metrics",
    }


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_probes_may_add_what_they_like(server: ServerProcess, path: str) -> None:
    with server.client() as client:
        assert client.get(path, params={"verbose": ""}).status_code == 200


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (b"{", 422, "BadJson"),
        (b"[]", 422, "NotAMapping"),
        (b'{"a": 1, "a": 2}', 422, "DuplicateKey"),
        (b'{"a": NaN}', 422, "NotFinite"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, 422, "TooDeep"),
        (b"\xff\xfe", 422, "BadJson"),
        (b'{"kind": "CronJob", "apiVersion": "batch/v1"}', 422, "UnknownKind"),
        (b'{"name": "x", "roles": []}', 422, "OutOfRange"),
        (b'"' + b"x" * (1024 * 1024) + b'"', 413, "TooLarge"),
        (b"[" * 100_000, 422, "TooDeep"),
    ],
    ids=[
        "cut off",
        "a list",
        "key twice",
        "NaN",
        "depth",
        "not UTF-8",
        "unknown kind",
        "no roles",
        "over 1 MiB",
        "bomb",
    ],
)
def test_a_bad_body_is_a_problem_that_says_why_and_the_next_call_is_answered(
    server: ServerProcess, content: bytes, status: int, reason: str
) -> None:
    with server.client() as client:
        answer = client.post("/v1/podgroups", content=content)
        assert (answer.status_code, answer.json()["reason"]) == (status, reason)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["remedy"]
        assert client.get("/healthz").status_code == 200


def test_metrics_tell_the_journal_position_and_name_no_group(server: ServerProcess) -> None:
    with server.client() as client:
        client.post("/v1/podgroups", json=gang("secret-project")).raise_for_status()
    text = httpx.get(f"{server.url}/metrics", trust_env=False).text
    assert "muster_journal_position" in text
    assert 'muster_podgroups{phase="Pending"}' in text
    assert "secret-project" not in text


def test_what_was_acknowledged_is_there_after_a_kill(own_server: ServerProcess) -> None:
    with own_server.client() as client:
        uids = [client.post("/v1/podgroups", json=gang(f"kept-{n}")).json()["uid"] for n in range(20)]
    own_server.kill()
    own_server.start()
    with own_server.client() as client:
        assert [client.get(f"/v1/podgroups/{uid}").json()["metadata"]["name"] for uid in uids] == [
            f"kept-{n}" for n in range(20)
        ]


def test_a_second_server_on_the_same_journal_is_refused_in_one_line(own_server: ServerProcess) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "federation.server.main", "--dir", str(own_server.root)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 6
    assert len(second.stderr.strip().splitlines()) == 1
    assert "Traceback" not in second.stderr


def test_a_stopped_server_exits_in_good_order(own_server: ServerProcess) -> None:
    assert own_server.stop() == 0
    assert "Traceback" not in own_server.log()


def test_a_stopping_server_ends_its_watch_streams_in_good_order(own_server: ServerProcess) -> None:
    with own_server.client() as client, client.stream("GET", "/v1/watch") as stream:
        lines = stream.iter_lines()
        assert next(lines) == ": connected"
        assert own_server.process is not None
        own_server.process.terminate()
        assert [line for line in lines if line.startswith("event: ")] == []  # a cut stream would raise here
    assert own_server.stop() == 0


def test_no_token_ever_reaches_the_log(own_server: ServerProcess) -> None:
    with own_server.client() as client:
        client.post("/v1/podgroups", json=gang("quiet")).raise_for_status()
    own_server.stop()
    assert all(token not in own_server.log() for token in own_server.tokens.values())


def test_a_caller_that_gives_up_half_way_leaves_no_fault_in_the_log(own_server: ServerProcess) -> None:
    head = f"POST /v1/podgroups HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {own_server.tokens['operator']}\r\n"
    with socket.create_connection(("127.0.0.1", own_server.port)) as line:
        line.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        with own_server.client() as client:
            assert client.get("/healthz").status_code == 200  # what was sent before is being read
    own_server.stop()
    assert "request.failed" not in own_server.log()
    assert "Traceback" not in own_server.log()
