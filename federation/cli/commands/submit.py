"""`submit` hands manifests in; `apply` also takes queues, and may be repeated."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import click

from federation.cli.errors import CliError, ExitCode
from federation.cli.options import Duration, formatted
from federation.cli.output import Format
from federation.cli.session import Session, connected, namespaced

if TYPE_CHECKING:
    from federation.cli.manifests import Manifest
    from muster.errors import MusterError
    from muster.results import BulkItem, GroupView, Submitted

WAIT_POLL_FIRST_S: Final = 0.2
WAIT_POLL_MAX_S: Final = 2.0
REACHED: Final = {
    "bound": frozenset({"Bound", "Running", "Succeeded"}),
    "running": frozenset({"Running", "Succeeded"}),
    "finished": frozenset({"Succeeded"}),
}
NO_OUTCOME_STATUS: Final = 503
LOST: Final = frozenset({"Failed", "Cancelled", "Quarantined"})


@click.command()
@click.option("-f", "--filename", "files", multiple=True, metavar="FILE", help="A manifest; - is standard input.")
@click.option("--wait", is_flag=True, help="Wait until it runs (see --for).")
@click.option("--for", "goal", type=click.Choice(list(REACHED)), default="running", show_default=True)
@click.option("--timeout", type=Duration(), default=None, metavar="90s", help="How long to wait; for ever by default.")
@click.option("--request-id", default="", metavar="ID", help="Makes repeating this command harmless.")
@click.option("--dry-run", is_flag=True, help="Check the manifests here, submit nothing.")
@formatted
@namespaced
@connected
def submit(
    session: Session,
    *,
    files: tuple[str, ...],
    wait: bool,
    goal: str,
    timeout: float | None,
    request_id: str,
    dry_run: bool,
    form: Format,
) -> int:
    """Hand PodGroups or Jobs to the queue.

    It is durable when the command returns. Exit code 5: waited in vain, it does not fit now.
    """
    from federation.cli import manifests
    from muster.connection import new_request_id
    from placement.model import PodGroup

    found = manifests.read(files, session.flags.namespace or _namespace(session, dry_run=dry_run))
    for manifest in found:
        if not isinstance(manifest.meaning, PodGroup):
            what = f"{manifest.where}: a Queue cannot be submitted"
            raise CliError(what, "use `muster apply`", ExitCode.REFUSED)
    if dry_run:
        for group in (one.meaning for one in found if isinstance(one.meaning, PodGroup)):
            _say_acceptable(group.name, group.namespace, form)
        return ExitCode.OK
    if timeout is not None and not wait:
        raise CliError("--timeout is how long to wait", "add --wait", ExitCode.USAGE)
    deadline_s = time.monotonic() + timeout if timeout is not None else None
    request_id = request_id or new_request_id()
    if len(found) == 1:
        submitted = [_hand_in(session, found[0], request_id, _once_more(request_id))]
        _say(submitted[0], form, "submitted")
    else:
        submitted = _hand_in_all(session, found, request_id, form)
    if not wait:
        return ExitCode.OK
    return max(_wait(session, one.uid, goal, deadline_s, quiet=form is not Format.TABLE) for one in submitted)


@click.command()
@click.option("-f", "--filename", "files", multiple=True, metavar="FILE", help="A manifest; - is standard input.")
@formatted
@namespaced
@connected
def apply(session: Session, *, files: tuple[str, ...], form: Format) -> int:
    """Create or change queues; submit PodGroups.

    The same manifest again changes nothing.
    """
    from federation.cli import manifests
    from federation.cli.failures import AGAIN
    from placement.model import Queue

    for manifest in manifests.read(files, session.namespace):
        if isinstance(manifest.meaning, Queue):
            _apply_queue(session, manifest, form)
        else:
            _say(_hand_in(session, manifest, _digest(manifest), AGAIN), form, "applied")
    return ExitCode.OK


def _namespace(session: Session, *, dry_run: bool) -> str:
    """A dry run needs no server, so it does not ask for one."""
    from federation.cli.settings import NAMESPACE_DEFAULT

    return NAMESPACE_DEFAULT if dry_run else session.namespace


def _digest(manifest: Manifest) -> str:
    """The same manifest has the same request id, so that applying it again is a repeat."""
    import hashlib
    import json

    text = json.dumps(manifest.document, sort_keys=True)
    return f"apply-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _hand_in(session: Session, manifest: Manifest, request_id: str, once_more: str) -> Submitted:
    """`once_more`: what to do where it may have been taken."""
    from federation.cli.failures import from_server
    from muster.errors import MusterError

    try:
        return session.client.submit(manifest.document, request_id=request_id)
    except MusterError as error:
        raise _in_doubt(from_server(error, manifest.where), error, once_more) from error


def _in_doubt(shown: CliError, error: MusterError, once_more: str) -> CliError:
    """Where it may have been taken, how to say the same again."""
    from muster.errors import UnavailableError

    if isinstance(error, UnavailableError) and not error.outcome_known:
        shown.remedy = once_more
    return shown


def _once_more(request_id: str) -> str:
    return f"whether it was taken is not known; again with `--request-id {request_id}` it is taken once"


def _hand_in_all(session: Session, found: list[Manifest], request_id: str, form: Format) -> list[Submitted]:
    """In as few calls as possible. Every one is told; what was accepted stays so when others were refused."""
    from federation.cli.failures import from_server
    from muster.errors import MusterError

    try:
        items = session.client.submit_many([manifest.document for manifest in found], request_id=request_id)
    except MusterError as error:
        raise _in_doubt(from_server(error), error, _once_more(request_id)) from error
    accepted = [item.submitted for item in items if item.accepted]
    for one in accepted:
        _say(one, form, "submitted")
    refused = [(manifest, item) for manifest, item in zip(found, items, strict=True) if not item.accepted]
    if refused:
        raise _refusal(*refused[0], accepted_count=len(accepted), refused_count=len(refused), request_id=request_id)
    return accepted


def _refusal(
    manifest: Manifest, item: BulkItem, *, accepted_count: int, refused_count: int, request_id: str
) -> CliError:
    """The first refusal, and how many there are."""
    others = f", and {refused_count - 1} more were refused" if refused_count > 1 else ""
    taken = f"; {accepted_count} were submitted" if accepted_count else ""
    what = f"{manifest.where}: {item.detail} ({item.reason}){others}{taken}"
    remedy = _once_more(request_id) if item.status == NO_OUTCOME_STATUS else item.remedy
    return CliError(what, remedy, ExitCode.UNAVAILABLE if item.status in {429, 503} else ExitCode.REFUSED)


def _apply_queue(session: Session, manifest: Manifest, form: Format) -> None:
    from federation.cli.failures import from_server
    from federation.cli.output import as_json, as_yaml, plain
    from muster.errors import MusterError

    name = manifest.meaning.name
    try:
        landed = session.client.apply_queue(name, manifest.document)
    except MusterError as error:
        raise from_server(error, manifest.where) from error
    match form:
        case Format.JSON:
            click.echo(as_json({"kind": "Queue", "name": name, **plain(landed)}), nl=False)
        case Format.YAML:
            click.echo(as_yaml({"kind": "Queue", "name": name, **plain(landed)}), nl=False)
        case Format.NAME:
            click.echo(f"queue/{name}")
        case Format.TABLE | Format.WIDE:
            click.echo(f"queue/{name} applied")


def _say(one: Submitted, form: Format, what: str) -> None:
    from federation.cli.output import plain

    _tell_as(form, one.name, plain(one), f"{what} (uid {one.uid})")


def _say_acceptable(name: str, namespace: str, form: Format) -> None:
    shown = {"name": name, "namespace": namespace, "dry_run": True}
    _tell_as(form, name, shown, "is acceptable (dry run)")


def _tell_as(form: Format, name: str, shown: Any, line: str) -> None:
    """Of one group: all of `shown` to programs, its name or a `line` to others."""
    from federation.cli.output import as_json, as_yaml

    match form:
        case Format.JSON:
            click.echo(as_json(shown), nl=False)
        case Format.YAML:
            click.echo(f"---\n{as_yaml(shown)}", nl=False)
        case Format.NAME:
            click.echo(f"podgroup/{name}")
        case Format.TABLE | Format.WIDE:
            click.echo(f"podgroup/{name} {line}")


def _wait(session: Session, uid: str, goal: str, deadline_s: float | None, *, quiet: bool) -> int:
    """Until the group reached `goal`, or cannot any more, or time is up; tells each change of phase."""
    shown, pause_s = "", WAIT_POLL_FIRST_S
    while True:
        view = session.client.get_group(uid)
        if view.status.phase != shown:
            shown, pause_s = view.status.phase, WAIT_POLL_FIRST_S
            _tell(view, quiet=quiet)
        if shown in REACHED[goal]:
            return ExitCode.OK
        if shown in LOST:
            raise CliError(f"podgroup/{view.metadata.name} ended as {shown}", f"see `muster history {uid}`")
        if deadline_s is not None and time.monotonic() >= deadline_s:
            return _timed_out(session, view, goal)
        time.sleep(pause_s)
        pause_s = min(WAIT_POLL_MAX_S, pause_s * 1.5)


def _tell(view: GroupView, *, quiet: bool) -> None:
    where = f" on {view.status.cluster}" if view.status.cluster else ""
    if not quiet:
        click.echo(f"podgroup/{view.metadata.name} {view.status.phase}{where}")


def _timed_out(session: Session, view: GroupView, goal: str) -> int:
    name = view.metadata.name
    if view.status.phase != "Pending":
        raise CliError(f"podgroup/{name} is {view.status.phase}, not {goal}, in time", "it goes on; wait again")
    summary = session.client.explain(view.metadata.uid).summary
    remedy = f"it stays queued; see `muster explain {view.metadata.uid}`"
    raise CliError(f"podgroup/{name} does not fit now: {summary}", remedy, ExitCode.DOES_NOT_FIT_NOW)
