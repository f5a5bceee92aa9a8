"""Fixtures with real processes, each of which stops what it started, by id; and how the lane is shared out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.integration.server_process import ServerProcess

APART: Final = (
    "test_demo",
    "test_world",
    "test_survival",
    "test_simulate_quality",
    "test_rolling_upgrade",
    "test_restore",
    "test_bench",
    "test_parts_of_gpus",
    "test_gpu_health",
    "test_taped_worlds",
    "test_disk_faults",
    "test_migrate",
    "test_simkube_processes",
    "test_bus",
)
"""Modules in which every test has all it needs to itself; the longest first, so that none is left for the end."""


class ByFleet(LoadScopeScheduling):
    """All other modules stay together: their tests share a fleet, and many tell its life in order. (The group marks of
    xdist 3.8 do not reach its scheduler under pytest 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return nodeid if Path(path).stem in APART else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFleet:
    """How `-n` shares out the lane."""
    return ByFleet(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In the order of `APART`, then the rest; within a module as it stands there."""
    rank = {name: number for number, name in enumerate(APART)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(APART)))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for a module; tests in it use names of their own."""
    found = ServerProcess(tmp_path_factory.mktemp("server"))
    found.init("c-1", "c-2")
    found.start()
    yield found
    found.stop()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that the test may kill."""
    found = ServerProcess(tmp_path)
    found.init("c-1")
    found.start()
    yield found
    found.stop()
