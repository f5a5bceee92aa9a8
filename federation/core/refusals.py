"""Which clusters refused which groups lately, and which groups lost homes by themselves, with decay.

The leader's memory only; a new leader starts afresh, but for each group's last refusal, which is in the state, and for
what a group lost, which is in its history.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from federation.core.poison import CLUSTERS_MAX, Losses
from placement.model import ClusterName, GroupUid

AVOID_FIRST_S: Final = 10.0  # DESIGN §11.5: back-off 10 s ...
AVOID_MAX_S: Final = 300.0  # ... to 5 min
DOUBLINGS_MAX: Final = 5  # 10 s so often doubled is more than that; a thousand times is more than a float holds
REMEMBERED_MAX: Final = 100_000  # groups; beyond it the oldest are forgotten, which costs a repeated refusal at worst


@dataclass(slots=True)
class _Refusal:
    count: int
    until_s: float


@dataclass(frozen=True, slots=True)
class _Lost:
    until_s: float  # until then no cluster is tried
    only: frozenset[ClusterName] | None  # and later these, if there were as many as there may be


class Refusals:
    """(group, cluster) pairs to avoid for a while: 10 s after the first refusal, doubled by each further one. A group
    that lost two homes or more in a row by itself waits as long before it goes anywhere, and to no fourth cluster."""

    def __init__(self) -> None:
        self._by_group: dict[GroupUid, dict[ClusterName, _Refusal]] = {}
        self._lost: dict[GroupUid, _Lost] = {}

    def refused(self, uid: GroupUid, cluster: ClusterName, now_s: float) -> None:
        known = self._by_group.setdefault(uid, {})
        before = known.get(cluster)
        count = before.count + 1 if before is not None else 1
        known[cluster] = _Refusal(count, now_s + _wait_s(count))
        while len(self._by_group) > REMEMBERED_MAX:
            del self._by_group[next(iter(self._by_group))]

    def lost(self, uid: GroupUid, losses: Losses, now_s: float) -> None:
        """The group lost a home by itself. The first time it may go elsewhere at once."""
        if losses.count < 2:
            return
        clusters = frozenset(map(ClusterName, losses.clusters))
        self._lost.pop(uid, None)
        self._lost[uid] = _Lost(now_s + _wait_s(losses.count - 1), clusters if len(clusters) >= CLUSTERS_MAX else None)
        while len(self._lost) > REMEMBERED_MAX:
            del self._lost[next(iter(self._lost))]

    def forget(self, uid: GroupUid) -> None:
        self._by_group.pop(uid, None)
        self._lost.pop(uid, None)

    def avoid(
        self, uid: GroupUid, now_s: float, clusters: Collection[ClusterName] = frozenset()
    ) -> frozenset[ClusterName]:
        """Of all `clusters`, and of those that refused it, the ones that get nothing of this group now."""
        known, lost = self._by_group.get(uid), self._lost.get(uid)
        if known is None and lost is None:
            return frozenset()
        refused = (cluster for cluster, refusal in (known or {}).items() if now_s < refusal.until_s)
        if lost is None:
            return frozenset(refused)
        spared = clusters if now_s < lost.until_s else frozenset(clusters) - (lost.only or frozenset(clusters))
        return frozenset((*refused, *spared))

    def next_decay_s(self, uid: GroupUid, now_s: float) -> float:
        """When the next of them may be tried again; infinite if none is avoided for a while."""
        ends = [one.until_s for one in self._by_group.get(uid, {}).values()]
        if uid in self._lost:
            ends.append(self._lost[uid].until_s)
        return min((end for end in ends if now_s < end), default=float("inf"))


def _wait_s(count: int) -> float:
    """After so many failures."""
    doublings = min(count - 1, DOUBLINGS_MAX)
    return min(AVOID_FIRST_S * float(2**doublings), AVOID_MAX_S)
