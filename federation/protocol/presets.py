"""Named sets of durations (DESIGN §11): lease classes for production, and a scaled-down set for demos and drills.

Server and agents of a fleet use the same set. A cluster's lease class is a name that manifests choose by, no more.
"""

from __future__ import annotations

from typing import Final

import msgspec

from federation.protocol.lease import Timings

DEFAULT: Final = Timings()
FAST: Final = Timings(ttl_s=30.0, local_lease_s=5.0)
CAREFUL: Final = Timings(ttl_s=600.0, local_lease_s=15.0)
DEMO: Final = Timings(
    ttl_s=6.0,
    heartbeat_s=1.0,
    silent_after_s=3.0,
    view_stale_s=6.0,
    fence_margin_s=2.0,
    undo_s=12.0,
    undo_grace_s=2.0,
    desired_poll_s=2.0,
    ask_timeout_s=1.0,
    report_full_s=10.0,
    local_lease_s=2.0,
    bind_deadline_s=30.0,
    lease_read_s=0.5,
)

PRESETS: Final[dict[str, Timings]] = {"default": DEFAULT, "fast": FAST, "careful": CAREFUL, "demo": DEMO}


class UnknownPresetError(ValueError):
    """No such preset; the message lists those there are."""

    def __init__(self, name: str) -> None:
        super().__init__(f"preset {name!r} is unknown; known: {', '.join(sorted(PRESETS))}")


def preset(name: str, **changes: float) -> Timings:
    """The preset of this name with `changes` applied."""
    if name not in PRESETS:
        raise UnknownPresetError(name)
    return msgspec.structs.replace(PRESETS[name], **changes)
