"""CPU seconds and memory of the processes of a fleet, from the system's own counters; and which part is the limit."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from federation.cli.local.fleet import LocalFleet

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
BUSY_SHARE: Final = 0.8  # of one core, or of the machine: above it, that is the limit
WAIT_SHARE: Final = 0.5  # of the wall time: a process that waited this long for a core was kept from running
CLIENT: Final = "client"  # the load's sender: this process


class Part(msgspec.Struct, frozen=True):
    """What all processes of one kind used. `cpu_wait_s`: ready to run, while others had the cores."""

    cpu_s: float
    cpu_wait_s: float
    cores: float  # CPU seconds per second
    memory_mib: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """The counters of all processes at one moment, by role."""

    at_s: float
    cpu_s: dict[str, float]
    wait_s: dict[str, float]


def readings(fleet: LocalFleet) -> Reading:
    """CPU seconds used and waited for so far by every process that runs, and by this one."""
    pids = {role: fleet.pid(role) for role in fleet.roles if fleet.alive(role)} | {CLIENT: os.getpid()}
    waits = {role: _wait_s(pid) for role, pid in pids.items()}
    return Reading(time.monotonic(), {role: _cpu_s(pid) for role, pid in pids.items()}, waits)


def parts(before: Reading, after: Reading, fleet: LocalFleet) -> dict[str, Part]:
    """What each kind of process used between two readings."""
    wall_s = after.at_s - before.at_s
    used = _by_kind(_difference(before.cpu_s, after.cpu_s))
    waited = _by_kind(_difference(before.wait_s, after.wait_s))
    memory = _by_kind({role: _memory_mib(os.getpid() if role == CLIENT else fleet.pid(role)) for role in after.cpu_s})
    return {
        kind: Part(round(used[kind], 2), round(waited[kind], 2), round(used[kind] / wall_s, 2), int(memory[kind]))
        for kind in sorted(used)
    }


def limit(before: Reading, after: Reading, cpus: int) -> str:
    """Which part keeps it from going faster, in words."""
    wall_s = after.at_s - before.at_s
    used, waited = _difference(before.cpu_s, after.cpu_s), _difference(before.wait_s, after.wait_s)
    kinds = _by_kind(used)
    total, largest = sum(kinds.values()) / wall_s, max(kinds, key=lambda kind: (kinds[kind], kind))
    shown = f"{total:.2f} of {cpus} cores used, most by {largest} ({kinds[largest] / wall_s:.2f})"
    busiest = max(used, key=lambda role: (used[role], role))
    starved = max(waited, key=lambda role: (waited[role], role))
    if used[busiest] / wall_s >= BUSY_SHARE:
        return f"{busiest}: one process, {used[busiest] / wall_s:.0%} of a core"
    if total >= BUSY_SHARE * cpus:
        return f"the machine: {shown}"
    if waited[starved] / wall_s >= WAIT_SHARE:
        share = f"{waited[starved] / wall_s:.0%} of the time"
        return f"other work on this machine: {starved} was ready but had no core for {share}; {shown}"
    return f"waiting, not computing: {shown}"


def _by_kind(by_role: Mapping[str, float]) -> dict[str, float]:
    """`agent/c-1` and `agent/c-2` are one part."""
    found: dict[str, float] = {}
    for role, value in by_role.items():
        kind = role.partition("/")[0]
        found[kind] = found.get(kind, 0.0) + value
    return found


def _difference(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {role: value - before.get(role, 0.0) for role, value in after.items()}


def _cpu_s(pid: int) -> float:
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _wait_s(pid: int) -> float:
    """Of all its threads; 0 where the kernel does not count it."""
    tasks = (Path("/proc") / str(pid) / "task").glob("*/schedstat")
    try:
        return sum(int(task.read_text().split()[1]) for task in tasks) / 1e9
    except (OSError, IndexError):
        return 0.0


def _memory_mib(pid: int) -> int:
    status = (Path("/proc") / str(pid) / "status").read_text()
    line = next((line for line in status.splitlines() if line.startswith("VmRSS:")), "VmRSS: 0 kB")
    return int(line.split()[1]) // 1024
