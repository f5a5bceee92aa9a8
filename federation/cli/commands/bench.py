"""`muster bench`: how fast this machine is at what Muster does. Measuring is done elsewhere: in one process by
`federation.simulate`, of running processes by `federation.cli.benches`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from federation.cli.commands.bench_processes import api, bind, fleet
from federation.cli.commands.bench_recovery import recovery
from federation.cli.commands.bench_store import store
from federation.cli.errors import CliError, ExitCode
from federation.cli.options import formatted
from federation.cli.output import Format, aligned, report

if TYPE_CHECKING:
    from federation.simulate.bench_placer import PlacerFigures, PlacerReport

CLUSTERS_MAX: Final = 1_000  # as many as a fleet may have
NODES_MAX: Final = 5_000  # as many as a cluster may have


@click.group()
def bench() -> None:
    """Measure, and print figures with the machine's facts."""


for _command in (api, fleet, bind, store, recovery):
    bench.add_command(_command)


@bench.command()
@click.option("--clusters", default="200", help="Clusters; several numbers (10,50,200) give a row each.")
@click.option("--nodes-per-cluster", type=click.IntRange(1, NODES_MAX), default=5_000, help="Of 8 GPUs each.")
@click.option("--groups", type=click.IntRange(1, 1_000_000), default=5_000, help="Decisions to measure.")
@click.option("--live", type=click.IntRange(1, 1_000_000), default=6_000, help="Groups that run meanwhile.")
@click.option("--pending", type=click.IntRange(0, 1_000_000), default=0, help="Groups beside them that fit nowhere.")
@click.option("--shapes", type=click.IntRange(1, 2_000), default=108, help="Different pods that groups ask for.")
@click.option("--seed", type=int, default=1, help="What fleet and groups are drawn from.")
@formatted
def placer(clusters: str, form: Format, **numbers: int) -> None:
    """Durable gang decisions per second of one server, on a SQLite journal in a temporary folder.

    Needs about 2 GiB of memory and some minutes for 200 clusters of 5,000 nodes.
    """
    from federation.simulate.bench_placer import bench_placer
    from federation.simulate.placer_run import RunSettings
    from federation.simulate.server_clock import HaltedError

    settings = RunSettings(
        clusters=0,
        nodes_per_cluster=numbers["nodes_per_cluster"],
        groups=numbers["groups"],
        shapes=numbers["shapes"],
        pending=numbers["pending"],
        live=numbers["live"],
        seed=numbers["seed"],
    )
    counts = _counts(clusters)
    try:
        found = bench_placer(settings, counts, on_progress=lambda line: click.echo(line, err=True))
    except HaltedError as error:  # of so few groups, all can be too large for what is free
        raise CliError(f"the benchmark came to a standstill: {error}", "try more --groups or more nodes") from error
    names = "\n".join(str(row.clusters) for row in found.table)
    click.echo(report(found, form, name=names, text=lambda: _text(found)), nl=False)


def _counts(written: str) -> list[int]:
    parts = written.split(",")
    if not all(part.isdecimal() and 1 <= int(part) <= CLUSTERS_MAX for part in parts):
        raise CliError(
            f"--clusters {written} is not a list of numbers from 1 to {CLUSTERS_MAX}",
            "write for instance --clusters 10,50,200",
            ExitCode.USAGE,
        )
    return [int(part) for part in parts]


def _text(found: PlacerReport) -> str:
    head = ["CLUSTERS", "NODES", "CLASSES", "DECISIONS/S", "PER CPU SECOND", "P50", "P99", "MEMORY"]
    return aligned([head, *(_cells(row) for row in found.table)])


def _cells(row: PlacerFigures) -> list[str]:
    return [
        str(row.clusters),
        str(row.nodes),
        str(row.classes),
        f"{row.decisions_per_second:.0f}",
        f"{row.decisions_per_cpu_second:.0f}",
        f"{row.submission_to_decision_p50_s:.3f}s",
        f"{row.submission_to_decision_p99_s:.3f}s",
        f"{row.memory_peak_mib}Mi",
    ]
