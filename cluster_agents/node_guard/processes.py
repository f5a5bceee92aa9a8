"""The processes of containers, found by their control groups and signalled by file descriptors that cannot be reused.

A runtime puts the id of a container, 64 hex digits, into the path of its control group, whichever version of them and
whichever driver; so nothing of the runtime is needed to find and end what it started.
"""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

PROC: Final = Path("/proc")
_ID: Final = re.compile(rb"[0-9a-f]{64}")
_STAT: Final = re.compile(rb".*\) \S (\d+) ", re.DOTALL)  # the name may hold anything, then state and parent
_ENDED: Final = frozenset({errno.ESRCH, errno.EINVAL})  # there is no such process, or it is a thread of another

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    container: str
    root: bool  # nobody of the same container started it


def of_containers(ids: Collection[str], proc: Path = PROC) -> list[Process]:
    """All processes of these containers, by pid. OSError where that cannot be known. O(processes of the node)."""
    homes: dict[int, str] = {}
    for entry in proc.iterdir():
        if entry.name.isdigit() and (found := _container(int(entry.name), ids, proc)):
            homes[int(entry.name)] = found
    parents = {pid: _parent(pid, proc) for pid in homes}
    return [Process(pid, homes[pid], homes.get(parents[pid]) != homes[pid]) for pid in sorted(homes)]


def send(process: Process, number: signal.Signals, proc: Path = PROC) -> bool:
    """Signal it if it is still of its container; False when it has ended. Never raises: one that cannot be signalled
    must not keep the others from it."""
    try:
        return _send(process, number, proc)
    except OSError as error:
        if error.errno not in _ENDED:
            log.error("guard.signal_failed", pid=process.pid, container=process.container, error=str(error))
        return False


def _send(process: Process, number: signal.Signals, proc: Path) -> bool:
    handle = os.pidfd_open(process.pid)
    try:
        if not _container(process.pid, {process.container}, proc):
            return False  # another process has its number by now
        signal.pidfd_send_signal(handle, number)
    finally:
        os.close(handle)
    return True


def _container(pid: int, ids: Collection[str], proc: Path) -> str:
    """Which of these it is of; empty where it is of none or has ended. A container may run containers of its own, and
    name groups as it likes."""
    found = (one.decode() for one in _ID.findall(_bytes_of(pid, "cgroup", proc)))
    return next((one for one in found if one in ids), "")


def _parent(pid: int, proc: Path) -> int:
    found = _STAT.match(_bytes_of(pid, "stat", proc))
    return int(found[1]) if found else 0


def _bytes_of(pid: int, name: str, proc: Path) -> bytes:
    """Nothing of one that has ended; what cannot be read for another reason is no sign of that, and raises OSError.

    Not text: a process may call itself what is no UTF-8, and a name that is cut off after 15 bytes often is none.
    """
    try:
        return (proc / str(pid) / name).read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
