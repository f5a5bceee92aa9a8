"""One federation server as a process: its parts put together, run, and taken down. The work is in `loop`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
import uvicorn

from federation.core.replica import Replica, ReplicaConfig
from federation.protocol import collector, eventloop
from federation.protocol.bus import NatsBus, connect_nats
from federation.protocol.logs import configure_logs
from federation.protocol.presets import preset
from federation.protocol.subjects import INBOX_SERVER
from federation.server.app import Service, make_app
from federation.server.feed import Feed
from federation.server.loop import ReplicaLoop
from federation.server.metrics import Metrics
from federation.server.peers import Peers, may_be_called
from federation.server.tokens import TOKENS_FILE, Principals, load
from storage.blob import BlobStore
from storage.election import JournalTimings
from storage.open import open_for_server
from storage.selftest import selftest
from storage.upgrade import expect_format
from storage.verify import expect_no_hole

PURE_PROTOBUF: Final = ("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
FAST_PRESETS: Final = frozenset({"fast", "demo"})
TAKEOVER_FAST: Final = JournalTimings(heartbeat_s=0.5, silence_s=1.5, jitter_s=0.5, poll_s=0.25, retry_s=0.1)
"""A take-over within 3 s, for two entries a second while idle; the default takes up to 20 s and a tenth of those."""
KEEP_ALIVE_S: Final = 75  # agents and clients ask every few seconds: each new connection would cost both sides anew
HELD_S_MAX: Final = (
    120.0  # a start of full size takes a tenth of this; whoever waits for a store makes cycles meanwhile
)
HELD_LOOK_S: Final = 0.2
SHUTDOWN_S: Final = 3  # open watch streams are cut after this

log = structlog.get_logger()


@dataclass(slots=True)
class _Parts:
    """What one running server is made of."""

    loop: ReplicaLoop
    feed: Feed
    peers: Peers | None
    web: uvicorn.Server
    listener: socket.socket


async def serve(options: argparse.Namespace) -> int:
    """`muster-server run`, until a signal or a fault; the exit code."""
    configure_logs(options.log_level)
    principals = load(options.dir / TOKENS_FILE)
    if options.store.startswith("etcd:"):
        os.environ.setdefault(*PURE_PROTOBUF)  # before anything imports protobuf: the client loads with no other
    store = open_for_server(options.store or f"sqlite:///{options.dir.resolve()}/journal.db")
    try:
        await asyncio.to_thread(selftest, store, nonce=os.urandom(8).hex())
        await asyncio.to_thread(expect_format, store, options.format_max)
        await asyncio.to_thread(expect_no_hole, store)
        parts = _assemble(options, store, principals)
        collector.calm()
        collector.hold()
        _write_ports(options.ports_file, parts.listener.getsockname()[1])
        return await _running(parts, options)
    finally:
        store.close()


def _assemble(options: argparse.Namespace, store: BlobStore, principals: Principals) -> _Parts:
    feed = Feed()
    nonce = os.urandom(8).hex()
    config = ReplicaConfig(
        name=options.name,
        seed=nonce,
        timings=preset(options.preset),
        journal_timings=_journal_timings(options.store, options.preset),
        format_max=options.format_max,
    )
    loop = ReplicaLoop(Replica(config), store, feed)
    listener = _listen(options.listen)
    peers = None
    if not _alone(options.store):
        peers = Peers(store, options.name, options.advertise or _reached_at(listener), nonce)
    app = make_app(Service(loop, feed, principals, Metrics(), peers))
    web = uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
    )
    return _Parts(loop, feed, peers, web, listener)


def _alone(store_url: str) -> bool:
    """Whether the store admits one process only."""
    return not store_url or store_url.startswith(("sqlite:", "memory:"))


def _journal_timings(store_url: str, preset_name: str) -> JournalTimings:
    """A store with one process has nobody to wait for before it leads."""
    if _alone(store_url):
        return JournalTimings(silence_s=0, jitter_s=0)
    return TAKEOVER_FAST if preset_name in FAST_PRESETS else JournalTimings()


def _reached_at(listener: socket.socket) -> str:
    """How others on this machine reach it; empty where it listens for other machines, which takes TLS before it."""
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    if may_be_called(url):
        return url
    remedy = "give --advertise https://..., or followers cannot forward to it"
    log.warning("server.not_advertised", listen=host, remedy=remedy)
    return ""


async def _running(parts: _Parts, options: argparse.Namespace) -> int:
    """Until a signal or a fault; the exit code."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    running = [
        asyncio.create_task(parts.loop.run(), name="loop"),
        asyncio.create_task(parts.web.serve(sockets=[parts.listener]), name="web"),
        asyncio.create_task(stop.wait(), name="signal"),
    ]
    if parts.peers is not None:
        running.append(asyncio.create_task(_announced(parts.peers), name="peers"))
    if parts.peers is not None:
        log.info("store.watched", by_itself=parts.loop.hear_store(asyncio.get_running_loop()))
    if options.nats:
        running.append(asyncio.create_task(_follow_bus(parts.loop, options), name="bus"))
    settled = asyncio.create_task(_settled(parts.loop), name="settled")
    log.info("server.started", name=options.name, port=parts.listener.getsockname()[1], pid=os.getpid())
    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    settled.cancel()
    parts.feed.close()
    parts.web.should_exit = True
    await eventloop.end([task for task in running if task.get_name() != "web"])
    await asyncio.gather(*running, return_exceptions=True)
    for task in done:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
    return 0


async def _settled(loop: ReplicaLoop) -> None:
    """Python looks for cycles again once the state is there, or cannot be had for a while."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(HELD_S_MAX):
            await loop.caught_up.wait()
    collector.settle()


async def _announced(peers: Peers) -> None:
    """Others know where this server is; then there is nothing left to do for as long as it lives."""
    await peers.announce()
    await asyncio.Event().wait()


async def _follow_bus(loop: ReplicaLoop, options: argparse.Namespace) -> None:
    """Connected for as long as the process lives; raises when the broker refuses the credential."""
    seed = options.nkey_file.read_text().strip() if options.nkey_file else None
    bus: NatsBus = await connect_nats(options.nats, name=options.name, inbox_prefix=INBOX_SERVER, nkey_seed=seed)
    await loop.join_bus(bus)
    log.info("bus.connected", url=options.nats)
    try:
        await bus.failed.wait()
        raise ConnectionError(f"the bus refused this server: {bus.failure}")
    finally:
        with contextlib.suppress(Exception):
            await bus.close()


def _listen(address: tuple[str, int]) -> socket.socket:
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, or asyncio does not know it for TCP and leaves Nagle's delay on: 40 ms for every answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(1024)
    return listener


def _write_ports(path: Path | None, port: int) -> None:
    """Whole or not at all: whoever waits for the file must never read half of it."""
    if path is None:
        return
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps({"http": port, "pid": os.getpid()}))
    scratch.replace(path)
