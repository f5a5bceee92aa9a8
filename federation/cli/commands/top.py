"""`top`: how full the fleet is, cluster by cluster and queue by queue, once or again and again."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from federation.cli.errors import ExitCode
from federation.cli.options import formatted
from federation.cli.output import Format, aligned, as_json, as_yaml
from federation.cli.session import Session, connected

if TYPE_CHECKING:
    from muster.results import ClusterView, QueueView

REFRESH_S: Final = 2.0
BAR_CHARS: Final = 20
CLEAR: Final = "\x1b[H\x1b[2J"


@click.command()
@click.option("-w", "--watch", is_flag=True, help=f"Look again every {REFRESH_S:.0f} s until ^C.")
@formatted
@connected
def top(session: Session, *, watch: bool, form: Format) -> int:
    """Show what is in use, by cluster and by queue."""
    while True:
        clusters, queues = session.client.list_clusters().items, session.client.list_queues().items
        text = _shown(clusters, queues, form)
        click.echo(CLEAR + text if watch and sys.stdout.isatty() else text, nl=False)
        if not watch:
            return ExitCode.OK
        time.sleep(REFRESH_S)


def _shown(clusters: list[ClusterView], queues: list[QueueView], form: Format) -> str:
    usage = usage_of(clusters, queues)
    match form:
        case Format.JSON:
            return as_json(usage)
        case Format.YAML:
            return as_yaml(usage)
        case Format.NAME:
            return "".join(f"cluster/{view.metadata.name}\n" for view in clusters)
        case Format.TABLE | Format.WIDE:
            return text_of(usage)


def usage_of(clusters: list[ClusterView], queues: list[QueueView]) -> dict[str, Any]:
    """What is shown, as data."""
    rows = [_of_cluster(view) for view in clusters]
    return {
        "kind": "Usage",
        "total": {key: sum(row[key] for row in rows) for key in ("gpus", "used", "free", "unhealthy", "groups")},
        "clusters": rows,
        "queues": [
            {
                "name": view.metadata.name,
                "running": view.status.running,
                "pending": view.status.pending,
                "gpus_used": view.status.gpus_used.get("*", 0),
                "quota": view.spec.gpu_quota.get("*"),
            }
            for view in queues
        ],
    }


def _of_cluster(view: ClusterView) -> dict[str, Any]:
    counts = view.status.gpus.values()
    total, free = sum(count.total for count in counts), sum(count.free for count in counts)
    unhealthy = sum(count.unhealthy for count in counts)
    return {
        "name": view.metadata.name,
        "state": view.status.state,
        "gpus": total,
        "used": max(0, total - free - unhealthy),
        "free": free,
        "unhealthy": unhealthy,
        "groups": view.status.groups,
    }


def text_of(usage: dict[str, Any]) -> str:
    """Two tables."""
    lines = [["CLUSTER", "STATE", "GPUS", "USED", "FREE", "UNHEALTHY", "GROUPS", "USE"]]
    for row in [*usage["clusters"], {"name": "all", "state": "", **usage["total"]}]:
        numbers = [str(row[key]) for key in ("gpus", "used", "free", "unhealthy", "groups")]
        lines.append([row["name"], row["state"], *numbers, bar(row["used"], row["gpus"])])
    text = aligned(lines)
    queues = [["QUEUE", "RUNNING", "PENDING", "GPUS-USED", "QUOTA"]]
    for row in usage["queues"]:
        quota = "unlimited" if row["quota"] is None else str(row["quota"])
        queues.append([row["name"], str(row["running"]), str(row["pending"]), str(row["gpus_used"]), quota])
    return f"{text}\n{aligned(queues)}"


def bar(used: int, total: int) -> str:
    """`[########------------]  40%`."""
    share = used / total if total else 0.0
    full = round(share * BAR_CHARS)
    return f"[{'#' * full}{'-' * (BAR_CHARS - full)}] {share:4.0%}"
