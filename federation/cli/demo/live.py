"""The play on a terminal: one picture, drawn anew twice a second. Layout only; what it shows is in `progress`."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from federation.cli.demo.plain import clock
from federation.cli.demo.progress import News, Scene

if TYPE_CHECKING:
    from muster.results import ClusterView, QueueView

BAR: Final = 24
REASONS_MAX: Final = 4
STATE_STYLE: Final = {
    "Active": "green",
    "Silent": "yellow",
    "Failing": "red",
    "Fenced": "bold red",
    "Admitting": "cyan",
    "Joining": "cyan",
}


class LiveScreen:
    """Use as a context manager: the picture is gone afterwards, what was told stays."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def note(self, news: News) -> None:
        """Above the picture, for good."""
        self._console.print(told(news))

    def show(self, scene: Scene) -> None:
        self._live.update(picture(scene, self._title), refresh=True)


def told(news: News) -> Text:
    return Text.assemble((f"{clock(news.at_s):>5}  ", "dim"), (news.text, "bold red" if news.grave else ""))


def picture(scene: Scene, title: str) -> RenderableType:
    head = Text.assemble(
        (title, "bold"), ("   ", ""), (clock(scene.at_s), "bold"), ("   ", ""), (scene.act, "italic cyan")
    )
    return Group(
        Rule(style="dim"),
        head,
        Text(),
        clusters_table(scene.clusters),
        Text(),
        queues_table(scene.queues),
        Text(),
        totals(scene),
        head_of_queue(scene),
    )


def clusters_table(clusters: Sequence[ClusterView]) -> Table:
    table = _table("CLUSTER", "REGION", "GPUS", "STATE", ("GPUS IN USE", "left"), "FREE", "UNHEALTHY", "GROUPS")
    for view in clusters:
        total = sum(count.total for count in view.status.gpus.values())
        free = sum(count.free for count in view.status.gpus.values())
        ill = sum(count.unhealthy for count in view.status.gpus.values())
        state = Text(view.status.state, STATE_STYLE.get(view.status.state, ""))
        if view.spec.drain:
            state.append(" draining", "magenta")
        known = view.status.state != "Fenced"
        table.add_row(
            Text(view.metadata.name, "bold"),
            view.metadata.labels.get("region", ""),
            ", ".join(sorted(view.status.gpus)),
            state,
            bar(total - free - ill, total, "blue" if known else "dim") if total else Text("no report", "dim"),
            str(free),
            Text(str(ill), "red" if ill else "dim"),
            str(view.status.groups),
        )
    return table


def queues_table(queues: Sequence[QueueView]) -> Table:
    table = _table("QUEUE", "WEIGHT", ("QUOTA IN USE", "left"), "WAITING", "PLACED")
    for view in queues:
        quota = view.spec.gpu_quota.get("*", 0)
        if quota:
            used = view.status.gpus_used.get("*", 0)
            table.add_row(
                Text(view.metadata.name, "bold"),
                str(view.spec.weight),
                bar(used, quota, "green"),
                str(view.status.pending),
                str(view.status.running),
            )
    return table


def totals(scene: Scene) -> Text:
    counts = scene.counts
    line = Text.assemble(
        ("groups  ", "bold"),
        (f"{counts.pending} waiting", "yellow" if counts.pending else "dim"),
        f"   {counts.placed + counts.bound} binding or bound   {counts.running} running   ",
        (f"{counts.done} done", "green"),
        f" of {scene.expected}",
        *([(f"   {counts.failed} failed", "red")] if counts.failed else []),
        ("      decisions  ", "bold"),
        f"{scene.decisions_per_s:.0f}/s",
    )
    if scene.latency is not None:
        line.append("      submitted to bound  ", "bold")
        line.append(f"p50 {scene.latency.p50_s:.1f} s  p99 {scene.latency.p99_s:.1f} s")
    return line


def head_of_queue(scene: Scene) -> RenderableType:
    """Why the group that waits longest waits, and what would let it start."""
    head = scene.head
    if head is None:
        return Text("" if scene.counts.pending else "nobody waits", "dim")
    body = Text.assemble((head.summary, ""), "\n")
    for answer in head.clusters[:REASONS_MAX]:
        body.append(f"  {answer.cluster:<10} ", "bold")
        body.append(f"{answer.text}\n", "dim")
    body.append("would start with  ", "bold")
    body.append(head.change or "", "cyan")
    return Panel(
        body, title=f"head of the queue: {head.name}", title_align="left", border_style="yellow", padding=(0, 1)
    )


def bar(used: int, total: int, style: str) -> Text:
    """`████████░░░░  512/720`"""
    filled = min(BAR, round(BAR * used / total)) if total else 0
    return Text.assemble(("█" * filled, style), ("░" * (BAR - filled), "dim"), f" {used:>4}/{total}")


def _table(*headers: str | tuple[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for header in headers:
        if isinstance(header, tuple):
            table.add_column(header[0])
        else:
            table.add_column(header, no_wrap=True)
    return table
