"""The parts of a local fleet: processes told apart, state on disk, the broker's configuration, commands and ports."""

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from federation.cli.errors import CliError, ExitCode
from federation.cli.local import commands, nats, ports, processes, state
from federation.cli.local.fleet import LocalFleet, heard_as_active
from federation.cli.local.processes import ProcessRecord
from federation.cli.local.state import FleetDir, FleetState
from federation.protocol.nkeys import bus_key_of, new_bus_key
from muster.results import ClusterStatus
from tests.unit.cli.conftest import Muster

SLEEPER = [sys.executable, "-c", "import signal; print('here', flush=True); signal.pause()"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal as s; s.signal(s.SIGTERM, s.SIG_IGN); print('here', flush=True)\nwhile True: s.pause()",
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def started(log: Path) -> Iterator[list[ProcessRecord]]:
    """Processes to be cleaned up."""
    records: list[ProcessRecord] = []
    yield records
    processes.kill(records)


def start(command: list[str], log: Path, started: list[ProcessRecord]) -> ProcessRecord:
    """Started, and far enough to have said so."""
    record = processes.start(command, log=log, environment=dict(os.environ))
    started.append(record)
    while not log.exists() or "here" not in log.read_text():
        assert processes.alive(record)
    return record


# --- processes -------------------------------------------------------------------------------------------------------


def test_a_started_process_runs_in_a_session_of_its_own(log: Path, started: list[ProcessRecord]) -> None:
    record = start(SLEEPER, log, started)
    assert processes.alive(record)
    assert os.getsid(record.pid) == record.pid


def test_a_fleet_is_stopped_also_where_nothing_can_be_written(
    tmp_path: Path, log: Path, started: list[ProcessRecord]
) -> None:
    record = start(SLEEPER, log, started)
    known = FleetState(clusters=[], nodes=[], preset="fast", processes={"nats": record})
    (tmp_path / ".up.json.new").mkdir()
    assert LocalFleet(FleetDir(tmp_path), known).down() == 1
    assert not processes.alive(record)


def test_another_process_of_the_same_number_is_not_ours(log: Path, started: list[ProcessRecord]) -> None:
    record = start(SLEEPER, log, started)
    stranger = ProcessRecord(record.pid, "another boot:1")
    assert not processes.alive(stranger)
    assert not processes.send(stranger, signal.SIGKILL)
    processes.stop([stranger])
    assert processes.alive(record)


def test_a_process_that_heeds_sigterm_is_stopped(log: Path, started: list[ProcessRecord]) -> None:
    record = start(SLEEPER, log, started)
    processes.stop([record])
    assert not processes.alive(record)


def test_a_process_that_does_not_heed_sigterm_is_killed(log: Path, started: list[ProcessRecord]) -> None:
    record = start(STUBBORN, log, started)
    processes.stop([record], within_s=0.2)
    assert not processes.alive(record)


def test_a_second_run_appends_to_the_log(log: Path, started: list[ProcessRecord]) -> None:
    command = [sys.executable, "-c", "import sys; print('here'); print('and there', file=sys.stderr)"]
    for _ in range(2):
        record = processes.start(command, log=log, environment=dict(os.environ))
        assert processes.wait_ended([record], 30.0)
    assert sorted(log.read_text().split("\n")) == ["", "and there", "and there", "here", "here"]
    assert log.stat().st_mode & 0o777 == 0o600


def test_nobody_is_not_alive() -> None:
    assert not processes.alive(None)


# --- state -----------------------------------------------------------------------------------------------------------


def fleet_state() -> FleetState:
    listening = ["nats", "server", "apiserver/c-1", "agent/c-1", "kubelets/c-1"]
    given = {role: 20_000 + index for index, role in enumerate(listening)}
    return FleetState(clusters=["c-1"], nodes=["2xA100-80:8"], preset="demo", ports=given)


def test_state_comes_back_as_it_was_saved_and_only_for_its_owner(tmp_path: Path) -> None:
    folder, saved = FleetDir(tmp_path), fleet_state()
    saved.processes["nats"] = ProcessRecord(7, "boot:1")
    state.save(folder, saved)
    assert state.load(folder) == saved
    assert folder.up.stat().st_mode & 0o777 == 0o600


def test_a_folder_without_a_fleet_has_no_state(tmp_path: Path) -> None:
    assert state.load(FleetDir(tmp_path)) is None


def test_two_owners_of_one_folder_are_refused(tmp_path: Path) -> None:
    folder = FleetDir(tmp_path)
    with state.locked(folder), pytest.raises(CliError) as caught, state.locked(folder):
        pass
    assert caught.value.code is ExitCode.REFUSED
    with state.locked(folder):
        pass


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ('{"principals": [{"name": "operator", "token": "t"}]}', "t"),
        ('{"principals": [{"name": "other", "token": "t"}]}', None),
        ('{"principals": [{"name": "operator", "token_sha256": "ab"}]}', None),
        (None, None),
    ],
)
def test_the_operators_token(tmp_path: Path, text: str | None, token: str | None) -> None:
    path = tmp_path / "tokens.json"
    if text is not None:
        path.write_text(text)
    assert state.token_of(path, "operator") == token


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_broken_token_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(text)
    with pytest.raises(CliError, match="is not a token file"):
        state.token_of(path, "operator")


# --- the broker ------------------------------------------------------------------------------------------------------


def test_a_named_broker_wins(tmp_path: Path) -> None:
    mine = tmp_path / "my-nats"
    mine.write_text("")
    mine.chmod(0o700)
    assert nats.binary({"MUSTER_NATS_SERVER_BIN": str(mine)}) == mine


def test_a_named_broker_that_is_not_there_is_an_error_and_no_other_is_taken() -> None:
    with pytest.raises(CliError, match="MUSTER_NATS_SERVER_BIN=/nowhere is not an executable file"):
        nats.binary({"MUSTER_NATS_SERVER_BIN": "/nowhere"})


def test_the_installed_broker_is_found_without_a_path() -> None:
    assert nats.binary({"PATH": ""}).name == "nats-server"


def test_each_role_may_use_its_own_subjects_only() -> None:
    users = json.loads(nats.configuration(4222, {"server": "US", "c-1": "U1"}))["authorization"]["users"]
    assert users[0] == {
        "nkey": "U1",
        "permissions": {
            "publish": {
                "allow": [
                    "muster.v1.c-1.report",
                    "muster.v1.c-1.event",
                    "muster.v1.c-1.desired",
                    "muster.v1.c-1.spec",
                    "muster.v1.c-1.lease",
                    "muster.v1.c-1.verdict",
                ]
            },
            "subscribe": {"allow": ["muster.v1.c-1.doorbell", "_INBOX.c-1.>"]},
        },
    }
    assert [user["nkey"] for user in users] == ["U1", "US"]


def test_the_broker_listens_on_loopback_only() -> None:
    assert json.loads(nats.configuration(4222, {}))["listen"] == "127.0.0.1:4222"


def test_keys_are_fresh_and_can_be_read_again_and_do_not_show_their_seed() -> None:
    one, other = new_bus_key(), new_bus_key()
    assert one.public != other.public
    assert bus_key_of(one.seed + "\n") == one
    assert one.seed not in repr(one)


# --- commands and ports ----------------------------------------------------------------------------------------------


def test_roles_start_in_the_order_in_which_they_need_one_another() -> None:
    shape = FleetState(clusters=["c-1", "c-2"], nodes=["a", "b"], preset="fast")
    assert commands.roles(shape) == [
        *("nats", "server", "apiserver/c-1", "apiserver/c-2"),
        *("agent/c-1", "agent/c-2", "kubelets/c-1", "kubelets/c-2"),
    ]


def test_every_port_is_told_to_the_role_that_listens_there(tmp_path: Path) -> None:
    shape = fleet_state()
    for role in commands.roles(shape):
        if role != "nats":  # by its configuration file
            told = " ".join(commands.command(FleetDir(tmp_path), shape, role, {}))
            assert str(shape.ports[role]) in told


def test_secrets_are_never_on_a_command_line(tmp_path: Path) -> None:
    folder = FleetDir(tmp_path)
    folder.make()
    folder.seed("c-1").write_text("SEED")
    folder.token("agent-c-1").write_text("TOKEN")
    told = " ".join(commands.command(folder, fleet_state(), "agent/c-1", {}))
    assert "SEED" not in told
    assert "TOKEN" not in told


def test_a_chosen_port_is_free_not_taken_and_never_one_for_outgoing_connections() -> None:
    port = ports.PortKeeper().choose(set(range(ports.LOWEST, 31_000)))
    assert 31_000 <= port < 32_000
    assert ports.free(port)
    assert not ports.listening(port)


def test_a_chosen_port_is_kept_from_others_who_choose_but_not_from_its_listener() -> None:
    first, other = ports.PortKeeper(), ports.PortKeeper()
    port = first.choose(set())
    all_others = set(range(ports.LOWEST, ports.HIGHEST)) - {port}
    with pytest.raises(CliError, match="no free port"):
        other.choose(all_others)
    with socket.create_server((ports.HOST, port)):
        assert ports.listening(port)
        first.let_go(port)
        assert ports.listening(port)
    first.let_go(port)
    assert [ports.PortKeeper().choose(all_others) for _ in range(2)] == [port, port]  # let go of, and forgotten


def test_our_programs_are_those_of_this_installation() -> None:
    assert Path(commands.program("muster-server")).parent == Path(sys.executable).parent
    with pytest.raises(CliError, match="muster-nothing is not installed"):
        commands.program("muster-nothing")


# --- clusters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "counts"),
    [
        (ClusterStatus(state="Active", silence_s=1.9), True),
        (ClusterStatus(state="Active", silence_s=2.0), False),
        (ClusterStatus(state="Active", silence_s=None), False),
        (ClusterStatus(state="Silent", silence_s=0.1), False),
        (ClusterStatus(state="Fenced", silence_s=0.1), False),
    ],
)
def test_a_cluster_is_up_once_its_new_agent_was_heard(status: ClusterStatus, counts: bool) -> None:
    assert heard_as_active(status, within_s=2.0) is counts


@pytest.mark.parametrize("again", [(), ("--nodes", "1xA100-80:8")])
def test_a_fleet_is_not_made_of_nodes_that_cannot_be_read(
    muster: Muster, tmp_path: Path, again: tuple[str, ...]
) -> None:
    shown = muster("up", "--dir", str(tmp_path), "--nodes", "eight", *again, "--clusters", "2" if again else "1")
    assert (shown.code, shown.err.splitlines()[0]) == (
        2,
        "error: node specification 'eight': want COUNTxPRODUCT:GPUS[,option=value...], as in \"64xA100-80:8,clique=4\"",
    )
    assert not (tmp_path / "up.json").exists()
