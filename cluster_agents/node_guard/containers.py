"""The containers of ours on one node: which may start, and which get which signal now. Pure.

A container of ours is one whose pod has the label `muster.io/token`; the rules are those of `core.guard`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from cluster_agents.core.guard import Guard
from placement.model import GRACE_S_MAX

FORGOTTEN_AFTER_S: Final = 300.0
"""Of a container that was stopped and has no process: a runtime's start takes 120 s at most until it has one."""

CONTAINERS_MAX: Final = 4_096
"""Of ours on one node, ten times what a kubelet runs; a runtime that tells of more is refused their starts."""

GRACE_S_DEFAULT: Final = 30.0  # Kubernetes' own


class Container(msgspec.Struct, frozen=True, array_like=True):
    """One that the runtime has told of. `pod` is `<namespace>/<name>`; `note` the file on the node from which its
    kubelet reads its termination message, or empty."""

    id: str
    token: str
    pod: str
    grace_s: float = GRACE_S_DEFAULT
    note: str = ""

    def __post_init__(self) -> None:
        assert 0 <= self.grace_s <= GRACE_S_MAX


@dataclass(frozen=True, slots=True)
class Stop:
    """What is due for one container: asked to end, or ended."""

    container: Container
    kill: bool


class Containers:
    """What the guard knows of its node. `known` and `stopping` came from an earlier start of the same guard: the latter
    ids, with the time since when they have been asked to end."""

    __slots__ = ("_by_id", "_guard", "_stopping_since_s")

    def __init__(
        self, guard: Guard, known: Iterable[Container] = (), stopping: Mapping[str, float] | None = None
    ) -> None:
        self._guard = guard
        self._by_id = {container.id: container for container in known}
        self._stopping_since_s = dict(stopping or {})
        self._forget_gone(self._by_id.keys())

    @property
    def known(self) -> tuple[Container, ...]:
        """In order of their ids."""
        return tuple(self._by_id[one] for one in sorted(self._by_id))

    def knows(self, container_id: str) -> bool:
        return container_id in self._by_id

    @property
    def stopping(self) -> dict[str, float]:
        """The ids of those that have been asked to end and are not gone, and since when."""
        return dict(self._stopping_since_s)

    def listed(self, found: Iterable[Container]) -> None:
        """All that there are, by the runtime. Whoever was being stopped still is."""
        self._by_id = {container.id: container for container in found}
        self._forget_gone(self._by_id.keys())

    def may_start(self, container: Container, now_s: float) -> bool:
        """Leave to start, at most until the deadline. From then on it is known, whatever becomes of it."""
        full = len(self._by_id) >= CONTAINERS_MAX and container.id not in self._by_id
        if full or not self._guard.may_start(container.token, now_s):
            return False
        self._by_id[container.id] = container
        return True

    def ended(self, container_ids: Iterable[str], now_s: float) -> None:
        """No process of these was found. One that was about to start when the lease ran out may have one yet, so that
        they are looked for a while longer."""
        for one in container_ids:
            if now_s >= self._stopping_since_s.get(one, now_s) + FORGOTTEN_AFTER_S:
                self.gone(one)

    def gone(self, container_id: str) -> None:
        self._by_id.pop(container_id, None)
        self._stopping_since_s.pop(container_id, None)

    def stops(self, now_s: float) -> tuple[Stop, ...]:
        """Whom to stop now. Who was asked to end is ended when its grace is over, whatever is heard meanwhile: half of
        a gang is of no use to anybody."""
        due = frozenset(self._guard.due(now_s, (container.token for container in self._by_id.values())))
        for container in self._by_id.values():
            if container.token in due:
                self._stopping_since_s.setdefault(container.id, now_s)
        return tuple(
            Stop(self._by_id[one], now_s >= since_s + self._by_id[one].grace_s)
            for one, since_s in sorted(self._stopping_since_s.items())
        )

    def _forget_gone(self, left: Iterable[str]) -> None:
        self._stopping_since_s = {one: self._stopping_since_s[one] for one in left if one in self._stopping_since_s}
