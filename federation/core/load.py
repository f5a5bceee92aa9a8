"""From the shards of a snapshot back to the state that was dumped: equal to the fold of every record up to there.

What follows from groups (names, order of the pending, homes by cluster) is not stored but made anew.
"""

from __future__ import annotations

from collections import Counter
from typing import assert_never

import msgspec

from federation.core import shards
from federation.core.rows import ClusterRow, GroupRow, Home, QueueRow, RequestRow, pending_key
from federation.core.shards import Kind, Shard, StoredClass, StoredGroup, StoredToken, UnreadableShardError, items_of
from federation.core.state import State
from federation.core.stored import request_of
from placement.model import (
    ClusterName,
    GangRequest,
    GroupUid,
    Lineage,
    Phase,
    QueueName,
    Token,
    group_uid,
)

_Class = tuple[GangRequest, tuple[tuple[str, int], ...]]


class Loader:
    """Takes the shards of one snapshot in their order, then gives the state."""

    def __init__(self, lineage: str) -> None:
        self._state = State(lineage)
        self._state.queues.clear()
        self._rows: list[GroupRow] = []
        self._specs: dict[str, bytes] = {}
        self._classes: dict[StoredClass, _Class] = {}
        self._headed = False

    def take(self, name: str, payload: bytes) -> None:
        """UnreadableShardError when the shard is not one that a correct server wrote."""
        shard = shards.decode_shard(payload, name)
        try:
            self._take(shard)
        except (msgspec.MsgspecError, LookupError, ValueError) as error:
            raise UnreadableShardError(name, str(error)) from error

    def finish(self, name: str) -> State:
        """The state, once every shard was taken. `name` is that of the snapshot. O(groups)."""
        state = self._state
        if not self._headed:
            raise UnreadableShardError(name, "there is no head among the shards")
        self._rows.sort(key=lambda row: row.submitted_at)
        try:
            self._index_groups()
            self._share_specs()
        except KeyError as error:
            raise UnreadableShardError(name, f"a group is there, and {error} is not") from error
        state.pending.sort()
        return state

    # --- shards ---

    def _take(self, shard: Shard) -> None:
        state = self._state
        items = items_of(shard)
        match shard.kind:
            case Kind.HEAD:
                (head,) = shards.decode_heads(items)
                state.head, state.clock_ms, state.recovering_since = msgspec.structs.astuple(head)
                self._headed = True
            case Kind.QUEUES:
                for queue in shards.decode_queues(items):
                    row = QueueRow(**msgspec.structs.asdict(queue))
                    state.queues[row.name] = row
            case Kind.CLUSTERS:
                for cluster in shards.decode_clusters(items):
                    self._take_cluster(cluster)
            case Kind.ENDED:
                state.clusters[ClusterName(shard.cluster)].ended.update(
                    (end.token, end.position) for end in shards.decode_ends(items)
                )
            case Kind.REQUESTS:
                for request in shards.decode_requests(items):
                    state.requests[request.request_id] = RequestRow(
                        request.digest, request.position, request.uid, request.at_ms
                    )
            case Kind.FINISHED:
                state.finished.extend((one.at_ms, GroupUid(one.uid)) for one in shards.decode_finishes(items))
            case Kind.SPECS:
                self._specs.update((one.digest, one.spec) for one in shards.decode_specs(items))
            case Kind.GROUPS:
                self._take_groups(shard, shards.decode_groups(items))
            case _:
                assert_never(shard.kind)

    def _take_cluster(self, stored: shards.StoredCluster) -> None:
        row = ClusterRow(**msgspec.structs.asdict(stored))
        self._state.clusters[row.name] = row

    def _take_groups(self, shard: Shard, groups: list[StoredGroup]) -> None:
        classes = [self._class_of(stored) for stored in shard.classes]
        lineage = self._state.lineage
        cluster = ClusterName(shard.cluster)
        for group in groups:
            self._rows.append(_group_row(group, classes[group.request], cluster, lineage))

    def _class_of(self, stored: StoredClass) -> _Class:
        known = self._classes.get(stored)
        if known is None:
            known = self._classes[stored] = self._state.class_of(request_of(stored))
        return known

    # --- what follows from groups ---

    def _index_groups(self) -> None:
        state = self._state
        at_home: list[GroupRow] = []
        for row in self._rows:
            state.groups[row.uid] = row
            key = (row.namespace, row.name)
            state.names_last[key] = row.uid
            if not row.phase.terminal:
                state.names[key] = row.uid
            if row.phase is Phase.PENDING:
                state.pending.append(pending_key(row))
            if row.home is not None:
                at_home.append(row)
        for row in sorted(at_home, key=lambda row: row.changed_at):
            assert row.home is not None
            state.clusters[row.home.cluster].homes[row.uid] = row.changed_at
        at_home.sort(key=lambda row: row.home.token if row.home is not None else ())
        for row in at_home:
            assert row.home is not None
            state.clusters[row.home.cluster].tokens[row.home.token.position] = row.uid

    def _share_specs(self) -> None:
        shares = Counter(row.spec_digest for row in self._rows)
        self._state.specs = {digest: (self._specs[digest], count) for digest, count in shares.items()}


def _token(stored: StoredToken | None, lineage: Lineage) -> Token | None:
    if stored is None:
        return None
    return Token(Lineage(stored.lineage) if stored.lineage else lineage, stored.position)


def _group_row(stored: StoredGroup, known: _Class, cluster: ClusterName, lineage: Lineage) -> GroupRow:
    token = _token(stored.home, lineage)
    return GroupRow(
        uid=GroupUid(stored.uid) if stored.uid else group_uid(lineage, stored.submitted_at),
        name=stored.name,
        namespace=stored.namespace,
        queue=QueueName(stored.queue),
        priority=stored.priority,
        submitted_at=stored.submitted_at,
        request=known[0],
        charge=known[1],
        disconnect_policy=stored.disconnect_policy,
        disruption_mode=stored.disruption_mode,
        grace_s=stored.grace_s,
        labels=stored.labels,
        workload=stored.workload,
        spec_digest=stored.spec_digest,
        actor=stored.actor,
        at_ms=stored.at_ms,
        phase=stored.phase,
        intent=stored.intent,
        intent_reason=stored.intent_reason,
        home=Home(cluster, token) if token is not None else None,
        effective_policy=stored.effective_policy,
        bound_at=stored.bound_at,
        running_at=stored.running_at,
        pods_bound=stored.pods_bound,
        changed_at=stored.changed_at,
        attempts=stored.attempts,
        failures=stored.failures,
        last_token=_token(stored.last_token, lineage),
        last_cluster=ClusterName(stored.last_cluster) if stored.last_cluster is not None else None,
        last_verdict=stored.last_verdict,
        last_reasons=stored.last_reasons,
        displaced=stored.displaced,
        history_packed=stored.history_packed,
        history_count=stored.history_count,
        history_cut=stored.history_cut,
    )
