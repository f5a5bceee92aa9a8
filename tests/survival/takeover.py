"""Leaders of three servers are killed: how long until another one leads."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import muster
from federation.cli.local import commands
from federation.cli.local.fleet import LocalFleet
from muster.retry import RetryRule
from tests.survival.fleet import wait_until

TIMES: Final = {"default": 3, "fast": 6}
WITHIN_S: Final = 60.0
LOOK_EVERY_S: Final = 0.02


def run_takeovers(root: Path, preset: str) -> list[float]:
    """Seconds from each SIGKILL until another server said that it leads."""
    store = f"file://{root}/store"
    fleet = LocalFleet.make(root, clusters=["c-1"], nodes=["1xA100-80:8"], preset=preset, replicas=3, store=store)
    try:
        fleet.up()
        return [_take_over(fleet) for _ in range(TIMES[preset])]
    finally:
        fleet.down()


def _take_over(fleet: LocalFleet) -> float:
    """The killed one follows again when this returns."""
    led = fleet.leader()
    assert led is not None
    killed_at_s = time.monotonic()
    fleet.kill(led)
    while fleet.leader() is None:
        assert time.monotonic() - killed_at_s < WITHIN_S, "nobody takes over"
        time.sleep(LOOK_EVERY_S)
    took_s = round(time.monotonic() - killed_at_s, 2)
    fleet.start(led)
    url = commands.url(fleet.state, led)
    with muster.Client(url, fleet.token, retry=RetryRule(60)) as client:
        wait_until(lambda: bool(client.readiness()["ready"]), f"{led} to follow", WITHIN_S)
    return took_s
