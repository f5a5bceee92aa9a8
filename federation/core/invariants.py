"""What must be true of the state after every record, whoever wrote it. Called by tests and the world, never in between.

`check` looks at one state; `Transitions` watches records and states go by. AssertionError names the invariant.
"""

from __future__ import annotations

from federation.core.history import HISTORY_PER_GROUP_MAX
from federation.core.records import (
    Adopted,
    AnyRecord,
    ClusterConfirmedDead,
    ClusterFenced,
    FenceDone,
    GaveUp,
    Placed,
    Recreated,
    Unheld,
)
from federation.core.rows import ClusterRow, GroupRow, Intent, QueueRow, pending_key
from federation.core.state import DEFAULT_QUEUE, State
from placement.elastic import with_counts
from placement.model import ClusterName, DisconnectPolicy, GroupUid, Phase, Position


def check(state: State) -> None:
    """The indices agree with the rows; homes, names and quota are accounted for once (S7, S11). O(state)."""
    for row in state.groups.values():
        _check_group(state, row)
    for cluster in state.clusters.values():
        _check_cluster(state, cluster)
    for queue in state.queues.values():
        _check_queue(state, queue)
    pending = sorted(pending_key(row) for row in state.groups.values() if row.phase is Phase.PENDING)
    assert pending == state.pending, "the pending index must list the pending groups in order"
    live = {(row.namespace, row.name): uid for uid, row in state.groups.items() if not row.phase.terminal}
    small = {row.uid for row in state.groups.values() if row.home is not None and row.counts}
    assert state.small == small, "those at home with fewer pods than all are listed"
    assert live == state.names, "each live group holds its name, and nobody else does"
    assert DEFAULT_QUEUE in state.queues
    _check_beside(state)
    for (namespace, name), uids in state.spreads.items():
        _check_spread(state, f"spread group {namespace}/{name}", uids)


def _check_group(state: State, row: GroupRow) -> None:
    where = f"group {row.uid}"
    homeless = {Phase.PENDING, Phase.SUSPENDED, Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED, Phase.QUARANTINED}
    assert (row.home is None) == (row.phase in homeless), f"{where}: phase {row.phase} and home {row.home}"
    assert (row.effective_policy is None) == (row.home is None), where
    assert row.home is not None or not (row.bound_at or row.running_at), where
    assert row.phase is not Phase.PENDING or row.intent is Intent.RUN, where
    assert row.history_count <= HISTORY_PER_GROUP_MAX, where
    assert row.changed_at <= state.head, where
    if row.home is not None:
        cluster = state.clusters[row.home.cluster]
        assert cluster.homes[row.uid] == row.changed_at, f"{where}: the cluster's feed must show its last change"
        assert cluster.tokens[row.home.token.position] == row.uid, where
        assert with_counts(row.request, row.counts) is not None, f"{where} has {row.counts} pods by role"
        assert row.last_token is None or row.last_token < row.home.token, f"S2: tokens of {where} only grow"


def _check_beside(state: State) -> None:
    beside: dict[str, dict[ClusterName, int]] = {}
    for row in state.groups.values():
        if row.beside and row.home is not None:
            homes = beside.setdefault(row.beside, {})
            homes[row.home.cluster] = homes.get(row.home.cluster, 0) + 1
    assert beside == state.beside, "each home of those that rather do not fail together counts once"


def _check_spread(state: State, where: str, uids: list[GroupUid]) -> None:
    rows = [state.groups[uid] for uid in uids]
    homes = [row.home.cluster for row in rows if row.home is not None]
    assert rows, f"{where}: an index without children"
    assert len(set(homes)) == len(homes), f"{where}: two children in one of {sorted(homes)}"
    for row in rows:
        assert row.child is not None, where
        assert not row.child.share or row.request.pods == row.child.share, f"{where}: {row.uid} asks for its share"
    shares = sum(row.child.share for row in rows if row.child is not None)
    assert shares <= max(row.child.replicas for row in rows if row.child is not None), f"{where}: {shares} replicas"


def _check_cluster(state: State, cluster: ClusterRow) -> None:
    where = f"cluster {cluster.name}"
    assert set(cluster.homes) == set(cluster.tokens.values()), f"{where}: two indices of its homes"
    assert list(cluster.homes.values()) == sorted(cluster.homes.values()), f"{where}: the feed is in order"
    assert list(cluster.tokens) == sorted(cluster.tokens), f"{where}: tokens are in order"
    assert list(cluster.ended.values()) == sorted(cluster.ended.values()), f"{where}: ends are in order"
    assert list(cluster.resizes) == sorted(cluster.resizes), f"{where}: resizes are in order"
    sized = {uid: sizing.at for uid in cluster.homes if (sizing := state.groups[uid].sizing) is not None}
    assert {uid: at for at, uid in cluster.resizes.items()} == sized, f"{where}: two indices of its resizes"
    assert cluster.admitted_epoch <= cluster.fenced_epoch, f"{where}: an epoch begins with a fence"
    for uid in cluster.homes:
        home = state.groups[uid].home
        assert home is not None, where
        assert home.cluster == cluster.name, where


def _check_queue(state: State, queue: QueueRow) -> None:
    rows = [row for row in state.groups.values() if row.queue == queue.name]
    used: dict[str, int] = {}
    for row in rows:
        for line, gpus in row.charge if row.home is not None else ():
            used[line] = used.get(line, 0) + gpus
    charged = {line: gpus for line, gpus in queue.gpus_used.items() if gpus}
    assert charged == used, f"S11: queue {queue.name} is charged {charged}, its homes take {used}"
    assert queue.homes_count == sum(row.home is not None for row in rows), queue.name
    assert queue.pending_count == sum(row.phase is Phase.PENDING for row in rows), queue.name


class Transitions:
    """Watches one replica's records and state: homes change only by what may end them (S3), phases that are final
    stay (S7), tokens grow (S2)."""

    def __init__(self) -> None:
        self._homes: dict[GroupUid, tuple[str, Position]] = {}
        self._last: dict[GroupUid, Position] = {}
        self._final: dict[GroupUid, Phase] = {}

    def folded(self, position: Position, record: AnyRecord, state: State) -> None:
        """Call after each `State.apply`. O(homes of the cluster concerned)."""
        for uid in self._touched(record):
            self._follow(uid, position, record, state)

    def _touched(self, record: AnyRecord) -> list[GroupUid]:
        uid = getattr(record, "uid", None)
        if uid is not None:
            return [GroupUid(uid)]
        cluster = getattr(record, "cluster", None)
        return [uid for uid, (home, _) in self._homes.items() if home == cluster]

    def _follow(self, uid: GroupUid, position: Position, record: AnyRecord, state: State) -> None:
        row = state.groups.get(uid)
        if row is None:
            return
        before = self._homes.get(uid)
        after = (str(row.home.cluster), row.home.token.position) if row.home is not None else None
        if before != after:
            assert before is None or after is None, f"S3: {uid} went from {before} to {after} by one record"
            if after is not None:
                kind = type(record).__name__
                assert isinstance(record, Placed | Adopted | Recreated), f"S3: {kind} gave {uid} a home"
                made_here = isinstance(record, Adopted | Recreated) or after[1] == position
                assert made_here and after[1] > self._last.get(uid, 0), f"S2: token of {uid} at {position}"  # noqa: PT018
                self._homes[uid] = after
                self._last[uid] = after[1]
            else:
                assert self._may_end(row, before, record), f"S3: {type(record).__name__} ended the home of {uid}"
                del self._homes[uid]
        final = self._final.get(uid)
        assert final is None or row.phase is final, f"S7: {uid} was {final} and is {row.phase}"
        if row.phase.terminal:
            self._final[uid] = row.phase

    def _may_end(self, row: GroupRow, before: tuple[str, Position] | None, record: AnyRecord) -> bool:
        match record:
            case GaveUp(late=late):
                return not late
            case Unheld(cluster=cluster):
                return before is not None and before[0] == cluster
            case FenceDone(cluster=cluster, grace_s=grace_s):
                return before is not None and before[0] == cluster and row.grace_s <= grace_s
            case ClusterConfirmedDead(cluster=cluster, actor=actor, reason=reason):
                return before is not None and before[0] == cluster and bool(actor and reason)
            case ClusterFenced(cluster=cluster):
                moves = row.disconnect_policy is DisconnectPolicy.MOVE_ANYWAY
                return before is not None and before[0] == cluster and moves
            case _:
                return False
