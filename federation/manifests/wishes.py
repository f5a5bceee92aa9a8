"""Muster's own wishes on other people's objects: annotations (or labels) `muster.io/<wish>`; and reading mappings.

What a wish means is the model's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from federation.manifests.strict import ManifestError, read_json

PREFIX: Final = "muster.io/"
COUNT: Final = "count"  # of a PodTemplate only, which has no count of its own

_WISHES: Final = frozenset(
    {
        *("queue", "priority", "min_count", "products", "clusters", "topology_required", "topology_preferred"),
        *("disruption_mode", "preemption_policy", "disconnect_policy", "failure_spread"),
        *("max_run_s", "run_time_estimate_s", "ready_within_s", "start_by_s"),
    }
)
_INTEGERS: Final = ("priority", "min_count", "max_run_s", "run_time_estimate_s", "ready_within_s", "start_by_s")


def wishes_of(metadata: Mapping[str, Any], *, besides: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The wishes on an object as fields of the model, `products` as a list; ManifestError for one we do not know."""
    wishes: dict[str, Any] = {}
    for key, value in sorted({**texts(metadata, "annotations"), **texts(metadata, "labels")}.items()):
        name = key.removeprefix(PREFIX).replace("-", "_")
        if not key.startswith(PREFIX) or name in besides:
            continue
        if name not in _WISHES:
            known = ", ".join(sorted(_WISHES)).replace("_", "-")
            raise ManifestError("UnknownField", f"unknown wish; known: {known}", f"metadata.annotations.{key}")
        wishes[name] = value
    for name in _INTEGERS:
        if name in wishes:
            wishes[name] = integer(wishes[name], f"metadata.annotations.{PREFIX}{name.replace('_', '-')}")
    topology = {
        name: wishes.pop(f"topology_{name}") for name in ("required", "preferred") if f"topology_{name}" in wishes
    }
    if topology:
        wishes["topology"] = topology
    if "clusters" in wishes:
        wishes["clusters"] = read_json(str(wishes["clusters"]).encode())
    if "products" in wishes:
        wishes["products"] = [part for part in str(wishes["products"]).split(",") if part]
    return wishes


def own_labels(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The object's labels without wishes."""
    return {key: value for key, value in texts(metadata, "labels").items() if not key.startswith(PREFIX)}


def integer(text: object, where: str) -> int:
    """The whole number that an annotation spells."""
    try:
        return int(str(text))
    except ValueError:
        raise ManifestError("BadValue", f"{text!r} is not a whole number", where) from None


def texts(metadata: Mapping[str, Any], key: str) -> dict[str, str]:
    """Labels or annotations; absent and null are none. What the values are is the model's business."""
    found = metadata.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ManifestError("BadType", f"{key} is a mapping", f"metadata.{key}")
    return found


def mapping(parent: Mapping[str, Any], key: str, where: str = "") -> dict[str, Any]:
    """A mapping that must be there."""
    value = parent.get(key)
    if not isinstance(value, dict):
        raise ManifestError("MissingField", f"{where or key} is a mapping", where or key)
    return value


def optional(parent: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """A mapping that may be absent or null."""
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ManifestError("BadType", f"{key} is a mapping", where)
    return value


def sequence(parent: Mapping[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    """A list of mappings; absent is empty."""
    value = parent.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ManifestError("BadType", f"{key} is a list of mappings", where)
    return value


def only(fields: Mapping[str, Any], known: frozenset[str], where: str, *, not_taken: frozenset[str]) -> None:
    """Every field is one that is read. One that Muster cannot honour is told apart from a misspelt one."""
    for name in sorted(fields):
        place = f"{where}.{name}" if where else name
        if name in not_taken and fields[name]:
            raise ManifestError("NotTaken", "Muster cannot honour this field", place)
        if name not in known and name not in not_taken:
            raise ManifestError("UnknownField", f"unknown field {name!r}", place)
