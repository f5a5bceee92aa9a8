"""What a guard leaves in a container's termination message, so that its end is not taken for a failure of its own."""

from __future__ import annotations

import os
import stat
from typing import Final

import structlog

from cluster_agents.core.config import GUARD_STOPPED

KEPT_BYTES_MAX: Final = 512
"""Of what the container wrote: of a long message a kubelet reports the beginning, at most 12 KiB of all in a pod."""

log = structlog.get_logger()


def write_note(path: str) -> None:
    """Appended to what the container itself has written there. The file is its kubelet's: no link is followed and none
    is made. Where it cannot be written the container ends all the same, and counts as failed."""
    if not path:
        return
    try:
        # Without O_NONBLOCK a pipe that nobody reads would hold the guard for ever.
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise OSError("no file")
            if found.st_size > KEPT_BYTES_MAX:
                os.ftruncate(handle, KEPT_BYTES_MAX)
            os.write(handle, f"\n{GUARD_STOPPED}".encode())
        finally:
            os.close(handle)
    except OSError as error:
        log.warning("guard.note_failed", path=path, error=str(error))
