"""Errors of stores as people see them: which exit code, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from federation.cli.errors import CliError, ExitCode
from storage.backup import ForeignBackupError
from storage.errors import (
    ContendedError,
    CorruptError,
    StoreError,
    StoreLockedError,
    StoreMovedError,
    StoreRefusedError,
    StoreUrlError,
    UnavailableError,
    UnsupportedFormatError,
)
from storage.moving import OccupiedError


@contextmanager
def told() -> Iterator[None]:
    """Errors of stores leave as CliErrors."""
    try:
        yield
    except StoreError as error:
        raise from_store(error) from error


def from_store(error: StoreError) -> CliError:
    match error:
        case StoreUrlError():
            return CliError(str(error), "see docs/store.md for the addresses", ExitCode.USAGE)
        case StoreLockedError():
            remedy = "leave the address out to ask the running server, or stop it first"
            return CliError(f"{error.path} is open in another process", remedy, ExitCode.REFUSED)
        case StoreMovedError():
            return CliError(str(error), f"use {error.moved_to}", ExitCode.REFUSED)
        case OccupiedError() | ForeignBackupError():
            return CliError(str(error), "name another place", ExitCode.REFUSED)
        case ContendedError():
            return CliError(str(error), "stop the servers and try again", ExitCode.UNAVAILABLE)
        case StoreRefusedError():
            return CliError(str(error), "see docs/store.md for stores that do", ExitCode.REFUSED)
        case UnavailableError():
            return CliError(str(error), "check address, credentials and network", ExitCode.UNAVAILABLE)
        case CorruptError():
            return CliError(str(error), "see docs/store.md, 'When the journal is damaged'")
        case UnsupportedFormatError():
            return CliError(str(error), "use the version that wrote it, or a later one", ExitCode.REFUSED)
        case _:
            return CliError(str(error))
