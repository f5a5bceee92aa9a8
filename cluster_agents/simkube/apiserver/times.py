"""Kubernetes time stamps from virtual seconds. No clock is read here."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

EPOCH_OFFSET_S: Final = 1_767_225_600.0
"""Virtual second 0 is shown as 2026-01-01T00:00:00Z unless the host says otherwise."""


SECONDS_CACHED_MAX: Final = 4_096  # many objects are stamped within the same few seconds


def rfc3339(unix_s: float) -> str:
    """`metav1.Time`: whole seconds, UTC."""
    return _second(int(unix_s))


@lru_cache(maxsize=SECONDS_CACHED_MAX)
def _second(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(unix_s: float) -> str:
    """`metav1.MicroTime`, as Leases carry it."""
    whole = int(unix_s)
    return f"{_second(whole)[:-1]}.{int((unix_s - whole) * 1e6):06d}Z"


def unix_of(text: str) -> float:
    """The unix seconds of either form."""
    return datetime.fromisoformat(text).timestamp()
