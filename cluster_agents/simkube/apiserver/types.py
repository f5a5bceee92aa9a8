"""What goes in and out of the simulated API server: requests, responses, watch events. No behaviour here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

JsonObject: TypeAlias = dict[str, Any]
"""A Kubernetes object as plain JSON. Stored and answered objects are never mutated: replace, do not edit."""

JsonBody: TypeAlias = JsonObject | list[JsonObject] | None

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"

NO_QUERY: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One HTTP request, already parsed. `path` has no query."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=lambda: NO_QUERY)
    body: JsonBody = None
    content_type: str = JSON


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """The answer. `lost`: the request was carried out as `status` says, but its reply must never arrive (a fault)."""

    status: int
    body: JsonObject
    lost: bool = False

    @property
    def ok(self) -> bool:
        """True for a 2xx status."""
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change as a watcher sees it. `kind` is ADDED, MODIFIED, DELETED, BOOKMARK or ERROR."""

    kind: str
    object: JsonObject
    revision: int


@dataclass(frozen=True, slots=True)
class Gone:
    """The revision asked for is no longer in the watch history: list again (HTTP 410, reason Expired)."""

    asked: int
    oldest: int


class RefusedError(Exception):
    """A request the server refuses; never leaves `ApiServer.handle`, which turns it into a Status response."""

    def __init__(self, code: int, reason: str, message: str, details: JsonObject | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
