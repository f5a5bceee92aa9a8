"""Which documents belong together: a PodGroup of another scheduler and the pods that name it are one submission.

Joined documents travel as one Kubernetes `v1` List. What a group means is its dialect's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from federation.manifests import foreign, kai, scheduler_plugins, upstream, volcano
from federation.manifests.foreign import MEMBER_KINDS, Dialect
from federation.manifests.strict import Document, ManifestError
from federation.manifests.wishes import mapping, optional
from placement.model import PodGroup

LIST: Final = ("v1", "List")
FOREIGN: Final[tuple[Dialect, ...]] = (
    upstream.DIALECT,
    upstream.DIALECT_EMBEDDED,
    scheduler_plugins.DIALECT,
    volcano.DIALECT,
    kai.DIALECT,
)
DIALECT_OF: Final = {kind: dialect for dialect in FOREIGN for kind in sorted(dialect.kinds)}


@dataclass(slots=True)
class _Group:
    """One gang in the making. `key` is (dialect, namespace, how pods name it)."""

    index: int
    document: Document
    members: list[Document] = field(default_factory=list)
    context: list[Document] = field(default_factory=list)


Key = tuple[int, str, str]


def kind_of(document: Mapping[str, Any]) -> tuple[str, str]:
    return str(document.get("apiVersion", "")), str(document.get("kind", ""))


def bundled(documents: Sequence[Document]) -> list[tuple[int, Document]]:
    """Every submission among `documents` with the index of the document that it begins with; related documents joined
    in a List. ManifestError for a group without pods, and for pods whose group is not there."""
    flat = _flattened(documents)
    groups = _groups_of(flat)
    alone: list[tuple[int, Document]] = []
    for index, document in flat:
        kind = kind_of(document)
        if kind in MEMBER_KINDS:
            group = _group_of(document, groups)
            if group is None:
                alone.append((index, document))
            else:
                group.members.append(document)
        elif kind in upstream.WORKLOADS:
            _add_context(document, groups)
        elif kind not in DIALECT_OF:
            alone.append((index, document))
    joined = [(group.index, _joined(group)) for group in groups.values()]
    return sorted([*alone, *joined], key=lambda one: one[0])


def read_joined(document: Document) -> PodGroup:
    """The PodGroup of a List that `bundled` made."""
    items = document["items"]
    group, dialect = items[0], DIALECT_OF[kind_of(items[0])]
    if dialect is upstream.DIALECT_EMBEDDED:
        group = upstream.only_group(group)
    members = [item for item in items[1:] if kind_of(item) in MEMBER_KINDS]
    context = [item for item in items[1:] if kind_of(item) in upstream.WORKLOADS]
    return foreign.read(dialect, group, members, context)


def _flattened(documents: Sequence[Document]) -> list[tuple[int, Document]]:
    """Lists are taken apart; one level, as Kubernetes nests them."""
    flat: list[tuple[int, Document]] = []
    for index, document in enumerate(documents):
        if kind_of(document) != LIST:
            flat.append((index, document))
            continue
        items = document.get("items")
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise ManifestError("BadType", "items is a list of objects", "items")
        flat += [(index, item) for item in items]
    return flat


def _groups_of(flat: Sequence[tuple[int, Document]]) -> dict[Key, _Group]:
    groups: dict[Key, _Group] = {}
    for index, document in flat:
        dialect = DIALECT_OF.get(kind_of(document))
        if dialect is None:
            continue
        name = str(mapping(document, "metadata").get("name", ""))
        embedded = dialect is upstream.DIALECT_EMBEDDED
        for link, one in upstream.groups_within(document) if embedded else [(name, document)]:
            key = (FOREIGN.index(dialect), _namespace(document), link)
            if key in groups:
                raise ManifestError("DuplicateKey", f"{document['kind']} {link!r} is there twice", "metadata.name")
            groups[key] = _Group(index, one)
    return groups


def _group_of(member: Document, groups: Mapping[Key, _Group]) -> _Group | None:
    """The group that a Pod, PodTemplate or Job names; None for a Job that needs none."""
    named: list[tuple[Dialect, str]] = []
    template = _template_of(member)
    for number, dialect in enumerate(FOREIGN):
        link = dialect.link_of(template)
        if link and (found := groups.get((number, _namespace(member), link))) is not None:
            return found
        if link:
            named.append((dialect, link))
    kind, name = str(member.get("kind")), optional(member, "metadata", "metadata").get("name", "")
    if kind == "Job":
        return None
    if named:
        dialect, link = named[0]
        raise ManifestError("NoGroup", f"{kind} {name!r} names {link!r}, which is not here", dialect.link)
    detail = f"{kind} {name!r} names no group; write a Job, or add the PodGroup it belongs to"
    raise ManifestError("NoGroup", detail, "kind")


def _template_of(member: Document) -> dict[str, Any]:
    match member.get("kind"):
        case "Job":
            return optional(optional(member, "spec", "spec"), "template", "spec.template")
        case "PodTemplate":
            return optional(member, "template", "template")
        case _:
            return member


def _add_context(workload: Document, groups: Mapping[Key, _Group]) -> None:
    """A Workload belongs to every PodGroup that was made from it."""
    name = mapping(workload, "metadata").get("name")
    users = [group for group in groups.values() if upstream.workload_of(group.document) == name]
    if not users:
        detail = f"no PodGroup here was made from Workload {name!r}; add the PodGroup and its pods"
        raise ManifestError("NoGroup", detail, "kind")
    for group in users:
        group.context.append(workload)


def _joined(group: _Group) -> Document:
    if not group.members:
        document = group.document
        link = DIALECT_OF[kind_of(document)].link
        detail = f"{document['kind']} {mapping(document, 'metadata').get('name')!r} has no pods with it; "
        detail += f"add Pods, a PodTemplate or a Job that name it by {link}"
        raise ManifestError("NoPods", detail, "kind")
    return {"apiVersion": "v1", "kind": "List", "items": [group.document, *group.members, *group.context]}


def _namespace(document: Mapping[str, Any]) -> str:
    metadata = document.get("metadata")
    return str(metadata.get("namespace", "default")) if isinstance(metadata, dict) else "default"
