"""Three servers become new one by one: the old format until `store upgrade`, back before it, a clear refusal after it.

The old version is this one with `MUSTER_FORMAT_MAX=1`; the journal begins with groups that ended a day before, so that
the new format has something to write: the archive of groups.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import muster
from federation.cli.local import commands
from federation.cli.local.fleet import LocalFleet
from federation.cli.main import run
from federation.cli.session import World
from federation.core.admission import admit
from federation.core.events import SubmitGroup
from federation.core.records import AnyRecord, IntentSet, decode_record
from federation.core.state import State
from muster.retry import RetryRule
from placement.model import Position, group_uid
from storage.entry import position
from storage.open import open_store
from storage.reading import read_entries, read_root
from storage.root import FORMAT
from tests.integration.fleets import leader, until
from tests.integration.server_process import gang
from tests.unit.cli.journals import LINEAGE, write_journal
from tests.unit.federation.pump import pod_group

OLD: Final = {"MUSTER_FORMAT_MAX": "1"}
NEW: Final = {"MUSTER_FORMAT_MAX": str(FORMAT)}
ENDED: Final = 200  # one part of the archive, and some that wait for the next
DAY_AND_MORE_MS: Final = 25 * 3_600 * 1_000


def ended_yesterday() -> list[list[AnyRecord]]:
    """Groups `old-0` and so on: submitted in the first batch, cancelled in the second."""
    at_ms = time.time_ns() // 1_000_000 - DAY_AND_MORE_MS
    submitted: list[AnyRecord] = []
    for number in range(ENDED):
        request = SubmitGroup(pod_group(f"old-{number}"), f"submit-{number}", "sara")
        records = admit(State(LINEAGE), request, at_ms=at_ms)
        assert isinstance(records, tuple)
        submitted.extend(records)
    uids = [group_uid(State(LINEAGE).lineage, Position(position(2) + number)) for number in range(ENDED)]
    return [submitted, [IntentSet(actor="sara", at_ms=at_ms, uid=uid, intent="cancel") for uid in uids]]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[LocalFleet]:
    """Three servers of the old version on a journal that it wrote."""
    url = f"file://{tmp_path}/store"
    store = open_store(url)
    write_journal(store, ended_yesterday(), format_max=1)
    store.close()
    found = LocalFleet.make(
        tmp_path / "fleet", clusters=["c-1"], nodes=["4xA100-80:8"], preset="fast", replicas=3, store=url
    )
    found.environment = {**found.environment, **OLD}
    try:
        found.up()
        yield found
    finally:
        found.down()


def command(fleet: LocalFleet, *arguments: str) -> int:
    return run(arguments, World({"HOME": str(fleet.folder.root), "MUSTER_DIR": str(fleet.folder.root)}))


def restart(fleet: LocalFleet, role: str, version: dict[str, str]) -> None:
    """Stopped in good order and started as this version; it reads the journal to its end again."""
    fleet.stop(role)
    fleet.start(role, version)
    until(lambda: readiness(fleet, role).get("ready") is True, f"{role} does not come back")


def readiness(fleet: LocalFleet, role: str) -> dict[str, object]:
    try:
        with muster.Client(commands.url(fleet.state, role), fleet.token, retry=RetryRule(1)) as client:
            return dict(client.readiness())
    except muster.UnavailableError:
        return {}


def in_store(fleet: LocalFleet) -> tuple[int, set[str]]:
    """Format of the store, and kinds of records in it."""
    store = open_store(fleet.state.store)
    try:
        kinds = {
            type(decode_record(data, Position(entry.first_position + index))).__name__
            for entry in read_entries(store)
            for index, data in enumerate(entry.records)
        }
        return read_root(store).format, kinds
    finally:
        store.close()


def place(fleet: LocalFleet, name: str) -> None:
    with fleet.client(attempts_max=30) as client:
        client.submit(gang(name, pods=1, gpus=1))
        until(lambda: client.get_group(name).status.phase == "Running", f"{name} does not run")


def starts(fleet: LocalFleet, name: str) -> tuple[int, int]:
    """How many containers of the group have started and ended, by the kubelets' own log."""
    lines = (fleet.folder.cluster("c-1") / "runlog.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    events = [entry["event"] for entry in entries if entry.get("pod", "").rpartition("/")[2].startswith(f"{name}-")]
    return events.count("started"), events.count("ended")


def test_versions_change_one_by_one_and_back_until_the_format_is_raised(
    fleet: LocalFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = fleet.servers
    place(fleet, "steady")

    restart(fleet, first, NEW)
    restart(fleet, second, NEW)
    restart(fleet, second, OLD)  # back: nothing it cannot read was written
    place(fleet, "mixed")
    restart(fleet, second, NEW)
    assert command(fleet, "store", "upgrade", fleet.state.store) == 4
    assert f"server s-3 lives and reads formats up to 1, not {FORMAT}" in capsys.readouterr().err
    fleet.stop(third)
    until(lambda: fleet.leader() is not None, "no new server leads")
    place(fleet, "new-leader")  # and it leaves alone what it would archive
    restart(fleet, third, OLD)
    found, kinds = in_store(fleet)
    assert (found, "Archived" in kinds) == (1, False)
    restart(fleet, third, NEW)

    assert command(fleet, "store", "upgrade", fleet.state.store) == 0
    assert f"format 1 -> {FORMAT}" in capsys.readouterr().out
    for role in fleet.servers:
        until(lambda: readiness(fleet, role).get("format_written") == FORMAT, f"{role} does not notice")  # noqa: B023
    until(lambda: "Archived" in in_store(fleet)[1], "nothing is archived")

    assert command(fleet, "get", "podgroups", "--archived", "-o", "name") == 0
    assert set(capsys.readouterr().out.split()) == {f"podgroup/old-{number}" for number in range(ENDED)}
    assert command(fleet, "get", "podgroups", "old-7", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["status"]["phase"] == "Cancelled"

    fleet.stop(second)
    fleet.start(second, OLD)
    until(lambda: not fleet.alive(second), "the old version runs on a store it cannot read")
    last = fleet.folder.log(second).read_text().splitlines()[-1]
    assert last == f"muster-server: store: 'root' has format {FORMAT}; this version reads 1 and older: upgrade it"
    assert leader(fleet) in {first, third}
    place(fleet, "after")
    assert {name: starts(fleet, name) for name in ("steady", "mixed", "new-leader", "after")} == {
        "steady": (1, 0),
        "mixed": (1, 0),
        "new-leader": (1, 0),
        "after": (1, 0),
    }
