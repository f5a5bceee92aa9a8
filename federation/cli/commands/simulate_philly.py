"""`muster simulate philly`: a trace of jobs with run times through the engine. Deciding is done elsewhere."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from federation.cli.commands.simulate_files import drawing, writing
from federation.cli.errors import CliError
from federation.cli.options import FiniteRange, formatted
from federation.cli.output import Format, aligned, report

if TYPE_CHECKING:
    from federation.simulate.philly import Job, PhillyReport, Sample

LOAD_MAX_PCT: Final = 1_000


@click.command()
@click.option("--jobs", type=click.Path(path_type=Path), required=True, help="Job list: CSV, or CSV.gz.")
@click.option("--clusters", type=click.IntRange(1, 200), default=3, show_default=True, help="Equal clusters.")
@click.option("--nodes", type=click.IntRange(1, 5_000), default=20, show_default=True, help="Nodes of each cluster.")
@click.option("--gpus-per-node", type=click.IntRange(1, 64), default=8, show_default=True, help="GPUs of each node.")
@click.option(
    "--load",
    type=FiniteRange(1, LOAD_MAX_PCT),
    help="Let jobs arrive so fast that they ask for this percentage of all GPU time; as recorded if left out.",
)
@click.option("--course", type=click.Path(path_type=Path), help="Write what is allocated and what waits: CSV.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the same as SVG (needs the extra `plots`).")
@formatted
def philly(
    *, jobs: Path, clusters: int, load: float | None, course: Path | None, plot: Path | None, form: Format, **fleet: int
) -> None:
    """Jobs of a trace as gangs on a fleet: how long do they wait, and how many GPUs are in use?

    The format is that of the Philly trace: timestamp, duration in seconds, num_gpus. A job keeps its GPUs as long as it
    ran then; larger ones than a node are gangs of whole nodes.
    """
    from federation.simulate.philly import FleetSpec, at_load, lines, rows, run_philly
    from federation.simulate.plots import draw

    spec = FleetSpec(clusters, fleet["nodes"], fleet["gpus_per_node"])
    listed = _jobs(jobs)
    played = at_load(listed, spec.gpus_total, load / 100) if load is not None else listed
    samples: list[Sample] = []
    with ExitStack() as files:
        table = files.enter_context(writing(course)) if course is not None else None
        if plot is not None:
            drawing(plot)
        found = run_philly(played, spec, on_sample=samples.append)
        if table is not None:
            table.writelines(rows(samples))
        if plot is not None:
            draw(plot, f"{found.jobs} jobs on {found.gpus} GPUs", "hours", lines(samples))
    names = "\n".join(row.gpus for row in found.waits)
    click.echo(report(found, form, name=names, text=lambda: _text(found)), nl=False)


def _jobs(path: Path) -> tuple[Job, ...]:
    from federation.simulate.openb_lists import ListError
    from federation.simulate.philly import read_jobs

    try:
        return read_jobs(path)
    except ListError as error:
        raise CliError(str(error), "give a list in the format of the Philly trace: see docs/engine.md") from error


def _text(found: PhillyReport) -> str:
    head = ["GPUS OF A JOB", "JOBS", "MEAN WAIT", "MEDIAN", "P99", "LONGEST"]
    table = [
        [row.gpus, str(row.jobs), *(f"{wait_s:.0f}s" for wait_s in (row.mean_s, row.p50_s, row.p99_s, row.max_s))]
        for row in found.waits
    ]
    says = [
        f"{found.jobs} jobs asked for {found.load_pct:.1f} % of {found.gpus} GPUs while they arrived;",
        f"{found.allocated_pct:.1f} % were allocated.",
        *([f"{found.too_large} jobs are larger than a cluster and took no part."] if found.too_large else []),
    ]
    return aligned([head, *table]) + "\n".join(says) + "\n"
