"""The rules of Pods: what a create fills in and refuses, which updates are allowed, and the binding."""

import re
from collections.abc import Iterator
from typing import Any, Final

from cluster_agents.simkube.apiserver import metadata, statuses
from cluster_agents.simkube.apiserver.resources import Route
from cluster_agents.simkube.apiserver.store import Store
from cluster_agents.simkube.apiserver.types import JsonObject, RefusedError

GRACE_DEFAULT_S: Final = 30
TOLERATION_SECONDS_DEFAULT: Final = 300  # admission plugin DefaultTolerationSeconds
NOT_READY: Final = "node.kubernetes.io/not-ready"
UNREACHABLE: Final = "node.kubernetes.io/unreachable"
TERMINAL_PHASES: Final = frozenset({"Succeeded", "Failed"})

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123

# Spec fields an update may change (validation.ValidatePodUpdate); gates and tolerations have their own rules.
MUTABLE_FIELDS: Final = frozenset({"activeDeadlineSeconds", "tolerations", "schedulingGates"})
MUTABLE_WHILE_GATED: Final = frozenset({"nodeSelector", "affinity"})


def created(store: Store, pod: JsonObject) -> JsonObject:
    """The pod with the defaults of the real server; refuses (422) what validation refuses."""
    name = pod["metadata"]["name"]
    sent: JsonObject = pod.get("spec") or {}
    if not sent.get("containers"):
        raise statuses.invalid("Pod", name, "spec.containers", "Required value")
    check_containers("Pod", name, "spec", sent)
    gated = bool(sent.get("schedulingGates"))
    if gated and sent.get("nodeName"):
        raise statuses.invalid(
            "Pod", name, "spec.nodeName", "Forbidden: cannot be set until all schedulingGates have been cleared"
        )
    spec = {
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "terminationGracePeriodSeconds": GRACE_DEFAULT_S,
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        **sent,
        "containers": [_with_requests(container) for container in sent["containers"]],
        "tolerations": _default_tolerations(sent.get("tolerations") or []),
    }
    if spec["restartPolicy"] not in {"Always", "OnFailure", "Never"}:
        raise statuses.invalid("Pod", name, "spec.restartPolicy", f"Unsupported value: {spec['restartPolicy']!r}")
    status: JsonObject = {"phase": "Pending"}
    if gated:
        status["conditions"] = [
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastTransitionTime": store.now_text,
            }
        ]
    return {**pod, "spec": spec, "status": status}


def containers_of(spec: JsonObject) -> Iterator[JsonObject]:
    """Init and main containers alike."""
    yield from spec.get("initContainers") or ()
    yield from spec.get("containers") or ()


def check_containers(kind: str, name: str, place: str, spec: JsonObject) -> None:
    """Refuse (422) containers that no pod may have. `place`: where the spec stands in an object of this kind."""
    _check_names(kind, name, place, spec)
    _check_devices(kind, name, place, spec)


def _check_names(kind: str, name: str, place: str, spec: JsonObject) -> None:
    seen: set[str] = set()
    for container in containers_of(spec):
        called = container.get("name")
        if not isinstance(called, str) or not _LABEL.fullmatch(called):
            raise statuses.invalid(kind, name, f"{place}.containers.name", f"Invalid value: {called!r}")
        if called in seen:
            raise statuses.invalid(kind, name, f"{place}.containers.name", f"Duplicate value: {called!r}")
        seen.add(called)


def _check_devices(kind: str, name: str, place: str, spec: JsonObject) -> None:
    """Extended resources are whole numbers, and request equals limit."""
    for container in containers_of(spec):
        resources: JsonObject = container.get("resources") or {}
        requests: JsonObject = resources.get("requests") or {}
        limits: JsonObject = resources.get("limits") or {}
        for resource in sorted({*requests, *limits}):
            if "/" not in resource:
                continue
            limit = limits.get(resource)
            if limit is None:
                raise statuses.invalid(
                    kind,
                    name,
                    f"{place}.containers.limits[{resource}]",
                    "Required value: Limit must be set for non overcommitable resources",
                )
            if str(requests.get(resource, limit)) != str(limit):
                raise statuses.invalid(
                    kind, name, f"{place}.containers.requests[{resource}]", "Invalid value: must be equal to limit"
                )
            if not str(limit).isdigit():
                raise statuses.invalid(
                    kind, name, f"{place}.containers.limits[{resource}]", "Invalid value: must be an integer"
                )


def _with_requests(container: JsonObject) -> JsonObject:
    resources: JsonObject = container.get("resources") or {}
    limits: JsonObject = resources.get("limits") or {}
    if not limits:
        return container
    return {**container, "resources": {**resources, "requests": {**limits, **(resources.get("requests") or {})}}}


def _default_tolerations(sent: list[JsonObject]) -> list[JsonObject]:
    def tolerated(taint: str) -> bool:
        return any(t.get("key") in {None, "", taint} and t.get("effect") in {None, "", "NoExecute"} for t in sent)

    added = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS_DEFAULT}
    return [*sent, *({"key": taint, **added} for taint in (NOT_READY, UNREACHABLE) if not tolerated(taint))]


def check_update(old: JsonObject, new: JsonObject) -> None:
    """Refuse (422) every change of a pod's spec but the few that Kubernetes allows."""
    before, after = old["spec"], new.get("spec") or {}
    if before == after:
        return
    name = old["metadata"]["name"]
    gates_before = [gate["name"] for gate in before.get("schedulingGates") or ()]
    gates_after = [gate["name"] for gate in after.get("schedulingGates") or ()]
    if any(gate not in gates_before for gate in gates_after):
        why = "Forbidden: only deletion is allowed, but found new scheduling gates"
        raise statuses.invalid("Pod", name, "spec.schedulingGates", why)
    if any(toleration not in (after.get("tolerations") or ()) for toleration in before.get("tolerations") or ()):
        raise statuses.invalid(
            "Pod",
            name,
            "spec.tolerations",
            "Forbidden: existing toleration can not be modified except its tolerationSeconds",
        )
    allowed = MUTABLE_FIELDS | MUTABLE_WHILE_GATED if gates_before else MUTABLE_FIELDS
    for field in sorted({*before, *after} - allowed):
        if before.get(field) != after.get(field) and not _only_images_changed(field, before, after):
            why = f"Forbidden: pod updates may not change fields other than images, {', '.join(sorted(allowed))}"
            raise statuses.invalid("Pod", name, f"spec.{field}", why)
    if gates_before:
        _check_narrowing(name, before.get("nodeSelector") or {}, after.get("nodeSelector") or {})


def _only_images_changed(field: str, before: JsonObject, after: JsonObject) -> bool:
    if field not in {"containers", "initContainers"}:
        return False
    old, new = before.get(field) or [], after.get(field) or []
    return [{**c, "image": ""} for c in old] == [{**c, "image": ""} for c in new]


def _check_narrowing(name: str, before: JsonObject, after: JsonObject) -> None:
    if any(after.get(key) != value for key, value in before.items()):
        why = "Invalid value: only additions are allowed while the pod is gated"
        raise statuses.invalid("Pod", name, "spec.nodeSelector", why)


def after_update(new: JsonObject) -> JsonObject:
    """The pod without an empty list of gates. Its condition SchedulingGated stays: only a scheduler would change it."""
    if new["spec"].get("schedulingGates") or "schedulingGates" not in new["spec"]:
        return new
    return {**new, "spec": {key: value for key, value in new["spec"].items() if key != "schedulingGates"}}


def bound(store: Store, route: Route, pod: JsonObject, binding: JsonObject) -> JsonObject:
    """The pod bound to the target of `binding`, its labels and annotations merged in. Refuses (409) as assignPod does.

    Nothing else is checked: not the node, its room, its taints, nor the group.
    """
    sent: JsonObject = binding.get("metadata") or {}
    name = pod["metadata"]["name"]
    if sent.get("name", name) != name:
        raise statuses.bad_request("name in URL does not match name in Binding object")
    target: JsonObject = binding.get("target") or {}
    if target.get("kind") not in {None, "", "Node"}:
        raise statuses.invalid("Binding", name, "target.kind", 'Unsupported value: supported values: "Node", "<empty>"')
    if not target.get("name"):
        raise RefusedError(500, "", "target.name: Required value")  # an error that the real server does not wrap either
    metadata.check_preconditions(route, pod, sent)
    _check_bindable(pod)
    spec = {**pod["spec"], "nodeName": target["name"]}
    status = {key: value for key, value in pod["status"].items() if key != "nominatedNodeName"}
    scheduled = {"type": "PodScheduled", "status": "True"}
    new = metadata.with_metadata(
        pod,
        labels={**(pod["metadata"].get("labels") or {}), **(sent.get("labels") or {})} or None,
        annotations={**(pod["metadata"].get("annotations") or {}), **(sent.get("annotations") or {})} or None,
    )
    metadata.check(route.resource, new["metadata"])
    return {**new, "spec": spec, "status": with_condition(status, scheduled, store.now_text)}


def _check_bindable(pod: JsonObject) -> None:
    name = pod["metadata"]["name"]
    if "deletionTimestamp" in pod["metadata"]:
        raise statuses.conflict("pods/binding", name, f"pod {name} is being deleted, cannot be assigned to a host")
    node = pod["spec"].get("nodeName")
    if node:
        raise statuses.conflict("pods/binding", name, f'pod {name} is already assigned to node "{node}"')
    if pod["spec"].get("schedulingGates"):
        raise statuses.conflict("pods/binding", name, f"pod {name} has non-empty .spec.schedulingGates")


def with_condition(status: JsonObject, condition: JsonObject, now_text: str) -> JsonObject:
    """The status with one condition set; its transition time moves only when its value does."""
    conditions: list[JsonObject] = list(status.get("conditions") or ())
    at = next((i for i, c in enumerate(conditions) if c["type"] == condition["type"]), None)
    since = now_text
    if at is not None and conditions[at]["status"] == condition["status"]:
        since = conditions[at].get("lastTransitionTime", now_text)
    stamped = {**condition, "lastTransitionTime": since}
    if at is None:
        conditions.append(stamped)
    else:
        conditions[at] = stamped
    return {**status, "conditions": conditions}


def is_terminal(pod: JsonObject) -> bool:
    """Phase Succeeded or Failed."""
    phase: Any = pod["status"].get("phase")
    return phase in TERMINAL_PHASES
