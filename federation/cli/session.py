"""What every command gets: the outside world as values, the connection flags, and a client opened when first asked."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

import click

from federation.cli.settings import Flags, Settings, resolve

if TYPE_CHECKING:
    from muster import Client

P = ParamSpec("P")
R = TypeVar("R")

TOLD_AFTER_S: Final = 3.0  # that a server is slow; below it nobody wonders


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def at_a_terminal() -> bool:
    """Whether somebody reads what goes to standard error."""
    return sys.stderr.isatty()


def tell_on_stderr(line: str) -> None:
    click.echo(line, err=True)


@dataclass(frozen=True, slots=True)
class World:
    """Environment, wall clock, and whoever looks on; tests give their own."""

    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    now_ms: Callable[[], int] = wall_ms
    watched: Callable[[], bool] = at_a_terminal
    tell: Callable[[str], None] = tell_on_stderr
    told_after_s: float = TOLD_AFTER_S


@dataclass(slots=True)
class Session:
    """One command's connection."""

    world: World
    flags: Flags
    _settings: Settings | None = None
    _client: Client | None = None

    @property
    def settings(self) -> Settings:
        if self._settings is None:
            self._settings = resolve(self.flags, self.world.environment)
        return self._settings

    @property
    def namespace(self) -> str:
        return self.settings.namespace

    @property
    def client(self) -> Client:
        if self._client is None:
            from federation.cli.patience import PatientClient

            tell = self.world.tell if self.world.watched() else None
            self._client = PatientClient(
                self.settings.server, self.settings.token, tell, after_s=self.world.told_after_s
            )
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def connected(command: Callable[Concatenate[Session, P], R]) -> Callable[..., R]:
    """Give `command` a Session as first argument, and the flags that say which server."""

    @click.option("--server", default="", metavar="URL", help="The server, or several: URL,URL. [MUSTER_SERVER]")
    @click.option("--token-file", default="", metavar="FILE", help="Holds the bearer token. [MUSTER_TOKEN: the token]")
    @click.option("--context", default="", metavar="NAME", help="A context of the configuration file.")
    @click.option("--dir", default="", metavar="DIR", help="Folder of a local fleet. [MUSTER_DIR]")
    @functools.wraps(command)
    def with_session(*arguments: Any, server: str, token_file: str, context: str, dir: str, **options: Any) -> R:  # noqa: A002 - the flag's name
        ctx = click.get_current_context()
        flags = Flags(server, token_file, context, dir, options.pop("namespace", None) or "")
        session = Session(ctx.find_object(World) or World(), flags)
        ctx.call_on_close(session.close)
        return command(session, *arguments, **options)

    return with_session


def namespaced(command: Callable[..., R]) -> Callable[..., R]:
    """`-n`; it ends up in `session.namespace`."""
    return click.option("-n", "--namespace", default="", help="[MUSTER_NAMESPACE, else the context's, else default]")(
        command
    )
