"""`muster simulate journal`: reads journal and tape of a store, and has each cycle on tape run again.

Reads only, beside running servers or of a stopped one's store. What is decided and compared is `core.replay`'s.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from federation.core.load import Loader
from federation.core.records import AnyRecord, Placed, decode_record
from federation.core.replay import Again, NextEntry, ReplayReport, Run, Tally, TapedCycle, TapeError
from federation.core.shards import UnreadableShardError
from federation.core.state import State
from federation.core.taped import Changes, Cycle, Nodes, UnreadableReelError, decode_items
from placement.engine import Policy
from placement.model import Position
from storage.archive import oldest_kept
from storage.blob import BlobName, BlobStore
from storage.entry import SEQ_FIRST, seq_of
from storage.errors import CorruptError, UnsupportedFormatError
from storage.reading import LogEntry, read_entries, read_root
from storage.root import Root
from storage.snapshot import Index, decode_index, decode_shard, index_name
from storage.tape import ReelName, decode_reel, list_reels
from storage.tape_state import copied_states, read_copy

NO_END: Final = 1 << 62
PROGRESS_EVERY: Final = 10_000  # entries

NO_TAPE: Final = "no tape of that leader"
BEFORE_TAPE: Final = "older than that leader's tape"
NO_CYCLE: Final = "that leader's tape does not reach so far"
NO_STATE: Final = "the state that they stand on is no longer kept"

Say = Callable[[str], None]
OnCycle = Callable[[State, TapedCycle, Again], None]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Which decisions to look at, by position, both ends included."""

    from_position: int = 0
    to_position: int = NO_END


@dataclass(slots=True)
class _Term:
    """One leader's tape: `trouble` says why what comes now is not covered, once something is missing."""

    number: int
    reels: list[ReelName]
    run: Run
    trouble: str = BEFORE_TAPE


def replay(
    store: BlobStore,
    stretch: Stretch,
    *,
    policy: Policy | None = None,
    say: Say = lambda _line: None,
    on_cycle: OnCycle = lambda _state, _taped, _again: None,
) -> ReplayReport:
    """Run every cycle again whose decisions lie in the stretch, and count what came out.

    `policy` instead of the one on tape. O(journal up to the end of the stretch). Raises StoreError for a store that
    cannot be read; what is wrong with the tape is counted as not covered.
    """
    root = read_root(store)
    walk = _Walk(store, root, stretch, policy, on_cycle, say)
    return walk.walk()


class _Walk:
    """The journal from where a state is known to the end of the stretch, with all leaders' tapes beside it."""

    def __init__(
        self, store: BlobStore, root: Root, stretch: Stretch, policy: Policy | None, on_cycle: OnCycle, say: Say
    ) -> None:
        self._on_cycle = on_cycle
        self._say = say
        self._lineage = root.lineage
        self._tally = Tally(stretch.from_position, stretch.to_position)
        self._last_seq = seq_of(stretch.to_position)
        all_names = list(list_reels(store))
        reels = _reels_for(all_names, stretch)
        self._terms = {number: _Term(number, names, Run(policy)) for number, names in reels.items()}
        self._policy = policy
        self._store = store
        first_seq = min((names[0].seq for names in reels.values()), default=NO_END)
        self.state, self._term, skipped = _known_state(
            store, root, min(first_seq, seq_of(stretch.from_position)), all_names
        )
        self._skip(store, root, skipped)
        self._entries = read_entries(store, skipped + 1)
        self._next = next(self._entries, None)

    def walk(self) -> ReplayReport:
        tapes = (_cycles(self._store, self._lineage, term) for term in self._terms.values())
        for taped in heapq.merge(*tapes, key=lambda one: (one.cycle.head, one.term)):
            term = self._terms[taped.term]
            self._fold_to(taped.cycle.head)
            if seq_of(taped.cycle.head) >= self._last_seq:
                break
            self._run(term, taped)
        while self._next is not None and self._next.header.seq <= self._last_seq:
            self._fold_next(claimed=False)
        return self._tally.report(self._lineage)

    def _skip(self, store: BlobStore, root: Root, last_seq: int) -> None:
        """Count the decisions before the first known state."""
        first_seq = max(oldest_kept(store, root.gc_floor), seq_of(self._tally.from_position))
        for entry in takewhile(lambda one: one.header.seq <= last_seq, read_entries(store, first_seq)):
            positions = range(entry.first_position, entry.first_position + len(entry.records))
            for position, data in zip(positions, entry.records, strict=True):
                placed = isinstance(decode_record(data, Position(position)), Placed)
                self._tally.not_covered[NO_STATE] += placed and not entry.void and self._tally.covers(position)

    def _run(self, term: _Term, taped: TapedCycle) -> None:
        if taped.cycle.head < self.state.head:
            term.trouble = NO_STATE
            return
        if not term.run.begun and taped.cycle.base is None:
            return  # the next base will do
        try:
            again = term.run.run(self.state, taped)
        except TapeError as error:
            term.trouble = error.why
            term.run = Run(self._policy)
            return
        self._on_cycle(self.state, taped, again)
        term.trouble = NO_CYCLE
        coming = self._coming()
        if seq_of(taped.cycle.head) + 1 < seq_of(self._tally.from_position):
            return  # only on the way there
        if self._tally.compare(taped, again, coming):
            self._fold_next(claimed=True)

    def _coming(self) -> NextEntry | None:
        """The decisions of the next entry, if it counts."""
        entry = self._next
        if entry is None or self._void(entry):
            return None
        records = ((Position(entry.first_position + index), data) for index, data in enumerate(entry.records))
        decoded = ((position, decode_record(data, position)) for position, data in records)
        placed = tuple((position, record) for position, record in decoded if isinstance(record, Placed))
        return NextEntry(entry.header.term, placed)

    # --- the journal ---

    def _fold_to(self, head: int) -> None:
        while self._next is not None and self.state.head < head and self._next.header.seq <= seq_of(head):
            self._fold_next(claimed=False)

    def _fold_next(self, *, claimed: bool) -> None:
        entry = self._next
        assert entry is not None
        if entry.header.seq % PROGRESS_EVERY == 0:
            self._say(f"entry {entry.header.seq}")
        if not self._void(entry):
            self._term = max(self._term, entry.header.term)
            for index, data in enumerate(entry.records):
                self._fold(Position(entry.first_position + index), data, entry.header.term, claimed=claimed)
        self.state.reached(Position(entry.first_position + max(len(entry.records) - 1, 0)))
        self._next = next(self._entries, None)

    def _fold(self, position: Position, data: bytes, number: int, *, claimed: bool) -> None:
        record: AnyRecord = decode_record(data, position)
        self.state.apply(position, record)
        for term in self._terms.values():
            term.run.folded(self.state, position, record)
        if isinstance(record, Placed) and not claimed and self._tally.covers(position):
            known = self._terms.get(number)
            self._tally.not_covered[known.trouble if known is not None else NO_TAPE] += 1

    def _void(self, entry: LogEntry) -> bool:
        return entry.void or entry.header.term < self._term


# --- what is read ----------------------------------------------------------------------------------------------------


def _known_state(store: BlobStore, root: Root, wanted_seq: int, names: list[ReelName]) -> tuple[State, int, int]:
    """A state from which `wanted_seq` can be reached, its term, and the entry it is the fold up to.

    The newest of those on tape and the snapshot's that is early enough; else the empty one of the beginning, and where
    the first entries are gone the oldest there is. A damaged copy on tape is passed over.
    """
    first_seq = oldest_kept(store, root.gc_floor)
    copies = {name.seq: name for name in copied_states(names) if name.seq >= first_seq - 1}
    seqs = sorted({*copies, root.snapshot.seq} if root.snapshot is not None else copies)
    early = [seq for seq in reversed(seqs) if seq <= wanted_seq]
    if first_seq != SEQ_FIRST:
        early += [seq for seq in seqs if seq > wanted_seq]
    for seq in early:
        if root.snapshot is not None and seq == root.snapshot.seq:
            index = decode_index(_part(store, index_name(seq)), root.snapshot, root.lineage)
            shards = (
                (one.name, decode_shard(BlobName(one.name), _part(store, one.name), one.digest)) for one in index.shards
            )
            return _loaded(index, shards)
        try:
            return _loaded(*read_copy(store, copies[seq], root.lineage))
        except (CorruptError, UnsupportedFormatError, UnreadableShardError):
            continue
    return State(root.lineage), 0, SEQ_FIRST - 1


def _loaded(index: Index, shards: Iterable[tuple[str, bytes]]) -> tuple[State, int, int]:
    loader = Loader(index.lineage)
    for name, payload in shards:
        loader.take(name, payload)
    return loader.finish(index_name(index.seq)), index.term, index.seq


def _part(store: BlobStore, name: str) -> bytes:
    blob = store.get(BlobName(name))
    if blob is None:
        raise CorruptError(name, "it is missing; if a server took a snapshot meanwhile, try again")
    return blob.data


def _reels_for(names: Iterable[ReelName], stretch: Stretch) -> dict[int, list[ReelName]]:
    """By term the reels that tell of the stretch, in order: from the last base before it."""
    by_term: dict[int, list[ReelName]] = {}
    for name in names:
        if name.kind != "state" and name.seq < seq_of(stretch.to_position):
            by_term.setdefault(name.term, []).append(name)
    return {term: _from_base(found, seq_of(stretch.from_position)) for term, found in sorted(by_term.items())}


def _from_base(reels: list[ReelName], seq: int) -> list[ReelName]:
    reels.sort(key=lambda name: name.number)
    early = [at for at, name in enumerate(reels) if name.base and name.seq < seq]
    return reels[early[-1] :] if early else reels


def _cycles(store: BlobStore, lineage: str, term: _Term) -> Iterator[TapedCycle]:
    """A term's cycles in order, without those that follow a gap until the next base; `term.trouble` names the gap."""
    nodes: list[Nodes | Changes] = []
    expected, good = term.reels[0].number, False
    for name in term.reels:
        if name.number != expected:
            term.trouble, good = f"reel {expected} of term {term.number} is missing", False
        expected = name.number + 1
        items = _items(store, lineage, name, term)
        good = bool(items) and (good or name.base)
        if name.base:
            nodes = []
        for item in items if good else []:
            if isinstance(item, Cycle):
                if item.base is not None and item.base.missed:
                    term.trouble = "the store did not keep up with the tape"
                yield TapedCycle(term.number, tuple(nodes), item)
                nodes = []
            else:
                nodes.append(item)


def _items(store: BlobStore, lineage: str, name: ReelName, term: _Term) -> list[Nodes | Changes | Cycle]:
    """What is on a reel; nothing, and the term's trouble, where it cannot be read."""
    blob = store.get(name.blob)
    if blob is None:
        term.trouble = f"{name.blob} is gone"
        return []
    try:
        found, raw = decode_reel(name, blob.data)
        if found == lineage:
            return decode_items(raw)
        term.trouble = f"{name.blob} is of lineage {found}"
    except (CorruptError, UnsupportedFormatError) as error:
        term.trouble = str(error)
    except UnreadableReelError as error:
        term.trouble = f"{name.blob} cannot be read ({error})"
    return []
