"""One journal batch being formed: records that may land together because they touch disjoint keys.

Every record of a batch is judged on committed state alone, so no two of them may depend on one another
(`docs/decisions/0003`). What may be recorded is judged elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, assert_never

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
    ClusterRemoved,
    FenceDone,
    GaveUp,
    IntentSet,
    Placed,
    Quarantined,
    QueueApplied,
    Recovered,
    Recreated,
    Resized,
    Restored,
    Running,
    Sized,
    Submitted,
    SubmittedChild,
    Unheld,
    encode_record,
)
from federation.core.spreads import spread_uid_of
from federation.core.state import State
from federation.protocol.messages import Verdict
from storage.entry import RECORDS_PER_ENTRY_MAX

BATCH_BYTES_MAX: Final = 1_000_000  # below storage's bound of 1 MiB packed, frames included; counted unpacked


Key = tuple[str, str]
"""Something a record changes or relies on: its kind (group, siblings, name, request, cluster, queue or archive), and
its name."""

Keys = tuple[Key, ...]


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
        return self.add_all(state, (record,), waiter)

    def add_all(self, state: State, records: Sequence[AnyRecord], waiter: Waiter | None = None) -> bool:
        """Take all of these records, which belong together, or none; `waiter` is answered with the first."""
        keys = [keys_of(state, record) for record in records]
        changed, relied_on = self.changed, self.relied_on
        for changes, relies_on in keys:
            if not (changed.isdisjoint(changes) and relied_on.isdisjoint(changes) and changed.isdisjoint(relies_on)):
                return False
        encoded = [encode_record(record) for record in records]
        bytes_count = self.bytes_count + sum(map(len, encoded))
        if len(self.records) + len(records) > RECORDS_PER_ENTRY_MAX or bytes_count > BATCH_BYTES_MAX:
            self.full = True
            return False
        self.records += records
        self.encoded += encoded
        self.waiters += [waiter] + [None] * (len(records) - 1)
        for changes, relies_on in keys:
            changed.update(changes)
            relied_on.update(relies_on)
        self.bytes_count = bytes_count
        self.submitted_count += sum(isinstance(record, Submitted) for record in records)
        return True

    def changes(self, kind: str, name: str) -> bool:
        return (kind, name) in self.changed

    @property
    def room(self) -> int:
        return RECORDS_PER_ENTRY_MAX - len(self.records)


def keys_of(state: State, record: AnyRecord) -> tuple[Keys, Keys]:
    """(what the record changes, what its judgement relied on)."""
    match record:  # what most records are comes first: each pattern that fails costs
        case Placed(uid=uid, cluster=cluster):
            return _placed(state, uid, cluster)
        case GaveUp(uid=uid) | Bound(uid=uid) | Running(uid=uid) | Sized(uid=uid) | Quarantined(uid=uid):
            return (("group", uid),), _home(state, uid)
        case SubmittedChild(namespace=namespace, name=name, queue=queue, request_id=request_id, child=child):
            names = (("name", f"{namespace}/{name}"), ("name", f"{namespace}/{child.name}"))
            return (*names, *_request(request_id)), (("queue", queue),)
        case Submitted(namespace=namespace, name=name, queue=queue, request_id=request_id):
            return (("name", f"{namespace}/{name}"), *_request(request_id)), (("queue", queue),)
        case Adopted(uid=uid, cluster=cluster) | Unheld(uid=uid, cluster=cluster):
            return (("group", uid),), (("cluster", cluster),)
        case Recreated(uid=uid, cluster=cluster, submitted=one):
            changes = (("group", uid), ("name", f"{one.namespace}/{one.name}"), *_request(one.request_id))
            return changes, (("queue", one.queue), ("cluster", cluster))
        case Restored() | Recovered():
            return tuple(("cluster", name) for name in state.clusters), ()
        case IntentSet(uid=uid, cause=cause) | Resized(uid=uid, cause=cause):
            return (("group", uid), *_request(cause)), _home(state, uid)
        case QueueApplied(name=name, cause=cause):
            return (("queue", name), *_request(cause)), ()
        case (
            ClusterJoined(cluster=cluster, cause=cause)
            | ClusterCordoned(cluster=cluster, cause=cause)
            | ClusterFenced(cluster=cluster, cause=cause)
            | FenceDone(cluster=cluster, cause=cause)
            | ClusterAdmitted(cluster=cluster, cause=cause)
            | ClusterConfirmedDead(cluster=cluster, cause=cause)
            | ClusterRemoved(cluster=cluster, cause=cause)
        ):
            return (("cluster", cluster), *_request(cause)), ()
        case Archived():
            return (("archive", ""),), ()
        case _:
            assert_never(record)


def _placed(state: State, uid: str, cluster: str) -> tuple[Keys, Keys]:
    """Of siblings one at most is placed in a cluster."""
    row = state.group(uid)
    if row is None:
        return (("group", uid),), (("cluster", cluster),)
    apart = (("siblings", f"{spread_uid_of(row)} in {cluster}"),) if row.child is not None else ()
    return (("group", uid), *apart), (("cluster", cluster), ("queue", row.queue))


def _request(request_id: str) -> Keys:
    return (("request", request_id),) if request_id else ()


def _home(state: State, uid: str) -> Keys:
    """The cluster whose records could end this group's home."""
    row = state.group(uid)
    return (("cluster", row.home.cluster),) if row is not None and row.home is not None else ()
