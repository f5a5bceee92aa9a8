"""Which clusters refused which groups lately, and which groups lost homes by themselves, with decay.

The leader's memory only; a new leader starts afresh, but for each group's last refusal, which is in the state, and for
the clusters where it lost homes, which are in its history: who waits between two tries begins that wait anew.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from federation.core.poison import Losses
from placement.model import ClusterName, GroupUid

AVOID_FIRST_S: Final = 10.0  # DESIGN §11.5: back-off 10 s ...
AVOID_MAX_S: Final = 300.0  # ... to 5 min
DOUBLINGS_MAX: Final = 5  # 10 s so often doubled is more than that; a thousand times is more than a float holds
REMEMBERED_MAX: Final = 100_000  # groups; beyond it the oldest are forgotten, which costs a repeated refusal at worst


@dataclass(slots=True)
class _Refusal:
    count: int
    until_s: float


class Refusals:
    """(group, cluster) pairs to avoid for a while: 10 s after the first refusal, doubled by each further one. A group
    that lost two homes or more in a row by itself waits as long before it goes anywhere."""

    def __init__(self) -> None:
        self._by_group: dict[GroupUid, dict[ClusterName, _Refusal]] = {}
        self._waits_until_s: dict[GroupUid, float] = {}

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
        self._waits_until_s.pop(uid, None)
        self._waits_until_s[uid] = now_s + _wait_s(losses.count - 1)
        while len(self._waits_until_s) > REMEMBERED_MAX:
            del self._waits_until_s[next(iter(self._waits_until_s))]

    def forget(self, uid: GroupUid) -> None:
        self._by_group.pop(uid, None)
        self._waits_until_s.pop(uid, None)

    def avoid(
        self, uid: GroupUid, now_s: float, clusters: Collection[ClusterName] = frozenset()
    ) -> frozenset[ClusterName]:
        """Of all `clusters`, those that get nothing of this group now."""
        if now_s < self._waits_until_s.get(uid, now_s):
            return frozenset(clusters)
        known = self._by_group.get(uid)
        if known is None:
            return frozenset()
        return frozenset(cluster for cluster, refusal in known.items() if now_s < refusal.until_s)

    def next_decay_s(self, uid: GroupUid, now_s: float) -> float:
        """When the next of them may be tried again; infinite if none is avoided."""
        ends = [one.until_s for one in self._by_group.get(uid, {}).values()]
        ends.append(self._waits_until_s.get(uid, now_s))
        return min((end for end in ends if now_s < end), default=float("inf"))


def _wait_s(count: int) -> float:
    """After so many failures."""
    doublings = min(count - 1, DOUBLINGS_MAX)
    return min(AVOID_FIRST_S * float(2**doublings), AVOID_MAX_S)
