"""The leases as this replica sees them: reads every one of them regularly and keeps what it saw.

Every replica does this all the time, so that a new leader has measured windows already. Only the leader writes through
it. What silence or a fenced lease leads to is decided in `failover`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, unique

import msgspec

from federation.core.ids import Ids
from federation.protocol.lease import LeaseObserver, LeaseState, LostLease, Timings
from federation.protocol.messages import LeaseBody, UnreadableMessageError, decode_lease, encode_lease
from placement.model import ClusterName
from storage.blob import (
    BlobCreate,
    BlobEffect,
    BlobEvent,
    BlobFailed,
    BlobGet,
    BlobName,
    BlobRead,
    BlobReplace,
    BlobWritten,
    OpId,
    Outcome,
    Version,
)


def lease_name(lineage: str, cluster: str) -> BlobName:
    return BlobName(f"leases/{lineage}/{cluster}")


@unique
class Look(Enum):
    """What the newest read of one lease brought."""

    NEVER = "never"
    SEEN = "seen"
    ABSENT = "absent"
    FAILED = "failed"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class _Op:
    """A read (`written` None) or a conditional write in flight."""

    cluster: ClusterName
    asked_at_s: float
    written: LeaseBody | None = None


class Leases:
    """At most one read and one write per lease are in flight. Every write is followed by a look."""

    def __init__(self, timings: Timings, ids: Ids) -> None:
        self._timings = timings
        self._ids = ids
        self._observer = LeaseObserver(timings)
        self._ops: dict[OpId, _Op] = {}
        self._reading: set[ClusterName] = set()
        self._writing: set[ClusterName] = set()
        self._again: set[ClusterName] = set()  # look once more when the read in flight has answered
        self._looks: dict[ClusterName, Look] = {}
        self._seen_at_s: dict[str, float] = {}  # when the newest look that showed a lease was asked for
        self._absent: dict[ClusterName, tuple[float, float]] = {}  # first answered so, last asked so
        self._lineage = ""
        self.due_s = float("inf")  # when all are read next

    def begin(self, lineage: str, now_s: float) -> None:
        """The journal is open: from now on leases of this lineage are read."""
        self._lineage = lineage
        self.due_s = now_s

    def owns(self, op: OpId) -> bool:
        return op in self._ops

    # --- what was seen ---

    def body(self, cluster: str) -> LeaseBody | None:
        return self._observer.body(cluster)

    def look(self, cluster: str) -> Look:
        return self._looks.get(ClusterName(cluster), Look.NEVER)

    def lost(self) -> list[LostLease]:
        """Active leases without a renewal for their whole window."""
        return self._observer.lost()

    def silence_s(self, cluster: str) -> float:
        return self._observer.silence_s(cluster)

    def absent_s(self, cluster: str) -> float:
        """For how long every look found no lease there."""
        since_s, confirmed_s = self._absent.get(ClusterName(cluster), (0.0, 0.0))
        return confirmed_s - since_s

    def mostly_unreadable(self) -> bool:
        """Whether the newest reads failed for more than half of the leases: the fault is probably ours."""
        failed = sum(look is Look.FAILED for look in self._looks.values())
        return failed * 2 > len(self._looks)

    def was_paused(self, now_s: float) -> None:
        self._observer.was_paused(now_s)
        self._seen_at_s.clear()
        self._absent.clear()

    def saw(self, body: LeaseBody, version: str, *, asked_at_s: float, now_s: float) -> bool:
        """Take a sighting, unless it is older than what was seen before; True when it says something new."""
        before = self._observer.body(body.cluster)
        if before is not None and _order(body) < _order(before):
            return False
        self._observer.saw(body, version, asked_at_s=asked_at_s, now_s=now_s)
        self._seen_at_s[body.cluster] = max(asked_at_s, self._seen_at_s.get(body.cluster, asked_at_s))
        self._looks[ClusterName(body.cluster)] = Look.SEEN
        return before is None or (before.epoch, before.state) != (body.epoch, body.state)

    def forget(self, cluster: str) -> None:
        """It is no part of the fleet any more: nobody reads its lease, and what was seen of it says nothing."""
        self._observer.forget(cluster)
        for known in (self._looks, self._absent, self._seen_at_s):
            known.pop(ClusterName(cluster), None)

    # --- reading ---

    def read_due(self, clusters: Iterable[ClusterName], now_s: float) -> list[BlobEffect]:
        """If it is time, read all leases but those that were seen since the last time: whoever relays a renewal has
        looked. A lease is thus seen at least every two periods, and a silent one is read every period."""
        if now_s < self.due_s:
            return []
        period_s = self._timings.lease_read_s
        self.due_s = now_s + period_s
        return [
            effect
            for cluster in clusters
            if self._seen_at_s.get(cluster, float("-inf")) <= now_s - period_s
            for effect in self.read(cluster, now_s)
        ]

    def read(self, cluster: ClusterName, now_s: float) -> list[BlobEffect]:
        """Look at one lease now; if a look is in flight already, once more after it."""
        if not self._lineage:
            return []
        if cluster in self._reading:
            self._again.add(cluster)
            return []
        self._reading.add(cluster)
        op = self._ids.op()
        self._ops[op] = _Op(cluster, now_s)
        return [BlobGet(op, lease_name(self._lineage, cluster))]

    def handle(self, event: BlobEvent, now_s: float) -> tuple[list[BlobEffect], ClusterName, bool]:
        """Take an answer: what to do next, whose lease it was, and whether it changed state, epoch or presence."""
        op = self._ops.pop(event.op)
        if op.written is not None:
            self._writing.discard(op.cluster)
            return self._wrote(op, op.written, event, now_s)
        self._reading.discard(op.cluster)
        news = self._read(op, event, now_s)
        again: list[BlobEffect] = []
        if op.cluster in self._again:
            self._again.discard(op.cluster)
            again = self.read(op.cluster, now_s)
        return again, op.cluster, news

    def _read(self, op: _Op, event: BlobEvent, now_s: float) -> bool:
        if not (isinstance(event, BlobRead) and event.blob is None):
            self._absent.pop(op.cluster, None)
        match event:
            case BlobFailed():
                self._observer.could_not_look(op.cluster, now_s)
                self._looks[op.cluster] = Look.FAILED
                return False
            case BlobRead(blob=None):
                self._observer.forget(op.cluster)
                since_s, _ = self._absent.get(op.cluster, (now_s, now_s))
                self._absent[op.cluster] = (since_s, op.asked_at_s)
                news = self._looks.get(op.cluster) is not Look.ABSENT
                self._looks[op.cluster] = Look.ABSENT
                return news
            case BlobRead(blob=blob):
                assert blob is not None
                try:
                    body = decode_lease(blob.data)
                except UnreadableMessageError:
                    self._observer.could_not_look(op.cluster, now_s)
                    news = self._looks.get(op.cluster) is not Look.UNREADABLE
                    self._looks[op.cluster] = Look.UNREADABLE
                    return news
                return self.saw(body, blob.version, asked_at_s=op.asked_at_s, now_s=now_s)
            case _:
                raise AssertionError(f"{type(event).__name__} answers no read of a lease")

    # --- writing (the leader only) ---

    def busy(self, cluster: ClusterName) -> bool:
        """A write of this lease is in flight."""
        return cluster in self._writing

    def create_fenced(self, cluster: ClusterName, epoch: int, ttl_s: float, now_s: float) -> list[BlobEffect]:
        """Make the first lease of a cluster, or one in place of a lost one: nothing may start under it."""
        body = LeaseBody(cluster=cluster, state=LeaseState.FENCED, epoch=epoch, ttl_s=ttl_s, nonce=self._ids.nonce())
        op = self._begin_write(body, now_s)
        return [BlobCreate(op, lease_name(self._lineage, cluster), encode_lease(body))]

    def create_recovering(self, cluster: ClusterName, epoch: int, ttl_s: float, now_s: float) -> list[BlobEffect]:
        """Make the first lease of a restored fleet's cluster: what runs there goes on under it, nothing may start."""
        body = LeaseBody(
            cluster=cluster,
            state=LeaseState.RECOVERING,
            epoch=epoch,
            ttl_s=ttl_s,
            nonce=self._ids.nonce(),
            lineage=self._lineage,
        )
        op = self._begin_write(body, now_s)
        return [BlobCreate(op, lease_name(self._lineage, cluster), encode_lease(body))]

    def fence(self, cluster: ClusterName, now_s: float) -> list[BlobEffect]:
        """Active -> Fenced with the next epoch, against the version that was seen last."""
        body = self._observer.body(cluster)
        assert body is not None
        fenced = msgspec.structs.replace(body, state=LeaseState.FENCED, epoch=body.epoch + 1, nonce=self._ids.nonce())
        return self._replace(fenced, now_s)

    def fence_above(self, cluster: ClusterName, epoch: int, now_s: float) -> list[BlobEffect]:
        """Fenced as before, with the epoch after this one."""
        body = self._observer.body(cluster)
        assert body is not None
        assert body.state == LeaseState.FENCED
        assert body.epoch < epoch
        return self._replace(msgspec.structs.replace(body, epoch=epoch + 1, nonce=self._ids.nonce()), now_s)

    def vacate(self, cluster: ClusterName, now_s: float) -> list[BlobEffect]:
        """Fenced as before, and nobody's: whoever renews it first after an admission holds it."""
        body = self._observer.body(cluster)
        assert body is not None
        assert body.state == LeaseState.FENCED
        nobody = msgspec.structs.replace(body, holder_uid="", holder_boot="", nonce=self._ids.nonce())
        return self._replace(nobody, now_s)

    def admit(self, cluster: ClusterName, floor: int, now_s: float) -> list[BlobEffect]:
        """Fenced, or Recovering, -> Active in the same epoch, with this floor."""
        body = self._observer.body(cluster)
        assert body is not None
        assert body.state != LeaseState.ACTIVE
        active = msgspec.structs.replace(body, state=LeaseState.ACTIVE, floor=floor, nonce=self._ids.nonce())
        return self._replace(active, now_s)

    def _replace(self, body: LeaseBody, now_s: float) -> list[BlobEffect]:
        version = self._observer.version(body.cluster)
        assert version is not None
        op = self._begin_write(body, now_s)
        return [BlobReplace(op, lease_name(self._lineage, body.cluster), encode_lease(body), Version(version))]

    def _begin_write(self, body: LeaseBody, now_s: float) -> OpId:
        cluster = ClusterName(body.cluster)
        assert cluster not in self._writing
        self._writing.add(cluster)
        op = self._ids.op()
        self._ops[op] = _Op(cluster, now_s, body)
        return op

    def _wrote(
        self, op: _Op, body: LeaseBody, event: BlobEvent, now_s: float
    ) -> tuple[list[BlobEffect], ClusterName, bool]:
        """Done: that is what stands. Refused or unknown: look, and decide by what stands."""
        assert isinstance(event, BlobWritten)
        if event.outcome is Outcome.DONE and event.version is not None:
            return [], op.cluster, self.saw(body, event.version, asked_at_s=op.asked_at_s, now_s=now_s)
        return self.read(op.cluster, now_s), op.cluster, False


def _order(body: LeaseBody) -> tuple[int, bool, int]:
    """How far a lease has come: within an epoch it is fenced first, then active, then renewed."""
    return body.epoch, body.state == LeaseState.ACTIVE, body.renew_seq
