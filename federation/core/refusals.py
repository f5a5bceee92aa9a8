"""Which clusters refused which groups lately, with decay. The leader's memory only; a new leader starts afresh, but
for each group's last refusal, which is in the state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

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
    """(group, cluster) pairs to avoid for a while: 10 s after the first refusal, doubled by each further one."""

    def __init__(self) -> None:
        self._by_group: dict[GroupUid, dict[ClusterName, _Refusal]] = {}

    def refused(self, uid: GroupUid, cluster: ClusterName, now_s: float) -> None:
        known = self._by_group.setdefault(uid, {})
        before = known.get(cluster)
        count = before.count + 1 if before is not None else 1
        doublings = min(count - 1, DOUBLINGS_MAX)
        known[cluster] = _Refusal(count, now_s + min(AVOID_FIRST_S * 2**doublings, AVOID_MAX_S))
        while len(self._by_group) > REMEMBERED_MAX:
            del self._by_group[next(iter(self._by_group))]

    def forget(self, uid: GroupUid) -> None:
        self._by_group.pop(uid, None)

    def avoid(self, uid: GroupUid, now_s: float) -> frozenset[ClusterName]:
        """Clusters that get nothing of this group now."""
        known = self._by_group.get(uid)
        if known is None:
            return frozenset()
        return frozenset(cluster for cluster, refusal in known.items() if now_s < refusal.until_s)

    def next_decay_s(self, uid: GroupUid, now_s: float) -> float:
        """When the next of them may be tried again; infinite if none is avoided."""
        known = self._by_group.get(uid, {})
        return min((one.until_s for one in known.values() if now_s < one.until_s), default=float("inf"))
