"""`muster bench api | fleet | bind`: real processes in a temporary folder, measured from outside."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from federation.cli.errors import CliError, ExitCode
from federation.cli.options import FiniteRange, formatted
from federation.cli.output import Format, aligned, report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from federation.cli.benches.api import ApiReport
    from federation.cli.benches.bind import BindReport
    from federation.cli.benches.fleet import FleetReport
    from federation.cli.benches.usage import Part
    from federation.simulate.machine import Machine

CLUSTERS_MAX: Final = 50  # three processes each
API_BUDGET_PER_S: Final = 1_000.0  # a simulated API server stands more than a real one is asked for; it is printed


@click.command()
@click.option("--submissions", type=click.IntRange(1, 1_000_000), default=10_000, show_default=True)
@click.option("--connections", type=click.IntRange(1, 1_000), default=32, show_default=True, help="At once.")
@formatted
def api(submissions: int, connections: int, form: Format) -> int:
    """Durable acknowledgements per second of one server on a SQLite journal."""
    from federation.cli.benches.api import bench_api

    with own_folder() as folder:
        found = bench_api(folder, submissions=submissions, connections=connections, say=_say)
    click.echo(report(found, form, name="bench/api", text=lambda: _api_text(found)), nl=False)
    return ExitCode.OK


@click.command()
@click.option("--clusters", type=click.IntRange(1, CLUSTERS_MAX), default=10, show_default=True)
@click.option("--nodes", default="40xA100-80:8", show_default=True, metavar="SPEC", help="Of every cluster.")
@click.option("--rate", type=FiniteRange(0), default=100.0, show_default=True, help="Jobs per second, evenly.")
@click.option("--seconds", type=FiniteRange(0), default=30.0, show_default=True, help="How long at that rate.")
@click.option("--burst", type=click.IntRange(0), default=1_000, show_default=True, help="Then so many at once.")
@click.option("--api-budget", type=FiniteRange(1), default=API_BUDGET_PER_S, show_default=True, help="Per agent.")
@formatted
def fleet(form: Format, **wanted: Any) -> int:
    """From HTTP submission to Bound, through NATS, on simulated clusters.

    Jobs of one pod with one GPU that run for 2 s (in the burst, for a minute). 0 for --rate or --burst leaves it out.
    """
    from federation.cli.benches.fleet import FleetSettings, bench_fleet
    from federation.cli.local.commands import check_nodes

    check_nodes(wanted["nodes"])
    settings = FleetSettings(
        clusters=wanted["clusters"],
        nodes=wanted["nodes"],
        per_s=wanted["rate"],
        seconds=wanted["seconds"],
        burst=wanted["burst"],
        gpus=1,
        api_per_s=wanted["api_budget"],
    )
    with own_folder() as folder:
        found = bench_fleet(folder, settings, _say)
    click.echo(report(found, form, name="bench/fleet", text=lambda: _phases_text(found)), nl=False)
    return ExitCode.OK


@click.command()
@click.option("--nodes", type=click.IntRange(1, 5_000), default=500, show_default=True, help="Of 8 GPUs each.")
@click.option("--gang-pods", type=click.IntRange(0, 10_000), default=512, show_default=True, help="Of one gang.")
@click.option("--gang-gpus", type=click.IntRange(1, 8), default=4, show_default=True, help="Of each of its pods.")
@click.option("--pods", type=click.IntRange(0, 100_000), default=4_000, show_default=True, help="Then groups of one.")
@click.option("--api-budget", type=FiniteRange(1), default=API_BUDGET_PER_S, show_default=True, help="Of the agent.")
@formatted
def bind(form: Format, **wanted: Any) -> int:
    """How fast one agent binds a large gang, and many single pods, in one simulated cluster."""
    from federation.cli.benches.bind import BindSettings, bench_bind

    settings = BindSettings(
        nodes=wanted["nodes"],
        gang_pods=wanted["gang_pods"],
        gang_gpus=wanted["gang_gpus"],
        pods=wanted["pods"],
        api_per_s=wanted["api_budget"],
    )
    with own_folder() as folder:
        found = bench_bind(folder, settings, _say)
    click.echo(report(found, form, name="bench/bind", text=lambda: _phases_text(found)), nl=False)
    return ExitCode.OK


@contextmanager
def own_folder() -> Iterator[Path]:
    """Gone afterwards. A fleet that cannot be reached any more ends the command with what was wrong."""
    from federation.cli.benches.wire import WireError
    from federation.cli.interrupts import interruptible

    with interruptible(), tempfile.TemporaryDirectory(prefix="muster-bench-") as folder:
        try:
            yield Path(folder)
        except (WireError, ConnectionError) as error:
            raise CliError(
                f"the server of this benchmark could not be reached: {error}",
                "run it again with less load (--rate, --burst, --connections), or on a quieter machine",
                ExitCode.UNAVAILABLE,
            ) from error


def _say(line: str) -> None:
    click.echo(line, err=True)


def _api_text(report: ApiReport) -> str:
    head = ["SUBMISSIONS", "PER SECOND", "P50", "P99", "REFUSED"]
    row = [str(report.submissions), f"{report.per_second:.0f}", f"{report.answer_p50_ms:.0f}ms"]
    table = aligned([head, [*row, f"{report.answer_p99_ms:.0f}ms", str(report.refused)]])
    return f"{table}\n{_parts_text(report.parts)}\nlimit: {report.limit}\n{_machine_text(report.machine)}"


def _phases_text(found: FleetReport | BindReport) -> str:
    head = ["WHAT", "BOUND", "WALL", "PER SECOND", "ANSWER P50", "P99", "BOUND P50", "P99"]
    rows = [
        [
            one.what,
            f"{one.bound}/{one.submitted}",
            f"{one.wall_s:.1f}s",
            f"{one.bound_per_second:.0f}",
            *(f"{ms:.0f}ms" for ms in (one.answer_p50_ms, one.answer_p99_ms, one.bound_p50_ms, one.bound_p99_ms)),
        ]
        for one in found.phases
    ]
    details = "".join(f"\n{one.what}\n{_parts_text(one.parts)}limit: {one.limit}\n" for one in found.phases)
    budget = f"API budget of each agent: {found.api_budget_per_s:.0f}/s\n"
    return f"{aligned([head, *rows])}{details}\n{budget}{_machine_text(found.machine)}"


def _parts_text(parts: Mapping[str, Part]) -> str:
    head = ["PART", "CPU", "CORES", "WAITED FOR A CORE", "MEMORY"]
    rows = [
        [name, f"{part.cpu_s:.1f}s", f"{part.cores:.2f}", f"{part.cpu_wait_s:.1f}s", f"{part.memory_mib}Mi"]
        for name, part in parts.items()
    ]
    return aligned([head, *rows])


def _machine_text(machine: Machine) -> str:
    return f"machine: {machine.cpus} cores of {machine.cpu}, load average {machine.load_average} at the start\n"
