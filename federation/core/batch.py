"""One journal batch being formed: records that may land together because they touch disjoint keys.

Every record of a batch is judged on committed state alone, so no two of them may depend on one another
(`docs/decisions/0003`). What may be recorded is judged elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple, assert_never

from federation.core.records import (
    Adopted,
    AnyRecord,
    Archived,
    Bound,
    ClusterAdmitted,
    ClusterConfirmedDead,
    ClusterCordoned,
    ClusterFenced,
    ClusterJoined,
    FenceDone,
    GaveUp,
    IntentSet,
    Placed,
    QueueApplied,
    Recovered,
    Restored,
    Running,
    Submitted,
    Unheld,
    encode_record,
)
from federation.core.state import State
from federation.protocol.messages import Verdict
from storage.entry import RECORDS_PER_ENTRY_MAX

BATCH_BYTES_MAX: Final = 1_000_000  # below storage's bound of 1 MiB packed, frames included; counted unpacked


class Key(NamedTuple):
    """Something a record changes or relies on."""

    kind: str  # group | name | request | cluster | queue | archive
    name: str


@dataclass(frozen=True, slots=True)
class PersonWaits:
    ticket: int


@dataclass(frozen=True, slots=True)
class AgentWaits:
    ticket: int
    verdict: Verdict


Waiter = PersonWaits | AgentWaits


@dataclass(slots=True)
class Batch:
    """`changed` keys belong to one record each; `relied_on` ones may be shared, but by no record that changes them."""

    records: list[AnyRecord] = field(default_factory=list)
    encoded: list[bytes] = field(default_factory=list)
    waiters: list[Waiter | None] = field(default_factory=list)  # for each record, who is answered when it landed
    changed: set[Key] = field(default_factory=set)
    relied_on: set[Key] = field(default_factory=set)
    bytes_count: int = 0
    submitted_count: int = 0
    full: bool = False

    def add(self, state: State, record: AnyRecord, waiter: Waiter | None = None) -> bool:
        """Take the record, unless it touches what an earlier one changes (or the batch is full): then it waits."""
        changes, relies_on = keys_of(state, record)
        if not (self.changed.isdisjoint(changes) and self.relied_on.isdisjoint(changes)):
            return False
        if not self.changed.isdisjoint(relies_on):
            return False
        data = encode_record(record)
        if len(self.records) >= RECORDS_PER_ENTRY_MAX or self.bytes_count + len(data) > BATCH_BYTES_MAX:
            self.full = True
            return False
        self.records.append(record)
        self.encoded.append(data)
        self.waiters.append(waiter)
        self.changed |= changes
        self.relied_on |= relies_on
        self.bytes_count += len(data)
        self.submitted_count += isinstance(record, Submitted)
        return True

    def changes(self, kind: str, name: str) -> bool:
        return Key(kind, name) in self.changed

    @property
    def room(self) -> int:
        return RECORDS_PER_ENTRY_MAX - len(self.records)


def keys_of(state: State, record: AnyRecord) -> tuple[set[Key], set[Key]]:
    """(what the record changes, what its judgement relied on)."""
    match record:
        case Submitted(namespace=namespace, name=name, queue=queue, request_id=request_id):
            changes = {Key("name", f"{namespace}/{name}")}
            return changes | _request(request_id), {Key("queue", queue)}
        case Placed(uid=uid, cluster=cluster):
            row = state.group(uid)
            queue_key = {Key("queue", row.queue)} if row is not None else set()
            return {Key("group", uid)}, {Key("cluster", cluster)} | queue_key
        case Adopted(uid=uid, cluster=cluster) | Unheld(uid=uid, cluster=cluster):
            return {Key("group", uid)}, {Key("cluster", cluster)}
        case Restored() | Recovered():
            return {Key("cluster", name) for name in state.clusters}, set()
        case Bound(uid=uid) | Running(uid=uid) | GaveUp(uid=uid):
            return {Key("group", uid)}, _home(state, uid)
        case IntentSet(uid=uid, cause=cause):
            return {Key("group", uid)} | _request(cause), _home(state, uid)
        case QueueApplied(name=name, cause=cause):
            return {Key("queue", name)} | _request(cause), set()
        case (
            ClusterJoined(cluster=cluster, cause=cause)
            | ClusterCordoned(cluster=cluster, cause=cause)
            | ClusterFenced(cluster=cluster, cause=cause)
            | FenceDone(cluster=cluster, cause=cause)
            | ClusterAdmitted(cluster=cluster, cause=cause)
            | ClusterConfirmedDead(cluster=cluster, cause=cause)
        ):
            return {Key("cluster", cluster)} | _request(cause), set()
        case Archived():
            return {Key("archive", "")}, set()
        case _:
            assert_never(record)


def _request(request_id: str) -> set[Key]:
    return {Key("request", request_id)} if request_id else set()


def _home(state: State, uid: str) -> set[Key]:
    """The cluster whose records could end this group's home."""
    row = state.group(uid)
    return {Key("cluster", row.home.cluster)} if row is not None and row.home is not None else set()
