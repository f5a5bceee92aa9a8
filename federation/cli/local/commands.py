"""What to run for each role of a local fleet. The order here is the order in which the roles start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from federation.cli.errors import CliError, ExitCode
from federation.cli.local.nats import binary
from federation.cli.local.ports import HOST
from federation.cli.local.state import FleetDir, FleetState

NATS: Final = "nats"
SERVER: Final = "server"
SERVER_NAME: Final = "s-1"
KIND_PER_CLUSTER: Final = ("apiserver", "agent", "kubelets")
HIDDEN_VARIABLES: Final = ("MUSTER_TOKEN", "MUSTER_SERVER", "MUSTER_DIR")  # people's; children get theirs by file


def roles(state: FleetState) -> list[str]:
    """Every process of the fleet: `nats`, `server` (more of them: `server/s-2`, …) and, per cluster, `apiserver/<c>`,
    `agent/<c>`, `kubelets/<c>`.

    Each listens on a port of its own: an agent for node guards, the kubelets for a drill's switches.
    """
    return [NATS, *servers(state), *(f"{kind}/{cluster}" for kind in KIND_PER_CLUSTER for cluster in state.clusters)]


def servers(state: FleetState) -> list[str]:
    """The roles of the federation servers; the first is just `server`."""
    return [SERVER, *(f"{SERVER}/s-{number}" for number in range(2, state.replicas + 1))]


def server_urls(state: FleetState, *, of: str = "") -> str:
    """Where the servers are reached, with commas between them."""
    return ",".join(url(state, role, of=of) for role in servers(state))


def url(state: FleetState, role: str, *, of: str = "") -> str:
    """Where `role` is reached, by the cluster `of` if it has a way of its own."""
    scheme = "nats" if role == NATS else "http"
    return f"{scheme}://{HOST}:{state.uplinks.get(of, {}).get(role, state.ports[role])}"


def command(folder: FleetDir, state: FleetState, role: str, environment: Mapping[str, str]) -> list[str]:
    """The program and arguments of a role."""
    if role == NATS:
        return [str(binary(environment)), "-c", str(folder.nats_conf)]
    kind, _, cluster = role.partition("/")
    build: dict[str, Callable[[FleetDir, FleetState, str], list[str]]] = {
        SERVER: _server,
        "apiserver": _apiserver,
        "agent": _agent,
        "kubelets": _kubelets,
    }
    return build[kind](folder, state, cluster)


def _server(folder: FleetDir, state: FleetState, name: str) -> list[str]:
    role = f"{SERVER}/{name}" if name else SERVER
    return [
        program("muster-server"),
        "run",
        *("--dir", str(folder.root)),
        *("--store", state.store or f"sqlite:///{folder.root}/journal.db"),
        *("--name", name or SERVER_NAME),
        *("--listen", f"{HOST}:{state.ports[role]}"),
        *("--nats", url(state, NATS)),
        *("--nkey-file", str(folder.seed(SERVER))),
        *("--preset", state.preset),
    ]


def _apiserver(folder: FleetDir, state: FleetState, cluster: str) -> list[str]:
    return [
        program("muster-simkube"),
        "apiserver",
        *("--name", cluster),
        *("--nodes", state.nodes[state.clusters.index(cluster)]),
        *("--dir", str(folder.cluster(cluster))),
        *("--port", str(state.ports[f"apiserver/{cluster}"])),
    ]


def _kubelets(folder: FleetDir, state: FleetState, cluster: str) -> list[str]:
    return [
        program("muster-simkube"),
        "kubelets",
        *("--name", cluster),
        *("--api", url(state, f"apiserver/{cluster}")),
        *("--guard-url", url(state, f"agent/{cluster}")),
        *("--nodes", state.nodes[state.clusters.index(cluster)]),
        *("--dir", str(folder.cluster(cluster))),
        *("--admin-port", str(state.ports[f"kubelets/{cluster}"])),
        *("--preset", state.preset),
    ]


def _agent(folder: FleetDir, state: FleetState, cluster: str) -> list[str]:
    return [
        program("muster-agent"),
        *("--cluster", cluster),
        *(part for role in servers(state) for part in ("--server", url(state, role, of=cluster))),
        *("--token-file", str(folder.token(f"agent-{cluster}"))),
        *("--nats", url(state, NATS, of=cluster)),
        *("--nkey-file", str(folder.seed(cluster))),
        *("--kube-url", url(state, f"apiserver/{cluster}")),
        *("--guard-listen", f"{HOST}:{state.ports[f'agent/{cluster}']}"),
        *("--fence-strength", "guard"),
        *(("--api-budget", str(state.api_per_s)) if state.api_per_s else ()),
        *("--preset", state.preset),
    ]


def check_nodes(spec: str) -> None:
    """CliError for a specification that simulated clusters cannot read: a fleet keeps the one that it is made of."""
    checked = subprocess.run(  # noqa: S603 - our own program
        [program("muster-simkube"), "check", "--nodes", spec], capture_output=True, check=False
    )
    if checked.returncode:
        what = checked.stderr.decode(errors="replace").removeprefix("muster-simkube: ").strip()
        raise CliError(what, "correct --nodes", ExitCode.USAGE)


def program(name: str) -> str:
    """One of our own entry points, of the same installation as this process."""
    for folder in (Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))):
        if os.access(folder / name, os.X_OK):
            return str(folder / name)
    found = shutil.which(name)
    if found is None:
        raise CliError(f"{name} is not installed beside {sys.executable}", "reinstall muster-fleet")
    return found
