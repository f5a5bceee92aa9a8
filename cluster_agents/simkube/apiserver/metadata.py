"""What the API server does to and demands of every object's metadata, whatever its kind."""

import re
from typing import Any, Final

from cluster_agents.simkube.apiserver import statuses
from cluster_agents.simkube.apiserver.resources import Resource, Route
from cluster_agents.simkube.apiserver.store import NAME_SUFFIX_LENGTH, Store
from cluster_agents.simkube.apiserver.types import JsonObject

NAME_LENGTH_MAX: Final = 253
LABEL_VALUE_LENGTH_MAX: Final = 63
ANNOTATIONS_BYTES_MAX: Final = 256 * 1024

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")

SET_BY_SERVER: Final = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
"""Metadata that a client's update cannot change; what it sends there is ignored."""


CHECKED: Final = ("labels", "annotations")
"""Metadata that an update may change and that is looked at; what was looked at before is not looked at again."""


def created(store: Store, route: Route, body: JsonObject) -> JsonObject:
    """The object to store for a create: named, with its server-set metadata. Refuses bad names, labels and versions."""
    resource = route.resource
    sent: JsonObject = body.get("metadata") or {}
    namespace = sent.get("namespace") or route.namespace
    if resource.namespaced and namespace != route.namespace:
        raise statuses.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    if sent.get("resourceVersion"):
        raise statuses.bad_request("resourceVersion should not be set on objects to be created")
    name = sent.get("name") or _generated_name(store, sent.get("generateName"), resource)
    metadata = {key: value for key, value in sent.items() if key not in SET_BY_SERVER}
    metadata |= {"name": name, "uid": store.fresh_uid(), "creationTimestamp": store.now_text}
    if resource.namespaced:
        metadata["namespace"] = route.namespace
    check(resource, metadata)
    return {**body, "kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}


def _generated_name(store: Store, prefix: str | None, resource: Resource) -> str:
    if not prefix:
        raise statuses.invalid(resource.kind, "", "metadata.name", "Required value: name or generateName is required")
    return prefix[: NAME_LENGTH_MAX - NAME_SUFFIX_LENGTH] + store.fresh_suffix()


def check(resource: Resource, metadata: JsonObject) -> None:
    """Refuse (422) a name, label or annotation size that Kubernetes refuses."""
    name = metadata["name"]
    if len(name) > NAME_LENGTH_MAX or not _NAME.fullmatch(name):
        raise statuses.invalid(resource.kind, name, "metadata.name", f"Invalid value: {name!r}: not an RFC 1123 name")
    for key, value in (metadata.get("labels") or {}).items():
        if not isinstance(value, str) or len(value) > LABEL_VALUE_LENGTH_MAX or not _LABEL_VALUE.fullmatch(value):
            raise statuses.invalid(resource.kind, name, "metadata.labels", f"Invalid value: {value!r}: {key}")
        if not _LABEL_KEY.fullmatch(key):
            raise statuses.invalid(resource.kind, name, "metadata.labels", f"Invalid value: {key!r}: not a label key")
    size = 0
    for key, value in (metadata.get("annotations") or {}).items():
        if not isinstance(value, str):
            raise statuses.bad_request(f"annotation {key} must be a string")
        size += len(key) + len(value.encode())
    if size > ANNOTATIONS_BYTES_MAX:
        why = f"Too long: {size} bytes, may not be more than {ANNOTATIONS_BYTES_MAX}"
        raise statuses.invalid(resource.kind, name, "metadata.annotations", why)


def check_preconditions(route: Route, old: JsonObject, sent: JsonObject) -> None:
    """Refuse (409) a uid or resourceVersion that is not the object's."""
    metadata = old["metadata"]
    uid, version = sent.get("uid"), sent.get("resourceVersion")
    if uid and uid != metadata["uid"]:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {metadata['uid']}"
        raise statuses.conflict(route.label, metadata["name"], why)
    if version and version != metadata["resourceVersion"]:
        raise statuses.modified(route.label, metadata["name"])


def check_identity(route: Route, old: JsonObject, patched: JsonObject) -> None:
    """Refuse (422) a patch to another uid: only updates and deletes take it for a precondition."""
    uid = (patched.get("metadata") or {}).get("uid")
    if uid and uid != old["metadata"]["uid"]:
        why = f'Invalid value: "{uid}": field is immutable'
        raise statuses.invalid(route.resource.kind, old["metadata"]["name"], "metadata.uid", why)


def updated(route: Route, old: JsonObject, new: JsonObject) -> JsonObject:
    """`new` with server-set metadata taken from `old`. Refuses stale, renamed and re-finalized objects."""
    before, sent = old["metadata"], new.get("metadata") or {}
    if sent.get("name", before["name"]) != before["name"]:
        raise statuses.bad_request("the name of the object does not match the name on the URL")
    if sent.get("namespace", before.get("namespace")) != before.get("namespace"):
        raise statuses.bad_request("the namespace of the object does not match the namespace on the URL")
    check_preconditions(route, old, sent)
    metadata = {key: value for key, value in sent.items() if key not in SET_BY_SERVER}
    metadata |= {key: before[key] for key in (*SET_BY_SERVER, "name", "namespace") if key in before}
    metadata["resourceVersion"] = before["resourceVersion"]
    if any(metadata.get(part) != before.get(part) for part in CHECKED):
        check(route.resource, metadata)
    _check_finalizers(route, before, metadata)
    return {**new, "kind": old["kind"], "apiVersion": old["apiVersion"], "metadata": metadata}


def _check_finalizers(route: Route, before: JsonObject, after: JsonObject) -> None:
    if "deletionTimestamp" not in before:
        return
    added = [f for f in after.get("finalizers") or () if f not in (before.get("finalizers") or ())]
    if added:
        why = f"Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers {added}"
        raise statuses.invalid(route.resource.kind, before["name"], "metadata.finalizers", why)


def with_metadata(obj: JsonObject, **changes: Any) -> JsonObject:
    """A copy with metadata fields set; a value of None removes the field."""
    metadata = {**obj["metadata"], **changes}
    return {**obj, "metadata": {key: value for key, value in metadata.items() if value is not None}}


def controller_of(obj: JsonObject) -> JsonObject | None:
    """The owner reference marked as controller, or None."""
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            found: JsonObject = owner
            return found
    return None
