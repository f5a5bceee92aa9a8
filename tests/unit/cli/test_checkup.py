"""`doctor`: what it finds, and what it says to do."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from federation.cli import checkup
from federation.cli.checkup import Finding, Level
from federation.cli.commands.doctor import text_of
from federation.cli.local import state
from federation.cli.local.state import FleetDir, FleetState
from muster.results import ClusterStatus, ClusterView, NamedMetadata
from tests.unit.cli.conftest import Muster
from tests.unit.cli.stub import Stub


@pytest.mark.parametrize(
    ("said", "sound"),
    [
        ("nats-server: v2.15.1", True),
        ("nats-server: v2.14.0", True),
        ("nats-server: v2.13.9", False),
        ("nats-server: v2.12.7", True),
        ("nats-server: v2.12.6", False),
        ("nats-server: v2.11.16", True),
        ("nats-server: v2.10.99", False),
        ("command not found", False),
    ],
)
def test_a_broker_without_the_repairs_is_found_out(said: str, sound: bool) -> None:
    assert checkup.broker_is_sound(checkup.broker_version(said)) == sound


def test_this_installation_is_well() -> None:
    found = {finding.check: finding.level for finding in checkup.installation({})}
    assert found == dict.fromkeys(
        ["python", "version", "packages", "muster-server", "muster-agent", "muster-simkube", "nats-server"], Level.OK
    )


def test_a_folder_without_a_fleet_is_no_fault(tmp_path: Path) -> None:
    (finding,) = checkup.local_fleet(tmp_path)
    assert finding == Finding("fleet", Level.OK, f"none in {tmp_path}; `muster up` starts one")


def test_an_unreadable_state_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "up.json").write_text("{")
    (finding,) = checkup.local_fleet(tmp_path)
    assert (finding.level, finding.remedy) == (Level.FAIL, "move it away, then `muster up` again")


def test_a_stopped_fleet_and_open_secrets_are_told(tmp_path: Path) -> None:
    folder = FleetDir(tmp_path)
    folder.make()
    state.save(folder, FleetState(clusters=["c-1"], nodes=["1xA100-80:8"], preset="fast"))
    folder.tokens.write_text("{}")
    folder.tokens.chmod(0o644)
    found = {finding.check: finding for finding in checkup.local_fleet(tmp_path)}
    assert found["secrets"] == Finding(
        "secrets", Level.FAIL, f"{folder.tokens} can be read by others", f"chmod 600 {folder.tokens}"
    )
    assert (found["agent/c-1"].level, found["agent/c-1"].detail) == (Level.WARN, "does not run")


def test_a_stalled_store_and_a_lost_bus_are_told() -> None:
    readiness = {
        "name": "s-1",
        "role": "leading",
        "term": 3,
        "ready": True,
        "stalled": True,
        "position": 8,
        "bus": False,
    }
    levels = {finding.check: finding.level for finding in checkup.server(readiness)}
    assert levels == {"server": Level.OK, "store": Level.FAIL, "bus": Level.WARN}


@pytest.mark.parametrize(
    ("status", "level"),
    [
        (ClusterStatus(state="Active", report_age_s=1.0), Level.OK),
        (ClusterStatus(state="Active", report_age_s=31.0), Level.FAIL),
        (ClusterStatus(state="Silent", report_age_s=1.0), Level.FAIL),
        (ClusterStatus(state="Joining"), Level.FAIL),
    ],
    ids=["well", "an old report", "silent", "never heard of"],
)
def test_an_agent_is_well_when_it_is_heard_and_active(status: ClusterStatus, level: Level) -> None:
    (finding,) = checkup.clusters([ClusterView(metadata=NamedMetadata(name="c-1"), status=status)])
    assert (finding.check, finding.level) == ("cluster/c-1", level)


def test_what_to_do_stands_below_what_is_wrong() -> None:
    findings = [Finding("a", Level.OK, "fine"), Finding("longer", Level.FAIL, "broken", "mend it")]
    assert text_of(findings) == ("CHECK    IS     DETAIL\na        ok     fine\nlonger   fail   broken\n    mend it\n")


def test_doctor_exits_with_1_if_something_fails(muster: Muster, stub: Stub) -> None:
    ready = {"name": "s-1", "role": "leading", "term": 1, "ready": True, "stalled": False, "position": 9, "bus": True}
    stub.answers["GET", "/readyz"] = (200, ready)
    shown = muster("doctor", "-o", "json")
    found = {item["check"]: item["level"] for item in json.loads(shown.out)["items"]}
    assert (shown.code, shown.err) == (1, "")
    assert (found["server"], found["cluster/c-1"], found["cluster/c-2"]) == ("ok", "ok", "fail")
    assert sys.executable in muster("doctor").out


def test_doctor_without_a_server_says_how_to_get_one(muster: Muster, tmp_path: Path) -> None:
    shown = muster("doctor", "--dir", str(tmp_path))
    assert shown.code == 0
    assert "start a fleet here with `muster up`" in shown.out
