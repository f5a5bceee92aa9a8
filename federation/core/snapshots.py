"""When the leader takes a snapshot, and everything from the picture of the state to the collection that follows it.

One at a time, in small steps between batches; the store calls leave by a way of their own, so that no batch waits for
them. What fails is given up: the next snapshot is as good.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, assert_never

from federation.core.dump import Dump
from federation.core.ids import Ids
from federation.core.state import State
from storage.blob import BlobEffect, BlobEvent, OpId
from storage.election import JournalTimings
from storage.gc import Collector
from storage.root import FORMAT, SnapshotPointer
from storage.snapshot import ShardRef
from storage.snapshot_writer import End, Reusable, SnapshotWriter

EVERY_S: Final = 60.0  # what a restart replays is about this much of the journal
RECORDS_MAX: Final = 300_000  # three seconds of replay
ENTRIES_MIN: Final = 1_000  # below this, reading the tail takes a moment on any store
GROUPS_SHARE: Final = 10  # a tail of a tenth as many records as there are groups is worth a snapshot
IDLE_EVERY_S: Final = 600.0  # however little was recorded
ITEMS_PER_STEP: Final = 500  # two milliseconds
STEP_EVERY_S: Final = 0.01
BACKLOG_MAX: Final = 32  # shards made and not stored: 8 MiB at most
MARKS_MAX: Final = 1_000  # places in the journal that are remembered with their time: an hour in seconds

_NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class SnapshotRhythm:
    """When a snapshot is due. Defaults are for production; tests and the world take more."""

    every_s: float = EVERY_S
    records_max: int = RECORDS_MAX
    entries_min: int = ENTRIES_MIN
    idle_every_s: float = IDLE_EVERY_S
    archive: bool = True  # entries are kept under another name when the journal no longer needs them


@dataclass(slots=True)
class _Work:
    """One snapshot being taken."""

    dump: Dump
    writer: SnapshotWriter
    pointer: SnapshotPointer
    step_due_s: float


@dataclass(frozen=True, slots=True)
class Written:
    """The root points to a snapshot at `seq`; entries up to `gc_floor` are being collected."""

    seq: int
    gc_floor: int
    shards: int
    pointer: SnapshotPointer
    refs: tuple[ShardRef, ...]
    reused: int
    """Of the shards, those that the snapshot before had stored."""


@dataclass(frozen=True, slots=True)
class Abandoned:
    why: str


@dataclass(frozen=True, slots=True)
class Collected:
    entries: int
    parts: int
    whole: bool


Outcome = Written | Abandoned | Collected


def told(outcome: Outcome) -> tuple[str, dict[str, str]]:
    """The line of the log about it: its event and its fields."""
    match outcome:
        case Written(seq, gc_floor, shards, reused=reused):
            facts = {"seq": str(seq), "gc_floor": str(gc_floor), "shards": str(shards), "reused": str(reused)}
            return "snapshot.written", facts
        case Abandoned(why):
            return "snapshot.abandoned", {"why": why}
        case Collected(entries, parts, whole):
            facts = {"entries": str(entries), "parts": str(parts), "whole": str(whole).lower()}
            return "journal.collected", facts
        case _:
            assert_never(outcome)


class Snapshots:
    """One replica's snapshots. Only the leader takes any; a follower's may end what it began."""

    def __init__(self, ids: Ids, rhythm: SnapshotRhythm, timings: JournalTimings) -> None:
        self._ids = ids
        self._rhythm = rhythm
        self._timings = timings
        self._leading = False
        self._work: _Work | None = None
        self._collector: Collector | None = None
        self._ending: list[SnapshotWriter | Collector] = []  # given up, with answers still to come
        self._reuse: Reusable | None = None  # what the last one stored, if nobody else can have taken another since
        self._since_s = 0.0  # when the last one was begun
        self._records_count = 0  # landed since then
        self._entries_count = 0
        self._marks: deque[tuple[float, int]] = deque(maxlen=MARKS_MAX)  # (when, newest entry by then)
        self._look_due_s = _NEVER
        self.outcomes: list[Outcome] = []  # for whoever tells people; taken by them

    # --- what happened ---

    def lead(self, now_s: float) -> None:
        self._leading = True
        self._since_s = now_s
        self._marks.clear()
        self._look_due_s = now_s + self._rhythm.every_s / 10  # the first decisions of this leader go first

    def follow(self) -> None:
        """Whoever leads next takes its own; what is under way here can do no harm."""
        self._leading = False
        self._look_due_s = _NEVER
        self._reuse = None
        self._drop_work()
        if self._collector is not None:
            self._collector.stop()
            self._ending.append(self._collector)
            self._collector = None

    def landed(self, records: int) -> None:
        """One more entry is in the journal."""
        self._entries_count += 1
        self._records_count += records

    def loaded(self) -> None:
        """The state is that of a snapshot: nothing has landed since."""
        self._entries_count = self._records_count = 0

    # --- what is due ---

    @property
    def look_due_s(self) -> float:
        """When to look whether to begin one; only while no entry is in flight."""
        return self._look_due_s if self._leading and self._work is None else _NEVER

    @property
    def due_s(self) -> float:
        """When the one under way goes on."""
        if self._work is None:
            return _NEVER
        step_due_s = self._work.step_due_s if not self._work.dump.done else _NEVER
        return min(step_due_s, self._work.writer.due_s)

    def wants(self, state: State, now_s: float) -> bool:
        """Whether to begin one at the next moment when no entry is in flight."""
        if not self._leading or self._work is not None or now_s < self._look_due_s or not self._entries_count:
            return False
        age_s = now_s - self._since_s
        if self._records_count >= self._rhythm.records_max:
            return True
        if age_s >= self._rhythm.idle_every_s:
            return True
        much = self._records_count * GROUPS_SHARE >= len(state.groups) and self._records_count > 0
        return age_s >= self._rhythm.every_s and (much or self._entries_count >= self._rhythm.entries_min)

    def look_again(self, now_s: float) -> None:
        """Nothing to begin now: look again in a while."""
        if now_s >= self.look_due_s:
            self._look_due_s = now_s + self._rhythm.every_s / 10

    def begin(
        self, state: State, tail: SnapshotPointer, now_s: float, *, store_format: int = FORMAT
    ) -> list[BlobEffect]:
        """Take the picture of `state`, which is that of everything up to `tail`, with nothing newer than the format."""
        self._marks.append((now_s, tail.seq))
        writer = SnapshotWriter(
            self._ids.op,
            nonce=self._ids.nonce(),
            lineage=state.lineage,
            pointer=tail,
            gc_floor=min(self._floor(now_s), tail.seq),
            reuse=self._reuse,
        )
        self._work = _Work(Dump(state, store_format=store_format), writer, tail, now_s)
        self._since_s = now_s
        self._records_count = self._entries_count = 0
        return writer.start()

    def tick(self, now_s: float) -> list[BlobEffect]:
        """One step of the picture, and what the writer has to try again."""
        work = self._work
        if work is None:
            return []
        effects = work.writer.tick(now_s)
        if not work.dump.done and now_s >= work.step_due_s:
            work.step_due_s = now_s + STEP_EVERY_S
            if work.writer.backlog < BACKLOG_MAX:
                effects += _step(work)
        return effects + self._ended(now_s)

    # --- the store ---

    def owns(self, op: OpId) -> bool:
        return any(part.owns(op) for part in self._parts())

    def handle(self, event: BlobEvent, now_s: float) -> list[BlobEffect]:
        effects: list[BlobEffect] = []
        for part in self._parts():
            if part.owns(event.op):
                effects = part.handle(event, now_s) if isinstance(part, SnapshotWriter) else part.handle(event)
                break
        self._ending = [part for part in self._ending if not part.idle]
        return effects + self._ended(now_s)

    def _parts(self) -> list[SnapshotWriter | Collector]:
        parts = list(self._ending)
        if self._work is not None:
            parts.append(self._work.writer)
        if self._collector is not None:
            parts.append(self._collector)
        return parts

    def _ended(self, now_s: float) -> list[BlobEffect]:
        """Go on to what follows the writer's end and the collector's."""
        collector = self._collector
        if collector is not None and collector.done:
            self.outcomes.append(Collected(collector.entries_count, collector.parts_count, not collector.failed))
            self._collector = None
        work = self._work
        if work is None or work.writer.end is None:
            return []
        self._drop_work()
        self._look_due_s = now_s + self._rhythm.every_s / 10
        if work.writer.end is not End.DONE:
            if work.writer.end is End.OVERTAKEN:
                self._reuse = None
            self.outcomes.append(Abandoned(work.writer.end.value))
            return []
        root = work.writer.root
        refs, reused = work.writer.refs, work.writer.reused_count
        self._reuse = work.writer.reusable
        self.outcomes.append(Written(work.pointer.seq, root.gc_floor, len(refs), work.pointer, refs, reused))
        if self._collector is not None:
            return []  # the one before is not through: the next collection finds what is left
        self._collector = Collector(self._ids.op, root=root, refs=work.writer.refs, archive=self._rhythm.archive)
        return self._collector.start()

    def _drop_work(self) -> None:
        if self._work is None:
            return
        if not self._work.dump.done:
            self._work.dump.give_up()
        if not self._work.writer.idle:
            self._ending.append(self._work.writer)
        self._work = None

    # --- how far entries may be deleted ---

    def _floor(self, now_s: float) -> int:
        """The newest entry that this leader saw at least `keep_s` ago, with `keep_entries` after it; 0 for none.

        Counted from its own sight, so no entry is deleted earlier than that after it was written.
        """
        old = [seq for seen_s, seq in self._marks if seen_s <= now_s - self._timings.keep_s]
        newest = self._marks[-1][1]
        return max(0, min(old[-1] if old else 0, newest - self._timings.keep_entries))


def _step(work: _Work) -> list[BlobEffect]:
    effects: list[BlobEffect] = []
    for shard in work.dump.step(ITEMS_PER_STEP):
        effects += work.writer.put(shard.name, shard.payload)
    return effects + (work.writer.close() if work.dump.done else [])
