"""The vocabulary: PodGroups as people write them, and the small values that every room passes around.

Frozen pydantic models are what crosses the API (`extra="forbid"`); the dataclasses below them are what the cores
compute with. No behaviour beyond validation lives here, and fleet-sized data never does (see `placement.fleet`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, unique
from typing import Annotated, Any, NamedTuple, NewType, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from placement.spread_rules import child_faults, spread_faults

ClusterName = NewType("ClusterName", str)
GroupUid = NewType("GroupUid", str)
NodeName = NewType("NodeName", str)
Position = NewType("Position", int)
QueueName = NewType("QueueName", str)
Lineage = NewType("Lineage", str)

# Limits of DESIGN §15. Each is checked where people's input enters and tested at n and n + 1.
NODES_PER_CLUSTER_MAX = 5_000
GROUPS_PER_CLUSTER_MAX = 10_000  # at home: an agent has as many entries in its ledger of give-ups (DESIGN §15)
PODS_PER_GROUP_MAX = 10_000
ROLES_MAX = 32
LABELS_MAX = 64
NAME_CHARS_MAX = 63  # RFC 1123: a label's value, which names become
GRACE_S_MAX = 600
GPUS_PER_POD_MAX = 16  # largest single-node GPU count sold (16-GPU baseboards)
PRIORITY_ABS_MAX = 1_000_000_000  # Kubernetes' bound for user priorities
PRODUCTS_MAX = 16
SPREAD_CLUSTERS_MAX = 64  # that one spread group may use: its children are submitted in one journal entry
RUN_S_MAX = 366 * 24 * 3_600  # a year: longer is a typing error

NOWHERE = Position(0)


class Token(NamedTuple):
    """What fences one placement: the lineage and position of its `Placed` record. Tokens of a group only grow (S2)."""

    lineage: Lineage
    position: Position

    def __str__(self) -> str:
        return f"{self.lineage}.{self.position}"

    @classmethod
    def parse(cls, text: str) -> Token:
        """Inverse of `str`; ValueError when `text` is not `<lineage>.<position>` as `str` writes it."""
        lineage, dot, position = text.rpartition(".")
        written = position.isascii() and position.isdigit() and (position == "0" or position[0] != "0")
        if not dot or not lineage or not written:
            raise ValueError(f"token {text!r} is not <lineage>.<position>")
        return cls(Lineage(lineage), Position(int(position)))


def group_uid(lineage: Lineage, position: Position) -> GroupUid:
    """Identity of a PodGroup: where its `Submitted` record stands."""
    return GroupUid(f"{lineage}.{position}")


@unique
class Level(StrEnum):
    """Topology levels with a name; any other node label key may be used as a level too."""

    HOST = "host"
    CLIQUE = "clique"
    RACK = "rack"
    BLOCK = "block"
    ZONE = "zone"


@unique
class DisruptionMode(StrEnum):
    SINGLE = "single"
    ALL = "all"


@unique
class PreemptionPolicy(StrEnum):
    LOWER_PRIORITY = "PreemptLowerPriority"
    NEVER = "Never"


@unique
class DisconnectPolicy(StrEnum):
    """What becomes of a running gang when its cluster goes silent (DESIGN §11)."""

    STOP_AND_MOVE = "StopAndMove"
    HOLD_IN_PLACE = "HoldInPlace"
    MOVE_ANYWAY = "MoveAnyway"


@unique
class FenceStrength(StrEnum):
    GUARD = "guard"
    REPLICAS = "replicas"
    NONE = "none"


@unique
class LeaseClass(StrEnum):
    FAST = "fast"
    DEFAULT = "default"
    CAREFUL = "careful"


@unique
class Phase(StrEnum):
    PENDING = "Pending"
    PLACED = "Placed"
    BINDING = "Binding"
    BOUND = "Bound"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
    EVICTING = "Evicting"
    STRANDED = "Stranded"
    QUARANTINED = "Quarantined"
    CANCELLED = "Cancelled"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL_PHASES


TERMINAL_PHASES = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED})


@unique
class Reason(Enum):
    """Why something does not happen now; `severity` orders them: the higher, the less a wait will help.

    The value is the stable code seen by users, metrics and `docs/reasons.md`.
    """

    QUEUED_BEHIND = ("QueuedBehind", 10)
    VIEW_STALE = ("ViewStale", 20)
    REFUSED_LATELY = ("RefusedLately", 25)
    INSUFFICIENT_PODS = ("InsufficientPods", 28)
    INSUFFICIENT_DEVICES = ("InsufficientDevices", 29)
    INSUFFICIENT_GPUS = ("InsufficientGpus", 30)
    INSUFFICIENT_CPU = ("InsufficientCpu", 31)
    INSUFFICIENT_MEMORY = ("InsufficientMemory", 32)
    TOO_FRAGMENTED = ("TooFragmented", 33)
    NO_CLIQUE_LARGE_ENOUGH = ("NoCliqueLargeEnough", 34)
    NO_DOMAIN_LARGE_ENOUGH = ("NoDomainLargeEnough", 35)
    SPREAD_TOO_SMALL = ("SpreadTooSmall", 36)
    SPREAD_TOO_NARROW = ("SpreadTooNarrow", 37)
    TOO_FEW_HOSTS = ("TooFewHosts", 38)
    TOO_MANY_GROUPS = ("TooManyGroups", 39)
    QUOTA_EXHAUSTED = ("QuotaExhausted", 40)
    CLUSTER_FAILING = ("ClusterFailing", 45)
    CLUSTER_SILENT = ("ClusterSilent", 50)
    CLUSTER_FENCED = ("ClusterFenced", 51)
    CLUSTER_NOT_ADMITTED = ("ClusterNotAdmitted", 52)
    CLUSTER_CORDONED = ("ClusterCordoned", 53)
    SIBLING_THERE = ("SiblingThere", 55)
    CLUSTER_NOT_WANTED = ("ClusterNotWanted", 60)
    LEASE_CLASS_NOT_ACCEPTED = ("LeaseClassNotAccepted", 61)
    NO_SUCH_PRODUCT = ("NoSuchProduct", 70)
    NO_SUITABLE_NODE = ("NoSuitableNode", 72)
    SHARE_NOT_ENFORCED = ("ShareNotEnforced", 71)
    LARGER_THAN_CLUSTER = ("LargerThanCluster", 80)
    GROUP_SUSPENDED = ("GroupSuspended", 90)
    # Agents' own refusals and releases.
    KUBELET_REJECTED = ("KubeletRejected", 100)
    API_ERROR = ("ApiError", 101)
    BIND_CONFLICT = ("BindConflict", 102)
    BIND_DEADLINE = ("BindDeadline", 103)
    VICTIM_STILL_RUNNING = ("VictimStillRunning", 104)
    LEASE_LOST = ("LeaseLost", 110)
    MEMBER_LOST = ("MemberLost", 111)
    DRAINED = ("Drained", 112)
    CANCELLED = ("Cancelled", 113)
    SUSPENDED = ("Suspended", 114)
    NOT_DESIRED = ("NotDesired", 115)
    TEMPLATE_REFUSED = ("TemplateRefused", 116)

    def __init__(self, code: str, severity: int) -> None:
        self.code = code
        self.severity = severity

    @classmethod
    def of(cls, code: str) -> Reason | None:
        """The reason with this code, or None for one a newer version knows."""
        return _REASONS.get(code)


_REASONS = {reason.code: reason for reason in Reason}


@dataclass(frozen=True, slots=True)
class Because:
    """One reason with its quantity: `needs` and `best` in `unit` ("needs 64 GPUs in one clique, best has 48")."""

    reason: Reason
    needs: int = 0
    best: int = 0
    unit: str = ""
    detail: str = ""

    def __str__(self) -> str:
        amount = f": needs {self.needs} {self.unit}, best is {self.best}" if self.unit else ""
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.reason.code}{amount}{detail}"


# ---------------------------------------------------------------------------------------------------------------------
# What the engine sees of a PodGroup: its request class, shared between equal ones.


class LabelRule(NamedTuple):
    """One line of a node affinity: In, NotIn, Exists, DoesNotExist, Gt or Lt, as Kubernetes means them."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class Taint(NamedTuple):
    """What keeps pods away from a node; its effect is NoSchedule or NoExecute."""

    key: str
    value: str
    effect: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


class Toleration(NamedTuple):
    """A pod may stand on nodes with such taints. An empty key means every key, an empty effect every effect."""

    key: str
    operator: str  # Exists or Equal
    value: str = ""
    effect: str = ""


class NodeRule(NamedTuple):
    """Which nodes a pod may stand on, whatever they have free: one of `terms`, all of whose rules hold (all nodes if
    there is none), and no taint but those tolerated. See `placement.node_rules`."""

    terms: tuple[tuple[LabelRule, ...], ...] = ()
    tolerations: tuple[Toleration, ...] = ()


ANY_NODE = NodeRule()


@dataclass(frozen=True, slots=True)
class RoleRequest:
    """What one pod of a role asks for, and how many pods there are. `gpus` counts whole GPUs."""

    name: str
    count: int
    min_count: int
    gpus: int = 0
    gpu_milli: int = 0
    mig_profile: str = ""
    cpu_milli: int = 0
    memory_mib: int = 0
    products: tuple[str, ...] = ()
    nodes: NodeRule = ANY_NODE
    level_required: str = ""  # of the role's own pods, inside the gang's domain
    level_preferred: str = ""
    slice_pods: int = 0  # so many pods stand in one domain of the role's levels, not all of them; 0: all
    per_host: int = 0  # pods of the role on one host at most; 0: as many as fit

    @property
    def nested(self) -> bool:
        """Whether it asks for levels of its own."""
        return bool(self.level_required or self.level_preferred)


@dataclass(frozen=True, slots=True)
class GangRequest:
    """Everything that decides where a gang fits; equal requests are interchangeable for the engine."""

    roles: tuple[RoleRequest, ...]
    min_count: int
    level_required: str = ""
    level_preferred: str = ""
    cluster_labels: tuple[tuple[str, tuple[str, ...]], ...] = ()  # label -> accepted values
    cluster_labels_not: tuple[tuple[str, tuple[str, ...]], ...] = ()
    lease_classes: tuple[str, ...] = ()
    data: tuple[tuple[str, int], ...] = ()  # data sets that it reads: name and GiB, 0 where nobody said
    elastic: bool = False  # it may start with fewer pods than all: see `placement.elastic`

    @property
    def pods(self) -> int:
        return sum(role.count for role in self.roles)

    @property
    def gpus(self) -> int:
        return sum(role.count * role.gpus for role in self.roles)

    @property
    def nested(self) -> bool:
        """Whether any role asks for levels of its own, inside the gang's domain."""
        return any(role.nested for role in self.roles)

    @property
    def prefers(self) -> bool:
        """Whether it, or any role, prefers a level."""
        return bool(self.level_preferred) or any(role.level_preferred for role in self.roles)


# ---------------------------------------------------------------------------------------------------------------------
# What people write.

Name = Annotated[
    str,
    StringConstraints(
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", min_length=1, max_length=NAME_CHARS_MAX, strict=True
    ),
]
QueueField = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", min_length=1, max_length=63, strict=True)
]
LabelValue = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", max_length=63)]
LabelKey = Annotated[
    str,
    StringConstraints(pattern=r"^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$", max_length=317),
]
LabelMap = Annotated[dict[LabelKey, LabelValue], Field(max_length=LABELS_MAX)]
LabelValues = Annotated[tuple[LabelValue, ...], Field(max_length=LABELS_MAX)]
ValuesByLabel = Annotated[dict[LabelKey, LabelValues], Field(max_length=LABELS_MAX)]
Count = Annotated[int, Field(ge=1, le=PODS_PER_GROUP_MAX, strict=True)]
Seconds = Annotated[int, Field(ge=0, le=RUN_S_MAX, strict=True)]

# Parsed by pattern, never a fixed list; but no GPU has more than seven MIG slices.
_MIG_PROFILE = re.compile(r"[1-7]g\.[1-9]\d{0,3}gb(\+(me|gfx)){0,2}", re.ASCII)


class MisfitError(ValueError):
    """Fields that do not go together; `field` is the one to change, below the model that found it."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(why)
        self.field = field


class Written(BaseModel):
    """Base of all that people write: unknown fields are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class GpuRequest(Written):
    """GPUs of one pod: whole ones, a share of one, or one MIG profile. At most one of the three is set."""

    whole: Annotated[int, Field(ge=0, le=GPUS_PER_POD_MAX, strict=True)] = 0
    milli: Annotated[int, Field(ge=0, le=1000, strict=True)] = 0
    mig: str = ""

    @field_validator("mig")
    @classmethod
    def _profile(cls, value: str) -> str:
        if value and not _MIG_PROFILE.fullmatch(value):
            raise ValueError(f"MIG profile {value!r} is not of the form <1 to 7 slices>g.<memory>gb")
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.whole > 0) + (self.milli > 0) + bool(self.mig) > 1:
            raise ValueError("set only one of whole, milli and mig")
        return self


LevelName = Annotated[str, StringConstraints(max_length=317)]  # a named level, or a node label key


class RoleTopology(Written):
    """Where the pods of one role stand, inside the group's domain: all in one domain of a level, or each `slice` of so
    many pods in one, neighbours in rank; and no more of them than `per_host` on one host."""

    required: LevelName = ""
    preferred: LevelName = ""
    slice: Annotated[int, Field(ge=1, le=PODS_PER_GROUP_MAX, strict=True)] | None = None
    per_host: Annotated[int, Field(ge=1, le=PODS_PER_GROUP_MAX, strict=True)] | None = None

    @model_validator(mode="after")
    def _slices_have_a_level(self) -> Self:
        if self.slice is not None and not (self.required or self.preferred):
            raise MisfitError("slice", "slices are of a level: say required or preferred")
        if self.slice is not None and self.per_host is not None:
            raise MisfitError("per_host", "slices are kept together: say slice or per_host, not both")
        return self


class Role(Written):
    """`count` equal pods. `template` is a Kubernetes pod template, passed through untouched."""

    name: Name = "worker"
    count: Count = 1
    min_count: Count | None = None
    template: dict[str, Any]  # JSON edge: opaque after admission
    gpu: GpuRequest | None = None
    products: Annotated[
        tuple[Annotated[str, StringConstraints(min_length=1, max_length=63)], ...], Field(max_length=PRODUCTS_MAX)
    ] = ()
    topology: RoleTopology = RoleTopology()

    @model_validator(mode="after")
    def _slices_are_whole(self) -> Self:
        pods = self.topology.slice
        if pods is not None and self.count % pods:
            raise MisfitError("topology.slice", f"count {self.count} is no multiple of slice {pods}")
        if pods is not None and (self.min_count or 0) % pods:
            raise MisfitError("topology.slice", f"min_count {self.min_count} is no multiple of slice {pods}")
        return self

    @model_validator(mode="after")
    def _min_within_count(self) -> Self:
        if self.min_count is not None and self.min_count > self.count:
            raise MisfitError("min_count", f"min_count {self.min_count} is above count {self.count}")
        return self


class Topology(Written):
    required: LevelName = ""
    preferred: LevelName = ""


class ClusterChoice(Written):
    """Which clusters may host the group, by cluster label, and which lease classes are accepted (all when empty)."""

    affinity: ValuesByLabel = {}
    anti_affinity: ValuesByLabel = {}
    lease_classes: tuple[LeaseClass, ...] = ()


class DataSet(Written):
    name: Name
    size_gib: Annotated[int, Field(ge=0, le=1_000_000_000, strict=True)] = 0


@unique
class Divide(StrEnum):
    """How the replicas of a spread group are divided over its clusters, above the floor of each."""

    EVEN = "even"  # as evenly as their room allows
    ROOM = "room"  # in proportion to how many each could hold


ClusterCount = Annotated[int, Field(ge=1, le=SPREAD_CLUSTERS_MAX, strict=True)]


class SpreadClusters(Written):
    """How many clusters a spread group uses: as many as it may, and it starts in no fewer than `min`."""

    min: ClusterCount
    max: ClusterCount

    @model_validator(mode="after")
    def _min_within_max(self) -> Self:
        if self.min > self.max:
            raise MisfitError("min", f"min {self.min} is above max {self.max}")
        return self


class Spread(Written):
    """The pods of the group's one role are replicas, divided over several clusters, no two of its children in one.
    `clusters: 3` stands for `{min: 3, max: 3}`."""

    clusters: SpreadClusters
    min_per_cluster: Count = 1
    max_per_cluster: Count | None = None
    divide: Divide = Divide.EVEN

    @field_validator("clusters", mode="before")
    @classmethod
    def _exactly(cls, value: object) -> object:
        return {"min": value, "max": value} if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _floor_within_most(self) -> Self:
        if self.max_per_cluster is not None and self.min_per_cluster > self.max_per_cluster:
            why = f"min_per_cluster {self.min_per_cluster} is above max_per_cluster {self.max_per_cluster}"
            raise MisfitError("min_per_cluster", why)
        return self


class SpreadChild(Written):
    """Said by the server alone: the group is the child of this number of the spread group `name`."""

    name: Name
    number: ClusterCount
    of: ClusterCount
    replicas: Count  # of the whole spread group


class PodGroup(Written):
    """What is placed whole: its identity, its roles and how it wants to be treated. Immutable after submission."""

    name: Name
    namespace: Name = "default"
    queue: QueueField = "default"
    labels: LabelMap = {}
    priority: Annotated[int, Field(ge=-PRIORITY_ABS_MAX, le=PRIORITY_ABS_MAX, strict=True)] = 0
    roles: Annotated[tuple[Role, ...], Field(min_length=1, max_length=ROLES_MAX)]
    min_count: Count | None = None
    elastic: Annotated[bool, Field(strict=True)] = False  # where all of it fits nowhere, it starts with fewer pods
    topology: Topology = Topology()
    disruption_mode: DisruptionMode = DisruptionMode.ALL
    preemption_policy: PreemptionPolicy = PreemptionPolicy.LOWER_PRIORITY
    disconnect_policy: DisconnectPolicy = DisconnectPolicy.STOP_AND_MOVE
    clusters: ClusterChoice = ClusterChoice()
    failure_spread: Annotated[
        str, StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$", max_length=NAME_CHARS_MAX, strict=True)
    ] = ""  # rather not where others of its namespace with the same word are
    spread: Spread | None = None
    child: SpreadChild | None = None
    suspend: Annotated[bool, Field(strict=True)] = False
    grace_s: Annotated[int, Field(ge=0, le=GRACE_S_MAX, strict=True)] = 30
    start_by_s: Seconds | None = None
    max_run_s: Seconds | None = None
    ready_within_s: Seconds | None = None
    run_time_estimate_s: Seconds | None = None
    data: Annotated[tuple[DataSet, ...], Field(max_length=LABELS_MAX)] = ()
    workload: Annotated[str, StringConstraints(pattern=r"^(pods|job)$")] = "pods"  # what the agent creates
    workload_object: dict[str, Any] | None = None  # the Job as submitted, without its pod template (that is the role's)

    @model_validator(mode="after")
    def _counts_agree(self) -> Self:
        pods = sum(role.count for role in self.roles)
        if pods > PODS_PER_GROUP_MAX:
            raise MisfitError("roles", f"roles sum to {pods} pods, at most {PODS_PER_GROUP_MAX} are allowed")
        if self.min_count is not None and self.min_count > pods:
            raise MisfitError("min_count", f"min_count {self.min_count} is above the sum of counts {pods}")
        names = [role.name for role in self.roles]
        if len(set(names)) != len(names):
            raise MisfitError("roles", "role names must differ")
        if self.elastic and self.workload == "job":
            raise MisfitError("elastic", "a Job has a fixed number of completions; say its pods as roles")
        if len({one.name for one in self.data}) != len(self.data):
            raise MisfitError("data", "names of data sets must differ")
        return self

    @model_validator(mode="after")
    def _spread_is_possible(self) -> Self:
        if self.child is not None:
            faults = child_faults(self, self.child)
        elif self.spread is not None:
            faults = spread_faults(self, self.spread, name_chars_max=NAME_CHARS_MAX, labels_max=LABELS_MAX)
        else:
            return self
        for field, why in faults:
            raise MisfitError(field, why)
        return self

    @property
    def pods(self) -> int:
        return sum(role.count for role in self.roles)


class UnreadableGroupError(ValueError):
    """Stored or sent bytes are not a PodGroup of this version; the message names the first field that is wrong."""


def read_pod_group(data: bytes) -> PodGroup:
    """The PodGroup in this JSON. UnreadableGroupError otherwise."""
    try:
        return PodGroup.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UnreadableGroupError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


class Queue(Written):
    """A queue and what it may use. Quotas are whole GPUs by product; `*` stands for all products together."""

    name: QueueField
    weight: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 1
    gpu_quota: Annotated[dict[str, Annotated[int, Field(ge=0, le=100_000_000, strict=True)]], Field(max_length=64)] = {}
    disconnect_policy: DisconnectPolicy | None = None


def labels_match(labels: Mapping[str, str], wanted: tuple[tuple[str, tuple[str, ...]], ...]) -> bool:
    """Whether every wanted label has one of its accepted values."""
    return all(labels.get(key) in values for key, values in wanted)
