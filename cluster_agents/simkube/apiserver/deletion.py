"""Deletes: preconditions, grace of bound pods, finalizers, and what happens to dependents.

"Deleted" is not "stopped": a bound pod's object stays, with a deletionTimestamp, until its kubelet confirms.
"""

from dataclasses import dataclass
from typing import Any, Final

from cluster_agents.simkube.apiserver import metadata, pods, statuses
from cluster_agents.simkube.apiserver.resources import Route
from cluster_agents.simkube.apiserver.store import Key, Store
from cluster_agents.simkube.apiserver.times import rfc3339
from cluster_agents.simkube.apiserver.types import ApiRequest, ApiResponse, JsonObject

FOREGROUND: Final = "foregroundDeletion"
ORPHAN: Final = "orphan"
POLICIES: Final = frozenset({"Foreground", "Background", "Orphan"})


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """What a delete asks for; None means the default of the kind."""

    grace_s: int | None
    uid: str | None
    version: str | None
    policy: str | None


def options_of(request: ApiRequest) -> DeleteOptions:
    """The options from body and query, as kubectl and client libraries send them."""
    body: JsonObject = request.body if isinstance(request.body, dict) else {}
    preconditions: JsonObject = body.get("preconditions") or {}
    grace: Any = body.get("gracePeriodSeconds", request.query.get("gracePeriodSeconds"))
    policy = body.get("propagationPolicy") or request.query.get("propagationPolicy")
    if policy is not None and policy not in POLICIES:
        raise statuses.invalid("DeleteOptions", "", "propagationPolicy", f"Unsupported value: {policy!r}")
    try:
        grace_s = None if grace is None else int(grace)
    except (TypeError, ValueError):
        raise statuses.bad_request(f"gracePeriodSeconds is not a number: {grace!r}") from None
    return DeleteOptions(grace_s, preconditions.get("uid"), preconditions.get("resourceVersion"), policy)


def delete(store: Store, route: Route, options: DeleteOptions) -> ApiResponse:
    """Carry out one delete. Afterwards the object is gone, or is marked with a deletionTimestamp."""
    plural, key = route.resource.plural, (route.namespace, route.name)
    obj = store.get(plural, key)
    if obj is None:
        raise statuses.not_found(plural, route.name)
    metadata.check_preconditions(route, obj, {"uid": options.uid, "resourceVersion": options.version})
    if plural == "namespaces":
        return ApiResponse(200, _terminate_namespace(store, route, obj))
    wanted = _finalizers_for(plural, options.policy)
    finalizers = list(obj["metadata"].get("finalizers") or ())
    finalizers += [f for f in wanted if f not in finalizers]
    grace_s = _grace_s(obj, options.grace_s) if plural == "pods" else 0
    if grace_s == 0 and not finalizers:
        if plural == "pods":  # whose end is told of before they are gone
            _marked(store, route, obj, grace_s, finalizers)
            return ApiResponse(200, store.remove(plural, key))
        last = store.remove(plural, key)
        return ApiResponse(200, statuses.success(200, kind=plural, name=route.name, uid=last["metadata"]["uid"]))
    return ApiResponse(200, _marked(store, route, obj, grace_s, finalizers))


def _finalizers_for(plural: str, policy: str | None) -> tuple[str, ...]:
    if policy == "Foreground":
        return (FOREGROUND,)
    # batch/v1 Jobs keep the old default: a delete that names no policy orphans the pods.
    if policy == "Orphan" or (policy is None and plural == "jobs"):
        return (ORPHAN,)
    return ()


def _grace_s(pod: JsonObject, asked_s: int | None) -> int:
    """The grace a delete gives this pod: none if no kubelet runs it, else as asked, else the pod's own."""
    if not pod["spec"].get("nodeName") or pods.is_terminal(pod):
        return 0
    if asked_s is None:
        own: int = pod["spec"].get("terminationGracePeriodSeconds", pods.GRACE_DEFAULT_S)
        asked_s = own
    return 1 if asked_s < 0 else asked_s


def _marked(store: Store, route: Route, obj: JsonObject, grace_s: int, finalizers: list[str]) -> JsonObject:
    """The object marked for deletion. A mark already there only ever moves nearer."""
    sent = obj["metadata"]
    marked_s: int | None = sent.get("deletionGracePeriodSeconds") if "deletionTimestamp" in sent else None
    if marked_s is not None and marked_s <= grace_s and finalizers == (sent.get("finalizers") or []):
        return obj
    if marked_s is not None:
        grace_s = min(grace_s, marked_s)
    keep_stamp = marked_s == grace_s
    stamp = sent["deletionTimestamp"] if keep_stamp else rfc3339(store.unix_s(store.now_s) + grace_s)
    new = metadata.with_metadata(
        obj,
        deletionTimestamp=stamp,
        deletionGracePeriodSeconds=grace_s,
        finalizers=finalizers or None,
    )
    return store.put(route.resource, new)


def _terminate_namespace(store: Store, route: Route, obj: JsonObject) -> JsonObject:
    if "deletionTimestamp" in obj["metadata"]:
        return obj
    new = metadata.with_metadata(obj, deletionTimestamp=store.now_text)
    return store.put(route.resource, {**new, "status": {**new.get("status", {}), "phase": "Terminating"}})


def finished(obj: JsonObject) -> bool:
    """True when nothing keeps a marked object any longer: no finalizer, and no grace that a kubelet must confirm."""
    sent = obj["metadata"]
    if "deletionTimestamp" not in sent or sent.get("finalizers"):
        return False
    return not sent.get("deletionGracePeriodSeconds")


def force(store: Store, route: Route, key: Key) -> None:
    """Delete without grace, as controllers do (pod GC, namespace controller); finalizers still keep the object."""
    obj = store.get(route.resource.plural, key)
    if obj is not None:
        keyed = Route(route.resource, key[0], key[1], "")
        delete(store, keyed, DeleteOptions(0, obj["metadata"]["uid"], None, "Background"))
