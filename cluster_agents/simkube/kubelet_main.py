"""The kubelets' process: lists and watches pods over HTTP, carries out the core's calls, asks the agent for guards.

It outlives the API server: everything that fails is tried again, and the run log goes to a file of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Final, assert_never

import aiohttp
import msgspec
from aiohttp import web

from cluster_agents.simkube.kubelet import Kubelets, NodeShape, Timing
from cluster_agents.simkube.kubelet import types as kt
from cluster_agents.simkube.runlog import RunLogEntry, decode_lines, encode_line, runs
from cluster_agents.simkube.server import KUBELET_AGENT
from cluster_agents.simkube.wake import WakeTimer
from federation.protocol.messages import GuardAnswer

RUN_LOG_NAME: Final = "runlog.jsonl"
PAGE: Final = 500
RETRY_S: Final = 0.5
WATCH_S: Final = 240
LINE_BYTES_MAX: Final = 4 * 1024 * 1024  # one watch event; etcd holds objects of at most 1.5 MiB
CONNECTIONS_MAX: Final = 64
BOUND_PODS: Final = "spec.nodeName!="

_encoder = msgspec.msgpack.Encoder()
_answers = msgspec.msgpack.Decoder(GuardAnswer)
_json_encoder = msgspec.json.Encoder()
_json_decoder = msgspec.json.Decoder()


class NodeAct(msgspec.Struct, forbid_unknown_fields=True):
    """What the admin route does to a node: cut, heal, crash, boot, guard-restart or gpus-lost."""

    node: str
    act: str
    agent_too: bool = True
    gpus: list[int] = []


class RunLogFile:
    """The run log on disk. Runs that were open when an earlier process died are closed at its first line."""

    def __init__(self, folder: Path, now_s: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / RUN_LOG_NAME
        data = path.read_bytes() if path.exists() else b""
        earlier = decode_lines(data)
        self._file: BinaryIO = path.open("ab")
        self._file.truncate(data.rfind(b"\n") + 1)  # a line cut short would spoil the next one
        self.written = 0
        for run in runs(earlier):
            if run.ended_s is None:
                self._write(_closed(run.started, now_s))
        self._file.flush()

    def _write(self, entry: RunLogEntry) -> None:
        self._file.write(encode_line(entry))

    def catch_up(self, log: Sequence[RunLogEntry]) -> None:
        """Write what the core has noted since; it is with the kernel before any call that follows from it leaves."""
        if self.written < len(log):
            for entry in log[self.written :]:
                self._write(entry)
            self.written = len(log)
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _closed(started: RunLogEntry, now_s: float) -> RunLogEntry:
    return msgspec.structs.replace(started, event="ended", at_s=now_s, why="KubeletsKilled")


class KubeletShell:
    """All kubelets of one cluster as tasks of one event loop. `run` until cancelled."""

    def __init__(
        self,
        cluster: str,
        nodes: Sequence[NodeShape],
        timing: Timing,
        *,
        api_url: str,
        guard_url: str | None,
        folder: Path,
        seed: int = 1,
        token: str | None = None,
    ) -> None:
        if guard_url is None:
            timing = replace(timing, guard_renewal_s=None)
        now_s = time.monotonic()
        self._core = Kubelets(cluster, nodes, timing, seed=seed, now_s=now_s, epoch_offset_s=time.time() - now_s)
        self._log = RunLogFile(folder, now_s)
        self._timing = timing
        self._api_url = api_url.rstrip("/")
        self._guard_url = None if guard_url is None else guard_url.rstrip("/") + "/guard"
        self._headers = {"User-Agent": KUBELET_AGENT} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._timer = WakeTimer(lambda: self._spawn(self._tick()))
        self._group = asyncio.TaskGroup()
        self._slots = asyncio.Semaphore(CONNECTIONS_MAX)

    async def run(self) -> None:
        """Boot the nodes and keep them going."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, headers=self._headers) as self._session:
            try:
                async with self._group:
                    self._spawn(self._reflect())
                    self._handle(kt.Booted())
            finally:
                self._timer.cancel()
                self._log.close()

    def _handle(self, event: kt.Event) -> None:
        effects = self._core.handle(event, time.monotonic())
        self._log.catch_up(self._core.run_log)
        for effect in effects:
            match effect:
                case kt.ApiCall():
                    self._spawn(self._call(effect))
                case kt.AskGuard():
                    self._spawn(self._ask(effect))
                case _:
                    assert_never(effect)
        self._timer.set(self._core.wake_at_s)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """In the group, so that a broken assertion in any call stops the process."""
        self._group.create_task(work)

    async def _tick(self) -> None:
        self._handle(kt.Tick())

    # --- calls --------------------------------------------------------------------------------------------------------

    async def _call(self, call: kt.ApiCall) -> None:
        request = call.request
        data = None if request.body is None else _json_encoder.encode(request.body)
        status, body = kt.NO_ANSWER, {}
        try:
            async with asyncio.timeout(self._timing.call_timeout_s), self._slots:
                response = await self._session.request(
                    request.method,
                    self._api_url + request.path,
                    params=dict(request.query),
                    data=data,
                    headers={"Content-Type": request.content_type},
                )
                body = _json_decoder.decode(await response.read())
                status = response.status
        except (TimeoutError, aiohttp.ClientError, OSError, msgspec.MsgspecError):
            status, body = kt.NO_ANSWER, {}
        self._handle(kt.ApiReply(call.call_id, status, body))

    async def _ask(self, asked: kt.AskGuard) -> None:
        """Carry one ask to the agent. No answer is an answer too: the guard counts on."""
        assert self._guard_url is not None
        assert self._timing.guard_renewal_s is not None
        try:
            async with asyncio.timeout(self._timing.guard_renewal_s):
                response = await self._session.post(self._guard_url, data=_encoder.encode(asked.ask))
                data = await response.read()
            if response.status != 200:
                return
            answer = _answers.decode(data)
        except (TimeoutError, aiohttp.ClientError, OSError, msgspec.MsgspecError):
            return
        self._handle(kt.GuardAnswered(asked.node, answer))

    # --- the watch on pods --------------------------------------------------------------------------------------------

    async def _reflect(self) -> None:
        """List in pages, then watch from there; list again after 410 or a failed list. Never gives up."""
        version = ""
        while True:
            try:
                if not version:
                    version = await self._list()
                version = await self._watch(version)
            except (TimeoutError, aiohttp.ClientError, OSError, msgspec.MsgspecError):
                await asyncio.sleep(RETRY_S)

    async def _list(self) -> str:
        pods: list[Any] = []
        query = {"limit": str(PAGE), "fieldSelector": BOUND_PODS}
        while True:
            async with asyncio.timeout(self._timing.call_timeout_s):
                response = await self._session.get(self._api_url + "/api/v1/pods", params=query)
                body = _json_decoder.decode(await response.read())
            if response.status != 200:
                await asyncio.sleep(RETRY_S)
                return ""
            pods += body["items"]
            token = body["metadata"].get("continue")
            if not token:
                break
            query["continue"] = token
        self._handle(kt.PodsListed(tuple(pods)))
        return str(body["metadata"]["resourceVersion"])

    async def _watch(self, version: str) -> str:
        """Follow changes; returns from which version to go on, "" when only a list helps."""
        query = {
            "watch": "true",
            "resourceVersion": version,
            "fieldSelector": BOUND_PODS,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_S),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_read=WATCH_S + 10)
        try:
            async with self._session.get(self._api_url + "/api/v1/pods", params=query, timeout=timeout) as response:
                if response.status != 200:
                    await asyncio.sleep(RETRY_S)
                    return ""
                async for line in _lines(response):
                    event = _json_decoder.decode(line)
                    shown = event["object"]
                    match event["type"]:
                        case "ADDED" | "MODIFIED":
                            self._handle(kt.PodSeen(shown))
                        case "DELETED":
                            self._handle(kt.PodGone(shown))
                        case "ERROR":
                            return ""
                        case _:
                            pass
                    version = shown["metadata"]["resourceVersion"]
        except (TimeoutError, aiohttp.ClientError, OSError):
            await asyncio.sleep(RETRY_S)
        return version

    # --- beside Kubernetes --------------------------------------------------------------------------------------------

    def admin(self) -> web.Application:
        """What a drill may do to nodes: POST /simkube/nodes; and what runs now: GET /simkube/live."""
        app = web.Application()
        app.router.add_post("/simkube/nodes", self._node_act)
        app.router.add_get("/simkube/live", self._live)
        app.router.add_get("/healthz", self._healthz)
        return app

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "pid": os.getpid()})

    async def _live(self, _: web.Request) -> web.Response:
        live = [
            {
                "node": r.node,
                "namespace": r.namespace,
                "name": r.name,
                "uid": r.uid,
                "token": r.token,
                "gpus": list(r.gpus),
            }
            for r in self._core.live()
        ]
        return web.json_response({"live": live})

    async def _node_act(self, http: web.Request) -> web.Response:
        try:
            wanted = msgspec.json.decode(await http.read(), type=NodeAct)
        except msgspec.MsgspecError as error:
            return web.json_response({"message": str(error)}, status=422)
        event = _event_of(wanted)
        if event is None:
            message = "act is cut, heal, crash, boot, guard-restart or gpus-lost"
            return web.json_response({"message": message}, status=422)
        if not self._core.knows(wanted.node):
            return web.json_response({"message": f"no node {wanted.node}"}, status=404)
        self._handle(event)
        return web.json_response({"done": wanted.act, "node": wanted.node})


def _event_of(wanted: NodeAct) -> kt.Event | None:
    match wanted.act:
        case "cut":
            return kt.NodeCut(wanted.node, wanted.agent_too)
        case "heal":
            return kt.NodeHealed(wanted.node)
        case "crash":
            return kt.NodeCrashed(wanted.node)
        case "boot":
            return kt.NodeBooted(wanted.node)
        case "guard-restart":
            return kt.GuardRestarted(wanted.node)
        case "gpus-lost":
            return kt.GpusLost(wanted.node, frozenset(wanted.gpus))
        case _:
            return None


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Whole lines of a stream, however long; a last one cut short is left out."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line
        if len(rest) > LINE_BYTES_MAX:
            raise aiohttp.ClientPayloadError(f"a watch event of more than {LINE_BYTES_MAX} bytes")


async def nodes_of(api_url: str, token: str | None) -> list[NodeShape]:
    """The node shapes the API server was started with, asked for until it answers."""
    headers = {"User-Agent": KUBELET_AGENT} | ({"Authorization": f"Bearer {token}"} if token else {})
    async with aiohttp.ClientSession(headers=headers) as session:
        while True:
            with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError, msgspec.MsgspecError):
                async with session.get(api_url.rstrip("/") + "/simkube/nodes") as response:
                    if response.status == 200:
                        return msgspec.json.decode(await response.read(), type=list[NodeShape])
            await asyncio.sleep(RETRY_S)
