"""What one replica is told when it is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from federation.core.snapshots import SnapshotRhythm
from federation.core.tape_store import TapeRhythm
from federation.protocol.lease import Timings
from placement.engine import Policy
from storage.election import JournalTimings
from storage.root import FORMAT

WORK_BUDGET: Final = 200_000  # candidate evaluations per cycle: a tenth of a second of one core at 0.5 µs each


@dataclass(frozen=True, slots=True)
class ReplicaConfig:
    """`seed` makes every nonce of this process: it must differ at each start."""

    name: str
    seed: int | str
    timings: Timings = field(default_factory=Timings)
    journal_timings: JournalTimings = field(default_factory=JournalTimings)
    policy: Policy = field(default_factory=Policy)
    budget: int = WORK_BUDGET
    snapshots: SnapshotRhythm = field(default_factory=SnapshotRhythm)
    tape: TapeRhythm = field(default_factory=TapeRhythm)
    format_max: int = FORMAT  # a store of a later format is refused, a new one begins with it
