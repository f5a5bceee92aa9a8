"""The rows of the folded state: one per PodGroup, cluster, queue and remembered request. Plain values.

Only `state.State` changes them. Nothing here decides, and pod templates are never parsed. Those of which there are
hundreds of thousands are structs: a start makes them all, and msgspec makes them ten times faster than a dataclass.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Final, Protocol, TypeVar

import msgspec

from federation.core.history import RecordSummary, unpack_lines
from federation.core.records import ChildOf
from federation.core.stored import ANY_PRODUCT
from placement.elastic import with_counts
from placement.model import (
    NOWHERE,
    ClusterName,
    DisconnectPolicy,
    DisruptionMode,
    GangRequest,
    GroupUid,
    LeaseClass,
    Phase,
    Position,
    QueueName,
    Token,
)
from placement.quota import ALL_PRODUCTS

M = TypeVar("M", bound=StrEnum)


class Known(dict[str, M]):
    """The members of one enumeration by what records call them: `enum[name]`, several times faster."""

    def __missing__(self, name: str) -> M:
        raise ValueError(f"{name!r} is none of {', '.join(self)}")


@unique
class Intent(StrEnum):
    """What is wanted of a group; the home stays until it ends."""

    RUN = "run"
    SUSPEND = "suspend"
    CANCEL = "cancel"
    MOVE = "move"


@unique
class GiveUp(StrEnum):
    """The verdicts that end a home for good."""

    REFUSED = "Refused"
    RELEASED = "Released"
    FINISHED = "Finished"


POLICIES: Final = Known({policy.value: policy for policy in DisconnectPolicy})
DISRUPTION_MODES: Final = Known({mode.value: mode for mode in DisruptionMode})
GIVE_UPS: Final = Known({verdict.value: verdict for verdict in GiveUp})


class Home(msgspec.Struct, frozen=True):
    cluster: ClusterName
    token: Token


class Sizing(msgspec.Struct, frozen=True, array_like=True):
    """The last resize of a home. Stored as it is."""

    at: Position  # of its `Resized`
    before: tuple[int, ...]  # pods of each role until then, where they were not all
    at_most: tuple[int, ...] = ()  # what it may grow to by itself, where that is not all
    sized_at: Position = NOWHERE  # of the agent's answer


class GroupRow(msgspec.Struct):
    """In the order of `shards.StoredGroup`, which has all of these but what is at the end."""

    submitted_at: Position
    uid: GroupUid
    name: str
    namespace: str
    queue: QueueName
    priority: int
    request: GangRequest  # shared between equal ones
    disconnect_policy: DisconnectPolicy
    disruption_mode: DisruptionMode
    grace_s: int
    labels: dict[str, str]
    workload: str
    spec_digest: str
    actor: str
    at_ms: int
    phase: Phase = Phase.PENDING
    intent: Intent = Intent.RUN
    intent_reason: str = ""
    home: Home | None = None
    effective_policy: DisconnectPolicy | None = None  # of the present token
    bound_at: Position = NOWHERE  # of the present token's `Bound`
    running_at: Position = NOWHERE
    pods_bound: int = 0
    changed_at: Position = NOWHERE
    attempts: int = 0  # placements so far
    failures: int = 0  # refusals in a row, cleared by `Bound`
    last_token: Token | None = None
    last_cluster: ClusterName | None = None
    last_verdict: GiveUp | None = None
    last_reasons: tuple[str, ...] = ()
    displaced: bool = False  # its last home ended without a give-up: its next placement is a failover move
    history_packed: bytes = b""
    history_count: int = 0
    history_cut: int = 0  # records no longer in `history`
    counts: tuple[int, ...] = ()  # pods of each role of the present token, where they are not all
    child: ChildOf | None = None  # of which spread group, with its share once that is divided
    failure_spread: str = ""
    sizing: Sizing | None = None  # of the present token
    charge: tuple[tuple[str, int], ...] = ()  # GPUs by product that its home takes from the queue's quota; shared

    @property
    def placed(self) -> GangRequest:
        """What it asks for where its home is: all of it, or the pods that it was placed with."""
        return with_counts(self.request, self.counts) or self.request

    @property
    def resizing(self) -> bool:
        """Its agent has not answered the last resize."""
        return self.sizing is not None and not self.sizing.sized_at

    @property
    def beside(self) -> str:
        """Which others it should rather not fail with; empty if it does not mind."""
        return f"{self.namespace}/{self.failure_spread}" if self.failure_spread else ""

    @property
    def history(self) -> tuple[RecordSummary, ...]:
        """The newest records about the group, oldest first. O(their number): they are unpacked here."""
        return unpack_lines(self.history_packed, self.history_count)


@dataclass(slots=True)
class ClusterRow:
    """`fenced_epoch` > `admitted_epoch` means that nothing may start there (a new cluster begins at 0 and 0)."""

    name: ClusterName
    lease_class: LeaseClass
    labels: dict[str, str]
    accept_unguarded: bool
    joined_at: Position
    cordoned: bool = False
    drain: bool = False
    cordon_reason: str = ""
    fenced_epoch: int = 0
    fenced_at: Position = NOWHERE
    fence_done: tuple[int, ...] = ()  # graces of the present fence, in order
    admitted_epoch: int = 0
    admitted_at: Position = NOWHERE
    dead_at: Position = NOWHERE  # confirmed dead, and not admitted since
    recovering: bool = False  # restored from a backup: what it holds is not known yet
    changed_at: Position = NOWHERE
    homes: dict[GroupUid, Position] = field(default_factory=dict)  # -> changed at; in that order
    tokens: dict[Position, GroupUid] = field(default_factory=dict)  # present tokens, in order
    resizes: dict[Position, GroupUid] = field(default_factory=dict)  # the last one of each home that had any, in order
    ended: dict[str, Position] = field(default_factory=dict)  # token -> where its home ended, in that order
    ended_pruned: Position = NOWHERE  # ends at or below it are no longer in `ended`

    @property
    def admitted(self) -> bool:
        return not self.recovering and self.admitted_epoch > 0 and self.admitted_epoch >= self.fenced_epoch


@dataclass(slots=True)
class QueueRow:
    name: QueueName
    weight: int = 1
    gpu_quota: dict[str, int] = field(default_factory=dict)
    disconnect_policy: DisconnectPolicy | None = None
    applied_at: Position = NOWHERE
    gpus_used: dict[str, int] = field(default_factory=dict)
    homes_count: int = 0
    pending_count: int = 0

    def used(self, line: str) -> int:
        """GPUs that the homes of this queue take from one line of its quota."""
        any_product = 0 if line == ALL_PRODUCTS else self.gpus_used.get(ANY_PRODUCT, 0)
        return self.gpus_used.get(line, 0) + any_product


class RequestRow(msgspec.Struct, frozen=True, array_like=True):
    """A request id taken lately: a repeat gets the same answer (S8). Stored as it is."""

    request_id: str
    digest: str
    position: Position
    uid: str
    at_ms: int


PendingKey = tuple[int, Position, GroupUid]


def pending_key(row: GroupRow) -> PendingKey:
    """Priority, then age, then id: the order in which groups wait."""
    return (-row.priority, row.submitted_at, row.uid)


def ends_with_fence(group: GroupRow) -> bool:
    """Whether `FenceDone` of its grace ends this group's home: its agent and guards have stopped it by then."""
    return group.effective_policy is DisconnectPolicy.STOP_AND_MOVE or not group.bound_at


class Keeper(Protocol):
    """Whoever needs the rows as they are now, however much is folded meanwhile."""

    def group_changes(self, row: GroupRow) -> None:
        """Called before anything about the group changes."""

    def ends_change(self, row: ClusterRow) -> None:
        """Called before the cluster's `ended` changes."""
