"""Where the fleet stands, folded from its decision log as a client reads it, and what people are shown of it.

Pure: decisions in, counts and news out. For the eye only; `checks` does not use it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from muster.results import ClusterView, Decision, Explanation, QueueView

RATE_S: Final = 5.0  # decisions per second over this long
PHASES: Final = ("pending", "placed", "bound", "running", "done", "failed")


@dataclass(frozen=True, slots=True)
class Counts:
    """Groups by what they are doing. `placed` ones have a home but are not bound yet."""

    pending: int = 0
    placed: int = 0
    bound: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0

    @property
    def live(self) -> int:
        return self.placed + self.bound + self.running

    @property
    def total(self) -> int:
        return self.pending + self.live + self.done + self.failed


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from submission to bound, of the groups bound so far."""

    p50_s: float
    p99_s: float
    count: int


@dataclass(slots=True)
class Group:
    submitted_ms: int
    phase: str = "pending"
    cluster: str = ""
    bound_ms: int = 0  # for the first time
    placements: int = 0


@dataclass(slots=True)
class Progress:
    """Fold of the decision log. `take` it in order."""

    groups: dict[str, Group] = field(default_factory=dict)
    position: int = 0
    placed_count: int = 0
    log: list[Decision] = field(default_factory=list)
    _placed_ms: deque[int] = field(default_factory=deque)

    def take(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            self.position = decision.position
            self.log.append(decision)
            self._fold(decision)

    def _fold(self, decision: Decision) -> None:
        if decision.kind == "Submitted" and decision.uid:
            self.groups[decision.uid] = Group(decision.at_ms)
        elif decision.kind == "FenceDone":
            for group in self.groups.values():
                if group.cluster == decision.cluster:
                    group.phase, group.cluster = "pending", ""
        self._fold_group(decision, self.groups.get(decision.uid or ""))

    def _fold_group(self, decision: Decision, group: Group | None) -> None:
        if group is None:
            return
        match decision.kind:
            case "Placed":
                group.phase, group.cluster = "placed", decision.cluster or ""
                group.placements += 1
                self.placed_count += 1
                self._placed_ms.append(decision.at_ms)
            case "Bound":
                group.phase = "bound"
                group.bound_ms = group.bound_ms or decision.at_ms
            case "Running":
                group.phase = "running"
            case "GaveUp" if not decision.detail.get("late"):
                group.cluster = ""
                group.phase = "pending"
                if decision.detail.get("verdict") == "Finished":
                    group.phase = "done" if decision.detail.get("succeeded") else "failed"
            case _:
                pass

    # --- what it comes to ---

    def counts(self) -> Counts:
        found = dict.fromkeys(PHASES, 0)
        for group in self.groups.values():
            found[group.phase] += 1
        return Counts(**found)

    def homes(self, cluster: str) -> set[str]:
        return {uid for uid, group in self.groups.items() if group.cluster == cluster}

    def head(self) -> str | None:
        """The uid of the group that has waited longest."""
        waiting = [uid for uid, group in self.groups.items() if group.phase == "pending"]
        return min(waiting, key=lambda uid: int(uid.rpartition(".")[2]), default=None)

    def bound_once(self) -> int:
        return sum(group.bound_ms > 0 for group in self.groups.values())

    def rate(self, now_ms: int) -> float:
        """Placements decided per second of late."""
        while self._placed_ms and self._placed_ms[0] < now_ms - RATE_S * 1000:
            self._placed_ms.popleft()
        return len(self._placed_ms) / RATE_S

    def latency(self) -> Latency | None:
        waits = sorted(group.bound_ms - group.submitted_ms for group in self.groups.values() if group.bound_ms)
        if not waits:
            return None
        return Latency(percentile(waits, 0.50) / 1000, percentile(waits, 0.99) / 1000, len(waits))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least this share does not exceed."""
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


@dataclass(frozen=True, slots=True)
class News:
    """One line of the story, `at_s` seconds after the first submission."""

    at_s: float
    text: str
    grave: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything one picture shows."""

    at_s: float
    act: str
    expected: int  # groups the demo will submit
    clusters: Sequence[ClusterView]
    queues: Sequence[QueueView]
    counts: Counts
    decisions_per_s: float
    latency: Latency | None
    head: Explanation | None
