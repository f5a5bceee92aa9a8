"""Fault switches of the simulated API server: what a test or a drill may turn on."""

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from cluster_agents.simkube.apiserver.store import Key
from cluster_agents.simkube.apiserver.types import JsonObject

ANY: Final = "*"
RULES_MAX: Final = 1_000  # a drill sets a handful

Snapshot: TypeAlias = dict[str, dict[Key, JsonObject]]


@dataclass(slots=True)
class FailRule:
    """Answer the next `times` requests of `verb` on `label` with `status`; "*" stands for any.

    `applied`: carry the request out first and lose the reply, the case that corrupts careless clients.
    """

    verb: str
    label: str
    status: int
    times: int
    applied: bool = False

    def covers(self, verb: str, label: str) -> bool:
        """Does the rule still apply to such a request?"""
        return self.times > 0 and self.verb in {ANY, verb} and self.label in {ANY, label}


@dataclass(slots=True)
class Faults:
    """The switches. `latency_s` is carried out by the shell; everything else by the core."""

    rules: list[FailRule] = field(default_factory=list)
    latency_s: float = 0.0
    frozen_at: int | None = None  # watches and resourceVersion=0 lists stand still at this revision
    frozen: Snapshot = field(default_factory=dict)

    def fail(self, verb: str, label: str, status: int, *, times: int = 1, applied: bool = False) -> None:
        """Make the next `times` such requests fail."""
        self.rules = [rule for rule in self.rules if rule.times > 0]
        assert len(self.rules) < RULES_MAX
        self.rules.append(FailRule(verb, label, status, times, applied))

    def take(self, verb: str, label: str) -> FailRule | None:
        """The first rule that covers the request, used up once; None when it may pass."""
        for rule in self.rules:
            if rule.covers(verb, label):
                rule.times -= 1
                return rule
        return None

    def clear(self) -> None:
        """Everything off."""
        self.rules.clear()
        self.latency_s = 0.0
        self.frozen_at = None
        self.frozen = {}
