"""A store as a busy fleet leaves it: a snapshot with many live groups, and a minute of journal after it.

Made straight from records, since only what a server finds at its start matters here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from federation.core.dump import Dump
from federation.core.ids import Ids
from federation.core.leases import lease_name
from federation.core.records import (
    AnyRecord,
    Bound,
    ClusterAdmitted,
    ClusterFenced,
    ClusterJoined,
    GaveUp,
    Placed,
    RoleShape,
    Running,
    Submitted,
    encode_record,
)
from federation.core.state import State
from federation.core.stored import body_digest, pack_spec
from federation.protocol.lease import LeaseState
from federation.protocol.messages import LeaseBody, encode_lease
from placement.model import Position, Token, group_uid
from storage.blob import BlobStore, perform
from storage.entry import GENESIS, EntryHeader, EntryKind, digest, encode_entry, entry_name, position
from storage.root import FORMAT, ROOT_NAME, Root, SnapshotPointer, encode_root
from storage.snapshot_writer import End, SnapshotWriter

LINEAGE: Final = "1700000000000-recovery00"
WRITER: Final = "s-0"  # somebody else: whoever starts has to win an election
AT_MS: Final = 1_700_000_000_000
RECORDS_PER_ENTRY: Final = 512
RECORDS_PER_LIFE: Final = 5
SHAPES: Final = 100  # of one pod ...
COUNTS_MAX: Final = 10  # ... and so many pods at most: a thousand request classes
SPEC: Final = (
    '{{"apiVersion":"muster.io/v1","kind":"PodGroup","name":"{name}","queue":"default","roles":[{{"count":8,"template":'
    '{{"spec":{{"containers":[{{"args":["--config","/etc/train/{name}.yaml","--steps","100000"],"image":'
    '"registry.example.com/vision/train:2026.11","name":"main","resources":{{"limits":{{"cpu":"{cpu}m","memory":'
    '"64Gi","nvidia.com/gpu":8}}}},"volumeMounts":[{{"mountPath":"/data","name":"data"}}]}}],"nodeSelector":'
    '{{"example.com/tier":"gold"}},"restartPolicy":"Never","volumes":[{{"name":"data","persistentVolumeClaim":'
    '{{"claimName":"data-{name}"}}}}]}}}}}}]}}'
)
"""About as long as a small Job; every group's differs, as names do."""


@dataclass(frozen=True, slots=True)
class RecoverySettings:
    groups: int = 300_000
    """With a home, in the snapshot."""
    pending: int = 10_000
    """Groups beside them that wait."""
    clusters: int = 200
    tail_records: int = 300_000
    """Landed since: a minute at 1,000 groups a second, from submission to their end."""


class RecoveryStore:
    """Writes the whole store; `state` is what a server must know once it has started."""

    def __init__(self, store: BlobStore, settings: RecoverySettings) -> None:
        self.state = State(LINEAGE)
        self._store = store
        self._settings = settings
        self._seq = 1
        self._digest = GENESIS
        self._homes: list[tuple[str, str, str]] = []  # (uid, token, cluster), oldest first
        self._ended = 0
        self._number = 0

    def write(self) -> None:
        settings = self._settings
        self._fold_all(self._joined())
        for number in range(settings.groups):
            self._fold_all(self._life(number % settings.clusters))
        for _ in range(settings.pending):
            self._fold_all([self._submission(gpus=64)])
        self._snapshot()
        self._tail()

    # --- the snapshot ---

    def _fold_all(self, records: list[AnyRecord]) -> None:
        """As one entry of its own, which nobody will read."""
        self._seq += 1
        for index, record in enumerate(records):
            self.state.apply(Position(position(self._seq, index)), record)

    def _joined(self) -> list[AnyRecord]:
        records: list[AnyRecord] = []
        for number in range(self._settings.clusters):
            cluster = f"c{number:03}"
            records += [
                ClusterJoined(cluster=cluster, at_ms=AT_MS),
                ClusterFenced(cluster=cluster, epoch=1, at_ms=AT_MS),
                ClusterAdmitted(cluster=cluster, epoch=1, at_ms=AT_MS),
            ]
            body = LeaseBody(
                cluster=cluster,
                state=LeaseState.ACTIVE,
                epoch=1,
                floor=position(self._seq + 1, len(records) - 1),
                renew_seq=1,
                holder_uid=f"uid-{cluster}",
                holder_boot="boot-1",
                nonce=cluster,
            )
            self._store.create(lease_name(LINEAGE, cluster), encode_lease(body))
        return records

    def _life(self, cluster: int) -> list[AnyRecord]:
        """A group from its submission until it runs, all in the entry that is written next."""
        submitted = self._submission(gpus=8)
        uid = group_uid(self.state.lineage, Position(position(self._seq + 1, 0)))
        token = str(Token(self.state.lineage, Position(position(self._seq + 1, 1))))
        return [submitted, *self._placed(uid, token, f"c{cluster:03}")]

    def _submission(self, *, gpus: int) -> Submitted:
        self._number += 1
        name = f"train-{self._number:07}"
        cpu = 1_000 + self._number % SHAPES
        count = 1 + self._number // SHAPES % COUNTS_MAX
        spec = SPEC.format(name=name, cpu=cpu).encode()
        return Submitted(
            actor="sara",
            at_ms=AT_MS,
            cause=f"r-{name}",
            name=name,
            namespace="default",
            queue="default",
            priority=self._number % 3,
            request_id=f"r-{name}",
            body_digest=body_digest(spec),
            roles=(RoleShape("worker", count, count, gpus, 0, "", cpu, 65_536, ("H100",)),),
            min_count=count,
            disruption_mode="all",
            disconnect_policy="StopAndMove",
            grace_s=30,
            labels={"team": f"team-{self._number % 40}"},
            spec=pack_spec(spec),
        )

    def _placed(self, uid: str, token: str, cluster: str) -> list[AnyRecord]:
        self._homes.append((uid, token, cluster))
        return [
            Placed(
                actor="muster:placer",
                at_ms=AT_MS,
                uid=uid,
                cluster=cluster,
                effective_policy="StopAndMove",
                stamp=(cluster, 1, 7),
                budget=200_000,
                policy_version=1,
            ),
            Bound(actor=cluster, at_ms=AT_MS, pods=8, uid=uid, token=token, cluster=cluster),
            Running(actor=cluster, at_ms=AT_MS, pods=8, uid=uid, token=token, cluster=cluster),
        ]

    @staticmethod
    def _finish(uid: str, token: str, cluster: str) -> GaveUp:
        return GaveUp(
            actor=cluster,
            at_ms=AT_MS,
            uid=uid,
            token=token,
            cluster=cluster,
            verdict="Finished",
            succeeded=True,
        )

    def _snapshot(self) -> None:
        """Stored as a server would; the entry it stands at is one that nobody will read either."""
        self._digest = digest(b"the entry before")
        self._store.create(ROOT_NAME, encode_root(Root(format=FORMAT, lineage=LINEAGE, nonce="first")))
        ids = Ids("recovery")
        writer = SnapshotWriter(
            ids.op,
            nonce=ids.nonce(),
            lineage=LINEAGE,
            pointer=SnapshotPointer(self._seq, 1, self._digest, WRITER),
            gc_floor=self._seq,
        )
        dump = Dump(self.state)
        effects = writer.start()
        while not dump.done:
            for shard in dump.step(1_000):
                effects += writer.put(shard.name, shard.payload)
            while effects:
                effects += writer.handle(perform(self._store, effects.pop(0)), 0.0)
        effects = writer.close()
        while effects:
            effects += writer.handle(perform(self._store, effects.pop(0)), 0.0)
        if writer.end is not End.DONE:
            raise RuntimeError(f"the snapshot could not be written: {writer.end}")

    # --- the tail ---

    def _tail(self) -> None:
        """Groups that come, run and end, a full entry at a time."""
        for records in self._batches():
            self._seq += 1
            for index, record in enumerate(records):
                self.state.apply(Position(position(self._seq, index)), record)
            header = EntryHeader(self._seq, 1, EntryKind.BATCH, WRITER, f"n-{self._seq}", self._digest, len(records))
            data = encode_entry(header, [encode_record(record) for record in records])
            self._digest = digest(data)
            self._store.create(entry_name(self._seq), data)

    def _batches(self) -> Iterator[list[AnyRecord]]:
        records: list[AnyRecord] = []
        for life in range(self._settings.tail_records // RECORDS_PER_LIFE):
            at = len(records)
            records.append(self._submission(gpus=8))
            uid = group_uid(self.state.lineage, Position(position(self._seq + 1, at)))
            token = str(Token(self.state.lineage, Position(position(self._seq + 1, at + 1))))
            records += self._placed(uid, token, f"c{life % self._settings.clusters:03}")
            records.append(self._finish(*self._homes[self._ended]))
            self._ended += 1
            if len(records) + RECORDS_PER_LIFE > RECORDS_PER_ENTRY:
                yield records
                records = []
        if records:
            yield records
