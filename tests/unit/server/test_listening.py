"""How the process listens and looks after its memory."""

from __future__ import annotations

import gc
import socket
from collections.abc import Iterator

import pytest

from federation.protocol import collector
from federation.server.process import _listen


def test_accepted_connections_are_known_for_tcp_so_that_answers_are_not_held_back() -> None:
    with _listen(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP


@pytest.fixture
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()
    gc.enable()


def test_a_calm_collector_leaves_alone_what_is_loaded(thresholds: None) -> None:
    collector.calm()
    assert gc.get_freeze_count() > 0
    assert gc.get_threshold() == (100_000, 50, 100)


def test_a_start_is_left_alone_until_it_is_over(thresholds: None) -> None:
    collector.hold()
    assert not gc.isenabled()
    made = [[] for _ in range(10)]  # type: list[list[object]]
    frozen = gc.get_freeze_count()
    collector.settle()
    assert gc.isenabled()
    assert gc.get_freeze_count() > frozen + len(made) - 1
    assert gc.get_threshold() == (100_000, 50, 100)
