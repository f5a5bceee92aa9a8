"""The API server as one pure object: requests in, responses out, and controllers that move when `step` is called.

Time is an argument. Nothing here sleeps, draws or listens; the HTTP shell and the deterministic world drive it.
"""

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from cluster_agents.simkube.apiserver import deletion, jobs, metadata, patches, pods, statuses
from cluster_agents.simkube.apiserver.audit import Audit, LoggedRequest
from cluster_agents.simkube.apiserver.controllers import ROUNDS_MAX, Controllers
from cluster_agents.simkube.apiserver.controllers.job_controller import BACKOFF_BASE_S
from cluster_agents.simkube.apiserver.faults import FailRule, Faults
from cluster_agents.simkube.apiserver.resources import RESOURCES, Route, discovery, route_of
from cluster_agents.simkube.apiserver.selectors import Selector, selector_of
from cluster_agents.simkube.apiserver.store import Backup, Change, Key, Store
from cluster_agents.simkube.apiserver.times import EPOCH_OFFSET_S
from cluster_agents.simkube.apiserver.types import (
    ApiRequest,
    ApiResponse,
    Gone,
    JsonObject,
    RefusedError,
    WatchEvent,
)

WATCH_EVENTS_MAX: Final = 10_000  # events in one answer of `events_since`; a slow watcher asks again
LIST_SNAPSHOTS_MAX: Final = 64  # paged lists that may be under way at once; older continue tokens are Expired
CONFIGMAP_BYTES_MAX: Final = 1_048_576  # Kubernetes' own limit, which the ledger must live with
BODY_BYTES_MAX: Final = 1_572_864  # etcd's request limit

NAMESPACES_AT_START: Final = ("default", "kube-system", "kube-node-lease", "kube-public")

VERBS: Final[Mapping[tuple[str, bool], str]] = {
    ("GET", True): "get",
    ("GET", False): "list",
    ("POST", True): "create",
    ("POST", False): "create",
    ("PUT", True): "update",
    ("PATCH", True): "patch",
    ("DELETE", True): "delete",
    ("DELETE", False): "deletecollection",
}


@dataclass(frozen=True, slots=True)
class _Page:
    """What is left of a paged list: its objects and the revision they are of."""

    revision: int
    objects: tuple[JsonObject, ...]


class ApiServer:
    """One member cluster's API server with its controllers. Objects it returns must not be mutated.

    `name` seeds every uid, among them that of namespace kube-system, the identity of the cluster.
    """

    def __init__(
        self,
        name: str,
        *,
        now_s: float = 0.0,
        epoch_offset_s: float = EPOCH_OFFSET_S,
        job_back_off_s: float = BACKOFF_BASE_S,
    ) -> None:
        self.name = name
        self._job_back_off_s = job_back_off_s
        self.store = Store(name, epoch_offset_s=epoch_offset_s)
        self.store.now_s = now_s
        self.faults = Faults()
        self.audit = Audit()
        self.controllers = Controllers(self.store, job_back_off_s)
        self.on_change: Callable[[Change], None] | None = None  # the shell's write-ahead log
        self._pages: dict[str, _Page] = {}
        for namespace in NAMESPACES_AT_START:
            self.store.put(RESOURCES["namespaces"], _namespace(self.store, namespace))
        self._settle()

    @property
    def latest_resource_version(self) -> int:
        """The revision of the newest write."""
        return self.store.revision

    @property
    def wake_at_s(self) -> float | None:
        """When a controller next wants a `step` though nothing is written; None for never."""
        return self.controllers.wake_at_s

    def handle(self, request: ApiRequest, now_s: float) -> ApiResponse:
        """Carry out one request. Controllers have seen its effects only after the next `step`."""
        self.store.now_s = now_s
        route = route_of(request.path)
        label = route.label if route else ""
        response = self._answer(request, route)
        self.audit.note_request(LoggedRequest(now_s, request.method, request.path, label, response.status))
        return response

    def step(self, now_s: float) -> None:
        """Let the controllers act on everything written so far and on the time. Cheap when nothing is due."""
        self.store.now_s = now_s
        self._settle()
        for _ in range(ROUNDS_MAX):
            at_s = self.controllers.wake_at_s
            if at_s is None or at_s > now_s:
                return
            self.controllers.step(now_s)
            self._settle()
        raise AssertionError(f"controllers of {self.name} did not come to rest in {ROUNDS_MAX} rounds")

    def _settle(self) -> None:
        """Hand new changes to controllers, audit and log, once each."""
        while self.store.unseen:
            changes, self.store.unseen = self.store.unseen, []
            for change in changes:
                self.controllers.observe(change)
                if change.plural == "pods":
                    self.audit.note_change(change)
                if self.on_change is not None:
                    self.on_change(change)

    # --- requests -----------------------------------------------------------------------------------------------------

    def _answer(self, request: ApiRequest, route: Route | None) -> ApiResponse:
        if route is None:
            document = discovery(request.path) if request.method == "GET" else None
            if document is not None:
                return ApiResponse(200, document)
            return ApiResponse(404, statuses.failure(404, "the server could not find the requested resource"))
        verb = VERBS.get((request.method, bool(route.name)))
        if verb is None:
            return ApiResponse(
                405, statuses.failure(405, "the server does not allow this method on the requested resource")
            )
        rule = self.faults.take(verb, route.label)
        if rule is not None and not rule.applied:
            return _failed(rule)
        try:
            response = self._carried_out(verb, request, route)
        except RefusedError as refused:
            response = statuses.refusal_response(refused)
        self._settle()
        if rule is not None:
            return ApiResponse(rule.status, _failed(rule).body, lost=True)
        return response

    def _carried_out(self, verb: str, request: ApiRequest, route: Route) -> ApiResponse:
        match verb:
            case "get":
                return ApiResponse(200, self._existing(route))
            case "list":
                return ApiResponse(200, self._list(route, request.query))
            case "create":
                return self._create(request, route)
            case "update":
                body = _object_body(request)
                if route.resource.plural == "leases" and not (body.get("metadata") or {}).get("resourceVersion"):
                    why = "Invalid value: 0x0: must be specified for an update"
                    raise statuses.invalid("Lease", route.name, "metadata.resourceVersion", why)
                return ApiResponse(200, self._replaced(route, self._existing(route), body))
            case "patch":
                old = self._existing(route)
                patched = patches.apply_patch(old, request.body, request.content_type)
                metadata.check_identity(route, old, patched)
                return ApiResponse(200, self._replaced(route, old, patched))
            case "delete":
                return deletion.delete(self.store, route, deletion.options_of(request))
            case _:
                return self._delete_collection(request, route)

    def _existing(self, route: Route) -> JsonObject:
        obj = self.store.get(route.resource.plural, (route.namespace, route.name))
        if obj is None:
            raise statuses.not_found(route.resource.plural, route.name)
        return obj

    def _create(self, request: ApiRequest, route: Route) -> ApiResponse:
        body = _object_body(request)
        if route.subresource == "binding":
            return self._bind(route, body)
        if route.subresource == "eviction":
            options = body.get("deleteOptions") or {}
            evicting = ApiRequest("DELETE", request.path, request.query, options)
            deletion.delete(self.store, route, deletion.options_of(evicting))
            return ApiResponse(201, statuses.success(201))
        if route.name or route.subresource:
            return ApiResponse(
                405, statuses.failure(405, "the server does not allow this method on the requested resource")
            )
        self._check_namespace(route)
        obj = metadata.created(self.store, route, body)
        plural, name = route.resource.plural, obj["metadata"]["name"]
        if self.store.get(plural, (route.namespace, name)) is not None:
            raise statuses.already_exists(plural, name)
        made = self._completed(plural, obj)
        if request.query.get("dryRun") == "All":
            return ApiResponse(201, made)
        return ApiResponse(201, self.store.put(route.resource, made))

    def _completed(self, plural: str, obj: JsonObject) -> JsonObject:
        match plural:
            case "pods":
                return pods.created(self.store, obj)
            case "jobs":
                return jobs.created(obj)
            case "configmaps":
                _check_configmap(obj)
                return obj
            case "namespaces":
                return {**obj, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
            case _:
                return obj

    def _check_namespace(self, route: Route) -> None:
        if not route.resource.namespaced:
            return
        if not route.namespace:
            raise statuses.bad_request("an empty namespace may not be set during creation")
        namespace = self.store.get("namespaces", ("", route.namespace))
        if namespace is None:
            raise statuses.not_found("namespaces", route.namespace)
        if "deletionTimestamp" in namespace["metadata"]:
            message = f"unable to create new content in namespace {route.namespace} because it is being terminated"
            raise RefusedError(403, "Forbidden", message)

    def _bind(self, route: Route, binding: JsonObject) -> ApiResponse:
        name = route.name or (binding.get("metadata") or {}).get("name") or ""
        pod = self.store.get("pods", (route.namespace, name))
        if pod is None:
            raise statuses.not_found("pods", name)
        self.store.put(route.resource, pods.bound(self.store, route, pod, binding))
        return ApiResponse(201, statuses.success(201))

    def _replaced(self, route: Route, old: JsonObject, sent: JsonObject) -> JsonObject:
        """Write an update or a patched object: one path for both, so both obey the same rules."""
        plural = route.resource.plural
        new = metadata.updated(route, old, sent)
        if route.subresource == "status":
            new = {**old, "metadata": new["metadata"], "status": new.get("status") or {}}
        elif "status" in route.resource.subresources:
            new = {**new, "status": old.get("status") or {}}
        if not route.subresource:
            new = _checked_update(plural, old, new)
        if new == old:
            return old
        if "generation" in old["metadata"] and new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        if deletion.finished(new) and plural != "namespaces":
            shown = {**new, "metadata": {**new["metadata"]}}  # with the version that it had
            self.store.put(route.resource, new)
            self.store.remove(plural, (route.namespace, route.name))
            return shown
        return self.store.put(route.resource, new)

    def _delete_collection(self, request: ApiRequest, route: Route) -> ApiResponse:
        selector = _selector(route, request.query)
        options = deletion.options_of(request)
        chosen = [key for key, obj in self.store.each(route.resource.plural, route.namespace) if selector.matches(obj)]
        for key in chosen:
            deletion.delete(self.store, Route(route.resource, key[0], key[1], ""), options)
        return ApiResponse(200, statuses.success(200))

    # --- lists and watches --------------------------------------------------------------------------------------------

    def _list(self, route: Route, query: Mapping[str, str]) -> JsonObject:
        limit = _number(query, "limit")
        token = query.get("continue", "")
        if token:
            page_id, offset = _read_token(token)
            page = self._pages.get(page_id)
            if page is None or page.revision < self.store.tables[route.resource.plural].compacted:
                raise statuses.expired("The provided continue parameter is too old to display a consistent list result")
        else:
            page_id, offset = "", 0
            page = self._first_page(route, query)
        stop = len(page.objects) if not limit else min(offset + limit, len(page.objects))
        listed: JsonObject = {"resourceVersion": str(page.revision)}
        if stop < len(page.objects):
            page_id = page_id or self._keep(page, route, query)
            listed |= {"continue": _token(page_id, stop), "remainingItemCount": len(page.objects) - stop}
        return {
            "kind": f"{route.resource.kind}List",
            "apiVersion": route.resource.api_version,
            "metadata": listed,
            "items": list(page.objects[offset:stop]),
        }

    def _first_page(self, route: Route, query: Mapping[str, str]) -> _Page:
        selector = _selector(route, query)
        plural = route.resource.plural
        if query.get("resourceVersion") == "0" and self.faults.frozen_at is not None:
            stale = self.faults.frozen[plural]
            found = [stale[key] for key in sorted(stale) if not route.namespace or key[0] == route.namespace]
            return _Page(self.faults.frozen_at, tuple(obj for obj in found if selector.matches(obj)))
        objects = self.store.each(plural, route.namespace)
        return _Page(self.store.revision, tuple(obj for _, obj in objects if selector.matches(obj)))

    def _keep(self, page: _Page, route: Route, query: Mapping[str, str]) -> str:
        selectors = f"{query.get('labelSelector', '')}|{query.get('fieldSelector', '')}"
        page_id = f"{self.store.life}.{page.revision}|{route.resource.plural}|{route.namespace}|{selectors}"
        self._pages.pop(page_id, None)
        self._pages[page_id] = page
        while len(self._pages) > LIST_SNAPSHOTS_MAX:
            del self._pages[next(iter(self._pages))]
        return page_id

    def events_since(
        self,
        resource: str,
        namespace: str | None,
        resource_version: int,
        *,
        limit: int = WATCH_EVENTS_MAX,
        label_selector: str = "",
        field_selector: str = "",
    ) -> list[WatchEvent] | Gone:
        """What a watcher that has seen `resource_version` sees next, oldest first; Gone when history no longer reaches.

        An object that begins (ceases) to match the selectors is shown as ADDED (DELETED). `limit` counts changes
        looked at, so fewer events, even none, may be answered: `watch.Watch` keeps the place.
        """
        changes = self.changes_since(resource, resource_version, limit=limit)
        if isinstance(changes, Gone):
            return changes
        selector = selector_of(resource, label_selector, field_selector)
        events = (event_of(change, namespace or "", selector) for change in changes)
        return [event for event in events if event is not None]

    def changes_since(self, plural: str, revision: int, *, limit: int = WATCH_EVENTS_MAX) -> list[Change] | Gone:
        """The raw changes after `revision`; none past the freeze while watches are frozen."""
        frozen_at = self.faults.frozen_at
        return self.store.tables[plural].since(revision, limit, self.store.revision if frozen_at is None else frozen_at)

    # --- faults and backups -------------------------------------------------------------------------------------------

    def freeze_watches(self) -> None:
        """From now on watches and resourceVersion=0 lists show the present state only."""
        self.faults.frozen_at = self.store.revision
        self.faults.frozen = {plural: dict(table.objects) for plural, table in self.store.tables.items()}

    def thaw_watches(self) -> None:
        """Watches catch up."""
        self.faults.frozen_at = None
        self.faults.frozen = {}

    def compact(self) -> None:
        """Every watch and continue token of an older revision is Gone from now on."""
        self.store.compact()
        self._pages.clear()

    def backup(self) -> Backup:
        """All objects as they are now."""
        return self.store.backup()

    def restore(self, backup: Backup, now_s: float) -> None:
        """Become that backup: later writes are forgotten, uids stay unique, every older watch is Gone."""
        self._become(backup, self.store.life + 1, now_s)

    def resume(self, backup: Backup, now_s: float) -> None:
        """Go on after a restart of the process with all its writes: only watches that were behind are Gone."""
        self._become(backup, backup.life, now_s)

    def _become(self, backup: Backup, life: int, now_s: float) -> None:
        self.store.now_s = now_s
        self._pages.clear()
        self.store.restore(backup, life=life)
        self.controllers = Controllers(self.store, self._job_back_off_s)
        self._settle()


def event_of(change: Change, namespace: str, selector: Selector) -> WatchEvent | None:
    """How a watcher with this scope sees the change; None when it does not concern it."""
    if namespace and change.key[0] != namespace:
        return None
    was = change.before is not None and (selector.matches_all or selector.matches(change.before))
    is_now = change.after is not None and (selector.matches_all or selector.matches(change.after))
    if not was and not is_now:
        return None
    kind = "MODIFIED" if was and is_now else ("ADDED" if is_now else "DELETED")
    return WatchEvent(kind, change.shown, change.revision)


def _selector(route: Route, query: Mapping[str, str]) -> Selector:
    return selector_of(route.resource.plural, query.get("labelSelector", ""), query.get("fieldSelector", ""))


def _number(query: Mapping[str, str], key: str) -> int:
    text = query.get(key) or "0"
    if not text.isdigit():
        raise statuses.bad_request(f"{key} is not a number: {text!r}")
    return int(text)


def _token(page_id: str, offset: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([page_id, offset]).encode()).decode()


def _read_token(token: str) -> tuple[str, int]:
    try:
        page_id, offset = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (binascii.Error, ValueError):
        raise statuses.bad_request("continue key is not valid") from None
    return str(page_id), int(offset)


def _failed(rule: FailRule) -> ApiResponse:
    details: JsonObject | None = {"retryAfterSeconds": 1} if rule.status in {429, 503} else None
    return ApiResponse(rule.status, statuses.failure(rule.status, "failed by a fault switch", details=details))


def _object_body(request: ApiRequest) -> JsonObject:
    if not isinstance(request.body, dict):
        raise statuses.bad_request("the body of the request must be a JSON object")
    return request.body


def _namespace(store: Store, name: str) -> JsonObject:
    return {
        "kind": "Namespace",
        "apiVersion": "v1",
        "metadata": {"name": name, "uid": store.fresh_uid(), "creationTimestamp": store.now_text},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }


def _check_configmap(obj: JsonObject) -> None:
    size = sum(len(str(v).encode()) for part in ("data", "binaryData") for v in (obj.get(part) or {}).values())
    if size > CONFIGMAP_BYTES_MAX:
        why = f"Too long: may not be more than {CONFIGMAP_BYTES_MAX} bytes"
        raise statuses.invalid("ConfigMap", obj["metadata"]["name"], "data", why)


def _checked_update(plural: str, old: JsonObject, new: JsonObject) -> JsonObject:
    match plural:
        case "pods":
            pods.check_update(old, new)
            return pods.after_update(new)
        case "jobs":
            jobs.check_update(old, new)
        case "configmaps":
            _check_configmap(new)
        case _:
            pass
    return new


__all__ = ["ApiServer", "Key", "event_of"]
