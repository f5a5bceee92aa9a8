"""Structured logs of the processes: one JSON object a line on stderr. Tokens and seeds never get here."""

from __future__ import annotations

import contextlib
import logging
import os
import select
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

    def __init__(self, stream: TextIO, *, waits: bool) -> None:
        self._stream = stream
        self._file = _number(stream)
        self._waits = waits
        self._line = ""  # of who does not wait: printing writes the end of a line apart

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            if self._file is None:
                return self._stream.write(text)
            if self._waits:
                self._write(self._file, text)
            else:
                self._line += text
                if text.endswith("\n"):
                    line, self._line = self._line, ""
                    self._write(self._file, line)
        return len(text)

    def _write(self, file: int, text: str) -> None:
        left = memoryview(text.encode())
        while left and (self._waits or _has_room(file)):
            left = left[os.write(file, left if self._waits else left[: select.PIPE_BUF]) :]

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def _has_room(file: int) -> bool:
    """So many bytes as a pipe takes at once can be written without waiting for whoever reads it."""
    poll = select.poll()
    poll.register(file, select.POLLOUT)
    return bool(poll.poll(0))


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


def configure_logs(level: str, *, waits: bool = True) -> None:
    """Without `waits` a line is dropped rather than waited for when nobody reads what was written before it."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _stamp,
            structlog.processors.JSONRenderer(_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Lasting(sys.stderr, waits=waits))),
        cache_logger_on_first_use=True,
    )
