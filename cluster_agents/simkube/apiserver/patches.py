"""The three patch dialects as pure functions: the patched object is new, the old one untouched."""

from collections.abc import Mapping
from typing import Any, Final

from cluster_agents.simkube.apiserver.statuses import bad_request
from cluster_agents.simkube.apiserver.types import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, JsonObject, RefusedError

OPERATIONS_MAX: Final = 10_000  # the real server's limit on JSON patch operations

MERGE_KEYS: Final[Mapping[str, str]] = {
    "conditions": "type",
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "schedulingGates": "name",
    "ownerReferences": "uid",
    "addresses": "type",
}
"""Lists that a strategic patch merges entry by entry; every other list is replaced whole."""

MERGED_VALUES: Final = frozenset({"finalizers"})  # lists of plain values that a strategic patch unites

DELETE_PREFIX: Final = "$deleteFromPrimitiveList/"


def apply_patch(old: JsonObject, patch: Any, content_type: str) -> JsonObject:
    """The object after the patch. RefusedError 400, 415 or 422 when the patch is malformed or does not apply."""
    dialect = content_type.split(";", maxsplit=1)[0].strip()
    if dialect == JSON_PATCH:
        return _json_patch(old, patch)
    if dialect not in {MERGE_PATCH, STRATEGIC_PATCH}:
        raise RefusedError(415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {dialect}")
    if not isinstance(patch, dict):
        raise bad_request("a merge patch must be a JSON object")
    return merge_patch(old, patch) if dialect == MERGE_PATCH else strategic_patch(old, patch)


def merge_patch(old: JsonObject, patch: Mapping[str, Any]) -> JsonObject:
    """RFC 7396: null removes, objects merge, everything else replaces."""
    new = dict(old)
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        elif isinstance(value, dict):
            before = new.get(key)
            new[key] = merge_patch(before if isinstance(before, dict) else {}, value)
        else:
            new[key] = value
    return new


def strategic_patch(old: JsonObject, patch: Mapping[str, Any]) -> JsonObject:
    """Like a merge patch, except that the lists in MERGE_KEYS merge by key and finalizers unite."""
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    new = dict(old)
    for key, value in patch.items():
        if key.startswith(DELETE_PREFIX):
            _delete_values(new, key.removeprefix(DELETE_PREFIX), value)
        elif value is None:
            new.pop(key, None)
        elif isinstance(value, dict):
            before = new.get(key)
            new[key] = strategic_patch(before if isinstance(before, dict) else {}, value)
        elif isinstance(value, list) and key in MERGE_KEYS:
            new[key] = _merged_list(new.get(key) or [], value, MERGE_KEYS[key])
        elif isinstance(value, list) and key in MERGED_VALUES:
            before = new.get(key) or []
            new[key] = [*before, *(entry for entry in value if entry not in before)]
        elif not key.startswith("$"):
            new[key] = value
    return new


def _delete_values(new: JsonObject, key: str, values: list[Any]) -> None:
    kept = [entry for entry in new.get(key) or [] if entry not in values]
    if kept:
        new[key] = kept
    else:
        new.pop(key, None)


def _merged_list(before: list[Any], changes: list[Any], merge_key: str) -> list[Any]:
    if any(isinstance(entry, dict) and entry.get("$patch") == "replace" for entry in changes):
        return [entry for entry in changes if entry.get("$patch") != "replace"]
    merged = list(before)
    for change in changes:
        if not isinstance(change, dict) or merge_key not in change:
            raise bad_request(f"map: entry of a merged list lacks its merge key {merge_key}")
        at = next((i for i, entry in enumerate(merged) if entry.get(merge_key) == change[merge_key]), None)
        if change.get("$patch") == "delete":
            if at is not None:
                del merged[at]
        elif at is None:
            merged.append(change)
        else:
            merged[at] = strategic_patch(merged[at], change)
    return merged


def _json_patch(old: JsonObject, operations: Any) -> JsonObject:
    if not isinstance(operations, list):
        raise bad_request("a JSON patch must be a list of operations")
    if len(operations) > OPERATIONS_MAX:
        raise RefusedError(
            413, "RequestEntityTooLarge", f"the patch has {len(operations)} operations, {OPERATIONS_MAX} allowed"
        )
    new: Any = old
    for operation in operations:
        new = _operated(new, operation)
    if not isinstance(new, dict):
        raise _does_not_apply("the document is no longer an object")
    return new


def _operated(document: Any, operation: JsonObject) -> Any:
    path = _pointer(operation.get("path"))
    match operation.get("op"):
        case "add":
            return _edited(document, path, "add", operation.get("value"))
        case "replace":
            return _edited(document, path, "replace", operation.get("value"))
        case "remove":
            return _edited(document, path, "remove", None)
        case "test":
            if _found(document, path) != operation.get("value"):
                raise _does_not_apply(f"testing value {operation.get('path')} failed")
            return document
        case "copy":
            return _edited(document, path, "add", _found(document, _pointer(operation.get("from"))))
        case "move":
            source = _pointer(operation.get("from"))
            value = _found(document, source)
            return _edited(_edited(document, source, "remove", None), path, "add", value)
        case other:
            raise bad_request(f"unknown JSON patch operation {other!r}")


def _pointer(text: Any) -> list[str]:
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise bad_request(f"not a JSON pointer: {text!r}")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _found(document: Any, path: list[str]) -> Any:
    value = document
    for part in path:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise _does_not_apply(f"missing value at /{'/'.join(path)}")
    return value


def _edited(document: Any, path: list[str], act: str, value: Any) -> Any:
    """A copy of the document with one place edited; only the containers on the way are copied."""
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(document, dict):
        return _edited_object(document, head, rest, act, value)
    if isinstance(document, list):
        return _edited_list(document, head, rest, act, value)
    raise _does_not_apply(f"missing value at {head}")


def _edited_object(document: JsonObject, head: str, rest: list[str], act: str, value: Any) -> JsonObject:
    new = dict(document)
    if rest:
        if head not in new:
            raise _does_not_apply(f"missing value at {head}")
        new[head] = _edited(new[head], rest, act, value)
        return new
    if act != "add" and head not in new:
        raise _does_not_apply(f"missing value at {head}")
    if act == "remove":
        del new[head]
    else:
        new[head] = value
    return new


def _edited_list(document: list[Any], head: str, rest: list[str], act: str, value: Any) -> list[Any]:
    new = list(document)
    if head == "-" and act == "add" and not rest:
        return [*new, value]
    if not head.isdigit() or int(head) >= len(new) + (1 if act == "add" and not rest else 0):
        raise _does_not_apply(f"no such index: {head}")
    at = int(head)
    if rest:
        new[at] = _edited(new[at], rest, act, value)
    elif act == "add":
        new.insert(at, value)
    elif act == "remove":
        del new[at]
    else:
        new[at] = value
    return new


def _does_not_apply(why: str) -> RefusedError:
    return RefusedError(422, "Invalid", f"the server rejected our request due to an error in our request: {why}")
