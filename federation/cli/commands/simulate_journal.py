"""`muster simulate journal`: decisions of the past made again, and what the engine saw. It calls only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from federation.cli.errors import CliError, ExitCode, line
from federation.cli.options import formatted
from federation.cli.output import NONE, Format, aligned, as_json, plain, report
from federation.cli.session import Session, connected
from federation.cli.tables import clock

if TYPE_CHECKING:
    from federation.core.records import Placed
    from federation.core.replay import Difference, ReplayReport
    from federation.simulate.journal_sight import Sight

NO_END = 1 << 62
KEPT = "the tape is kept for 24 hours; see docs/replay.md"


@click.command()
@click.option("--store", "url", default="", metavar="URL", help="The store's address; without it the server is asked.")
@click.option("--from", "from_position", type=click.IntRange(0), default=0, metavar="POSITION", help="The first one.")
@click.option("--to", "to_position", type=click.IntRange(0), default=NO_END, metavar="POSITION", help="The last one.")
@click.option("--at", type=click.IntRange(0), metavar="POSITION", help="Show what the engine saw for this record.")
@formatted
@connected
def journal(session: Session, *, url: str, from_position: int, to_position: int, at: int | None, form: Format) -> int:
    """Make the decisions in the journal again, from the journal and its tape, and compare them bit by bit.

    Exit code 1: one came out otherwise, and the first is shown with both sides. With --at: what the engine saw of each
    cluster when it decided the record at POSITION (see `muster history`), or in the last cycle before it.
    """
    from federation.cli.store.doors import reading
    from federation.simulate.journal import Stretch, replay

    if to_position < from_position:
        raise CliError(f"--to {to_position} is before --from {from_position}", "give both in order", ExitCode.USAGE)
    with reading(session, url) as opened:
        if at is not None:
            from federation.simulate.journal_sight import sight

            return _show_sight(sight(opened, at, say=_say), at, form)
        found = replay(opened, Stretch(from_position, to_position), say=_say)
    click.echo(report(found, form, name=f"replay/{found.lineage}", text=lambda: _text(found)), nl=False)
    if found.first_difference is None:
        return ExitCode.OK
    _tell(found.first_difference)
    return ExitCode.ERROR


def _say(text: str) -> None:
    click.echo(text, err=True)


def _text(found: ReplayReport) -> str:
    rows = [["OUTCOME", "DECISIONS", "WHY"], ["equal", str(found.equal), ""], ["different", str(found.different), ""]]
    rows += [["not covered", str(count), why] for why, count in found.not_covered.items()]
    if found.not_landed:
        rows.append(["not landed", str(found.not_landed), "their leader was replaced first"])
    head = f"{found.decisions} decisions; {found.cycles} cycles of {found.terms} leaders were run again\n\n"
    return head + aligned(rows)


def _tell(difference: Difference) -> None:
    """The first difference with both sides."""
    if difference.why:
        click.echo(f"error: {line(difference.why)}", err=True)
        return
    click.echo(f"error: the decision at position {difference.position} about {difference.uid} differs", err=True)
    click.echo(f"  recorded: {_side(difference.recorded)}", err=True)
    click.echo(f"  replayed: {_side(difference.replayed)}", err=True)


def _side(placed: Placed | None) -> str:
    """One line of JSON."""
    return " ".join(as_json(plain(placed)).split()) if placed is not None else "nothing about this group"


def _show_sight(found: Sight | None, at: int, form: Format) -> int:
    if found is None:
        raise CliError(f"no tape tells what was seen before position {at}", KEPT, ExitCode.NOT_FOUND)
    click.echo(report(found, form, name=f"position/{at}", text=lambda: sight_text(found)), nl=False)
    return ExitCode.OK


def sight_text(found: Sight) -> str:
    """The sight as people read it."""
    about = f"{found.record or 'nothing'} {found.name}".rstrip()
    lines = [f"position {found.position}: {about}\n"]
    lines.append(f"decided {clock(found.at_ms)} on position {found.head}, term {found.term}\n")
    if found.decided_before:
        lines.append(f"{found.decided_before} decided before it in the same cycle; what they took is not free below\n")
    if found.summary:
        lines.append(f"{found.summary}\n")
    head = ["CLUSTER", "ANSWER", "FREE GPUS", "GPUS", "NODES", "SCORE", "WHY"]
    rows = [
        [
            seen.cluster,
            seen.answer,
            str(seen.gpus_free),
            str(seen.gpus),
            str(seen.nodes),
            str(seen.score) if seen.score is not None else NONE,
            seen.why or _terms(seen.terms) or NONE,
        ]
        for seen in found.clusters
    ]
    return "".join(lines) + "\n" + aligned([head, *rows]) + "\nthe highest score is chosen; the three best are shown\n"


def _terms(terms: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in terms.items())
