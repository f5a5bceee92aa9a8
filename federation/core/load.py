"""From the shards of a snapshot back to the state that was dumped: equal to the fold of every record up to there.

What follows from groups (names, order of the pending, homes by cluster) is not stored but made anew.
"""

from __future__ import annotations

from collections import Counter
from operator import attrgetter
from typing import assert_never

import msgspec

from federation.core import shards
from federation.core.rows import ClusterRow, GroupRow, Home, QueueRow, pending_key
from federation.core.shards import Kind, Shard, StoredClass, StoredGroup, StoredToken, UnreadableShardError, items_of
from federation.core.state import State
from federation.core.stored import request_of
from placement.model import (
    ClusterName,
    GangRequest,
    Lineage,
    Phase,
    Position,
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
        self._at_home: dict[ClusterName, list[GroupRow]] = {}
        self._ended: list[tuple[str, ClusterName, dict[str, Position]]] = []  # and by which shard
        self._specs: dict[str, bytes] = {}
        self._classes: dict[StoredClass, _Class] = {}
        self._headed = False

    def take(self, name: str, payload: bytes) -> None:
        """UnreadableShardError when the shard is not one that a correct server wrote."""
        shard = shards.decode_shard(payload, name)
        try:
            self._take(name, shard)
        except (msgspec.MsgspecError, LookupError, ValueError) as error:
            raise UnreadableShardError(name, str(error)) from error

    def finish(self, name: str) -> State:
        """The state, once every shard was taken. `name` is that of the snapshot. O(groups)."""
        state = self._state
        if not self._headed:
            raise UnreadableShardError(name, "there is no head among the shards")
        self._rows.sort(key=attrgetter("submitted_at"))
        for shard, cluster, ends in self._ended:  # taken early, they come before their cluster
            if cluster not in state.clusters:
                raise UnreadableShardError(shard, f"{cluster!r} has ends, and is not there")
            state.clusters[cluster].ended.update(ends)
        try:
            self._index_groups()
            self._share_specs()
        except KeyError as error:
            raise UnreadableShardError(name, f"a group is there, and {error} is not") from error
        state.pending.sort()
        return state

    # --- shards ---

    def _take(self, name: str, shard: Shard) -> None:
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
                ends = {end.token: end.position for end in shards.decode_ends(items)}
                self._ended.append((name, ClusterName(shard.cluster), ends))
            case Kind.REQUESTS:
                state.requests.update((request.request_id, request) for request in shards.decode_requests(items))
            case Kind.FINISHED:
                state.finished.extend(shards.decode_finishes(items))
            case Kind.SPECS:
                self._specs.update((one.digest, one.spec) for one in shards.decode_specs(items))
            case Kind.GROUPS:
                self._take_groups(shard, shards.decode_groups(items))
            case Kind.LEAVING | Kind.PARTS:
                self._take_archive(shard, items)
            case _:
                assert_never(shard.kind)

    def _take_cluster(self, stored: shards.StoredCluster) -> None:
        row = ClusterRow(**msgspec.structs.asdict(stored))
        self._state.clusters[row.name] = row

    def _take_groups(self, shard: Shard, groups: list[StoredGroup]) -> None:
        classes = [self._class_of(stored) for stored in shard.classes]
        lineage = self._state.lineage
        cluster = ClusterName(shard.cluster)
        rows = [group_row(group, classes[group.request], cluster, lineage) for group in groups]
        if any((row.home is None) is bool(cluster) for row in rows):
            raise ValueError(f"not every group has its home in {cluster!r}")
        self._rows += rows
        if cluster:
            self._at_home.setdefault(cluster, []).extend(rows)

    def _take_archive(self, shard: Shard, items: bytes) -> None:
        state = self._state
        if shard.kind is Kind.PARTS:
            state.parts.extend(shards.decode_parts(items))
            state.parts_count = state.parts[-1].part
            return
        classes = [self._class_of(stored) for stored in shard.classes]
        for group in shards.decode_groups(items):
            row = group_row(group, classes[group.request], ClusterName(""), state.lineage)
            state.leaving[row.uid] = row
            state.leaving_bytes += len(row.history_packed)

    def _class_of(self, stored: StoredClass) -> _Class:
        known = self._classes.get(stored)
        if known is None:
            known = self._classes[stored] = self._state.class_of(request_of(stored))
        return known

    # --- what follows from groups ---

    def _index_groups(self) -> None:
        state = self._state
        state.groups = {row.uid: row for row in self._rows}
        for row in self._rows:
            if row.home is not None:
                if row.failure_spread:
                    state.count_beside(row, sign=1)
                state.names[row.namespace, row.name] = row.uid
            elif row.phase.terminal:
                state.names_ended[row.namespace, row.name] = row.uid
            else:
                state.names[row.namespace, row.name] = row.uid
                if row.phase is Phase.PENDING:
                    state.pending.append(pending_key(row))
            if row.child is not None:
                state.note_child(row)
        for key in state.names.keys() & state.names_ended.keys():
            del state.names_ended[key]
        for name, rows in self._at_home.items():
            cluster = state.clusters[name]
            rows.sort(key=attrgetter("changed_at"))
            cluster.homes = {row.uid: row.changed_at for row in rows}
            rows.sort(key=attrgetter("home.token"))
            self._index_sizes(cluster, rows)
            cluster.tokens = {row.home.token.position: row.uid for row in rows if row.home is not None}

    def _index_sizes(self, cluster: ClusterRow, rows: list[GroupRow]) -> None:
        self._state.small.update(row.uid for row in rows if row.counts)
        resizes = sorted((row.sizing.at, row.uid) for row in rows if row.sizing is not None)
        cluster.resizes = dict(resizes)

    def _share_specs(self) -> None:
        shares = Counter(map(attrgetter("spec_digest"), self._rows))
        specs = {digest: (spec, shares[digest]) for digest, spec in self._specs.items() if digest in shares}
        if len(specs) < len(shares):
            raise KeyError(min(shares.keys() - specs.keys()))
        self._state.specs = specs


def _token(stored: StoredToken, lineage: Lineage) -> Token:
    return Token(Lineage(stored.lineage) if stored.lineage else lineage, stored.position)


def group_row(stored: StoredGroup, known: _Class, cluster: ClusterName, lineage: Lineage) -> GroupRow:
    row = GroupRow(*msgspec.structs.astuple(stored))  # in the same order; what means something else is set below
    row.request, row.charge = known
    if not stored.uid:
        row.uid = group_uid(lineage, stored.submitted_at)
    if stored.home is not None:
        row.home = Home(cluster, _token(stored.home, lineage))
    if stored.last_token is not None:
        row.last_token = _token(stored.last_token, lineage)
    return row
