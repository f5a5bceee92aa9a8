"""`muster bench store`: what a store costs per commit, and what batches save."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any

import click

from federation.cli.errors import ExitCode
from federation.cli.options import FiniteRange, formatted
from federation.cli.output import Format, aligned, report

if TYPE_CHECKING:
    from federation.cli.benches.store import Rate, StoreReport


@click.command()
@click.option("--url", default="", help="The store. [a SQLite file in a temporary folder]")
@click.option("--seconds", type=FiniteRange(0.1, 600), default=5.0, show_default=True, help="Per measurement.")
@click.option("--writers", type=click.IntRange(1, 4_096), default=64, show_default=True)
@click.option("--offered", type=FiniteRange(0), default=5_000.0, show_default=True, help="Records/s; 0: not.")
@click.option("--latency-p50-ms", type=FiniteRange(0), default=0.0, help="Added to each call, lognormal. [none]")
@click.option("--latency-p99-ms", type=FiniteRange(0), default=0.0, help="[twice the p50]")
@formatted
def store(form: Format, *, url: str, **wanted: Any) -> int:
    """Durable records per second and acknowledgement times of a store, by the real journal.

    Uses names of its own under bench/ and removes them. S3 as published: --latency-p50-ms 100 --latency-p99-ms 200.
    """
    from federation.cli.benches.store import StoreSettings, bench_store

    settings = StoreSettings(
        seconds=wanted["seconds"],
        writers=wanted["writers"],
        offered_per_s=wanted["offered"],
        latency_p50_ms=wanted["latency_p50_ms"],
        latency_p99_ms=wanted["latency_p99_ms"] or 2 * wanted["latency_p50_ms"],
    )
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as folder:
        address = url or f"sqlite:///{folder}/journal.db"
        found = bench_store(address, settings, nonce=os.urandom(8).hex(), say=lambda line: click.echo(line, err=True))
    click.echo(report(found, form, name=f"bench/{found.bench}", text=lambda: _text(found)), nl=False)
    return ExitCode.OK


def _text(found: StoreReport) -> str:
    head = ["WHAT", "RECORDS/S", "COMMITS/S", "PER COMMIT", "ACK P50", "ACK P99", "CALLS/COMMIT", "BYTES/RECORD"]
    rows = [
        _row("batches of 1", found.batch_1),
        _row("batches of 64", found.batch_64),
        _row(f"{found.writers_count} writers", found.writers),
    ]
    if found.offered is not None:
        rows.append(_row(f"{found.offered_per_second:.0f}/s offered", found.offered))
    facts = found.machine
    return (
        f"{aligned([head, *rows])}\nbatches of 64 against batches of 1: {found.batch_ratio} times the records\n"
        f"store: {found.store}, added latency p50 {found.added_latency_p50_ms:.0f} ms, "
        f"p99 {found.added_latency_p99_ms:.0f} ms\n"
        f"machine: {facts.cpus} cores of {facts.cpu}, load average {facts.load_average} at the start\n"
    )


def _row(what: str, rate: Rate) -> list[str]:
    return [
        what,
        f"{rate.records_per_second:.0f}",
        f"{rate.commits_per_second:.0f}",
        f"{rate.records_per_commit:.1f}",
        f"{rate.ack_p50_ms:.1f}ms",
        f"{rate.ack_p99_ms:.1f}ms",
        f"{rate.store_calls_per_commit:.2f}",
        f"{rate.bytes_per_record:.0f}",
    ]
