"""A real `muster-server` on a SQLite journal, for tests: started, killed and started again on the same folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

START_S: Final = 180.0


@dataclass(slots=True)
class ServerProcess:
    root: Path
    preset: str = "demo"
    store: str = ""
    hidden: tuple[str, ...] = ()  # variables that it must do without
    process: subprocess.Popen[bytes] | None = None
    port: int = 0
    tokens: dict[str, str] = field(default_factory=dict)

    def init(self, *clusters: str) -> None:
        run = ["-m", "federation.server.main", "init", "--dir", str(self.root), "--clusters", ",".join(clusters)]
        subprocess.run([sys.executable, *run], check=True, capture_output=True)
        principals = json.loads((self.root / "tokens.json").read_text())["principals"]
        self.tokens = {entry["name"]: entry["token"] for entry in principals}

    def start(self) -> None:
        """Serving when this returns."""
        ports = self.root / "ports.json"
        ports.unlink(missing_ok=True)
        command = [sys.executable, "-m", "federation.server.main", "--dir", str(self.root), "--preset", self.preset]
        command += ["--store", self.store] if self.store else []
        environment = {name: value for name, value in os.environ.items() if name not in self.hidden}
        with (self.root / "server.log").open("ab") as log:
            command += ["--ports-file", str(ports)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s:
            if self.process.poll() is not None:
                raise AssertionError(self.log())
            if ports.exists():
                self.port = json.loads(ports.read_text())["http"]
                if self._ready():
                    return
            time.sleep(0.02)
        self.kill()
        raise AssertionError(f"not ready in time: {self.log()}")

    def _ready(self) -> bool:
        try:
            answer = httpx.get(f"{self.url}/readyz", trust_env=False)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200 and answer.json()["role"] == "leading"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, principal: str = "operator") -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.tokens[principal]}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=30)

    def log(self) -> str:
        return (self.root / "server.log").read_text()

    def kill(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Exit code after SIGTERM."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout=20)


def gang(name: str, *, pods: int = 2, gpus: int = 8, **more: Any) -> dict[str, Any]:
    """A small PodGroup as people write it."""
    resources = {"limits": {"nvidia.com/gpu": gpus}}
    template = {"spec": {"containers": [{"name": "main", "image": "train", "resources": resources}]}}
    return {"name": name, "roles": [{"count": pods, "template": template}], **more}
