"""One watch as a pure cursor: what to send next, bookmarks, time-out and 410. The shell and the world both drive it."""

from collections.abc import Mapping
from typing import Final

from cluster_agents.simkube.apiserver import statuses
from cluster_agents.simkube.apiserver.resources import Route, route_of
from cluster_agents.simkube.apiserver.selectors import selector_of
from cluster_agents.simkube.apiserver.server import ApiServer, event_of
from cluster_agents.simkube.apiserver.types import ApiRequest, ApiResponse, Gone, RefusedError, WatchEvent

BOOKMARK_EVERY_S: Final = 60.0
BOOKMARK_BEFORE_END_S: Final = 2.0  # the real watch cache sends a last bookmark this long before the time-out
TIMEOUT_DEFAULT_S: Final = 1_800.0  # kube-apiserver --min-request-timeout
EVENTS_PER_POLL_MAX: Final = 1_000


class Watch:
    """A watch in progress. `poll` until `ended`; between changes, poll again at `wake_at_s`."""

    def __init__(self, api: ApiServer, route: Route, query: Mapping[str, str], now_s: float) -> None:
        self._api = api
        self._route = route
        self._selector = selector_of(
            route.resource.plural, query.get("labelSelector", ""), query.get("fieldSelector", "")
        )
        timeout = query.get("timeoutSeconds") or ""
        self._ends_at_s = now_s + (float(timeout) if timeout.isdigit() and int(timeout) else TIMEOUT_DEFAULT_S)
        self._bookmarks = query.get("allowWatchBookmarks") in {"true", "1"}
        self._bookmark_at_s = min(now_s + BOOKMARK_EVERY_S, self._ends_at_s - BOOKMARK_BEFORE_END_S)
        self._initial: list[WatchEvent] = []
        self.ended = False
        version = query.get("resourceVersion") or "0"
        if not version.isdigit():
            raise statuses.bad_request(f'invalid resource version "{version}"')
        self.revision = int(version)
        if self.revision == 0:
            self._start_anywhere()

    def _start_anywhere(self) -> None:
        """Without a resourceVersion, a watch begins with all present objects as ADDED."""
        route = Route(self._route.resource, self._route.namespace, "", "")
        self.revision = self._api.latest_resource_version
        for _, obj in self._api.store.each(route.resource.plural, route.namespace):
            if self._selector.matches(obj):
                self._initial.append(WatchEvent("ADDED", obj, int(obj["metadata"]["resourceVersion"])))

    @property
    def plural(self) -> str:
        """The kind that is watched."""
        return self._route.resource.plural

    @property
    def wake_at_s(self) -> float:
        """When to poll even if nothing was written."""
        return min(self._bookmark_at_s, self._ends_at_s) if self._bookmarks else self._ends_at_s

    def poll(self, now_s: float) -> list[WatchEvent]:
        """The next events; none only if there are no more now. After an ERROR event, or past the time-out, the watch
        has `ended`."""
        if self.ended:
            return []
        events, self._initial = self._initial, []
        while True:  # until there is one to send: a watcher of few would wait behind a thousand changes of others
            changes = self._api.changes_since(self._route.resource.plural, self.revision, limit=EVENTS_PER_POLL_MAX)
            if isinstance(changes, Gone):
                self.ended = True
                message = f"too old resource version: {changes.asked} ({changes.oldest})"
                return [WatchEvent("ERROR", statuses.failure(410, message), changes.oldest)]
            for change in changes:
                event = event_of(change, self._route.namespace, self._selector)
                if event is not None:
                    events.append(event)
                self.revision = change.revision
            more = len(changes) == EVENTS_PER_POLL_MAX
            if events or not more:
                break
        if self._bookmarks and now_s >= self._bookmark_at_s and not more:
            events.append(self._bookmark(now_s))
        self.ended = now_s >= self._ends_at_s
        return events

    def _bookmark(self, now_s: float) -> WatchEvent:
        frozen_at = self._api.faults.frozen_at
        self.revision = max(self.revision, self._api.latest_resource_version if frozen_at is None else frozen_at)
        last_s = self._ends_at_s - BOOKMARK_BEFORE_END_S
        next_s = now_s + BOOKMARK_EVERY_S
        self._bookmark_at_s = min(next_s, last_s) if now_s < last_s else next_s
        resource = self._route.resource
        body = {
            "kind": resource.kind,
            "apiVersion": resource.api_version,
            "metadata": {"resourceVersion": str(self.revision), "creationTimestamp": None},
        }
        return WatchEvent("BOOKMARK", body, self.revision)


def open_watch(api: ApiServer, request: ApiRequest, now_s: float) -> Watch | ApiResponse:
    """Start a watch (GET with `watch=true`), or answer why not. Fault rules with verb "watch" apply."""
    route = route_of(request.path)
    if route is None or route.subresource:
        return ApiResponse(404, statuses.failure(404, "the server could not find the requested resource"))
    rule = api.faults.take("watch", route.resource.plural)
    if rule is not None:
        return ApiResponse(rule.status, statuses.failure(rule.status, "failed by a fault switch"), lost=rule.applied)
    query = dict(request.query)
    if route.name:
        name = f"metadata.name={route.name}"
        query["fieldSelector"] = f"{query['fieldSelector']},{name}" if query.get("fieldSelector") else name
    try:
        return Watch(api, route, query, now_s)
    except RefusedError as refused:
        return statuses.refusal_response(refused)
