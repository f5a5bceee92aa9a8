"""A journal moved away under running servers: they acknowledge nothing more, and all they did is in the new store."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import muster
from federation.cli.local.commands import NATS
from federation.cli.local.fleet import LocalFleet
from federation.cli.main import run
from federation.cli.session import World
from muster.retry import RetryRule
from tests.integration.server_process import gang
from tests.integration.test_replicas import everything, until


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[LocalFleet]:
    """Two servers on a folder; no clusters run."""
    store = f"file://{tmp_path}/store"
    nodes = ["1xA100-80:8"]
    found = LocalFleet.make(tmp_path / "fleet", clusters=["c-1"], nodes=nodes, preset="fast", replicas=2, store=store)
    try:
        found.start_only([NATS, *found.servers])
        yield found
    finally:
        found.down()


def submit_until_refused(fleet: LocalFleet, acknowledged: list[str]) -> None:
    with muster.Client(fleet.server_url, fleet.token, retry=RetryRule(2)) as client:
        while True:
            name = f"g-{len(acknowledged)}"
            try:
                acknowledged.append(client.submit(gang(name, pods=1), request_id=name).uid)
            except muster.MusterError:
                return
            time.sleep(0.01)


def test_servers_that_still_run_stop_and_nothing_acknowledged_is_left_behind(fleet: LocalFleet, tmp_path: Path) -> None:
    acknowledged: list[str] = []
    target = f"file://{tmp_path}/new"
    submitter = threading.Thread(target=submit_until_refused, args=(fleet, acknowledged))
    submitter.start()
    until(lambda: len(acknowledged) > 20, "nothing is acknowledged")
    assert run(["store", "migrate", fleet.state.store, target], World({"HOME": str(tmp_path)})) == 0
    submitter.join()
    until(lambda: not any(fleet.alive(role) for role in fleet.servers), "a server goes on with the old store")
    for role in fleet.servers:
        assert (
            fleet.folder.log(role)
            .read_text()
            .splitlines()[-1]
            .startswith(f"muster-server: store: this store was moved to {target}")
        )
    fleet.state.store = target
    fleet.start_only(fleet.servers)
    with fleet.client(attempts_max=20) as client:
        assert set(acknowledged) <= set(everything(client))
