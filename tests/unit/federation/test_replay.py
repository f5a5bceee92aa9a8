"""What a leader decided, decided again from journal and tape: equal, or the difference is named."""

from __future__ import annotations

from typing import Any

from federation.core.tape import TapeRhythm
from federation.simulate.journal import Stretch, replay
from tests.unit.federation.pump import Pump, started

RHYTHM = TapeRhythm(write_every_s=1.0)


def fleet(**config: Any) -> Pump:
    """Two clusters; some groups run, some wait."""
    pump = started(tape=RHYTHM, **config)
    pump.join("a", "b")
    for number in range(12):
        pump.submit(f"g-{number}", pods=1 + number % 3, priority=number % 2)
        pump.run(1.0)
    return pump


def test_every_decision_of_a_leader_is_made_again_from_journal_and_tape() -> None:
    pump = fleet()
    found = replay(pump.store, Stretch())
    assert (found.decisions, found.equal, found.different, found.not_covered) == (11, 11, 0, {})
