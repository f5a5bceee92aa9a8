"""The play as lines, for pipes and logs: the news as it comes, and where things stand every few seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from federation.cli.demo.progress import News, Scene

STAND_S: Final = 5.0


def clock(at_s: float) -> str:
    minutes, seconds = divmod(int(at_s), 60)
    return f"{minutes}:{seconds:02d}"


@dataclass(slots=True)
class PlainScreen:
    """Writes lines through `write`."""

    write: Callable[[str], None]
    _stood_s: float = -STAND_S

    def note(self, news: News) -> None:
        self.write(f"{clock(news.at_s):>5}  {'! ' if news.grave else '- '}{news.text}")

    def show(self, scene: Scene) -> None:
        if scene.at_s - self._stood_s < STAND_S:
            return
        self._stood_s = scene.at_s
        self.write(f"{clock(scene.at_s):>5}    {standing(scene)}")


def standing(scene: Scene) -> str:
    """The whole fleet on one line."""
    counts = scene.counts
    clusters = "  ".join(
        f"{view.metadata.name} {view.status.state} {_used(view.status.gpus)}" for view in scene.clusters
    )
    wait = f"  bound after p50 {scene.latency.p50_s:.1f} s p99 {scene.latency.p99_s:.1f} s" if scene.latency else ""
    return (
        f"pending {counts.pending} bound {counts.placed + counts.bound} running {counts.running} done {counts.done}"
        f"/{scene.expected}  {clusters}  {scene.decisions_per_s:.0f} decisions/s{wait}"
    )


def _used(gpus: object) -> str:
    assert isinstance(gpus, dict)
    total = sum(count.total for count in gpus.values())
    free = sum(count.free for count in gpus.values())
    ill = sum(count.unhealthy for count in gpus.values())
    return f"{total - free - ill}/{total}" + (f" ({ill} unhealthy)" if ill else "")
