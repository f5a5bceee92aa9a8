"""A whole `muster-server` on stores that admit several, killed and started again."""

from __future__ import annotations

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


def test_what_it_acknowledged_is_there_after_a_kill(server: ServerProcess) -> None:
    with server.client() as client:
        uid = client.post("/v1/podgroups", json=gang("kept")).json()["uid"]
    server.kill()
    server.start()
    with server.client() as client:
        assert client.get(f"/v1/podgroups/{uid}").json()["metadata"]["name"] == "kept"
