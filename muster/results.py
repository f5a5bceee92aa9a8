"""What a server answers, typed. Unknown fields are ignored, missing ones have defaults, so that versions may differ.

Field names on the wire are the API's; no behaviour lives here.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all results."""


class Submitted(Result, frozen=True, kw_only=True):
    """A PodGroup was accepted and is durable; `uid` is its identity, `position` where its record stands."""

    uid: str
    position: int = 0
    name: str = ""
    namespace: str = "default"


class BulkItem(Result, frozen=True, kw_only=True):
    """What became of one of many submissions: accepted with its identity, or refused with a reason."""

    status: int
    uid: str = ""
    position: int = 0
    name: str = ""
    namespace: str = ""
    request_id: str = ""
    reason: str = ""
    detail: str = ""
    field: str = ""
    remedy: str = ""

    @property
    def accepted(self) -> bool:
        return self.status == 201

    @property
    def submitted(self) -> Submitted:
        """What a submission by itself would have answered; for accepted ones."""
        return Submitted(uid=self.uid, position=self.position, name=self.name, namespace=self.namespace)


class BulkAnswer(Result, frozen=True, kw_only=True):
    items: list[BulkItem] = []


class Landed(Result, frozen=True, kw_only=True):
    """An act was recorded at `position`."""

    position: int = 0


class ListMetadata(Result, frozen=True, kw_only=True):
    resource_version: str | int = msgspec.field(name="resourceVersion", default="")
    continue_: str | None = msgspec.field(name="continue", default=None)


# --- PodGroups -------------------------------------------------------------------------------------------------------


class GroupMetadata(Result, frozen=True, kw_only=True):
    name: str
    namespace: str = "default"
    uid: str = ""
    labels: dict[str, str] = {}
    resource_version: str | int = msgspec.field(name="resourceVersion", default="")
    submitted_ms: int = 0
    actor: str = ""


class RoleView(Result, frozen=True, kw_only=True):
    name: str
    count: int = 0
    min_count: int = 0
    gpus: int = 0
    gpu_milli: int = 0  # of one GPU, where its pods ask for a share
    mig_profile: str = ""  # where they ask for an instance
    cpu_milli: int = 0
    memory_mib: int = 0
    products: list[str] = []
    topology: Any = None  # levels of its own, where it has any


class GroupSpec(Result, frozen=True, kw_only=True):
    queue: str = ""
    priority: int = 0
    pods: int = 0
    min_count: int = 0
    elastic: bool = False
    failure_spread: str = ""
    spread: Any = None  # over how many clusters its replicas are divided, of a spread group
    child: Any = None  # of which spread group, and which one
    gpus: int = 0
    grace_s: int = 0
    disconnect_policy: str = ""
    disruption_mode: str = ""
    topology: Any = None
    roles: list[RoleView] = []
    workload: str = ""


class Condition(Result, frozen=True, kw_only=True):
    type: str
    status: str = "Unknown"
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = msgspec.field(name="lastTransitionTime", default=None)


class ChildView(Result, frozen=True, kw_only=True):
    """A child of a spread group, as its parent shows it."""

    name: str
    uid: str = ""
    phase: str = ""
    cluster: str = ""
    replicas: int = 0  # its share, 0 before they are divided
    pods_bound: int = 0
    reasons: list[Any] = []


class GroupStatus(Result, frozen=True, kw_only=True):
    phase: str = ""
    cluster: str | None = None
    token: str | None = None
    effective_policy: str | None = None
    pods_bound: int = 0
    pods_placed: int | None = None  # with how many it is to run where it is, where they are not all
    resizing: bool = False  # its pods are not as many as that yet
    attempts: int = 0
    intent: str | None = None
    last_cluster: str | None = None
    reasons: list[Any] = []
    message: str = ""
    conditions: list[Condition] = []
    children: list[ChildView] | None = None  # of a spread group


class GroupView(Result, frozen=True, kw_only=True):
    """One PodGroup as the server sees it now."""

    api_version: str = msgspec.field(name="apiVersion", default="muster.io/v1")
    kind: str = "PodGroup"
    metadata: GroupMetadata
    spec: GroupSpec = GroupSpec()
    status: GroupStatus = GroupStatus()


class GroupList(Result, frozen=True, kw_only=True):
    """One page. `metadata.continue_` asks for the next; `metadata.resource_version` is where a watch goes on."""

    metadata: ListMetadata = ListMetadata()
    items: list[GroupView] = []


class Because(Result, frozen=True, kw_only=True):
    """One reason with its quantity: `needs` and `best` count `unit`; `text` says it all in a line."""

    reason: str = ""
    needs: int = 0
    best: int = 0
    unit: str = ""
    detail: str = ""
    text: str = ""


class ClusterReason(Because, frozen=True, kw_only=True):
    """Why one cluster does not host the group now: the first reason, and all of them."""

    cluster: str = ""
    because: list[Because] = []


class Explanation(Result, frozen=True, kw_only=True):
    """Why a PodGroup is where it is, or is not anywhere yet, and the smallest change that would let it start."""

    uid: str = ""
    name: str = ""
    phase: str = ""
    cluster: str | None = None
    summary: str = ""
    change: str | None = None
    queue: dict[str, Any] = {}
    quota: list[dict[str, Any]] = []
    would_fit: str | None = None  # a cluster that would take it now
    shares: dict[str, int] = {}  # how a spread group would be divided now
    clusters: list[ClusterReason] = []
    candidates: list[dict[str, Any]] = []  # clusters that would take it now, best first, with the terms of their scores
    mix: list[dict[str, Any]] = []  # kinds of pods that are usually asked for: what decides between nodes
    last: dict[str, Any] = {}  # the last refusal


# --- the log ---------------------------------------------------------------------------------------------------------


class Decision(Result, frozen=True, kw_only=True):
    """One record of the journal, as people read it."""

    position: int
    at_ms: int = 0
    kind: str = ""
    actor: str = ""
    uid: str | None = None
    name: str | None = None
    cluster: str | None = None
    token: str | None = None
    summary: str = ""
    cause: str | None = None
    detail: dict[str, Any] = {}


class DecisionList(Result, frozen=True, kw_only=True):
    items: list[Decision] = []
    metadata: ListMetadata = ListMetadata()


# --- clusters and queues ---------------------------------------------------------------------------------------------


class NamedMetadata(Result, frozen=True, kw_only=True):
    name: str
    labels: dict[str, str] = {}


class ClusterSpec(Result, frozen=True, kw_only=True):
    lease_class: str = ""
    cordoned: bool = False
    drain: bool = False
    cordon_reason: str = ""
    accept_unguarded: bool = False


class GpuCount(Result, frozen=True, kw_only=True):
    total: int = 0
    free: int = 0
    unhealthy: int = 0


class ClusterStatus(Result, frozen=True, kw_only=True):
    state: str = ""  # Joining, Active, Failing, Silent or Fenced
    silence_s: float | None = None  # since anything was heard of its agent
    report_age_s: float | None = None
    lease_epoch: int = 0
    lease_silence_s: float | None = None
    admitted_epoch: int = 0
    fenced_epoch: int = 0
    fence_strength: str | None = None
    nodes: int = 0
    gpus: dict[str, GpuCount] = {}
    groups: int = 0
    message: str = ""


class ClusterView(Result, frozen=True, kw_only=True):
    """One member cluster: what is wanted of it and what was last heard of it."""

    api_version: str = msgspec.field(name="apiVersion", default="muster.io/v1")
    kind: str = "Cluster"
    metadata: NamedMetadata
    spec: ClusterSpec = ClusterSpec()
    status: ClusterStatus = ClusterStatus()


class ClusterList(Result, frozen=True, kw_only=True):
    metadata: ListMetadata = ListMetadata()
    items: list[ClusterView] = []


class QueueSpec(Result, frozen=True, kw_only=True):
    weight: int = 1
    gpu_quota: dict[str, int] = {}
    disconnect_policy: str | None = None


class QueueStatus(Result, frozen=True, kw_only=True):
    pending: int = 0
    running: int = 0
    gpus_used: dict[str, int] = {}


class QueueView(Result, frozen=True, kw_only=True):
    """One queue: what it may use and what it does use."""

    api_version: str = msgspec.field(name="apiVersion", default="muster.io/v1")
    kind: str = "Queue"
    metadata: NamedMetadata
    spec: QueueSpec = QueueSpec()
    status: QueueStatus = QueueStatus()


class QueueList(Result, frozen=True, kw_only=True):
    metadata: ListMetadata = ListMetadata()
    items: list[QueueView] = []


# --- errors ----------------------------------------------------------------------------------------------------------


class Problem(Result, frozen=True, kw_only=True):
    """Problem+JSON, as far as the client reads it."""

    title: str = ""
    status: int = 0
    reason: str = ""
    detail: str = ""
    field: str = ""
    remedy: str = ""
