"""Files that a simulation writes beside its report: refused before hours of work, not after."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

from federation.cli.errors import CliError, ExitCode


def writing(path: Path) -> TextIO:
    """CliError, before hours of work, where the file cannot be written."""
    try:
        return path.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise CliError(f"cannot write {path}: {error.strerror}", "name a file in a folder that exists") from error


def drawing(path: Path) -> None:
    """CliError, before hours of work, where nothing could be drawn."""
    if find_spec("matplotlib") is None:
        raise CliError("--plot needs the extra `plots`", "pip install 'muster-fleet[plots]'", ExitCode.USAGE)
    writing(path).close()
