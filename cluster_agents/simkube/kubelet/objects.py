"""The JSON that kubelets send: nodes, node leases, pod statuses. Pure building of bodies."""

from typing import Final

from cluster_agents.simkube.apiserver.types import (
    JSON,
    MERGE_PATCH,
    STRATEGIC_PATCH,
    ApiRequest,
    JsonObject,
)
from cluster_agents.simkube.kubelet.types import NodeShape
from cluster_agents.simkube.labels import GPU, HOSTNAME

LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
NODES: Final = "/api/v1/nodes"
KILLED_EXIT_CODE: Final = 137


def pod_path(namespace: str, name: str) -> str:
    """Where a pod is."""
    return f"/api/v1/namespaces/{namespace}/pods/{name}"


def node_object(shape: NodeShape, now_text: str) -> JsonObject:
    """The Node a kubelet registers."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": shape.name, "labels": {HOSTNAME: shape.name, **shape.labels}},
        "spec": {},
        "status": node_status(shape, shape.gpus, now_text),
    }


def node_status(shape: NodeShape, gpus_well: int, now_text: str) -> JsonObject:
    """The node's status with that many GPUs allocatable."""
    capacity = {
        "cpu": f"{shape.cpu_milli}m",
        "memory": f"{shape.memory_mib}Mi",
        "pods": str(shape.pods_max),
    }
    allocatable = dict(capacity)
    if shape.gpus:
        capacity[GPU] = str(shape.gpus)
        allocatable[GPU] = str(gpus_well)
    for resource, count in sorted(shape.mig.items()):
        capacity[resource] = allocatable[resource] = str(count)
    return {
        "capacity": capacity,
        "allocatable": allocatable,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "KubeletReady",
                "message": "kubelet is posting ready status",
                "lastTransitionTime": now_text,
            }
        ],
        "addresses": [{"type": "Hostname", "address": shape.name}],
        "nodeInfo": {"kubeletVersion": "v1.37.1+simkube", "architecture": "amd64", "operatingSystem": "linux"},
    }


def create_node(shape: NodeShape, now_text: str) -> ApiRequest:
    """Register the node."""
    return ApiRequest("POST", NODES, {}, node_object(shape, now_text), JSON)


def patch_node_status(shape: NodeShape, gpus_well: int, now_text: str) -> ApiRequest:
    """Say that the node is ready and what it has."""
    body = {"status": node_status(shape, gpus_well, now_text)}
    return ApiRequest("PATCH", f"{NODES}/{shape.name}/status", {}, body, STRATEGIC_PATCH)


def create_lease(node: str, lease_s: float, now_text: str) -> ApiRequest:
    """The node's first heartbeat."""
    spec = {"holderIdentity": node, "leaseDurationSeconds": int(lease_s), "renewTime": now_text}
    return ApiRequest("POST", LEASES, {}, {"metadata": {"name": node}, "spec": spec}, JSON)


def renew_lease(node: str, now_text: str) -> ApiRequest:
    """One more heartbeat."""
    return ApiRequest("PATCH", f"{LEASES}/{node}", {}, {"spec": {"renewTime": now_text}}, MERGE_PATCH)


def list_pods_of(node: str) -> ApiRequest:
    """All pods bound to one node (never more than its pod limit, so one page)."""
    return ApiRequest("GET", "/api/v1/pods", {"fieldSelector": f"spec.nodeName={node}"})


def confirm_stopped(namespace: str, name: str, uid: str) -> ApiRequest:
    """The kubelet's last word on a deleted pod: its containers have ended."""
    body = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
    return ApiRequest("DELETE", pod_path(namespace, name), {}, body, JSON)


def report_status(namespace: str, name: str, uid: str, status: JsonObject) -> ApiRequest:
    """Report a pod's status; refused when another pod has taken its name."""
    body = {"metadata": {"uid": uid}, "status": status}
    return ApiRequest("PATCH", f"{pod_path(namespace, name)}/status", {}, body, STRATEGIC_PATCH)


def running_status(pod: JsonObject, *, started: str, restarts: int) -> JsonObject:
    """All containers run."""
    return {
        "phase": "Running",
        "startTime": started,
        "conditions": _conditions(started, ready=True),
        "containerStatuses": [
            _container(c, restarts, {"running": {"startedAt": started}}, ready=True) for c in pod["spec"]["containers"]
        ],
    }


def ended_status(
    pod: JsonObject,
    *,
    phase: str,
    reason: str,
    message: str,
    exit_code: int,
    restarts: int,
    now_text: str,
) -> JsonObject:
    """All containers have ended; none will start again."""
    terminated = {"exitCode": exit_code, "reason": reason or "Completed", "finishedAt": now_text}
    status: JsonObject = {
        "phase": phase,
        "conditions": _conditions(now_text, ready=False),
        "containerStatuses": [
            _container(c, restarts, {"terminated": terminated}, ready=False) for c in pod["spec"]["containers"]
        ],
    }
    return status | _why(reason if exit_code else "", message)


def rejected_status(reason: str, message: str, now_text: str) -> JsonObject:
    """The kubelet does not admit the pod: Failed for good, with no container status since none was ever made."""
    return {"phase": "Failed", "startTime": now_text} | _why(reason, message)


def _why(reason: str, message: str) -> JsonObject:
    return {key: text for key, text in (("reason", reason), ("message", message)) if text}


def _container(container: JsonObject, restarts: int, state: JsonObject, *, ready: bool) -> JsonObject:
    return {
        "name": container["name"],
        "image": container.get("image", ""),
        "ready": ready,
        "started": ready,
        "restartCount": restarts,
        "state": state,
    }


def _conditions(now_text: str, *, ready: bool) -> list[JsonObject]:
    value = "True" if ready else "False"
    return [{"type": kind, "status": value, "lastTransitionTime": now_text} for kind in ("ContainersReady", "Ready")]
