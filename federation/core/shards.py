"""The state as a snapshot stores it: shards of items of one kind, each item an array of values in fixed order.

Fields are only ever appended, with a default; a reader ignores those it does not know. How a state becomes shards is in
`dump`, the way back in `load`.
"""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Final

import msgspec

from federation.core.history import as_array
from federation.core.records import Archived, ChildOf, RoleExtra, RoleShape
from federation.core.rows import GiveUp, Intent, RequestRow, Sizing
from placement.model import NOWHERE, DisconnectPolicy, DisruptionMode, GroupUid, LeaseClass, Phase, Position

SHARD_SCHEMA_VERSION: Final = 1


@unique
class Kind(StrEnum):
    """What the items of a shard are. Shards of one kind keep their order; kinds come in any order."""

    HEAD = "head"
    QUEUES = "queues"
    CLUSTERS = "clusters"
    ENDED = "ended"
    REQUESTS = "requests"
    FINISHED = "finished"
    SPECS = "specs"
    GROUPS = "groups"
    LEAVING = "leaving"
    PARTS = "parts"


class StoredClass(msgspec.Struct, frozen=True, array_like=True):
    """A request class; the groups of a shard name it by its index in the shard."""

    roles: tuple[RoleShape, ...]
    min_count: int
    level_required: str
    level_preferred: str
    cluster_labels: tuple[tuple[str, tuple[str, ...]], ...]
    cluster_labels_not: tuple[tuple[str, tuple[str, ...]], ...]
    lease_classes: tuple[str, ...]
    role_extras: tuple[RoleExtra, ...] = ()
    data: tuple[tuple[str, int], ...] = ()
    elastic: bool = False


class Shard(msgspec.Struct, frozen=True, omit_defaults=True):
    """`body` holds `count` items, one behind the other."""

    kind: Kind
    count: int
    body: bytes
    cluster: str = ""  # of groups and ends
    classes: tuple[StoredClass, ...] = ()
    schema_version: int = SHARD_SCHEMA_VERSION


class StoredHead(msgspec.Struct, frozen=True, array_like=True):
    head: Position
    clock_ms: int
    recovering_since: Position = NOWHERE


class StoredQueue(msgspec.Struct, frozen=True, array_like=True):
    name: str
    weight: int
    gpu_quota: dict[str, int]
    disconnect_policy: DisconnectPolicy | None
    applied_at: Position
    gpus_used: dict[str, int]
    homes_count: int
    pending_count: int


class StoredCluster(msgspec.Struct, frozen=True, array_like=True):
    name: str
    lease_class: LeaseClass
    labels: dict[str, str]
    accept_unguarded: bool
    joined_at: Position
    cordoned: bool
    drain: bool
    cordon_reason: str
    fenced_epoch: int
    fenced_at: Position
    fence_done: tuple[int, ...]
    admitted_epoch: int
    admitted_at: Position
    dead_at: Position
    changed_at: Position
    ended_pruned: Position
    recovering: bool = False


class StoredEnd(msgspec.Struct, frozen=True, array_like=True):
    token: str
    position: Position


class StoredFinish(msgspec.Struct, frozen=True, array_like=True):
    at_ms: int
    uid: str


class StoredSpec(msgspec.Struct, frozen=True, array_like=True):
    digest: str
    spec: bytes


class StoredToken(msgspec.Struct, frozen=True, array_like=True):
    """`lineage` is empty where it is that of the snapshot."""

    position: Position
    lineage: str = ""


class StoredGroup(msgspec.Struct, frozen=True, array_like=True):
    """`uid` is empty where it follows from `submitted_at`; the home's cluster is that of the shard."""

    submitted_at: Position
    uid: str
    name: str
    namespace: str
    queue: str
    priority: int
    request: int
    disconnect_policy: DisconnectPolicy
    disruption_mode: DisruptionMode
    grace_s: int
    labels: dict[str, str]
    workload: str
    spec_digest: str
    actor: str
    at_ms: int
    phase: Phase
    intent: Intent
    intent_reason: str
    home: StoredToken | None
    effective_policy: DisconnectPolicy | None
    bound_at: Position
    running_at: Position
    pods_bound: int
    changed_at: Position
    attempts: int
    failures: int
    last_token: StoredToken | None
    last_cluster: str | None
    last_verdict: GiveUp | None
    last_reasons: tuple[str, ...]
    displaced: bool
    history_packed: bytes
    history_count: int
    history_cut: int
    counts: tuple[int, ...] = ()
    child: ChildOf | None = None
    failure_spread: str = ""
    sizing: Sizing | None = None


Item = (
    StoredHead
    | StoredQueue
    | StoredCluster
    | StoredEnd
    | RequestRow
    | StoredFinish
    | StoredSpec
    | StoredGroup
    | Archived
)  # fmt: skip

_encoder = msgspec.msgpack.Encoder()
_shard_decoder = msgspec.msgpack.Decoder(Shard)
decode_heads = msgspec.msgpack.Decoder(list[StoredHead]).decode
decode_queues = msgspec.msgpack.Decoder(list[StoredQueue]).decode
decode_clusters = msgspec.msgpack.Decoder(list[StoredCluster]).decode
decode_ends = msgspec.msgpack.Decoder(list[StoredEnd]).decode
decode_requests = msgspec.msgpack.Decoder(list[RequestRow]).decode
decode_finishes = msgspec.msgpack.Decoder(list[tuple[int, GroupUid]]).decode
decode_specs = msgspec.msgpack.Decoder(list[StoredSpec]).decode
decode_parts = msgspec.msgpack.Decoder(list[Archived]).decode
decode_groups = msgspec.msgpack.Decoder(list[StoredGroup]).decode


class UnreadableShardError(ValueError):
    """A shard of a snapshot could not be read: the server stops and names it, as with a record."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"shard {name!r} of the snapshot cannot be read: {why}")
        self.name = name
        self.why = why


def encode_item(item: Item) -> bytes:
    return _encoder.encode(item)


def encode_shard(shard: Shard) -> bytes:
    return _encoder.encode(shard)


def decode_shard(data: bytes, name: str) -> Shard:
    """The shard in `data`; UnreadableShardError, naming it, for anything else and for a later version."""
    try:
        shard = _shard_decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise UnreadableShardError(name, str(error)) from error
    if shard.schema_version > SHARD_SCHEMA_VERSION:
        known = f"this version reads {SHARD_SCHEMA_VERSION} and older: upgrade it"
        raise UnreadableShardError(name, f"it is of version {shard.schema_version}; {known}")
    return shard


def items_of(shard: Shard) -> bytes:
    """The items as one msgpack array."""
    return as_array(shard.body, shard.count)
