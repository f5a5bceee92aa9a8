"""`muster simulate`: what a rule would have done, on lists or traces, in this process. Deciding is done elsewhere."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from federation.cli.errors import CliError, ExitCode
from federation.cli.options import formatted
from federation.cli.output import Format, aligned, as_json, as_yaml, plain

if TYPE_CHECKING:
    from federation.simulate.openb import OpenbReport
    from federation.simulate.openb_lists import NodeSpec, PodSpec

SEEDS_MAX: Final = 1_000  # of one call: hours of work
SEED_MAX: Final = 2**31 - 1
POLICIES: Final = ("muster", "fgd", "bestfit", "random")  # those of `federation.simulate.openb`; read without numpy

_SEEDS = re.compile(r"(\d{1,10})(?:\.\.(\d{1,10}))?", re.ASCII)


@click.group()
def simulate() -> None:
    """Play a workload through the placing code and show the outcome."""


@simulate.command()
@click.option("--nodes", type=click.Path(path_type=Path), required=True, help="Node list: CSV, or CSV.gz.")
@click.option("--pods", type=click.Path(path_type=Path), required=True, help="Pod list: CSV, or CSV.gz.")
@click.option("--seeds", default="42..51", show_default=True, help="42, 42..51 or 42,44,50..59.")
@click.option("--policy", type=click.Choice(POLICIES), default="muster", show_default=True, help="The rule.")
@click.option(
    "--mix",
    type=click.Choice(("learnt", "given")),
    default="learnt",
    show_default=True,
    help="Whether muster learns the mix of pods from arrivals or knows the list, as FGD does.",
)
@click.option("--clusters", type=click.IntRange(1, 1_000), default=1, help="Share the nodes out over so many clusters.")
@click.option("--split", type=click.Choice(("random", "model")), default="random", help="How, in shares of equal GPUs.")
@click.option(
    "--view-age", type=click.IntRange(0, 100_000), default=0, help="Arrivals ago that the placer's view was true."
)
@click.option("--assignments", type=click.Path(path_type=Path), help="Write every arrival to this CSV file.")
@formatted
def openb(
    *, nodes: Path, pods: Path, clusters: int, view_age: int, assignments: Path | None, form: Format, **chosen: str
) -> None:
    """The FGD exam: pods arrive one by one until they ask for 130 % of all GPUs; how many stay unallocated?"""
    from federation.simulate.openb import Exam, FleetShape, PolicyName, run_openb
    from federation.simulate.openb_clusters import Split

    numbers = seeds_of(chosen["seeds"])
    fleet = FleetShape(clusters, Split(chosen["split"]), view_age) if clusters > 1 else None
    if clusters > 1 and chosen["policy"] == "random":
        raise CliError("--policy random compares no clusters", "leave --clusters out", ExitCode.USAGE)
    if clusters == 1 and view_age:
        raise CliError("--view-age needs a placer apart from the cluster", "add --clusters 16", ExitCode.USAGE)
    exam = Exam(*_lists(nodes, pods), mix_given=chosen["mix"] == "given", fleet=fleet)
    with ExitStack() as files:
        rows = files.enter_context(assignments.open("w", encoding="utf-8", newline="")) if assignments else None
        report = run_openb(
            exam,
            PolicyName(chosen["policy"]),
            numbers,
            assignments=rows,
            on_progress=lambda line: click.echo(line, err=True),
        )
    click.echo(_shown(report, form), nl=False)


def _lists(nodes: Path, pods: Path) -> tuple[tuple[NodeSpec, ...], tuple[PodSpec, ...]]:
    from federation.simulate.openb_lists import ListError, read_nodes, read_pods

    try:
        return read_nodes(nodes), read_pods(pods)
    except ListError as error:
        raise CliError(str(error), "give lists in the format of the openb trace: see docs/engine.md") from error


def seeds_of(written: str) -> list[int]:
    """The seeds in the order in which they are named. CliError where they are too many or no numbers."""
    seeds: list[int] = []
    for part in written.split(","):
        match = _SEEDS.fullmatch(part.strip())
        if match is None:
            raise CliError(f"--seeds {written!r} is not a list of seeds", "write for instance 42..51", ExitCode.USAGE)
        first, last = int(match[1]), int(match[2] or match[1])
        if last > SEED_MAX or last < first:
            raise CliError(f"--seeds {part!r} must rise, to {SEED_MAX} at most", "write 42..51", ExitCode.USAGE)
        if len(seeds) + last - first + 1 > SEEDS_MAX:
            raise CliError(f"--seeds names more than {SEEDS_MAX} seeds", "name fewer", ExitCode.USAGE)
        seeds.extend(range(first, last + 1))
    if len(set(seeds)) != len(seeds):
        raise CliError(f"--seeds {written!r} names a seed twice", "name each once", ExitCode.USAGE)
    return seeds


def _shown(report: OpenbReport, form: Format) -> str:
    match form:
        case Format.JSON:
            return as_json(plain(report))
        case Format.YAML:
            return as_yaml(plain(report))
        case Format.NAME:
            return "".join(f"{run.seed}\n" for run in report.runs)
        case Format.TABLE | Format.WIDE:
            loads = list(report.mean)
            head = ["SEED", *(f"AT {load}%" for load in loads)]
            rows = [[str(run.seed), *(_pct(run.unallocated_pct[load]) for load in loads)] for run in report.runs]
            return aligned([head, *rows, ["mean", *(_pct(report.mean[load]) for load in loads)]])


def _pct(value: float) -> str:
    return f"{value:.2f}"
