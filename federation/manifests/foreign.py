"""Other schedulers' PodGroups with the pods that name them: one submission out of several documents.

Each dialect says what a group's spec means and how a pod names its group; joining the two is done here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from federation.manifests import batch_job
from federation.manifests.strict import Document, ManifestError
from federation.manifests.wishes import COUNT, PREFIX, integer, mapping, optional, own_labels, texts, wishes_of
from placement.model import PodGroup

ROLE_OTHERWISE: Final = "worker"
MEMBER_KINDS: Final = {("v1", "Pod"), ("v1", "PodTemplate"), ("batch/v1", "Job")}
_SCHEDULER_FIELDS: Final = frozenset({"schedulerName", "schedulingGroup", "workloadRef", "nodeName"})


@dataclass(frozen=True, slots=True)
class Terms:
    """What a foreign PodGroup asks for: fields of the model, and the least pods of single roles."""

    fields: dict[str, Any]
    role_min: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one scheduler writes gangs. `link_of` and `role_of` read a pod, or a template with metadata and spec."""

    kinds: frozenset[tuple[str, str]]
    link: str  # how a pod names its group, for people
    terms_of: Callable[[Document, Sequence[Document]], Terms]
    link_of: Callable[[Mapping[str, Any]], str]
    role_of: Callable[[Mapping[str, Any]], str] = lambda _: ""
    marks: frozenset[str] = frozenset()  # labels and annotations that mean nothing once the group is ours


def read(dialect: Dialect, group: Document, members: Sequence[Document], context: Sequence[Document]) -> PodGroup:
    """`group` and the pods (or the Job) that name it. `context`: other objects of the dialect beside them."""
    metadata = mapping(group, "metadata")
    terms = dialect.terms_of(group, context)
    wishes = wishes_of(metadata)
    products = wishes.pop("products", None)
    wanted = terms.fields.get("min_count")
    pods = _of_members(dialect, members, wanted if isinstance(wanted, int) else 1)
    for role in pods["roles"]:
        if products is not None:
            role.setdefault("products", products)
        if role["name"] in terms.role_min:
            role["min_count"] = terms.role_min[role["name"]]
    return PodGroup.model_validate(
        {
            **pods,
            "name": metadata.get("name"),
            "namespace": metadata.get("namespace", "default"),
            "labels": {**pods.get("labels", {}), **own_labels(metadata)},
            **terms.fields,
            **wishes,
        }
    )


def priority_fields(spec: Mapping[str, Any], group: Document) -> dict[str, Any]:
    """The group's priority. A class cannot be read: what it is worth differs by cluster."""
    name = spec.get("priorityClassName")
    wished = f"{PREFIX}priority" in texts(mapping(group, "metadata"), "annotations")
    if name and not wished and "priority" not in spec:
        detail = f"what class {name!r} is worth differs by cluster; say {PREFIX}priority as a number"
        raise ManifestError("NotTaken", detail, "spec.priorityClassName")
    return {"priority": spec["priority"]} if "priority" in spec else {}


# --- members ---------------------------------------------------------------------------------------------------------


def _of_members(dialect: Dialect, members: Sequence[Document], min_count: int) -> dict[str, Any]:
    """Roles, grace and workload, from Pods, a PodTemplate, or one Job."""
    jobs = [member for member in members if member.get("kind") == "Job"]
    if not jobs:
        return _of_pods(dialect, members, min_count)
    if len(members) > 1:
        raise ManifestError("NotTaken", "a group has one Job, or Pods, or PodTemplates: not several of these", "kind")
    document = jobs[0]
    template = mapping(mapping(document, "spec"), "template", "spec.template")
    freed = {**document["spec"], "template": _freed(dialect, template)}
    fields = batch_job.fields_of({**document, "metadata": _unmarked(dialect, document), "spec": freed})
    del fields["name"], fields["namespace"]
    return fields


def _of_pods(dialect: Dialect, members: Sequence[Document], min_count: int) -> dict[str, Any]:
    """Equal templates are one role, in the order in which they come."""
    roles: dict[str, dict[str, Any]] = {}
    for member in members:
        template, count = _template_of(member, min_count)
        name = dialect.role_of(template)
        free = _freed(dialect, template)
        key = json.dumps([name, free], sort_keys=True, default=str)
        known = roles.setdefault(key, {"name": name, "count": 0, "template": free})
        known["count"] += count
    _name(list(roles.values()))
    graces = [batch_job.grace_of(role["template"], "template") for role in roles.values()]
    whole = all(isinstance(grace, int) for grace in graces)
    return {"roles": list(roles.values()), "grace_s": max(graces) if whole else graces[0]}


def _template_of(member: Document, min_count: int) -> tuple[dict[str, Any], int]:
    if member.get("kind") == "PodTemplate":
        notes = texts(optional(member, "metadata", "metadata"), "annotations")
        count = notes.get(f"{PREFIX}{COUNT}")
        template = mapping(member, "template")
        return template, min_count if count is None else integer(count, f"metadata.annotations.{PREFIX}{COUNT}")
    metadata = optional(member, "metadata", "metadata")
    kept = {key: metadata[key] for key in ("labels", "annotations") if metadata.get(key)}
    return {"metadata": kept, "spec": mapping(member, "spec")}, 1


def _name(roles: list[dict[str, Any]]) -> None:
    """Roles without a name of their own are called worker, or worker-1, worker-2 and so on."""
    unnamed = [role for role in roles if not role["name"]]
    for number, role in enumerate(unnamed, start=1):
        role["name"] = ROLE_OTHERWISE if len(unnamed) == 1 else f"{ROLE_OTHERWISE}-{number}"


def _freed(dialect: Dialect, template: Mapping[str, Any]) -> dict[str, Any]:
    """The template without what makes it the other scheduler's: there is no such group in the member cluster."""
    spec = {key: value for key, value in mapping(template, "spec").items() if key not in _SCHEDULER_FIELDS}
    return {"metadata": _unmarked(dialect, template), "spec": spec}


def _unmarked(dialect: Dialect, thing: Mapping[str, Any]) -> dict[str, Any]:
    """Its metadata without the other scheduler's marks."""
    metadata = optional(thing, "metadata", "metadata")
    marks = {
        key: {mark: value for mark, value in texts(metadata, key).items() if mark not in dialect.marks}
        for key in ("labels", "annotations")
        if metadata.get(key)
    }
    return {**metadata, **marks}
