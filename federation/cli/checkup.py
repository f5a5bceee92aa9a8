"""What `muster doctor` looks at: this installation, its binaries, the fleet on this machine, and the server in use.

Each check answers with findings; none changes anything.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum, unique
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from federation.cli.errors import CliError
from federation.cli.local import commands, nats, ports, processes, state
from federation.protocol.packages import DISTRIBUTION, REMEDY, strangers

if TYPE_CHECKING:
    from muster.results import ClusterView

PYTHON_MIN: Final = (3, 11)
NATS_FIXED: Final = {(2, 11): (2, 11, 16), (2, 12): (2, 12, 7)}  # where older lines got the repairs of 2.14
NATS_MIN: Final = (2, 14, 0)
DISK_FREE_MIN: Final = 1024**3  # a journal of a busy day, and the logs beside it
REPORT_AGE_MAX_S: Final = 30.0  # an older view gets no placements
PROGRAMS: Final = ("muster-server", "muster-agent", "muster-simkube")


@unique
class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing looked at, how it is, and what to do where it is not well."""

    check: str
    level: Level
    detail: str
    remedy: str = ""


def installation(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Python, our packages and programs, and the broker's binary."""
    python = sys.version_info
    shown = f"{python.major}.{python.minor}.{python.micro} at {sys.executable}"
    yield _finding("python", python >= PYTHON_MIN, shown, "use Python 3.11 or newer")
    import muster

    try:
        installed = importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        installed = "not installed"
    same = installed == muster.__version__
    yield _finding("version", same, f"{DISTRIBUTION} {installed}, package {muster.__version__}", REMEDY)
    found = strangers()
    detail = "; ".join(str(one) for one in found) or "all of them are ours"
    yield _finding("packages", not found, detail, REMEDY)
    for program in PROGRAMS:
        try:
            yield Finding(program, Level.OK, commands.program(program))
        except CliError as error:
            yield Finding(program, Level.FAIL, error.what, error.remedy)
    yield _broker(environment)


def _broker(environment: Mapping[str, str]) -> Finding:
    try:
        path = nats.binary(environment)
    except CliError as error:
        return Finding("nats-server", Level.WARN, error.what, f"{error.remedy}; needed by `muster up` only")
    said = subprocess.run(  # noqa: S603 - the binary that `up` would run
        [str(path), "--version"], capture_output=True, text=True, check=False
    ).stdout
    version = broker_version(said)
    detail = f"{'.'.join(map(str, version)) if version else said.strip()!r} at {path}"
    return _finding("nats-server", broker_is_sound(version), detail, "install 2.14 or newer (or 2.12.7, 2.11.16)")


def broker_version(said: str) -> tuple[int, ...]:
    """`nats-server: v2.15.1` as numbers; empty if it says nothing of the kind."""
    found = re.search(r"v(\d+)\.(\d+)\.(\d+)", said)
    return tuple(int(part) for part in found.groups()) if found else ()


def broker_is_sound(version: tuple[int, ...]) -> bool:
    """Whether it has the repairs that the bus relies on."""
    return bool(version) and version >= NATS_FIXED.get((version[0], version[1]), NATS_MIN)


def local_fleet(root: Path) -> Iterator[Finding]:
    """The fleet in this folder: its files, processes and ports; nothing to find where there is none."""
    folder = state.FleetDir(root)
    try:
        known = state.load(folder)
    except CliError as error:
        yield Finding("fleet", Level.FAIL, error.what, error.remedy)
        return
    if known is None:
        yield Finding("fleet", Level.OK, f"none in {root}; `muster up` starts one")
        return
    yield Finding("fleet", Level.OK, f"{root}: {len(known.clusters)} clusters, preset {known.preset}")
    yield from _files(folder)
    yield from _processes(folder, known)


def _files(folder: state.FleetDir) -> Iterator[Finding]:
    secrets = [folder.tokens, *sorted(folder.credentials.glob("*"))]
    loose = [path for path in secrets if path.exists() and path.stat().st_mode & 0o077]
    detail = f"{loose[0]} can be read by others" if loose else f"{len(secrets)} files, for their owner only"
    yield _finding("secrets", not loose, detail, f"chmod 600 {loose[0]}" if loose else "")
    free = shutil.disk_usage(folder.root).free
    detail = f"{free // 1024**2} MiB free for {folder.root}"
    yield _finding("disk", free >= DISK_FREE_MIN, detail, "make room: a full disk stops the journal", bad=Level.WARN)


def _processes(folder: state.FleetDir, known: state.FleetState) -> Iterator[Finding]:
    for role in commands.roles(known):
        port = known.ports.get(role, 0)
        if processes.alive(known.processes.get(role)):
            detail = f"pid {known.processes[role].pid}, port {port}"
            yield _finding(
                role, ports.listening(port), f"{detail}: runs", f"it does not listen: see {folder.log(role)}"
            )
        elif port and not ports.free(port):
            yield Finding(role, Level.FAIL, f"port {port} is taken by another process", "stop that one, then muster up")
        else:
            yield Finding(role, Level.WARN, "does not run", f"`muster up` starts it again; see {folder.log(role)}")


def server(readiness: Mapping[str, object]) -> Iterator[Finding]:
    """What the server says of itself: role, store and bus."""
    shown = f"{readiness.get('name')} {readiness.get('role')}, term {readiness.get('term')}"
    yield _finding(
        "server", bool(readiness.get("ready")), shown, "it catches up with the journal: wait, or see its log"
    )
    stalled = bool(readiness.get("stalled"))
    trouble = str(readiness.get("store_trouble") or "")
    detail = f"position {readiness.get('position')}" + (
        f", stalled: {trouble or 'the outcome of a write is unknown'}" if stalled else ""
    )
    yield _finding("store", not stalled, detail, "see that the store can be reached; it goes on by itself")
    if readiness.get("recovering"):
        names = readiness.get("waiting_for")
        waits = ", ".join(map(str, names)) if isinstance(names, list) and names else "nobody any more"
        remedy = "start their agents, or `muster cluster confirm-dead` those that are gone"
        yield Finding("recovery", Level.WARN, f"restored from a backup, waiting for {waits}", remedy)
    bus = bool(readiness.get("bus"))
    detail = "connected" if bus else "not connected: agents use HTTPS alone, which is slower"
    yield _finding("bus", bus, detail, "see that the broker runs and knows the server's key", bad=Level.WARN)


def clusters(views: Sequence[ClusterView]) -> Iterator[Finding]:
    """Each cluster's agent, as the server hears it."""
    if not views:
        yield Finding("clusters", Level.WARN, "none has joined", "muster cluster join NAME, then start its agent")
    for view in views:
        name, status = f"cluster/{view.metadata.name}", view.status
        age = "never reported" if status.report_age_s is None else f"report {status.report_age_s:.1f} s old"
        fresh = status.report_age_s is not None and status.report_age_s <= REPORT_AGE_MAX_S
        well = status.state == "Active" and fresh
        detail = f"{status.state}, {age}, fence {status.fence_strength or 'unknown'}"
        yield _finding(name, well, detail, f"see its agent's log, and `muster describe {name}`")


def _finding(check: str, well: bool, detail: str, remedy: str, *, bad: Level = Level.FAIL) -> Finding:  # noqa: FBT001 - the one fact
    return Finding(check, Level.OK, detail) if well else Finding(check, bad, detail, remedy)
