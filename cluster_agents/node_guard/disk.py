"""What a guard leaves on its node for its next start: what to stop and what may run on.

One small file, replaced as a whole. Nothing in it outlives the boot, since no container does; so it is not forced to
the disk, which may take longer than a runtime waits. What cannot be read counts as nothing, until the runtime lists.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
import structlog

from cluster_agents.node_guard.containers import Container
from federation.protocol.messages import UNREADABLE

NAME: Final = "guard.json"
BYTES_MAX: Final = 64 * 1024 * 1024  # as many containers as a runtime may list, 4 KiB each

log = structlog.get_logger()


class Kept(msgspec.Struct, frozen=True):
    hold: tuple[str, ...] = ()  # tokens that may be held past the deadline, by the agent's newest answer
    containers: tuple[Container, ...] = ()
    stopping: dict[str, float] = {}  # ids of those that were asked to end, with the time of that by the guard's clock


class Disk:
    """`folder` is there and can be written, or OSError."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / NAME
        self._written = self._read()
        self._fails = False

    @property
    def kept(self) -> Kept:
        return self._written

    def keep(self, wanted: Kept) -> None:
        """There for the next start on return, or told in the log and tried again: a guard goes on without."""
        if wanted == self._written:
            return
        try:
            _replace(self._path, msgspec.json.encode(wanted))
        except OSError as error:
            if not self._fails:
                log.error("guard.disk_failed", path=str(self._path), error=str(error))
            self._fails = True
            return
        self._written, self._fails = wanted, False

    def _read(self) -> Kept:
        try:
            with self._path.open("rb") as file:
                return msgspec.json.decode(file.read(BYTES_MAX), type=Kept)
        except FileNotFoundError:
            return Kept()
        except (OSError, AssertionError, *UNREADABLE) as error:
            log.warning("guard.disk_unreadable", path=str(self._path), error=str(error))
            return Kept()


def _replace(path: Path, data: bytes) -> None:
    scratch = path.with_suffix(".tmp")
    scratch.write_bytes(data)
    scratch.replace(path)
