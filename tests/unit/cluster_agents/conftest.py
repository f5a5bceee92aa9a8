"""A GPU driver's library, built once where a test asks for it, and what it answers, anew for every test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cluster_agents.gpu.stub import Stub, build


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("old-nvml"), "-DOLD")


@pytest.fixture
def stub(library: Path, tmp_path: Path) -> Stub:
    """Two GPUs that are well."""
    found = Stub(library, tmp_path / "answers")
    found.set(gpus=2)
    return found
