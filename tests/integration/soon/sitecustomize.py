"""Servers that take snapshots every second and keep entries for four: Python loads this where the path begins here.

Production keeps entries for an hour, which no test waits for. Nothing else of the server differs.
"""

import sys
from dataclasses import replace
from functools import partial

if any(part.endswith("muster-server") for part in sys.orig_argv):
    from federation.core.snapshots import SnapshotRhythm
    from federation.server import process

    process.TAKEOVER_FAST = replace(process.TAKEOVER_FAST, keep_s=4.0, keep_entries=5)
    process.ReplicaConfig = partial(
        process.ReplicaConfig, snapshots=SnapshotRhythm(every_s=1.0, entries_min=1, idle_every_s=1.0)
    )
