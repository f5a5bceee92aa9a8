"""What a state of the model consists of: the journal, and beside it each cluster's lease, agent, ledger and pods.

Messages are not here: a sent message may arrive at any time, any number of times or never, so what can arrive is read
off the facts that were true when it was sent (see `moves`).
"""

from enum import StrEnum
from functools import cached_property
from typing import NamedTuple, NewType

ClusterIndex = NewType("ClusterIndex", int)
Position = NewType("Position", int)  # of a record in the journal, from 1; 0 is before the first
Token = NewType("Token", int)  # position of the Placed record

CLUSTERS = (ClusterIndex(0), ClusterIndex(1))
NO_POSITION = Position(0)
NO_TOKEN = Token(0)


class Kind(StrEnum):
    """The records that matter to one group's home."""

    PLACED = "Placed"
    BOUND = "Bound"
    RELEASED = "Released"  # stands for Refused and Finished too
    CLUSTER_FENCED = "ClusterFenced"
    FENCE_DONE = "FenceDone"
    CONFIRMED_DEAD = "confirm-dead"
    CLUSTER_ADMITTED = "ClusterAdmitted"


class Record(NamedTuple):
    """One record; `token` is the one it ends (or, for Bound, names), `epoch` that of the fence it belongs to."""

    kind: Kind
    cluster: ClusterIndex
    token: Token = NO_TOKEN
    epoch: int = 0


class Journal:
    """The records in order, and the folds over them that the protocol reads."""

    def __init__(self, records: tuple[Record, ...] = ()) -> None:
        self.records = records

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Journal) and self.records == other.records

    def __hash__(self) -> int:
        return hash(self.records)

    @cached_property
    def end(self) -> Position:
        """Position of the newest record."""
        return Position(len(self.records))

    @cached_property
    def homes(self) -> tuple[tuple[ClusterIndex, Token] | None, ...]:
        """The group's home after each prefix; index = length of the prefix."""
        homes: list[tuple[ClusterIndex, Token] | None] = [None]
        for position, record in enumerate(self.records, 1):
            home = homes[-1]
            if record.kind is Kind.PLACED:
                home = (record.cluster, Token(position))
            elif record.kind is not Kind.BOUND and home is not None and record.token == home[1]:
                home = None
            homes.append(home)
        return tuple(homes)

    @cached_property
    def home(self) -> tuple[ClusterIndex, Token] | None:
        """The group's home now."""
        return self.homes[-1]

    @cached_property
    def placements_count(self) -> int:
        """How often the group was placed so far."""
        return sum(1 for record in self.records if record.kind is Kind.PLACED)

    @cached_property
    def ended(self) -> dict[Token, Position]:
        """Where each home that has ended did so, by token."""
        return {
            record.token: Position(position)
            for position, record in enumerate(self.records, 1)
            if record.kind is not Kind.BOUND and record.token != NO_TOKEN
        }

    @cached_property
    def bound(self) -> frozenset[Token]:
        """Tokens whose Bound has landed."""
        return frozenset(record.token for record in self.records if record.kind is Kind.BOUND)

    @cached_property
    def fence_records(self) -> dict[tuple[Kind, ClusterIndex, int], Position]:
        """Where the records of a fence and of its end stand, by kind, cluster and epoch."""
        return {
            (record.kind, record.cluster, record.epoch): Position(position)
            for position, record in enumerate(self.records, 1)
            if record.epoch
        }

    def admissions(self, cluster: ClusterIndex) -> list[Position]:
        """Positions of all ClusterAdmitted records of the cluster: every floor its lease has had or will get."""
        return [
            position
            for (kind, index, _), position in self.fence_records.items()
            if kind is Kind.CLUSTER_ADMITTED and index == cluster
        ]

    def append(self, record: Record) -> "Journal":
        """The journal with one more record."""
        return Journal((*self.records, record))


class Copy(NamedTuple):
    """The group in one cluster under one token. A flag means "at least one pod is there", so a gang has any size."""

    token: Token
    intended: bool = False  # an intent outlives its answer; set only when EVERY_WRITE_CHECKS_AGAIN is dropped
    writing: bool = False  # a create, bind or ungate is on its way to the API server
    startable: bool = False  # a pod that its kubelet may start, or start again, at any moment
    live: bool = False  # a live container
    given_up: bool = False  # the ledger's entry
    verdict_sent: bool = False
    bound_sent: bool = False
    bound_acked: bool = False  # kept in the cluster: a restarted agent still knows it


class Cluster(NamedTuple):
    """One cluster: its lease in the store, its agent's view and ledger, its pods."""

    # The lease, in the store.
    active: bool = True
    epoch: int = 0
    floor: Position = NO_POSITION
    # Time, abstracted to the order that A1, W and K guarantee.
    before_deadline: bool = False  # the newest renewal's deadline has not passed; agent and guard go by it
    # The agent.
    lease_floor: Position | None = None  # of the lease that this agent process holds live; None: it holds none
    landed: Position = NO_POSITION  # the ledger's, in the cluster
    copies: tuple[Copy, ...] = ()

    def runs(self) -> bool:
        """Whether the group has a live container here."""
        return any(copy.live for copy in self.copies)


class Site(NamedTuple):
    """One cluster and the journal: all that a step may read, and all that it may change."""

    at: ClusterIndex
    journal: Journal
    cluster: Cluster

    @property
    def name(self) -> str:
        """The cluster's name in traces."""
        return f"c-{self.at + 1}"

    def home_token(self) -> Token | None:
        """The token of the group's home if that is this cluster."""
        home = self.journal.home
        return home[1] if home is not None and home[0] == self.at else None

    def recorded(self, kind: Kind) -> bool:
        """Whether the journal has this record for the lease's present epoch."""
        return (kind, self.at, self.cluster.epoch) in self.journal.fence_records

    def record(self, told: str, record: Record) -> tuple[str, "Site"]:
        """The step that appends the record; what is told starts with its position."""
        return f"[{self.journal.end + 1}] {told}", self._replace(journal=self.journal.append(record))

    def live_with(self, floor: Position) -> "Site":
        """The site after the agent heard of a renewal under a lease with this floor."""
        return self.with_cluster(self.cluster._replace(before_deadline=True, lease_floor=floor))

    def with_cluster(self, cluster: Cluster) -> "Site":
        """The site with this cluster's new state."""
        return self._replace(cluster=cluster)

    def with_copy(self, copy: Copy) -> "Site":
        """The site with this copy in place of the one of the same token."""
        copies = tuple(copy if old.token == copy.token else old for old in self.cluster.copies)
        return self.with_cluster(self.cluster._replace(copies=copies))
