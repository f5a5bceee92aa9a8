"""`LocalFleet`: a fleet on this machine that can be started, killed by role, restarted and stopped.

All is in its folder: start it again, from this or another process, and it goes on in the same state on the same ports.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import muster
from federation.cli.errors import CliError, ExitCode
from federation.cli.local import commands, ports, processes, state
from federation.cli.local.commands import NATS, SERVER
from federation.cli.local.nats import configuration
from federation.cli.local.state import FleetDir, FleetState
from federation.protocol.nkeys import BusKey, bus_key_of, new_bus_key
from muster.results import ClusterStatus
from muster.retry import RetryRule

READY_S: Final = 60.0  # a cold start on a busy small machine takes about 15 s
POLL_S: Final = 0.1
PORT_S: Final = 3.0
LOG_LINES_SHOWN: Final = 3
LEASE_CLASS_OF_PRESET: Final = {"fast": "fast", "careful": "careful"}  # others: default
QUEUE: Final = "default"

Say = Callable[[str], None]


@dataclass(slots=True)
class LocalFleet:
    """Not for two threads. Hold `state.locked(folder)` around changes if others may work on the folder too."""

    folder: FleetDir
    state: FleetState
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    _ports: ports.PortKeeper = field(default_factory=ports.PortKeeper)

    @classmethod
    def open(cls, root: Path) -> LocalFleet:
        """The fleet that was made in this folder; CliError where there is none."""
        folder = FleetDir(root)
        known = state.load(folder)
        if known is None:
            raise CliError(f"no fleet in {root}", "start one with `muster up`", ExitCode.NOT_FOUND)
        return cls(folder, known)

    @classmethod
    def make(
        cls,
        root: Path,
        *,
        clusters: Sequence[str],
        nodes: Sequence[str],
        preset: str,
        replicas: int = 1,
        store: str = "",
    ) -> LocalFleet:
        """Folder, keys, tokens and configuration of a new fleet, or of the same one again. Starts nothing.

        `store`: the servers' store; empty for a SQLite file in the folder, which admits one server.
        """
        folder = FleetDir(root.resolve())
        folder.make()
        known = state.load(folder) or FleetState(
            clusters=list(clusters), nodes=list(nodes), preset=preset, replicas=replicas, store=store
        )
        fleet = cls(folder, known)
        fleet._assign_ports()
        fleet._make_tokens()
        fleet._make_keys()
        state.save(folder, known)
        return fleet

    # --- what it is ---

    @property
    def roles(self) -> list[str]:
        return commands.roles(self.state)

    @property
    def servers(self) -> list[str]:
        """Roles of the federation servers."""
        return commands.servers(self.state)

    @property
    def server_url(self) -> str:
        """All servers, with commas between them."""
        return commands.server_urls(self.state)

    @property
    def token(self) -> str:
        """The operator's."""
        return state.token_of(self.folder.tokens, state.OPERATOR) or ""

    def client(self, *, attempts_max: int = 5) -> muster.Client:
        return muster.Client(self.server_url, self.token, retry=RetryRule(attempts_max))

    def alive(self, role: str) -> bool:
        return processes.alive(self.state.processes.get(role))

    def pid(self, role: str) -> int:
        return self.state.processes[role].pid

    # --- one role ---

    def start(self, role: str, extra: Mapping[str, str] | None = None) -> bool:
        """Run `role` if it does not run, with `extra` environment; whether it had to be started."""
        if self.alive(role):
            return False
        port = self.state.ports[role]
        if not self._freed(port):
            raise CliError(f"port {port} of {role} is taken by another process", "stop that one, or use another --dir")
        environment = {key: value for key, value in self.environment.items() if key not in commands.HIDDEN_VARIABLES}
        self.state.processes[role] = processes.start(
            commands.command(self.folder, self.state, role, self.environment),
            log=self.folder.log(role),
            environment={**environment, **(extra or {})},
        )
        state.save(self.folder, self.state)
        return True

    def kill(self, role: str) -> None:
        """SIGKILL, as a crash would; it has ended when this returns."""
        processes.kill([self.state.processes[role]])

    def stop(self, role: str) -> None:
        """SIGTERM, in good order; it has ended when this returns."""
        processes.stop([self.state.processes[role]])

    def signal(self, role: str, number: signal.Signals) -> bool:
        """E.g. SIGSTOP and SIGCONT: a paused process."""
        return processes.send(self.state.processes[role], number)

    def respawn(self, role: str, extra: Mapping[str, str] | None = None) -> None:
        """Kill it if it runs, and start it again in the same state on the same port."""
        if self.alive(role):
            self.kill(role)
        self.start(role, extra)

    # --- all of it ---

    def up(self, say: Say = lambda _: None, *, within_s: float = READY_S) -> None:
        """Everything runs, every cluster is joined and Active. What runs already is left alone."""
        deadline_s = time.monotonic() + within_s
        self._start_and_wait([NATS], say, deadline_s)
        self._start_and_wait([*self.servers, *self._of_kind("apiserver")], say, deadline_s)
        agents = self._of_kind("agent")
        heard_since_s = -math.inf if all(self.alive(role) for role in agents) else time.monotonic()
        self._start_and_wait([*agents, *self._of_kind("kubelets")], say, deadline_s)
        self._wait(self.led, "a server to lead", self.servers, deadline_s)
        self.join()
        if self.inactive(heard_since_s):
            say("waiting until all clusters are admitted")
        self._wait(lambda: not self.inactive(heard_since_s), "all clusters to be Active", self.roles, deadline_s)

    def start_only(self, roles: Sequence[str], say: Say = lambda _: None, *, within_s: float = READY_S) -> None:
        """These run and listen, and the server, if among them, leads; the others are left alone."""
        deadline_s = time.monotonic() + within_s
        self._start_and_wait(list(roles), say, deadline_s)
        if SERVER in roles:
            self._wait(self.led, "a server to lead", [role for role in self.servers if role in roles], deadline_s)

    def down(self) -> int:
        """Nothing of it runs; its state stays. Agents first: they hand over what they know. Returns how many ran."""
        order = [*self._of_kind("agent"), *self.servers, *self._of_kind("kubelets"), *self._of_kind("apiserver"), NATS]
        running = [self.state.processes[role] for role in order if self.alive(role)]
        processes.stop(running)
        self.state.processes.clear()
        self.state.owner = None
        # A full disk keeps the old list, which says when each began: none of another process is taken for one.
        with contextlib.suppress(OSError):
            state.save(self.folder, self.state)
        return len(running)

    def join(self) -> None:
        """Make the clusters part of the fleet and see that there is a queue; repeats change nothing."""
        lease_class = LEASE_CLASS_OF_PRESET.get(self.state.preset, "default")
        with self.client() as client:
            known = {view.metadata.name for view in client.list_clusters().items}
            for cluster in self.state.clusters:
                if cluster not in known:
                    client.join_cluster(cluster, lease_class=lease_class, labels={"muster.io/simulated": "true"})
            if QUEUE not in {view.metadata.name for view in client.list_queues().items}:
                client.apply_queue(QUEUE, {"weight": 1})

    def inactive(self, heard_since_s: float = -math.inf) -> list[str]:
        """The clusters that are not Active, by what the server says now; all of them if it does not answer.

        One that was last heard of before `heard_since_s` (monotonic) does not count as Active either: that was an
        earlier agent, whose lease may end before the new one has renewed it.
        """
        asked_s = time.monotonic()
        try:
            with self.client(attempts_max=1) as client:
                views = client.list_clusters().items
        except muster.UnavailableError:
            return list(self.state.clusters)
        active = {view.metadata.name for view in views if heard_as_active(view.status, asked_s - heard_since_s)}
        return [cluster for cluster in self.state.clusters if cluster not in active]

    # --- inside ---

    def _of_kind(self, kind: str) -> list[str]:
        return [role for role in self.roles if role.startswith(f"{kind}/")]

    def _start_and_wait(self, roles: Sequence[str], say: Say, deadline_s: float) -> None:
        for role in roles:
            if self.start(role):
                say(f"started {role} (pid {self.pid(role)})")
        wanted = [self.state.ports[role] for role in roles]
        self._wait(
            lambda: all(ports.listening(port) for port in wanted), f"{', '.join(roles)} to listen", roles, deadline_s
        )
        for port in wanted:
            self._ports.let_go(port)

    def _freed(self, port: int) -> bool:
        """Whether the port can be used: the kernel may need a moment to close what a killed process had open."""
        deadline_s = time.monotonic() + PORT_S
        while not ports.free(port):
            if time.monotonic() >= deadline_s:
                return False
            time.sleep(POLL_S)
        return True

    def _wait(self, done: Callable[[], bool], what: str, roles: Sequence[str], deadline_s: float) -> None:
        """Until `done`; CliError when one of `roles` ended meanwhile, or time is up."""
        while not done():
            ended = [role for role in roles if not self.alive(role)]
            if ended:
                raise CliError(f"{ended[0]} ended: {self._last_words(ended[0])}", f"see {self.folder.log(ended[0])}")
            if time.monotonic() >= deadline_s:
                raise CliError(f"gave up waiting for {what}", f"see {self.folder.logs}", ExitCode.UNAVAILABLE)
            time.sleep(POLL_S)

    def led(self) -> bool:
        """Whether one of the servers that run leads."""
        return self.leader() is not None

    def leader(self) -> str | None:
        """The role of the server that says that it leads; None while none does."""
        for role in self.servers:
            try:
                with muster.Client(commands.url(self.state, role), self.token, retry=RetryRule(1)) as client:
                    if client.readiness()["role"] == "leading":
                        return role
            except muster.UnavailableError:
                continue
        return None

    def _last_words(self, role: str) -> str:
        try:
            lines = self.folder.log(role).read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return "it wrote nothing"
        return " | ".join(line.strip() for line in lines[-LOG_LINES_SHOWN:]) or "it wrote nothing"

    def _assign_ports(self) -> None:
        """Every listener has a port; those of a fleet that runs, or whose ports are still free, stay as they were."""
        some_run = any(self.alive(role) for role in self.roles)
        for role in self.roles:
            port = self.state.ports.get(role)
            if port is None or not (some_run or ports.free(port)):
                self.state.ports[role] = self._ports.choose(set(self.state.ports.values()))

    def _make_tokens(self) -> None:
        """The server's own sub-command writes the token file; each agent gets a file with nothing but its token."""
        if not self.folder.tokens.exists():
            done = subprocess.run(  # noqa: S603 - our own program, names checked by the caller
                [
                    commands.program("muster-server"),
                    "init",
                    *("--dir", str(self.folder.root)),
                    *("--clusters", ",".join(self.state.clusters)),
                ],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                last = done.stderr.strip().splitlines()[-1:] or ["it wrote nothing"]
                raise CliError(f"muster-server init: {last[0]}")
        for cluster in self.state.clusters:
            token = state.token_of(self.folder.tokens, f"agent:{cluster}")
            if token is None:
                raise CliError(f"{self.folder.tokens} has no token for agent:{cluster}", "use another --dir")
            state.write_private(self.folder.token(f"agent-{cluster}"), token + "\n")

    def _make_keys(self) -> None:
        """One nkey per role; the broker learns the public halves."""
        public = {role: self._key(role).public for role in (SERVER, *self.state.clusters)}
        state.write_private(self.folder.nats_conf, configuration(self.state.ports[NATS], public) + "\n")

    def _key(self, role: str) -> BusKey:
        path = self.folder.seed(role)
        if path.exists():
            return bus_key_of(path.read_text())
        key = new_bus_key()
        state.write_private(path, key.seed + "\n")
        return key


def heard_as_active(status: ClusterStatus, within_s: float) -> bool:
    """Active, and heard of within this time."""
    return status.state == "Active" and status.silence_s is not None and status.silence_s < within_s
