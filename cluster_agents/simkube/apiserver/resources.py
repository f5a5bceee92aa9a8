"""Which resources the simulated API server serves, and how a URL path names one."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

PATHS_CACHED_MAX: Final = 65_536  # a 5,000-node cluster has some ten thousand object paths in use


@dataclass(frozen=True, slots=True)
class Resource:
    """One served resource: its names and its subresources."""

    plural: str
    kind: str
    group: str
    version: str
    namespaced: bool
    subresources: frozenset[str] = frozenset()

    @property
    def api_version(self) -> str:
        """`v1` for the core group, else `group/version`."""
        return f"{self.group}/{self.version}" if self.group else self.version


def _core(plural: str, kind: str, *subresources: str, namespaced: bool = True) -> Resource:
    return Resource(plural, kind, "", "v1", namespaced, frozenset(subresources))


RESOURCES: Final[dict[str, Resource]] = {
    resource.plural: resource
    for resource in (
        _core("namespaces", "Namespace", "status", "finalize", namespaced=False),
        _core("nodes", "Node", "status", namespaced=False),
        _core("pods", "Pod", "status", "binding", "eviction"),
        _core("services", "Service", "status"),
        _core("configmaps", "ConfigMap"),
        _core("events", "Event"),
        Resource("leases", "Lease", "coordination.k8s.io", "v1", namespaced=True),
        Resource("jobs", "Job", "batch", "v1", namespaced=True, subresources=frozenset({"status"})),
    )
}

BINDINGS: Final = "bindings"  # POST namespaces/x/bindings: the same act as pods/{name}/binding


@dataclass(frozen=True, slots=True)
class Route:
    """What a path names. `namespace` "" means all of them (or a resource without namespaces)."""

    resource: Resource
    namespace: str
    name: str
    subresource: str

    @property
    def label(self) -> str:
        """`pods` or `pods/binding`: how faults and logs name it."""
        return f"{self.resource.plural}/{self.subresource}" if self.subresource else self.resource.plural


@lru_cache(maxsize=PATHS_CACHED_MAX)
def route_of(path: str) -> Route | None:
    """The route of a path, or None when nothing is served there."""
    parts = [part for part in path.split("/") if part]
    if parts[:2] == ["api", "v1"]:
        group, rest = "", parts[2:]
    elif len(parts) >= 3 and parts[0] == "apis":
        group, rest = parts[1], parts[3:]
    else:
        return None
    route = _route_of_parts(rest)
    if route is None or route.resource.group != group:
        return None
    if group and parts[2] != route.resource.version:
        return None
    return route


def _route_of_parts(parts: list[str]) -> Route | None:
    namespace = ""
    # `namespaces/x` and `namespaces/x/status` name the namespace itself; `namespaces/x/pods` names what is in it.
    if len(parts) >= 3 and parts[0] == "namespaces" and parts[2] not in RESOURCES["namespaces"].subresources:
        namespace, parts = parts[1], parts[2:]
    if parts == [BINDINGS] and namespace:
        return Route(RESOURCES["pods"], namespace, "", "binding")
    if not 1 <= len(parts) <= 3 or parts[0] not in RESOURCES:
        return None
    resource = RESOURCES[parts[0]]
    name = parts[1] if len(parts) > 1 else ""
    subresource = parts[2] if len(parts) > 2 else ""
    if namespace and not resource.namespaced:
        return None
    if name and resource.namespaced and not namespace:
        return None
    if subresource and subresource not in resource.subresources:
        return None
    return Route(resource, namespace, name, subresource)


def discovery(path: str) -> dict[str, object] | None:
    """The discovery document at `path`, or None: /version, /api, /api/v1, /apis, /apis/{group}/{version}."""
    parts = [part for part in path.split("/") if part]
    groups = sorted({r.group for r in RESOURCES.values() if r.group})
    match parts:
        case ["version"]:
            return {"major": "1", "minor": "37", "gitVersion": "v1.37.1+simkube", "platform": "simkube"}
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in groups]}
        case ["api", "v1"]:
            return _resource_list("", "v1")
        case ["apis", group, "v1"] if group in groups:
            return _resource_list(group, f"{group}/v1")
        case ["apis", group] if group in groups:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group)}
        case _:
            return None


def _group(name: str) -> dict[str, object]:
    version = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {"name": name, "versions": [version], "preferredVersion": version}


def _resource_list(group: str, group_version: str) -> dict[str, object]:
    verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    entries: list[dict[str, object]] = []
    for resource in RESOURCES.values():
        if resource.group != group:
            continue
        names = [resource.plural, *(f"{resource.plural}/{sub}" for sub in sorted(resource.subresources))]
        entries += [
            {"name": n, "kind": resource.kind, "namespaced": resource.namespaced, "verbs": verbs} for n in names
        ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": entries}
