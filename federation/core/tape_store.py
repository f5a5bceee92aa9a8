"""The way of reels into the store, and what else of the tape happens there: old ones deleted, snapshots copied.

Few at a time, in the background, each tried again a few times; what comes to nothing is named as lost. What is on a
reel is not known here.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from federation.core.ids import Ids
from federation.core.taped import Reel, WriteReel
from storage.blob import BlobEffect, BlobEvent, BlobFailed, BlobWritten, OpId, Outcome
from storage.root import SnapshotPointer
from storage.snapshot import ShardRef
from storage.tape import KEPT_MS, STATE_EVERY_MS, TapeCollector
from storage.tape_state import StateCopier

REEL_BYTES: Final = 512 * 1024  # estimated; packed it is a tenth of what a store takes
BUFFER_BYTES_MAX: Final = 256 * 1024 * 1024  # estimated: the base of 1,000,000 nodes is 100 MB, most of it shared
WRITE_EVERY_S: Final = 5.0  # what a crash loses of the tape
BASE_EVERY_S: Final = 1_800.0  # as far as a replay has to go back; a base costs as much as thousands of decisions
MISSED_WAIT_S: Final = 10.0  # after cycles were left out, before a new base is tried
IN_FLIGHT_MAX: Final = 2  # reels: nothing waits for them, and encoding takes the interpreter from the placer
ATTEMPTS_MAX: Final = 5
RETRY_S: Final = 2.0

_NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class TapeRhythm:
    """How the tape is written. Defaults are for production."""

    on: bool = True
    reel_bytes: int = REEL_BYTES
    buffer_bytes_max: int = BUFFER_BYTES_MAX
    write_every_s: float = WRITE_EVERY_S
    base_every_s: float = BASE_EVERY_S
    missed_wait_s: float = MISSED_WAIT_S
    state_every_s: float = STATE_EVERY_MS / 1_000
    kept_ms: int = KEPT_MS


@dataclass(slots=True)
class _Writing:
    reel: Reel
    attempts: int = 0
    due_s: float = _NEVER  # of the next attempt; never while one is under way


class TapeStore:
    """One replica's. `bytes_held`: estimated, of all reels that are not in the store."""

    def __init__(self, ids: Ids, rhythm: TapeRhythm) -> None:
        self._ids = ids
        self._rhythm = rhythm
        self._waiting: deque[Reel] = deque()
        self._writing: dict[OpId, _Writing] = {}
        self._later: list[_Writing] = []
        self._collector: TapeCollector | None = None
        self._copier: StateCopier | None = None
        self._state_due_s = float("-inf")  # next copy of a snapshot
        self.bytes_held = 0

    # --- reels ---

    def put(self, reel: Reel) -> None:
        """To be written with the next `tick` that may send it."""
        self._waiting.append(reel)
        self.bytes_held += reel.size

    @property
    def due_s(self) -> float:
        """When to come back at the latest; after each `tick` all that may be sent is sent."""
        return min((one.due_s for one in self._later), default=_NEVER)

    def tick(self, now_s: float) -> list[WriteReel]:
        """Send what may be sent."""
        if not self._later and not self._waiting:
            return []
        due = [one for one in self._later if now_s >= one.due_s]
        self._later = [one for one in self._later if now_s < one.due_s]
        effects = [self._write(one) for one in due]
        while self._waiting and len(self._writing) < IN_FLIGHT_MAX:
            effects.append(self._write(_Writing(self._waiting.popleft())))
        return effects

    def rest(self) -> list[WriteReel]:
        """Everything that is left, once: nobody asks what became of it."""
        left = [one.reel for one in self._later] + list(self._waiting)
        self._later.clear()
        self._waiting.clear()
        return [WriteReel(self._ids.op(), reel) for reel in left]

    def _write(self, one: _Writing) -> WriteReel:
        one.attempts += 1
        one.due_s = _NEVER
        op = self._ids.op()
        self._writing[op] = one
        return WriteReel(op, one.reel)

    # --- old reels, and states ---

    def collect(self, wall_ms: int) -> list[BlobEffect]:
        """Delete what is older than a replay needs. One collection at a time."""
        if not self._rhythm.on or self._collector is not None:
            return []
        self._collector = TapeCollector(self._ids.op, before_ms=wall_ms - self._rhythm.kept_ms)
        return self._collector.start()

    def keep_state(
        self, pointer: SnapshotPointer, refs: tuple[ShardRef, ...], now_s: float, wall_ms: int
    ) -> list[BlobEffect]:
        """A snapshot was taken: copy it, if the last copy is an hour old. One at a time; one that fails is no loss."""
        if not self._rhythm.on or self._copier is not None or now_s < self._state_due_s:
            return []
        self._state_due_s = now_s + self._rhythm.state_every_s
        self._copier = StateCopier(self._ids.op, pointer=pointer, refs=refs, wall_ms=wall_ms)
        return self._copier.start()

    # --- answers ---

    def owns(self, op: OpId) -> bool:
        helpers = (self._collector, self._copier)
        return op in self._writing or any(helper.owns(op) for helper in helpers if helper is not None)

    def handle(self, event: BlobEvent, now_s: float) -> tuple[list[BlobEffect], Reel | None]:
        """Take the answer to one of its effects: what to ask next, and a reel that is lost."""
        one = self._writing.pop(event.op, None)
        if one is None:
            return self._helped(event), None
        match event:
            case BlobWritten(outcome=Outcome.DONE | Outcome.REFUSED):  # nobody else writes under its name
                self.bytes_held -= one.reel.size
            case BlobWritten() if one.attempts < ATTEMPTS_MAX:
                one.due_s = now_s + RETRY_S
                self._later.append(one)
            case BlobWritten() | BlobFailed():
                self.bytes_held -= one.reel.size
                return [], one.reel
            case _:
                raise AssertionError(f"{type(event).__name__} answers no write of a reel")
        return [], None

    def _helped(self, event: BlobEvent) -> list[BlobEffect]:
        """An answer to a copy or a collection."""
        copier = self._copier
        if copier is not None and copier.owns(event.op):
            effects = copier.handle(event)
            if copier.done:
                self._copier = None
                self._state_due_s = float("-inf") if copier.failed else self._state_due_s
            return effects
        assert self._collector is not None
        effects = self._collector.handle(event)
        if self._collector.done:
            self._collector = None
        return effects
