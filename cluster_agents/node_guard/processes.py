"""The processes of containers, found by their control groups and signalled by file descriptors that cannot be reused.

A runtime puts the id of a container, 64 hex digits, into the path of its control group, whichever version of them and
whichever driver; so nothing of the runtime is needed to find and end what it started.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
_ID: Final = re.compile(r"[0-9a-f]{64}")
_PARENT_FIELD: Final = 1  # of /proc/PID/stat, counted after the name: state, parent


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    container: str
    root: bool  # nobody of the same container started it


def of_containers(ids: Collection[str], proc: Path = PROC) -> list[Process]:
    """All processes of these containers, by pid. O(processes of the node)."""
    homes: dict[int, str] = {}
    for entry in proc.iterdir():
        if entry.name.isdigit() and (found := _container(int(entry.name), ids, proc)):
            homes[int(entry.name)] = found
    parents = {pid: _parent(pid, proc) for pid in homes}
    return [Process(pid, homes[pid], homes.get(parents[pid]) != homes[pid]) for pid in sorted(homes)]


def send(process: Process, number: signal.Signals, proc: Path = PROC) -> bool:
    """Signal it if it is still of its container; False when it has ended."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:  # it has ended, or its leader has
        return False
    try:
        if not _container(process.pid, {process.container}, proc):
            return False  # another process has its number by now
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def _container(pid: int, ids: Collection[str], proc: Path) -> str:
    """Which of these it is of; empty where it is of none or has ended. A container may run containers of its own."""
    try:
        text = (proc / str(pid) / "cgroup").read_text()
    except OSError:
        return ""
    return next((found for found in _ID.findall(text) if found in ids), "")


def _parent(pid: int, proc: Path) -> int:
    try:
        text = (proc / str(pid) / "stat").read_text()
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[_PARENT_FIELD])
