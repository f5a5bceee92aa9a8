"""A backup becomes the store of a fleet again, in a new lineage whose first record says that it has to recover.

The backup is folded into a state, the state becomes a snapshot far beyond every number the lost journal may have used,
and the root is written last: until then there is nothing that a server would start from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from federation.cli.errors import CliError, ExitCode
from federation.cli.store.copies import Say, writing
from federation.cli.store.failures import told
from federation.core.dump import Dump
from federation.core.events import CallStore, Halt, Instant, ReplicaEffect, Started, StoreAnswered
from federation.core.formats import RECREATION
from federation.core.records import Restored, encode_record
from federation.core.replica import Replica, ReplicaConfig
from federation.core.state import State
from placement.model import NOWHERE, Lineage
from storage.backup import Manifest, put, read_manifest, view
from storage.blob import (
    BlobCreate,
    BlobDelete,
    BlobEffect,
    BlobEvent,
    BlobFailed,
    BlobReplace,
    BlobStore,
    BlobWritten,
    Outcome,
    perform,
)
from storage.entry import EntryHeader, EntryKind, digest, encode_entry, entry_name
from storage.errors import CorruptError
from storage.finished import FINISHED_PREFIX
from storage.open import open_existing
from storage.reading import list_names, read_root
from storage.root import FORMAT_FIRST, ROOT_NAME, Root, SnapshotPointer, encode_root, new_lineage
from storage.selftest import selftest
from storage.snapshot import Index, ShardRef, encode_index, encode_shard, index_name, shard_name
from storage.verify import verify

SEQ_JUMP: Final = 2**34
"""Numbers left to what the lost journal wrote after the backup: positions, tokens and floors only ever grow. At 1,800
entries a second that is 110 days, and there is room for 65,000 restores."""
SEQ_PER_MS: Final = 2
"""And to what an earlier restore of the same backup wrote since: twice as many entries as any store takes, for each
moment since the backup. What runs keeps its token, and no two tokens may stand at one position."""
WRITER: Final = "muster:restore"
ITEMS_PER_STEP: Final = 10_000
NOT_EMPTY: Final = ("journal/", "snapshot/", "leases/", "archive/", FINISHED_PREFIX)


class Restoration(msgspec.Struct, frozen=True, kw_only=True):
    """`made_ms`: what was acknowledged later is lost. `clusters`: who has to report before anything is placed."""

    kind: str = "StoreRestoration"
    backup: str
    target: str
    lineage_before: str
    lineage: str
    made_ms: int
    last_seq: int
    first_seq: int
    groups: int
    homes: int
    clusters: list[str]
    recreates: bool = False  # groups that were submitted later and run become groups again


def restored(backup_url: str, target_url: str, *, now_ms: int, nonce: str, say: Say) -> Restoration:
    """The store at `target_url`, which is empty, holds the fleet of the backup; servers may start on it."""
    with told():
        place = open_existing(backup_url)
        try:
            return _restored(place, backup_url, target_url, Facts(now_ms, nonce), say)
        finally:
            place.close()


@dataclass(frozen=True, slots=True)
class Facts:
    """When, and what makes this restore differ from every other."""

    now_ms: int
    nonce: str
    store_format: int = FORMAT_FIRST  # as in the backup: who went back to an older version restores for that one


def _restored(place: BlobStore, backup_url: str, target_url: str, facts: Facts, say: Say) -> Restoration:
    manifest = read_manifest(place)
    if manifest is None:
        raise CliError(
            f"{backup_url} holds no backup", "name the place that `store backup --to` wrote", ExitCode.NOT_FOUND
        )
    say("proving the backup")
    found = verify(view(place))
    if found.bad is not None or found.head_digest != manifest.head_digest:
        raise found.bad or CorruptError("backup", "it does not end where its manifest says")
    say("reading it")
    state = fold(view(place), facts.nonce)
    with writing(target_url, existing=False) as target:
        _expect_empty(target, target_url)
        selftest(target, nonce=facts.nonce)
        say("writing the store")
        lineage = _lineage_after(manifest.lineage, facts)
        for name in list_names(view(place), FINISHED_PREFIX):
            part = view(place).get(name)
            if part is not None:
                put(target, name, part.data)
        facts = replace(facts, store_format=read_root(view(place)).format)
        first_seq = write(target, state, manifest, lineage, facts, term=found.term)
    return Restoration(
        backup=backup_url,
        target=target_url,
        lineage_before=manifest.lineage,
        lineage=lineage,
        made_ms=manifest.made_ms,
        last_seq=manifest.last_seq,
        first_seq=first_seq,
        groups=len(state.groups),
        homes=sum(row.home is not None for row in state.groups.values()),
        clusters=sorted(state.clusters),
        recreates=facts.store_format >= RECREATION,
    )


def fold(store: BlobStore, nonce: str) -> State:
    """The state at the end of this journal, by a follower that never writes. CorruptError when it cannot be folded."""
    replica = Replica(ReplicaConfig(name=WRITER, seed=nonce))
    now = Instant(0.0, 0)
    waiting: deque[BlobEffect] = deque()

    def take(effects: Sequence[ReplicaEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Halt):
                raise CorruptError("journal", effect.why)
            if isinstance(effect, CallStore):
                waiting.append(effect.effect)

    take(replica.handle(Started(), now))
    while waiting:
        take(replica.handle(StoreAnswered(_looked(store, waiting.popleft())), now))
    if not replica.caught_up:
        raise CorruptError("journal", "it has no entries")
    return replica.state


def _looked(store: BlobStore, effect: BlobEffect) -> BlobEvent:
    if isinstance(effect, BlobCreate | BlobReplace):
        return BlobWritten(effect.op, Outcome.REFUSED)
    if isinstance(effect, BlobDelete):
        return BlobFailed(effect.op, "a backup is only read")
    return perform(store, effect)


def _expect_empty(target: BlobStore, url: str) -> None:
    if target.get(ROOT_NAME) is not None:
        raise CliError(
            f"{url} holds a journal (lineage {read_root(target).lineage})", "name an empty store", ExitCode.REFUSED
        )
    for prefix in NOT_EMPTY:
        for name in list_names(target, prefix):
            raise CliError(f"{url} is not empty: it holds {name}", "name an empty store", ExitCode.REFUSED)


def _lineage_after(before: str, facts: Facts) -> str:
    """Sorts higher than the one before, whatever the clock says."""
    began_ms = int(before.partition("-")[0]) if before.partition("-")[0].isdecimal() else 0
    return new_lineage(max(facts.now_ms, began_ms + 1), facts.nonce[:10])


def write(target: BlobStore, state: State, manifest: Manifest, lineage: str, facts: Facts, *, term: int) -> int:
    """Snapshot, the two entries that follow it, and then the root; the number of the first entry."""
    state.lineage = Lineage(lineage)
    for row in state.clusters.values():
        row.dead_at = NOWHERE  # who was dead may have come back after the backup: it has to be heard or confirmed anew
    seq = manifest.last_seq + SEQ_JUMP + SEQ_PER_MS * max(0, facts.now_ms - manifest.made_ms)
    ends_at = state.head
    refs: list[ShardRef] = []
    dump = Dump(state, store_format=facts.store_format)
    while not dump.done:
        for shard in dump.step(ITEMS_PER_STEP):
            name = shard_name(seq, shard.name)
            data = encode_shard(name, shard.payload)
            put(target, name, data)
            refs.append(ShardRef(name, digest(data)))
    index = encode_index(Index(lineage, seq, term, manifest.head_digest, tuple(refs)))
    put(target, index_name(seq), index)
    pointer = SnapshotPointer(seq, term, manifest.head_digest, index_digest=digest(index))
    entry = _Entry(seq + 1, term + 1, manifest.head_digest, f"{facts.nonce}-1")
    first = _put_entry(target, entry, EntryKind.TERM)
    record = Restored(
        actor=WRITER,
        at_ms=facts.now_ms,
        lineage=lineage,
        before=manifest.lineage,
        made_ms=manifest.made_ms,
        ends_at=ends_at,
    )
    _put_entry(target, _Entry(seq + 2, term + 1, first, f"{facts.nonce}-2"), EntryKind.BATCH, (encode_record(record),))
    root = Root(format=facts.store_format, lineage=lineage, nonce=facts.nonce, snapshot=pointer, gc_floor=seq)
    put(target, ROOT_NAME, encode_root(root))
    return seq + 1


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where an entry stands."""

    seq: int
    term: int
    prev_digest: bytes
    nonce: str


def _put_entry(target: BlobStore, entry: _Entry, kind: EntryKind, records: tuple[bytes, ...] = ()) -> bytes:
    """The digest of the entry that is there now."""
    header = EntryHeader(
        seq=entry.seq,
        term=entry.term,
        kind=kind,
        writer=WRITER,
        nonce=entry.nonce,
        prev_digest=entry.prev_digest,
        count=len(records),
    )
    data = encode_entry(header, records)
    put(target, entry_name(entry.seq), data)
    return digest(data)
