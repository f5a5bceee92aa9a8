"""What came with which format of the store: `root.format` says what may be written, so that every server reads it.

A new kind of record or of shard gets a row here, and its writer asks `Journal.format` before it writes one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from federation.core.records import (
    AnyRecord,
    Archived,
    ClusterRemoved,
    Quarantined,
    Recreated,
    Resized,
    Sized,
    SubmittedChild,
)
from storage.root import FORMAT_FIRST

ARCHIVE: Final = 2
"""Groups that ended long ago go into parts: the record `Archived`, and shards of who waits and of the parts. Below it
they are forgotten with the next start, as older versions do."""

RECREATION: Final = 3
"""Groups that a backup lacks are made again from what clusters kept of them: the record `Recreated`. Below it they are
stopped, as in older versions."""

RESIZING: Final = 3
"""Elastic groups grow and shrink where they run: the records `Resized` and `Sized`. The same format as that of
`RECREATION`: no version was released between the two."""

SPREAD: Final = 4
"""Spread groups are taken: the record `SubmittedChild`. Below it they are refused."""

REMOVAL: Final = 5
"""Clusters leave the fleet: the record `ClusterRemoved`. Below it that is refused."""

QUARANTINE: Final = 5
"""Groups that fail wherever they go wait for a person: the record `Quarantined`. Below it they are tried for ever. The
same format as that of `REMOVAL`: no version was released between the two."""

RECORD_FORMATS: Final[dict[type[AnyRecord], int]] = {
    Archived: ARCHIVE,
    ClusterRemoved: REMOVAL,
    Quarantined: QUARANTINE,
    Recreated: RECREATION,
    Resized: RESIZING,
    Sized: RESIZING,
    SubmittedChild: SPREAD,
}
"""All other kinds are read by every version."""


def newest(records: Iterable[AnyRecord]) -> int:
    """The lowest format of which a store must be for these records to be written."""
    kinds: set[type[AnyRecord]] = set()
    for record in records:
        kinds.add(type(record))
        if isinstance(record, Recreated):
            kinds.add(type(record.submitted))
    return max((RECORD_FORMATS.get(kind, FORMAT_FIRST) for kind in kinds), default=FORMAT_FIRST)
