"""What every command gets: the outside world as values, the connection flags, and a client opened when first asked."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from federation.cli.settings import Flags, Settings, resolve

if TYPE_CHECKING:
    from muster import Client

P = ParamSpec("P")
R = TypeVar("R")


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class World:
    """Environment and wall clock; tests give their own."""

    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    now_ms: Callable[[], int] = wall_ms


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
            from muster import Client

            self._client = Client(self.settings.server, self.settings.token)
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
