"""Named moments at which a test may kill the agent (DESIGN §13). Inactive unless MUSTER_FAILPOINT names one.

`MUSTER_FAILPOINT=<name>[:<k>[:<file>]]`: the process kills itself with SIGKILL at the k-th time (1 by default) the
moment is reached. With a file, only while that file exists, which is removed first: so a restarted agent survives it.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from enum import StrEnum, unique
from pathlib import Path
from typing import Final

ENVIRONMENT: Final = "MUSTER_FAILPOINT"


@unique
class Failpoint(StrEnum):
    AGENT_BEFORE_INTENT = "agent-before-intent"
    AGENT_AFTER_INTENT = "agent-after-intent"
    AGENT_AFTER_BINDING = "agent-after-binding"
    AGENT_BEFORE_VERDICT = "agent-before-verdict"


class FailpointError(ValueError):
    """MUSTER_FAILPOINT is not `<name>[:<k>[:<file>]]`."""


@dataclass(slots=True)
class Failpoints:
    """At most one is active in a process."""

    active: Failpoint | None = None
    at_count: int = 1
    file: Path | None = None
    _reached: dict[Failpoint, int] = field(default_factory=dict)

    @classmethod
    def from_text(cls, text: str) -> Failpoints:
        """None active for an empty text."""
        if not text:
            return cls()
        name, _, rest = text.partition(":")
        count, _, file = rest.partition(":")
        try:
            return cls(Failpoint(name), int(count or 1), Path(file) if file else None)
        except ValueError as error:
            raise FailpointError(f"{ENVIRONMENT}={text!r}: {error}") from error

    def reach(self, point: Failpoint) -> None:
        """Kill this process if `point` is active and this is the time for it."""
        if point is not self.active:
            return
        self._reached[point] = self._reached.get(point, 0) + 1
        if self._reached[point] != self.at_count:
            return
        if self.file is not None:
            if not self.file.exists():
                return
            self.file.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
