"""Which groups that run with fewer pods than they may have get more, in a cycle that leaves nobody waiting for room.

Pure, but for what `take` notes. Whether the pods find room is for the group's agent to say; whom it told no is left
alone for a while (`refusals`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from federation.core.batch import Batch
from federation.core.records import Resized
from federation.core.resizes import at_most_of, not_ready
from federation.core.rows import GroupRow, pending_key
from federation.core.state import State
from placement.assign import assign_if_it_fits
from placement.assignment import Assignment
from placement.elastic import counts_of, largest_growth, sizes_of
from placement.engine import Pending
from placement.filters import cluster_refusal
from placement.fleet import ClusterView, Fleet, NodeTable
from placement.model import ClusterName, GangRequest
from placement.node_order import NodeWorth

ACTOR: Final = "muster:placer"
GROWTHS_PER_CYCLE_MAX: Final = 16  # each takes nodes from a table that the next cycle looks at anew
TRIES_PER_CYCLE_MAX: Final = 128  # groups looked at, with some assignments each: what comes next does not wait for long
WAITING_KINDS_MAX: Final = 64  # with more kinds of groups waiting, room is not idle: nobody asks about each of them
LOOKS_PER_CYCLE_MAX: Final = 256  # whether a kind could use a cluster: as many assignments

Taken = Callable[[GroupRow, Assignment], bool]
"""Note what a group takes more; False where it has to wait for the next cycle."""


def growable(state: State, batch: Batch, avoids: Callable[[GroupRow], bool]) -> list[GroupRow]:
    """Groups that may have more pods where they are, by priority, then age. O(groups at home with fewer than all)."""
    rows = (state.groups[uid] for uid in state.small)
    return sorted((row for row in rows if _may_grow(state, batch, row) and not avoids(row)), key=pending_key)


Grown = tuple[tuple[int, ...], Assignment]
"""The pods of each role, and the nodes of those that join."""


@dataclass(frozen=True, slots=True)
class _Looked:
    """What was found in a cluster while it stood so, by what a group is, has and may have: not more than there are
    groups at home."""

    table: NodeTable
    version: int
    worth: NodeWorth | None
    found: dict[tuple[GangRequest, tuple[int, ...], tuple[int, ...]], Grown | None] = field(default_factory=dict)

    def stands(self, table: NodeTable, worth: NodeWorth | None) -> bool:
        return self.table is table and self.version == table.version and self.worth is worth


class Looks:
    """How far groups could grow, asked anew only after their cluster has changed: most cycles are for others' sake, and
    most groups that are not whole find no room in any of them."""

    def __init__(self) -> None:
        self._by_cluster: dict[ClusterName, _Looked] = {}

    def keep(self, clusters: Iterable[ClusterName]) -> None:
        """Those of other clusters go, and with them their tables."""
        known = self._by_cluster
        self._by_cluster = {name: known[name] for name in dict.fromkeys(clusters) if name in known}

    def growth(self, row: GroupRow, view: ClusterView, worth: NodeWorth | None) -> Grown | None:
        """The most that any domain of its levels has room for. In which one it stands only its agent knows, which has
        said that there is room, and binds as many of these as fit (`placement.joining`)."""
        table, looked = view.table, self._by_cluster.get(view.name)
        if looked is None or not looked.stands(table, worth):
            looked = self._by_cluster[view.name] = _Looked(table, table.version, worth)
        asked = row.request, counts_of(row.placed), at_most_of(row)
        if asked not in looked.found:
            looked.found[asked] = largest_growth(*asked, lambda more: assign_if_it_fits(table, more, worth))
        return looked.found[asked]


class Growths(NamedTuple):
    """`passed`: how many were looked at in vain, so that the next cycle begins behind them; None where it was all."""

    resizes: list[Resized]
    passed: int | None


def growths(
    rows: Sequence[GroupRow],
    fleet: Fleet,
    waiting: Sequence[Pending],
    look: Callable[[GroupRow, ClusterView], Grown | None],
    take: Taken,
) -> Growths:
    """The resizes of one cycle, without time and report, each as large as the free nodes of its cluster allow.

    `waiting`: one group of each kind that found no place. Of `rows` the first `TRIES_PER_CYCLE_MAX` are looked at.
    """
    found: list[Resized] = []
    idle: dict[ClusterName, bool] = {}
    passed = 0
    if len(waiting) > WAITING_KINDS_MAX:
        return Growths(found, None)
    for row in rows[:TRIES_PER_CYCLE_MAX]:
        assert row.home is not None
        view = fleet.get(row.home.cluster)
        grown = None
        if view is not None and _is_open(view) and idle.get(view.name, True):
            grown = look(row, view)
        if view is None or grown is None:
            passed += 1
            continue
        if view.name not in idle:
            if (len(idle) + 1) * len(waiting) > LOOKS_PER_CYCLE_MAX:
                return Growths(found, passed)
            idle[view.name] = not any(could_use(view, item) for item in waiting)
        if not (idle[view.name] and take(row, grown[1])):
            passed += 1
            continue
        found.append(_resized(row, grown[0]))
        if len(found) == GROWTHS_PER_CYCLE_MAX:
            return Growths(found, passed)
    return Growths(found, passed if len(rows) > TRIES_PER_CYCLE_MAX else None)


def could_use(view: ClusterView, item: Pending) -> bool:
    """Whether the group that waits could ever be here: its own wishes do not keep it away, and it fits where all is
    free."""
    if cluster_refusal(view, item, lasting_only=True) is not None:
        return False
    table = view.table
    emptied = NodeTable(table.layout, table.total.copy(), table.total, table.usable)
    return assign_if_it_fits(emptied, sizes_of(item.request).smallest) is not None


def _may_grow(state: State, batch: Batch, row: GroupRow) -> bool:
    if row.resizing or not_ready(state, row) or batch.changes("group", row.uid):
        return False
    return at_most_of(row) != counts_of(row.placed)


def _resized(row: GroupRow, counts: tuple[int, ...]) -> Resized:
    assert row.home is not None
    return Resized(
        actor=ACTOR,
        uid=row.uid,
        token=str(row.home.token),
        cluster=row.home.cluster,
        counts=counts,
        at_most=row.sizing.at_most if row.sizing is not None else (),
    )


def _is_open(view: ClusterView) -> bool:
    failing = view.tripped or view.half_open
    return view.admitted and not (view.cordoned or view.silent or view.fenced or view.stale or failing)


def kinds_of(waiting: Iterable[Pending]) -> tuple[Pending, ...]:
    """The first of them, and one more than matter."""
    found: list[Pending] = []
    for item in waiting:
        found.append(item)
        if len(found) > WAITING_KINDS_MAX:
            break
    return tuple(found)
