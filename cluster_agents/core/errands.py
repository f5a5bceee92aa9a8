"""The requests a gang makes of its API server, and the patience with which failed ones are repeated.

Which of them is made, and when, is decided in `binding`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import msgspec

from cluster_agents.core import manifests
from cluster_agents.core.calls import Calls, Request, Step
from cluster_agents.core.config import BACKOFF_S, BACKOFF_S_MAX
from cluster_agents.core.events import WriteClass
from cluster_agents.core.jobs import JobView
from cluster_agents.core.plan import BOUND, PLAN, Plan, intent_configmap, intent_labels, intent_name
from cluster_agents.core.pods import PodKey, PodView
from cluster_agents.core.spec import Spec
from placement.model import PodGroup

MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"
NOTICED: Final = float("-inf")  # end of a wait that is over and was told

Slot = tuple[Step, str]


def _core(namespace: str, plural: str, name: str = "") -> str:
    base = f"/api/v1/namespaces/{namespace}/{plural}"
    return f"{base}/{name}" if name else base


def _job(namespace: str, name: str = "") -> str:
    base = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    return f"{base}/{name}" if name else base


# --- what starts something --------------------------------------------------------------------------------------------


def write_intent(plan: Plan, spec: Spec | None, namespace: str) -> Request:
    path, body = _core(namespace, "configmaps"), intent_configmap(plan, spec, namespace)
    following = plan.pods + 1 if plan.workload == "job" else 2 * plan.pods
    return Request(plan.token, Step.WRITE_INTENT, "", "POST", path, body, WriteClass.STARTS, followed_by=following)


def write_intent_again(plan: Plan, spec: Spec | None, namespace: str) -> Request:
    """Of a gang that stands: no more starts follow."""
    return replace(write_intent(plan, spec, namespace), followed_by=0)


def create_service(plan: Plan) -> Request:
    path, body = _core(plan.namespace, "services"), manifests.service(plan)
    return Request(plan.token, Step.CREATE_SERVICE, "", "POST", path, body, WriteClass.STARTS)


def create_job(plan: Plan, group: PodGroup) -> Request:
    path, body = _job(plan.namespace), manifests.job(plan, group)
    return Request(plan.token, Step.CREATE_JOB, "", "POST", path, body, WriteClass.STARTS)


def create_pod(plan: Plan, group: PodGroup, key: PodKey, seat: int) -> Request:
    path, body = _core(plan.namespace, "pods"), manifests.pod(plan, group, seat)
    return Request(plan.token, Step.CREATE_POD, str(key), "POST", path, body, WriteClass.STARTS)


def try_pod(plan: Plan, group: PodGroup) -> Request:
    """Ask what the API server would say of a pod such as the Job makes; none is made."""
    path, body = _core(plan.namespace, "pods"), manifests.pod_of_job(plan, group)
    return Request(plan.token, Step.TRY_POD, "", "POST", path, body, WriteClass.READ, (("dryRun", "All"),))


def bind_pod(plan: Plan, view: PodView, seat: int) -> Request:
    path = _core(view.key.namespace, "pods", f"{view.key.name}/binding")
    body = manifests.binding(plan, view, seat)
    return Request(plan.token, Step.BIND_POD, str(view.key), "POST", path, body, WriteClass.STARTS)


# --- what reads -------------------------------------------------------------------------------------------------------


def read_pod(token: str, key: PodKey) -> Request:
    path = _core(key.namespace, "pods", key.name)
    return Request(token, Step.READ_POD, str(key), "GET", path, write_class=WriteClass.READ)


def read_service(plan: Plan) -> Request:
    path = _core(plan.namespace, "services", plan.service)
    return Request(plan.token, Step.READ_SERVICE, "", "GET", path, write_class=WriteClass.READ)


def read_job(plan: Plan) -> Request:
    return Request(plan.token, Step.READ_JOB, "", "GET", _job(plan.namespace, plan.job), write_class=WriteClass.READ)


def read_intent(token: str, namespace: str) -> Request:
    path = _core(namespace, "configmaps", intent_name(token))
    return Request(token, Step.READ_INTENT, "", "GET", path, write_class=WriteClass.READ)


# --- what is always allowed -------------------------------------------------------------------------------------------


def mark_bound(token: str, namespace: str) -> Request:
    """Note in the intent that `Bound` landed."""
    path, body = _core(namespace, "configmaps", intent_name(token)), {"data": {BOUND: "true"}}
    return Request(token, Step.MARK_BOUND, "", "PATCH", path, body, content_type=MERGE_PATCH)


def label_intent(plan: Plan, namespace: str) -> Request:
    """Give an intent back the labels by which agents find it."""
    path, body = _core(namespace, "configmaps", intent_name(plan.token)), {"metadata": {"labels": intent_labels(plan)}}
    return Request(plan.token, Step.LABEL_INTENT, "", "PATCH", path, body, content_type=MERGE_PATCH)


def replace_intent(plan: Plan, version: int, namespace: str) -> Request:
    """Write another plan over the one that stood in this version of the intent; pods join only before the deadline."""
    body = {
        "metadata": {"resourceVersion": str(version)},
        "data": {PLAN: msgspec.json.encode(plan).decode()},
    }
    write_class = WriteClass.STARTS if plan.joining else WriteClass.ALWAYS
    path = _core(namespace, "configmaps", intent_name(plan.token))
    return Request(plan.token, Step.REPLACE_INTENT, "", "PATCH", path, body, write_class, content_type=MERGE_PATCH)


def suspend_job(view: JobView) -> Request:
    body = {"metadata": {"uid": view.uid}, "spec": {"suspend": True}}
    path = _job(view.namespace, view.name)
    return Request(view.token, Step.SUSPEND_JOB, "", "PATCH", path, body, content_type=MERGE_PATCH)


def delete_pod(view: PodView, *, grace_s: int) -> Request:
    body = manifests.delete_options(view.uid, grace_s=grace_s)
    path = _core(view.key.namespace, "pods", view.key.name)
    return Request(view.token, Step.DELETE_POD, str(view.key), "DELETE", path, body)


def free_pod(view: PodView) -> Request:
    """Take our finalizer off."""
    path, body = _core(view.key.namespace, "pods", view.key.name), manifests.freed(view)
    return Request(view.token, Step.FREE_POD, str(view.key), "PATCH", path, body, content_type=STRATEGIC_PATCH)


def delete_job(view: JobView) -> Request:
    body = manifests.delete_options(view.uid, propagation="Background")
    return Request(view.token, Step.DELETE_JOB, "", "DELETE", _job(view.namespace, view.name), body)


def delete_service(plan: Plan) -> Request:
    path = _core(plan.namespace, "services", plan.service)
    return Request(plan.token, Step.DELETE_SERVICE, "", "DELETE", path, manifests.delete_options(""))


def delete_intent(token: str, namespace: str) -> Request:
    path = _core(namespace, "configmaps", intent_name(token))
    return Request(token, Step.DELETE_INTENT, "", "DELETE", path, manifests.delete_options(""))


# --- patience ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Wait:
    """A call that failed `tries` times, was put off beside that, the last time at `failed_at_s`, and may go again at
    `until_s`."""

    tries: int
    put_off: int
    failed_at_s: float
    until_s: float


_FIRST: Final = _Wait(0, 0, NOTICED, NOTICED)


class Patience:
    """Which calls of one gang failed lately, how often, and when they may go again."""

    def __init__(self) -> None:
        self._waits: dict[Slot, _Wait] = {}

    def ask(self, request: Request, calls: Calls, now_s: float) -> float | None:
        """Want this call now, or say from when on it may be wanted."""
        wait = self._waits.get((request.step, request.key))
        if wait is not None and now_s < wait.until_s:
            return wait.until_s
        calls.want(request)
        return None

    def failed(self, slot: Slot, now_s: float, *, put_off: bool = False) -> int:
        """It failed; how often by now. What is no fault of its own put it off: that is waited for, not counted."""
        before = self._waits.get(slot, _FIRST)
        tries, put_offs = before.tries + (not put_off), before.put_off + put_off
        wait_s = min(BACKOFF_S_MAX, BACKOFF_S * 2 ** min(tries + put_offs, 8))
        self._waits[slot] = _Wait(tries, put_offs, now_s, now_s + wait_s)
        return tries

    def failed_before_s(self, slot: Slot) -> float | None:
        """When it failed last, if it did."""
        wait = self._waits.get(slot)
        return None if wait is None else wait.failed_at_s

    def worked(self, slot: Slot) -> None:
        self._waits.pop(slot, None)

    def clear(self) -> None:
        self._waits.clear()

    def over(self, now_s: float) -> list[str]:
        """Keys of calls whose wait ended since this was last asked."""
        ended = [slot for slot, wait in self._waits.items() if NOTICED < wait.until_s <= now_s]
        for slot in ended:
            self._waits[slot] = replace(self._waits[slot], until_s=NOTICED)
        return [key for _, key in ended if key]

    def next_s(self) -> float:
        """When the next wait ends."""
        return min((wait.until_s for wait in self._waits.values() if wait.until_s > NOTICED), default=float("inf"))
