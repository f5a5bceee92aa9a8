"""What goes into a `Replica` (one federation server's whole core) and what comes out of it.

The shell and the deterministic world drive the very same `Replica.handle(event, now)`: events in, effects out. An
effect is only a wish; the shell carries it out and feeds the outcome back as an event.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum, unique

from federation.core.records import AnyRecord
from federation.core.taped import WriteReel
from federation.protocol.messages import AgentAsk, JournalHint, Report, ServerAnswer, ToAgent
from placement.model import PodGroup, Queue
from storage.blob import BlobEffect, BlobEvent


@dataclass(frozen=True, slots=True)
class Instant:
    """Now, twice: monotonic seconds decide, wall milliseconds are only written down for people."""

    mono_s: float
    wall_ms: int


@unique
class Refused(StrEnum):
    """Why a person's request was not taken; stable codes, mapped to HTTP and exit codes by the shell."""

    NOT_LEADER = "NotLeader"  # try another replica; `leader` in the answer when known
    UNAVAILABLE = "Unavailable"  # no outcome: the request id makes a repeat harmless
    QUEUE_FULL = "QueueFull"
    NAME_TAKEN = "NameTaken"
    REQUEST_ID_CONFLICT = "RequestIdConflict"
    UNKNOWN_QUEUE = "UnknownQueue"
    UNKNOWN_GROUP = "UnknownGroup"
    UNKNOWN_CLUSTER = "UnknownCluster"
    CLUSTER_IN_USE = "ClusterInUse"  # it cannot be removed yet
    GROUP_FINISHED = "GroupFinished"
    NOT_RESIZABLE = "NotResizable"  # it is not elastic, or does not run, or its pods must stand together
    RESIZING = "Resizing"  # its agent has not answered the resize before
    INVALID = "Invalid"
    BAD_TEMPLATE = "BadTemplate"  # a pod template does not say what its pods need
    NOT_TAKEN = "NotTaken"  # it requires what Muster knows and does not do
    LIMIT = "Limit"


# --- requests of people ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SubmitGroup:
    group: PodGroup
    request_id: str
    actor: str


@dataclass(frozen=True, slots=True)
class SetIntent:
    """`intent`: run | suspend | cancel | move."""

    uid: str
    intent: str
    reason: str
    request_id: str
    actor: str


@dataclass(frozen=True, slots=True)
class ResizeGroup:
    """`role` may be left empty where the group has one."""

    uid: str
    role: str
    count: int
    request_id: str
    actor: str


@dataclass(frozen=True, slots=True)
class ApplyQueue:
    queue: Queue
    request_id: str
    actor: str


@dataclass(frozen=True, slots=True)
class JoinCluster:
    cluster: str
    lease_class: str
    labels: tuple[tuple[str, str], ...]
    accept_unguarded: bool
    request_id: str
    actor: str


@dataclass(frozen=True, slots=True)
class CordonCluster:
    cluster: str
    cordoned: bool
    drain: bool
    reason: str
    request_id: str
    actor: str


@dataclass(frozen=True, slots=True)
class ConfirmDead:
    cluster: str
    reason: str
    request_id: str
    actor: str


@dataclass(frozen=True, slots=True)
class RemoveCluster:
    cluster: str
    reason: str
    request_id: str
    actor: str


PersonRequest = (
    SubmitGroup | SetIntent | ResizeGroup | ApplyQueue | JoinCluster | CordonCluster | ConfirmDead | RemoveCluster
)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request's record is durable at `position`; `uid` for submissions (also for repeats of one)."""

    position: int
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Declined:
    """Not taken; `field` names what was wrong, `detail` the limit and the value."""

    why: Refused
    detail: str = ""
    field: str = ""


# --- events ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PersonAsked:
    """Answered by exactly one `AnswerPerson` with this ticket."""

    ticket: int
    request: PersonRequest


@dataclass(frozen=True, slots=True)
class AgentAsked:
    """From an agent, by NATS or HTTPS; `principal` is the cluster whose credential it came with (S13)."""

    ticket: int
    principal: str
    ask: AgentAsk


@dataclass(frozen=True, slots=True)
class ReportArrived:
    principal: str
    report: Report


@dataclass(frozen=True, slots=True)
class HintArrived:
    hint: JournalHint


@dataclass(frozen=True, slots=True)
class StoreAnswered:
    event: BlobEvent


@dataclass(frozen=True, slots=True)
class Tick:
    """Time went by; due at the latest at `Replica.wake_at_s`."""


@dataclass(frozen=True, slots=True)
class Started:
    """First event of all."""


ReplicaEvent = PersonAsked | AgentAsked | ReportArrived | HintArrived | StoreAnswered | Tick | Started


# --- effects ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallStore:
    """Carry out; the answer comes back as `StoreAnswered` with the same op.

    What can wait (`background`) goes by a way of its own, so that nothing else waits for it.
    """

    effect: BlobEffect
    background: bool = False


@dataclass(frozen=True, slots=True)
class AnswerPerson:
    ticket: int
    answer: Accepted | Declined


@dataclass(frozen=True, slots=True)
class AnswerAgent:
    ticket: int
    answer: ServerAnswer


@dataclass(frozen=True, slots=True)
class TellAgent:
    """Publish to one cluster's doorbell subject; may be lost."""

    cluster: str
    message: ToAgent


@dataclass(frozen=True, slots=True)
class TellReplicas:
    """Publish to the other servers; may be lost."""

    hint: JournalHint


@dataclass(frozen=True, slots=True)
class EntryFolded:
    """Committed records were applied to the state, the first at `first`, the others behind it: the watch feed, the
    decision log and tests see exactly these."""

    first: int
    records: Sequence[AnyRecord]

    def lines(self) -> Iterator[tuple[int, AnyRecord]]:
        """Each record with its position."""
        return enumerate(self.records, self.first)


@dataclass(frozen=True, slots=True)
class StateLoaded:
    """The state is now that of a snapshot: of every record up to `position`, none of which is told one by one."""

    position: int


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth a log line and a metric: `event` is noun.verb; `fields` name group, cluster and token if any."""

    event: str
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Halt:
    """A journal record or entry cannot be read or folded: the process must stop and name it (DESIGN §11.7)."""

    why: str


ReplicaEffect = (
    CallStore
    | WriteReel
    | AnswerPerson
    | AnswerAgent
    | TellAgent
    | TellReplicas
    | EntryFolded
    | StateLoaded
    | Note
    | Halt
)
