"""A gang's plan: what was decided for one token, which pods sit where, and how its objects are called.

The plan is what the intent ConfigMap holds; a restarted agent supervises, finishes or undoes a gang by it alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections import Counter
from itertools import islice
from typing import Final

import msgspec

from cluster_agents.core.config import KIND_INTENT, LABEL_GROUP, LABEL_KIND, LABEL_TOKEN
from cluster_agents.core.events import KubeObject
from cluster_agents.core.objects import text
from cluster_agents.core.pods import POD_PLACE, Amounts, device_amounts
from cluster_agents.core.spec import Spec
from federation.protocol.messages import Claim, DesiredGroup
from placement.assignment import Assignment
from placement.model import NodeName, PodGroup, Token

NAME_CHARS_MAX: Final = 24
"""Of the group's name in its pods' names: with rank and tag they must stay within 63 characters, as host names."""

LOCALHOST: Final = "localhost"

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


class PlanRole(msgspec.Struct, frozen=True, array_like=True):
    """What one pod of a role holds."""

    name: str
    count: int
    min_count: int
    gpus: int
    cpu_milli: int
    memory_mib: int

    @property
    def amounts(self) -> Amounts:
        return Amounts(self.cpu_milli, self.memory_mib, self.gpus)


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`nodes` has one node per pod, by seat; seats run through the roles in order, and so do ranks until the gang is
    resized. An agent that does not know `devices` yet leaves them alone when it undoes the gang."""

    schema_version: int = 1
    uid: str
    token: str
    namespace: str
    name: str
    workload: str
    policy: str  # effective policy of the token
    disruption_mode: str
    min_count: int
    grace_s: int
    spec_digest: str
    roles: tuple[PlanRole, ...]
    nodes: tuple[str, ...]
    devices: tuple[str, ...] = ()  # by seat, the resource of which the pod has one part of a GPU; none: nobody has
    growable: bool = False  # it may get more pods: they must find one another although it begins with one
    ranks: tuple[int, ...] = ()  # by seat; none: each has its seat's number
    joining: tuple[int, ...] = ()  # seats whose pods are not all bound yet: until then they do not count
    leaving: tuple[int, ...] = ()  # seats whose pods are being deleted
    resized_at: int = 0  # position of the resize that this plan is the outcome of, or will be
    guarded: bool = False  # its pods may run only where a node's guard was asked
    declined: tuple[str, ...] = ()  # why it is not the outcome that was asked for: a reason's code, and words

    @property
    def pods(self) -> int:
        return len(self.nodes)

    @property
    def settled(self) -> int:
        """Pods that count: without those that join or leave."""
        return len(self.nodes) - len(self.joining) - len(self.leaving)

    @property
    def counts(self) -> tuple[int, ...]:
        """Seats of each role."""
        return tuple(role.count for role in self.roles)

    def role_of(self, seat: int) -> PlanRole:
        """The role to which this seat belongs. O(roles)."""
        for role in self.roles:
            if seat < role.count:
                return role
            seat -= role.count
        raise IndexError(seat)

    def rank(self, seat: int) -> int:
        return self.ranks[seat] if self.ranks else seat

    def standing(self) -> dict[str, tuple[NodeName, ...]]:
        """By role, the node of each seat."""
        seats = iter(self.nodes)
        return {role.name: tuple(NodeName(node) for node in islice(seats, role.count)) for role in self.roles}

    def holdings(self) -> dict[str, Amounts]:
        """What the gang holds, by node."""
        held: dict[str, Amounts] = {}
        seat = 0
        for role in self.roles:
            for node in self.nodes[seat : seat + role.count]:
                held[node] = held.get(node, Amounts()).plus(role.amounts)
            seat += role.count
        for node, resource in zip(self.nodes, self.devices, strict=False):
            held[node] = held[node].plus(device_amounts(resource))
        for node, pods in Counter(self.nodes).items():
            held[node] = held[node].plus(Amounts(devices=((POD_PLACE, pods),)))
        return held

    def asks(self, seat: int) -> Amounts:
        """What the pod of this seat asks for by the manifest."""
        return self.role_of(seat).amounts.plus(device_amounts(self.device(seat)))

    def device(self, seat: int) -> str:
        """The resource of which this pod has one part of a GPU, or an empty text."""
        return self.devices[seat] if self.devices else ""

    @property
    def tag(self) -> str:
        """Differs for any two tokens, and says uid and token: `<uid position>-<token position>-<lineage digest>`."""
        return f"{_short(self.uid)}-{name_tag(self.token)}"

    @property
    def has_service(self) -> bool:
        """A single pod has nobody to find: two requests less, for the most frequent kind of group."""
        return self.pods > 1 or self.growable

    @property
    def service(self) -> str:
        return f"m-{self.tag}"

    @property
    def leader_addr(self) -> str:
        """Where the first of bare pods is reached from any pod of the gang; a single pod is its own leader."""
        return f"{self.pod(0)}.{self.service}.{self.namespace}.svc" if self.has_service else LOCALHOST

    @property
    def job(self) -> str:
        return f"{_label(self.name)}-{self.tag}"

    def pod(self, seat: int) -> str:
        return f"{_label(self.name)}-{self.rank(seat)}-{self.tag}"


def plan_for(
    desired: DesiredGroup,
    group: PodGroup,
    assignment: Assignment,
    devices: tuple[str, ...] = (),
    *,
    guarded: bool = False,
) -> Plan:
    """The plan that carries out `assignment`; `devices` and `guarded` as in `Plan`."""
    request = assignment.request
    return Plan(
        uid=desired.uid,
        token=desired.token,
        namespace=group.namespace,
        name=group.name,
        workload=group.workload,
        policy=desired.policy,
        disruption_mode=group.disruption_mode.value,
        min_count=request.min_count,
        grace_s=group.grace_s,
        spec_digest=desired.spec_digest,
        roles=tuple(
            PlanRole(role.name, role.count, role.min_count, role.gpus, role.cpu_milli, role.memory_mib)
            for role in request.roles
        ),
        nodes=tuple(str(pod.node) for pod in assignment.pods),
        devices=devices,
        guarded=guarded,
        growable=group.elastic,
        resized_at=desired.resized_at,
    )


# --- names ------------------------------------------------------------------------------------------------------------


def name_tag(token: str) -> str:
    """A short text for a token that fits into names: `<position>-<lineage digest>`."""
    parsed = Token.parse(token)
    digest = hashlib.blake2b(parsed.lineage.encode(), digest_size=3).hexdigest()
    return f"{_base36(parsed.position)}-{digest}"


def _short(uid: str) -> str:
    position = uid.rpartition(".")[2]
    is_number = position.isascii() and position.isdigit()
    return _base36(int(position)) if is_number else hashlib.blake2b(uid.encode(), digest_size=4).hexdigest()


def _base36(number: int) -> str:
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
        if number == 0:
            return digits


def _label(name: str) -> str:
    """A group's name as the head of a host name: dots would cut it."""
    return name.replace(".", "-")[:NAME_CHARS_MAX].strip("-") or "g"


# --- the intent ConfigMap ---------------------------------------------------------------------------------------------

PLAN: Final = "plan"
BOUND: Final = "bound"
SPEC: Final = "spec"
ORIGIN: Final = "origin"

INTENT_BYTES_MAX: Final = 1_000_000
"""Of what a ConfigMap holds; API servers take 1 MiB. A plan of 10,000 pods on nodes with names of 60 characters and a
manifest of 256 KiB that does not compress fit. A larger one goes without the manifest: see docs/store.md."""


def intent_name(token: str) -> str:
    return f"muster-intent-{name_tag(token)}"


def intent_labels(plan: Plan) -> dict[str, str]:
    return {LABEL_KIND: KIND_INTENT, LABEL_GROUP: plan.uid, LABEL_TOKEN: plan.token}


def intent_configmap(plan: Plan, spec: Spec | None, namespace: str) -> dict[str, object]:
    """The ConfigMap that records the plan before anything else of it exists, and what the group was made from: a fleet
    that lost its journal gets it back from there."""
    planned = msgspec.json.encode(plan).decode()
    kept = _kept(spec, INTENT_BYTES_MAX - len(planned))
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": intent_name(plan.token),
            "namespace": namespace,
            "labels": intent_labels(plan),
        },
        "data": {PLAN: planned, BOUND: "false"},
        **({"binaryData": kept} if kept else {}),
    }


def _kept(spec: Spec | None, room: int) -> dict[str, str]:
    """Both parts or none: without its origin a group would lose its request id, and be submitted again."""
    if spec is None or not spec.packed or not spec.origin or len(spec.packed) + len(spec.origin) > room:
        return {}
    return {SPEC: base64.b64encode(spec.packed).decode(), ORIGIN: base64.b64encode(spec.origin).decode()}


class Intent(msgspec.Struct, frozen=True):
    """An intent as it stands in the cluster. `bound`: its `Bound` has landed, so it may be held past the deadline.

    `spec` and `origin` are in base64 as there: they are hardly ever looked at.
    """

    plan: Plan
    bound: bool
    spec: str = ""
    origin: str = ""

    def claim(self) -> Claim:
        """What was kept of the group, or an empty claim if it cannot be read."""
        try:
            return Claim(
                self.plan.uid,
                base64.b64decode(self.spec, validate=True),
                base64.b64decode(self.origin, validate=True),
            )
        except binascii.Error:
            return Claim(self.plan.uid)


def _is_sound(plan: Plan) -> bool:
    """Whether the columns of a plan agree."""
    pods = len(plan.nodes)
    columns = {len(plan.devices), len(plan.ranks)} <= {0, pods} and len(set(plan.ranks)) == len(plan.ranks)
    moving = {*plan.joining, *plan.leaving}
    seated = moving <= set(range(pods)) and len(moving) == len(plan.joining) + len(plan.leaving)
    return sum(plan.counts) == pods and columns and seated


_plan_decoder = msgspec.json.Decoder(Plan)


def read_intent(configmap: KubeObject) -> Intent | None:
    """The intent in a ConfigMap; None when it cannot be read, or names another token than its label."""
    try:
        plan = _plan_decoder.decode(text(configmap, "data", PLAN))
        Token.parse(plan.token)
    except (msgspec.MsgspecError, ValueError):
        return None
    if not _is_sound(plan):
        return None
    if text(configmap, "metadata", "labels", LABEL_TOKEN) != plan.token:
        return None
    bound = text(configmap, "data", BOUND) == "true"
    return Intent(plan, bound, text(configmap, "binaryData", SPEC), text(configmap, "binaryData", ORIGIN))
