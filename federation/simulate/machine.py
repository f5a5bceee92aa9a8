"""What a benchmark ran on: figures without it say nothing."""

from __future__ import annotations

import os
import platform
import sqlite3
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

KIB_PER_MIB: Final = 1024
CPU_FACTS: Final = Path("/proc/cpuinfo")
MEMORY_FACTS: Final = Path("/proc/meminfo")
OWN_FACTS: Final = Path("/proc/self/status")
SCHEDULER_FACTS: Final = Path("/proc/thread-self/schedstat")  # ns on a core, ns waiting for one, turns
NS_PER_S: Final = 1_000_000_000


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Empty or zero where the system does not tell."""

    cpu: str
    cpus: int
    load_average: float  # of the last minute, at the start: what else was running
    memory_mib: int
    system: str
    python: str
    numpy: str
    sqlite: str


def machine() -> Machine:
    """The machine as it is now."""
    return Machine(
        cpu=_fact(CPU_FACTS, "model name"),
        cpus=len(os.sched_getaffinity(0)),
        load_average=round(os.getloadavg()[0], 2),
        memory_mib=_kib(MEMORY_FACTS, "MemTotal") // KIB_PER_MIB,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        numpy=np.__version__,
        sqlite=sqlite3.sqlite_version,
    )


def cpu_wait_s() -> float:
    """How long this thread has been ready to run so far while others had the cores."""
    try:
        fields = SCHEDULER_FACTS.read_text(encoding="utf-8").split()
    except OSError:
        return 0.0
    return int(fields[1]) / NS_PER_S


def memory_peak_mib() -> int:
    """The most memory that this process has held so far."""
    return _kib(OWN_FACTS, "VmHWM") // KIB_PER_MIB


def _kib(file: Path, key: str) -> int:
    found = _fact(file, key).split()
    return int(found[0]) if found else 0


def _fact(file: Path, key: str) -> str:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")
