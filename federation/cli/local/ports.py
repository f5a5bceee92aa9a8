"""Free ports on loopback."""

from __future__ import annotations

import random
import socket
from typing import Final

from federation.cli.errors import CliError

HOST: Final = "127.0.0.1"
# Below the ports that systems hand out for outgoing connections (32768 and up): a client that keeps knocking at a dead
# server's port could otherwise be given that very port, connect to itself, and keep the server from coming back.
LOWEST: Final = 15_000
HIGHEST: Final = 32_000
TRIES_MAX: Final = 1_000


def free(port: int) -> bool:
    """Whether somebody could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def listening(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0


def choose(taken: set[int]) -> int:
    """A port that is free now and not in `taken`."""
    for _ in range(TRIES_MAX):
        port = random.randrange(LOWEST, HIGHEST)
        if port not in taken and free(port):
            return port
    raise CliError(f"no free port between {LOWEST} and {HIGHEST} on {HOST}", "stop what uses them")
