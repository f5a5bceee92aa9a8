"""`muster store`: look into a store, prove it, copy it, move it. The work is done by `federation.cli.store`."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

import click

from federation.cli.errors import ExitCode, line
from federation.cli.options import formatted, headed
from federation.cli.output import Format, aligned, report
from federation.cli.session import Session, World, connected
from federation.cli.tables import clock

if TYPE_CHECKING:
    from federation.cli.store.copies import Backup, Migration
    from federation.cli.store.reports import Stat, Verdict
    from federation.cli.store.restoring import Restoration

LIMIT_DEFAULT: Final = 10_000


@click.group()
def store() -> None:
    """Prove, read, copy and move the store of a fleet.

    URL is a store's address, such as sqlite:////var/lib/muster/journal.db or s3://bucket/prefix. Without one, the
    running server is asked.
    """


@store.command()
@click.argument("url")
@formatted
def selftest(url: str, form: Format) -> int:
    """Make the store at URL prove what the journal needs.

    Creates that hold to "only if absent", replaces that hold to a version, both in races of eight writers. Leaves
    nothing behind. Exit code 4: the store does not keep its promises.
    """
    import os

    from federation.cli.store.failures import told
    from federation.cli.store.trial import tested

    with told():
        tested(url, nonce=os.urandom(8).hex())
    values = {"kind": "StoreSelftest", "url": url, "passed": True}
    click.echo(report(values, form, name=f"store/{url}", text=lambda: "the store keeps its promises\n"), nl=False)
    return ExitCode.OK


@store.command()
@click.argument("url", required=False, default="")
@formatted
@connected
def verify(session: Session, *, url: str, form: Format) -> int:
    """Prove that no entry of the journal is missing or altered.

    Exit code 1: one is, and it is named.
    """
    from federation.cli.store.doors import reading
    from federation.cli.store.reports import verified

    with reading(session, url) as opened:
        found = verified(opened)
    click.echo(report(found, form, name=f"store/{found.head_digest}", text=lambda: _verdict_text(found)), nl=False)
    if found.good:
        return ExitCode.OK
    click.echo(f"error: {line(found.why)}", err=True)
    click.echo("  what comes before it is good; see docs/store.md, 'When the journal is damaged'", err=True)
    return ExitCode.ERROR


@store.command()
@click.argument("url", required=False, default="")
@formatted
@connected
def stat(session: Session, *, url: str, form: Format) -> int:
    """Show what is in a store: lineage, ends of the journal, number of blobs."""
    from federation.cli.store.doors import reading
    from federation.cli.store.reports import counted

    with reading(session, url) as opened:
        found = counted(opened)
    click.echo(report(found, form, name=f"store/{found.lineage}", text=lambda: _stat_text(found)), nl=False)
    return ExitCode.OK


@store.command()
@click.argument("url", required=False, default="")
@click.option("--since", type=click.IntRange(0), default=0, metavar="POSITION", help="Only what came after.")
@click.option("--uid", default="", help="Records about this PodGroup.")
@click.option("--cluster", default="", help="Records about this cluster.")
@click.option("--limit", type=click.IntRange(1), default=LIMIT_DEFAULT, show_default=True)
@headed
@formatted
@connected
def history(
    session: Session, *, url: str, since: int, uid: str, cluster: str, limit: int, headers: bool, form: Format
) -> int:
    """Read the decision log from the journal itself.

    It goes back further than what a server has in memory: to the journal's first entry, or to what was collected.
    """
    import msgspec

    from federation.cli.commands.get import Style
    from federation.cli.store.doors import reading
    from federation.cli.store.reports import decisions
    from federation.cli.tables import DECISIONS
    from muster.results import Decision

    with reading(session, url) as opened:
        wanted = (
            msgspec.convert(item, Decision)
            for item in decisions(opened, since=since)
            if (not uid or item["uid"] == uid) and (not cluster or item["cluster"] == cluster)
        )
        items = list(islice(wanted, limit))
    Style(form, headers, session.world.now_ms).show(DECISIONS, items)
    return ExitCode.OK


@store.command()
@click.argument("url", required=False, default="")
@click.option(
    "--to", "place", required=True, metavar="URL", help="Where to: a folder (file:///DIR), bucket, file, etcd."
)
@formatted
@connected
def backup(session: Session, *, url: str, place: str, form: Format) -> int:
    """Copy the journal and its snapshot to another place, beside a running server or from a stopped one's store.

    Again into the same place: only what is new is copied. `verify`, `stat` and `history` read a backup by the address
    of its place.
    """
    from federation.cli.store.copies import backed_up
    from federation.cli.store.doors import reading

    with reading(session, url) as opened:
        done = backed_up(opened, place, made_ms=session.world.now_ms(), say=_say)
    click.echo(report(done, form, name=f"store/{done.head_digest}", text=lambda: _backup_text(done)), nl=False)
    return ExitCode.OK


@store.command()
@click.argument("backup_place", metavar="BACKUP")
@click.argument("target", metavar="TO")
@formatted
@click.pass_obj
def restore(world: World, /, *, backup_place: str, target: str, form: Format) -> int:
    """Make an empty store go on from a backup, in a new lineage. Then start the servers on it.

    Make sure that no server runs on the lost store. What runs in the clusters goes on; nothing starts until each
    cluster has told what it holds, or was confirmed dead. What was acknowledged after the backup was made is lost.
    """
    import os

    from federation.cli.store.restoring import restored

    done = restored(backup_place, target, now_ms=world.now_ms(), nonce=os.urandom(8).hex(), say=_say)
    click.echo(report(done, form, name=f"store/{done.lineage}", text=lambda: _restoration_text(done)), nl=False)
    return ExitCode.OK


@store.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@formatted
def migrate(source: str, target: str, form: Format) -> int:
    """Move the journal and the leases to an empty store. Stop the servers first, start them on TO afterwards.

    The old store is sealed: every server refuses it from then on. Interrupted, run it again with the same stores.
    """
    import os

    from federation.cli.store.copies import migrated

    done = migrated(source, target, nonce=os.urandom(8).hex(), say=_say)
    click.echo(report(done, form, name=f"store/{done.lineage}", text=lambda: _migration_text(done)), nl=False)
    return ExitCode.OK


@store.command()
@click.argument("url")
@click.option("--older-agents", is_flag=True, help="Although agents of some clusters do not know what it brings.")
@formatted
def upgrade(url: str, form: Format, *, older_agents: bool) -> int:
    """Let servers write the newest format, once all of them read it.

    Until then a new version writes the old one, and you can go back. Refused while an older server lives, or a cluster
    has an older agent.
    """
    import os

    from federation.cli.store.copies import upgraded

    done = upgraded(url, nonce=os.urandom(8).hex(), older_agents=older_agents)
    text = f"format {done.after} already\n" if done.before == done.after else f"format {done.before} -> {done.after}\n"
    click.echo(report(done, form, name=f"store/{done.after}", text=lambda: text), nl=False)
    return ExitCode.OK


def _say(text: str) -> None:
    click.echo(text, err=True)


def _verdict_text(found: Verdict) -> str:
    last = found.first_seq + found.entries - 1
    range_text = f"{found.entries} ({found.first_seq} to {last})" if found.entries else "0"
    verdict = "good: nothing is missing or altered" if found.good else f"bad at {found.bad_name}"
    rows = [
        ["lineage", found.lineage],
        ["entries", range_text],
        ["records", str(found.records)],
        ["void", str(found.void)],
        ["term", str(found.term)],
        ["digest", found.head_digest],
        ["verdict", verdict],
    ]
    return aligned(rows)


def _stat_text(found: Stat) -> str:
    last = found.last
    rows = [
        ["format", str(found.format)],
        ["lineage", found.lineage],
        ["snapshot", f"up to entry {found.snapshot_seq}" if found.snapshot_seq else "none"],
        ["collected", f"up to entry {found.gc_floor}" if found.gc_floor else "nothing"],
        ["entries", f"{found.entries} ({found.first_seq} to {found.last_seq})" if found.entries else "0"],
        ["position", str(found.position)],
        ["last entry", f"{last.kind} of term {last.term} by {last.writer}, {last.records} records" if last else "none"],
        ["blobs", ", ".join(f"{kind} {count}" for kind, count in found.blobs.items())],
    ]
    return aligned(rows)


def _backup_text(done: Backup) -> str:
    entries = f"{done.entries} ({done.first_seq} to {done.last_seq}), {done.copied} of them copied now"
    rows = [
        ["place", done.place],
        ["lineage", done.lineage],
        ["made", clock(done.made_ms)],
        ["entries", entries],
        ["digest", done.head_digest],
    ]
    return aligned(rows)


def _migration_text(done: Migration) -> str:
    rows = [
        ["moved to", done.target],
        ["lineage", done.lineage],
        ["entries", f"{done.first_seq} to {done.last_seq}"],
        ["leases", str(done.leases)],
        ["digest", done.head_digest],
        ["next", f"start the servers with --store {done.target}"],
    ]
    return aligned(rows)


def _but(done: Restoration) -> str:
    """What becomes of groups that were submitted too late for the backup."""
    if done.recreates:
        return "later groups that run are known again: `muster history` will say Recreated, and Recovered who is not"
    return f"later groups that run are stopped, unless `muster store upgrade {done.target}` comes before the servers"


def _restoration_text(done: Restoration) -> str:
    rows = [
        ["restored", done.target],
        ["lineage", f"{done.lineage}, after {done.lineage_before}"],
        ["groups", f"{done.groups}, {done.homes} of them placed"],
        ["lost", f"what was acknowledged after {clock(done.made_ms)}, entry {done.last_seq}"],
        ["but", _but(done)],
        ["waits for", ", ".join(done.clusters) or "no cluster"],
        ["next", f"start the servers with --store {done.target}"],
        ["dead", "muster cluster confirm-dead NAME, for a cluster that will not report"],
        ["newer", "clusters that joined after the backup are unknown: stop what they run, then join them"],
    ]
    return aligned(rows)
