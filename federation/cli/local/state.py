"""The folder of a local fleet: where its files are, what `up.json` remembers, and who works on it now."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from federation.cli.errors import CliError, ExitCode
from federation.cli.local.processes import ProcessRecord

OPERATOR: Final = "operator"


class FleetState(msgspec.Struct, kw_only=True):
    """What `up` must find again: the shape of the fleet, its ports and its processes by role."""

    version: int = 1
    clusters: list[str]
    nodes: list[str]  # one per cluster
    preset: str
    replicas: int = 1  # federation servers
    store: str = ""  # their address of it; empty: a SQLite file in the folder
    ports: dict[str, int] = {}
    processes: dict[str, ProcessRecord] = {}
    uplinks: dict[str, dict[str, int]] = {}  # cluster -> role it reaches by another port, such as a relay's
    api_per_s: float = 0.0  # of every agent; 0 leaves its default
    owner: ProcessRecord | None = None  # a `muster up --foreground` that watches over it


@dataclass(frozen=True, slots=True)
class FleetDir:
    """Every path of one local fleet."""

    root: Path

    @property
    def up(self) -> Path:
        return self.root / "up.json"

    @property
    def lock(self) -> Path:
        return self.root / "up.lock"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def credentials(self) -> Path:
        return self.root / "credentials"

    @property
    def tokens(self) -> Path:
        return self.root / "tokens.json"

    @property
    def nats_conf(self) -> Path:
        return self.root / "nats.conf"

    def seed(self, role: str) -> Path:
        return self.credentials / f"{role}.nk"

    def token(self, role: str) -> Path:
        return self.credentials / f"{role}.token"

    def log(self, role: str) -> Path:
        return self.logs / f"{role.replace('/', '-')}.log"

    def cluster(self, name: str) -> Path:
        return self.root / "clusters" / name

    def make(self) -> None:
        """The folders exist; nobody else may enter them."""
        for folder in (self.root, self.logs, self.credentials):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def load(folder: FleetDir) -> FleetState | None:
    """The remembered fleet, or None where there never was one."""
    try:
        return msgspec.json.decode(folder.up.read_bytes(), type=FleetState)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise CliError(f"{folder.up} cannot be read: {error}", "move it away, then `muster up` again") from error


def save(folder: FleetDir, state: FleetState) -> None:
    """Whole or not at all."""
    write_private(folder.up, msgspec.json.format(msgspec.json.encode(state), indent=1).decode() + "\n")


def write_private(path: Path, text: str) -> None:
    """Replace `path` by `text`, readable by its owner only."""
    scratch = path.with_name(f".{path.name}.new")
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    scratch.replace(path)


def token_of(tokens: Path, principal: str) -> str | None:
    """A principal's token in the server's token file; None where file or principal is missing."""
    try:
        entries = json.loads(tokens.read_text())["principals"]
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise CliError(f"{tokens}: {error.strerror}", "run as the user that ran `muster up`") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CliError(f"{tokens} is not a token file: {error}", "restore it, or use another --dir") from error
    return next((entry.get("token") for entry in entries if entry.get("name") == principal), None)


@contextmanager
def locked(folder: FleetDir) -> Iterator[None]:
    """Nobody else changes the fleet meanwhile; CliError when someone does."""
    handle = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            detail = f"another `muster up` or `muster down` works on {folder.root}"
            raise CliError(detail, "wait for it, or choose another --dir", ExitCode.REFUSED) from None
        yield
    finally:
        os.close(handle)
