"""Types of command line arguments that several processes take. Each refuses, as argparse wants it, what can only be
meant otherwise: a process that starts on it would try for ever."""

from __future__ import annotations

import math
import re
from argparse import ArgumentTypeError
from typing import Final
from urllib.parse import urlsplit

PORT_MAX: Final = 65_535
_PORT: Final = re.compile(r"[0-9]{1,5}")
RATE_MIN: Final = 0.01
_CLUSTER: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # as joining wants it


def address(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `[HOST]:PORT` for IPv6."""
    host, _, port = text.rpartition(":")
    if not host or not _PORT.fullmatch(port) or int(port) > PORT_MAX:
        raise ArgumentTypeError(f"{text!r} is not HOST:PORT with a port from 0 to {PORT_MAX}")
    return host.strip("[]"), int(port)


def port(text: str) -> int:
    """0 where any free one will do."""
    if not _PORT.fullmatch(text) or int(text) > PORT_MAX:
        raise ArgumentTypeError(f"{text!r} is not a port from 0 to {PORT_MAX}")
    return int(text)


def seconds(text: str) -> float:
    """An interval."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number <= 0:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return number


def cluster_name(text: str) -> str:
    if not _CLUSTER.fullmatch(text):
        raise ArgumentTypeError(f"{text!r} is no name of a cluster: small letters, digits and -, at most 63")
    return text


def http_url(text: str) -> str:
    """Empty where none is given."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - reading it checks it
        good = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:  # of the port
        good = False
    if text and not good:
        raise ArgumentTypeError(f"{text!r} is not an http:// or https:// URL")
    return text.rstrip("/")


def rate(text: str) -> float:
    """A number per second; below one in a hundred seconds nothing would be done in time."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < RATE_MIN:
        raise ArgumentTypeError(f"{text!r} is not a number of at least {RATE_MIN}")
    return number
