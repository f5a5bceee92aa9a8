"""Where entries go when the journal no longer needs them: the same bytes under another name, for audits only.

Servers never read them; the decision log and `verify` do. The chain of digests goes through them as before.
"""

from __future__ import annotations

from typing import Final

from storage.blob import Blob, BlobName, BlobStore
from storage.entry import ENTRIES_PREFIX, PREFIX_COUNT, entry_name, seq_of_entry

ARCHIVE_PREFIX: Final = "archive/"


def archived_name(seq: int) -> BlobName:
    """Name of an archived entry; spread over prefixes as in the journal."""
    return BlobName(f"{ARCHIVE_PREFIX}{entry_name(seq).removeprefix('journal/')}")


def seq_of_archived(name: str) -> int | None:
    """Inverse of `archived_name`; None for what is no archived entry's name."""
    return (
        seq_of_entry(f"{ENTRIES_PREFIX}{name.removeprefix(ARCHIVE_PREFIX)}")
        if name.startswith(ARCHIVE_PREFIX)
        else None
    )


def kept_entry(store: BlobStore, seq: int, gc_floor: int) -> tuple[BlobName, Blob] | None:
    """An entry and where it is: in the journal, or in the archive.

    Up to the floor the archive is right. A name that was collected may be in the journal once more: a leader that was
    paused wakes up after the collection and appends what follows its last entry. That counts for nobody.
    """
    names = (entry_name(seq), archived_name(seq))
    for name in reversed(names) if seq <= gc_floor else names:
        blob = store.get(name)
        if blob is not None:
            return name, blob
    return None


def oldest_kept(store: BlobStore, gc_floor: int) -> int:
    """The first entry from which on all should be there: the oldest archived one, or the first above the floor."""
    first = [
        int(names[0].rpartition("/")[2])
        for spread in range(PREFIX_COUNT if gc_floor else 0)
        if (names := store.list(f"{ARCHIVE_PREFIX}{spread:02x}/", limit=1))
    ]
    return min([*first, gc_floor + 1])
