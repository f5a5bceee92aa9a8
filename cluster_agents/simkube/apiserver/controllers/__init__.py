"""The controllers of the simulated cluster: Jobs, garbage collection, namespaces, node lifecycle, event expiry.

Each observes changes, marks what is dirty, and acts only when stepped. None reads a clock.
"""

from typing import Final, Protocol

from cluster_agents.simkube.apiserver.controllers.garbage import Garbage
from cluster_agents.simkube.apiserver.controllers.job_controller import JobController
from cluster_agents.simkube.apiserver.controllers.node_lifecycle import NodeLifecycle
from cluster_agents.simkube.apiserver.controllers.tidy import EventExpiry, Namespaces
from cluster_agents.simkube.apiserver.store import Change, Store

ROUNDS_MAX: Final = 1_000  # controllers feed one another (job -> pods -> garbage); more rounds would be a loop


class Controller(Protocol):
    """What every controller offers."""

    def observe(self, change: Change) -> None:
        """Note what the change makes dirty. Writes nothing."""

    def step(self, now_s: float) -> None:
        """Do all that is due."""

    @property
    def wake_at_s(self) -> float | None:
        """When `step` is due without any further change; a past time means now, None never."""


class Controllers:
    """All controllers of one store."""

    def __init__(self, store: Store, job_back_off_s: float) -> None:
        self._store = store
        self.node_lifecycle = NodeLifecycle(store)
        self._all: tuple[Controller, ...] = (
            JobController(store, job_back_off_s),
            Garbage(store),
            Namespaces(store),
            self.node_lifecycle,
            EventExpiry(store),
        )

    def observe(self, change: Change) -> None:
        """Show a change to each."""
        for controller in self._all:
            controller.observe(change)

    @property
    def wake_at_s(self) -> float | None:
        """The earliest wish of any."""
        wishes = [at_s for controller in self._all if (at_s := controller.wake_at_s) is not None]
        return min(wishes, default=None)

    def step(self, now_s: float) -> None:
        """One round: let each do what is due. What they write must be observed before the next round."""
        for controller in self._all:
            at_s = controller.wake_at_s
            if at_s is not None and at_s <= now_s:
                controller.step(now_s)
