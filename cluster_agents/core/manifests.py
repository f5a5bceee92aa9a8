"""The objects the agent creates in its cluster: pods or a Job from the template, the headless Service of a gang of
several pods, and patches.

A template is passed through; only what makes it a member of its gang is added. When to create them is `binding`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from cluster_agents.core.config import (
    ENV_TOKEN,
    FINALIZER,
    GUARD_PLUGIN,
    LABEL_GROUP,
    LABEL_RANK,
    LABEL_ROLE,
    LABEL_TOKEN,
    REQUIRED_PLUGINS,
    SCHEDULER_NAME,
)
from cluster_agents.core.objects import items, mapping, text, texts, whole
from cluster_agents.core.plan import Plan
from cluster_agents.core.pods import PodView, pod_amounts
from placement.mig import MIG_RESOURCE_PREFIX
from placement.model import PodGroup

JsonObject = dict[str, Any]  # JSON edge

CONTAINERS: Final = ("containers", "initContainers")
_PLUGIN_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*")
GPU_TOLERATION: Final[JsonObject] = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def labels_of(plan: Plan) -> dict[str, str]:
    return {LABEL_GROUP: plan.uid, LABEL_TOKEN: plan.token}


def service(plan: Plan) -> JsonObject:
    """The headless Service by which the gang's pods find one another, also before they are ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": plan.service, "namespace": plan.namespace, "labels": labels_of(plan)},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {LABEL_TOKEN: plan.token},
        },
    }


def pod(plan: Plan, group: PodGroup, seat: int) -> JsonObject:
    """The pod of this seat, unbound, with our finalizer."""
    role, rank = plan.role_of(seat), plan.rank(seat)
    template = next(one.template for one in group.roles if one.name == role.name)
    env = {
        **_common_env(plan),
        "MUSTER_ROLE": role.name,
        "MUSTER_RANK": str(rank),
        "MUSTER_LEADER_ADDR": plan.leader_addr,
    }
    metadata = _metadata(plan, template, {LABEL_ROLE: role.name, LABEL_RANK: str(rank)})
    variables = [{"name": name, "value": value} for name, value in env.items()]
    spec = _pod_spec(plan, template, variables, plan.device(seat))
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**metadata, "name": plan.pod(seat), "namespace": plan.namespace},
        "spec": {**spec, "hostname": plan.pod(seat), **_subdomain(plan)},
    }


def job(plan: Plan, group: PodGroup) -> JsonObject:
    """The Job as submitted, under the plan's name, its template patched; its pods learn their rank when bound."""
    role = group.roles[0]
    submitted = group.workload_object or {}
    job_spec = dict(mapping(submitted, "spec"))
    indexed = text(job_spec, "completionMode") == "Indexed"
    host = f"{plan.job}-0." if indexed else ""
    leader = f"{host}{plan.service}.{plan.namespace}.svc" if plan.has_service else plan.leader_addr
    env: list[JsonObject] = [
        *(
            {"name": name, "value": value}
            for name, value in {
                **_common_env(plan),
                "MUSTER_ROLE": role.name,
                "MUSTER_LEADER_ADDR": leader,
            }.items()
        ),
        {"name": "MUSTER_RANK", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{LABEL_RANK}']"}}},
    ]
    metadata = mapping(submitted, "metadata")
    template_spec = {**_pod_spec(plan, role.template, env, plan.device(0)), **_subdomain(plan)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": plan.job,
            "namespace": plan.namespace,
            "labels": {**mapping(metadata, "labels"), **labels_of(plan)},
            "annotations": dict(mapping(metadata, "annotations")),
        },
        "spec": {
            **job_spec,
            "parallelism": plan.pods,
            "completions": plan.pods,
            "suspend": False,
            "template": {
                "metadata": _metadata(plan, role.template, {LABEL_ROLE: role.name}),
                "spec": template_spec,
            },
        },
    }


def pod_of_job(plan: Plan, group: PodGroup) -> JsonObject:
    """A pod as its Job's controller would make it, as far as admission may refuse one."""
    template = mapping(job(plan, group), "spec", "template")
    metadata = {**mapping(template, "metadata"), "namespace": plan.namespace, "generateName": f"{plan.job}-"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": mapping(template, "spec")}


def binding(plan: Plan, view: PodView, seat: int) -> JsonObject:
    """Bind exactly this pod (by uid) to the seat's node, and tell a Job's pod its rank: its environment reads the
    annotation, since API servers before 1.35 leave the labels of a binding out."""
    rank = {LABEL_RANK: str(plan.rank(seat))}
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {
            "name": view.key.name,
            "namespace": view.key.namespace,
            "uid": view.uid,
            "labels": rank,
            "annotations": rank,
        },
        "target": {"apiVersion": "v1", "kind": "Node", "name": plan.nodes[seat]},
    }


def delete_options(uid: str, *, grace_s: int | None = None, propagation: str = "") -> JsonObject:
    """Delete exactly this object."""
    options: JsonObject = {"apiVersion": "v1", "kind": "DeleteOptions"}
    if uid:
        options["preconditions"] = {"uid": uid}
    if grace_s is not None:
        options["gracePeriodSeconds"] = grace_s
    if propagation:
        options["propagationPolicy"] = propagation
    return options


def freed(view: PodView) -> JsonObject:
    """The strategic patch that takes our finalizer, and only ours, from exactly this pod, whatever others do to theirs
    meanwhile (a Job's controller does)."""
    return {"metadata": {"uid": view.uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER]}}


# --- parts of a pod ---------------------------------------------------------------------------------------------------


def _subdomain(plan: Plan) -> dict[str, str]:
    return {"subdomain": plan.service} if plan.has_service else {}


def _common_env(plan: Plan) -> dict[str, str]:
    return {"MUSTER_GROUP": plan.name, "MUSTER_WORLD_SIZE": str(plan.pods), ENV_TOKEN: plan.token}


def _metadata(plan: Plan, template: Mapping[str, Any], labels: dict[str, str]) -> JsonObject:
    written = mapping(template, "metadata")
    return {
        "labels": {**mapping(written, "labels"), **labels_of(plan), **labels},
        "annotations": {**mapping(written, "annotations"), **_guard_required(plan, written)},
        "finalizers": [*(one for one in texts(written, "finalizers") if one != FINALIZER), FINALIZER],
    }


def _guard_required(plan: Plan, written: Mapping[str, Any]) -> dict[str, str]:
    """A guard that is not there cannot keep a container from starting, so the runtime is told to do it in its place.

    Whoever the template requires besides stays. What it says of one container (`…/container.NAME`) or of the pod
    (`…/pod`) counts before what is said plainly, so the guard is named there too.
    """
    if not plan.guarded:
        return {}
    annotations = mapping(written, "annotations")
    keys = {REQUIRED_PLUGINS, *(key for key in annotations if key.startswith(f"{REQUIRED_PLUGINS}/"))}
    return {key: _with_guard(text(annotations, key)) for key in sorted(keys)}


def _with_guard(names: str) -> str:
    """A list in YAML, of either style, with the guard at its end."""
    return f"[{', '.join((*_PLUGIN_NAME.findall(names), GUARD_PLUGIN))}]"


def _pod_spec(plan: Plan, template: Mapping[str, Any], env: list[JsonObject], device: str) -> JsonObject:
    """The template's pod spec, made ours. A node name in it would start the pod before its gang."""
    written = {key: value for key, value in mapping(template, "spec").items() if key != "nodeName"}
    spec: JsonObject = {
        **written,
        "restartPolicy": written.get("restartPolicy") or "Never",  # a gang member that restarts alone helps nobody
        "schedulerName": SCHEDULER_NAME,
        "terminationGracePeriodSeconds": plan.grace_s,
        "tolerations": [*items(written, "tolerations"), GPU_TOLERATION],
    }
    for key in CONTAINERS:
        if key in written:
            spec[key] = [_with_env(container, env) for container in items(written, key)]
    if device and spec.get("containers") and not pod_amounts(spec).of(device):
        spec |= _asking_for({key: spec[key] for key in CONTAINERS if key in spec}, device)
    return spec


def _asking_for(containers: dict[str, list[JsonObject]], device: str) -> dict[str, list[JsonObject]]:
    """Who names an instance's profile gets it by the name that this node has for it, init containers and sidecars too;
    where nobody does, the first container gets it."""
    renamed = {key: [_renamed(one, device) for one in some] for key, some in containers.items()}
    if renamed != containers:
        return renamed
    first, *others = containers["containers"]
    return {"containers": [_with_device(first, device), *others]}


def _renamed(container: JsonObject, device: str) -> JsonObject:
    resources = mapping(container, "resources")
    kinds: JsonObject = {}
    for kind in ("requests", "limits"):
        asked = mapping(resources, kind)
        named = [name for name in asked if name.startswith(MIG_RESOURCE_PREFIX) and whole(asked, name)]
        if named:
            kept = {name: amount for name, amount in asked.items() if name not in named}
            kinds[kind] = {**kept, device: asked[named[0]]}
    return {**container, "resources": {**resources, **kinds}} if kinds else container


def _with_device(container: JsonObject, device: str) -> JsonObject:
    """The container with one device of a plug-in; what is a limit is a request as well."""
    resources = mapping(container, "resources")
    kinds = {kind: {**mapping(resources, kind), device: "1"} for kind in ("requests", "limits")}
    return {**container, "resources": {**resources, **kinds}}


def _with_env(container: Mapping[str, Any], env: list[JsonObject]) -> JsonObject:
    """Ours come last: of two variables with one name, Kubernetes takes the last."""
    ours = {one["name"] for one in env}
    kept = [one for one in items(container, "env") if one.get("name") not in ours]
    return {**container, "env": [*kept, *env]}
