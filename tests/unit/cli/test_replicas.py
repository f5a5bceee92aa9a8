"""Several servers of a fleet on one machine: which stores admit them, and how everybody is told where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from federation.cli.local import commands, processes, state
from federation.cli.local.processes import ProcessRecord
from federation.cli.local.state import FleetDir, FleetState
from tests.unit.cli.conftest import Muster
from tests.unit.cli.stub import Stub

STATE = FleetState(
    clusters=["c-1"],
    nodes=["1xA100-80:8"],
    preset="fast",
    replicas=2,
    store="file:///srv/store",
    ports={"nats": 1, "server": 2, "server/s-2": 3, "apiserver/c-1": 4, "agent/c-1": 5, "kubelets/c-1": 6},
)


@pytest.mark.parametrize("store", [(), ("--store", "sqlite:////srv/j.db"), ("--store", "memory:")])
def test_a_store_for_one_process_admits_no_second_server(
    muster: Muster, tmp_path: Path, store: tuple[str, ...]
) -> None:
    shown = muster("up", "--dir", str(tmp_path / "f"), "--replicas", "2", *store)
    assert shown.code == 4
    assert "admits one server, not 2" in shown.err
    assert f"--store file://{tmp_path}/f/store" in shown.err
    assert not (tmp_path / "f" / "up.json").exists()


@pytest.mark.parametrize("replicas", ["0", "10"])
def test_there_are_one_to_nine_servers(muster: Muster, replicas: str) -> None:
    assert muster("up", "--replicas", replicas).code == 2


def test_each_server_has_a_role_a_name_and_a_port_of_its_own(tmp_path: Path) -> None:
    folder = FleetDir(tmp_path)
    assert commands.roles(STATE) == ["nats", "server", "server/s-2", "apiserver/c-1", "agent/c-1", "kubelets/c-1"]
    first, second = (commands.command(folder, STATE, role, {}) for role in commands.servers(STATE))
    assert [first[first.index("--name") + 1], second[second.index("--name") + 1]] == ["s-1", "s-2"]
    assert [first[first.index("--listen") + 1], second[second.index("--listen") + 1]] == ["127.0.0.1:2", "127.0.0.1:3"]
    assert first[first.index("--store") + 1] == second[second.index("--store") + 1] == "file:///srv/store"


def test_clients_and_agents_are_told_of_all_servers(tmp_path: Path) -> None:
    assert commands.server_urls(STATE) == "http://127.0.0.1:2,http://127.0.0.1:3"
    agent = commands.command(FleetDir(tmp_path), STATE, "agent/c-1", {})
    servers = [agent[at + 1] for at, part in enumerate(agent) if part == "--server"]
    assert servers == ["http://127.0.0.1:2", "http://127.0.0.1:3"]


def test_a_command_asks_the_next_server_when_one_is_away(muster: Muster, stub: Stub) -> None:
    shown = muster("get", "podgroups", "-o", "name", MUSTER_SERVER=f"http://127.0.0.1:1,{stub.url}")
    assert (shown.code, shown.out) == (0, "podgroup/train\npodgroup/tune\n")


def test_each_of_several_addresses_must_be_one(muster: Muster) -> None:
    shown = muster("get", "podgroups", MUSTER_SERVER="http://a,b:1")
    assert (shown.code, "server 'b:1' is not an http:// or https:// URL" in shown.err) == (2, True)


def test_a_fleet_takes_another_store_only_while_no_server_of_it_runs(muster: Muster, tmp_path: Path) -> None:
    folder = FleetDir(tmp_path)
    pid = os.getpid()
    running = ProcessRecord(pid, processes.began(pid) or "")
    known = FleetState(clusters=["c-1"], nodes=["1x"], preset="fast", processes={"server": running})
    state.save(folder, known)
    shown = muster("up", "--dir", str(tmp_path), "--store", "file:///srv/restored")
    assert (shown.code, "server runs on the store in the folder" in shown.err) == (4, True)
    after = state.load(folder)
    assert after is not None
    assert after.store == ""
