"""The node guard as a process: between a runtime that asks it over a real socket and an agent that answers it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import pytest
from aiohttp import web

from cluster_agents.node_guard import nri
from federation.protocol.messages import GuardAnswer, GuardAsk
from tests.integration.fleets import until
from tests.unit.cluster_agents.gpu.stub import Stub, build
from tests.unit.cluster_agents.node_guard.nri_runtime import NriRuntime, Plugin, asked

COMMAND: Final = (sys.executable, "-m", "cluster_agents.node_guard.main")
OK, REFUSED = int(nri.Code.OK), int(nri.Code.FAILED_PRECONDITION)
LONG_S: Final = 3_000.0  # no test takes as long as this lease
SHORT_S: Final = 1.5


@dataclass
class Agent:
    """An agent's endpoint: `remaining_s` is what it says of the lease; None: it has no word."""

    port: int = 0
    remaining_s: float | None = None
    hold: tuple[str, ...] = ()
    heard: list[GuardAsk] = field(default_factory=list)

    async def guard(self, request: web.Request) -> web.Response:
        ask = msgspec.msgpack.decode(await request.read(), type=GuardAsk)
        remaining_s = self.remaining_s
        self.heard.append(ask)
        if remaining_s is None:
            return web.Response(status=503)
        return web.Response(
            body=msgspec.msgpack.encode(GuardAnswer(ask_id=ask.ask_id, remaining_s=remaining_s, hold=self.hold))
        )

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        loop = asyncio.new_event_loop()
        app = web.Application()
        app.add_routes([web.post("/guard", self.guard)])
        runner = web.AppRunner(app, access_log=None)
        loop.run_until_complete(runner.setup())
        loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", 0).start())
        self.port = runner.addresses[0][1]
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.run_until_complete(runner.cleanup())
            loop.close()


@dataclass
class GuardProcess:
    folder: Path
    agent: Agent
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] | None = None  # its own instead of ours
    options: tuple[str, ...] = ()

    @property
    def socket(self) -> Path:
        return self.folder / "nri.sock"

    def start(self) -> None:
        """Serving its health when this returns."""
        ports = self.folder / "ports.json"
        ports.unlink(missing_ok=True)
        words = ("--node", "n-1", "--agent", f"http://127.0.0.1:{self.agent.port}", "--preset", "demo")
        places = ("--nri-socket", str(self.socket), "--state-dir", str(self.folder / "state"))
        with (self.folder / "guard.log").open("ab") as log:
            command = (*COMMAND, *words, *places, "--ports-file", str(ports), *self.options)
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)
        until(lambda: ports.exists() or self.ended(), "it does not start")
        assert not self.ended(), self.log()

    def ended(self) -> bool:
        assert self.process is not None
        return self.process.poll() is not None

    def health(self) -> tuple[int, dict[str, Any]]:
        port = json.loads((self.folder / "ports.json").read_text())["health"]
        reply = httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)
        return reply.status_code, reply.json()

    def log(self) -> str:
        return (self.folder / "guard.log").read_text()

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def agent() -> Iterator[Agent]:
    found = Agent()
    with found.serving():
        yield found


@pytest.fixture
def guard(tmp_path: Path, agent: Agent) -> Iterator[GuardProcess]:
    found = GuardProcess(tmp_path, agent)
    try:
        yield found
    finally:
        if found.process is not None and not found.ended():
            found.end(signal.SIGKILL)


@pytest.fixture
def runtime(guard: GuardProcess) -> Iterator[NriRuntime]:
    with NriRuntime(guard.socket) as found:
        yield found


def answers(agent: Agent) -> None:
    """Two more asks: the first of them may have come before the test changed what the agent says."""
    count = len(agent.heard)
    until(lambda: len(agent.heard) >= count + 2, "the guard asks no more")


def create(plugin: Plugin, token: str = "L.1", *, letter: str = "a") -> tuple[int, str]:
    status = plugin.call("CreateContainer", asked("p", token, letter=letter)).status
    return int(status.code), str(status.message)


def test_it_gives_leave_under_a_lease_and_none_before_it_and_after_it(
    guard: GuardProcess, runtime: NriRuntime, agent: Agent
) -> None:
    guard.start()
    plugin = runtime.connect()
    assert plugin.registers().plugin_name == "muster-guard"
    assert guard.health()[0] == 503
    plugin.configure()
    plugin.synchronize()
    assert guard.health()[0] == 200

    answers(agent)  # without a word
    assert create(plugin)[0] == REFUSED
    assert create(plugin, token="")[0] == OK  # none of ours
    agent.remaining_s, agent.hold = LONG_S, ("L.2",)
    until(lambda: create(plugin)[0] == OK, "no leave under a lease")
    assert {one.node for one in agent.heard} == {"n-1"}

    agent.remaining_s = None
    assert create(plugin, letter="b") == (OK, "")  # what was promised holds
    assert guard.health()[1]["containers"] == 2
    plugin.call("RemoveContainer", asked("p"))
    assert guard.health()[1]["containers"] == 1


def test_when_the_lease_has_run_out_only_what_is_held_may_start_also_where_starts_are_told_as_changes_of_state(
    guard: GuardProcess, runtime: NriRuntime, agent: Agent
) -> None:
    agent.remaining_s, agent.hold = SHORT_S, ("L.2",)
    guard.start()
    plugin = runtime.connect().taken_in()
    until(lambda: create(plugin)[0] == OK, "no leave under a lease")
    agent.remaining_s = None
    until(lambda: create(plugin)[0] == REFUSED, "leave without a lease")
    code, words = create(plugin)
    assert "team/p (token L.1)" in words
    assert code == REFUSED
    assert create(plugin, token="L.2", letter="b")[0] == OK

    one = asked("p", letter="c")
    change = nri.StateChangeEvent(event=nri.Event.START_CONTAINER, pod=one.pod, container=one.container)
    assert plugin.call("StateChange", change).status.code == REFUSED
    assert plugin.call("StartContainer", one).status.code == REFUSED
    agent.remaining_s = LONG_S
    until(lambda: plugin.call("StateChange", change).status.code == OK, "no leave under a new lease")


def test_it_comes_back_to_a_runtime_that_was_away_and_takes_its_listing_in_parts(
    guard: GuardProcess, agent: Agent
) -> None:
    agent.remaining_s = LONG_S
    guard.start()  # before there is a runtime
    with NriRuntime(guard.socket) as first:
        plugin = first.connect().taken_in()
        until(lambda: create(plugin)[0] == OK, "no leave under a lease")
    until(lambda: guard.health()[0] == 503, "it takes a runtime that is gone for one that asks")
    with NriRuntime(guard.socket) as second:
        plugin = second.connect()
        plugin.registers()
        plugin.configure()
        assert plugin.synchronize(*(asked(f"p-{letter}", letter=letter) for letter in "abc"), more=True)
        assert guard.health()[0] == 503
        assert not plugin.synchronize(*(asked(f"p-{letter}", letter=letter) for letter in "de"))
        status, state = guard.health()
        assert (status, state["containers"]) == (200, 5)
        plugin.send(b"\xff" * 16)  # what no runtime says
        again = second.connect().taken_in()
        assert create(again)[0] == OK


def test_one_that_is_killed_and_starts_anew_knows_what_it_let_start_and_gives_no_leave_until_it_has_an_answer(
    guard: GuardProcess, runtime: NriRuntime, agent: Agent
) -> None:
    agent.remaining_s, agent.hold = LONG_S, ("L.1",)
    guard.start()
    plugin = runtime.connect().taken_in()
    until(lambda: create(plugin)[0] == OK, "no leave under a lease")
    assert guard.end(signal.SIGKILL) == -signal.SIGKILL
    agent.remaining_s = None
    guard.start()
    state = guard.health()[1]
    assert (state["containers"], state["held"], state["registered"]) == (1, 1, False)
    plugin = runtime.connect()
    plugin.registers()
    plugin.configure()
    plugin.synchronize(asked("p"))
    assert create(plugin)[0] == REFUSED
    agent.remaining_s = LONG_S
    until(lambda: create(plugin)[0] == OK, "no leave under a lease")


def test_it_tells_its_agent_of_its_gpus_and_keeps_its_time_while_their_driver_hangs(
    guard: GuardProcess, runtime: NriRuntime, agent: Agent, tmp_path: Path
) -> None:
    stub = Stub(build(tmp_path / "nvml"), tmp_path / "answers")
    stub.set(gpus=2)
    guard.environment = stub.environment
    agent.remaining_s = LONG_S
    guard.start()
    plugin = runtime.connect().taken_in()

    def told() -> list[tuple[str, ...]]:
        return [gpu.faults for gpu in agent.heard[-1].gpus or ()] if agent.heard else []

    until(lambda: told() == [(), ()], "it does not tell of its GPUs")
    stub.happens(1, 31)
    stub.happens(1, 79)
    until(lambda: told() == [(), ("xid-79",)], "it does not tell of an Xid")
    assert guard.health()[1]["gpus_unhealthy"] == 1

    stub.set(hang_0=1)
    agent.remaining_s = SHORT_S  # the deadlines of earlier answers stand: it starts anew
    assert guard.end(signal.SIGTERM) == 0
    guard.start()
    plugin = runtime.connect().taken_in()
    until(lambda: create(plugin)[0] == OK, "no leave under a lease")
    agent.remaining_s = None
    until(lambda: create(plugin)[0] == REFUSED, "leave without a lease")
    assert agent.heard[-1].gpus is None
    assert guard.end(signal.SIGTERM) == 0


def test_without_gpus_it_says_so_once_and_where_they_are_off_not_at_all(guard: GuardProcess, agent: Agent) -> None:
    guard.start()
    until(lambda: "gpus.none" in guard.log(), "it does not say that there is nothing to read")
    answers(agent)
    assert guard.log().count("gpus.none") == 1
    assert {one.gpus for one in agent.heard} == {None}
    assert "gpus" not in guard.health()[1]
    guard.end(signal.SIGTERM)
    guard.options = ("--gpus", "off")
    guard.start()
    answers(agent)
    assert guard.log().count("gpus.none") == 1


def test_it_ends_when_it_is_asked_to(guard: GuardProcess, runtime: NriRuntime) -> None:
    guard.start()
    runtime.connect().taken_in()
    assert guard.end(signal.SIGTERM) == 0
    assert "Traceback" not in guard.log()


def test_a_bad_argument_is_refused_with_a_line_that_names_it() -> None:
    done = subprocess.run((*COMMAND, "--agent", "https://agent:8470"), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "'https://agent:8470' is not an http:// URL" in done.stderr.splitlines()[-1]


def test_where_it_cannot_work_it_says_why_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = ("--agent", "http://127.0.0.1:1", "--node", "n-1", "--state-dir", str(tmp_path / "file"))
    done = subprocess.run((*COMMAND, *words), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("muster-node-guard: ")
    assert str(tmp_path / "file") in line
