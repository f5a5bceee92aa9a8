"""A simulated member cluster as real processes, for tests: an API server and kubelets that are killed apart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import msgspec

from cluster_agents.simkube.kubelet_main import RUN_LOG_NAME
from cluster_agents.simkube.runlog import RunLogEntry, decode_lines
from federation.protocol.messages import GuardAnswer, GuardAsk
from tests.contract.kube_api import HttpApi, plain

START_S: Final = 30.0
POLL_S: Final = 0.02


def until(holds: Callable[[], Any], what: str) -> Any:
    """The first true answer of `holds`; fails after START_S."""
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s:
        with suppress(OSError):
            answer = holds()
            if answer:
                return answer
        time.sleep(POLL_S)
    raise AssertionError(f"never came true: {what}")


@dataclass(slots=True)
class SimCluster:
    """`start` both processes; `kill` either; `start` that one again on the same port and folder."""

    root: Path
    name: str = "c-1"
    nodes: str = "2xA100-80:8,clique=2"
    guard_url: str | None = None
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    port: int = 0
    admin_port: int = 0

    def start(self, *roles: str) -> None:
        """The named roles (both by default) are serving when this returns."""
        for role in roles or ("apiserver", "kubelets"):
            ports = self._spawn(role)
            if role == "apiserver":
                self.port = ports["api"]
            else:
                self.admin_port = ports["admin"]

    def _spawn(self, role: str) -> dict[str, int]:
        file = self.root / f"{role}.json"
        file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "cluster_agents.simkube.main", role, "--name", self.name]
        command += ["--dir", str(self.root), "--ports-file", str(file)]
        if role == "apiserver":
            command += ["--port", str(self.port), "--nodes", self.nodes]
        else:
            command += ["--api", f"http://127.0.0.1:{self.port}", "--start-delay-s", "0", "--stop-delay-s", "0"]
            command += ["--guard-renewal-s", "0.2"]
            if self.guard_url is not None:
                command += ["--guard-url", self.guard_url]
        with (self.root / f"{role}.log").open("ab") as log:
            self.processes[role] = subprocess.Popen(command, stdout=log, stderr=log)
        until(file.exists, f"{role} listening; its log: {self.log(role)}")
        found: dict[str, int] = json.loads(file.read_text())
        return found

    def kill(self, role: str) -> None:
        """`kill -9`."""
        process = self.processes.pop(role)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """Both, politely."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(START_S)

    def api(self, namespace: str = "default") -> HttpApi:
        """A fresh connection."""
        return HttpApi(plain(self.port), namespace)

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """One request over a connection of its own."""
        connection = self.api()
        try:
            return connection.request(method, path, body=body)
        finally:
            connection.close()

    def node_act(self, node: str, act: str, **more: Any) -> None:
        """One of the kubelets' own switches."""
        connection = HttpApi(plain(self.admin_port), "default")
        try:
            status, body = connection.request("POST", "/simkube/nodes", body={"node": node, "act": act, **more})
            assert status == 200, body
        finally:
            connection.close()

    def run_log(self) -> list[RunLogEntry]:
        """What the kubelets have written so far."""
        return decode_lines((self.root / RUN_LOG_NAME).read_bytes())

    def log(self, role: str) -> str:
        """The role's output."""
        return (self.root / f"{role}.log").read_text()


class FakeAgent:
    """Answers guards over HTTP as an agent would: `lease_until_s` on the monotonic clock, None for no answer."""

    def __init__(self) -> None:
        self.lease_until_s: float | None = None
        self.hold: tuple[str, ...] = ()
        self.asks: list[GuardAsk] = []
        agent = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                ask = msgspec.msgpack.decode(data, type=GuardAsk)
                agent.asks.append(ask)
                if agent.lease_until_s is None:
                    self.send_error(503)
                    return
                remaining_s = agent.lease_until_s - time.monotonic()
                answer = GuardAnswer(ask_id=ask.ask_id, remaining_s=remaining_s, hold=agent.hold)
                body = msgspec.msgpack.encode(answer)
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base class names it
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def alive(pid: int) -> bool:
    """Does a process of this id run?"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
