"""What `muster store` finds out, as values: verified, counted, read. Shown by the command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from federation.core.decisions import decision_view, uid_of
from federation.core.records import Recreated, Submitted, decode_record
from placement.model import Lineage, Position
from storage.archive import oldest_kept
from storage.blob import BlobStore
from storage.entry import decode_entry, entry_name
from storage.errors import CorruptError
from storage.reading import entry_bounds, list_names, read_entries, read_root
from storage.verify import verify

NAMES_KEPT_MAX: Final = 1_000_000  # as many groups as may be pending; older ones are shown without their name


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether every entry is there and as it was written; if not, which is the first that is not."""

    kind: str = "StoreVerified"
    good: bool
    lineage: str
    first_seq: int
    entries: int
    records: int
    void: int
    term: int
    finished: int  # parts of the archive of groups
    head_digest: str
    bad_name: str = ""
    bad_seq: int = 0
    why: str = ""


class LastEntry(msgspec.Struct, frozen=True, kw_only=True):
    seq: int
    term: int
    kind: str
    writer: str
    records: int


class Stat(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a store, by names and root; no entry but the last is read."""

    kind: str = "StoreStat"
    format: int
    lineage: str
    snapshot_seq: int
    gc_floor: int
    first_seq: int
    last_seq: int
    entries: int
    position: int
    last: LastEntry | None
    blobs: dict[str, int]  # by the first part of their names


def verified(store: BlobStore) -> Verdict:
    """Read and prove the whole journal. O(entries)."""
    found = verify(store)
    bad = found.bad
    return Verdict(
        good=bad is None,
        lineage=found.lineage,
        first_seq=found.first_seq,
        entries=found.entry_count,
        records=found.record_count,
        void=found.void_count,
        term=found.term,
        finished=found.finished_count,
        head_digest=found.head_digest.hex(),
        bad_name=bad.name if bad else "",
        bad_seq=(bad.seq or 0) if isinstance(bad, CorruptError) else 0,
        why=str(bad) if bad else "",
    )


def counted(store: BlobStore) -> Stat:
    """Root, ends of the journal and number of blobs. O(names)."""
    root = read_root(store)
    first_seq, last_seq, entry_count = entry_bounds(store)
    last = _last(store, last_seq)
    return Stat(
        format=root.format,
        lineage=root.lineage,
        snapshot_seq=root.snapshot.seq if root.snapshot else 0,
        gc_floor=root.gc_floor,
        first_seq=first_seq,
        last_seq=last_seq,
        entries=entry_count,
        position=_position(last),
        last=last,
        blobs=dict(sorted(Counter(name.partition("/")[0] for name in list_names(store)).items())),
    )


def _last(store: BlobStore, seq: int) -> LastEntry | None:
    blob = store.get(entry_name(seq)) if seq else None
    if blob is None:
        return None
    header = decode_entry(blob.data, seq).header
    return LastEntry(seq=seq, term=header.term, kind=header.kind.value, writer=header.writer, records=header.count)


def _position(last: LastEntry | None) -> int:
    from storage.entry import position

    return position(last.seq, max(last.records - 1, 0)) if last else 0


def decisions(store: BlobStore, *, since: int = 0) -> Iterator[dict[str, Any]]:
    """Every record that counts above position `since`, oldest first, from as far back as the store has entries."""
    root = read_root(store)
    lineage = Lineage(root.lineage)
    names: dict[str, str] = {}
    for entry in read_entries(store, oldest_kept(store, root.gc_floor)):
        if entry.void:
            continue
        for index, data in enumerate(entry.records):
            position = Position(entry.first_position + index)
            record = decode_record(data, position)
            uid = uid_of(lineage, position, record)
            named = record.submitted if isinstance(record, Recreated) else record
            if isinstance(named, Submitted) and len(names) < NAMES_KEPT_MAX:
                names[uid] = named.name
            if position > since:
                yield decision_view(position, record, lineage=lineage, uid=uid, name=names.get(uid, ""))
