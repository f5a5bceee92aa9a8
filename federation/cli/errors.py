"""Exit codes, and every error as people see it: at most two lines, what and where, then what to do."""

from __future__ import annotations

from enum import IntEnum, unique


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


class CliError(Exception):
    """A command cannot be carried out: what is wrong, what to do about it, and the exit code."""

    def __init__(self, what: str, remedy: str = "", code: ExitCode = ExitCode.ERROR) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.code = code
