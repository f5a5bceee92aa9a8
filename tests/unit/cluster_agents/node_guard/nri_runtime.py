"""A container runtime as NRI plug-ins see one, over a real socket with our codec; for tests of the guard."""

from __future__ import annotations

import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from cluster_agents.core.config import LABEL_TOKEN
from cluster_agents.node_guard import nri
from cluster_agents.node_guard.wire import Decoder, Kind, Message, Side, encoded

WAITS_S: Final = 60.0
CREATED: Final = 1


class GoneError(Exception):
    """The plug-in closed the connection."""


class NriRuntime:
    """Listens at `path`; `connect` takes the next plug-in."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._listening.settimeout(WAITS_S)
        self._taken: list[Plugin] = []

    def connect(self) -> Plugin:
        connection, _ = self._listening.accept()
        connection.settimeout(WAITS_S)
        self._taken.append(Plugin(connection))
        return self._taken[-1]

    def close(self) -> None:
        """As a runtime that ends."""
        for one in self._taken:
            one.close()
        self._listening.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Plugin:
    """One that has connected."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._decoder = Decoder()
        self._read: list[Message] = []
        self._stream = 1

    def close(self) -> None:
        self._connection.close()

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def message(self) -> Message:
        """The next that comes; GoneError where none does."""
        while not self._read:
            data = self._connection.recv(64 * 1024)
            if not data:
                raise GoneError
            self._read += self._decoder.feed(data)
        return self._read.pop(0)

    def registers(self, status: nri.Status | None = None) -> nri.RegisterPluginRequest:
        """Take its registration, with this answer."""
        asked = self.message()
        call = nri.Request.deserialize(asked.data)
        assert (asked.side, asked.kind, call.service, call.method) == (
            Side.RUNTIME,
            Kind.REQUEST,
            nri.RUNTIME_SERVICE,
            "RegisterPlugin",
        )
        reply = nri.Response() if status is None else nri.Response(status=status)
        self.send(encoded(Message(Side.RUNTIME, asked.stream, Kind.RESPONSE, nri.Response.serialize(reply))))
        return nri.RegisterPluginRequest.deserialize(call.payload)

    def call(self, method: str, asked: Any = None, *, service: str = nri.PLUGIN_SERVICE) -> nri.Response:
        """Ask it, and wait for its answer."""
        payload = b"" if asked is None else type(asked).serialize(asked)
        return self.ask(nri.Request.serialize(nri.Request(service=service, method=method, payload=payload)))

    def ask(self, data: bytes) -> nri.Response:
        self._stream += 2
        self.send(encoded(Message(Side.PLUGIN, self._stream, Kind.REQUEST, data)))
        answer = self.message()
        assert (answer.side, answer.stream, answer.kind) == (Side.PLUGIN, self._stream, Kind.RESPONSE)
        return nri.Response.deserialize(answer.data)

    def configure(self) -> nri.ConfigureResponse:
        asked = nri.ConfigureRequest(runtime_name="test", runtime_version="1", request_timeout=2_000)
        return nri.ConfigureResponse.deserialize(self.call("Configure", asked).payload)

    def synchronize(self, *some: nri.ContainerRequest, more: bool = False) -> bool:
        """List these; whether it waits for more."""
        pods, containers = [one.pod for one in some], [one.container for one in some]
        asked = nri.SynchronizeRequest(pods=pods, containers=containers, more=more)
        return bool(nri.SynchronizeResponse.deserialize(self.call("Synchronize", asked).payload).more)

    def taken_in(self) -> Self:
        """Through all that comes before the first question."""
        self.registers()
        self.configure()
        self.synchronize()
        return self


def asked(name: str, token: str = "L.1", *, letter: str = "a") -> nri.ContainerRequest:
    """What a runtime says of a container before it creates or starts it."""
    labels = {LABEL_TOKEN: token} if token else {}
    pod = nri.PodSandbox(id=f"s-{name}", name=name, uid=f"u-{name}", namespace="team", labels=labels)
    container = nri.Container(id=letter * 64, pod_sandbox_id=pod.id, name="main", state=CREATED)
    return nri.ContainerRequest(pod=pod, container=container)
