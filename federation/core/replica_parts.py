"""What one federation server's core consists of, and the questions it answers from it. No events here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

from federation.core.archiver import Archiver
from federation.core.brake import Brake
from federation.core.breaker import Breakers
from federation.core.config import ReplicaConfig
from federation.core.events import (
    CallStore,
    Instant,
    Note,
    ReplicaEffect,
)
from federation.core.failover import Failover
from federation.core.ids import Ids
from federation.core.leader import Leader
from federation.core.leases import Leases
from federation.core.lineup import ahead_of
from federation.core.placer import Placer
from federation.core.placing import quotas_of
from federation.core.relay import Relay
from federation.core.restoring import Restoring
from federation.core.snapshots import Snapshots
from federation.core.state import State
from federation.core.status import cluster_status
from federation.core.tape import Tape
from federation.core.views import Views
from placement.explain import Explanation
from placement.explain import why as explain
from placement.model import ClusterName
from storage.blob import BlobEffect, OpId
from storage.election import Role
from storage.journal import (
    Journal,
)
from storage.root import new_lineage

LINEAGE_NONCE_CHARS: Final = 10  # tokens hold the lineage and must fit into a label value of 63 characters
NEVER: Final = float("inf")


class ReplicaParts:
    """Attributes to read: `name`, `state`, `journal`, `role`, `leading`, `caught_up`, `wake_at_s`."""

    def __init__(self, config: ReplicaConfig) -> None:
        self.name = config.name
        self.state = State()
        self._config = config
        self._boot_nonce = f"{config.name}-{config.seed}"
        self._journals_count = 0
        self.journal = self._new_journal(wall_ms=0)
        self._ids = ids = Ids(self._boot_nonce)
        self._looks: dict[OpId, Leader] = {}  # looks at the journal's end under way, and for whom
        self._relay = Relay(ids.op, ids.nonce)
        self._restoring: Restoring | None = None  # while the state is read from a snapshot
        self.snapshots = Snapshots(ids, config.snapshots, config.journal_timings)
        self.archiver = Archiver(ids)
        self.views = Views(config.timings)
        self.leases = Leases(config.timings, ids)
        self.failover = Failover(config.timings, self.leases, self.views)
        self.breakers = Breakers()
        self.tape = Tape(ids, config.tape, config.policy)
        self.placer = self._new_placer()
        self._leader: Leader | None = None
        self._leader_name = ""  # writer of the newest term, as far as this replica knows
        self._brake = Brake.OFF
        self._format = self.journal.format
        self._halted = False
        self._now = Instant(0.0, 0)
        self._woken_by_s = NEVER  # when the shell was asked to come back at the latest
        self._out: list[ReplicaEffect] = []

    @property
    def role(self) -> Role:
        return self.journal.role

    @property
    def leading(self) -> bool:
        return self._leader is not None

    @property
    def leader_name(self) -> str:
        """Writer of the newest term, as far as this replica has read; empty before the first."""
        return self._leader_name

    @property
    def format_max(self) -> int:
        """The newest format of a store that this replica reads."""
        return self._config.format_max

    def waiting_for(self, now: Instant) -> list[ClusterName]:
        """Clusters that a restored fleet has to hear before it goes on."""
        return self.failover.waiting_for(self.state, now.mono_s)

    @property
    def caught_up(self) -> bool:
        """Whether the journal was read to its end once: before, this replica answers nothing."""
        return self.journal.role not in {Role.STARTING, Role.STOPPED} and not self._halted

    @property
    def wake_at_s(self) -> float | None:
        """When `Tick` is due at the latest; None when only an answer can change anything."""
        return self._woken_by_s if self._woken_by_s < NEVER else None

    # --- questions ---

    def why(self, uid: str, now: Instant | None = None) -> Explanation | None:
        """Why a group has no home yet, from this replica's own views; None for a group it does not know."""
        row = self.state.group(uid)
        if row is None:
            return None
        now_s = (now or self._now).mono_s
        return explain(
            self.placer.fleet(self.state, now_s),
            self.placer.pending(self.state, row, now_s),
            ahead_of(self.state, row),
            quotas_of(self.state),
            self._config.policy,
            worth=self.placer.worth,
            beside=self.state.beside,
        )

    def cluster_status(self, name: str, now: Instant) -> dict[str, Any]:
        """What people are shown of a cluster beside its row. KeyError for one that never joined."""
        row = self.state.clusters[ClusterName(name)]
        gate = self.failover.gate(row, now.mono_s)
        stand = self.breakers.stand(self.state, row.name, now.mono_s)
        return cluster_status(row, gate, stand, self.views, self.leases, now.mono_s)

    # --- small parts ---

    def _new_journal(self, *, wall_ms: int) -> Journal:
        """Each counts its writes anew, so each has a nonce of its own."""
        self._journals_count += 1
        short = hashlib.sha256(self._boot_nonce.encode()).hexdigest()[:LINEAGE_NONCE_CHARS]
        return Journal(
            writer=self._config.name,
            nonce=f"{self._boot_nonce}.{self._journals_count}",
            lineage_candidate=new_lineage(wall_ms, short),
            timings=self._config.journal_timings,
            format_max=self._config.format_max,
        )

    def _new_placer(self) -> Placer:
        config = self._config
        return Placer(
            policy=config.policy,
            budget=config.budget,
            views=self.views,
            failover=self.failover,
            breakers=self.breakers,
            tape=self.tape,
        )

    def _call_store(self, effects: Sequence[BlobEffect], *, background: bool = False) -> None:
        self._out += [CallStore(effect, background) for effect in effects]

    def _note(self, event: str, **fields: str) -> None:
        self._out.append(Note(event, tuple(sorted(fields.items()))))
