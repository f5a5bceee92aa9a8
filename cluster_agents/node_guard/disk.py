"""What a guard writes to its node's disk, so that its next start knows what to stop and what may run on.

One small file, replaced as a whole. What cannot be read counts as nothing: then more is stopped, never less.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec
import structlog

from cluster_agents.node_guard.containers import Container
from federation.protocol.messages import UNREADABLE

NAME: Final = "guard.json"
BYTES_MAX: Final = 4 * 1024 * 1024

log = structlog.get_logger()


class Kept(msgspec.Struct, frozen=True):
    hold: tuple[str, ...] = ()  # tokens that may be held past the deadline, by the agent's newest answer
    containers: tuple[Container, ...] = ()


class Disk:
    """`folder` is there and can be written, or OSError."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / NAME
        self._written = self._read()

    @property
    def kept(self) -> Kept:
        return self._written

    def keep(self, wanted: Kept) -> None:
        """On disk on return, or told in the log: a guard goes on without one, and stops more after its next start."""
        if wanted == self._written:
            return
        try:
            _replace(self._path, msgspec.json.encode(wanted))
        except OSError as error:
            log.error("guard.disk_failed", path=str(self._path), error=str(error))
        self._written = wanted

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
    with scratch.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
