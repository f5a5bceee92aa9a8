"""`muster store …` on the SQLite store of a running server, which only the server may open."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from federation.cli.main import run
from federation.cli.session import World
from tests.integration.server_process import ServerProcess, gang


def submit(server: ServerProcess, count: int) -> list[str]:
    with server.client() as client:
        answers = [client.post("/v1/podgroups", json=gang(f"g-{number}", pods=1)) for number in range(count)]
    return [answer.json()["uid"] for answer in answers]


def asked(server: ServerProcess, capsys: pytest.CaptureFixture[str], *command: str) -> tuple[int, str, str]:
    environment = {
        "HOME": str(server.root),
        "MUSTER_SERVER": server.url,
        "MUSTER_TOKEN": server.tokens["operator"],
    }
    code = run(["store", *command], World(environment))
    out, err = capsys.readouterr()
    return code, out, err


def test_the_running_server_and_the_stopped_store_show_the_same(
    own_server: ServerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    uids = submit(own_server, 5)
    url = f"sqlite:///{own_server.root}/journal.db"
    assert asked(own_server, capsys, "verify", url)[0] == 4
    code, out, _ = asked(own_server, capsys, "history", "-o", "json")
    online = json.loads(out)["items"]
    assert code == 0
    assert [item["uid"] for item in online if item["kind"] == "Submitted"] == uids
    code, out, _ = asked(own_server, capsys, "verify", "-o", "json")
    verified = json.loads(out)
    assert (code, verified["good"], verified["first_seq"]) == (0, True, 1)
    code, out, _ = asked(own_server, capsys, "stat", "-o", "json")
    assert code == 0
    assert json.loads(out)["blobs"]["root"] == 1
    own_server.stop()
    code, out, _ = asked(own_server, capsys, "history", url, "-o", "json")
    assert (code, json.loads(out)["items"][: len(online)]) == (0, online)
    code, out, _ = asked(own_server, capsys, "verify", url, "-o", "json")
    assert (code, json.loads(out)["entries"] >= verified["entries"]) == (0, True)


def test_a_backup_is_made_beside_the_running_server(
    own_server: ServerProcess, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    place = f"file://{tmp_path}/backup"
    uids = submit(own_server, 5)
    assert asked(own_server, capsys, "backup", "--to", place)[0] == 0
    code, out, _ = asked(own_server, capsys, "history", place, "-o", "json")
    assert [item["uid"] for item in json.loads(out)["items"] if item["kind"] == "Submitted"] == uids
    assert (code, asked(own_server, capsys, "verify", place)[0]) == (0, 0)


def test_a_fleet_goes_on_in_the_store_it_was_moved_to(
    own_server: ServerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    before = submit(own_server, 3)
    url, target = f"sqlite:///{own_server.root}/journal.db", f"file://{own_server.root}/moved"
    assert asked(own_server, capsys, "migrate", url, target)[0] == 4
    own_server.stop()
    assert asked(own_server, capsys, "migrate", url, target)[0] == 0
    with pytest.raises(AssertionError, match="this store was moved to"):
        own_server.start()
    own_server.store = target
    own_server.start()
    with own_server.client() as client:
        shown = [item["metadata"]["uid"] for item in client.get("/v1/podgroups").json()["items"]]
        assert shown == before
        assert client.post("/v1/podgroups", json=gang("after", pods=1)).status_code == 201


def test_who_may_not_operate_may_not_read_the_store(own_server: ServerProcess) -> None:
    with own_server.client("agent:c-1") as client:
        assert client.get("/v1/store/names").status_code == 403
        assert client.get("/v1/store/blobs", params={"name": "root"}).status_code == 403


@pytest.mark.parametrize(("count", "status"), [(64, 200), (65, 422)])
def test_so_many_blobs_are_read_in_one_call(server: ServerProcess, count: int, status: int) -> None:
    with server.client() as client:
        names = [f"absent/{number}" for number in range(count)]
        assert client.get("/v1/store/blobs", params={"name": names}).status_code == status


def test_a_stopped_server_is_told_with_what_to_do(
    own_server: ServerProcess, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    own_server.stop()
    code, out, err = asked(own_server, capsys, "verify")
    assert (code, out) == (6, "")
    assert "cannot be reached" in err
