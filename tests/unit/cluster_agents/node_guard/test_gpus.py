"""The guard's child that reads GPUs: the real probe on a library that is no driver's, and children that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from structlog.testing import capture_logs

from cluster_agents.node_guard import gpus
from cluster_agents.node_guard.gpus import COMMAND, LINE_BYTES_MAX, GpuProbe
from tests.unit.cluster_agents.gpu.stub import Stub

OFTEN: Final = (*COMMAND[:-1], "0.05")
PATIENCE_S: Final = 60.0
SOON_S: Final = 0.5


@asynccontextmanager
async def running(command: tuple[str, ...] = OFTEN, **times: float) -> AsyncIterator[GpuProbe]:
    probe = GpuProbe(command, **{"again_after_s": 0.05, **times})
    task = asyncio.create_task(probe.run())
    try:
        yield probe
        assert not task.done()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(done: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline_s, what
        await asyncio.sleep(0.02)


def faults(probe: GpuProbe) -> list[tuple[str, ...]] | None:
    return None if probe.told is None else [gpu.faults for gpu in probe.told]


def children() -> list[int]:
    """Of this process, as the kernel knows them."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


async def hangs(driver: Stub, probe: GpuProbe) -> None:
    """From now on; and no answer is waited for as long as for the first, as a busy machine takes seconds to start."""
    probe._answers_within_s = SOON_S
    driver.set(ecc_0=1)
    await until(lambda: faults(probe) != [(), ()], "it reads no more")  # so that it waits for the next line, shorter
    driver.set(hang_0=1)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that was killed is waited for as long as a busy machine takes to end it."""
    monkeypatch.setattr(gpus, "ENDS_WITHIN_S", PATIENCE_S)


@pytest.fixture
def driver(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> Stub:
    for key in ("LD_LIBRARY_PATH", "NVML_STUB"):
        monkeypatch.setenv(key, stub.environment[key])
    return stub


async def test_what_the_probe_reads_is_told(driver: Stub) -> None:
    with capture_logs() as logs:
        async with running() as probe:
            assert (probe.told, probe.state()) == (None, {})
            await until(lambda: faults(probe) == [(), ()], "it reads nothing")
            driver.set(ecc_1=1)
            await until(lambda: faults(probe) == [(), ("ecc-uncorrectable",)], "it tells of no fault")
            assert probe.state() == {"gpus": 2, "gpus_unhealthy": 1}
            driver.set(ecc_1=0)
            await until(lambda: faults(probe) == [(), ()], "it does not tell that all is well")
    events = [(one["event"], one.get("uuid"), one.get("faults")) for one in logs]
    assert events == [
        ("gpus.read", None, None),
        ("gpu.faults", "GPU-1", "ecc-uncorrectable"),
        ("gpu.faults", "GPU-1", ""),
    ]


@pytest.mark.long
async def test_an_xid_outlives_the_probe_that_heard_of_it(driver: Stub) -> None:
    async with running() as probe:
        await until(lambda: probe.told, "it reads nothing")
        driver.happens(1, 79)
        await until(lambda: faults(probe) == [(), ("xid-79",)], "it does not tell of the Xid")
        driver.events.clear()
        driver.set()
        (pid,) = children()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: probe.told is None, "it takes a dead probe's words for fresh")
        await until(lambda: faults(probe) == [(), ("xid-79",)], "the Xid is forgotten")


@pytest.mark.long
async def test_while_the_driver_does_not_answer_no_gpu_is_well(driver: Stub) -> None:
    with capture_logs() as logs:
        async with running() as probe:
            await until(lambda: probe.told, "it reads nothing")
            await hangs(driver, probe)
            await until(lambda: faults(probe) == [("no-answer",), ("no-answer",)], "it waits for the driver")
            driver.set(hang_0=0, ecc_0=0)
            probe._answers_within_s = PATIENCE_S
            await until(lambda: faults(probe) == [(), ()], "it does not look again")
            assert len(children()) == 1
    assert {one["event"] for one in logs if one["log_level"] == "error"} == {"gpus.no_answer"}


@pytest.mark.long
async def test_where_the_driver_never_answered_nothing_is_known(driver: Stub) -> None:
    driver.set(hang_0=1)
    with capture_logs() as logs:
        async with running(answers_within_s=SOON_S) as probe:
            await until(lambda: sum(one["event"] == "gpus.no_answer" for one in logs) >= 2, "it waits for the driver")
            assert probe.told is None


async def test_where_there_is_nothing_to_read_the_log_says_so_once(driver: Stub) -> None:
    driver.set(gpus=0)
    with capture_logs() as logs:
        async with running() as probe:
            await until(lambda: logs, "it says nothing")
            assert probe.told is None
    assert logs == [{"event": "gpus.none", "why": "the driver knows no GPU", "log_level": "info"}]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("print('no json')", {"gpus.unreadable", "gpus.none"}),
        ("""print('{"gpus": [{"uuid": 7}]}')""", {"gpus.unreadable", "gpus.none"}),
        ("""print('{"gpus": [' + '{},' * 32 + '{}]}')""", {"gpus.unreadable", "gpus.none"}),
        (f"print('x' * {LINE_BYTES_MAX + 1})", {"gpus.unreadable", "gpus.none"}),
        ("raise SystemExit(1)", {"gpus.none"}),
        ("import os; os.abort()", {"gpus.none"}),
    ],
    ids=["no JSON", "no reading", "too many GPUs", "a line too long", "an end", "a crash"],
)
async def test_a_probe_that_misbehaves_is_started_anew_and_nothing_is_known(body: str, said: set[str]) -> None:
    with capture_logs() as logs:
        async with running((sys.executable, "-u", "-c", f"{body}\nimport time; time.sleep(300)")) as probe:
            await until(lambda: {one["event"] for one in logs} >= said, "it says nothing")
            before = len(logs)
            if "gpus.unreadable" in said:
                await until(lambda: len(logs) > before, "it does not try again")
            assert probe.told is None
    assert {one["event"] for one in logs} == said
    assert sum(one["event"] == "gpus.none" for one in logs) == 1


async def test_one_that_cannot_be_started_is_told_and_tried_again() -> None:
    with capture_logs() as logs:
        async with running(("/nowhere/probe",)) as probe:
            await until(lambda: logs, "it says nothing")
            assert probe.told is None
    assert [one["event"] for one in logs] == ["gpus.none"]


async def test_it_ends_with_the_guard(driver: Stub) -> None:
    async with running() as probe:
        await until(lambda: probe.told, "it reads nothing")
        (pid,) = children()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("turns", range(3))
async def test_a_child_that_is_just_being_ended_is_waited_for(turns: int) -> None:
    """Also where the guard itself is asked to end meanwhile."""
    with capture_logs() as logs:
        probe = GpuProbe((sys.executable, "-u", "-c", "print('no json'); import time; time.sleep(300)"))
        task = asyncio.create_task(probe.run())
        while not logs:  # noqa: ASYNC110 - at most a turn late
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert children() == []


@pytest.mark.long
async def test_it_ends_at_whatever_moment_it_is_asked_to() -> None:
    """`asyncio.wait_for` of Python 3.11 forgets that it was cancelled when a line arrives at that moment."""
    body = """while True: print('{"gpus": []}', flush=True)"""
    for _ in range(10):
        probe = GpuProbe((sys.executable, "-c", body))
        task = asyncio.create_task(probe.run())
        await until(lambda: probe.told is not None, "it reads nothing")  # noqa: B023 - called before the next turn
        task.cancel()
        assert (await asyncio.wait([task], timeout=PATIENCE_S))[0], "it goes on"


async def test_a_guard_that_stood_still_itself_blames_no_driver() -> None:
    """Line and time-out come to light at once, and asyncio lets the time-out win."""
    child = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"begun\n")
    assert await child.stdout.readline() == b"begun\n"
    reading = asyncio.create_task(GpuProbe(answers_within_s=0.05)._line(child.stdout))
    await asyncio.sleep(0.01)
    child.stdin.write(b"a reading\n")
    pipe = child._transport.get_pipe_transport(1).get_extra_info("pipe")  # type: ignore[attr-defined]
    assert select.select([pipe], [], [], PATIENCE_S)[0], "there is no line"  # the loop stands still until it is there
    time.sleep(0.2)  # noqa: ASYNC251 - as a machine without time to give
    assert await reading == b"a reading\n"
    child.kill()
    await child.wait()


@pytest.mark.long
async def test_a_probe_that_nothing_can_end_holds_up_nothing_and_gets_no_second(
    driver: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that waits in the driver is: no signal reaches it."""
    monkeypatch.setattr(Process, "kill", lambda _: None)
    monkeypatch.setattr(gpus, "ENDS_WITHIN_S", SOON_S)
    with capture_logs() as logs:
        async with running() as probe:
            await until(lambda: probe.told, "it reads nothing")
            (pid,) = children()
            await hangs(driver, probe)
            await until(lambda: faults(probe) == [("no-answer",), ("no-answer",)], "it waits for the driver")
            await asyncio.sleep(0.5)  # ten times as long as after which one is started that was ended
            assert children() == [pid]
    assert [one["event"] for one in logs].count("gpus.no_answer") == 1
    assert children() == [pid]
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not children(), "it does not end")


async def test_nothing_waits_for_a_driver_that_hangs(driver: Stub) -> None:
    """The loop of the guard goes on while the probe stands still."""
    driver.set(hang_0=1)
    turns: list[Any] = []
    async with running(answers_within_s=300.0) as probe:
        await until(children, "there is no probe")
        for _ in range(100):
            await asyncio.sleep(0)
            turns.append(probe.told)
    assert turns == [None] * 100
