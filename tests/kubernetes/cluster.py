"""A real Kubernetes cluster for tests: etcd, kube-apiserver and kube-controller-manager as processes on loopback.

Its nodes are simkube's kubelets, which start no containers; all else is Kubernetes' own: validation, defaults,
admission, RBAC, watches, the Job controller and the garbage collectors.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from tests.servers.kinds import running_etcd
from tests.servers.process import ROOT, built, free_port, running

ADMIN: Final = "admin"  # may do everything
AUDIT: Final = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}
PROGRESS: Final = ("--watch-progress-notify-interval", "1s")  # which bookmarks follow; installers set 5 s
READY_WITHIN_S: Final = 180.0
LOOK_EVERY_S: Final = 0.1
CALL_TIMEOUT_S: Final = 30.0
JSON: Final = "application/json"
APPLY: Final = "application/apply-patch+yaml"  # JSON is YAML


@dataclass(slots=True)
class Cluster:
    """Where it is, and how to log in. `token` is the administrator's."""

    folder: Path
    port: int
    etcd_port: int
    token: str
    _api: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def authority(self) -> Path:
        return self.folder / "ca.pem"

    def connection(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.authority))
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=CALL_TIMEOUT_S, context=context)

    def call(self, method: str, path: str, body: Any = None, *, content_type: str = JSON) -> tuple[int, dict[str, Any]]:
        """One request of the administrator; status and JSON body."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content_type}
        with contextlib.closing(self.connection()) as connection:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            data = response.read()
        return response.status, json.loads(data) if data.startswith(b"{") else {"text": data.decode()}

    def apply(self, path: Path) -> None:
        """Create or change what stands in a file, as `kubectl apply --server-side` does."""
        for one in yaml.safe_load_all(path.read_text()):
            status, body = self.call("PATCH", f"{_path(one)}?fieldManager=tests&force=true", one, content_type=APPLY)
            assert status in {200, 201}, body

    def account_token(self, namespace: str, name: str) -> str:
        """A fresh token of a service account."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        status, body = self.call("POST", path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"})
        assert status == 201, body
        return str(body["status"]["token"])

    def kubeconfig(self, name: str, token: str) -> Path:
        """A file by which who has `token` logs in."""
        path = self.folder / f"{name}.kubeconfig"
        cluster = {"server": self.url, "certificate-authority": str(self.authority)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def audit(self, user: str) -> list[dict[str, Any]]:
        """What `user` has asked for and was answered, in order."""
        lines = (self.folder / "audit.log").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        return [one for one in events if one["user"].get("username") == user and one["stage"] == "ResponseComplete"]

    def forget_history(self) -> None:
        """Compact what is stored. The API server, which remembers a while by itself, is started again."""
        revision = self._etcd("put", {"key": "AA==", "value": "AA=="})["header"]["revision"]
        self._etcd("compaction", {"revision": revision, "physical": True})
        self.stop_api()
        self.start_api()

    def _etcd(self, call: str, body: dict[str, Any]) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.etcd_port}/v3/kv/{call}"
        with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=CALL_TIMEOUT_S) as response:
            answer: dict[str, Any] = json.loads(response.read())
        return answer

    def start_api(self) -> None:
        self._processes.append(self._api.enter_context(_api_server(self)))
        self._wait_until_ready()

    def stop_api(self) -> None:
        """As a crash would: told to stop, it waits for all who watch."""
        for process in self._processes:
            process.kill()
        self._processes.clear()
        self._api.close()

    def _wait_until_ready(self) -> None:
        deadline_s = time.monotonic() + READY_WITHIN_S
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.call("GET", "/readyz")[0] == 200:
                    return
            assert time.monotonic() < deadline_s, "the API server is not ready"
            time.sleep(LOOK_EVERY_S)


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster without nodes, from when it is ready until the block ends."""
    found = Cluster(folder, free_port(), free_port(), secrets.token_hex(16))
    with contextlib.ExitStack() as stack:
        _make_certificates(folder)
        (folder / "tokens.csv").write_text(f"{found.token},{ADMIN},{ADMIN},system:masters\n")
        (folder / "audit.yaml").write_text(yaml.safe_dump(AUDIT))
        etcd_folder = folder / "etcd"
        etcd_folder.mkdir()
        stack.enter_context(running_etcd(etcd_folder, found.etcd_port, options=PROGRESS))
        stack.callback(found.stop_api)
        found.start_api()
        manager_folder = folder / "controller-manager"
        manager_folder.mkdir()
        stack.enter_context(_controllers(found, manager_folder))
        yield found


def _make_certificates(folder: Path) -> None:
    script = ROOT / "tests" / "servers" / "certificates.py"
    subprocess.run((built("venv", "bin", "python"), str(script), str(folder), "service-accounts"), check=True)


def _api_server(found: Cluster) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    folder = found.folder
    argv = (
        built("kubernetes", "kube-apiserver"),
        *("--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1", "--secure-port", str(found.port)),
        *("--etcd-servers", f"http://127.0.0.1:{found.etcd_port}", "--etcd-compaction-interval", "0"),
        *("--tls-cert-file", str(folder / "server.pem"), "--tls-private-key-file", str(folder / "server.key")),
        *("--token-auth-file", str(folder / "tokens.csv"), "--authorization-mode", "RBAC"),
        *("--service-account-issuer", found.url, "--service-account-key-file", str(folder / "client.pem")),
        *("--service-account-signing-key-file", str(folder / "client.key")),
        *("--service-cluster-ip-range", "10.0.0.0/24"),
        *("--audit-policy-file", str(folder / "audit.yaml"), "--audit-log-path", str(folder / "audit.log")),
        *("--endpoint-reconciler-type", "none", "--profiling=false"),
    )
    return running(argv, folder, answers_at=f"{found.url}/readyz", authority=found.authority)


def _controllers(found: Cluster, folder: Path) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    port = free_port()
    argv = (
        built("kubernetes", "kube-controller-manager"),
        *("--kubeconfig", str(found.kubeconfig(ADMIN, found.token)), "--leader-elect=false", "--profiling=false"),
        *("--bind-address", "127.0.0.1", "--secure-port", str(port)),
        *("--tls-cert-file", str(found.folder / "server.pem")),
        *("--tls-private-key-file", str(found.folder / "server.key")),
        *("--service-account-private-key-file", str(found.folder / "client.key")),
        *("--root-ca-file", str(found.authority)),
    )
    return running(argv, folder, answers_at=f"https://127.0.0.1:{port}/healthz", authority=found.authority)


def fleet_nodes(
    found: Cluster, folder: Path, nodes: str, *options: str
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """simkube's kubelets as this cluster's nodes."""
    port = free_port()
    words = ("kubelets", "--dir", str(folder), "--api", found.url, "--token-file", str(_token_file(found, folder)))
    admin = ("--admin-port", str(port))
    return _nodes(found, folder, port, "cluster_agents.simkube.main", *words, *admin, "--nodes", nodes, *options)


def one_node(found: Cluster, folder: Path) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """The node of the conformance cases."""
    port = free_port()
    words = (str(folder), found.url, str(_token_file(found, folder)), str(port))
    return _nodes(found, folder, port, "tests.kubernetes.node", *words)


def _token_file(found: Cluster, folder: Path) -> Path:
    path = folder / "token"
    path.write_text(found.token)
    return path


def _nodes(
    found: Cluster, folder: Path, port: int, module: str, *words: str
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    environment = {"SSL_CERT_FILE": str(found.authority), "PYTHONPATH": str(ROOT)}
    argv = (sys.executable, "-m", module, *words)
    return running(argv, folder, answers_at=f"http://127.0.0.1:{port}/healthz", environment=environment)


_PLURALS: Final = {
    "Namespace": "namespaces",
    "ServiceAccount": "serviceaccounts",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "Service": "services",
    "DaemonSet": "daemonsets",
    "FlowSchema": "flowschemas",
}


def _path(one: dict[str, Any]) -> str:
    version, metadata = one["apiVersion"], one["metadata"]
    base = f"/api/{version}" if "/" not in version else f"/apis/{version}"
    inside = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    return f"{base}{inside}/{_PLURALS[one['kind']]}/{metadata['name']}"
