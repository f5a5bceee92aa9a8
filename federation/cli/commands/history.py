"""`history`: the decision log, of one PodGroup, one cluster, or the fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from federation.cli.completion import group_names
from federation.cli.errors import CliError, ExitCode
from federation.cli.options import PODGROUP_KINDS, formatted, headed, named
from federation.cli.output import Format
from federation.cli.session import Session, connected, namespaced

if TYPE_CHECKING:
    from federation.cli.commands.get import Style
    from muster import Client
    from muster.results import Decision

PAGE: Final = 1_000
LIMIT_DEFAULT: Final = 10_000


@click.command()
@click.argument("name", required=False, default="", shell_complete=group_names)
@click.option("--cluster", default="", help="Decisions about this cluster.")
@click.option("--since", type=click.IntRange(0), default=0, metavar="POSITION", help="Only what came after.")
@click.option("--limit", type=click.IntRange(1), default=LIMIT_DEFAULT, show_default=True, help="The newest so many.")
@click.option("-w", "--watch", is_flag=True, help="Go on showing what lands.")
@headed
@formatted
@namespaced
@connected
def history(
    session: Session, *, name: str, cluster: str, since: int, limit: int, watch: bool, headers: bool, form: Format
) -> int:
    """Show the decision log, oldest first.

    Of one PodGroup (by name or uid), of one cluster, or of the whole fleet.
    """
    from federation.cli.commands.get import Style

    style = Style(form, headers, session.world.now_ms)
    if name and cluster:
        raise CliError("--cluster is for the whole log, not for a PodGroup's", "leave one out", ExitCode.USAGE)
    if not name:
        return show_log(session.client, style, cluster=cluster, since=since, limit=limit, watch=watch)
    return _of_group(session, named(name, *PODGROUP_KINDS), style, since=since, limit=limit, watch=watch)


def _of_group(session: Session, ref: str, style: Style, *, since: int, limit: int, watch: bool) -> int:
    from federation.cli.tables import DECISIONS

    client = session.client
    uid = client.get_group(ref, namespace=session.namespace).metadata.uid
    items = [item for item in client.history(uid).items if item.position > since][-limit:]
    style.show(DECISIONS, items)
    if watch:
        last = items[-1].position if items else since
        _follow(client, style, since=last, uid=uid)
    return ExitCode.OK


def show_log(
    client: Client, style: Style, *, cluster: str = "", since: int = 0, limit: int = LIMIT_DEFAULT, watch: bool = False
) -> int:
    """The newest of the fleet's log above `since`, page by page from its end."""
    from federation.cli.tables import DECISIONS
    from muster.calls import END

    items: list[Decision] = []
    before = END
    while len(items) < limit:
        left = min(PAGE, limit - len(items))
        page = client.list_decisions(since=since, cluster=cluster, limit=left, before=before).items
        if not page:
            break
        if page[-1].position >= before:
            what = f"{client.server} cannot read its log from the end: it is older than this command"
            raise CliError(what, "say where to begin with --since and --limit up to 1000, or upgrade the server")
        items = [*page, *items]
        before = page[0].position
    style.show(DECISIONS, items)
    if watch:
        _follow(client, style, since=items[-1].position if items else since, cluster=cluster)
    return ExitCode.OK


def _follow(client: Client, style: Style, *, since: int, uid: str = "", cluster: str = "") -> None:
    from federation.cli.tables import DECISIONS

    for decision in client.watch(since=since, uid=uid, cluster=cluster):
        style.show_change(DECISIONS, decision)
