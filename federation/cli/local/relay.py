"""A TCP relay on loopback that can be cut: how demos, drills and tests take a cluster's network away.

While cut, open connections stay open but carry nothing, and new ones are accepted and left unanswered: what a
partition looks like to both ends, unlike a refused connection. Runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass, field
from typing import Final

from federation.cli.local.ports import HOST

CHUNK_BYTES: Final = 64 * 1024
CONNECTIONS_MAX: Final = 256  # an agent has a few to each server


@dataclass(slots=True)
class Relay:
    """`HOST:port` leads to `HOST:target` until `cut`, and again after `heal`."""

    target: int
    port: int = 0
    _open: threading.Event = field(default_factory=threading.Event)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _thread: threading.Thread | None = None
    _passable: asyncio.Event | None = None
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def start(self) -> None:
        """Listening when this returns; `port` is set."""
        self._thread = threading.Thread(target=self._run, name=f"relay-{self.target}", daemon=True)
        self._thread.start()
        self._open.wait()

    def cut(self) -> None:
        """Nothing passes any more, in either direction, once this returns."""
        asyncio.run_coroutine_threadsafe(self._set(passable=False), self._loop).result()

    def heal(self) -> None:
        asyncio.run_coroutine_threadsafe(self._set(passable=True), self._loop).result()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen())
        self._open.set()
        self._loop.run_forever()
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _listen(self) -> None:
        self._passable = asyncio.Event()
        self._passable.set()
        self._server = await asyncio.start_server(self._accept, HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _set(self, *, passable: bool) -> None:
        assert self._passable is not None
        (self._passable.set if passable else self._passable.clear)()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= CONNECTIONS_MAX:
            writer.close()
            return
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._carry(reader, writer)
        writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._passable is not None
        await self._passable.wait()
        far_reader, far_writer = await asyncio.open_connection(HOST, self.target)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, far_writer))
                both.create_task(self._pump(far_reader, writer))
        except* OSError:
            pass  # one end went away; the other is told by the close below
        finally:
            far_writer.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        assert self._passable is not None
        while data := await source.read(CHUNK_BYTES):
            await self._passable.wait()
            sink.write(data)
            await sink.drain()
        raise ConnectionResetError("end of stream")
