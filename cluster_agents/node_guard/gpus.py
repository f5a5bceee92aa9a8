"""The probe of this node's GPUs as the guard's child: its lines become readings, its silence a fault of all GPUs.

A call into a sick driver may block beyond any signal. Such a child stays behind, the guard goes on: it never waits for
the child where anything else waits for the guard.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec
import structlog

from cluster_agents.node_guard.readings import Readings
from federation.protocol.gpus import Gpu, GpuReading
from federation.protocol.messages import UNREADABLE

READ_EVERY_S: Final = 10.0  # as often as most guards ask; it takes some milliseconds a GPU
COMMAND: Final = (sys.executable, "-m", "cluster_agents.gpu.probe", str(READ_EVERY_S))
ANSWERS_WITHIN_S: Final = 60.0  # with a line; the first takes 20 s where a driver wakes eight GPUs
AGAIN_AFTER_S: Final = 60.0  # one that ended or was ended
NOTHING_AGAIN_AFTER_S: Final = 600.0  # where there was nothing to read: somebody may install a driver
SECOND_LOOK_S: Final = 1.0
ENDS_WITHIN_S: Final = 1.0  # after SIGKILL, unless the driver holds it
EXIT_NOTHING: Final = 3  # as the probe has it
LINE_BYTES_MAX: Final = 128 * 1024
WORDS_BYTES_MAX: Final = 2_000

log = structlog.get_logger()

_decoder = msgspec.json.Decoder(GpuReading)


class GpuProbe:
    """`told` is what is known of the node's GPUs while `run` runs."""

    def __init__(
        self,
        command: Sequence[str] = COMMAND,
        *,
        answers_within_s: float = ANSWERS_WITHIN_S,
        again_after_s: float = AGAIN_AFTER_S,
    ) -> None:
        self._command = command
        self._answers_within_s = answers_within_s
        self._again_after_s = again_after_s
        self._readings = Readings()
        self._said: str | None = None  # why nothing is read, as the log said last

    @property
    def told(self) -> tuple[Gpu, ...] | None:
        return self._readings.told

    def state(self) -> dict[str, Any]:
        """For whoever looks at the guard's health."""
        if self.told is None:
            return {}
        return {"gpus": len(self.told), "gpus_unhealthy": self._readings.unhealthy}

    async def run(self) -> None:
        """Until cancelled. Whatever becomes of the child, nothing is raised."""
        while True:
            pause_s = self._again_after_s
            try:
                process = await self._start()
            except OSError as error:
                self._nothing(str(error))
            else:
                try:
                    pause_s = await self._follow(process)
                finally:
                    await _kill(process)  # also where it was cancelled while it waited for just that
                    _close(process)
            await asyncio.sleep(pause_s)

    async def _start(self) -> Process:
        streams: Any = {"stdin": DEVNULL, "stdout": PIPE, "stderr": PIPE}
        return await asyncio.create_subprocess_exec(
            *self._command, **streams, limit=LINE_BYTES_MAX, start_new_session=True
        )

    async def _follow(self, process: Process) -> float:
        """Until the child has ended; after how long to start another."""
        hangs = await self._read_lines(process)
        await _kill(process)
        if hangs:
            self._tell(self._readings.silent)
            log.error("gpus.no_answer", pid=process.pid, within_s=self._answers_within_s)
            await process.wait()  # never two of them
            return self._again_after_s
        self._nothing(await _last_words(process))
        return NOTHING_AGAIN_AFTER_S if process.returncode == EXIT_NOTHING else self._again_after_s

    async def _read_lines(self, process: Process) -> bool:
        """True when one is overdue; False when no more will come, or none that could be used."""
        assert process.stdout is not None
        while True:
            try:
                line = await self._line(process.stdout)
                if not line:
                    return False
                reading = _decoder.decode(line)
            except TimeoutError:
                return True
            except (OSError, ValueError, *UNREADABLE) as error:  # the second of a line too long
                log.error("gpus.unreadable", error=str(error))
                return False
            self._said = None
            self._tell(partial(self._readings.read, reading))

    async def _line(self, stream: asyncio.StreamReader) -> bytes:
        """TimeoutError when none comes. If it was this process that stood still, the line is there at a second look."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._answers_within_s):
                return await stream.readline()
        async with asyncio.timeout(SECOND_LOOK_S):
            return await stream.readline()

    def _nothing(self, why: str) -> None:
        """Said once, not at every try."""
        self._readings.lost()
        if why != self._said:
            log.info("gpus.none", why=why)
        self._said = why

    def _tell(self, change: Callable[[], None]) -> None:
        """Make the change; the log says what is new."""
        before = {gpu.uuid: _faults(gpu) for gpu in self.told or ()}
        first = self.told is None
        change()
        if self.told is None:
            return
        if first or len(before) != len(self.told):
            products = sorted({gpu.product for gpu in self.told})
            log.info("gpus.read", count=len(self.told), products=products)
        for gpu in self.told:
            faults = _faults(gpu)
            if faults != before.get(gpu.uuid, ""):
                (log.warning if faults else log.info)("gpu.faults", uuid=gpu.uuid, product=gpu.product, faults=faults)


def _faults(gpu: Gpu) -> str:
    own = [*gpu.faults, *(f"{one.id}: {fault}" for one in gpu.instances or () for fault in one.faults)]
    return ", ".join(own)


async def _kill(process: Process) -> None:
    """It has ended afterwards, unless the driver holds it."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ENDS_WITHIN_S):
            await process.wait()


def _close(process: Process) -> None:
    """Its pipes: asyncio leaves one open that was not read to its end, and has no other way to say so."""
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001


async def _last_words(process: Process) -> str:
    assert process.stderr is not None
    words = b""
    with contextlib.suppress(OSError):  # a time-out is one
        async with asyncio.timeout(ENDS_WITHIN_S):
            words = await process.stderr.read(WORDS_BYTES_MAX)
    lines = words.decode(errors="replace").split("\n")
    said = next((line for line in reversed(lines) if line.strip()), "")
    return said or f"the probe ended with {process.returncode}"
