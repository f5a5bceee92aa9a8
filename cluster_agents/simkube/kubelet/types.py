"""What goes into and comes out of the simulated kubelets: events, effects, node shapes, timing. No behaviour here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from cluster_agents.simkube.apiserver.types import ApiRequest, JsonObject
from federation.protocol.messages import GuardAnswer, GuardAsk

NO_ANSWER: Final = 0
"""Status of an `ApiReply` when none came: lost, timed out or refused to connect."""


@dataclass(frozen=True, slots=True)
class NodeShape:
    """What one simulated node has. `gpus` are whole ones, `mig` counts instances by resource name."""

    name: str
    cpu_milli: int = 128_000
    memory_mib: int = 1_048_576
    gpus: int = 8
    pods_max: int = 110
    labels: Mapping[str, str] = field(default_factory=dict)
    mig: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things take on the nodes; pairs are (least, most), drawn per pod from the seed."""

    start_delay_s: tuple[float, float] = (0.5, 2.0)  # image pull and sandbox
    stop_delay_s: tuple[float, float] = (0.1, 1.0)  # from SIGTERM to exit; never more than the grace
    heartbeat_s: float = 10.0  # node lease renewals
    lease_s: float = 40.0  # without one for this long, the node is Unknown
    retry_s: float = 1.0  # first back-off of an unanswered call, doubled up to retry_max_s
    retry_max_s: float = 15.0
    call_timeout_s: float = 10.0  # a call without any reply by then counts as unanswered
    restart_delay_s: float = 10.0  # CrashLoopBackOff of restartPolicy OnFailure and Always
    guard_renewal_s: float | None = 5.0  # how often guards ask the agent; None: this cluster has no guard
    guard_gates_starts: bool = True  # containers of ours wait for the guard's leave; False: start, then be stopped


# --- events ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Booted:
    """First event of all: register the nodes. The host then lists and watches pods."""


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A pod as a watch showed it (ADDED or MODIFIED)."""

    pod: JsonObject


@dataclass(frozen=True, slots=True)
class PodGone:
    """A pod's last state, as a watch showed it (DELETED)."""

    pod: JsonObject


@dataclass(frozen=True, slots=True)
class PodsListed:
    """All pods of the cluster (`node` None) or of one node: what is not among them is gone."""

    pods: tuple[JsonObject, ...]
    node: str | None = None


@dataclass(frozen=True, slots=True)
class ApiReply:
    """The answer to an `ApiCall`, or status NO_ANSWER."""

    call_id: int
    status: int
    body: JsonObject


@dataclass(frozen=True, slots=True)
class GuardAnswered:
    """The agent's answer to a node's `AskGuard`."""

    node: str
    answer: GuardAnswer


@dataclass(frozen=True, slots=True)
class Tick:
    """Time went by; due at the latest at `Kubelets.wake_at_s`."""


@dataclass(frozen=True, slots=True)
class NodeCut:
    """The node lost its API server (and, if `agent_too`, its agent). Containers run on."""

    node: str
    agent_too: bool = True


@dataclass(frozen=True, slots=True)
class NodeHealed:
    """The node reaches both again; it lists its pods anew."""

    node: str


@dataclass(frozen=True, slots=True)
class NodeCrashed:
    """Power off: every container ends at once. Nothing happens on the node until `NodeBooted`."""

    node: str


@dataclass(frozen=True, slots=True)
class NodeBooted:
    """The crashed node is back, with a fresh guard and no container."""

    node: str


@dataclass(frozen=True, slots=True)
class GuardRestarted:
    """The guard's process began anew: it has no deadline; what it knew as holdable was on the node's disk."""

    node: str


@dataclass(frozen=True, slots=True)
class GpusLost:
    """These GPU indices are ill from now on (all others are well): allocatable shrinks, running pods keep theirs."""

    node: str
    indices: frozenset[int]


Event: TypeAlias = (
    Booted
    | PodSeen
    | PodGone
    | PodsListed
    | ApiReply
    | GuardAnswered
    | Tick
    | NodeCut
    | NodeHealed
    | NodeCrashed
    | NodeBooted
    | GuardRestarted
    | GpusLost
)


# --- effects ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ApiCall:
    """Send this request for `node`; answer with an `ApiReply` of the same id. Never repeated by the host."""

    call_id: int
    node: str
    request: ApiRequest


@dataclass(frozen=True, slots=True)
class AskGuard:
    """Send this guard's ask to the cluster's agent."""

    node: str
    ask: GuardAsk


Effect: TypeAlias = ApiCall | AskGuard
