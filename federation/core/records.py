"""The journal's records: every submission, decision, verdict and operator act, as stored for ever.

One msgpack map per record, tagged by `kind`. Fields are only ever added, with a default; a reader ignores what it does
not know (golden files under `tests/golden/records`). What a record *does* is in `state`; nothing here decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from placement.model import Position

RECORD_SCHEMA_VERSION: Final = 1
RECORD_BYTES_MAX: Final = 384 * 1024  # a manifest of 256 KiB that does not compress, and its frame
ACTOR_CHARS_MAX: Final = 256
DETAIL_CHARS_MAX: Final = 512


class Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", omit_defaults=True):
    """What all records carry. `at_ms` is wall time for people; nothing is decided by it."""

    schema_version: int = RECORD_SCHEMA_VERSION
    actor: str = ""
    at_ms: int = 0
    cause: str = ""  # id of what set this off (request id, verdict id, position of an earlier record)


class RoleShape(msgspec.Struct, frozen=True, array_like=True):
    """One role's request; mirrors `placement.model.RoleRequest` in stored form (fields are only appended)."""

    name: str
    count: int
    min_count: int
    gpus: int
    gpu_milli: int
    mig_profile: str
    cpu_milli: int
    memory_mib: int
    products: tuple[str, ...]


class RoleExtra(msgspec.Struct, frozen=True, omit_defaults=True):
    """What few roles ask for beside their shape; mirrors the rest of `placement.model.RoleRequest`."""

    terms: tuple[tuple[tuple[str, str, tuple[str, ...]], ...], ...] = ()  # label rules: key, operator, values
    tolerations: tuple[tuple[str, str, str, str], ...] = ()  # key, operator, value, effect
    level_required: str = ""  # of the role's own pods
    level_preferred: str = ""
    slice_pods: int = 0
    per_host: int = 0


class Submitted(Record, frozen=True, kw_only=True, tag="Submitted"):
    """A PodGroup was accepted. Its own position is the group's identity."""

    name: str
    namespace: str
    queue: str
    priority: int
    request_id: str
    body_digest: str  # of the manifest as written: same request id with another digest is a conflict (S8)
    roles: tuple[RoleShape, ...]
    min_count: int
    level_required: str = ""
    level_preferred: str = ""
    cluster_labels: tuple[tuple[str, tuple[str, ...]], ...] = ()
    cluster_labels_not: tuple[tuple[str, tuple[str, ...]], ...] = ()
    lease_classes: tuple[str, ...] = ()
    disruption_mode: str
    disconnect_policy: str
    grace_s: int
    suspend: bool = False
    labels: dict[str, str] = {}
    workload: str = "pods"
    role_extras: tuple[RoleExtra, ...] = ()  # one per role, or none where no role has any
    data: tuple[tuple[str, int], ...] = ()  # data sets: name, GiB
    elastic: bool = False
    failure_spread: str = ""
    spec: bytes  # zlib of the canonical JSON of the whole PodGroup, templates included; opaque here


class ChildOf(msgspec.Struct, frozen=True, array_like=True):
    """Which child of which spread group (fields are only appended)."""

    name: str  # the spread group's
    number: int  # from 1
    of: int
    replicas: int  # of all children
    clusters_min: int
    divide: str
    share: int = 0  # replicas of this one, once they are divided


class SubmittedChild(Submitted, frozen=True, kw_only=True, tag="SubmittedChild"):
    """A child of a spread group: all of them stand in one entry. Its role counts the most replicas that it may get,
    `min_count` the least; how many it gets is in the `counts` of its first `Placed`."""

    child: ChildOf
    request_digest: str = ""  # of the manifest as written, with the first child


class Candidate(msgspec.Struct, frozen=True, array_like=True):
    """One of the best clusters of a decision with its named score terms."""

    cluster: str
    score: int
    terms: tuple[tuple[str, int], ...] = ()


class Placed(Record, frozen=True, kw_only=True, tag="Placed"):
    """`uid` gets the home (cluster, this record's position). Asserts that it has none."""

    uid: str
    cluster: str
    effective_policy: str  # from policy, fence strength and acceptance; never changes for this token
    candidates: tuple[Candidate, ...] = ()
    reasons: tuple[tuple[str, int], ...] = ()  # reason code -> clusters refused for it
    stamp: tuple[str, int, int] | None = None  # the report (cluster, boot, seq) the decision stood on
    budget: int = 0
    policy_version: int = 0
    after: tuple[str, ...] = ()  # tokens of the same cluster that must have been given up first
    counts: tuple[int, ...] = ()  # pods of each role, where it is not placed with all of them


class Bound(Record, frozen=True, kw_only=True, tag="Bound"):
    """The agent bound at least `min_count` pods of the token."""

    uid: str
    token: str
    cluster: str
    pods: int


class Running(Record, frozen=True, kw_only=True, tag="Running"):
    """At least `min_count` containers of the token run."""

    uid: str
    token: str
    cluster: str
    pods: int


class GaveUp(Record, frozen=True, kw_only=True, tag="GaveUp"):
    """A final verdict: `verdict` is Refused, Released or Finished. It ends the home for good."""

    uid: str
    token: str
    cluster: str
    verdict: str
    reasons: tuple[str, ...] = ()
    detail: str = ""
    succeeded: bool = False
    late: bool = False  # the home had ended already: recorded and shown, never applied


class IntentSet(Record, frozen=True, kw_only=True, tag="IntentSet"):
    """What a person or the placer wants of a group: run, suspend, cancel or move. The home stays until it ends."""

    uid: str
    intent: str
    reason: str = ""


class Quarantined(Record, frozen=True, kw_only=True, tag="Quarantined"):
    """The group lost so many homes in a row by itself, in these clusters: it waits for a person."""

    uid: str
    losses: int
    clusters: tuple[str, ...]
    reasons: tuple[str, ...] = ()  # of the last


class Resized(Record, frozen=True, kw_only=True, tag="Resized"):
    """The home is to have so many pods of each role; its token stays. `count` is a person's, of `role`; without it the
    placer found room. Asserts that it is bound, wanted to run, and not being resized."""

    uid: str
    token: str
    cluster: str
    counts: tuple[int, ...]
    at_most: tuple[int, ...] = ()  # what it may grow to by itself later, where that is not all
    role: str = ""
    count: int = 0
    stamp: tuple[str, int, int] | None = None  # the report (cluster, boot, seq) that growing stood on


class Sized(Record, frozen=True, kw_only=True, tag="Sized"):
    """The agent has as many pods of each role, bound, as it will have after the `Resized` at `resized_at`: those asked
    for, or as many as before where they could not be bound (then `reasons` say why)."""

    uid: str
    token: str
    cluster: str
    counts: tuple[int, ...]
    resized_at: int
    reasons: tuple[str, ...] = ()
    detail: str = ""


class QueueApplied(Record, frozen=True, kw_only=True, tag="QueueApplied"):
    name: str
    weight: int = 1
    gpu_quota: dict[str, int] = {}
    disconnect_policy: str = ""


class ClusterJoined(Record, frozen=True, kw_only=True, tag="ClusterJoined"):
    """The cluster may take part once it is admitted. Joining again changes labels and lease class only."""

    cluster: str
    lease_class: str = "default"
    labels: dict[str, str] = {}
    accept_unguarded: bool = False


class ClusterCordoned(Record, frozen=True, kw_only=True, tag="ClusterCordoned"):
    """`cordoned`: no new placements. `drain`: present groups are moved as well."""

    cluster: str
    cordoned: bool
    drain: bool = False
    reason: str = ""


class ClusterFenced(Record, frozen=True, kw_only=True, tag="ClusterFenced"):
    """The cluster's lease was compare-and-swapped to Fenced with this epoch."""

    cluster: str
    epoch: int


class FenceDone(Record, frozen=True, kw_only=True, tag="FenceDone"):
    """K has passed for `grace_s`: ends the homes of `StopAndMove` groups with at most this grace (DESIGN §11.2)."""

    cluster: str
    epoch: int
    grace_s: int


class ClusterAdmitted(Record, frozen=True, kw_only=True, tag="ClusterAdmitted"):
    """The cluster may start groups; this record's position becomes its lease's floor."""

    cluster: str
    epoch: int


class ClusterConfirmedDead(Record, frozen=True, kw_only=True, tag="ClusterConfirmedDead"):
    """An operator vouches, with name and reason, that nothing runs there any more: ends every home in it."""

    cluster: str
    reason: str


class ClusterRemoved(Record, frozen=True, kw_only=True, tag="ClusterRemoved"):
    """The cluster is no part of the fleet any more. It had no groups, and it was never admitted or is confirmed dead;
    who joins under its name later is a new one, under the lease that this one left."""

    cluster: str
    reason: str = ""


class Restored(Record, frozen=True, kw_only=True, tag="Restored"):
    """From here on the journal goes on in another lineage, from a backup made at `made_ms`. No cluster is admitted
    until each has told what it holds."""

    lineage: str
    before: str
    made_ms: int
    ends_at: int = 0  # the backup's last position; 0 where an older version restored it


class Adopted(Record, frozen=True, kw_only=True, tag="Adopted"):
    """The cluster holds this token, which the backup does not know as the group's home, or not as bound."""

    uid: str
    token: str
    cluster: str


class Recreated(Record, frozen=True, kw_only=True, tag="Recreated"):
    """The cluster holds this token of a group that was submitted after the backup: it is a group again, under its uid,
    and at home there."""

    uid: str
    token: str
    cluster: str
    submitted: (
        Submitted | SubmittedChild
    )  # made anew from the manifest that the cluster kept, and judged as at a submission
    detail: str = ""  # what is not as it was


class Unheld(Record, frozen=True, kw_only=True, tag="Unheld"):
    """Every cluster has told what it holds, and none holds this home's token, or one holds a later one: it ended."""

    uid: str
    token: str
    cluster: str


class Recovered(Record, frozen=True, kw_only=True, tag="Recovered"):
    """The journal knows again what runs: the clusters are admitted, each in this epoch, with this position as floor."""

    epochs: dict[str, int] = {}
    recreated: int = 0  # groups that the backup lacked and that are known again
    stopped: int = 0  # groups that a cluster held and that nobody wants
    stopped_groups: tuple[tuple[str, str, str], ...] = ()  # the first of them: uid, cluster, and why


class Archived(Record, frozen=True, kw_only=True, tag="Archived"):
    """The groups that left memory longest ago, `count` of them up to `last`, are in a part of the archive for good."""

    part: int
    count: int
    last: str
    digest: bytes  # of the part's bytes
    keys: bytes  # which uids and names may be in it (a Bloom filter)


AnyRecord = (
    Submitted
    | SubmittedChild
    | Placed
    | Bound
    | Running
    | GaveUp
    | IntentSet
    | Quarantined
    | Resized
    | Sized
    | QueueApplied
    | ClusterJoined
    | ClusterCordoned
    | ClusterFenced
    | FenceDone
    | ClusterAdmitted
    | ClusterConfirmedDead
    | ClusterRemoved
    | Restored
    | Adopted
    | Recreated
    | Unheld
    | Recovered
    | Archived
)

_encoder = msgspec.msgpack.Encoder()
_ARRAY_32: Final = b"\xdd"  # msgpack: an array whose length is the 32 bits that follow
_SPEC: Final = _encoder.encode("spec")
_NO_SPEC: Final = _encoder.encode(b"")
_decoder_of_many: msgspec.msgpack.Decoder[list[AnyRecord]] = msgspec.msgpack.Decoder(list[AnyRecord])
_decoder: msgspec.msgpack.Decoder[AnyRecord] = msgspec.msgpack.Decoder(AnyRecord)


class UnreadableRecordError(ValueError):
    """A stored record could not be read. Skipping it would split the state, so the server stops (DESIGN §11.7)."""

    def __init__(self, position: Position, why: str) -> None:
        super().__init__(f"record at position {position} cannot be read: {why}")
        self.position = position
        self.why = why


def without_spec(record: AnyRecord) -> AnyRecord:
    """The record without the manifest in it, if there is one."""
    if isinstance(record, Submitted):
        return msgspec.structs.replace(record, spec=b"")
    if isinstance(record, Recreated):
        return msgspec.structs.replace(record, submitted=msgspec.structs.replace(record.submitted, spec=b""))
    return record


def encode_record(record: AnyRecord) -> bytes:
    return _encoder.encode(record)


def encode_without_spec(record: AnyRecord, encoded: bytes) -> bytes:
    """`without_spec`, encoded. `encoded` is the record as the journal has it, or nothing.

    A submission ends with its manifest, which is cut off there; of other records, and of those that another version
    wrote in another order, all is encoded anew.
    """
    if type(record) is Submitted:
        spec = _encoder.encode(record.spec)
        end = len(encoded) - len(spec)
        if end > 0 and encoded.endswith(spec) and encoded.endswith(_SPEC, 0, end):
            return encoded[:end] + _NO_SPEC
    return encode_record(without_spec(record))


def decode_record(data: bytes, position: Position) -> AnyRecord:
    """The record stored at `position`; UnreadableRecordError names it otherwise."""
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnreadableRecordError(position, str(error)) from error


def decode_records(encoded: Sequence[bytes], first: Position) -> list[AnyRecord]:
    """The records of one entry, the first of which stands at `first`; UnreadableRecordError names the first bad one.

    Equivalent to `decode_record` for each, except that all are decoded at once: in half the time.
    """
    try:
        records = _decoder_of_many.decode(b"".join((_ARRAY_32, len(encoded).to_bytes(4, "big"), *encoded)))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        records = []
    if len(records) == len(encoded):
        return records
    return [decode_record(data, Position(first + index)) for index, data in enumerate(encoded)]
