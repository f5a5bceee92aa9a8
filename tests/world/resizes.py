"""Somebody who gives elastic groups other sizes, at drawn times, through faults like everybody else."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from federation.core.events import Accepted, Declined, Refused, ResizeGroup
from tests.world.draw import GroupShape, ResizeShape
from tests.world.violation import ViolationError

if TYPE_CHECKING:
    from tests.world.world import World

# What a wish may meet: another wish, a group that stopped or ended meanwhile, one whose pods must stand together.
ALLOWED: Final = frozenset({Refused.NOT_RESIZABLE, Refused.RESIZING, Refused.GROUP_FINISHED})


class Resizer:
    """Its wishes are drawn before the run; whom they concern depends on who runs then."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._shapes = {f"submit-{shape.name}": shape for shape in world.setting.groups if shape.elastic}
        self._count = 0

    def schedule(self) -> None:
        for wish in self._world.setting.resizes:
            self._world.scheduler.at(wish.at_s, self._ask, wish)

    def _ask(self, wish: ResizeShape) -> None:
        running = self._running()
        if not running:
            return
        uid, shape = running[int(wish.group * len(running))]
        count = shape.min_count + int(wish.size * (shape.pods - shape.min_count + 1))
        self._count += 1
        request = ResizeGroup(uid, "", count, f"resize-{self._count}", "alice")
        self._world.client.ask(request, partial(self._done, uid))

    def _running(self) -> list[tuple[str, GroupShape]]:
        history = self._world.history
        return [
            (uid, self._shapes[group.request_id])
            for uid, group in sorted(history.groups.items())
            if group.request_id in self._shapes and group.home and history.tokens[group.home].bound_landed
        ]

    def _done(self, uid: str, answer: Accepted | Declined) -> None:
        if isinstance(answer, Declined) and answer.why is Refused.UNKNOWN_GROUP and self._world.history.is_lost(uid):
            return
        if isinstance(answer, Declined) and answer.why not in ALLOWED:
            raise ViolationError("S7", f"a resize was declined: {answer.why} {answer.field} {answer.detail}")
