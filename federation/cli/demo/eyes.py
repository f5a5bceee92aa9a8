"""How the demo is seen: a picture on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import click
from rich.console import Console

from federation.cli.demo.live import LiveScreen
from federation.cli.demo.plain import PlainScreen
from federation.cli.demo.play import Screen

TITLE = "Muster: one queue, three clusters"


class PlainEye:
    """For pipes and logs."""

    def say(self, text: str) -> None:
        click.echo(text)

    @contextlib.contextmanager
    def busy(self, text: str) -> Iterator[None]:
        click.echo(f"{text} ...")
        yield

    @contextlib.contextmanager
    def stage(self) -> Iterator[Screen]:
        yield PlainScreen(click.echo)


class LiveEye:
    """For a terminal."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)

    def say(self, text: str) -> None:
        click.echo(text)

    def busy(self, text: str) -> contextlib.AbstractContextManager[object]:
        return self._console.status(text)

    def stage(self) -> contextlib.AbstractContextManager[Screen]:
        return LiveScreen(self._console, TITLE)
