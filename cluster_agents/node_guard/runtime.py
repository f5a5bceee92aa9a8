"""The connection to the node's container runtime, as one of its NRI plug-ins: who is asked before a container starts.

Pods of ours name the plug-in as required (`GUARD_PLUGIN`), so that a runtime without the guard refuses to create them.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, Protocol

import structlog

from cluster_agents.core.config import GUARD_PLUGIN
from cluster_agents.node_guard import nri
from cluster_agents.node_guard.wire import Decoder, Kind, Message, Side, WireError, encoded

LISTED_MAX: Final = 16_384  # pods and containers that a runtime lists; a kubelet runs a few hundred
PLUGIN_INDEX: Final = "10"  # early, so that what is refused costs the others nothing
READ_BYTES: Final = 64 * 1024
REGISTER_STREAM: Final = 1
REGISTER_TIMEOUT_S: Final = 5.0
RECONNECT_S: Final = 1.0

_EVENTS: Final = sum(event.bit for event in nri.Event)

log = structlog.get_logger()


class Refused(Exception):  # noqa: N818 - no error: the answer of a gate
    """The container may not start; the text reaches the pod's events."""


class Handler(Protocol):
    """What is done with the runtime's word. Called in order, from one task."""

    def listed(self, pods: list[nri.PodSandbox], containers: list[nri.Container]) -> None:
        """All that there is on the node."""

    def starting(self, pod: nri.PodSandbox, container: nri.Container) -> None:
        """Raises Refused where it may not."""

    def removed(self, container_id: str) -> None:
        """It is there no more."""


class Runtime:
    """`registered` says whether the runtime asks us now."""

    def __init__(self, socket: Path, handler: Handler) -> None:
        self._socket = socket
        self._handler = handler
        self._pods: list[nri.PodSandbox] = []  # of a listing that comes in parts
        self._containers: list[nri.Container] = []
        self.registered = False

    async def run(self) -> None:
        """Connected whenever the runtime is there; never returns."""
        said = ""
        while True:
            try:
                await self._follow()
                why = "the runtime closed the connection"
            except (OSError, TimeoutError, WireError) as error:
                why = str(error) or type(error).__name__
            if self.registered or why != said:
                log.warning("runtime.lost", socket=str(self._socket), error=why)
            self.registered, said = False, why
            await asyncio.sleep(RECONNECT_S)

    async def _follow(self) -> None:
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        self._pods, self._containers = [], []
        try:
            register = nri.RegisterPluginRequest(
                plugin_name=GUARD_PLUGIN, plugin_idx=PLUGIN_INDEX, nri_version=nri.VERSION
            )
            call = nri.Request(
                service=nri.RUNTIME_SERVICE,
                method="RegisterPlugin",
                payload=nri.RegisterPluginRequest.serialize(register),
                timeout_nano=int(REGISTER_TIMEOUT_S * 1e9),
            )
            writer.write(encoded(Message(Side.RUNTIME, REGISTER_STREAM, Kind.REQUEST, nri.Request.serialize(call))))
            decoder = Decoder()
            while data := await reader.read(READ_BYTES):
                for message in decoder.feed(data):
                    self._take(message, writer)
                await writer.drain()
        finally:
            writer.close()

    def _take(self, message: Message, writer: asyncio.StreamWriter) -> None:
        """Whatever is wrong, a call is answered: a runtime creates the container if its call gets no answer."""
        if message.side is Side.RUNTIME:
            _check_registered(message)
            return
        fault: Exception | None = None
        try:
            reply = self._answer(nri.Request.deserialize(message.data))
        except nri.UNREADABLE as error:
            reply = _failed(nri.Code.INTERNAL, f"a call that cannot be read: {error}")
        except Exception as error:  # noqa: BLE001 - goes on its way as soon as the runtime has its refusal
            reply, fault = _failed(nri.Code.INTERNAL, f"{type(error).__name__}: {error}"), error
        writer.write(encoded(Message(Side.PLUGIN, message.stream, Kind.RESPONSE, nri.Response.serialize(reply))))
        if fault is not None:
            raise fault

    def _answer(self, call: nri.Request) -> nri.Response:
        if call.service != nri.PLUGIN_SERVICE:
            return _failed(nri.Code.UNIMPLEMENTED, f"no service {call.service}")
        try:
            match call.method:
                case "Configure":
                    return self._configured(nri.ConfigureRequest.deserialize(call.payload))
                case "Synchronize":
                    return self._synchronized(nri.SynchronizeRequest.deserialize(call.payload))
                case "CreateContainer" | "StartContainer":
                    asked = nri.ContainerRequest.deserialize(call.payload)
                    self._handler.starting(asked.pod, asked.container)
                case "RemoveContainer":
                    self._handler.removed(nri.ContainerRequest.deserialize(call.payload).container.id)
                case "StateChange":
                    self._changed(nri.StateChangeEvent.deserialize(call.payload))
                case "Shutdown":
                    log.info("runtime.shuts_down")
                case _:
                    return _failed(nri.Code.UNIMPLEMENTED, f"no method {call.method}")
        except Refused as refused:
            return _failed(nri.Code.FAILED_PRECONDITION, str(refused))
        return nri.Response()

    def _configured(self, asked: nri.ConfigureRequest) -> nri.Response:
        log.info("runtime.registered", runtime=asked.runtime_name, version=asked.runtime_version)
        return _done(nri.ConfigureResponse(events=_EVENTS))

    def _synchronized(self, asked: nri.SynchronizeRequest) -> nri.Response:
        self._pods += asked.pods
        self._containers += asked.containers
        if len(self._pods) + len(self._containers) > LISTED_MAX:
            raise WireError(f"the runtime lists more than {LISTED_MAX} pods and containers")
        if not asked.more:
            self._handler.listed(self._pods, self._containers)
            self._pods, self._containers = [], []
            self.registered = True
        return _done(nri.SynchronizeResponse(more=asked.more))

    def _changed(self, event: nri.StateChangeEvent) -> None:
        match event.event:
            case nri.Event.START_CONTAINER:
                self._handler.starting(event.pod, event.container)
            case nri.Event.REMOVE_CONTAINER:
                self._handler.removed(event.container.id)
            case _:
                pass


def _check_registered(message: Message) -> None:
    try:
        status = nri.Response.deserialize(message.data).status
    except nri.UNREADABLE as error:
        raise WireError(f"an answer that cannot be read: {error}") from error
    if status.code != nri.Code.OK:
        raise WireError(f"the runtime does not take the plug-in: {status.message}")


def _done(reply: nri.ConfigureResponse | nri.SynchronizeResponse) -> nri.Response:
    return nri.Response(payload=type(reply).serialize(reply))


def _failed(code: nri.Code, why: str) -> nri.Response:
    return nri.Response(status=nri.Status(code=code, message=why))
