"""How fast failover may go: a token bucket for moves, and the brake for when many clusters fall silent at once.

Many silent clusters are more often a fault of ours or of the network between than many dead clusters (DESIGN §11.4).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Final

from placement.model import ClusterName

MOVES_PER_S: Final = 20.0  # DESIGN §11.4: 500 gangs in 25 s, and no cluster is buried under them
SLOW_FACTOR: Final = 0.1
SLOW_ABOVE: Final = 0.33  # share of clusters silent
STOP_ABOVE: Final = 0.55
SILENT_TOGETHER_MIN: Final = 2  # a fleet of one or two must be able to lose one


@unique
class Brake(IntEnum):
    """Ordered: the higher, the less is done."""

    OFF = 0
    SLOW = 1
    STOP = 2

    @property
    def rate_factor(self) -> float:
        return {Brake.OFF: 1.0, Brake.SLOW: SLOW_FACTOR, Brake.STOP: 0.0}[self]


def brake_for(silent_since_s: Mapping[ClusterName, float], *, members: int, window_s: float, in_doubt: bool) -> Brake:
    """The brake for a fleet of `members` clusters of which some have been silent since the given moments.

    Counts from the second cluster lost within `window_s` of another; `in_doubt`: our own connectivity is.
    """
    if in_doubt:
        return Brake.STOP
    moments = sorted(silent_since_s.values())
    together = any(later - earlier <= window_s for earlier, later in itertools.pairwise(moments))
    if not together or len(moments) < SILENT_TOGETHER_MIN:
        return Brake.OFF
    share = len(moments) / members
    if share > STOP_ABOVE:
        return Brake.STOP
    return Brake.SLOW if share > SLOW_ABOVE else Brake.OFF


@dataclass(slots=True)
class Bucket:
    """A token bucket: starts full, holds at most `burst`."""

    per_s: float
    burst: float
    tokens: float = -1.0
    at_s: float = float("-inf")

    def available(self, now_s: float, *, factor: float = 1.0) -> int:
        """Whole tokens at hand; since the last look they came in at `factor` of the rate."""
        if self.at_s == float("-inf"):
            self.tokens = self.burst
        else:
            self.tokens = min(self.burst, self.tokens + (now_s - self.at_s) * self.per_s * factor)
        self.at_s = now_s
        return int(self.tokens) if factor > 0.0 else 0

    def spend(self, count: int) -> None:
        assert count <= self.tokens
        self.tokens -= count
