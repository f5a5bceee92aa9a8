"""Structured logs of the processes: one JSON object a line on stderr. Tokens and seeds never get here."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO, cast

import msgspec
import structlog


class _Lasting:
    """A text stream that drops what it cannot write: a disk that is full of logs must not end the process.

    It goes past the stream's own buffer: what is left in that one fails once more at the end, and spoils the exit code.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._file = _number(stream)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            if self._file is None:
                return self._stream.write(text)
            left = memoryview(text.encode())
            while left:
                left = left[os.write(self._file, left) :]
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def _number(stream: TextIO) -> int | None:
    """The stream's file; None for one that is in memory."""
    try:
        return stream.fileno()
    except OSError:
        return None


def _stamp(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    event["timestamp"] = datetime.now(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
    return event


def _json(event: structlog.typing.EventDict, default: Callable[[Any], Any], **_: object) -> str:
    """A gang logs some ten lines: the standard library's encoder would take twice as long."""
    return msgspec.json.encode(event, enc_hook=default).decode()


def configure_logs(level: str) -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _stamp,
            structlog.processors.JSONRenderer(_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Lasting(sys.stderr))),
        cache_logger_on_first_use=True,
    )
