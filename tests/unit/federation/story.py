"""A state told as a story: each call appends one record, folds it and checks every invariant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from federation.core.admission import admit
from federation.core.events import PersonRequest, SubmitGroup
from federation.core.invariants import Transitions, check
from federation.core.records import (
    AnyRecord,
    Bound,
    ClusterAdmitted,
    ClusterConfirmedDead,
    ClusterFenced,
    ClusterJoined,
    FenceDone,
    GaveUp,
    IntentSet,
    Placed,
    Submitted,
)
from federation.core.rows import GroupRow
from federation.core.state import State
from placement.model import Position, Token
from storage.entry import position
from storage.root import FORMAT
from tests.unit.federation.pump import pod_group

LINEAGE = "0000000000001-test"
AT_MS = 1_700_000_000_000


@dataclass
class Story:
    state: State = field(default_factory=lambda: State(LINEAGE))
    seq: int = 0
    index: int = 0  # of the newest record in its entry
    in_entry: bool = False
    at_ms: int = AT_MS
    transitions: Transitions = field(default_factory=Transitions)

    def record(self, record: AnyRecord) -> Position:
        """Fold a record as an entry of its own, or as the next of `one_entry`."""
        self.index = self.index + 1 if self.in_entry and self.index >= 0 else 0
        self.seq += self.index == 0
        at = Position(position(self.seq) + self.index)
        self.state.apply(at, record)
        self.transitions.folded(at, record, self.state)
        check(self.state)
        return at

    @contextmanager
    def one_entry(self) -> Iterator[None]:
        """What is recorded meanwhile stands in one entry."""
        self.in_entry, self.index = True, -1
        yield
        self.in_entry = False

    def admit(self, request: PersonRequest, *, store_format: int = FORMAT) -> Any:
        """The one record that it makes, all of them, or the answer."""
        outcome = admit(self.state, request, at_ms=self.at_ms, store_format=store_format)
        return outcome[0] if isinstance(outcome, tuple) and len(outcome) == 1 else outcome

    def submit(self, name: str = "train", *, request_id: str = "", actor: str = "sara", **fields: Any) -> str:
        record = self.admit(SubmitGroup(pod_group(name, **fields), request_id or f"submit-{name}", actor))
        assert isinstance(record, Submitted), record
        return f"{LINEAGE}.{self.record(record)}"

    def cluster(self, *names: str, **fields: Any) -> None:
        """Clusters that have joined and are admitted in epoch 1."""
        for name in names:
            self.record(ClusterJoined(cluster=name, at_ms=self.at_ms, **fields))
            self.record(ClusterFenced(cluster=name, epoch=1))
            self.record(ClusterAdmitted(cluster=name, epoch=1))

    def place(self, uid: str, cluster: str, policy: str = "StopAndMove") -> str:
        """Place and return the token."""
        return str(Token(self.state.lineage, self.record(Placed(uid=uid, cluster=cluster, effective_policy=policy))))

    def bound(self, uid: str) -> None:
        self.record(Bound(uid=uid, token=self.token(uid), cluster=self.home(uid), pods=1))

    def gave_up(self, uid: str, verdict: str, **fields: Any) -> Position:
        return self.record(GaveUp(uid=uid, token=self.token(uid), cluster=self.home(uid), verdict=verdict, **fields))

    def intend(self, uid: str, intent: str) -> None:
        self.record(IntentSet(uid=uid, intent=intent))

    def fenced(self, cluster: str, epoch: int) -> None:
        self.record(ClusterFenced(cluster=cluster, epoch=epoch))

    def fence_done(self, cluster: str, epoch: int, grace_s: int) -> Position:
        return self.record(FenceDone(cluster=cluster, epoch=epoch, grace_s=grace_s))

    def confirmed_dead(self, cluster: str) -> None:
        self.record(ClusterConfirmedDead(cluster=cluster, actor="olga", reason="burnt"))

    def row(self, uid: str) -> GroupRow:
        row = self.state.group(uid)
        assert row is not None
        return row

    def home(self, uid: str) -> str:
        home = self.row(uid).home
        assert home is not None
        return home.cluster

    def token(self, uid: str) -> str:
        home = self.row(uid).home
        assert home is not None
        return str(home.token)
