"""A fleet of one member, which is a real cluster; broker, server and agent are processes, as `muster up` has them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import muster
from cluster_agents.simkube.runlog import RunLogEntry, decode_lines
from federation.cli.local import commands
from federation.cli.local.fleet import LocalFleet
from muster.results import GroupView
from tests.integration.fleets import until
from tests.kubernetes.cluster import Cluster, fleet_nodes
from tests.servers.process import ROOT, stop

NAME: Final = "c-1"
NODES: Final = "4xA100-80:8,clique=2"
PRESET: Final = "fast"
ACCOUNT: Final = ("muster-system", "muster-agent")
ROLE: Final = ROOT / "examples" / "kubernetes" / "agent.yaml"
USER: Final = f"system:serviceaccount:{ACCOUNT[0]}:{ACCOUNT[1]}"


@dataclass(slots=True)
class Member:
    cluster: Cluster
    fleet: LocalFleet
    kubeconfig: Path
    nodes: Path  # folder of its kubelets
    agents: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_agent(self) -> subprocess.Popen[bytes]:
        """As a service account of the cluster, which has the published role."""
        words = commands.command(self.fleet.folder, self.fleet.state, f"agent/{NAME}", self.fleet.environment)
        at = words.index("--kube-url")
        words[at : at + 2] = ["--kubeconfig", str(self.kubeconfig)]
        if self.agents:  # where guards ask is the first one's
            words[words.index("--guard-listen") + 1] = "127.0.0.1:0"
        with (self.fleet.folder.root / "agent.log").open("ab") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log)
        self.agents.append(process)
        return process

    @property
    def guards_ask_at(self) -> str:
        return commands.url(self.fleet.state, f"agent/{NAME}")

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        self.agents.remove(process)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def client(self) -> muster.Client:
        return self.fleet.client()

    def group(self, name: str) -> GroupView:
        with self.client() as client:
            return client.get_group(name)

    def wait_for(self, name: str, phase: str) -> GroupView:
        until(lambda: self.group(name).status.phase == phase, f"{name} does not become {phase}")
        return self.group(name)

    def runs(self) -> list[RunLogEntry]:
        """What began and ended, by the kubelets' own log."""
        return decode_lines((self.nodes / "runlog.jsonl").read_bytes())

    def log(self) -> str:
        return (self.fleet.folder.root / "agent.log").read_text()

    def close(self) -> None:
        for process in self.agents:
            stop(process)
        self.fleet.down()


@contextlib.contextmanager
def member(cluster: Cluster, folder: Path, *, preset: str = PRESET, simulated: bool = True) -> Iterator[Member]:
    """Joined, admitted, and with nodes that are ready: simulated ones, or whichever the cluster has already."""
    cluster.apply(ROLE)
    kubeconfig = cluster.kubeconfig("agent", cluster.account_token(*ACCOUNT))
    fleet = LocalFleet.make(folder / "fleet", clusters=[NAME], nodes=[NODES], preset=preset)
    found = Member(cluster, fleet, kubeconfig, folder / "nodes")
    found.nodes.mkdir()
    guard = found.guards_ask_at
    options = ("--name", NAME, "--guard-url", guard, "--preset", preset)
    with contextlib.ExitStack() as stack:
        stack.callback(found.close)
        fleet.start_only([commands.NATS])
        fleet.start_only([commands.SERVER])
        if simulated:
            stack.enter_context(fleet_nodes(cluster, found.nodes, NODES, *options))
        found.start_agent()
        fleet.join()
        until(lambda: not fleet.inactive(), f"the cluster is not admitted: {os.linesep}{found.log()[-2000:]}")
        yield found
