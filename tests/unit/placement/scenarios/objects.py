"""Cases told by Kubernetes objects: Nodes with taints, labels and conditions, Pods that use them, and pod templates.

Each is answered on the agent's own table and on the one that a server makes of the agent's report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from placement.model import PodGroup, Reason
from tests.unit.placement.scenarios.language import KUEUE_TOPOLOGY, Placed, Waits, Want

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ObjectScenario:
    says: str
    source: str
    nodes: tuple[JsonObject, ...]
    pods: tuple[JsonObject, ...]
    group: PodGroup
    want: Want


def node(name: str, *, cpu: str = "1", taints: tuple[str, ...] = (), **more: Any) -> JsonObject:
    """A ready node of one CPU; `taints` as `key=value:Effect`; `labels`, `unschedulable`, `conditions` (of `True`)."""
    conditions = {"Ready": "True", **more.get("conditions", {})}
    return {
        "metadata": {
            "name": name,
            "resourceVersion": "1",
            "labels": {"kubernetes.io/hostname": name, **more.get("labels", {})},
        },
        "spec": {"unschedulable": more.get("unschedulable", False), "taints": [_taint(one) for one in taints]},
        "status": {
            "allocatable": {"cpu": cpu, "memory": "1Gi", **more.get("allocatable", {})},
            "conditions": [{"type": kind, "status": status} for kind, status in conditions.items()],
        },
    }


def _taint(text: str) -> JsonObject:
    rest, _, effect = text.rpartition(":")
    key, _, value = rest.partition("=")
    return {"key": key, "value": value, "effect": effect}


def pod(name: str, *, on: str, cpu: str = "600m", phase: str = "Running") -> JsonObject:
    """Somebody else's pod."""
    return {
        "metadata": {"name": name, "namespace": "test-ns", "uid": f"uid-{name}", "resourceVersion": "1"},
        "spec": {"nodeName": on, "containers": [{"name": "main", "resources": {"requests": {"cpu": cpu}}}]},
        "status": {"phase": phase},
    }


def group(*roles: JsonObject, **fields: Any) -> PodGroup:
    """A PodGroup of `roles`, each as `pods_of` makes it; one pod of one CPU if none is named."""
    return PodGroup.model_validate({"name": "g", "roles": list(roles or (pods_of("1"),)), **fields})


def pods_of(cpu: str, *, name: str = "worker", count: int = 1, **spec: Any) -> JsonObject:
    """A role of `count` pods; `spec` goes into the pod template (`nodeSelector`, `tolerations`, `affinity`)."""
    container = {"name": "main", "image": "train", "resources": {"requests": {"cpu": cpu}}}
    return {"name": name, "count": count, "template": {"spec": {"containers": [container], **spec}}}


def on(**pods: int) -> Placed:
    return Placed({name.replace("_", "-"): count for name, count in pods.items()})


OBJECTS: tuple[ObjectScenario, ...] = (
    ObjectScenario(
        "a pod without a node takes no room",
        f"{KUEUE_TOPOLOGY} 'don't consider unscheduled Pods when computing capacity; BestFit'",
        (node("x3"),),
        (pod("test-unscheduled", on="", phase="Pending"),),
        group(pods_of("600m")),
        on(x3=1),
    ),
    ObjectScenario(
        "pods that have ended take no room",
        f"{KUEUE_TOPOLOGY} 'don't consider terminal pods when computing the capacity; BestFit'",
        (node("x3"),),
        (pod("test-failed", on="x3", phase="Failed"), pod("test-succeeded", on="x3", phase="Succeeded")),
        group(pods_of("600m")),
        on(x3=1),
    ),
    ObjectScenario(
        "a pod that is bound and has not started takes its room",
        f"{KUEUE_TOPOLOGY} 'include usage from pending scheduled non-TAS pods, blocked assignment; BestFit'",
        (node("x3"),),
        (pod("test-pending", on="x3", phase="Pending"),),
        group(pods_of("600m"), topology={"required": "kubernetes.io/hostname"}),
        Waits(Reason.INSUFFICIENT_CPU, 1, 0),
    ),
    ObjectScenario(
        "a running pod takes its room",
        f"{KUEUE_TOPOLOGY} 'include usage from running non-TAS pods, blocked assignment; BestFit'",
        (node("x3"),),
        (pod("test-running", on="x3"),),
        group(pods_of("600m"), topology={"required": "kubernetes.io/hostname"}),
        Waits(Reason.INSUFFICIENT_CPU, 1, 0),
    ),
    ObjectScenario(
        "a gang goes to the node that other people's pods have left free",
        f"{KUEUE_TOPOLOGY} 'include usage from running non-TAS pods, found free capacity on another node; BestFit'",
        (node("x3"), node("x5")),
        (pod("test-pod", on="x3"),),
        group(pods_of("600m"), topology={"required": "kubernetes.io/hostname"}),
        on(x5=1),
    ),
    ObjectScenario(
        "a node that another pod uses to the last CPU takes nothing more",
        f"{KUEUE_TOPOLOGY} 'node allocatable capacity completely used by non-TAS pod; empty remainingCapacity'",
        (node("x3"),),
        (pod("running1", on="x3", cpu="1"),),
        group(pods_of("100m"), topology={"required": "kubernetes.io/hostname"}),
        Waits(Reason.INSUFFICIENT_CPU, 1, 0),
    ),
    ObjectScenario(
        "nothing starts on a node that is not ready",
        f"{KUEUE_TOPOLOGY} 'no assignment as node is not ready; BestFit'",
        (node("x3", conditions={"Ready": "False", "NetworkUnavailable": "True"}),),
        (),
        group(),
        Waits(Reason.INSUFFICIENT_CPU, 1, 0),
    ),
    ObjectScenario(
        "nothing starts on a node that takes no new pods",
        f"{KUEUE_TOPOLOGY} 'no assignment as node is unschedulable; BestFit'",
        (node("x3", unschedulable=True),),
        (),
        group(),
        Waits(Reason.INSUFFICIENT_CPU, 1, 0),
    ),
)
