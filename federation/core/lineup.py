"""The groups that wait for a home, kept in step with the fold, and what their arrivals teach about nodes.

Whoever leads has one for the placer; a replay has one per leader, and folds the same records into it. Which clusters a
group avoids is told by whoever remembers refusals.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace

from federation.core.poison import NONE, Losses, LostHomes, failed_in
from federation.core.records import (
    AnyRecord,
    ChildOf,
    ClusterConfirmedDead,
    ClusterFenced,
    FenceDone,
    Placed,
    Submitted,
    SubmittedChild,
)
from federation.core.rows import GroupRow
from federation.core.spreads import ask_of, first_uid, request_of_child, undivided
from federation.core.state import State
from placement.engine import Pending, order_key
from placement.explain import Ahead
from placement.model import ClusterName, GroupUid, Phase, Position, group_uid
from placement.node_order import LearntWorth
from placement.spread import sized
from placement.waiting import Waiting
from storage.entry import POSITIONS_PER_ENTRY

Avoid = Callable[[GroupUid], frozenset[ClusterName]]


class Lineup:
    """Attributes to read: `waiting`, `worth`, `shy` (groups that avoid clusters now), `displaced` (those that move),
    `lost` (homes)."""

    def __init__(self) -> None:
        self.waiting = Waiting()
        self.worth = LearntWorth()
        self.shy: dict[GroupUid, frozenset[ClusterName]] = {}
        self.displaced: set[GroupUid] = set()
        self.lost = LostHomes()
        self._touched: dict[GroupUid, None] | None = None  # since the last update; None: all are

    def folded(self, state: State, position: Position, record: AnyRecord) -> None:
        """Note whom a record may have made wait, or wait no longer. O(1)."""
        match record:
            case FenceDone() | ClusterFenced() | ClusterConfirmedDead():
                self._touched = None
            case Submitted() | SubmittedChild():
                uid = group_uid(state.lineage, position)
                self._learn(state, uid)
                self.touch(uid)
            case Placed(uid=uid):
                self.touch(GroupUid(uid))
            case _:
                row = state.group(getattr(record, "uid", ""))
                if row is not None and (row.phase is Phase.PENDING or row.uid in self.waiting or row.child is not None):
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
        spreads: dict[GroupUid, GroupRow] = {}
        for uid in touched:
            row = state.group(uid)
            if row is None or row.phase is not Phase.PENDING:
                self._wait_no_longer(uid)  # by itself: a child may not find its siblings, once others have their name
            if row is not None and row.child is not None:
                spreads[first_uid(row.uid, row.child.number)] = row
            elif row is not None and row.phase is Phase.PENDING:
                self._wait(row, avoid(uid))
        for row in spreads.values():
            self._update_children(state.siblings(row), avoid)

    def _update_children(self, children: Sequence[GroupRow], avoid: Avoid) -> None:
        """Those of a spread group wait as one until they are divided, then each by itself, away from the others."""
        together = undivided(children)
        for number, row in enumerate(children):
            waits = row.phase is Phase.PENDING and not (together and number)
            if not waits:
                self._wait_no_longer(row.uid)
            else:
                self._wait(row, avoid(row.uid), children)

    def _wait_no_longer(self, uid: GroupUid) -> None:
        self.waiting.remove(uid)
        self.shy.pop(uid, None)
        self.displaced.discard(uid)

    def _learn(self, state: State, uid: GroupUid) -> None:
        """What is asked for says which free parts of nodes are worth keeping."""
        row = state.group(uid)
        if row is not None:
            self.worth.asked(row.request)

    def _wait(self, row: GroupRow, avoid: frozenset[ClusterName], children: Sequence[GroupRow] = ()) -> None:
        self.waiting.put(pending_of(row, avoid, self.lost.of(row), children))
        if avoid:
            self.shy[row.uid] = avoid
        else:
            self.shy.pop(row.uid, None)
        if row.displaced:
            self.displaced.add(row.uid)


def entry_start(position: Position) -> Position:
    """The first position of its entry: what one commit acknowledged is equally old."""
    return Position(position - position % POSITIONS_PER_ENTRY)


def ahead_of(state: State, row: GroupRow) -> Ahead:
    """Who is served before it: all of higher priority or of an earlier entry, and the larger ones of its own entry.

    O(one look at each of them): nobody's request is read but those of its own entry.
    """
    start = entry_start(row.submitted_at)
    first = bisect_left(state.pending, (-row.priority, start, GroupUid("")))
    end = bisect_left(state.pending, (-row.priority, Position(start + POSITIONS_PER_ENTRY), GroupUid("")))
    own = order_key(_pending_in(state, row))
    before = [state.groups[uid] for _, _, uid in state.pending[:first]]
    equals = [state.groups[uid] for _, _, uid in state.pending[first:end]]
    before += [one for one in equals if order_key(_pending_in(state, one)) < own]
    counted = [one.queue for one in before if one.child is None or not _waits_with_first(state, one, one.child)]
    return Ahead(len(counted), counted.count(row.queue))


def _waits_with_first(state: State, row: GroupRow, child: ChildOf) -> bool:
    """The children of a group that is not divided yet wait as one."""
    return child.number > 1 and undivided(state.siblings(row))


def _pending_in(state: State, row: GroupRow) -> Pending:
    return pending_of(row, frozenset(), NONE, state.siblings(row) if row.child is not None else ())


def pending_of(
    row: GroupRow, avoid: frozenset[ClusterName], lost: Losses, children: Sequence[GroupRow] = ()
) -> Pending:
    """The group as the engine sees it; rather not to a cluster that failed it.

    `children` are a child and its siblings: undivided ones are seen as one, whichever of them is asked for.
    """
    item = Pending(
        uid=row.uid,
        submitted_at=row.submitted_at,
        batch_at=entry_start(row.submitted_at),
        priority=row.priority,
        request=row.request,
        queue=row.queue,
        avoid=avoid,
        displaced=row.displaced,
        shunned=failed_in(row, lost),
        beside=row.beside,
    )
    if row.child is None:
        return item
    if undivided(children):
        ask, first = ask_of(children), children[0]
        return replace(
            item, uid=first.uid, submitted_at=first.submitted_at, request=sized(row.request, ask.least), spread=ask
        )
    homes = [sibling.home.cluster for sibling in children if sibling.home is not None and sibling is not row]
    siblings = first_uid(row.uid, row.child.number)
    return replace(item, request=request_of_child(row), siblings=siblings, apart=frozenset(homes))
