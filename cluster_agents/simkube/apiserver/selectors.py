"""Label and field selectors of list and watch requests."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from cluster_agents.simkube.apiserver.statuses import bad_request
from cluster_agents.simkube.apiserver.types import JsonObject

SELECTORS_CACHED_MAX: Final = 4_096

FIELDS_OF_EVERY_RESOURCE: Final = frozenset({"metadata.name", "metadata.namespace"})
FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "pods": frozenset({"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "status.phase", "status.podIP"}),
    "nodes": frozenset({"spec.unschedulable"}),
    "events": frozenset({"involvedObject.kind", "involvedObject.name", "involvedObject.uid", "reason", "type"}),
    "jobs": frozenset({"status.successful"}),
    "namespaces": frozenset({"status.phase"}),
}

_REQUIREMENT = re.compile(
    r"\s*(?:(?P<absent>!)\s*(?P<absent_key>[^\s,=!()]+)"
    r"|(?P<set_key>[^\s,=!()]+)\s+(?P<set_op>in|notin)\s*\((?P<set_values>[^)]*)\)"
    r"|(?P<key>[^\s,=!()]+)\s*(?:(?P<op>==|=|!=)\s*(?P<value>[^\s,=!()]*))?)\s*(?:,|$)"
)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term: `operator` is In, NotIn, Exists or DoesNotExist."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def holds(self, value: str | None) -> bool:
        """Does the value found under `key` (None: no such key) satisfy the term?"""
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case _:
                return value is None


@dataclass(frozen=True, slots=True)
class Selector:
    """A label and a field selector together; empty ones match all."""

    labels: tuple[Requirement, ...] = ()
    fields: tuple[Requirement, ...] = ()

    @property
    def matches_all(self) -> bool:
        """True when there is nothing to check."""
        return not self.labels and not self.fields

    def matches(self, obj: JsonObject) -> bool:
        """Does the object satisfy every term?"""
        if self.labels:
            labels: Mapping[str, str] = obj["metadata"].get("labels") or {}
            for term in self.labels:
                if not term.holds(labels.get(term.key)):
                    return False
        return all(term.holds(_field(obj, term.key)) for term in self.fields)


@lru_cache(maxsize=SELECTORS_CACHED_MAX)
def selector_of(plural: str, labels: str, fields: str) -> Selector:
    """The parsed selectors of a request; RefusedError 400 when one cannot be read or names an unknown field."""
    known = FIELDS_OF_EVERY_RESOURCE | FIELDS.get(plural, frozenset())
    field_terms = _requirements(fields)
    for term in field_terms:
        if term.key not in known or term.operator not in {"In", "NotIn"}:
            raise bad_request(
                f'Unable to find "{plural}" that match field selector "{fields}": field label not supported'
            )
    return Selector(_requirements(labels), field_terms)


def _requirements(text: str) -> tuple[Requirement, ...]:
    terms: list[Requirement] = []
    at = 0
    while at < len(text):
        found = _REQUIREMENT.match(text, at)
        if found is None:
            raise bad_request(f'unable to parse requirement in selector "{text}"')
        terms.append(_requirement(found))
        at = found.end()
    return tuple(terms)


def _requirement(found: re.Match[str]) -> Requirement:
    if found["absent"]:
        return Requirement(found["absent_key"], "DoesNotExist")
    if found["set_op"]:
        values = frozenset(value.strip() for value in found["set_values"].split(","))
        return Requirement(found["set_key"], "In" if found["set_op"] == "in" else "NotIn", values)
    match found["op"]:
        case None:
            return Requirement(found["key"], "Exists")
        case "!=":
            return Requirement(found["key"], "NotIn", frozenset({found["value"]}))
        case _:
            return Requirement(found["key"], "In", frozenset({found["value"]}))


def _field(obj: JsonObject, path: str) -> str:
    """Field values are text, and an absent field is "" (so `spec.nodeName=` finds unbound pods)."""
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
