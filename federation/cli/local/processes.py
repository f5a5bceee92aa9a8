"""Processes that outlive us, told apart from others that later got the same number. Unix only."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

STOP_S: Final = 10.0  # time to end after SIGTERM; the server needs 3 for open watch streams
KILL_S: Final = 5.0  # SIGKILL takes effect at once; more means an uninterruptible wait in the kernel
POLL_S: Final = 0.05

_PROC: Final = Path("/proc")


class ProcessRecord(msgspec.Struct, frozen=True):
    """A process that we started: its number and when it began, which no later process of that number shares."""

    pid: int
    began: str


class StuckError(Exception):
    """A process is still there after SIGKILL."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"process {pid} does not end after SIGKILL")
        self.pid = pid


def start(command: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> ProcessRecord:
    """Run `command` in a session of its own, output appended to `log`. It goes on when we end."""
    log_flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawn(
        command[0],
        list(command),
        dict(environment),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), log_flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    return ProcessRecord(pid, began(pid) or "ended at once")


def alive(record: ProcessRecord | None) -> bool:
    """Whether exactly this process still runs. Reaps it if it was our child and has ended."""
    return record is not None and began(record.pid) == record.began


def began(pid: int) -> str | None:
    """When the process `pid` began, as text to compare; None when there is no such process or it has ended."""
    _reap(pid)
    if _PROC.is_dir():
        return _began_linux(pid)
    shown = subprocess.run(  # noqa: S603 - a fixed program and a number
        ("/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)),
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return None if not shown or shown.startswith("Z") else shown.partition(" ")[2].strip()


def _began_linux(pid: int) -> str | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold blanks and parentheses
    state, threads, started = fields[0], int(fields[17]), fields[19]
    if state in {"Z", "X"} and threads <= 1:  # while other threads are still dying, its files and ports are still open
        return None
    return f"{boot}:{started}"


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return  # another's child: its parent reaps it


def send(record: ProcessRecord, number: signal.Signals) -> bool:
    """Send a signal if exactly this process still runs."""
    if not alive(record):
        return False
    try:
        os.kill(record.pid, number)
    except ProcessLookupError:
        return False
    return True


def stop(records: Sequence[ProcessRecord], *, within_s: float = STOP_S) -> None:
    """End all of them: SIGTERM, then SIGKILL to those that do not heed it in time. None runs afterwards."""
    for record in records:
        send(record, signal.SIGTERM)
    if not wait_ended(records, within_s):
        kill(records)


def kill(records: Sequence[ProcessRecord]) -> None:
    """SIGKILL to all of them at once. None runs afterwards."""
    for record in records:
        send(record, signal.SIGKILL)
    if not wait_ended(records, KILL_S):
        raise StuckError(next(record.pid for record in records if alive(record)))


def wait_ended(records: Sequence[ProcessRecord], within_s: float) -> bool:
    """Whether all of them ended in time."""
    deadline_s = time.monotonic() + within_s
    while any(alive(record) for record in records):
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(POLL_S)
    return True
