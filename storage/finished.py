"""Names and bytes of the parts in which finished groups are kept. What a part holds is not known here.

They are no part of a snapshot, and nothing in the journal needs them: no collection ever touches them.
"""

from __future__ import annotations

from typing import Final

from storage.blob import BlobName, BlobStore
from storage.errors import CorruptError
from storage.reading import list_names
from storage.snapshot import decode_shard, encode_shard

FINISHED_PREFIX: Final = "finished/"


def part_name(number: int) -> BlobName:
    """Parts are numbered from 1 and never change."""
    return BlobName(f"{FINISHED_PREFIX}{number:016d}")


def encode_part(number: int, raw: bytes) -> bytes:
    """The blob to store; equal arguments give equal bytes. LimitError when it is larger than every store takes."""
    return encode_shard(part_name(number), raw)


def decode_part(number: int, data: bytes, digest: bytes = b"") -> bytes:
    """What `encode_part` was given; CorruptError when it is not that part, or not the one with this digest."""
    return decode_shard(part_name(number), data, digest)


def check_parts(store: BlobStore) -> int:
    """How many parts there are, each as it was written and none missing between the first and the last. O(parts).

    CorruptError names the first that is not. A bucket's lifecycle rule may have deleted the oldest.
    """
    expected = count = 0
    for name in list_names(store, FINISHED_PREFIX):
        digits = name.removeprefix(FINISHED_PREFIX)
        if not (digits.isascii() and digits.isdigit()):
            raise CorruptError(name, "it is no part's name")
        number = int(digits)
        if expected and number != expected:
            raise CorruptError(part_name(expected), f"it is missing, and {name} exists")
        blob = store.get(name)
        if blob is None:
            raise CorruptError(name, "it is gone")
        decode_part(number, blob.data)
        expected, count = number + 1, count + 1
    return count
