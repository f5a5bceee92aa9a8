"""The people: one who submits groups and never gives up, and operators. Requests carry ids, so repeats are harmless."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from federation.core.events import Accepted, Declined, PersonRequest, Refused, SubmitGroup
from placement.model import PodGroup
from tests.world.draw import FOREVER_S, GroupShape
from tests.world.violation import ViolationError

if TYPE_CHECKING:
    from tests.world.world import World

RETRY_S: Final = 6.0  # a person's patience for one server
RETRY_JITTER_S: Final = 4.0
ATTEMPTS_MAX: Final = 1_000
AGAIN: Final = frozenset({Refused.NOT_LEADER, Refused.UNAVAILABLE, Refused.QUEUE_FULL})

Done = Callable[[Accepted | Declined], None]


def join_id(cluster: str) -> str:
    """The request by which a cluster joins."""
    return f"join-{cluster}"


@dataclass(slots=True)
class _Pending:
    request: PersonRequest
    done: Done
    attempts: int = 0
    answered: bool = False


class Client:
    """Asks any server until one gives a final answer."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self.unanswered: dict[str, _Pending] = {}

    def submit(self, shape: GroupShape) -> None:
        request = SubmitGroup(pod_group(shape), f"submit-{shape.name}", "alice")
        self.ask(request, lambda answer: self._submitted(request, answer))

    def submit_again(self, request_ids: Collection[str]) -> None:
        """After a restore everybody hands in once more what was acknowledged: nobody knows what of it was lost."""
        for shape in self._world.setting.groups:
            if f"submit-{shape.name}" in request_ids:
                self.submit(shape)

    def ask(self, request: PersonRequest, done: Done) -> None:
        """Send until answered; `done` hears the final answer once."""
        pending = _Pending(request, done)
        self.unanswered[request.request_id] = pending
        self._attempt(pending)

    def _attempt(self, pending: _Pending) -> None:
        if pending.answered or pending.attempts >= ATTEMPTS_MAX:
            return
        pending.attempts += 1
        world = self._world
        server = self._rng.choice(world.servers)
        world.network.send(
            world.network.weather.https_delay_s,
            (),
            server.asked_by_person,
            pending.request,
            lambda answer: self._answered(pending, answer),
        )
        world.scheduler.after(RETRY_S + RETRY_JITTER_S * self._rng.random(), self._attempt, pending)

    def _answered(self, pending: _Pending, answer: Accepted | Declined) -> None:
        if isinstance(answer, Accepted) and isinstance(pending.request, SubmitGroup):
            self._world.acknowledged(pending.request.request_id, answer)
        if pending.answered:
            return
        if isinstance(answer, Declined) and answer.why in AGAIN:
            return  # the next attempt is scheduled
        pending.answered = True
        self.unanswered.pop(pending.request.request_id, None)
        pending.done(answer)

    def _submitted(self, request: SubmitGroup, answer: Accepted | Declined) -> None:
        if isinstance(answer, Declined) and self._in_part_again(request, answer):
            return
        if isinstance(answer, Declined):
            raise ViolationError(
                "S8", f"{request.request_id} was declined: {answer.why} {answer.field} {answer.detail}"
            )
        world = self._world
        if self._rng.random() < world.setting.repeat_submit:
            repeat = _Pending(request, _nothing)
            world.scheduler.after(self._rng.random() * 60.0, self._attempt, repeat)

    def _in_part_again(self, request: SubmitGroup, answer: Declined) -> bool:
        """Children of a spread group that run are known again after a restore, also without the first one."""
        spread, restored = request.group.spread is not None, self._world.history.restores > 0
        return spread and restored and answer.why is Refused.NAME_TAKEN


def _nothing(answer: Accepted | Declined) -> None:
    del answer


def pod_group(shape: GroupShape) -> PodGroup:
    """The manifest a person would write for this shape."""
    annotations: dict[str, str] = {}
    if shape.fail_after_s:
        annotations["simkube/fail-after-seconds"] = str(shape.fail_after_s)
    elif shape.run_s < FOREVER_S:
        annotations["simkube/run-seconds"] = str(shape.run_s)
    resources = {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": str(shape.gpus)}
    if shape.poison:
        resources["example.com/widget"] = "1.5"  # devices are counted in whole numbers, as API servers know
    template: dict[str, Any] = {
        "metadata": {"annotations": annotations},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": shape.grace_s,
            "containers": [
                {
                    "name": "main",
                    "image": "train",
                    "resources": {"limits": resources, "requests": resources},
                }
            ],
        },
    }
    spread = {"clusters": {"min": 1, "max": 3}, "min_per_cluster": shape.min_count}
    affinity = {"region": (shape.region,)} if shape.region else {}
    return PodGroup.model_validate(
        {
            "name": shape.name,
            "priority": shape.priority,
            "roles": ({"name": "worker", "count": shape.pods, "template": template},),
            **({"spread": spread} if shape.spread else {"min_count": shape.min_count}),
            "elastic": shape.elastic,
            "topology": {"required": shape.level},
            "disruption_mode": shape.disruption,
            "disconnect_policy": shape.policy,
            "clusters": {"affinity": affinity},
            "grace_s": shape.grace_s,
            "workload": shape.workload,
        }
    )
