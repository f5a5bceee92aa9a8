"""`muster-simkube`: a simulated member cluster as processes. `apiserver`, `kubelets`, or `run` for both.

Two processes on purpose: killing the API server must leave the kubelets, and what they run, alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from aiohttp import web

from cluster_agents.simkube.kubelet import Timing
from cluster_agents.simkube.kubelet_main import KubeletShell, nodes_of
from cluster_agents.simkube.nodespec import NodeSpecError, node_shapes
from cluster_agents.simkube.server import ApiShell
from federation.protocol import arguments, collector, eventloop
from federation.protocol.packages import refuse_strangers
from federation.protocol.presets import PRESETS, preset

HOST: Final = "127.0.0.1"
NODES_DEFAULT: Final = "4xA100-80:8,clique=4"
NODES_PER_HEARTBEAT_S: Final = 100  # at most a hundred heartbeats a second, whatever the size of the cluster
RESTART_S: Final = 0.5
STOP_S: Final = 5.0
FAILED: Final = 1
USAGE: Final = 2


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    refuse_strangers("muster-simkube")
    options = _parser().parse_args(argv)
    try:
        match options.command:
            case "apiserver":
                return eventloop.run(_apiserver(options))
            case "kubelets":
                return eventloop.run(_kubelets(options))
            case "check":
                node_shapes("c-1", options.nodes)
                return 0
            case _:
                return _run(options)
    except NodeSpecError as error:
        sys.stderr.write(f"muster-simkube: {error}\n")
        return USAGE
    except OSError as error:  # of a folder, a token's file, a port
        sys.stderr.write(f"muster-simkube: {error}\n")
        return FAILED
    except KeyboardInterrupt:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="muster-simkube", description=__doc__.splitlines()[0] if __doc__ else "")
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--name", type=arguments.cluster_name, default="c-1", help="the cluster's name; it seeds every uid"
    )
    shared.add_argument("--dir", type=Path, required=True, help="write-ahead log and run log live here")
    shared.add_argument("--ports-file", type=Path, help="write the chosen ports here as JSON once listening")
    shared.add_argument("--token-file", type=Path, help="bearer token that the API server asks for")
    nodes_help = f'such as "{NODES_DEFAULT}"'

    api = commands.add_parser("apiserver", parents=[shared], help="the API server")
    api.add_argument("--port", type=arguments.port, default=0, help="0 chooses a free one")
    api.add_argument("--nodes", default=NODES_DEFAULT, help=nodes_help)

    kubelets = commands.add_parser("kubelets", parents=[shared, _kubelet_options()], help="all kubelets and guards")
    kubelets.add_argument("--api", type=arguments.http_url, required=True, help="URL of the API server")
    kubelets.add_argument("--nodes", help="asked of the API server if absent")

    check = commands.add_parser("check", help="whether --nodes can be read; starts nothing")
    check.add_argument("--nodes", required=True, help=nodes_help)

    run = commands.add_parser("run", parents=[shared, _kubelet_options()], help="both, each restarted when it dies")
    run.add_argument("--port", type=arguments.port, default=0, help="of the API server; 0 chooses a free one")
    run.add_argument("--nodes", default=NODES_DEFAULT, help=nodes_help)
    return parser


def _kubelet_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--guard-url", type=arguments.http_url, help="where guards ask the agent; absent: the cluster has no guard"
    )
    options.add_argument("--preset", choices=sorted(PRESETS), default="default", help="gives the guards their interval")
    options.add_argument(
        "--guard-renewal-s", type=arguments.seconds, help="how often guards ask (default: the preset's TTL / 6)"
    )
    options.add_argument("--start-delay-s", type=_span, default=Timing().start_delay_s, help="LEAST:MOST")
    options.add_argument("--stop-delay-s", type=_span, default=Timing().stop_delay_s, help="LEAST:MOST")
    options.add_argument(
        "--heartbeat-s", type=arguments.seconds, help="of each node (default 10, more in large clusters)"
    )
    options.add_argument(
        "--admin-port", type=arguments.port, default=0, help="of the kubelets' own switches; 0: a free one"
    )
    options.add_argument("--seed", type=int, help="of all draws (default: from the name)")
    return options


def _span(text: str) -> tuple[float, float]:
    least, _, most = text.partition(":")
    try:
        span = (float(least), float(most or least))
    except ValueError:
        span = (math.nan, math.nan)
    if not 0 <= span[0] <= span[1] < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not LEAST:MOST")
    return span


# --- processes -------------------------------------------------------------------------------------------------------


async def _apiserver(options: argparse.Namespace) -> int:
    shapes = node_shapes(options.name, options.nodes)
    shell = ApiShell(options.name, folder=options.dir, nodes=shapes, token=_token(options))
    runner, port = await _listening(shell.app(), options.port)
    _write_ports(options.ports_file, {"api": port, "pid": os.getpid()})
    await _until_stopped()
    await runner.cleanup()
    shell.close()
    return 0


async def _kubelets(options: argparse.Namespace) -> int:
    token = _token(options)
    shapes = node_shapes(options.name, options.nodes) if options.nodes else await nodes_of(options.api, token)
    shell = KubeletShell(
        options.name,
        shapes,
        _timing(options, len(shapes)),
        api_url=options.api,
        guard_url=options.guard_url,
        folder=options.dir,
        seed=zlib.crc32(options.name.encode()) if options.seed is None else options.seed,
        token=token,
    )
    runner, port = await _listening(shell.admin(), options.admin_port)
    _write_ports(options.ports_file, {"admin": port, "pid": os.getpid()})
    running = asyncio.create_task(shell.run())
    stopped = asyncio.create_task(_until_stopped())
    await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
    failed = running.done()
    running.cancel()
    stopped.cancel()
    await runner.cleanup()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    return 1 if failed else 0


def _timing(options: argparse.Namespace, nodes: int) -> Timing:
    heartbeat_s = options.heartbeat_s or max(Timing().heartbeat_s, nodes / NODES_PER_HEARTBEAT_S)
    renewal_s = options.guard_renewal_s or preset(options.preset).ttl_s / 6
    return replace(
        Timing(),
        start_delay_s=options.start_delay_s,
        stop_delay_s=options.stop_delay_s,
        heartbeat_s=heartbeat_s,
        lease_s=4 * heartbeat_s,
        guard_renewal_s=renewal_s,
    )


def _token(options: argparse.Namespace) -> str | None:
    file: Path | None = options.token_file
    return None if file is None else file.read_text().strip()


async def _listening(app: web.Application, port: int) -> tuple[web.AppRunner, int]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    chosen: int = runner.addresses[0][1]
    collector.calm()
    return runner, chosen


def _write_ports(file: Path | None, ports: dict[str, int]) -> None:
    """Whole or not at all, so that a reader who finds the file can trust it."""
    if file is not None:
        scratch = file.with_suffix(".tmp")
        scratch.write_text(json.dumps(ports))
        scratch.replace(file)


async def _until_stopped() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


def _run(options: argparse.Namespace) -> int:
    """Both processes as children; one that dies is started again on its port, until we are told to stop."""
    node_shapes(options.name, options.nodes)
    options.dir.mkdir(parents=True, exist_ok=True)
    _token(options)  # what children could not start on, and would be started on again for ever, is told here
    port, admin = options.port or _free_port(), options.admin_port or _free_port()
    shared = ["--name", options.name, "--dir", str(options.dir)]
    if options.token_file is not None:
        shared += ["--token-file", str(options.token_file)]
    kubelets = ["kubelets", *shared, "--api", f"http://{HOST}:{port}", "--nodes", options.nodes]
    kubelets += ["--preset", options.preset, "--admin-port", str(admin)]
    kubelets += ["--start-delay-s", "{}:{}".format(*options.start_delay_s)]
    kubelets += ["--stop-delay-s", "{}:{}".format(*options.stop_delay_s)]
    for flag in ("guard_url", "guard_renewal_s", "heartbeat_s", "seed"):
        value = getattr(options, flag)
        if value is not None:
            kubelets += [f"--{flag.replace('_', '-')}", str(value)]
    commands = {
        "apiserver": ["apiserver", *shared, "--port", str(port), "--nodes", options.nodes],
        "kubelets": kubelets,
    }
    signal.signal(signal.SIGTERM, _interrupted)
    children = {role: _child(command) for role, command in commands.items()}
    try:
        while True:
            pids = {f"{role}_pid": child.pid for role, child in children.items()}
            _write_ports(options.ports_file, {"api": port, "admin": admin, "pid": os.getpid(), **pids})
            dead = _first_dead(children)
            time.sleep(RESTART_S)
            children[dead] = _child(commands[dead])
    except KeyboardInterrupt:
        return 0
    finally:
        _stop(children)


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def _child(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "cluster_agents.simkube.main", *command])  # noqa: S603 - ourselves


def _first_dead(children: dict[str, subprocess.Popen[bytes]]) -> str:
    """Wait until a child has ended; which one."""
    while True:
        for role, child in children.items():
            if child.poll() is not None:
                return role
        time.sleep(RESTART_S / 5)


def _stop(children: dict[str, subprocess.Popen[bytes]]) -> None:
    for child in children.values():
        child.terminate()
    for child in children.values():
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
