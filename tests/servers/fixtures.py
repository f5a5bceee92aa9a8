"""The fixture by which test folders get servers: `from tests.servers.fixtures import servers` in their conftest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.kinds import CREDENTIALS, Servers


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers for this process's tests, with the credentials they take in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        started = Servers(tmp_path_factory.mktemp("servers"))
        try:
            yield started
        finally:
            started.close()
