"""Finished groups after their time in memory: packed into parts, which the store keeps, and found again there.

What a part holds follows from the state alone, so whoever leads writes the same one under the same name; the record
`Archived` then lets every server forget those groups. A group is in memory until that record landed, or in the part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

import msgspec

from federation.core.dump import stored_class, stored_group
from federation.core.history import as_array
from federation.core.load import group_row
from federation.core.records import Archived
from federation.core.rows import GroupRow
from federation.core.shards import StoredClass, StoredGroup, UnreadableShardError, decode_groups, encode_item
from federation.core.state import State
from federation.core.stored import charge_of, request_of
from placement.model import ClusterName, Lineage
from storage.blob import BlobName
from storage.finished import decode_part, encode_part, part_name

PART_ROWS_MAX: Final = 192  # so that what finds them in a part fits beside the rest of a record of 1 KiB
PART_BYTES_MAX: Final = 256 * 1024  # of histories: as a shard of a snapshot, packed in 4 ms
KEY_BITS: Final = 20 * 2 * PART_ROWS_MAX  # a uid and a name each: of 2,000 that are not there, one seems to be
KEY_PROBES: Final = 5

_NO_LINEAGE: Final = Lineage("")  # then uids and tokens are stored whole: parts outlive lineages


class Part(msgspec.Struct, frozen=True):
    """What one blob of the archive holds. Unknown fields of later versions are ignored."""

    number: int
    count: int
    body: bytes
    classes: tuple[StoredClass, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Part)


def is_due(state: State) -> bool:
    """Whether a whole part's worth of groups waits for the archive."""
    return len(state.leaving) >= PART_ROWS_MAX or state.leaving_bytes >= PART_BYTES_MAX


def next_part(state: State) -> bytes:
    """The blob of the part that comes next. Equal states give equal bytes."""
    rows = list(_first(state.leaving.values()))
    classes = {row.request: None for row in rows}
    index_of = {request: index for index, request in enumerate(classes)}
    body = b"".join(encode_item(stored_group(row, _NO_LINEAGE, index_of[row.request])) for row in rows)
    number = state.parts_count + 1
    part = Part(number, len(rows), body, tuple(stored_class(request) for request in classes))
    return encode_part(number, _encoder.encode(part))


def _first(rows: Iterable[GroupRow]) -> Iterator[GroupRow]:
    size = 0
    for row in islice(rows, PART_ROWS_MAX):
        yield row
        size += len(row.history_packed)
        if size >= PART_BYTES_MAX:
            return


def rows_of(number: int, data: bytes, digest: bytes = b"") -> list[GroupRow]:
    """The groups of a part, first to leave first. CorruptError or UnreadableShardError when it is not that part."""
    raw = decode_part(number, data, digest)
    name = part_name(number)
    try:
        part = _decoder.decode(raw)
        stored: list[StoredGroup] = decode_groups(as_array(part.body, part.count))
        known = [(request, charge_of(request)) for request in map(request_of, part.classes)]
        return [group_row(one, known[one.request], ClusterName(""), _NO_LINEAGE) for one in stored]
    except (msgspec.MsgspecError, LookupError) as error:
        raise UnreadableShardError(name, str(error)) from error


def archived(number: int, data: bytes, *, at_ms: int, actor: str) -> Archived:
    """The record that says what the part with these bytes holds."""
    rows = rows_of(number, data)
    keys = keys_of(key for row in rows for key in (row.uid, name_key(row.namespace, row.name)))
    return Archived(
        actor=actor,
        at_ms=at_ms,
        part=number,
        count=len(rows),
        last=rows[-1].uid,
        digest=hashlib.sha256(data).digest(),
        keys=keys,
    )


# --- which part may hold a group: a Bloom filter (B. Bloom, CACM 13(7), 1970) -----------------------------------------


def name_key(namespace: str, name: str) -> str:
    return f"{namespace}/{name}"


def keys_of(keys: Iterable[str]) -> bytes:
    bits = bytearray(KEY_BITS // 8)
    for key in keys:
        for probe in _probes(key):
            bits[probe >> 3] |= 1 << (probe & 7)
    return bytes(bits)


def may_hold(keys: bytes, probes: tuple[int, ...]) -> bool:
    """False only where the part surely does not hold the key with these probes."""
    return len(keys) * 8 != KEY_BITS or all(keys[probe >> 3] >> (probe & 7) & 1 for probe in probes)


def _probes(key: str) -> tuple[int, ...]:
    digest = hashlib.blake2b(key.encode(), digest_size=4 * KEY_PROBES).digest()
    return tuple(int.from_bytes(digest[at : at + 4], "big") % KEY_BITS for at in range(0, len(digest), 4))


def parts_with(state: State, ref: str, namespace: str) -> list[tuple[int, bytes]]:
    """(number, digest) of the parts that may hold a group of this uid or name, newest first."""
    wanted = [_probes(ref), _probes(name_key(namespace, ref))]
    return [
        (part.part, part.digest)
        for part in reversed(state.parts)
        if any(may_hold(part.keys, probes) for probes in wanted)
    ]


def blob_of(number: int) -> BlobName:
    return part_name(number)
