"""`muster-node-guard`: the guard of one node as a process. What it may know of the cluster is what the agent tells it.

It stands between the runtime, which asks before every start, and the processes, which it ends when the lease has run
out. Its clock counts suspended time too: a node that slept past its deadline has no more right to run than another.
"""

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
from typing import TYPE_CHECKING, Final, NoReturn

import aiohttp
import structlog

from cluster_agents.core.guard import Guard
from cluster_agents.node_guard.asking import Agents
from cluster_agents.node_guard.disk import Disk
from cluster_agents.node_guard.gpus import GpuProbe
from cluster_agents.node_guard.health import Health
from federation.protocol import arguments, eventloop
from federation.protocol.logs import configure_logs
from federation.protocol.packages import refuse_strangers
from federation.protocol.presets import PRESETS, preset

if TYPE_CHECKING:  # they stand on what only the extra `guard` brings
    from cluster_agents.node_guard.gate import Gate

EXIT_ERROR: Final = 1
TICK_S: Final = 0.25  # K has a margin of 2 s at least
BOOTS: Final = 1 << 22  # starts of one guard; answers to an earlier start would have to come over a closed connection
STATE: Final = Path("/run/muster-guard")  # in memory on every node: it is not needed after a boot, and never waits
SOCKET: Final = Path("/var/run/nri/nri.sock")

log = structlog.get_logger()


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point; the last line on stderr says why it ended."""
    refuse_strangers("muster-node-guard")
    options = _parser().parse_args(argv)
    try:
        sys.exit(asyncio.run(_run(options)))
    except ModuleNotFoundError as error:
        _fail(f"this installation has no {error.name}: install muster-fleet[guard]")
    except (OSError, ValueError) as error:
        _fail(str(error))


def _fail(why: str) -> NoReturn:
    sys.stderr.write(f"muster-node-guard: {json.dumps(why)}\n")
    sys.exit(EXIT_ERROR)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="muster-node-guard", description="The guard of one node.")
    parser.add_argument("--node", default=os.environ.get("NODE_NAME", ""), help="this node's name (NODE_NAME)")
    parser.add_argument("--agent", type=_agents_url, required=True, help="where agents answer guards")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="default")
    parser.add_argument("--nri-socket", type=Path, default=SOCKET)
    parser.add_argument("--state-dir", type=Path, default=STATE, help="folder of the node, not of a container")
    parser.add_argument("--listen", type=arguments.address, default="127.0.0.1:0", help="host:port of /healthz")
    parser.add_argument("--ports-file", type=Path)
    parser.add_argument(
        "--gpus",
        choices=["auto", "off"],
        default="auto",
        help="auto: read the health of this node's GPUs where NVIDIA's library and the extra `gpu` are installed",
    )
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser


def _agents_url(text: str) -> str:
    if not text.startswith("http://"):
        raise argparse.ArgumentTypeError(f"{text!r} is not an http:// URL, and guards speak nothing else")
    return arguments.http_url(text)


def clock_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def _run(options: argparse.Namespace) -> int:
    """Until a signal; what runs then runs on, and whoever starts next has it from the disk."""
    from cluster_agents.node_guard.gate import Gate
    from cluster_agents.node_guard.runtime import Runtime

    if not options.node:
        raise ValueError("--node is not given, and NODE_NAME is empty")
    configure_logs(options.log_level, waits=False)  # the runtime reads them, and may be what stands still
    os.close(os.pidfd_open(os.getpid()))  # what cannot signal is no guard
    disk = Disk(options.state_dir)
    renewal_s = preset(options.preset).renew_s
    guard = Guard(
        options.node,
        secrets.randbelow(BOOTS),
        started_at_s=clock_s(),
        renewal_s=renewal_s,
        held_before=frozenset(disk.kept.hold),
    )
    gate = Gate(guard, disk, clock_s)
    runtime = Runtime(options.nri_socket, gate)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with aiohttp.ClientSession() as session:
        agents = Agents(options.agent, session, within_s=renewal_s)
        probe = GpuProbe()
        health = Health(lambda: runtime.registered, lambda: gate.state() | probe.state())
        await health.open(options.listen, options.ports_file)
        log.info("guard.started", node=options.node, pid=os.getpid(), containers=len(gate.containers.known))
        work = [runtime.run(), _ask(guard, gate, agents, probe), _stop_due(gate)]
        if options.gpus == "auto":
            work.append(probe.run())
        await _until(stop, [asyncio.create_task(one) for one in work])
        await health.close()
    return 0


async def _until(stop: asyncio.Event, running: list[asyncio.Task[None]]) -> None:
    """Whatever of it ends, ends all: none of it does but by a fault."""
    waiting = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([*running, waiting], return_when=asyncio.FIRST_COMPLETED)
    await eventloop.end([*running, waiting])
    for task in done:
        if (error := task.exception()) is not None:
            raise error


async def _ask(guard: Guard, gate: Gate, agents: Agents, probe: GpuProbe) -> None:
    """At the start, then once in every renewal interval, answered or not."""
    while True:
        await asyncio.sleep(max(0.0, guard.ask_due_s - clock_s()))
        answer = await agents.ask(guard.ask(clock_s(), probe.told))
        if answer is not None:
            guard.answered(answer)
            gate.keep()


async def _stop_due(gate: Gate) -> None:
    while True:
        gate.stop_due()
        await asyncio.sleep(TICK_S)


if __name__ == "__main__":
    main()
