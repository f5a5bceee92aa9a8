"""`muster simulate`: what a rule would have done, on lists or traces, in this process. Deciding is done elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from federation.cli.commands.simulate_files import drawing, writing
from federation.cli.commands.simulate_journal import journal
from federation.cli.commands.simulate_philly import philly
from federation.cli.errors import CliError, ExitCode
from federation.cli.options import formatted
from federation.cli.output import Format, aligned, report

if TYPE_CHECKING:
    from federation.simulate.churn import ChurnReport
    from federation.simulate.openb import Exam, OpenbReport
    from federation.simulate.openb_lists import NodeSpec, PodSpec

SEEDS_MAX: Final = 1_000  # of one call: hours of work
SEED_MAX: Final = 2**31 - 1
POLICIES: Final = ("muster", "fgd", "bestfit", "random")  # those of `federation.simulate.openb`; read without numpy

_SEEDS = re.compile(r"(\d{1,10})(?:\.\.(\d{1,10}))?", re.ASCII)


@click.group()
def simulate() -> None:
    """Play a workload through the placing code and show the outcome."""


simulate.add_command(journal)
simulate.add_command(philly)


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
@click.option("--churn", is_flag=True, help="Let pods leave again, at 90, 95 and 98 % load; what is refused?")
@click.option("--assignments", type=click.Path(path_type=Path), help="Write every arrival to this CSV file.")
@click.option("--course", type=click.Path(path_type=Path), help="Write what is allocated, refused, fragmented: CSV.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the same as SVG (needs the extra `plots`).")
@formatted
def openb(*, nodes: Path, pods: Path, churn: bool, form: Format, **chosen: str | int | Path | None) -> None:
    """The FGD exam: pods arrive one by one until they ask for 130 % of all GPUs; how many stay unallocated?

    With --churn pods leave again: at the times that the list records, and then, drawn from the list, at a steady load.
    """
    files = _Files(*(Path(str(path)) if (path := chosen.pop(name)) else None for name in _Files._fields))
    files.refuse_overwriting(nodes, pods)
    seeds, name = seeds_of(str(chosen["seeds"])), str(chosen["policy"])
    exam = _exam(nodes, pods, {**chosen, "churn": churn})
    if churn:
        files.refuse_with_departures()
        click.echo(_churned(exam, name, seeds, form), nl=False)
        return
    found = _played(exam, name, seeds, files)
    names = "\n".join(str(run.seed) for run in found.runs)
    click.echo(report(found, form, name=names, text=lambda: _text(found)), nl=False)


class _Files(NamedTuple):
    """What is to be written beside the report."""

    assignments: Path | None
    course: Path | None
    plot: Path | None

    def refuse_overwriting(self, *lists: Path) -> None:
        """CliError where one of them is one of the lists, or named twice."""
        taken = {path.resolve() for path in lists}
        for option, path in zip(self._fields, self, strict=True):
            if path is not None and path.resolve() in taken:
                raise CliError(f"--{option} {path} would overwrite another file", "name a new one", ExitCode.USAGE)
            taken |= {path.resolve()} if path is not None else set()

    def refuse_with_departures(self) -> None:
        for option, path in zip(self._fields, self, strict=True):
            if path is not None:
                hint = f"leave out --churn or --{option}"
                raise CliError(f"--{option} tells of no departures", hint, ExitCode.USAGE)


def _played(exam: Exam, name: str, seeds: list[int], files: _Files) -> OpenbReport:
    from federation.simulate.course import Course, lines, rows
    from federation.simulate.openb import PolicyName, run_openb
    from federation.simulate.plots import draw

    course = Course(exam) if files.course or files.plot else None
    with ExitStack() as opened:
        assignments = opened.enter_context(writing(files.assignments)) if files.assignments else None
        table = opened.enter_context(writing(files.course)) if files.course else None
        if files.plot is not None:
            drawing(files.plot)
        found = run_openb(
            exam,
            PolicyName(name),
            seeds,
            assignments=assignments,
            on_arrival=course.add if course is not None else None,
            on_progress=_progress,
        )
        if course is not None and table is not None:
            table.writelines(rows(course.samples))
        if course is not None and files.plot is not None:
            draw(files.plot, f"{name}, {len(seeds)} seeds", "arrived load, % of all GPUs", lines(course.samples))
    return found


def _progress(line: str) -> None:
    click.echo(line, err=True)


def _exam(nodes: Path, pods: Path, chosen: Mapping[str, str | int | Path | None]) -> Exam:
    """CliError where the options do not go together, or a list cannot be read."""
    from federation.simulate.openb import Exam, FleetShape
    from federation.simulate.openb_clusters import Split

    clusters, view_age = int(str(chosen["clusters"])), int(str(chosen["view_age"]))
    if clusters > 1 and chosen["policy"] == "random":
        raise CliError("--policy random compares no clusters", "leave --clusters out", ExitCode.USAGE)
    if clusters == 1 and view_age:
        raise CliError("--view-age needs a placer apart from the cluster", "add --clusters 16", ExitCode.USAGE)
    if chosen["churn"] and clusters > 1:
        raise CliError("--churn plays on one cluster", "leave out --churn or --clusters", ExitCode.USAGE)
    fleet = FleetShape(clusters, Split(str(chosen["split"])), view_age) if clusters > 1 else None
    return Exam(*_lists(nodes, pods), mix_given=chosen["mix"] == "given", fleet=fleet)


def _churned(exam: Exam, policy: str, seeds: list[int], form: Format) -> str:
    from federation.simulate.churn import run_churn
    from federation.simulate.openb import PolicyName

    found = run_churn(exam, PolicyName(policy), seeds, on_progress=_progress)
    names = "\n".join(row.load for row in found.loads)
    return report(found, form, name=names, text=lambda: _churn_text(found))


def _churn_text(found: ChurnReport) -> str:
    head = ["LOAD", "REFUSED GPU TIME", "REFUSED PODS", "UNALLOCATED"]
    rows = [
        [row.load, *(f"{pct:.2f}%" for pct in (row.refused_pct, row.refused_pods_pct, row.unallocated_pct))]
        for row in found.loads
    ]
    return aligned([head, *rows])


def _lists(nodes: Path, pods: Path) -> tuple[tuple[NodeSpec, ...], tuple[PodSpec, ...]]:
    from federation.simulate.openb_arrivals import ARRIVALS_MAX, arrivals_expected, capacity_milli
    from federation.simulate.openb_lists import ListError, read_nodes, read_pods, refuse_nameless_models

    try:
        listed = read_nodes(nodes), read_pods(pods)
        refuse_nameless_models(nodes, *listed)
    except ListError as error:
        raise CliError(str(error), "give lists in the format of the openb trace: see docs/engine.md") from error
    expected = arrivals_expected(listed[1], capacity_milli(listed[0]))
    if expected > ARRIVALS_MAX:
        what = f"{pods}: about {expected} pods would arrive before they ask for 130 % of all GPUs"
        raise CliError(what, f"{ARRIVALS_MAX} are the limit: list fewer nodes, or more pods with GPUs")
    return listed


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


def _text(found: OpenbReport) -> str:
    loads = list(found.mean)
    head = ["SEED", *(f"AT {load}%" for load in loads)]
    rows = [[str(run.seed), *(_pct(run.unallocated_pct[load]) for load in loads)] for run in found.runs]
    return aligned([head, *rows, ["mean", *(_pct(found.mean[load]) for load in loads)]])


def _pct(value: float) -> str:
    return f"{value:.2f}"
