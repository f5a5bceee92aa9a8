"""What a gang works with while one event is handled: the books, the ledger, the calls, and its rights at this moment.

Holds no decisions; the reconciler fills it before any gang acts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cluster_agents.core.calls import Calls
from cluster_agents.core.config import AgentConfig
from cluster_agents.core.events import AgentEffect, AskServers, Note
from cluster_agents.core.inventory import Inventory
from cluster_agents.core.jobs import JobBook
from cluster_agents.core.ledger import Ledger
from cluster_agents.core.plan import Intent
from cluster_agents.core.pods import PodBook
from federation.protocol.messages import GuardAsk, SpecAsk, Verdict


@dataclass(slots=True)
class Hands:
    config: AgentConfig
    calls: Calls
    ledger: Ledger
    pods: PodBook
    jobs: JobBook
    inventory: Inventory
    intent: Callable[[str], tuple[Intent, int] | None]  # as it was shown last, with its version
    next_ask_id: int
    now_s: float = 0.0
    may_start: bool = False  # under a live cluster lease and our own local lease
    lineage: str = ""
    look_again: bool = False  # the desired state has news for us
    effects: list[AgentEffect] = field(default_factory=list)

    def ask_id(self) -> int:
        self.next_ask_id += 1
        return self.next_ask_id

    def say(self, verdict: Verdict) -> None:
        self.effects.append(AskServers(verdict))

    def ask_spec(self, uid: str) -> None:
        self.effects.append(AskServers(SpecAsk(ask_id=self.ask_id(), cluster=self.config.cluster, uid=uid)))

    def note(self, event: str, **fields: str) -> None:
        self.effects.append(Note(event, tuple(sorted(fields.items()))))

    def guard_asked(self, ask: GuardAsk) -> bool:
        """Take in what the guard of a node says; True when the node may have new pods again, or has other GPUs."""
        news = self.inventory.guard_heard(ask.node, self.now_s)
        if ask.gpus is None or not self.inventory.gpus_read(ask.node, ask.gpus, self.now_s):
            return news
        for event, fields in self.inventory.gpu_notes(ask.node, self.now_s):
            self.note(event, **fields)
        return True
