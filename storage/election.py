"""Rules of leadership in the journal: who may run, what a term is worth, which entries stand.

Pure. Safety comes from the store alone (a number can be taken once); time here decides only how soon somebody tries.
"""

from __future__ import annotations

import enum
import zlib
from dataclasses import dataclass

from storage.entry import EntryHeader, EntryKind, entry_name
from storage.errors import CorruptError


class Role(enum.Enum):
    """What one server's journal is doing."""

    STARTING = "starting"
    """Replaying towards the first free number for the first time."""
    FOLLOWING = "following"
    CAMPAIGNING = "campaigning"
    LEADING = "leading"
    STOPPED = "stopped"
    """This instance cannot go on (lineage changed, or what it needs next was collected): make a new one."""


@dataclass(frozen=True, slots=True)
class JournalTimings:
    """Delays in seconds. None of them matters for safety.

    A store that admits one process needs no silence: its only server may lead at once (`silence_s=0, jitter_s=0`).
    """

    heartbeat_s: float = 5.0
    """An idle leader appends this often."""
    silence_s: float = 15.0
    """Three heartbeats missed."""
    jitter_s: float = 5.0
    """Spread of candidates, so that one usually runs alone."""
    poll_s: float = 1.0
    """How soon a follower finds an entry nobody told it about."""
    root_read_s: float = 30.0
    """A leader reads the root at least this often: it may say that the store was restored."""
    retry_s: float = 0.5
    """Pause after a store operation that was not answered."""
    keep_s: float = 3_600.0
    """No entry is deleted before this long after it was seen; the same on all servers of a store. A server that was
    away for less follows on without a snapshot."""
    keep_entries: int = 10_000
    """Nor any of this many newest ones."""

    @property
    def unread_s(self) -> float:
        """So soon after an own entry was sent, nobody can have deleted what follows it: the root need not be read.

        Whoever wrote the next number had seen that entry; whoever deletes keeps it for `keep_s` by a clock that goes
        at most 2 % wrong. A tenth leaves room for everything else (modelled in `tests/model_store`, rule SHORTLY).
        """
        return self.keep_s / 10


class Standing(enum.Enum):
    """What an entry counts for, given the entries before it."""

    VALID = "valid"
    VOID = "void"


def standing(header: EntryHeader, newest_term: int) -> Standing:
    """Judge an entry by the newest term before it. Every replica judges alike, since all see the same order.

    Raises CorruptError for an entry of a term that nobody has won.
    """
    if header.kind is EntryKind.TERM:
        return Standing.VALID if header.term > newest_term else Standing.VOID
    if header.term > newest_term:
        raise CorruptError(
            entry_name(header.seq), f"it is of term {header.term}, and the newest won is {newest_term}", seq=header.seq
        )
    return Standing.VALID if header.term == newest_term else Standing.VOID


def counts(seq: int, gc_floor: int) -> bool:
    """Say whether an entry seen before the root was read is the first ever stored under its number.

    A collector raises the floor before it deletes, so above the floor nothing was ever deleted; at or below it a
    writer that slept may have refilled a number whose true entry others have long acted on.
    """
    return seq > gc_floor


class Silence:
    """How long a follower has seen nothing new from the leader, by its own clock."""

    def __init__(self, writer: str, timings: JournalTimings) -> None:
        self._writer = writer
        self._timings = timings
        self._until_s = float("inf")

    def restart(self, now_s: float, *, next_seq: int) -> None:
        """Begin to wait anew: something was seen, or we ourselves could not look."""
        self._until_s = now_s + self._timings.silence_s + self._jitter_s(next_seq)

    def is_over(self, now_s: float) -> bool:
        """Say whether the leader has been silent long enough to run against it."""
        return now_s >= self._until_s

    def _jitter_s(self, next_seq: int) -> float:
        draw = zlib.crc32(f"{self._writer}/{next_seq}".encode()) / 2**32
        return draw * self._timings.jitter_s
