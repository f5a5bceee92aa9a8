"""What the guard says to a runtime: above all that no call stays without an answer, since silence is leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cluster_agents.core.config import GUARD_PLUGIN
from cluster_agents.node_guard import nri, runtime
from cluster_agents.node_guard.runtime import PLUGIN_INDEX, Refused, Runtime
from cluster_agents.node_guard.wire import Kind, Message, Side, encoded
from tests.unit.cluster_agents.node_guard.nri_runtime import GoneError, NriRuntime, Plugin, asked

FAILED, INTERNAL, UNKNOWN = nri.Code.FAILED_PRECONDITION, nri.Code.INTERNAL, nri.Code.UNIMPLEMENTED


@dataclass
class Heard:
    """The word of a runtime, written down."""

    lists: list[list[str]] = field(default_factory=list)
    starts: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    error: Exception | None = None

    def listed(self, pods: list[nri.PodSandbox], containers: list[nri.Container]) -> None:
        assert len(pods) == len(containers)
        self.lists.append([one.name for one in pods])

    def starting(self, pod: nri.PodSandbox, container: nri.Container) -> None:
        if self.error is not None:
            raise self.error
        self.starts.append(pod.name)

    def removed(self, container_id: str) -> None:
        self.gone.append(container_id)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "RECONNECT_S", 0.01)


@dataclass
class Guarded:
    """A guard's side of the socket at work, and the runtime's."""

    handler: Heard
    ours: Runtime
    theirs: NriRuntime
    task: asyncio.Task[None]

    async def plugin(self) -> Plugin:
        return await asyncio.to_thread(self.theirs.connect)

    async def taken_in(self) -> Plugin:
        return await asyncio.to_thread(lambda: self.theirs.connect().taken_in())


@asynccontextmanager
async def guarding(folder: Path) -> AsyncGenerator[Guarded, None]:
    handler = Heard()
    with NriRuntime(folder / "nri.sock") as theirs:
        ours = Runtime(folder / "nri.sock", handler)
        task = asyncio.create_task(ours.run())
        try:
            yield Guarded(handler, ours, theirs, task)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncGenerator[Guarded, None]:
    async with guarding(tmp_path) as found:
        yield found


async def code(plugin: Plugin, method: str, question: nri.ContainerRequest | nri.StateChangeEvent | None = None) -> int:
    return int((await asyncio.to_thread(plugin.call, method, question)).status.code)


async def test_it_registers_by_the_name_that_pods_require_and_wants_to_hear_of_creations_starts_and_removals(
    guarded: Guarded,
) -> None:
    plugin = await guarded.plugin()
    said = await asyncio.to_thread(plugin.registers)
    assert (said.plugin_name, said.plugin_idx) == (GUARD_PLUGIN, PLUGIN_INDEX)
    assert (await asyncio.to_thread(plugin.configure)).events == 0b100_0010_1000
    assert not guarded.ours.registered
    await asyncio.to_thread(plugin.synchronize)
    assert guarded.ours.registered


async def test_a_listing_in_parts_is_taken_in_whole(guarded: Guarded) -> None:
    plugin = await guarded.plugin()
    await asyncio.to_thread(plugin.registers)
    assert await asyncio.to_thread(lambda: plugin.synchronize(asked("p"), more=True))
    assert (guarded.handler.lists, guarded.ours.registered) == ([], False)
    assert not await asyncio.to_thread(lambda: plugin.synchronize(asked("q")))
    assert (guarded.handler.lists, guarded.ours.registered) == ([["p", "q"]], True)


async def test_half_a_listing_of_a_connection_that_is_lost_counts_for_nothing(guarded: Guarded) -> None:
    plugin = await guarded.plugin()
    await asyncio.to_thread(plugin.registers)
    await asyncio.to_thread(lambda: plugin.synchronize(asked("p"), more=True))
    plugin.close()
    await guarded.taken_in()
    assert guarded.handler.lists == [[]]


async def test_of_so_many_listed_the_last_is_taken_in_and_one_more_ends_the_connection(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "LISTED_MAX", 4)
    plugin = await guarded.plugin()
    await asyncio.to_thread(plugin.registers)
    await asyncio.to_thread(lambda: plugin.synchronize(asked("p"), asked("q")))
    assert guarded.handler.lists == [["p", "q"]]
    three = [asked("p"), asked("q"), asked("r")]
    listing = nri.SynchronizeRequest(pods=[one.pod for one in three], containers=[one.container for one in three])
    reply = await asyncio.to_thread(plugin.call, "Synchronize", listing)
    assert (reply.status.code, "more than 4" in reply.status.message) == (INTERNAL, True)
    assert guarded.handler.lists == [["p", "q"]]
    with pytest.raises(GoneError):
        await asyncio.to_thread(plugin.message)


@pytest.mark.parametrize("method", ["CreateContainer", "StartContainer"])
async def test_a_start_is_allowed_or_refused_with_the_gates_words(guarded: Guarded, method: str) -> None:
    plugin = await guarded.taken_in()
    assert await code(plugin, method, asked("p")) == nri.Code.OK
    guarded.handler.error = Refused("not now")
    reply = await asyncio.to_thread(plugin.call, method, asked("q"))
    assert (reply.status.code, reply.status.message) == (FAILED, "not now")
    assert guarded.handler.starts == ["p"]


async def test_older_runtimes_tell_the_same_as_changes_of_state(guarded: Guarded) -> None:
    plugin = await guarded.taken_in()
    one = asked("p")

    def change(event: int) -> nri.StateChangeEvent:
        return nri.StateChangeEvent(event=event, pod=one.pod, container=one.container)

    assert await code(plugin, "StateChange", change(nri.Event.START_CONTAINER)) == nri.Code.OK
    assert await code(plugin, "StateChange", change(nri.Event.REMOVE_CONTAINER)) == nri.Code.OK
    assert await code(plugin, "StateChange", change(1)) == nri.Code.OK
    assert (guarded.handler.starts, guarded.handler.gone) == (["p"], ["a" * 64])
    guarded.handler.error = Refused("not now")
    assert await code(plugin, "StateChange", change(nri.Event.START_CONTAINER)) == FAILED


async def test_a_removal_is_told(guarded: Guarded) -> None:
    plugin = await guarded.taken_in()
    assert await code(plugin, "RemoveContainer", asked("p")) == nri.Code.OK
    assert await code(plugin, "Shutdown") == nri.Code.OK
    assert guarded.handler.gone == ["a" * 64]


def request(method: str, payload: bytes) -> bytes:
    return nri.Request.serialize(nri.Request(service=nri.PLUGIN_SERVICE, method=method, payload=payload))


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 30,
        b"\x0a\x02\xff\xfe",
        request("CreateContainer", b"\xff"),
        request("CreateContainer", b"\x0a\x04\x12\x02\xff\xfe"),
        request("StartContainer", b"\x0a\x04"),
    ],
    ids=["no call", "no text", "no container", "a name that is no text", "cut off"],
)
async def test_a_call_that_cannot_be_read_is_refused_and_the_connection_lives(guarded: Guarded, data: bytes) -> None:
    plugin = await guarded.taken_in()
    assert (await asyncio.to_thread(plugin.ask, data)).status.code == INTERNAL
    assert await code(plugin, "CreateContainer", asked("p")) == nri.Code.OK


async def test_what_it_does_not_know_it_says_so_of(guarded: Guarded) -> None:
    plugin = await guarded.taken_in()
    assert await code(plugin, "UpdateContainer") == UNKNOWN
    reply = await asyncio.to_thread(lambda: plugin.call("CreateContainer", service="another"))
    assert reply.status.code == UNKNOWN


@pytest.mark.parametrize("error", [AssertionError("a bug"), BrokenPipeError("no log")], ids=["a bug", "no log"])
async def test_a_fault_of_ours_refuses_the_container_before_it_does_anything_else(
    guarded: Guarded, error: Exception
) -> None:
    """A runtime whose plug-in dies while it is asked goes on as if it had agreed."""
    plugin = await guarded.taken_in()
    guarded.handler.error = error
    assert await code(plugin, "CreateContainer", asked("p")) == INTERNAL
    with pytest.raises(GoneError):
        await asyncio.to_thread(plugin.message)


def gone_after(data: bytes) -> Callable[[Plugin], None]:
    return lambda plugin: plugin.send(data)


@pytest.mark.parametrize(
    "ends",
    [
        Plugin.close,
        gone_after(b"\xff" * 30),
        gone_after(encoded(Message(Side.RUNTIME, 1, Kind.RESPONSE, b"\xff"))),
        lambda plugin: plugin.registers(nri.Status(code=5, message="no plug-ins here")),
    ],
    ids=["closed", "garbage", "an answer that is none", "not taken"],
)
async def test_whatever_ends_a_connection_there_is_another(guarded: Guarded, ends: Callable[[Plugin], None]) -> None:
    first = await guarded.plugin()
    await asyncio.to_thread(ends, first)
    second = await guarded.taken_in()
    assert guarded.ours.registered
    assert await code(second, "CreateContainer", asked("p")) == nri.Code.OK


async def test_a_guard_whose_connection_is_gone_is_not_registered(guarded: Guarded) -> None:
    plugin = await guarded.taken_in()
    plugin.close()
    again = await guarded.plugin()
    await asyncio.to_thread(again.message)
    assert not guarded.ours.registered
