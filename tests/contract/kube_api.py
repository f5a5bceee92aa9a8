"""How the conformance cases talk to an API server: one small transport, whatever is behind it.

Behind it are simkube's pure core under virtual time, simkube over HTTP, and a real kube-apiserver (`tests/kubernetes`).
No case may know which one it talks to.
"""

import asyncio
import http.client
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from aiohttp import web

from cluster_agents.simkube.apiserver import ApiRequest, ApiResponse, open_watch
from cluster_agents.simkube.apiserver.types import JSON
from cluster_agents.simkube.kubelet import NodeShape, Timing
from cluster_agents.simkube.kubelet_main import KubeletShell
from cluster_agents.simkube.server import ApiShell
from tests.unit.simkube.mini import MiniCluster

JsonObject = dict[str, Any]
Query = Mapping[str, str]

NODE = NodeShape("node-1", cpu_milli=64_000, memory_mib=65_536, gpus=4)
MERGE = "application/merge-patch+json"
FINALIZER = "muster.io/outcome"
WAIT_S = 30  # how long a case waits for a kubelet or controller before it fails


class KubeApi(Protocol):
    """One API server with the controllers of Kubernetes and a kubelet for `NODE`; `namespace` is the case's own."""

    namespace: str

    def request(
        self, method: str, path: str, query: Query | None = None, body: Any = None, content_type: str = JSON
    ) -> tuple[int, JsonObject]:
        """One request; status and JSON body."""
        ...

    def watch(self, path: str, query: Query) -> Iterator[JsonObject]:
        """Watch events until the server ends the watch; closing the iterator ends it too."""
        ...

    def forget_history(self) -> None:
        """Compact: older resourceVersions can no longer be watched."""
        ...


class CoreApi:
    """The pure core. Waiting for an event lets virtual time pass."""

    def __init__(self) -> None:
        self.namespace = "case"
        self._cluster = MiniCluster([NODE], Timing(guard_renewal_s=None))

    def request(
        self, method: str, path: str, query: Query | None = None, body: Any = None, content_type: str = JSON
    ) -> tuple[int, JsonObject]:
        response = self._cluster.request(method, path, body, query, content_type)
        return response.status, response.body

    def watch(self, path: str, query: Query) -> Iterator[JsonObject]:
        watch = open_watch(self._cluster.api, ApiRequest("GET", path, query), self._cluster.now_s)
        if isinstance(watch, ApiResponse):
            yield {"type": "ERROR", "object": watch.body}
            return
        while not watch.ended:
            events = watch.poll(self._cluster.now_s)
            yield from ({"type": event.kind, "object": event.object} for event in events)
            if not events and not watch.ended:
                wakes = [watch.wake_at_s, self._cluster.kubelets.wake_at_s, self._cluster.api.wake_at_s]
                at_s = min(wake for wake in wakes if wake is not None)
                self._cluster.advance(max(0.0, at_s - self._cluster.now_s))

    def forget_history(self) -> None:
        self._cluster.api.compact()


class HttpServer:
    """simkube's two shells on one event loop in a thread, for as long as a test module needs them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self.port = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        self._ready.wait(WAIT_S)
        assert self.port

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        api = ApiShell("c-1", folder=self._folder, job_back_off_s=0.05)
        runner = web.AppRunner(api.app(), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        timing = Timing(start_delay_s=(0.0, 0.0), stop_delay_s=(0.0, 0.0), guard_renewal_s=None)
        url = f"http://127.0.0.1:{self.port}"
        kubelets = KubeletShell("c-1", [NODE], timing, api_url=url, guard_url=None, folder=self._folder)
        running = asyncio.create_task(kubelets.run())
        self._ready.set()
        await self._stop.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await runner.cleanup()
        api.close()

    def close(self) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(WAIT_S)


def plain(port: int) -> Callable[[], http.client.HTTPConnection]:
    """Connections to a port of this machine, without TLS."""
    return lambda: http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)


class HttpApi:
    """An API server over HTTP, reached with the standard library alone."""

    def __init__(
        self,
        connect: Callable[[], http.client.HTTPConnection],
        namespace: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._connect = connect
        self._headers = dict(headers or {})
        self.namespace = namespace
        self._connection = connect()

    def request(
        self, method: str, path: str, query: Query | None = None, body: Any = None, content_type: str = JSON
    ) -> tuple[int, JsonObject]:
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type, **self._headers}
        self._connection.request(method, _target(path, query or {}), data, headers)
        response = self._connection.getresponse()
        return response.status, json.loads(response.read())

    def watch(self, path: str, query: Query) -> Iterator[JsonObject]:
        connection = self._connect()
        try:
            connection.request("GET", _target(path, {**query, "watch": "true"}), headers=self._headers)
            with connection.getresponse() as response:
                if response.status != 200:
                    yield {"type": "ERROR", "object": json.loads(response.read())}
                    return
                while line := response.readline():
                    yield json.loads(line)
        finally:
            connection.close()

    def forget_history(self) -> None:
        self.request("POST", "/simkube/faults", body={"compact": True})

    def close(self) -> None:
        self._connection.close()


def _target(path: str, query: Query) -> str:
    return quote(path) + ("?" + urlencode(query) if query else "")


class Case:
    """The words the conformance cases are written in: one namespace of one API server."""

    def __init__(self, kube: KubeApi) -> None:
        self.kube = kube
        kube.request("POST", "/api/v1/namespaces", body={"metadata": {"name": kube.namespace}})
        self.pods = f"/api/v1/namespaces/{kube.namespace}/pods"
        self.jobs = f"/apis/batch/v1/namespaces/{kube.namespace}/jobs"
        self.configmaps = f"/api/v1/namespaces/{kube.namespace}/configmaps"
        self.leases = f"/apis/coordination.k8s.io/v1/namespaces/{kube.namespace}/leases"

    def create(self, path: str, body: JsonObject) -> JsonObject:
        """Create what must be accepted."""
        status, created = self.kube.request("POST", path, body=body)
        assert status == 201, created
        return created

    def bind(self, name: str, node: str = "node-1", **metadata: Any) -> tuple[int, JsonObject]:
        """Bind a pod; `metadata` goes into the Binding."""
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, **metadata},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        return self.kube.request("POST", f"{self.pods}/{name}/binding", body=binding)

    def get(self, name: str) -> JsonObject:
        """A pod that must exist."""
        status, found = self.kube.request("GET", f"{self.pods}/{name}")
        assert status == 200, found
        return found

    def version(self) -> str:
        """The newest resourceVersion."""
        _, listed = self.kube.request("GET", self.pods)
        return str(listed["metadata"]["resourceVersion"])

    def events(self, path: str, count: int, **query: str) -> list[JsonObject]:
        """The first `count` events of a watch."""
        stream = self.kube.watch(path, {"timeoutSeconds": str(WAIT_S), **query})
        try:
            return list(islice(stream, count))
        finally:
            stream.close()  # type: ignore[attr-defined]  # every transport's watch is a generator

    def wait(self, path: str, name: str, holds: Any) -> JsonObject:
        """The object as soon as `holds(object)`; None stands for an object that is gone."""
        only = {"fieldSelector": f"metadata.name={name}"}
        status, listed = self.kube.request("GET", path, only)
        assert status == 200, listed
        found = listed["items"][0] if listed["items"] else None
        if holds(found):
            return found or {}
        query = {**only, "resourceVersion": listed["metadata"]["resourceVersion"], "timeoutSeconds": str(WAIT_S)}
        stream = self.kube.watch(path, query)
        try:
            for event in stream:
                shown = None if event["type"] == "DELETED" else event["object"]
                if holds(shown):
                    return shown or {}
        finally:
            stream.close()  # type: ignore[attr-defined]  # every transport's watch is a generator
        raise AssertionError(f"{path}/{name} never came to the state waited for; last seen: {found}")


def pod(name: str, **fields: Any) -> JsonObject:
    """A pod nobody but us schedules. Keyword arguments: gates, finalizers, gpus, cpu, labels, annotations, run_s."""
    annotations = dict(fields.get("annotations") or {})
    if "run_s" in fields:
        annotations["simkube/run-seconds"] = str(fields["run_s"])
    limits = {"cpu": str(fields.get("cpu", 1)), "memory": "64Mi"}
    if "gpus" in fields:
        limits["nvidia.com/gpu"] = str(fields["gpus"])
    spec: JsonObject = {
        "schedulerName": "muster",
        "restartPolicy": "Never",
        "containers": [{"name": "main", "image": "train:1", "resources": {"limits": limits}}],
    }
    if fields.get("gates"):
        spec["schedulingGates"] = [{"name": gate} for gate in fields["gates"]]
    metadata: JsonObject = {"name": name, "labels": fields.get("labels") or {}, "annotations": annotations}
    if fields.get("finalizers"):
        metadata["finalizers"] = fields["finalizers"]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def job(name: str, pods: int, **spec: Any) -> JsonObject:
    template = {"spec": {**pod("x")["spec"], "restartPolicy": "Never"}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"parallelism": pods, "completions": pods, "template": template, **spec},
    }
