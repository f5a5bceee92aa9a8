"""The HTTP shell of the simulated API server: JSON requests, chunked watches, a write-ahead log, fault switches.

No rule of Kubernetes lives here; every answer comes from the pure core.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
from aiohttp import web

from cluster_agents.simkube import wal
from cluster_agents.simkube.apiserver import podlog, statuses
from cluster_agents.simkube.apiserver.controllers.job_controller import BACKOFF_BASE_S
from cluster_agents.simkube.apiserver.server import BODY_BYTES_MAX, ApiServer
from cluster_agents.simkube.apiserver.store import Change, Key
from cluster_agents.simkube.apiserver.types import JSON, ApiRequest, ApiResponse, JsonObject, WatchEvent
from cluster_agents.simkube.apiserver.watch import Watch, open_watch
from cluster_agents.simkube.kubelet.types import NodeShape
from cluster_agents.simkube.wake import WakeTimer

WAL_NAME: Final = "apiserver.wal"
WAL_LINES_MAX: Final = 500_000  # then rewritten as a snapshot, so that a long run does not fill the disk
WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
TIMEOUT_DEFAULT_S: Final = 60.0  # kube-apiserver --request-timeout
KUBELET_AGENT: Final = "simkube-kubelet"  # User-Agent by which the switch `cut` tells kubelets from agents
WATCH_GATHERS_S: Final = 0.01  # as much as a real watch cache lags; what changes meanwhile is sent together
AUDIT_ANSWERED_MAX: Final = 100_000

_POD_LOG: Final = re.compile(r"/api/v1/namespaces/(?P<namespace>[^/]+)/pods/(?P<name>[^/]+)/log")
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


class Wal:
    """The log file of one API server. Lines are handed to the kernel before the reply leaves: `kill -9` loses none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = 0
        self._file: BinaryIO | None = None

    def load(self, api: ApiServer, now_s: float) -> None:
        """Bring the server to the state of the log, then start the log anew from a snapshot."""
        if self._path.exists():
            with self._path.open("rb") as lines:
                backup = wal.decode(lines)
            if backup.revision:
                api.resume(backup, now_s)
        self._rewrite(api)
        self._api = api

    def append(self, change: Change) -> None:
        """Note a change; it survives this process after the next `flush`."""
        assert self._file is not None
        self._file.write(wal.encode_change(change))
        self._lines += 1

    def flush(self) -> None:
        """Everything written so far survives this process."""
        assert self._file is not None
        self._file.flush()
        if self._lines > WAL_LINES_MAX:
            self._rewrite(self._api)

    def _rewrite(self, api: ApiServer) -> None:
        scratch = self._path.with_suffix(".tmp")
        with scratch.open("wb") as file:
            file.writelines(wal.encode_backup(api.backup()))
        scratch.replace(self._path)
        if self._file is not None:
            self._file.close()
        self._file = self._path.open("ab")
        self._lines = 0

    def close(self) -> None:
        """Flush and close."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Bells:
    """One per kind of object, rung when some of that kind changed: a watch of Jobs need not look at every pod."""

    def __init__(self) -> None:
        self._bells: dict[str, asyncio.Event] = {}

    def of(self, plural: str) -> asyncio.Event:
        """Take it before looking: what changes meanwhile is not missed."""
        bell = self._bells.get(plural)
        if bell is None:
            bell = self._bells[plural] = asyncio.Event()
        return bell

    def ring(self, plural: str) -> None:
        """Whoever waits for this kind looks again."""
        bell = self._bells.pop(plural, None)
        if bell is not None:
            bell.set()

    def ring_all(self) -> None:
        """Everybody looks again."""
        for plural in list(self._bells):
            self.ring(plural)


class ApiShell:
    """One API server over HTTP. Used as an aiohttp application; `close` when it has been cleaned up."""

    def __init__(
        self,
        name: str,
        *,
        folder: Path | None = None,
        nodes: Sequence[NodeShape] = (),
        token: str | None = None,
        job_back_off_s: float = BACKOFF_BASE_S,
    ) -> None:
        now_s = time.monotonic()
        self.api = ApiServer(name, now_s=now_s, epoch_offset_s=time.time() - now_s, job_back_off_s=job_back_off_s)
        self.nodes = nodes
        self._token = token
        self._cut = ""  # whose connections are dropped without an answer: "", "agents" or "all"
        self._bells = Bells()
        self._touched: set[str] = set()  # kinds that changed since the bells were rung
        self._timer = WakeTimer(lambda: self._settle(self.api.latest_resource_version))
        self._wal: Wal | None = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._wal = Wal(folder / WAL_NAME)
            self._wal.load(self.api, time.monotonic())
        self.api.on_change = self._note_change

    def app(self) -> web.Application:
        """The application; while it runs, the controllers do."""
        app = web.Application(client_max_size=2 * BODY_BYTES_MAX)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._healthz)
        app.router.add_get("/livez", self._healthz)
        app.router.add_get("/simkube/nodes", self._nodes)
        app.router.add_get("/simkube/audit", self._audit)
        app.router.add_get("/simkube/faults", self._faults_shown)
        app.router.add_post("/simkube/faults", self._faults_set)
        app.router.add_route("*", "/{path:.*}", self._handle)
        app.cleanup_ctx.append(self._controllers)
        return app

    def close(self) -> None:
        """Close the log."""
        if self._wal is not None:
            self._wal.close()

    # --- Kubernetes ---------------------------------------------------------------------------------------------------

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        if self._is_cut(http):
            return _dropped(http)
        if self._token is not None and http.headers.get("Authorization") != f"Bearer {self._token}":
            return _json(401, statuses.failure(401, "Unauthorized"))
        log_of = _POD_LOG.fullmatch(http.path) if http.path.endswith("/log") and http.method == "GET" else None
        if log_of is not None:
            return await self._log(http, (log_of["namespace"], log_of["name"]))
        try:
            request = await _request(http)
        except msgspec.MsgspecError as error:
            return _json(400, statuses.failure(400, f"the body of the request is not JSON: {error}"))
        late = await self._delayed(request)
        if late is not None or self._is_cut(http):
            return _dropped(http) if late is None else late
        if request.query.get("watch") in {"true", "1"} and request.method == "GET":
            return await self._watch(http, request)
        seen = self.api.latest_resource_version
        response = self.api.handle(request, time.monotonic())
        self._settle(seen)
        if response.lost:
            return _dropped(http)
        return _json(response.status, response.body)

    async def _log(self, http: web.Request, key: Key) -> web.StreamResponse:
        """A pod's log; with `follow` until the pod has ended or is gone."""
        pod = self.api.store.get("pods", key)
        if pod is None:
            return _json(404, statuses.failure(404, f'pods "{key[1]}" not found'))
        reply = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await reply.prepare(http)
        told = 0
        while pod is not None:
            changed = self._bells.of("pods")
            lines = podlog.lines_of(pod)
            await reply.write("".join(f"{line}\n" for line in lines[told:]).encode())
            told = max(told, len(lines))
            if podlog.ended(pod) or http.query.get("follow") not in {"true", "1"}:
                break
            await changed.wait()
            pod = self.api.store.get("pods", key)
        await reply.write_eof()
        return reply

    def _is_cut(self, http: web.Request) -> bool:
        if not self._cut:
            return False
        is_kubelet = http.headers.get("User-Agent", "").startswith(KUBELET_AGENT)
        return self._cut == "all" or (self._cut == "agents" and not is_kubelet)

    async def _delayed(self, request: ApiRequest) -> web.Response | None:
        """Carry out the fault `latency_s`; a write whose own `timeout` passes meanwhile is refused, not carried out."""
        latency_s = self.api.faults.latency_s
        if not latency_s:
            return None
        timeout_s = _duration_s(request.query.get("timeout", "")) if request.method in WRITES else TIMEOUT_DEFAULT_S
        await asyncio.sleep(min(latency_s, timeout_s))
        if latency_s >= timeout_s:
            return _json(504, statuses.failure(504, "request did not complete within the allotted timeout"))
        return None

    def _settle(self, seen: int) -> None:
        """After what may have written since revision `seen`: controllers, then the log, then whoever watches."""
        self.api.step(time.monotonic())
        if self.api.latest_resource_version != seen:
            if self._wal is not None:
                self._wal.flush()
            touched, self._touched = self._touched, set()
            for plural in touched:
                self._bells.ring(plural)
        self._timer.set(self.api.wake_at_s)

    def _note_change(self, change: Change) -> None:
        self._touched.add(change.plural)
        if self._wal is not None:
            self._wal.append(change)

    async def _controllers(self, _: web.Application) -> AsyncIterator[None]:
        self._settle(self.api.latest_resource_version)
        yield
        self._timer.cancel()

    async def _watch(self, http: web.Request, request: ApiRequest) -> web.StreamResponse:
        watch = open_watch(self.api, request, time.monotonic())
        if isinstance(watch, ApiResponse):
            return _dropped(http) if watch.lost else _json(watch.status, watch.body)
        stream = web.StreamResponse(headers={"Content-Type": JSON})
        stream.enable_chunked_encoding()
        await stream.prepare(http)
        with contextlib.suppress(ConnectionError):
            await self._send_events(http, stream, watch)
        return stream

    async def _send_events(self, http: web.Request, stream: web.StreamResponse, watch: Watch) -> None:
        while not watch.ended:
            changed = self._bells.of(watch.plural)
            events = watch.poll(time.monotonic())
            if self._is_cut(http):
                _abort(http)
                return
            if events:
                await stream.write(b"".join(_line(event) for event in events))
                continue
            timeout_s = max(0.0, watch.wake_at_s - time.monotonic())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await changed.wait()
                    await asyncio.sleep(WATCH_GATHERS_S)
        await stream.write_eof()

    # --- beside Kubernetes: what an operator of the simulation may see and switch -------------------------------------

    async def _healthz(self, http: web.Request) -> web.StreamResponse:
        if self._is_cut(http):
            return _dropped(http)
        return _json(200, {"status": "ok", "pid": os.getpid()})

    async def _nodes(self, _: web.Request) -> web.Response:
        return web.Response(body=_encoder.encode(self.nodes), content_type=JSON)

    async def _audit(self, http: web.Request) -> web.Response:
        """Pod acts from `after` on, and request counts."""
        after = int(http.query.get("after", "0"))
        acts = self.api.audit.acts[after : after + AUDIT_ANSWERED_MAX]
        counts = [[*key, count] for key, count in sorted(self.api.audit.counts.items())]
        return web.Response(body=_encoder.encode({"acts": acts, "requests": counts}), content_type=JSON)

    async def _faults_shown(self, _: web.Request) -> web.Response:
        faults = self.api.faults
        shown: JsonObject = {
            "rules": faults.rules,
            "latency_s": faults.latency_s,
            "frozen": faults.frozen_at is not None,
            "cut": self._cut,
        }
        return web.Response(body=_encoder.encode(shown), content_type=JSON)

    async def _faults_set(self, http: web.Request) -> web.Response:
        """Switches as one JSON object: `clear`, `rules` [{verb, label, status, times, applied}], `latency_s`, `freeze`,
        `compact`, `cut`. Refused whole (422) when any part cannot be read."""
        try:
            wanted = msgspec.json.decode(await http.read(), type=FaultSwitches)
        except msgspec.MsgspecError as error:
            return _json(422, statuses.failure(422, str(error)))
        self.switch(wanted)
        return await self._faults_shown(http)

    def switch(self, wanted: FaultSwitches) -> None:
        """Turn switches; those not named stay as they are."""
        faults = self.api.faults
        if wanted.clear:
            faults.clear()
            self._cut = ""
        for rule in wanted.rules:
            faults.fail(rule.verb, rule.label, rule.status, times=rule.times, applied=rule.applied)
        if wanted.latency_s is not None:
            faults.latency_s = wanted.latency_s
        if wanted.freeze is not None:
            self.api.freeze_watches() if wanted.freeze else self.api.thaw_watches()
        if wanted.compact:
            self.api.compact()
        if wanted.cut is not None:
            self._cut = wanted.cut
        self._bells.ring_all()


class FaultRuleWanted(msgspec.Struct, forbid_unknown_fields=True):
    """One rule: fail the next `times` requests."""

    verb: str = "*"
    label: str = "*"
    status: int = 500
    times: int = 1
    applied: bool = False


class FaultSwitches(msgspec.Struct, forbid_unknown_fields=True):
    """What to switch; None leaves a switch alone."""

    clear: bool = False
    rules: list[FaultRuleWanted] = []
    latency_s: float | None = None
    freeze: bool | None = None
    compact: bool = False
    cut: str | None = None

    def __post_init__(self) -> None:
        if self.cut not in {None, "", "agents", "all"}:
            raise ValueError('cut is "", "agents" or "all"')


async def _request(http: web.Request) -> ApiRequest:
    data = await http.read() if http.can_read_body else b""
    body: Any = _decoder.decode(data) if data else None
    query = dict(http.query) if http.query_string else {}
    return ApiRequest(http.method, http.path, query, body, http.headers.get("Content-Type", JSON))


def _json(status: int, body: JsonObject) -> web.Response:
    headers = {"Content-Type": JSON}
    seconds = (body.get("details") or {}).get("retryAfterSeconds") if status in {429, 503} else None
    if seconds is not None:
        headers["Retry-After"] = str(seconds)
    return web.Response(status=status, body=_encoder.encode(body), headers=headers)


def _dropped(http: web.Request) -> web.Response:
    """No answer at all: the connection breaks."""
    _abort(http)
    return web.Response(status=503)


def _abort(http: web.Request) -> None:
    if http.transport is not None:
        http.transport.abort()


def _line(event: WatchEvent) -> bytes:
    return _encoder.encode({"type": event.kind, "object": event.object}) + b"\n"


def _duration_s(text: str) -> float:
    """Go durations as clients send them: "10s", "1500ms", "1m"."""
    for suffix, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0)):
        number = text.removesuffix(suffix)
        if number != text:
            with contextlib.suppress(ValueError):
                return float(number) * factor
    return TIMEOUT_DEFAULT_S
