"""Fixtures of the linearizability tests."""

import sys
from collections.abc import Iterator

import pytest

from tests.servers.fixtures import servers

__all__ = ["servers"]


@pytest.fixture(autouse=True)
def _threads_change_often() -> Iterator[None]:
    """A store in this process answers faster than threads usually change; then no two calls would ever overlap."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before_s)
