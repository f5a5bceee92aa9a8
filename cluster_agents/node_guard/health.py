"""`GET /healthz` of a guard: 200 as long as the runtime asks it before it starts a container, else 503."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from aiohttp import web

CONNECTIONS_MAX: Final = 32
"""At once. Anybody may connect, and a guard that has no file descriptor left sees no process and can signal none."""


class _Full(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.abort()


class Health:
    """`state` says whether the guard is registered, and what else is of interest. Serves from `open` to `close`."""

    def __init__(self, registered: Callable[[], bool], state: Callable[[], dict[str, Any]]) -> None:
        self._registered = registered
        self._state = state
        app = web.Application()
        app.add_routes([web.get("/healthz", self._healthz)])
        self._runner = web.AppRunner(app, access_log=None)
        self._listening: asyncio.Server | None = None

    async def open(self, address: tuple[str, int], ports_file: Path | None) -> None:
        """OSError where nobody can listen there."""
        await self._runner.setup()
        self._listening = await asyncio.get_running_loop().create_server(self._connected, *address)
        if ports_file is not None:
            port = self._listening.sockets[0].getsockname()[1]
            scratch = ports_file.with_suffix(".tmp")
            scratch.write_text(json.dumps({"health": port, "pid": os.getpid()}))
            scratch.replace(ports_file)

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.close()
        await self._runner.cleanup()

    @property
    def connections(self) -> list[object]:
        """Those that are served now."""
        server = self._runner.server
        return [] if server is None else list(server.connections)

    def _connected(self) -> asyncio.BaseProtocol:
        server = self._runner.server
        assert server is not None
        return server() if len(self.connections) < CONNECTIONS_MAX else _Full()

    async def _healthz(self, _: web.Request) -> web.Response:
        registered = self._registered()
        body = {"registered": registered, "pid": os.getpid(), **self._state()}
        return web.json_response(body, status=200 if registered else 503)
