"""The journal of one server, as follower, candidate and leader: blob events in, blob effects and entries out.

Sans-IO: the shell carries out each blob effect and hands the answer to `handle`; at most one is in flight. What a
record means, who waits for it and what to do once it landed are the shell's. Nothing is reported as landed before
the store is known to hold it and to have held nothing else under its number: the root has been read after it (see
`election.counts`), or it followed an own entry so soon that nothing can have been deleted (`unread_s`).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from storage.blob import (
    Blob,
    BlobCreate,
    BlobEffect,
    BlobEvent,
    BlobFailed,
    BlobGet,
    BlobRead,
    BlobWritten,
    OpId,
    Outcome,
)
from storage.election import JournalTimings, Role, Silence, Standing, counts, standing
from storage.entry import (
    GENESIS,
    SEQ_FIRST,
    DecodedEntry,
    EntryHeader,
    EntryKind,
    decode_entry,
    digest,
    encode_entry,
    entry_name,
    expect_follows,
    position,
)
from storage.errors import CorruptError, LocalProtocolError
from storage.root import FORMAT, FORMAT_FIRST, ROOT_NAME, Root, SnapshotPointer, decode_root, encode_root

_NEVER: Final = float("inf")
_LONG_AGO: Final = float("-inf")

UNCONFIRMED_MAX: Final = 64
"""Entries read before the root is read again: bounds memory in a long replay at 64 payloads."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry in its place. `void` ones are in the journal but must be folded as if absent."""

    seq: int
    term: int
    kind: EntryKind
    writer: str
    records: tuple[bytes, ...]
    first_position: int
    own: bool
    void: bool


@dataclass(frozen=True, slots=True)
class JournalOpened:
    """The root was read. The fold must now be that of `snapshot`, or empty; entries follow from there on."""

    lineage: str
    snapshot: SnapshotPointer | None


@dataclass(frozen=True, slots=True)
class EntryLanded:
    """The next entry of the journal, for good; emitted for every number in order, own and others'."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class LeadershipWon:
    """Follows the `EntryLanded` of the own TERM entry; appends are possible from here on."""

    term: int


@dataclass(frozen=True, slots=True)
class LeadershipLost:
    """Another writer took the next number. The `lost_records` of the batch in flight did not land.

    Only if `FellBehind` or `LineageChanged` follows, that batch may have landed after all: ask by request id.
    """

    term: int
    lost_records: int


@dataclass(frozen=True, slots=True)
class LineageChanged:
    """The store was restored under this instance, which has stopped."""

    before: str
    after: str


@dataclass(frozen=True, slots=True)
class FellBehind:
    """The entries this instance needs next may be gone. It has stopped; a new one begins from the snapshot."""

    next_seq: int
    gc_floor: int


JournalEffect = BlobEffect | JournalOpened | EntryLanded | LeadershipWon | LeadershipLost | LineageChanged | FellBehind


class _Step(enum.Enum):
    """The operation in flight, or the one to do at `wake_at_s`."""

    OPEN = "read the root for the first time"
    FOUND = "create the root"
    LOOK = "read the next number"
    CHECK = "read the root after entries were seen or before running"
    WRITE = "create the own entry"
    RESOLVE = "read back the number of the own entry"
    BEAT = "lead, with nothing to do until the next heartbeat"


@dataclass(frozen=True, slots=True)
class _OwnWrite:
    """The entry being created. Its number is never reused with other bytes."""

    decoded: DecodedEntry
    data: bytes


class Journal:
    """One server's view of, and hand in, the journal. `now_s` must never fall from call to call."""

    def __init__(
        self,
        *,
        writer: str,
        nonce: str,
        lineage_candidate: str,
        timings: JournalTimings | None = None,
        format_max: int = FORMAT,
    ) -> None:
        """`writer` names the server over restarts; `nonce` is drawn afresh at each start and never repeats. A root of a
        format later than `format_max` is refused, and a new one begins with it."""
        self._writer = writer
        self._nonce = nonce
        self._timings = timings or JournalTimings()
        self._lineage_candidate = lineage_candidate
        self._format_max = format_max
        self._format = FORMAT_FIRST
        self._role = Role.STARTING
        self._lineage: str | None = None
        self._term = 0
        self._term_writer: str | None = None
        self._next_seq = SEQ_FIRST
        self._tail_digest = GENESIS
        self._head_position = 0
        self._seen: list[DecodedEntry] = []
        """Entries in order that only wait for the root to be read after them."""
        self._doubtful: CorruptError | None = None
        self._own: _OwnWrite | None = None
        self._own_sent_s = _NEVER
        """When it was first sent."""
        self._tail_sent_s = _LONG_AGO
        """When the newest landed entry was first sent, if it is an own one."""
        self._root_read_s = _LONG_AGO
        self._stalled = False
        self._at_tail = False
        self._hinted = False  # while something else was under way
        self._hinted_seq = 0  # newest entry that somebody spoke of; 0 once a look went as far as it could
        self._silence = Silence(writer, self._timings)
        self._step = _Step.OPEN
        self._op: OpId | None = None
        self._op_count = 0
        self._write_count = 0
        self._due_s: float | None = None

    @property
    def role(self) -> Role:
        return self._role

    @property
    def term(self) -> int:
        """Newest term among the landed entries."""
        return self._term

    @property
    def lineage(self) -> str | None:
        return self._lineage

    @property
    def format(self) -> int:
        """What may be written, by the root as it was last read: at each heartbeat, and every `root_read_s` at least."""
        return self._format

    @property
    def next_seq(self) -> int:
        """First number that has not been reported as landed."""
        return self._next_seq - len(self._seen)

    @property
    def head_position(self) -> int:
        """Position of the last record landed (of the entry itself where it holds none); 0 before the first."""
        return self._head_position

    @property
    def tail(self) -> SnapshotPointer:
        """Where a snapshot of everything landed so far would stand; at a moment when no entry waits for the root."""
        if self._seen or self._next_seq == SEQ_FIRST:
            raise LocalProtocolError("the journal is not at rest, or empty")
        return SnapshotPointer(self._next_seq - 1, self._term, self._tail_digest, self._term_writer or "")

    @property
    def stalled(self) -> bool:
        """An own write was not plainly answered and is being resolved."""
        return self._stalled

    @property
    def can_append(self) -> bool:
        return self._role is Role.LEADING and self._step is _Step.BEAT and self._op is None

    @property
    def wake_at_s(self) -> float | None:
        """When `tick` is next useful; None while an answer is awaited."""
        return self._due_s

    def start(self, now_s: float) -> list[JournalEffect]:
        """Open the journal, creating it where there is none, and replay it."""
        if self._op_count:
            raise LocalProtocolError("the journal was started twice")
        self._silence.restart(now_s, next_seq=self._next_seq)
        return [self._issue(_Step.OPEN)]

    def append(self, records: Sequence[bytes], now_s: float) -> list[JournalEffect]:
        """Write `records` as one entry; its fate follows as `EntryLanded` (own) or `LeadershipLost`.

        Raises LocalProtocolError unless `can_append`, LimitError beyond what `entry.batch_length` admits.
        """
        if not self.can_append:
            raise LocalProtocolError(f"append while {self._role.value}, step {self._step.name}")
        if not records:
            raise LocalProtocolError("append of no records")
        return [self._write(EntryKind.BATCH, self._term, tuple(records), now_s)]

    def hint(self, seq: int, now_s: float) -> list[JournalEffect]:  # noqa: ARG002  as all calls of a core
        """Somebody says that there is an entry `seq`: look now instead of at the next poll, and no further than there.

        A wrong number costs one look: what lies beyond is found by the next hint or poll.
        """
        if self._role is not Role.FOLLOWING or seq < self._next_seq:
            return []
        self._hinted_seq = max(self._hinted_seq, seq)
        if self._op is None and self._step is _Step.LOOK:
            return [self._issue(_Step.LOOK)]
        self._hinted = True
        return []

    def tick(self, now_s: float) -> list[JournalEffect]:
        """Do what is due: a poll, a heartbeat or a retry. Useful at `wake_at_s`, harmless at any time."""
        if self._due_s is None or now_s < self._due_s:
            return []
        if self._step is _Step.BEAT:
            return [self._write(EntryKind.HEARTBEAT, self._term, (), now_s)]
        return [self._issue(self._step)]

    def handle(self, event: BlobEvent, now_s: float) -> list[JournalEffect]:
        """Take the answer to the one effect in flight.

        Raises CorruptError or UnsupportedFormatError when the journal cannot be read on: the server must stop.
        """
        if event.op != self._op:
            raise LocalProtocolError(f"answer to operation {event.op}, awaited is {self._op}")
        self._op = None
        match event:
            case BlobFailed():
                return self._not_answered(now_s)
            case BlobRead(blob=blob):
                return self._read(blob, now_s)
            case BlobWritten(outcome=outcome):
                return self._written(outcome, now_s)
            case _:
                raise LocalProtocolError(f"{type(event).__name__} answers no effect of the journal")

    def check_invariants(self) -> None:
        """State what holds between any two calls."""
        waits = self._op is None
        assert waits == (self._due_s is not None) or self._role is Role.STOPPED or not self._op_count
        assert not (self._stalled and self._own is None)
        assert self._own is None or self._role in {Role.CAMPAIGNING, Role.LEADING}
        assert self._role is not Role.CAMPAIGNING or self._own is not None
        assert len(self._seen) <= UNCONFIRMED_MAX
        assert self._head_position < position(self._next_seq)

    # --- answers ---

    def _read(self, blob: Blob | None, now_s: float) -> list[JournalEffect]:
        match self._step:
            case _Step.OPEN:
                return self._opened(blob)
            case _Step.LOOK:
                return self._looked(blob, now_s)
            case _Step.CHECK:
                return self._checked(blob, now_s)
            case _Step.RESOLVE:
                return self._resolved(blob, now_s)
            case _Step.FOUND | _Step.WRITE | _Step.BEAT:
                raise LocalProtocolError(f"a read answers step {self._step.name}")
            case _:
                assert_never(self._step)

    def _written(self, outcome: Outcome, now_s: float) -> list[JournalEffect]:
        if self._step is _Step.FOUND:
            if outcome is Outcome.UNKNOWN:
                return self._wait(_Step.OPEN, now_s + self._timings.retry_s)
            return [self._issue(_Step.OPEN)]
        if self._step is not _Step.WRITE:
            raise LocalProtocolError(f"a write answers step {self._step.name}")
        if outcome is Outcome.DONE:
            return self._own_is_stored(now_s)
        self._stalled = True
        return [self._issue(_Step.RESOLVE)]

    def _not_answered(self, now_s: float) -> list[JournalEffect]:
        self._silence.restart(now_s, next_seq=self._next_seq)
        return self._wait(self._step, now_s + self._timings.retry_s)

    def _opened(self, blob: Blob | None) -> list[JournalEffect]:
        if blob is None:
            return [self._issue(_Step.FOUND)]
        root = decode_root(blob.data, reads=self._format_max)
        self._lineage, self._format = root.lineage, root.format
        if root.snapshot is not None:
            self._next_seq = root.snapshot.seq + 1
            self._term = root.snapshot.term
            self._term_writer = root.snapshot.term_writer or None
            self._tail_digest = root.snapshot.digest
            self._head_position = position(self._next_seq) - 1
        return [JournalOpened(root.lineage, root.snapshot), self._issue(_Step.LOOK)]

    def _looked(self, blob: Blob | None, now_s: float) -> list[JournalEffect]:
        self._at_tail = blob is None
        if blob is not None:
            try:
                self._see(decode_entry(blob.data, self._next_seq), now_s)
            except CorruptError as error:
                return self._doubt(error)
            self._at_tail = self._role is Role.FOLLOWING and self._hinted_seq == self._next_seq - 1
            enough = self._at_tail or len(self._seen) >= UNCONFIRMED_MAX
            return [self._issue(_Step.CHECK if enough else _Step.LOOK)]
        if not self._hinted:
            self._hinted_seq = 0
        if self._seen or self._may_run(now_s):
            return [self._issue(_Step.CHECK)]
        return self._follow(now_s)

    def _checked(self, blob: Blob | None, now_s: float) -> list[JournalEffect]:
        if blob is None:
            raise CorruptError(ROOT_NAME, "it is gone")
        root = decode_root(blob.data, reads=self._format_max)
        if root.lineage != self._lineage:
            return [*self._stop(), LineageChanged(self._lineage or "", root.lineage)]
        self._format = root.format
        if not counts(self.next_seq, root.gc_floor):
            return [*self._stop(), FellBehind(self.next_seq, root.gc_floor)]
        if self._doubtful is not None:
            raise self._doubtful
        self._root_read_s = now_s
        return self._land_seen() + self._go_on(now_s)

    def _resolved(self, blob: Blob | None, now_s: float) -> list[JournalEffect]:
        assert self._own is not None
        if blob is None:
            return self._wait(_Step.WRITE, now_s + self._timings.retry_s)
        try:
            found = decode_entry(blob.data, self._next_seq)
            expect_follows(found, self._tail_digest)
        except CorruptError as error:
            return self._doubt(error)
        if found.header.nonce == self._own.decoded.header.nonce:
            if blob.data != self._own.data:
                raise CorruptError(entry_name(self._next_seq), "it is ours and not as we wrote it", seq=self._next_seq)
            return self._own_is_stored(now_s)
        lost = self._lose()
        self._see(found, now_s)
        return [*lost, self._issue(_Step.LOOK)]

    # --- what follows from them ---

    def _go_on(self, now_s: float) -> list[JournalEffect]:
        """Choose the next step once everything seen has landed."""
        if self._own is not None:
            won = self._role is Role.CAMPAIGNING
            self._own = None
            self._stalled = False
            self._role = Role.LEADING
            return [
                *([LeadershipWon(self._term)] if won else []),
                *self._wait(_Step.BEAT, now_s + self._timings.heartbeat_s),
            ]
        if not self._at_tail:
            return [self._issue(_Step.LOOK)]
        if self._may_run(now_s):
            self._role = Role.CAMPAIGNING
            return [self._write(EntryKind.TERM, self._term + 1, (), now_s)]
        return self._follow(now_s)

    def _follow(self, now_s: float) -> list[JournalEffect]:
        self._role = Role.FOLLOWING
        hinted, self._hinted = self._hinted, False
        if hinted and self._hinted_seq >= self._next_seq:
            return [self._issue(_Step.LOOK)]
        return self._wait(_Step.LOOK, now_s + self._timings.poll_s)

    def _may_run(self, now_s: float) -> bool:
        """Nobody ever led, or nobody but us before our restart; or the leader is silent."""
        if self._role is Role.STARTING and (self._next_seq == SEQ_FIRST or self._term_writer == self._writer):
            return True
        return self._silence.is_over(now_s)

    def _see(self, decoded: DecodedEntry, now_s: float) -> None:
        """Take the entry at the next number, which must continue the chain."""
        expect_follows(decoded, self._tail_digest)
        self._seen.append(decoded)
        self._tail_digest = decoded.digest
        self._next_seq += 1
        self._silence.restart(now_s, next_seq=self._next_seq)

    def _doubt(self, error: CorruptError) -> list[JournalEffect]:
        """Ask the root before raising: below the floor lies what sleepers left, and it is no part of the journal."""
        self._doubtful = error
        return [self._issue(_Step.CHECK)]

    def _own_is_stored(self, now_s: float) -> list[JournalEffect]:
        assert self._own is not None
        assert not self._seen
        self._see(self._own.decoded, now_s)
        if not self._counts_unread(now_s):
            return [self._issue(_Step.CHECK)]
        return self._land_seen() + self._go_on(now_s)

    def _counts_unread(self, now_s: float) -> bool:
        """Whether the own batch surely is the first entry ever under its number, without a look at the root."""
        assert self._own is not None
        return (
            self._own.decoded.header.kind is EntryKind.BATCH
            and now_s - self._tail_sent_s < self._timings.unread_s
            and now_s - self._root_read_s < self._timings.root_read_s
        )

    def _land_seen(self) -> list[JournalEffect]:
        landed: list[JournalEffect] = [EntryLanded(self._land(decoded)) for decoded in self._seen]
        self._seen.clear()
        self._tail_sent_s = self._own_sent_s if self._own is not None else _LONG_AGO
        return landed

    def _land(self, decoded: DecodedEntry) -> Entry:
        header = decoded.header
        void = standing(header, self._term) is Standing.VOID
        own = self._own is not None and header.nonce == self._own.decoded.header.nonce
        assert not (own and void)
        if header.kind is EntryKind.TERM and not void:
            self._term = header.term
            self._term_writer = header.writer
        first_position = position(header.seq)
        self._head_position = first_position + max(header.count - 1, 0)
        return Entry(
            header.seq, header.term, header.kind, header.writer, decoded.records, first_position, own=own, void=void
        )

    def _lose(self) -> list[JournalEffect]:
        """Give up the own entry, and leadership with it."""
        led = self._role is Role.LEADING
        lost_count = len(self._own.decoded.records) if self._own else 0
        self._own = None
        self._stalled = False
        self._role = Role.FOLLOWING
        return [LeadershipLost(self._term, lost_count)] if led else []

    def _stop(self) -> list[JournalEffect]:
        lost = self._lose()
        self._role = Role.STOPPED
        self._due_s = None
        return lost

    def _write(self, kind: EntryKind, term: int, records: tuple[bytes, ...], now_s: float) -> BlobEffect:
        self._write_count += 1
        self._own_sent_s = now_s
        header = EntryHeader(
            seq=self._next_seq,
            term=term,
            kind=kind,
            writer=self._writer,
            nonce=f"{self._nonce}-{self._write_count}",
            prev_digest=self._tail_digest,
            count=len(records),
        )
        data = encode_entry(header, records)
        self._own = _OwnWrite(DecodedEntry(header, records, digest(data)), data)
        return self._issue(_Step.WRITE)

    def _issue(self, step: _Step) -> BlobEffect:
        self._op_count += 1
        self._op = OpId(self._op_count)
        self._step = step
        self._due_s = None
        match step:
            case _Step.OPEN | _Step.CHECK:
                return BlobGet(self._op, ROOT_NAME)
            case _Step.LOOK | _Step.RESOLVE:
                return BlobGet(self._op, entry_name(self._next_seq))
            case _Step.FOUND:
                return BlobCreate(self._op, ROOT_NAME, self._first_root())
            case _Step.WRITE:
                assert self._own is not None
                return BlobCreate(self._op, entry_name(self._next_seq), self._own.data)
            case _Step.BEAT:
                raise LocalProtocolError("a heartbeat is written, not issued")
            case _:
                assert_never(step)

    def _wait(self, step: _Step, until_s: float) -> list[JournalEffect]:
        self._step = step
        self._due_s = until_s
        return []

    def _first_root(self) -> bytes:
        return encode_root(Root(format=self._format_max, lineage=self._lineage_candidate, nonce=self._nonce))
