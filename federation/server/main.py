"""`muster-server`: one federation server as a process. `init` makes the data folder, `run` (the default) serves.

Set-up and tear-down only; the work is in `loop`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import structlog
import uvicorn

from federation.core.replica import Replica, ReplicaConfig
from federation.protocol import arguments, collector, eventloop
from federation.protocol.bus import NatsBus, connect_nats
from federation.protocol.logs import configure_logs
from federation.protocol.packages import refuse_strangers
from federation.protocol.presets import PRESETS, preset
from federation.protocol.subjects import INBOX_SERVER
from federation.server import auth
from federation.server.app import Service, make_app
from federation.server.feed import Feed
from federation.server.loop import HaltedError, ReplicaLoop
from federation.server.metrics import Metrics
from federation.server.peers import Peers, may_be_called
from storage.blob import BlobStore
from storage.election import JournalTimings
from storage.errors import StoreError, UnsupportedFormatError
from storage.open import open_for_server
from storage.root import FORMAT, FORMAT_FIRST
from storage.selftest import selftest
from storage.upgrade import expect_format
from storage.verify import expect_no_hole

EXIT_ERROR: Final = 1
EXIT_USAGE: Final = 2
EXIT_REFUSED: Final = 4
EXIT_UNAVAILABLE: Final = 6
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


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point. Exit codes as DESIGN §12; the last line on stderr says why."""
    refuse_strangers("muster-server")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in {"init", "run", "-h", "--help"}:
        arguments.insert(0, "run")
    options = _parser().parse_args(arguments)
    try:
        sys.exit(_init(options) if options.command == "init" else eventloop.run(_run(options)))
    except auth.TokenFileError as error:
        _fail(EXIT_REFUSED, str(error))
    except UnsupportedFormatError as error:
        _fail(EXIT_REFUSED, f"store: {error}")
    except StoreError as error:
        _fail(EXIT_UNAVAILABLE, f"store: {error}")
    except HaltedError as error:
        _fail(EXIT_ERROR, f"the journal cannot be followed: {error}")
    except OSError as error:
        _fail(EXIT_ERROR, str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="muster-server", description="One federation server of Muster.")
    commands = parser.add_subparsers(dest="command", required=True)
    init = commands.add_parser("init", help="make the data folder's token file")
    init.add_argument("--dir", type=Path, required=True)
    init.add_argument("--clusters", type=_clusters, default="", help="names, separated by commas")
    run = commands.add_parser("run", help="serve (the default)")
    run.add_argument("--dir", type=Path, required=True, help="data folder with tokens.json")
    run.add_argument("--store", default="", help="store URL; sqlite in the data folder by default")
    run.add_argument("--name", default="s-1")
    run.add_argument(
        "--listen", type=arguments.address, default="127.0.0.1:0", help="host:port; port 0 takes a free one"
    )
    run.add_argument(
        "--advertise", type=_advertised, default="", help="URL for the other servers; as it listens by default"
    )
    run.add_argument("--nats", default="", help="bus URL; without it only HTTPS is used")
    run.add_argument("--nkey-file", type=Path)
    run.add_argument("--ports-file", type=Path, help="where to write the chosen port as JSON")
    run.add_argument("--preset", choices=sorted(PRESETS), default="default")
    run.add_argument(
        "--format-max",
        type=_format,
        default=os.environ.get("MUSTER_FORMAT_MAX", str(FORMAT)),
        metavar="N",
        help="refuse stores of a newer format, and begin a new one with this: for going back to an older version",
    )
    run.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser


def _advertised(url: str) -> str:
    if url and not may_be_called(url):
        raise argparse.ArgumentTypeError(f"{url!r} is neither https:// nor http:// on this machine: tokens go there")
    return url


def _clusters(text: str) -> list[str]:
    return list(dict.fromkeys(arguments.cluster_name(name.strip()) for name in text.split(",") if name.strip()))


def _format(text: str) -> int:
    if not text.isdecimal() or not FORMAT_FIRST <= int(text) <= FORMAT:
        raise argparse.ArgumentTypeError(f"{text!r} is no format of {FORMAT_FIRST} to {FORMAT}")
    return int(text)


def _init(options: argparse.Namespace) -> int:
    options.dir.mkdir(parents=True, exist_ok=True)
    path = options.dir / auth.TOKENS_FILE
    if path.exists():
        sys.stdout.write(f"{path} is there already; left as it is\n")
        return 0
    auth.make(path, options.clusters)
    sys.stdout.write(f"wrote {path}\n")
    return 0


@dataclass(slots=True)
class _Parts:
    """What one running server is made of."""

    loop: ReplicaLoop
    feed: Feed
    peers: Peers | None
    web: uvicorn.Server
    listener: socket.socket


async def _run(options: argparse.Namespace) -> int:
    configure_logs(options.log_level)
    principals = auth.load(options.dir / auth.TOKENS_FILE)
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
        return await _serve(parts, options)
    finally:
        store.close()


def _assemble(options: argparse.Namespace, store: BlobStore, principals: auth.Principals) -> _Parts:
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


async def _serve(parts: _Parts, options: argparse.Namespace) -> int:
    """Until a signal or a fault; the exit code."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    parts.web.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
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
    for task in running:
        if task.get_name() != "web":
            task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    for task in done:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
    return 0


async def _settled(loop: ReplicaLoop) -> None:
    """Python looks for cycles again once the state is there, or cannot be had for a while."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(loop.caught_up.wait(), HELD_S_MAX)
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


def _fail(code: int, why: str) -> NoReturn:
    sys.stderr.write(f"muster-server: {why}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
