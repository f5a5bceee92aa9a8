"""`get`: tables of PodGroups, clusters, queues and decisions, once or for as long as one looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from federation.cli.completion import names_of_noun, nouns
from federation.cli.errors import CliError, ExitCode
from federation.cli.options import formatted, headed, labels_of
from federation.cli.output import Format, Noun, aligned, cells, plain, render, render_one, widths_of
from federation.cli.session import Session, connected, namespaced

if TYPE_CHECKING:
    from muster import Client
    from muster.results import GroupView

T = TypeVar("T")

PAGE: Final = 500
LIMIT_DEFAULT: Final = 10_000  # groups shown; more is a query for -o json with filters
POLL_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which PodGroups to show."""

    names: tuple[str, ...]
    namespace: str
    queue: str
    phase: str
    cluster: str
    labels: dict[str, str]
    limit: int
    archived: bool = False

    def shows(self, view: GroupView) -> bool:
        """Whether a changed group belongs to the table; where and how it is may have changed meanwhile."""
        metadata = view.metadata
        return (
            (not self.names or metadata.name in self.names or metadata.uid in self.names)
            and (not self.namespace or metadata.namespace == self.namespace)
            and (not self.queue or view.spec.queue == self.queue)
            and all(metadata.labels.get(key) == value for key, value in self.labels.items())
        )


@dataclass(slots=True)
class Style:
    """How rows are shown; remembers the widths of its table, so that later rows stand under their headers."""

    form: Format
    headers: bool
    now_ms: Callable[[], int]
    _widths: list[int] = field(default_factory=list)

    @property
    def tabular(self) -> bool:
        return self.form in {Format.TABLE, Format.WIDE}

    def show(self, noun: Noun[T], rows: Sequence[T], *, single: bool = False) -> None:
        if self.tabular:
            self._add(cells(noun, rows, self.form, now_ms=self.now_ms(), headers=self.headers))
            if not rows:
                click.echo(f"no {noun.kind.lower()}s found", err=True)
        elif single:
            click.echo(render_one(noun, rows[0], self.form, now_ms=self.now_ms()), nl=False)
        else:
            click.echo(render(noun, rows, self.form, now_ms=self.now_ms()), nl=False)

    def show_change(self, noun: Noun[T], row: T) -> None:
        if self.tabular:
            self._add(cells(noun, [row], self.form, now_ms=self.now_ms(), headers=False))
        else:
            click.echo(render_one(noun, row, self.form, now_ms=self.now_ms()), nl=False)

    def _add(self, lines: list[list[str]]) -> None:
        if lines:
            self._widths = widths_of(lines, least=self._widths)
            click.echo(aligned(lines, least=self._widths), nl=False)


@click.command()
@click.argument("noun", metavar="NOUN", shell_complete=nouns)
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=names_of_noun)
@click.option("-A", "--all-namespaces", is_flag=True)
@click.option("-q", "--queue", default="", help="PodGroups of this queue.")
@click.option("--phase", default="", help="PodGroups in this phase.")
@click.option("--cluster", default="", help="PodGroups, or decisions, of this cluster.")
@click.option("-l", "--selector", "selectors", multiple=True, metavar="KEY=VALUE,...", help="By label.")
@click.option("--archived", is_flag=True, help="PodGroups that ended long ago, the newest first.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=LIMIT_DEFAULT,
    show_default=True,
    help="Decisions: the newest so many.",
)
@click.option("-w", "--watch", is_flag=True, help="Go on showing what changes.")
@headed
@formatted
@namespaced
@connected
def get(session: Session, /, *, noun: str, names: tuple[str, ...], form: Format, headers: bool, **options: Any) -> int:
    """List podgroups, clusters, queues or decisions.

    Short: pg, cl, q. With names, only those; NOUN/NAME works too.
    """
    from federation.cli.tables import NOUN_OF

    kind, slash, name = noun.partition("/")
    if slash:
        names = (name, *names)
    style = Style(form, headers, session.world.now_ms)
    _refuse_idle(NOUN_OF.get(kind, ""), names, options)
    match NOUN_OF.get(kind):
        case "podgroups" if options["archived"] and options["watch"]:
            raise CliError("--archived cannot be watched", "what is archived changes no more", ExitCode.USAGE)
        case "podgroups":
            return _podgroups(session, _wanted(session, names, options), style, watch=options["watch"])
        case "clusters":
            return _clusters(session.client, names, labels_of(options["selectors"]), style, watch=options["watch"])
        case "queues":
            return _queues(session.client, names, style, watch=options["watch"])
        case "decisions":
            return _decisions(session.client, options["cluster"], options["limit"], style, watch=options["watch"])
        case _:
            known = "podgroups (pg), clusters (cl), queues (q), decisions"
            raise CliError(f"{kind!r} cannot be listed", f"one of {known}", ExitCode.USAGE)


FILTERS: Final = {
    "queue": "--queue",
    "phase": "--phase",
    "cluster": "--cluster",
    "selectors": "--selector",
    "archived": "--archived",
}
FILTERS_OF: Final = {"podgroups": set(FILTERS), "clusters": {"selectors"}, "queues": set(), "decisions": {"cluster"}}


def _refuse_idle(noun: str, names: tuple[str, ...], options: dict[str, Any]) -> None:
    """What would change nothing is refused: a listing that looks filtered and is not misleads."""
    for option, flag in FILTERS.items():
        if noun and options[option] and option not in FILTERS_OF[noun]:
            raise CliError(f"{flag} does not filter {noun}", "leave it out", ExitCode.USAGE)
    if noun == "decisions" and names:
        raise CliError("decisions have no names", f"see `muster history {names[0]}`", ExitCode.USAGE)


def _wanted(session: Session, names: tuple[str, ...], options: dict[str, Any]) -> Wanted:
    return Wanted(
        names=names,
        namespace="" if options["all_namespaces"] else session.namespace,
        queue=options["queue"],
        phase=options["phase"],
        cluster=options["cluster"],
        labels=labels_of(options["selectors"]),
        limit=options["limit"],
        archived=options["archived"],
    )


# --- PodGroups -------------------------------------------------------------------------------------------------------


def _podgroups(session: Session, wanted: Wanted, style: Style, *, watch: bool) -> int:
    from federation.cli.tables import PODGROUPS
    from muster.errors import NotFoundError

    client = session.client
    since = _head(client) if watch else 0
    if wanted.names:
        rows = [client.get_group(name, namespace=wanted.namespace) for name in wanted.names]
    else:
        rows = list(_all_groups(client, wanted))
    style.show(PODGROUPS, rows, single=len(wanted.names) == 1)
    if not watch:
        return ExitCode.OK
    for decision in client.watch(since=since):
        if not decision.uid:
            continue
        try:
            view = client.get_group(decision.uid)
        except NotFoundError:
            continue  # archived meanwhile
        if wanted.shows(view):
            style.show_change(PODGROUPS, view)
    return ExitCode.OK


def _head(client: Client) -> int:
    """Where to watch from, asked before the listing: so nothing that lands between the two is missed."""
    return int(client.list_groups(limit=1).metadata.resource_version or 0)


def _all_groups(client: Client, wanted: Wanted) -> Iterator[GroupView]:
    """Page by page, up to the limit."""
    left, mark = wanted.limit, ""
    while left > 0:
        page = client.list_groups(
            namespace=wanted.namespace,
            queue=wanted.queue,
            phase=wanted.phase,
            cluster=wanted.cluster,
            labels=wanted.labels,
            archived=wanted.archived,
            limit=min(PAGE, left),
            continue_=mark,
        )
        yield from page.items
        left -= len(page.items)
        mark = page.metadata.continue_ or ""
        if not mark:
            return


# --- the others ------------------------------------------------------------------------------------------------------


def _clusters(client: Client, names: tuple[str, ...], labels: dict[str, str], style: Style, *, watch: bool) -> int:
    from federation.cli.tables import CLUSTERS

    def read() -> list[Any]:
        if names:
            return [client.get_cluster(name) for name in names]
        return [view for view in client.list_clusters().items if labels.items() <= view.metadata.labels.items()]

    return _shown(CLUSTERS, read, style, single=len(names) == 1, watch=watch)


def _queues(client: Client, names: tuple[str, ...], style: Style, *, watch: bool) -> int:
    from federation.cli.tables import QUEUES

    def read() -> list[Any]:
        return [client.get_queue(name) for name in names] if names else client.list_queues().items

    return _shown(QUEUES, read, style, single=len(names) == 1, watch=watch)


def _shown(noun: Noun[T], read: Callable[[], list[T]], style: Style, *, single: bool, watch: bool) -> int:
    """Show once; then, if asked, look every POLL_S and show the rows that changed: not all that counts is a record."""
    rows = read()
    style.show(noun, rows, single=single)
    seen = {noun.name(row): _essence(row) for row in rows}
    while watch:
        time.sleep(POLL_S)
        for row in read():
            name, essence = noun.name(row), _essence(row)
            if seen.get(name) != essence:
                seen[name] = essence
                style.show_change(noun, row)
    return ExitCode.OK


def _essence(row: object) -> object:
    """The row without what changes all the time."""
    values = plain(row)
    for moving in ("report_age_s", "silence_s", "lease_silence_s"):
        values.get("status", {}).pop(moving, None)
    return values


def _decisions(client: Client, cluster: str, limit: int, style: Style, *, watch: bool) -> int:
    from federation.cli.commands.history import show_log

    return show_log(client, style, cluster=cluster, limit=limit, watch=watch)
