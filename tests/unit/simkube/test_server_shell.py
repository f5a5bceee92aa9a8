"""The HTTP shell of the API server: tokens, time-outs, bodies, and a log that is rewritten without losing anything."""

import json
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from cluster_agents.simkube import server
from cluster_agents.simkube.server import WAL_NAME, ApiShell
from tests.unit.simkube.mini import PODS, pod


async def test_without_the_right_token_nothing_is_answered_and_nothing_done() -> None:
    shell = ApiShell("c-1", token="secret")
    async with TestClient(TestServer(shell.app())) as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            refused = await client.post(PODS, json=pod("a"), headers=headers)
            assert (refused.status, (await refused.json())["reason"]) == (401, "Unauthorized")
        accepted = await client.post(PODS, json=pod("b"), headers={"Authorization": "Bearer secret"})
        assert accepted.status == 201
    assert [name for _, name in shell.api.store.tables["pods"].objects] == ["b"]


async def test_a_write_whose_timeout_passes_is_refused_and_not_carried_out() -> None:
    shell = ApiShell("c-1")
    async with TestClient(TestServer(shell.app())) as client:
        await client.post("/simkube/faults", json={"latency_s": 3600.0})
        late = await client.post(PODS, json=pod("a"), params={"timeout": "20ms"})
        assert (late.status, (await late.json())["reason"]) == (504, "Timeout")
        await client.post("/simkube/faults", json={"clear": True})
        assert (await client.post(PODS, json=pod("a"))).status == 201


async def test_a_pods_log_is_text_and_that_of_a_missing_pod_is_not_found() -> None:
    async with TestClient(TestServer(ApiShell("c-1").app())) as client:
        await client.post(PODS, json=pod("a"))
        found = await client.get(f"{PODS}/a/log")
        assert (found.status, found.content_type, await found.text()) == (200, "text/plain", "")
        missing = await client.get(f"{PODS}/b/log")
        assert (missing.status, (await missing.json())["message"]) == (404, 'pods "b" not found')


async def test_a_watch_is_told_of_its_own_kind_while_others_change() -> None:
    async with TestClient(TestServer(ApiShell("c-1").app())) as client:
        watch = await client.get(PODS, params={"watch": "true", "resourceVersion": "0"})
        maps = PODS.replace("pods", "configmaps")
        await client.post(maps, json={"metadata": {"name": "m"}})
        await client.post(PODS, json=pod("a"))
        await client.post(maps, json={"metadata": {"name": "n"}})
        await client.post(PODS, json=pod("b"))
        lines = [json.loads(await watch.content.readline()) for _ in range(2)]
        watch.close()
    assert [(one["type"], one["object"]["metadata"]["name"]) for one in lines] == [("ADDED", "a"), ("ADDED", "b")]


async def test_too_many_requests_say_when_to_come_again() -> None:
    shell = ApiShell("c-1")
    async with TestClient(TestServer(shell.app())) as client:
        await client.post("/simkube/faults", json={"rules": [{"verb": "list", "label": "pods", "status": 429}]})
        busy = await client.get(PODS)
        assert (busy.status, busy.headers["Retry-After"]) == (429, "1")
        assert (await client.get(PODS)).status == 200


@pytest.mark.parametrize("body", [{"cut": "half"}, {"latency": 1}, {"rules": [{"verbs": "get"}]}])
async def test_a_switch_that_cannot_be_read_turns_nothing(body: dict[str, object]) -> None:
    shell = ApiShell("c-1")
    async with TestClient(TestServer(shell.app())) as client:
        assert (await client.post("/simkube/faults", json={"latency_s": 0.0, **body})).status == 422
        shown = await (await client.get("/simkube/faults")).json()
        assert shown == {"rules": [], "latency_s": 0.0, "frozen": False, "cut": ""}


async def test_a_body_that_is_no_json_is_a_bad_request() -> None:
    async with TestClient(TestServer(ApiShell("c-1").app())) as client:
        refused = await client.post(PODS, data=b"{", headers={"Content-Type": "application/json"})
        assert (refused.status, (await refused.json())["reason"]) == (400, "BadRequest")


async def test_an_overlong_log_is_rewritten_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "WAL_LINES_MAX", 10)
    shell = ApiShell("c-1", folder=tmp_path)
    async with TestClient(TestServer(shell.app())) as client:
        await client.post(PODS, json=pod("a"))
        for i in range(25):
            patch = {"metadata": {"labels": {"i": str(i)}}}
            await client.patch(f"{PODS}/a", json=patch, headers={"Content-Type": "application/merge-patch+json"})
    shell.close()
    lines = (tmp_path / WAL_NAME).read_bytes().count(b"\n")
    assert lines <= 1 + 4 + 1 + 11  # head, namespaces, the pod, and at most a stretch of writes
    again = ApiShell("c-1", folder=tmp_path)
    assert again.api.backup() == shell.api.backup()
    again.close()


async def test_the_audit_over_http_goes_on_where_the_reader_was() -> None:
    async with TestClient(TestServer(ApiShell("c-1").app())) as client:
        for name in ("a", "b"):
            await client.post(PODS, json=pod(name))
        shown = await (await client.get("/simkube/audit", params={"after": "1"})).json()
        assert [(act["act"], act["name"]) for act in shown["acts"]] == [("created", "b")]
        assert ["POST", "pods", 201, 2] in shown["requests"]
