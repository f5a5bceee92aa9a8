"""`muster bench recovery`: how soon a server that starts decides again, with many groups in its store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from federation.cli.options import formatted
from federation.cli.output import Format, report

if TYPE_CHECKING:
    from federation.simulate.bench_recovery import RecoveryReport

GROUPS_MAX = 1_000_000  # as many as may be pending


@click.command()
@click.option("--groups", type=click.IntRange(1, GROUPS_MAX), default=300_000, show_default=True, help="Live ones.")
@click.option("--pending", type=click.IntRange(0, GROUPS_MAX), default=10_000, show_default=True, help="Beside them.")
@click.option("--clusters", type=click.IntRange(1, 1_000), default=200, show_default=True)
@click.option("--tail-records", type=click.IntRange(5), default=300_000, show_default=True, help="After the snapshot.")
@click.option("--url", default="", help="An empty store. [a SQLite file in a temporary folder]")
@formatted
def recovery(form: Format, *, url: str, groups: int, pending: int, clusters: int, tail_records: int) -> None:
    """From the start of a server to its first decision: a snapshot is loaded, the journal after it replayed.

    Fills the store first, which takes longer than what is measured, and some 3 GiB of memory.
    """
    from federation.simulate.bench_recovery import bench_recovery
    from federation.simulate.recovery_store import RecoverySettings

    settings = RecoverySettings(groups=groups, pending=pending, clusters=clusters, tail_records=tail_records)
    found = bench_recovery(settings, url=url)
    click.echo(report(found, form, name="bench/recovery", text=lambda: _text(found)), nl=False)


def _text(found: RecoveryReport) -> str:
    figures = found.figures
    tail = f"{figures.tail_records} records after it"
    on = f"{found.machine.cpus} CPUs, {found.machine.cpu}"
    return (
        f"{figures.groups} live groups, a snapshot of {figures.snapshot_mib} MiB, {tail}\n"
        f"snapshot loaded    {figures.load_s:7.2f} s, {figures.load_cpu_s:.2f} s of CPU\n"
        f"journal replayed   {figures.replay_s:7.2f} s, {figures.replay_cpu_s:.2f} s of CPU; "
        f"{figures.replay_records_per_s:.0f} records/s\n"
        f"first decision     {figures.first_decision_s:7.2f} s, {figures.first_decision_cpu_s:.2f} s of CPU, "
        f"after the start\n"
        f"memory at most     {figures.memory_peak_mib:7} MiB\n"
        f"others had the cores {figures.cpu_wait_share:.0%} of the time; {on}\n"
    )
