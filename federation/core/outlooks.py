"""What will be free in each cluster: its nodes as reported, less what was placed there and is not in a report yet.

Soft state of the leader, built on `views` and the homes of the state. Whether groups may go there at all is the gates'.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from federation.core.rows import ClusterRow, GroupRow
from federation.core.state import State
from federation.core.views import Views
from federation.protocol.messages import Stamp
from placement.assign import assign_if_it_fits
from placement.assignment import Assignment
from placement.elastic import counts_of, joining, with_counts
from placement.engine import Place
from placement.fleet import NodeTable, UnknownDeviceError, UnknownNodeError, by_row
from placement.layout import Ints
from placement.model import ClusterName, GangRequest, GroupUid, Position


class Claim(NamedTuple):
    """What is not in a report yet: a placement, or pods that join one."""

    uid: GroupUid
    grows: bool = False


class Held(NamedTuple):
    """What an assignment takes from which rows of a table, each named once: true as long as the table has this `total`,
    which is another one as soon as a node comes, goes, moves or has other amounts."""

    assignment: Assignment
    total: Ints
    rows: Ints
    amounts: Ints


@dataclass(slots=True)
class Outlook:
    """One cluster's nodes as they will be once everything placed there has arrived."""

    stamp: Stamp  # of the rows it was built on
    table: NodeTable
    counted: dict[Claim, Held | None]  # subtracted, in the order of their positions; None: there was no room

    @property
    def behind(self) -> bool:
        """Whether something placed there found no room: the report shows part of what was placed above `applied`, or
        the agent will refuse it. Until it says which, what looks free may be taken."""
        return None in self.counted.values()


class Outlooks:
    """One per cluster; each is kept until its report or its homes change."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._by_cluster: dict[ClusterName, Outlook] = {}
        self._promised: set[Claim] = set()  # decided in the last cycle: their records may not have landed yet
        self.gains = 0  # grows whenever a cluster turns out to have gained room

    def of(self, state: State, row: ClusterRow) -> Outlook | None:
        """What will be free in the cluster; None without a report. Built on the newest report, and kept with it.

        A group keeps the nodes it was decided for as long as reports leave room for it there.
        """
        view = self._views.get(row.name)
        if view is None:
            return None
        unseen = _unseen(state, row, view.applied)
        known = self._by_cluster.get(row.name)
        if known is not None and known.stamp == view.rows_stamp and self._counts(known, unseen):
            outlook = known
        else:  # a new report, or a group not yet in it has ended: its room is free again
            outlook = Outlook(view.rows_stamp, view.table().copy(), {})
        for claim in unseen[len(outlook.counted) :]:
            asked = _asked(state.groups[claim.uid], view.applied, grows=claim.grows)
            assert asked is not None, "what joins nothing is no claim"
            before = known.counted.get(claim) if known is not None else None
            outlook.counted[claim] = _subtract(outlook.table, asked, before)
        if outlook is not known:
            self.gains += known is None or outlook.table.gained_room(known.table)
            self._by_cluster[row.name] = outlook
        return outlook

    def promise(self, decisions: Iterable[Place]) -> None:
        """What a cycle decided is no longer free, even before its records have landed."""
        self._promised.clear()
        for place in decisions:
            self._promised.add(Claim(place.uid))
            outlook, choice = self._by_cluster[place.cluster], place.choice
            outlook.table.take_rows(choice.nodes, choice.amounts)
            held = Held(place.assignment, outlook.table.total, choice.nodes, choice.amounts)
            outlook.counted[Claim(place.uid)] = held

    def promise_growth(self, uid: GroupUid, cluster: ClusterName, joining: Assignment) -> bool:
        """The same of pods that are to join a group; False where an earlier resize of it is not in a report yet."""
        outlook, claim = self._by_cluster[cluster], Claim(uid, grows=True)
        if claim in outlook.counted:
            return False
        self._promised.add(claim)
        held = _held(outlook.table, joining)
        outlook.table.take_rows(held.rows, held.amounts)
        outlook.counted[claim] = held
        return True

    def resized(self, uid: GroupUid, cluster: ClusterName) -> None:
        """A resize is in the state: from here on it counts. One that was not promised is worked out anew."""
        claim = Claim(uid, grows=True)
        if claim not in self._promised:
            self.forget(cluster)
        self._promised.discard(claim)

    def landed(self, uid: GroupUid) -> None:
        """The record of a decision is in the state: from here on its token counts."""
        self._promised.discard(Claim(uid))

    def forget(self, cluster: ClusterName) -> None:
        """A decision was not written down: begin anew with what is reported."""
        self._by_cluster.pop(cluster, None)

    def _counts(self, outlook: Outlook, unseen: list[Claim]) -> bool:
        """Whether what was subtracted is the beginning of `unseen`, or all of it and what is landing now."""
        counted = list(outlook.counted)
        common = min(len(counted), len(unseen))
        return counted[:common] == unseen[:common] and self._promised.issuperset(counted[common:])


def _unseen(state: State, row: ClusterRow, applied: int) -> list[Claim]:
    """The placements and resizes that take what the report does not show yet, in order. O(those)."""
    found = [(position, Claim(uid)) for position, uid in _above(row.tokens, applied)]
    for position, uid in _above(row.resizes, applied):
        if _asked(state.groups[uid], applied, grows=True) is not None:
            found.append((position, Claim(uid, grows=True)))
    return [claim for _, claim in sorted(found)]


def _above(feed: dict[Position, GroupUid], applied: int) -> Iterator[tuple[Position, GroupUid]]:
    for position in reversed(feed):
        if position <= applied:
            return
        yield position, feed[position]


def _asked(group: GroupRow, applied: int, *, grows: bool) -> GangRequest | None:
    """What the agent will take for it and the report does not show; None for nothing. Where a resize is not shown, what
    was there before it counts to the placement, and what joins to the resize: the larger of both sizes."""
    sizing = group.sizing
    if sizing is None or sizing.at <= applied:
        return group.placed
    before = with_counts(group.request, sizing.before) or group.request
    return joining(group.request, counts_of(before), counts_of(group.placed)) if grows else before


def _subtract(table: NodeTable, request: GangRequest, before: Held | None) -> Held | None:
    """Take what the agent will take, as `before` if it still can; what does not fit (any more) it will refuse."""
    if before is not None:
        again = before if before.total is table.total else _held_again(table, before.assignment)
        if again is not None and table.take_rows_if_free(again.rows, again.amounts):
            return again
    assignment = assign_if_it_fits(table, request)
    if assignment is None:
        return None
    held = _held(table, assignment)
    table.take_rows(held.rows, held.amounts)
    return held


def _held(table: NodeTable, assignment: Assignment) -> Held:
    """What the assignment takes from this table. UnknownNodeError, UnknownDeviceError where that is not there."""
    rows, amounts = table.amounts_of(assignment)
    return Held(assignment, table.total, *by_row(rows, amounts))


def _held_again(table: NodeTable, assignment: Assignment) -> Held | None:
    """The same for an assignment made on an earlier state of the cluster."""
    try:
        return _held(table, assignment)
    except (UnknownNodeError, UnknownDeviceError):
        return None
