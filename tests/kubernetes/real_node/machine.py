"""A real node on this machine: containerd, a kubelet and our guard, as processes in one mount namespace of their own.

What they run lies below one control group, so that nothing is left behind when the node goes. Needs root.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Final

import yaml

from tests.integration.fleets import until
from tests.kubernetes.cluster import ADMIN, Cluster
from tests.kubernetes.real_node.image import NAME as IMAGE
from tests.kubernetes.real_node.image import write_image
from tests.servers.process import ROOT, built, end_with_parent, free_port, running, stop

GROUPS: Final = Path("/sys/fs/cgroup")
PRIVATE: Final = ("/var/lib/kubelet", "/var/log", "/run/containerd")  # written to by programs, whatever they are told
RUNC: Final = shutil.which("runc", path=f"{os.environ['PATH']}:/usr/sbin") or "runc"
CONFIG: Final = Path(__file__).with_name("containerd.toml")
LEAST: Final = ("setpriv", "--bounding-set=-all,+kill", "--no-new-privs")  # what examples/kubernetes/guard.yaml grants
GPUS: Final = 8
LABELS: Final = {
    "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB",
    "nvidia.com/gpu.count": str(GPUS),
    "nvidia.com/gpu.memory": "81920",
}
NETWORK: Final = """#!/bin/sh
# Pods of these tests speak to nobody.
case "$CNI_COMMAND" in
  VERSION) echo '{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}' ;;
  ADD) echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.88.0.2/32"}]}' ;;
esac
"""
NETWORK_CONFIG: Final = {"cniVersion": "1.0.0", "name": "none", "plugins": [{"type": "none"}]}
PREFIX: Final = "muster-node"
SYSTEM: Final = "system"  # control group of the runtime, and so of what stands between it and its containers
EMPTY_WITHIN_S: Final = 20.0  # of a control group whose processes were killed


@dataclass(slots=True)
class Machine:
    """A node that is up. `name` is the node's."""

    cluster: Cluster
    folder: Path
    name: str
    keeper: int  # whose mount namespace it is
    runtime: subprocess.Popen[bytes] | None = None
    guard: subprocess.Popen[bytes] | None = None
    health: int = 0  # port of the guard

    @property
    def group(self) -> str:
        return f"/{self.name}"

    def inside(self, *words: str) -> tuple[str, ...]:
        """The same command as a process of this node."""
        return ("nsenter", f"--mount=/proc/{self.keeper}/ns/mnt", f"--wd={self.folder}", *words)

    def start_runtime(self) -> None:
        """It listens, on return. Its control group is that of all that it starts beside containers."""
        path = f"{Path(built('node', 'containerd')).parent}:{os.environ['PATH']}"  # where its shim is
        joined = "; ".join(f"echo $$ > {base}{self.group}/{SYSTEM}/cgroup.procs" for base in _hierarchies())
        start = f"exec {built('node', 'containerd')} --config {self.folder}/containerd.toml"
        with (self.folder / "containerd.log").open("ab") as log:
            self.runtime = subprocess.Popen(
                self.inside("sh", "-c", f"({joined}) 2>/dev/null; {start}"),
                env={**os.environ, "PATH": path},
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=end_with_parent,  # noqa: PLW1509  one call into the kernel, no lock taken
            )
        until(lambda: _listens(self.folder / "containerd.sock"), "containerd does not listen")

    def kill_runtime(self) -> None:
        """Containers run on without it."""
        if self.runtime is not None:
            self.runtime.kill()
            self.runtime.wait()
            self.runtime = None

    def start_guard(self, agent: str, preset: str) -> None:
        """Asked before every start, on return."""
        self.health = self.health or free_port()
        module = ("-m", "cluster_agents.node_guard.main", "--node", self.name, "--agent", agent, "--preset", preset)
        places = ("--nri-socket", str(self.folder / "nri.sock"), "--state-dir", str(self.folder / "guard"))
        words = self.inside(*LEAST, sys.executable, *module, *places, "--listen", f"127.0.0.1:{self.health}")
        with (self.folder / "guard.log").open("ab") as log:
            self.guard = subprocess.Popen(
                words,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=end_with_parent,  # noqa: PLW1509
            )
        until(lambda: self.guard_state().get("registered"), "the runtime does not take the guard")

    def kill_guard(self) -> None:
        assert self.guard is not None
        self.guard.kill()
        self.guard.wait()
        self.guard = None

    def guard_state(self) -> dict[str, Any]:
        """What its health says; empty while it does not answer."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.health, timeout=5.0)) as connection:
            try:
                connection.request("GET", "/healthz")
                state: dict[str, Any] = json.loads(connection.getresponse().read())
            except OSError:
                return {}
        return state

    def running(self, group: str) -> list[str]:
        """By the kernel: of each process that runs in containers of this group, the token that it runs by."""
        found = [_environment(pid) for pid in _pids(f"{self.name}/kubepods")]
        return [one.get("MUSTER_FENCE_TOKEN", "") for one in found if one.get("MUSTER_GROUP") == group]

    def give_gpus(self) -> None:
        """As a device plug-in would tell of them."""
        path = f"/api/v1/nodes/{self.name}"
        merge = "application/merge-patch+json"
        body: dict[str, Any] = {"metadata": {"labels": LABELS}}
        assert self.cluster.call("PATCH", path, body, content_type=merge)[0] == 200
        body = {"status": {"capacity": {"nvidia.com/gpu": str(GPUS)}, "allocatable": {"nvidia.com/gpu": str(GPUS)}}}
        assert self.cluster.call("PATCH", f"{path}/status", body, content_type=merge)[0] == 200

    def ready(self) -> bool:
        status, node = self.cluster.call("GET", f"/api/v1/nodes/{self.name}")
        conditions = node["status"].get("conditions", []) if status == 200 else []
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def close(self) -> None:
        if self.guard is not None:
            self.kill_guard()
        _remove(self.name)


def _remove(name: str) -> None:
    """Kill all that runs on a node and take its control groups away."""
    deadline_s = time.monotonic() + EMPTY_WITHIN_S
    while pids := _pids(name):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert time.monotonic() < deadline_s, f"processes {pids} do not end"
        time.sleep(0.05)
    for base in _hierarchies():
        for folder, _, _ in os.walk(base / name, topdown=False):
            Path(folder).rmdir()


def _remove_orphans() -> None:
    """Nodes of tests that were killed: their containers run on without them."""
    for name in {path.name for base in _hierarchies() for path in base.glob(f"{PREFIX}-*-*")}:
        if not Path(f"/proc/{name.split('-')[-2]}").exists():
            _remove(name)


def _pids(group: str) -> set[int]:
    found: set[int] = set()
    for base in _hierarchies():
        for folder, _, _ in os.walk(base / group):
            with contextlib.suppress(OSError):  # it goes as we look
                found |= {int(line) for line in (Path(folder) / "cgroup.procs").read_text().split()}
    return found


def _environment(pid: int) -> dict[str, str]:
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def _hierarchies() -> list[Path]:
    """Where control groups are: one tree, or with the first version of them one for every controller."""
    if (GROUPS / "cgroup.controllers").exists():
        return [GROUPS]
    return [base for base in sorted(GROUPS.iterdir()) if (base / "cgroup.procs").exists() and not base.is_symlink()]


@contextlib.contextmanager
def machine(cluster: Cluster, folder: Path) -> Iterator[Machine]:
    """A node of this cluster, ready and with GPUs, from when it is until the block ends. It has no guard yet."""
    _remove_orphans()
    name = f"{PREFIX}-{os.getpid()}-{secrets.token_hex(2)}"
    for base in _hierarchies():
        (base / name / SYSTEM).mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        private = " && ".join(f"mkdir -p {one} && mount -t tmpfs tmpfs {one}" for one in PRIVATE)
        keeper = subprocess.Popen(
            ("unshare", "--mount", "--propagation", "private", "sh", "-c", f"{private} && echo up && exec sleep 86400"),
            stdout=subprocess.PIPE,
            preexec_fn=end_with_parent,  # noqa: PLW1509
        )
        stack.callback(stop, keeper)
        assert keeper.stdout is not None
        with keeper.stdout as out:
            assert out.readline() == b"up\n"
        found = Machine(cluster, folder, name, keeper.pid)
        stack.callback(found.close)
        stack.enter_context(_containerd(found))
        stack.enter_context(_kubelet(found))
        until(found.ready, "the node is not ready")
        found.give_gpus()
        yield found


@contextlib.contextmanager
def _containerd(found: Machine) -> Iterator[None]:
    folder = found.folder
    (folder / "cni" / "conf").mkdir(parents=True)
    (folder / "cni" / "none").write_text(NETWORK)
    (folder / "cni" / "none").chmod(0o755)
    (folder / "cni" / "conf" / "none.conflist").write_text(json.dumps(NETWORK_CONFIG))
    words = {"folder": str(folder), "runc": RUNC, "image": IMAGE}
    (folder / "containerd.toml").write_text(Template(CONFIG.read_text()).substitute(words))
    try:
        found.start_runtime()
        write_image(folder / "image.tar")
        ctr = (built("node", "ctr"), "--address", str(folder / "containerd.sock"), "--namespace", "k8s.io")
        until(lambda: _imported(found.inside(*ctr, "images", "import", str(folder / "image.tar"))), "no image")
        yield
    finally:
        found.kill_runtime()
        subprocess.run(found.inside("sh", "-c", f"umount -R {folder}/state 2>/dev/null; true"), check=True)
        shutil.rmtree(folder / "root", ignore_errors=True)


def _imported(command: Sequence[str]) -> bool:
    return subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 0


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _kubelet(found: Machine) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    folder = found.folder / "kubelet"
    folder.mkdir()
    port = free_port()
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "127.0.0.1",
        "port": free_port(),
        "readOnlyPort": 0,
        "healthzPort": port,
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{found.folder}/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": found.group,
        "failCgroupV1": False,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        "makeIPTablesUtilChains": False,
        "oomScoreAdj": 0,
        "nodeStatusUpdateFrequency": "2s",
        "syncFrequency": "5s",
        "podLogsDir": "/var/log/pods",
        "clusterDNS": ["10.0.0.10"],
        "resolvConf": "",
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    kubeconfig = found.cluster.kubeconfig(ADMIN, found.cluster.token)
    words = (
        "--config",
        str(folder / "config.yaml"),
        "--root-dir",
        str(folder / "root"),
        "--kubeconfig",
        str(kubeconfig),
    )
    name = ("--hostname-override", found.name, "--cert-dir", str(folder / "certificates"))
    argv = found.inside(built("kubernetes", "kubelet"), *words, *name)
    return running(argv, folder, answers_at=f"http://127.0.0.1:{port}/healthz")
