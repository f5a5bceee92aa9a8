"""`logs`: what the pods of a group print. `history` is the decision log."""

from __future__ import annotations

import click

from federation.cli.completion import group_names
from federation.cli.errors import CliError, ExitCode
from federation.cli.options import PODGROUP_KINDS, named
from federation.cli.session import Session, connected, namespaced


@click.command()
@click.argument("name", shell_complete=group_names)
@click.option("--rank", type=click.IntRange(0), default=None, help="Of one pod; all of them by default.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the pod has ended; rank 0 unless --rank says which.")
@namespaced
@connected
def logs(session: Session, *, name: str, rank: int | None, follow: bool) -> int:
    """Print what the pods of a placed PodGroup printed.

    On clusters of a local fleet; for others it tells the kubectl command.
    """
    from federation.cli import podlogs

    view = session.client.get_group(named(name, *PODGROUP_KINDS), namespace=session.namespace)
    cluster, token, namespace = view.status.cluster, view.status.token, view.metadata.namespace
    if view.status.children:
        children = ", ".join(child.name for child in view.status.children)
        raise CliError(
            f"podgroup/{view.metadata.name} is spread over clusters", f"name one of its children: {children}"
        )
    if not cluster or not token:
        what = f"podgroup/{view.metadata.name} is {view.status.phase}: it has no pods now"
        raise CliError(what, f"see `muster explain {name}`", ExitCode.NOT_FOUND)
    url = kube_url(session, cluster)
    if url is None:
        what = f"the pods' logs are in cluster {cluster}, where only its own credentials open them"
        remedy = f"kubectl --context {cluster} -n {namespace} logs -l {podlogs.LABEL_TOKEN}={token} --prefix"
        raise CliError(what, remedy)
    pods = podlogs.pods_of(url, namespace, token)
    wanted = 0 if follow and rank is None else rank
    chosen = [pod for pod in pods if wanted is None or pod[0] == wanted]
    if not chosen:
        raise CliError(f"no pod of rank {wanted} is there", f"ranks: {_ranks(pods)}", ExitCode.NOT_FOUND)
    for number, pod in chosen:
        for line in podlogs.lines_of(url, namespace, pod, follow=follow):
            click.echo(f"{number}: {line}" if len(chosen) > 1 else line)
    return ExitCode.OK


def _ranks(pods: list[tuple[int, str]]) -> str:
    return f"0 to {pods[-1][0]}" if pods else "none yet"


def kube_url(session: Session, cluster: str) -> str | None:
    """Where the cluster's API server is, if the server in use belongs to a local fleet that has it."""
    from pathlib import Path

    from federation.cli.local import commands, state
    from federation.cli.settings import default_dir

    folder = Path(session.flags.dir) if session.flags.dir else default_dir(session.world.environment)
    known = state.load(state.FleetDir(folder.expanduser()))
    if known is None or cluster not in known.clusters:
        return None
    if commands.server_urls(known) != session.settings.server:
        return None
    return commands.url(known, f"apiserver/{cluster}")
