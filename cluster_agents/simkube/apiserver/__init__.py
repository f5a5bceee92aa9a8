"""The simulated API server: a pure core. See `server.ApiServer` and `watch.open_watch`; no I/O anywhere below."""

from cluster_agents.simkube.apiserver.server import ApiServer
from cluster_agents.simkube.apiserver.types import ApiRequest, ApiResponse, Gone, JsonObject, WatchEvent
from cluster_agents.simkube.apiserver.watch import Watch, open_watch

__all__ = ["ApiRequest", "ApiResponse", "ApiServer", "Gone", "JsonObject", "Watch", "WatchEvent", "open_watch"]
