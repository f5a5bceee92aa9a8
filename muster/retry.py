"""When to send a request again: a pure rule, the same for both clients.

Only unavailability is retried; a refusal is an answer. Repeats are harmless because changing calls carry a request id.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from muster.errors import MusterError, UnavailableError

PAUSE_FIRST_S = 0.2
PAUSE_MAX_S = 5.0  # people wait; past this they want to be told
RETRY_AFTER_MAX_S = 30.0  # a server's wish is followed up to this


@dataclass(frozen=True, slots=True)
class RetryRule:
    """At most `attempts_max` sends of one request, none of them later than `within_s` after the first."""

    attempts_max: int = 5  # with the pauses below: gives up after about 6 s, where the server is away
    within_s: float = inf  # one that is there and has no outcome says so after 30 s, each time

    def pause_s(self, attempt: int, error: MusterError, *, draw: float, spent_s: float = 0.0) -> float | None:
        """Seconds to wait after failed attempt number `attempt` (from 1), `spent_s` after the first was sent, or None
        to give up.

        `draw` in [0, 1) spreads many clients over the pause (full jitter); a server's Retry-After is a lower bound.
        """
        if not isinstance(error, UnavailableError) or attempt >= self.attempts_max:
            return None
        pause_s = draw * min(PAUSE_MAX_S, PAUSE_FIRST_S * (1 << attempt))
        if error.retry_after_s is not None:
            pause_s += min(error.retry_after_s, RETRY_AFTER_MAX_S)
        return pause_s if spent_s + pause_s <= self.within_s else None
