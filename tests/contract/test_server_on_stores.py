"""A whole `muster-server` on stores that admit several, killed and started again."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.server_process import ServerProcess, gang
from tests.servers.kinds import Servers

PURE_PROTOBUF = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"


@pytest.fixture(params=["etcd", "moto"])
def server(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> Iterator[ServerProcess]:
    """It must choose the protobuf that etcd's client needs by itself."""
    found = ServerProcess(tmp_path, store=servers.new_store(request.param), hidden=(PURE_PROTOBUF,))
    found.init("c-1")
    found.start()
    yield found
    found.stop()


def make_faulty(store_url: str, rate: float) -> None:
    """From now on this share of the bucket's answers goes wrong."""
    endpoint = store_url.partition("endpoint=")[2]
    request = urllib.request.Request(f"{endpoint}/_faults", data=f"{rate} 7".encode(), method="PUT")
    urllib.request.urlopen(request, timeout=10.0).close()


def test_a_bucket_that_often_fails_costs_nothing_that_was_acknowledged(servers: Servers, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, store=servers.new_store("loopback"))
    server.init("c-1")
    server.start()
    make_faulty(server.store, 0.1)
    try:
        with server.client() as client:
            answers = [
                client.post("/v1/podgroups", json=gang(f"g-{number}"), headers={"Request-Id": f"r-{number}"})
                for number in range(40)
            ]
            acknowledged = [answer.json()["uid"] for answer in answers if answer.status_code == 201]
        make_faulty(server.store, 0.0)
        server.kill()
        server.start()
        with server.client() as client:
            shown = [item["metadata"]["uid"] for item in client.get("/v1/podgroups").json()["items"]]
    finally:
        make_faulty(server.store, 0.0)
        server.stop()
    assert len(acknowledged) > 30
    assert [uid for uid in shown if uid in set(acknowledged)] == acknowledged
    assert len(shown) == len(set(shown)) <= 40


def test_what_it_acknowledged_is_there_after_a_kill(server: ServerProcess) -> None:
    with server.client() as client:
        uid = client.post("/v1/podgroups", json=gang("kept")).json()["uid"]
    server.kill()
    server.start()
    with server.client() as client:
        assert client.get(f"/v1/podgroups/{uid}").json()["metadata"]["name"] == "kept"
