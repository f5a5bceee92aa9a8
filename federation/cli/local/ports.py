"""Free ports on loopback."""

from __future__ import annotations

import random
import socket
import weakref
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


class PortKeeper:
    """Chooses ports, and keeps each so that nobody else who chooses gets it before its listener is there.

    A port is kept until it is let go, or this is forgotten. Listeners that may use an address again (all of ours, and
    the broker) are not kept away: the socket that keeps it never listens.
    """

    def __init__(self) -> None:
        self._kept: dict[int, socket.socket] = {}
        weakref.finalize(self, _close_all, self._kept)

    def choose(self, taken: set[int]) -> int:
        """A port that is free now and not in `taken`."""
        open_to_us = [port for port in range(LOWEST, HIGHEST) if port not in taken]
        # Not of the one sequence that tests seed: two that choose at once would try the same ports in the same order.
        for port in random.SystemRandom().sample(open_to_us, min(TRIES_MAX, len(open_to_us))):
            if self._keep(port):
                return port
        raise CliError(f"no free port between {LOWEST} and {HIGHEST} on {HOST}", "stop what uses them")

    def let_go(self, port: int) -> None:
        """Its listener is there."""
        if (kept := self._kept.pop(port, None)) is not None:
            kept.close()

    def _keep(self, port: int) -> bool:
        keeper = socket.socket()
        try:
            keeper.bind((HOST, port))  # not to be used again: so it fails where anybody else keeps it
        except OSError:
            keeper.close()
            return False
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._kept[port] = keeper
        return True


def _close_all(kept: dict[int, socket.socket]) -> None:
    for keeper in kept.values():
        keeper.close()
