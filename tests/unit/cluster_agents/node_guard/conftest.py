"""Real processes, and a folder like /proc."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cluster_agents.node_guard.children import Children, Proc
from tests.unit.cluster_agents.node_guard.children import children as started


@pytest.fixture
def children() -> Iterator[Children]:
    with started() as found:
        yield found


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path / "proc")
