"""`kubernetes`: a real cluster for all tests of one process. `case`: one namespace of it, for the conformance cases."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from itertools import count

import pytest

from tests.contract.kube_api import WAIT_S, Case, HttpApi
from tests.kubernetes.cluster import LOOK_EVERY_S, Cluster, cluster, one_node

_namespaces = count(1)


class KubernetesApi(HttpApi):
    """One namespace of a real cluster, in which pods may be created."""

    def __init__(self, found: Cluster) -> None:
        super().__init__(found.connection, f"case-{next(_namespaces)}", {"Authorization": f"Bearer {found.token}"})
        self._cluster = found
        self.request("POST", "/api/v1/namespaces", body={"metadata": {"name": self.namespace}})
        self._wait_for_its_account()

    def _wait_for_its_account(self) -> None:
        """Pods are refused until a controller has made the account that they run under."""
        deadline_s = time.monotonic() + WAIT_S
        while self.request("GET", f"/api/v1/namespaces/{self.namespace}/serviceaccounts/default")[0] != 200:
            assert time.monotonic() < deadline_s, "no account for the namespace"
            time.sleep(LOOK_EVERY_S)

    def forget_history(self) -> None:
        self._connection.close()
        self._cluster.forget_history()


@pytest.fixture(scope="session")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("kubernetes")) as found:
        yield found


@pytest.fixture(scope="session")
def conformance_node(kubernetes: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with one_node(kubernetes, tmp_path_factory.mktemp("node")):
        yield


@pytest.fixture
def case(kubernetes: Cluster, conformance_node: None) -> Iterator[Case]:
    with contextlib.closing(KubernetesApi(kubernetes)) as kube:
        yield Case(kube)
