"""Clusters that leave the fleet: of those without power that somebody vouched for, every second one is removed, and
joins again when its power is back. Nobody draws here: other faults strike as they did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from federation.core.events import Accepted, Declined, RemoveCluster

if TYPE_CHECKING:
    from tests.world.world import World


class Leaving:
    """`count`: how many clusters were removed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._vouched_count = 0
        self._requests = 0
        self._asked: set[str] = set()  # no answer yet
        self._powered: set[str] = set()  # of those: whose power is back
        self._left: set[str] = set()  # ever
        self.count = 0

    def has_left(self, cluster: str) -> bool:
        """Whether it was ever removed, or may have been: it is not known what became of the request."""
        return cluster in self._left or cluster in self._asked

    def vouched(self, cluster: str) -> None:
        """It is confirmed dead."""
        self._vouched_count += 1
        if self._vouched_count % 2 and cluster not in self._asked:
            self._asked.add(cluster)
            request = RemoveCluster(cluster, "power is off", self._request_id("remove", cluster), "olga")
            self._world.client.ask(request, lambda answer: self._answered(cluster, answer))

    def powered(self, cluster: str) -> None:
        """Its power is back: who is asked to remove it is answered first, else it would be gone after it has joined."""
        if cluster in self._asked:
            self._powered.add(cluster)
        elif cluster in self._left:
            self._join(cluster)

    def recovered(self) -> None:
        """The backup may be from when they were gone."""
        for cluster in sorted(self._left - self._asked):
            self._join(cluster)

    def _answered(self, cluster: str, answer: Accepted | Declined) -> None:
        """Refused is one that was admitted again meanwhile, or that a restored fleet has not heard yet."""
        self._asked.discard(cluster)
        if isinstance(answer, Accepted):
            self._left.add(cluster)
            self.count += 1
            self._world.trace.note(self._world.scheduler.now_s, "fault", "cluster removed", cluster)
        if cluster in self._powered:
            self._powered.discard(cluster)
            if cluster in self._left:
                self._join(cluster)

    def _join(self, cluster: str) -> None:
        self._world.join(cluster, self._request_id("join-again", cluster))

    def _request_id(self, what: str, cluster: str) -> str:
        self._requests += 1
        return f"{what}-{self._requests}-{cluster}"
