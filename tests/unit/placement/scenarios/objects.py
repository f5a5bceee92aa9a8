"""Cases told by Kubernetes objects: Nodes with taints, labels and conditions, Pods that use them, and pod templates.

Each is answered on the agent's own table and on the one that a server makes of the agent's report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from placement.model import PodGroup, Reason
from tests.unit.placement.scenarios.language import KAI_TOPOLOGY, KUEUE_TOPOLOGY, VOLCANO, Placed, Waits, Want

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


def affinity(*terms: list[JsonObject]) -> JsonObject:
    """A required node affinity of terms, each a list of rules."""
    required = {"nodeSelectorTerms": [{"matchExpressions": rules} for rules in terms]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def rule(key: str, operator: str, *values: str) -> JsonObject:
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


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
    ObjectScenario(
        "a node with a taint takes no pod that does not tolerate it",
        f"{KUEUE_TOPOLOGY} 'skip node which has untolerated taint; BestFit'",
        (node("x3", taints=("example.com/gpu=present:NoSchedule",)),),
        (),
        group(),
        Waits(Reason.NO_SUITABLE_NODE),
    ),
    ObjectScenario(
        "a pod that tolerates a taint stands on the node that has it",
        f"{KUEUE_TOPOLOGY} 'allow to schedule on node with tolerated taint; BestFit'",
        (node("b1-r1-x3", taints=("example.com/gpu=present:NoSchedule",)),),
        (),
        group(pods_of("1", tolerations=[{"key": "example.com/gpu", "value": "present", "operator": "Equal"}])),
        on(b1_r1_x3=1),
    ),
    ObjectScenario(
        "of a tainted node, two without the label and one too small, none takes the pod",
        f"{KUEUE_TOPOLOGY} 'detailed failure message with exclusion stats'",
        (
            node("x1", taints=("key=value:NoSchedule",)),
            node("x2", labels={"zone": "zone-b"}),
            node("x3", labels={"zone": "zone-b"}, cpu="2"),
            node("x4", labels={"zone": "zone-a"}, cpu="100m"),
        ),
        (),
        group(pods_of("1", nodeSelector={"zone": "zone-a"}), topology={"required": "host"}),
        Waits(Reason.LARGER_THAN_CLUSTER, 1, 0),
    ),
    ObjectScenario(
        "a node without the label that is asked for takes no pod",
        f"{KUEUE_TOPOLOGY} 'skip node which doesn't match node selector, missing label; BestFit'",
        (node("x3", labels={"zone": "zone-a"}),),
        (),
        group(pods_of("300m", nodeSelector={"custom-label-1": "custom-value-1"})),
        Waits(Reason.NO_SUITABLE_NODE),
    ),
    ObjectScenario(
        "a node with another value of the label takes no pod",
        f"{KUEUE_TOPOLOGY} 'skip node which doesn't match node selector, label exists, value doesn't match; BestFit'",
        (node("x3", labels={"zone": "zone-a", "custom-label-1": "value-1"}),),
        (),
        group(pods_of("300m", nodeSelector={"custom-label-1": "value-2"})),
        Waits(Reason.NO_SUITABLE_NODE),
    ),
    ObjectScenario(
        "of two nodes the one with the value that is asked for takes the pod",
        f"{KUEUE_TOPOLOGY} 'allow to schedule on node which matches node; BestFit'",
        (
            node("x3", labels={"zone": "zone-a", "custom-label-1": "value-1"}),
            node("x5", labels={"zone": "zone-a", "custom-label-1": "value-2"}),
        ),
        (),
        group(pods_of("1", nodeSelector={"custom-label-1": "value-2"})),
        on(x5=1),
    ),
    ObjectScenario(
        "a gang waits whole when the nodes of one role's label hold too few of its pods",
        f"{VOLCANO} 'master's min member can not be allocated, break from allocating'",
        (node("n1", labels={"nodeRole": "master"}), node("n2", labels={"nodeRole": "worker"}, cpu="2")),
        (),
        group(
            pods_of("1", name="master", count=2, nodeSelector={"nodeRole": "master"}),
            pods_of("1", name="worker", count=2, nodeSelector={"nodeRole": "worker"}),
        ),
        Waits(Reason.LARGER_THAN_CLUSTER, 2, 1),
    ),
    ObjectScenario(
        "each role stands on the nodes of its own label",
        f"{VOLCANO} 'prepredicate failed and tasks are not used up, continue on until min member meet' (the gang's "
        "least members)",
        (node("n1", labels={"nodeRole": "master"}), node("n2", labels={"nodeRole": "worker"})),
        (),
        group(
            pods_of("1", name="master", nodeSelector={"nodeRole": "master"}),
            pods_of("1", name="worker", nodeSelector={"nodeRole": "worker"}),
        ),
        on(n1=1, n2=1),
    ),
    ObjectScenario(
        "the first rack has no node that one of the pods may stand on, so both go to the next",
        f"{KAI_TOPOLOGY} 'Required topology level - could not schedule on first domain due to affinity, goes to next'",
        (
            node("node0", labels={"muster.io/rack": "rack1"}),
            node("node1", labels={"muster.io/rack": "rack1"}),
            node("node2", labels={"muster.io/rack": "rack2", "nodeRole": "affinity1"}),
            node("node3", labels={"muster.io/rack": "rack2", "nodeRole": "affinity1"}),
        ),
        (),
        group(
            pods_of("1", name="bound", affinity=affinity([rule("nodeRole", "In", "affinity1")])),
            pods_of("1", name="free"),
            topology={"required": "rack"},
        ),
        on(node2=1, node3=1),
    ),
)
