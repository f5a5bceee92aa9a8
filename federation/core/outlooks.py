"""What will be free in each cluster: its nodes as reported, less what was placed there and is not in a report yet.

Soft state of the leader, built on `views` and the homes of the state. Whether groups may go there at all is the gates'.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from federation.core.rows import ClusterRow, GroupRow
from federation.core.state import State
from federation.core.views import Views
from federation.protocol.messages import Stamp
from placement.assign import assign
from placement.assignment import Assignment
from placement.engine import Place
from placement.fleet import NodeTable
from placement.model import ClusterName, GroupUid, Position


@dataclass(slots=True)
class Outlook:
    """One cluster's nodes as they will be once everything placed there has arrived."""

    stamp: Stamp  # of the rows it was built on
    table: NodeTable
    counted: dict[GroupUid, Assignment | None]  # subtracted, in the order of their tokens; None: there was no room

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
        self._promised: set[GroupUid] = set()  # decided in the last cycle: their records may not have landed yet
        self.gains = 0  # grows whenever a cluster turns out to have gained room

    def of(self, state: State, row: ClusterRow) -> Outlook | None:
        """What will be free in the cluster; None without a report. Built on the newest report, and kept with it.

        A group keeps the nodes it was decided for as long as reports leave room for it there.
        """
        view = self._views.get(row.name)
        if view is None:
            return None
        unseen = [row.tokens[position] for position in _tokens_above(row, view.applied)]
        known = self._by_cluster.get(row.name)
        if known is not None and known.stamp == view.rows_stamp and self._counts(known, unseen):
            outlook = known
        else:  # a new report, or a group not yet in it has ended: its room is free again
            outlook = Outlook(view.rows_stamp, view.table().copy(), {})
        for uid in unseen[len(outlook.counted) :]:
            before = known.counted.get(uid) if known is not None else None
            outlook.counted[uid] = _subtract(outlook.table, state.groups[uid], before)
        if outlook is not known:
            self.gains += known is None or outlook.table.gained_room(known.table)
            self._by_cluster[row.name] = outlook
        return outlook

    def promise(self, decisions: Iterable[Place]) -> None:
        """What a cycle decided is no longer free, even before its records have landed."""
        self._promised.clear()
        for place in decisions:
            self._promised.add(place.uid)
            outlook = self._by_cluster[place.cluster]
            outlook.table.take_rows(place.choice.nodes, place.choice.amounts)
            outlook.counted[place.uid] = place.assignment

    def landed(self, uid: GroupUid) -> None:
        """The record of a decision is in the state: from here on its token counts."""
        self._promised.discard(uid)

    def forget(self, cluster: ClusterName) -> None:
        """A decision was not written down: begin anew with what is reported."""
        self._by_cluster.pop(cluster, None)

    def _counts(self, outlook: Outlook, unseen: list[GroupUid]) -> bool:
        """Whether what was subtracted is the beginning of `unseen`, or all of it and what is landing now."""
        counted = list(outlook.counted)
        common = min(len(counted), len(unseen))
        return counted[:common] == unseen[:common] and self._promised.issuperset(counted[common:])


def _tokens_above(row: ClusterRow, applied: int) -> tuple[Position, ...]:
    """Present tokens that the report does not show yet, in order. O(those)."""
    newest_first: list[Position] = []
    for position in reversed(row.tokens):
        if position <= applied:
            break
        newest_first.append(position)
    return tuple(reversed(newest_first))


def _subtract(table: NodeTable, group: GroupRow, before: Assignment | None) -> Assignment | None:
    """Take what the agent will take, `before` if it still can; what does not fit (any more) it will refuse."""
    if before is not None and table.take_if_free(before):
        return before
    assignment = assign(table, group.placed)
    if not isinstance(assignment, Assignment):
        return None
    table.take(assignment)
    return assignment
