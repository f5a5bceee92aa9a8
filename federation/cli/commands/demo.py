"""`muster demo`: the main job in one command."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.option(
    "--dir", "folder", default="muster-demo", show_default=True, metavar="DIR", help="Everything it writes is here."
)
@click.option("--keep", is_flag=True, help="Leave the fleet up afterwards.")
@click.option("--small", is_flag=True, help="A fleet of 144 GPUs and a few dozen jobs.")
@click.option("--plain", is_flag=True, help="Lines instead of a picture, also on a terminal.")
def demo(*, folder: str, keep: bool, small: bool, plain: bool) -> int:
    """Run 400 jobs of a real trace on three simulated clusters.

    Cuts one cluster, takes it back, drains another, and checks what was promised against what really ran.
    """
    from federation.cli.demo.eyes import LiveEye, PlainEye
    from federation.cli.demo.perform import Options, perform

    options = Options(Path(folder).expanduser().resolve(), keep=keep, small=small)
    return perform(options, PlainEye() if plain or not sys.stdout.isatty() else LiveEye())
