"""The relay that demos and tests cut: carries bytes both ways, holds them back while cut, and goes on after."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from federation.cli.local.relay import Relay


@pytest.fixture
def echo() -> Iterator[int]:
    """A port that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=repeat, args=(connection,), daemon=True).start()

    def repeat(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(1024):
                connection.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def relay(echo: int) -> Iterator[Relay]:
    found = Relay(echo)
    found.start()
    yield found
    found.stop()


def connected(relay: Relay) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", relay.port), timeout=5)
    connection.sendall(b"hello")
    assert connection.recv(5) == b"hello"
    return connection


def test_bytes_pass_both_ways(relay: Relay) -> None:
    connected(relay).close()


def test_a_cut_connection_stays_open_and_silent_and_delivers_after_the_heal(relay: Relay) -> None:
    with connected(relay) as connection:
        relay.cut()
        connection.sendall(b"held")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(4)
        relay.heal()
        connection.settimeout(5)
        assert connection.recv(4) == b"held"


def test_a_new_connection_while_cut_gets_no_answer(relay: Relay) -> None:
    relay.cut()
    with socket.create_connection(("127.0.0.1", relay.port), timeout=0.3) as connection:
        connection.sendall(b"anyone?")
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_the_end_of_one_side_ends_the_other(relay: Relay) -> None:
    with connected(relay) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
