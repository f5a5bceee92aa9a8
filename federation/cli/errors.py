"""Exit codes, and every error as people see it: at most two lines, what and where, then what to do."""

from __future__ import annotations

from enum import IntEnum, unique
from typing import Final


@unique
class ExitCode(IntEnum):
    """DESIGN §12; scripts rely on them."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    DOES_NOT_FIT_NOW = 5
    UNAVAILABLE = 6


LINE_CHARS_MAX: Final = 800  # what people wrote is shown back to them, but not all of it


def line(text: str) -> str:
    """One printable line of bounded length: nothing in it makes a terminal do anything."""
    flat = " ".join(text.split())
    plain = "".join(char if char.isprintable() else repr(char)[1:-1] for char in flat)
    return plain if len(plain) <= LINE_CHARS_MAX else plain[: LINE_CHARS_MAX - 1] + "…"


class CliError(Exception):
    """A command cannot be carried out: what is wrong, what to do about it, and the exit code."""

    def __init__(self, what: str, remedy: str = "", code: ExitCode = ExitCode.ERROR) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.code = code
