"""Groups that fail wherever they go: what counts as a loss of their own, and how many are too many (DESIGN §11.5).

Counted from the group's own history, so that any leader comes to the same. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from federation.core.breaker import BINDING_FAILED, PROBER
from federation.core.history import RecordSummary
from federation.core.records import (
    AnyRecord,
    Bound,
    ClusterConfirmedDead,
    ClusterFenced,
    FenceDone,
    GaveUp,
    IntentSet,
    Placed,
    Quarantined,
    Running,
    Unheld,
)
from federation.core.rows import GiveUp, GroupRow, Intent
from placement.model import ClusterName, GroupUid, Position, Reason

RESTARTS_MAX: Final = 5  # DESIGN §11.5: who needs more needs a person
CLUSTERS_MAX: Final = 3  # L5: a poison group takes its fault to no more of them
LOOKED_UP_MAX: Final = 10_000  # groups; beyond it their histories are read again
WELL_MS: Final = 600_000  # who ran for ten minutes did not fail at once: what came before is forgiven

_REFUSED: Final = BINDING_FAILED | {Reason.TEMPLATE_REFUSED.code}


@dataclass(frozen=True, slots=True)
class Losses:
    """Homes that a group lost by itself, with nothing good between them. `clusters`: each once, the first one first."""

    count: int = 0
    clusters: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()  # of the last

    @property
    def too_many(self) -> bool:
        return self.count > RESTARTS_MAX


NONE: Final = Losses()
Ending = GaveUp | FenceDone | ClusterFenced | ClusterConfirmedDead | Unheld  # of a home


def is_loss(record: AnyRecord) -> bool:
    """Whether the group lost a home by itself: it could not be bound, or lost members. A lack of room, moves, drains,
    fences and people are no fault of it; whose containers end with an error has failed, and is not started again."""
    if not isinstance(record, GaveUp) or record.late:
        return False
    if record.verdict == GiveUp.REFUSED:
        return bool(_REFUSED.intersection(record.reasons))
    return record.verdict == GiveUp.RELEASED and Reason.MEMBER_LOST.code in record.reasons


def lost_last(row: GroupRow) -> bool:
    """Whether the group's last home was such a loss."""
    if row.last_verdict is GiveUp.REFUSED:
        return not _REFUSED.isdisjoint(row.last_reasons)
    return row.last_verdict is GiveUp.RELEASED and Reason.MEMBER_LOST.code in row.last_reasons


class LostHomes:
    """Who lost which homes by itself: read from the group's history once while its row stands, since whoever avoids a
    cluster is looked at in every cycle."""

    def __init__(self) -> None:
        self._known: dict[GroupUid, tuple[Position, Losses]] = {}

    def of(self, row: GroupRow) -> Losses:
        if row.attempts < CLUSTERS_MAX and not (row.attempts > 1 and lost_last(row)):
            return NONE  # the last one at most, which the row has; nothing is decided by others before there are three
        known = self._known.get(row.uid)
        if known is None or known[0] != row.changed_at:
            if len(self._known) >= LOOKED_UP_MAX:
                self._known.clear()
            known = self._known[row.uid] = row.changed_at, losses(row.history)
        return known[1]


def barred(row: GroupRow, lost: Losses, clusters: Collection[ClusterName]) -> frozenset[ClusterName]:
    """Of all `clusters`, those that the group may not go to any more: it has lost homes in as many others as there may
    be. Unless all of these have left the fleet: it could go nowhere, for ever."""
    if row.attempts < CLUSTERS_MAX or len(lost.clusters) < CLUSTERS_MAX:
        return frozenset()
    only = {ClusterName(name) for name in lost.clusters if name in clusters}
    return frozenset(clusters) - only if only else frozenset()


def failed_in(row: GroupRow, lost: Losses) -> tuple[ClusterName, ...]:
    """Clusters that the group should rather not go to: the last one first, if it refused or lost the group; then those
    where it lost homes by itself before."""
    last = row.last_cluster
    if last is None or (row.last_verdict is not GiveUp.REFUSED and not lost_last(row)):
        return ()
    return tuple(dict.fromkeys((last, *map(ClusterName, lost.clusters if lost_last(row) else ()))))


def losses(history: Iterable[RecordSummary]) -> Losses:
    """Those since the group was submitted, resumed or ran well. What a probe meets says nothing of the group: it went
    where most fail. O(records)."""
    found, began_ms, probe = NONE, 0, False
    for line in history:
        record = line.record
        if isinstance(record, Placed):
            began_ms, probe = 0, record.actor == PROBER
        elif isinstance(record, Bound | Running):
            began_ms = began_ms or record.at_ms
        elif isinstance(record, Quarantined) or (isinstance(record, IntentSet) and record.intent == Intent.RUN):
            found = NONE
        elif isinstance(record, Ending) and not (isinstance(record, GaveUp) and record.late):
            if began_ms and record.at_ms - began_ms >= WELL_MS:
                found = NONE
            began_ms = 0
            if isinstance(record, GaveUp) and is_loss(record) and not probe:
                clusters = dict.fromkeys((*found.clusters, record.cluster))
                found = Losses(found.count + 1, tuple(clusters), record.reasons)
    return found
