"""`muster-agent`: one member cluster's agent as a process. Set-up and tear-down only; the work is in `loop`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

import httpx
import structlog

from cluster_agents.core.config import NODE_LABELS, AgentConfig
from cluster_agents.core.reconcile import Reconciler
from cluster_agents.failpoints import ENVIRONMENT, FailpointError, Failpoints
from cluster_agents.kubernetes.guard_server import serve_guards
from cluster_agents.kubernetes.reflector import Reflector, sources
from cluster_agents.kubernetes.transport import KubeConfigError, KubeTransport, connect
from cluster_agents.loop import AgentLoop, StoppedError
from cluster_agents.servers import CONNECTIONS_MAX, Servers
from federation.protocol import arguments, collector, eventloop
from federation.protocol.bus import BusError, connect_nats
from federation.protocol.logs import configure_logs
from federation.protocol.packages import refuse_strangers
from federation.protocol.presets import PRESETS, preset
from federation.protocol.subjects import inbox
from placement.model import FenceStrength

EXIT_ERROR: Final = 1
EXIT_USAGE: Final = 2
EXIT_REFUSED: Final = 4

log = structlog.get_logger()


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point. Exit codes as DESIGN §12; the last line on stderr says why."""
    refuse_strangers("muster-agent")
    options = _parser().parse_args(argv)
    try:
        sys.exit(eventloop.run(_run(options)))
    except (KubeConfigError, FailpointError) as error:
        _fail(EXIT_USAGE, str(error))
    except (BusError, StoppedError) as error:
        _fail(EXIT_REFUSED, str(error))
    except (OSError, ValueError) as error:
        _fail(EXIT_ERROR, str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="muster-agent", description="The agent of one member cluster.")
    parser.add_argument("--cluster", type=arguments.cluster_name, required=True)
    parser.add_argument(
        "--server",
        action="append",
        type=arguments.http_url,
        default=[],
        help="URL of a federation server; may be repeated",
    )
    parser.add_argument("--token-file", type=Path, help="file with this agent's bearer token")
    parser.add_argument("--nats", default="", help="bus URL")
    parser.add_argument("--nkey-file", type=Path)
    parser.add_argument("--kube-url", type=arguments.http_url, default="", help="plain URL of the cluster's API server")
    parser.add_argument("--kubeconfig", default="")
    parser.add_argument("--context", default="")
    parser.add_argument(
        "--guard-listen", type=arguments.address, default="127.0.0.1:0", help="host:port where node guards ask"
    )
    parser.add_argument("--fence-strength", choices=["guard", "replicas", "none"], default="none")
    parser.add_argument("--ports-file", type=Path)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="default")
    parser.add_argument("--api-budget", type=arguments.rate, default=20.0, help="requests per second to the API server")
    parser.add_argument(
        "--node-label",
        action="append",
        default=[],
        metavar="KEY",
        help="label by which pods may choose nodes, beside the usual ones and those of muster.io; may be repeated",
    )
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser


async def _run(options: argparse.Namespace) -> int:
    configure_logs(options.log_level)
    failpoints = Failpoints.from_text(os.environ.get(ENVIRONMENT, ""))
    kube = await connect(url=options.kube_url, kubeconfig=options.kubeconfig, context=options.context)
    config = AgentConfig(
        cluster=options.cluster,
        boot_nonce=secrets.token_hex(8),
        timings=preset(options.preset),
        seed=secrets.randbits(32),
        boot_min=int(time.time()),
        fence_strength=FenceStrength(options.fence_strength),
        api_per_s=options.api_budget,
        node_labels=NODE_LABELS | frozenset(options.node_label),
    )
    loop = AgentLoop(Reconciler(config), kube, failpoints)
    loop.servers = servers = Servers(
        cluster=options.cluster,
        urls=[url for url in options.server if url],
        http=_http(options),
        ask_timeout_s=config.timings.ask_timeout_s,
        on_answer=loop.answered,
        on_told=loop.told,
    )
    collector.calm()
    try:
        return await _serve(loop, servers, kube, options)
    finally:
        await servers.close()
        await kube.close()


async def _serve(loop: AgentLoop, servers: Servers, kube: KubeTransport, options: argparse.Namespace) -> int:
    """Until a signal or a fault; the exit code."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    host, port = options.guard_listen
    guards = await serve_guards(loop.guard, host=host, port=port, ports_file=options.ports_file)
    running = [asyncio.create_task(loop.run()), asyncio.create_task(stop.wait())]
    running += [
        asyncio.create_task(Reflector(kube, source, loop.feed).run())
        for source in sources(loop.reconciler.config.namespace)
    ]
    if options.nats:
        running.append(asyncio.create_task(_follow_bus(servers, options)))
    log.info("agent.started", cluster=options.cluster, pid=os.getpid())
    try:
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await eventloop.end(running)
        await guards.cleanup()
    for task in done:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
    return 0


async def _follow_bus(servers: Servers, options: argparse.Namespace) -> None:
    """Connected for as long as the process lives; BusError when the broker refuses the credential or a subject."""
    seed = options.nkey_file.read_text().strip() if options.nkey_file else None
    name = f"agent-{options.cluster}"
    bus = await connect_nats(options.nats, name=name, inbox_prefix=inbox(options.cluster), nkey_seed=seed)
    await servers.join_bus(bus)
    log.info("bus.connected", url=options.nats)
    await bus.failed.wait()
    raise BusError(f"the bus refused this agent: {bus.failure}")


# httpcore asks for sniffio several times a request; where it is not installed, each ask searches the whole import path.
sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]


def _http(options: argparse.Namespace) -> httpx.AsyncClient:
    token = options.token_file.read_text().strip() if options.token_file else ""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    limits = httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX)
    return httpx.AsyncClient(headers=headers, limits=limits, trust_env=False)


def _fail(code: int, why: str) -> NoReturn:
    sys.stderr.write(f"muster-agent: {json.dumps(why)}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
