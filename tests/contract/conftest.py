"""Fixtures of the contract suites.

`case` is one namespace of an API server, once in the core and once over HTTP; `servers` are real store servers.
"""

from collections.abc import Iterator
from itertools import count

import pytest

from tests.contract.kube_api import Case, CoreApi, HttpApi, HttpServer, plain
from tests.servers.fixtures import servers

__all__ = ["servers"]

_namespaces = count(1)


@pytest.fixture(scope="module")
def http_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServer]:
    server = HttpServer(tmp_path_factory.mktemp("simkube"))
    yield server
    server.close()


@pytest.fixture(params=["core", "http"])
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    if request.param == "core":
        yield Case(CoreApi())
        return
    server: HttpServer = request.getfixturevalue("http_server")
    kube = HttpApi(plain(server.port), f"case-{next(_namespaces)}")
    yield Case(kube)
    kube.close()
