"""What the journal wants of this cluster, folded from full answers and deltas, and when to ask again.

Answers may come late, twice, in any order and from lagging replicas: only those that carry us forward are folded.
Whether an answer may be acted on is the home rule's, in `reconcile`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from cluster_agents.core.config import DESIRED_GROUPS_MAX, AgentConfig
from federation.protocol.messages import DesiredAnswer, DesiredAsk, DesiredGroup
from placement.model import Token

PARTS_MAX: Final = 64  # of one full answer: 40,000 groups in parts of 2,000, and slack
ASK_GAP_S: Final = 0.05  # between asks: a burst of doorbells is one look


@dataclass(frozen=True, slots=True)
class DesiredNews:
    """What an answer changed: tokens to look at again, in order. `full`: what is held and not in it is not desired."""

    tokens: tuple[str, ...]
    full: bool = False


@dataclass(slots=True)
class _Parts:
    """A full answer that came in parts so far."""

    lineage: str
    as_of: int
    parts: int
    seen: dict[int, tuple[DesiredGroup, ...]] = field(default_factory=dict)


class Desired:
    """The desired state as of a position of one lineage."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self.lineage = ""
        self.as_of = 0
        self.complete = False  # a whole answer was folded since the start
        self._groups: dict[str, DesiredGroup] = {}
        self._parts: _Parts | None = None
        self._wanted = 0  # position a doorbell or a verdict's answer named
        self._asked_at_s: float | None = None
        self._due_s = 0.0
        self._last_ask_s = float("-inf")

    def group(self, token: str) -> DesiredGroup | None:
        return self._groups.get(token)

    def tokens(self) -> list[str]:
        return sorted(self._groups)

    def forget(self, token: str) -> None:
        """The token's end landed: no later answer can name it again."""
        self._groups.pop(token, None)

    def covers(self, token: Token) -> bool:
        """Would this state name the token if it were homed here? Not if the state is older than the token."""
        if not self.complete:
            return False
        return token.lineage < self.lineage or (token.lineage == self.lineage and token.position <= self.as_of)

    # --- asking -------------------------------------------------------------------------------------------------------

    def look(self, position: int = 0, *, by_s: float = 0.0) -> None:
        """Ask as soon as may be, or by then where nothing waits for it; `position`: at least until it is covered."""
        if not position or position > self.as_of:
            self._wanted = max(self._wanted, position)
            self._due_s = min(self._due_s, by_s)

    def ask(self, now_s: float, *, ask_id: int) -> DesiredAsk:
        """The ask that is due (`wake_at_s`); one at a time, until it is answered or its time-out passed."""
        assert now_s >= self.wake_at_s()
        self._asked_at_s = self._last_ask_s = now_s
        self._due_s = now_s + self._config.timings.desired_poll_s
        since = self.as_of if self.complete else 0
        return DesiredAsk(ask_id=ask_id, cluster=self._config.cluster, since=since, lineage=self.lineage)

    def wake_at_s(self) -> float:
        earliest_s = self._last_ask_s + ASK_GAP_S
        if self._asked_at_s is not None:
            return self._asked_at_s + self._config.timings.ask_timeout_s
        return max(self._due_s, earliest_s)

    # --- folding ------------------------------------------------------------------------------------------------------

    def take(self, answer: DesiredAnswer, now_s: float) -> DesiredNews | None:
        """Fold an answer; None when it does not carry us forward."""
        if answer.cluster != self._config.cluster or answer.lineage < self.lineage:
            return None
        self._was_answered(now_s)
        if answer.lineage > self.lineage:
            self._start_over(answer.lineage)
        news = self._take_full(answer) if answer.full else self._take_delta(answer)
        if self._wanted > self.as_of or not self.complete:
            # A replica that lags: look again soon, but leave it time to follow.
            self._due_s = min(self._due_s, now_s + self._config.timings.ask_timeout_s / 4)
        return news

    def _was_answered(self, now_s: float) -> None:
        if self._asked_at_s is not None:
            self._asked_at_s = None
            self._due_s = min(self._due_s, now_s + self._config.timings.desired_poll_s)

    def _start_over(self, lineage: str) -> None:
        """A restore changed the journal: positions of the old lineage mean nothing in the new one."""
        self.lineage, self.as_of, self.complete = lineage, 0, False
        self._parts = None
        self._wanted = 0

    def _take_full(self, answer: DesiredAnswer) -> DesiredNews | None:
        if self.complete and answer.as_of < self.as_of:
            return None
        groups = self._whole(answer)
        if groups is None:
            return None
        before = self._groups.keys()
        self._groups = {}
        for group in groups[:DESIRED_GROUPS_MAX]:
            if _is_token(group.token):
                self._groups[group.token] = group
        self.as_of, self.complete = answer.as_of, True
        return DesiredNews(tuple(sorted(before | self._groups.keys())), full=True)

    def _whole(self, answer: DesiredAnswer) -> tuple[DesiredGroup, ...] | None:
        """All groups of a full answer once its last part came."""
        if answer.parts <= 1:
            return answer.groups
        if answer.parts > PARTS_MAX or not 0 <= answer.part < answer.parts:
            return None
        kept = self._parts
        if kept is None or (kept.lineage, kept.as_of, kept.parts) != (answer.lineage, answer.as_of, answer.parts):
            if kept is not None and kept.lineage == answer.lineage and kept.as_of > answer.as_of:
                return None
            kept = self._parts = _Parts(answer.lineage, answer.as_of, answer.parts)
        kept.seen[answer.part] = answer.groups
        if len(kept.seen) < kept.parts:
            return None
        self._parts = None
        return tuple(group for part in sorted(kept.seen) for group in kept.seen[part])

    def _take_delta(self, answer: DesiredAnswer) -> DesiredNews | None:
        if not self.complete:
            return None
        if answer.since > self.as_of:
            self.look()  # a gap between what we hold and what it begins with: ask from where we are
            return None
        if answer.as_of <= self.as_of:
            return None
        touched: set[str] = set()
        for token in answer.ended:
            if self._groups.pop(token, None) is not None or _is_token(token):
                touched.add(token)
        touched |= self._put(answer.groups)
        self.as_of = answer.as_of
        return DesiredNews(tuple(sorted(touched)))

    def _put(self, groups: Iterable[DesiredGroup]) -> set[str]:
        put: set[str] = set()
        for group in groups:
            room = group.token in self._groups or len(self._groups) < DESIRED_GROUPS_MAX
            if room and _is_token(group.token):
                self._groups[group.token] = group
                put.add(group.token)
        return put


def _is_token(text: str) -> bool:
    try:
        Token.parse(text)
    except ValueError:
        return False
    return True
