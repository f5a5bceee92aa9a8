"""The client's errors as the CLI's: which exit code, and what to say."""

from __future__ import annotations

from typing import Final

from federation.cli.errors import CliError, ExitCode
from muster.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    MusterError,
    NotFoundError,
    UnavailableError,
)

NO_OUTCOME: Final = "Unavailable"  # the server's word for it, and for what it cannot read now
AGAIN: Final = "whether it took effect is not known; the same command again does no harm"


def code_of(error: MusterError) -> ExitCode:
    match error:
        case NotFoundError():
            return ExitCode.NOT_FOUND
        case InvalidError() | ForbiddenError() | ConflictError():
            return ExitCode.REFUSED
        case UnavailableError():
            return ExitCode.UNAVAILABLE
        case _:
            return ExitCode.ERROR


def from_server(error: MusterError, subject: str = "") -> CliError:
    """What the server said, about `subject` (a file, a name) if given."""
    where = f"{subject}: " if subject else ""
    field = f"{error.field}: " if error.field and not error.detail.startswith(error.field) else ""
    what = f"{where}{field}{error.detail or error.reason}"
    shown = what if error.reason in what or not error.detail else f"{what} ({error.reason})"
    return CliError(shown, AGAIN if _in_doubt(error) else error.remedy, code_of(error))


def _in_doubt(error: MusterError) -> bool:
    """Whether it may have taken effect."""
    return isinstance(error, UnavailableError) and error.reason == NO_OUTCOME and not error.outcome_known
