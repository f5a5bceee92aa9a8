"""Kubernetes time stamps from virtual seconds. No clock is read here."""

from datetime import UTC, datetime
from typing import Final

EPOCH_OFFSET_S: Final = 1_767_225_600.0
"""Virtual second 0 is shown as 2026-01-01T00:00:00Z unless the host says otherwise."""


def rfc3339(unix_s: float) -> str:
    """`metav1.Time`: whole seconds, UTC."""
    return datetime.fromtimestamp(int(unix_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(unix_s: float) -> str:
    """`metav1.MicroTime`, as Leases carry it."""
    return datetime.fromtimestamp(round(unix_s, 6), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def unix_of(text: str) -> float:
    """The unix seconds of either form."""
    return datetime.fromisoformat(text).timestamp()
