"""The groups that wait for a home, kept in step with the fold, and what their arrivals teach about nodes.

Whoever leads has one for the placer; a replay has one per leader, and folds the same records into it. Which clusters a
group avoids is told by whoever remembers refusals.
"""

from __future__ import annotations

from collections.abc import Callable

from federation.core.records import (
    AnyRecord,
    ClusterConfirmedDead,
    ClusterFenced,
    FenceDone,
    Placed,
    Submitted,
)
from federation.core.rows import GiveUp, GroupRow
from federation.core.state import State
from placement.engine import Pending
from placement.model import ClusterName, GroupUid, Phase, Position, group_uid
from placement.node_order import LearntWorth
from placement.waiting import Waiting
from storage.entry import POSITIONS_PER_ENTRY

Avoid = Callable[[GroupUid], frozenset[ClusterName]]


class Lineup:
    """Attributes to read: `waiting`, `worth`, `shy` (groups that avoid clusters now), `displaced` (those that move)."""

    def __init__(self) -> None:
        self.waiting = Waiting()
        self.worth = LearntWorth()
        self.shy: dict[GroupUid, frozenset[ClusterName]] = {}
        self.displaced: set[GroupUid] = set()
        self._touched: dict[GroupUid, None] | None = None  # since the last update; None: all are

    def folded(self, state: State, position: Position, record: AnyRecord) -> None:
        """Note whom a record may have made wait, or wait no longer. O(1)."""
        match record:
            case FenceDone() | ClusterFenced() | ClusterConfirmedDead():
                self._touched = None
            case Submitted():
                uid = group_uid(state.lineage, position)
                self._learn(state, uid)
                self.touch(uid)
            case Placed(uid=uid):
                self.touch(GroupUid(uid))
            case _:
                row = state.group(getattr(record, "uid", ""))
                if row is not None and (row.phase is Phase.PENDING or row.uid in self.waiting):
                    self.touch(row.uid)

    def touch(self, uid: GroupUid) -> None:
        """The group is looked at with the next update."""
        if self._touched is not None:
            self._touched[uid] = None

    def update(self, state: State, avoid: Avoid) -> None:
        """Bring the waiting groups in step with the state, and with what refusals still keep them from."""
        if self._touched is None:
            self.waiting = Waiting()
            self.shy.clear()
            self.displaced.clear()
            self._touched = {uid: None for _, _, uid in state.pending}
            if self.worth.empty:
                for uid in self._touched:
                    self._learn(state, uid)
        touched = {**dict.fromkeys(self.shy), **self._touched}
        self._touched.clear()
        for uid in touched:
            row = state.group(uid)
            if row is not None and row.phase is Phase.PENDING:
                self._wait(row, avoid(uid))
            else:
                self.waiting.remove(uid)
                self.shy.pop(uid, None)
                self.displaced.discard(uid)

    def _learn(self, state: State, uid: GroupUid) -> None:
        """What is asked for says which free parts of nodes are worth keeping."""
        row = state.group(uid)
        if row is not None:
            self.worth.asked(row.request)

    def _wait(self, row: GroupRow, avoid: frozenset[ClusterName]) -> None:
        self.waiting.put(pending_of(row, avoid))
        if avoid:
            self.shy[row.uid] = avoid
        else:
            self.shy.pop(row.uid, None)
        if row.displaced:
            self.displaced.add(row.uid)


def entry_start(position: Position) -> Position:
    """The first position of its entry: what one commit acknowledged is equally old."""
    return Position(position - position % POSITIONS_PER_ENTRY)


def pending_of(row: GroupRow, avoid: frozenset[ClusterName]) -> Pending:
    """The group as the engine sees it; never to the cluster that refused it last if another one fits."""
    return Pending(
        uid=row.uid,
        submitted_at=row.submitted_at,
        batch_at=entry_start(row.submitted_at),
        priority=row.priority,
        request=row.request,
        queue=row.queue,
        avoid=avoid,
        displaced=row.displaced,
        shunned=row.last_cluster if row.last_verdict is GiveUp.REFUSED else None,
    )
