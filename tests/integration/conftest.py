"""Fixtures with real processes. Each stops what it started, by id."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.server_process import ServerProcess


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
