"""A SQLite disk that refuses to write under a running server: it stalls, says why, and goes on when it can."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.integration.server_process import ServerProcess, gang

AGAIN_S = 120.0
NO_LIMIT = resource.RLIM_INFINITY


def limit_files(server: ServerProcess, size: int) -> None:
    """No file of the server grows beyond `size` bytes: writes there fail like those of a broken disk."""
    assert server.process is not None
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, NO_LIMIT))


def readiness(server: ServerProcess) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{server.url}/readyz", trust_env=False).json()
    return found


def until(done: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + AGAIN_S
    while not done():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.05)


def submit(client: httpx.Client, name: str) -> httpx.Response:
    return client.post("/v1/podgroups", json=gang(name), headers={"Request-Id": name})


def test_a_disk_that_refuses_writes_stalls_the_server_and_costs_nothing_acknowledged(own_server: ServerProcess) -> None:
    with own_server.client() as client:
        before = [submit(client, f"before-{number}").json()["uid"] for number in range(5)]
        limit_files(own_server, 4_096)
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/podgroups", json=gang("during"), headers={"Request-Id": "during"}, timeout=2.0)
        status = readiness(own_server)
        assert status["stalled"]
        assert "the disk refuses to write or read" in status["store_trouble"]
        assert [client.get(f"/v1/podgroups/{uid}").status_code for uid in before] == [200] * 5
        limit_files(own_server, NO_LIMIT)
        until(lambda: not readiness(own_server)["stalled"], "it does not go on")
        during = submit(client, "during")
        assert during.status_code == 201
        assert readiness(own_server)["store_trouble"] == ""
    own_server.kill()
    own_server.start()
    with own_server.client() as client:
        items = client.get("/v1/podgroups").json()["items"]
    shown = {item["metadata"]["name"]: item["metadata"]["uid"] for item in items}
    assert shown == {f"before-{number}": uid for number, uid in enumerate(before)} | {"during": during.json()["uid"]}
    assert "store.trouble" in own_server.log()


def test_a_server_killed_while_its_disk_refuses_writes_has_all_that_it_acknowledged(own_server: ServerProcess) -> None:
    with own_server.client() as client:
        before = [submit(client, f"before-{number}").json()["uid"] for number in range(5)]
        limit_files(own_server, 4_096)
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/podgroups", json=gang("during"), headers={"Request-Id": "during"}, timeout=2.0)
    own_server.kill()
    own_server.start()
    with own_server.client() as client:
        shown = [item["metadata"]["uid"] for item in client.get("/v1/podgroups").json()["items"]]
        assert shown == before
        assert submit(client, "during").status_code == 201
