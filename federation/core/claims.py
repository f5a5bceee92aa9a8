"""What clusters kept of groups, told to a fleet that recovers: soft state, and the judgement of each as a submission.

A cluster's word makes nothing by itself: which of these groups are made again is `recovering`'s.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final

import msgspec

from federation.core.admission import written_badly
from federation.core.events import Declined, Refused, SubmitGroup
from federation.core.history import first_record
from federation.core.records import RECORD_BYTES_MAX, Recreated, Submitted, SubmittedChild, encode_record
from federation.core.rows import POLICIES, GroupRow
from federation.core.stored import SPEC_JSON_BYTES_MAX, Spec, spec_of
from federation.core.submission import child_submission, submission
from federation.protocol.messages import CLAIMS_MAX, Claim, Claims
from placement.model import ClusterName, UnreadableGroupError, read_pod_group

BYTES_PER_CLUSTER_MAX: Final = 64 * 1024 * 1024
"""Of manifests that wait for the last cluster to be heard: 10,000 groups, as many as a ledger has entries, of 4 KiB,
and as much again."""


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """What a manifest does not say of its submission. Agents keep it unread; fields are only appended."""

    request_id: str = ""
    actor: str = ""
    at_ms: int = 0
    disconnect_policy: str = ""  # its own, or its queue's at that time
    request_digest: str = ""  # of a spread group's first child: that of the whole manifest


@unique
class Why(StrEnum):
    """Why a group that a cluster holds, and that the backup lacks, is stopped; stable codes."""

    NO_RECORD = "NoRecord"  # its agent kept none: one of an older version, or too large for its intent
    ENDED = "Ended"  # the backup would know it if it had not ended before
    NAME_TAKEN = "NameTaken"
    BAD_TOKEN = "BadToken"  # noqa: S105  none that it can have got since the backup, or it stands where another does
    UNREADABLE = "Unreadable"
    INVALID = "Invalid"
    BAD_TEMPLATE = "BadTemplate"
    NOT_TAKEN = "NotTaken"
    LIMIT = "Limit"


@dataclass(frozen=True, slots=True)
class Unfit:
    why: Why
    detail: str


_WHY: Final = {Refused.LIMIT: Why.LIMIT, Refused.BAD_TEMPLATE: Why.BAD_TEMPLATE, Refused.NOT_TAKEN: Why.NOT_TAKEN}
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Origin)


def origin_of(row: GroupRow) -> bytes:
    """What the cluster that runs the group keeps beside its manifest."""
    made_by = first_record(row.history_packed, row.history_count)
    made = made_by.submitted if isinstance(made_by, Recreated) else made_by
    assert isinstance(made, Submitted)
    whole = made.request_digest if isinstance(made, SubmittedChild) else ""
    return _encoder.encode(Origin(made.request_id, made.actor, made.at_ms, made.disconnect_policy, whole))


def submitted_by(claim: Claim, *, at_ms: int) -> Submitted | Unfit:
    """The submission that made this group, worked out again from its manifest, or why it cannot be one.

    It runs: so it is never suspended. Of the claim only the manifest, who submitted it, when, and with which request id
    is believed.
    """
    if not claim.spec:
        return Unfit(Why.NO_RECORD, "its agent kept no manifest of it")
    try:
        origin = _decoder.decode(claim.origin)
        policy = POLICIES[origin.disconnect_policy]
        raw = _unpacked(claim.spec)
        group = read_pod_group(raw)
        fields = spec_of(group).fields
    except UnreadableGroupError as error:
        return Unfit(Why.INVALID, str(error))
    except (ValueError, RecursionError, zlib.error, msgspec.MsgspecError) as error:
        return Unfit(Why.UNREADABLE, str(error))
    request = SubmitGroup(group, origin.request_id, origin.actor)
    spec = Spec(fields, raw)
    made: Submitted | Declined | None = written_badly(request)
    if made is None and group.child is None:
        made = submission(request, spec, policy, at_ms)
    elif made is None:
        made = child_submission(request, spec, policy, at_ms, request_digest=origin.request_digest)
    if isinstance(made, Declined):
        return Unfit(_WHY.get(made.why, Why.INVALID), made.detail)
    made = msgspec.structs.replace(made, at_ms=max(0, min(origin.at_ms, at_ms)), suspend=False)
    size = len(encode_record(made))
    if size > RECORD_BYTES_MAX:
        return Unfit(Why.LIMIT, f"it makes a record of {size} bytes, at most {RECORD_BYTES_MAX} are taken")
    return made


def _unpacked(spec: bytes) -> bytes:
    """ValueError or zlib.error for what is no packed manifest."""
    unpack = zlib.decompressobj()
    raw = unpack.decompress(spec, SPEC_JSON_BYTES_MAX)
    if not unpack.eof:
        raise ValueError(f"the manifest unpacks to more than {SPEC_JSON_BYTES_MAX} bytes, or is cut off")
    return raw


class ClaimBook:
    """What clusters told of groups that a recovering fleet asked for. A claim is settled by the first word on it."""

    def __init__(self) -> None:
        self._told: dict[ClusterName, dict[str, Submitted | Unfit]] = {}
        self._bytes: dict[ClusterName, int] = {}
        self.open = False  # the store is of a format in which groups can be made again
        self.children_open = False  # and of one in which a child of a spread group can

    def get(self, cluster: str, uid: str) -> Submitted | Unfit | None:
        """None: the cluster said nothing of this group yet."""
        return self._told.get(ClusterName(cluster), {}).get(uid)

    def take(self, ask: Claims, wanted: frozenset[str], *, at_ms: int) -> None:
        """Judge what came of the groups that are wanted of this cluster; the first `CLAIMS_MAX` of one message."""
        cluster = ClusterName(ask.cluster)
        told = self._told.setdefault(cluster, {})
        for claim in ask.groups[:CLAIMS_MAX]:
            if claim.uid in wanted and claim.uid not in told:
                told[claim.uid] = self._judged(cluster, claim, at_ms)

    def _judged(self, cluster: ClusterName, claim: Claim, at_ms: int) -> Submitted | Unfit:
        size = self._bytes.get(cluster, 0) + len(claim.spec)
        if size > BYTES_PER_CLUSTER_MAX:
            return Unfit(Why.LIMIT, f"{cluster} claims more than {BYTES_PER_CLUSTER_MAX} bytes of manifests")
        self._bytes[cluster] = size
        return submitted_by(claim, at_ms=at_ms)

    def clear(self) -> None:
        self._told.clear()
        self._bytes.clear()
