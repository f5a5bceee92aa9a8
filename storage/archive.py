"""Where entries go when the journal no longer needs them: the same bytes under another name, for audits only.

Servers never read them. Their chain of digests still holds, so that `verify` can walk it.
"""

from __future__ import annotations

from typing import Final

from storage.blob import BlobName
from storage.entry import entry_name

ARCHIVE_PREFIX: Final = "archive/"


def archived_name(seq: int) -> BlobName:
    """Name of an archived entry; spread over prefixes as in the journal."""
    return BlobName(f"{ARCHIVE_PREFIX}{entry_name(seq).removeprefix('journal/')}")
