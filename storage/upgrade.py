"""Raising the format that may be written, once every server reads it. Until then a new version writes the old one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from storage.blob import BlobStore, Outcome
from storage.errors import ContendedError, CorruptError
from storage.root import FORMAT, ROOT_NAME, decode_root, encode_root

TRIES_MAX: Final = 10
"""The root changes once a minute at most."""


@dataclass(frozen=True, slots=True)
class Upgraded:
    before: int
    after: int


def expect_format(store: BlobStore, format_max: int) -> None:
    """Raises UnsupportedFormatError where the journal is of a later format; StoreMovedError where it moved."""
    blob = store.get(ROOT_NAME)
    if blob is not None:
        decode_root(blob.data, reads=format_max)


def upgrade(store: BlobStore, *, nonce: str, to: int = FORMAT) -> Upgraded:
    """Have the root say that format `to` may be written; nothing changes where it does. The caller has made sure that
    no server is left that cannot read it. Raises UnsupportedFormatError when the root is of a later format.
    """
    for _ in range(TRIES_MAX):
        blob = store.get(ROOT_NAME)
        if blob is None:
            raise CorruptError(ROOT_NAME, "it is absent: there is no journal here")
        root = decode_root(blob.data)
        if root.format >= to:
            return Upgraded(root.format, root.format)
        raised = msgspec.structs.replace(root, format=to, nonce=nonce)
        if store.replace(ROOT_NAME, encode_root(raised), blob.version).outcome is Outcome.DONE:
            return Upgraded(root.format, to)
    raise ContendedError(ROOT_NAME, TRIES_MAX)
