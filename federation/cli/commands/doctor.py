"""`doctor`: is everything here that Muster needs, and is it well; what to do where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from federation.cli.errors import CliError, ExitCode
from federation.cli.options import formatted
from federation.cli.output import Format, aligned, as_json, as_yaml, plain
from federation.cli.session import Session, connected
from federation.cli.settings import default_dir

if TYPE_CHECKING:
    from federation.cli.checkup import Finding


@click.command()
@formatted
@connected
def doctor(session: Session, *, form: Format) -> int:
    """Check the installation, the local fleet and the server.

    Where something is not well, it says what to do.

    Exit code 1 if something fails; warnings alone are 0.
    """
    from federation.cli.checkup import Level

    findings = list(_findings(session))
    match form:
        case Format.JSON:
            click.echo(as_json({"kind": "Checkup", "items": plain(findings)}), nl=False)
        case Format.YAML:
            click.echo(as_yaml({"kind": "Checkup", "items": plain(findings)}), nl=False)
        case Format.NAME:
            click.echo("".join(f"check/{finding.check}\n" for finding in findings), nl=False)
        case Format.TABLE | Format.WIDE:
            click.echo(text_of(findings), nl=False)
    return ExitCode.ERROR if any(finding.level is Level.FAIL for finding in findings) else ExitCode.OK


def text_of(findings: list[Finding]) -> str:
    """A line for each, and below it what to do."""
    table = aligned([["CHECK", "IS", "DETAIL"], *([one.check, one.level.value, one.detail] for one in findings)])
    lines = table.splitlines()
    text = [lines[0]]
    for line, finding in zip(lines[1:], findings, strict=True):
        text.append(line)
        if finding.remedy:
            text.append(f"    {finding.remedy}")
    return "\n".join(text) + "\n"


def _findings(session: Session) -> Iterator[Finding]:
    from federation.cli import checkup

    environment = session.world.environment
    yield from checkup.installation(environment)
    flags = session.flags
    if not flags.server and not (environment.get("MUSTER_SERVER") and not flags.dir):
        root = Path(flags.dir).expanduser() if flags.dir else default_dir(environment)
        yield from checkup.local_fleet(root.resolve())
    yield from _of_server(session)


def _of_server(session: Session) -> Iterator[Finding]:
    from federation.cli import checkup
    from muster.client import Client
    from muster.errors import MusterError
    from muster.retry import RetryRule

    try:
        settings = session.settings
    except CliError as error:
        yield checkup.Finding("server", checkup.Level.WARN, error.what, error.remedy)
        return
    with Client(settings.server, settings.token, retry=RetryRule(1)) as client:
        try:
            yield from checkup.server(client.readiness())
            yield from checkup.clusters(client.list_clusters().items)
        except MusterError as error:
            yield checkup.Finding("server", checkup.Level.FAIL, error.detail or error.reason, error.remedy)
