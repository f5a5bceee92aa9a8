"""`describe`: one PodGroup, cluster or queue with all that is known about it, for reading."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import click

from federation.cli.completion import nouns_and_groups
from federation.cli.errors import CliError, ExitCode
from federation.cli.output import NONE, age, aligned, duration
from federation.cli.session import Session, connected, namespaced
from federation.cli.tables import NOUN_OF, clock, mode, pairs, reason_text, waiting

if TYPE_CHECKING:
    from muster.results import ClusterView, Decision, GroupView, QueueView

LAST_DECISIONS: Final = 10

Facts = Iterable[tuple[str, object]]


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="[NOUN] NAME...", shell_complete=nouns_and_groups)
@namespaced
@connected
def describe(session: Session, *, words: tuple[str, ...]) -> int:
    """Show all about a PodGroup, cluster or queue."""
    noun, names = _parted(words)
    pages = [_page(session, noun, name) for name in names]
    click.echo("\n---\n".join(pages), nl=False)
    return ExitCode.OK


def _parted(words: Sequence[str]) -> tuple[str, list[str]]:
    """Which kind, and which of them: `pg train`, `pg/train` or just `train`."""
    kind, slash, name = words[0].partition("/")
    if slash and kind in NOUN_OF:
        return NOUN_OF[kind], [name, *(word.rpartition("/")[2] for word in words[1:])]
    if words[0] not in NOUN_OF:
        return "podgroups", list(words)
    if len(words) == 1:
        raise CliError(f"which {words[0]}?", f"name one: muster describe {words[0]} NAME", ExitCode.USAGE)
    return NOUN_OF[words[0]], list(words[1:])


def _page(session: Session, noun: str, name: str) -> str:
    client, now_ms = session.client, session.world.now_ms()
    match noun:
        case "podgroups":
            view = client.get_group(name, namespace=session.namespace)
            return group_page(view, client.history(view.metadata.uid).items, now_ms)
        case "clusters":
            return cluster_page(client.get_cluster(name))
        case "queues":
            return queue_page(client.get_queue(name))
        case _:
            raise CliError(f"{noun} cannot be described", "see `muster history`", ExitCode.USAGE)


def group_page(view: GroupView, decisions: Sequence[Decision], now_ms: int) -> str:
    metadata, spec, status = view.metadata, view.spec, view.status
    text = _facts(
        [
            ("Name", metadata.name),
            ("Namespace", metadata.namespace),
            ("UID", metadata.uid),
            ("Labels", pairs(metadata.labels)),
            ("Submitted", f"{clock(metadata.submitted_ms)} ({age(metadata.submitted_ms, now_ms)} ago)"),
            ("By", metadata.actor),
            ("Queue", f"{spec.queue}, priority {spec.priority}"),
            ("Phase", status.phase),
            ("Intent", status.intent),
            ("Why", waiting(view)),
            ("Cluster", status.cluster),
            ("Token", status.token),
            ("Pods bound", f"{status.pods_bound} of {spec.pods}, at least {spec.min_count}"),
            *(
                [("Pods placed", f"{status.pods_placed} of {spec.pods}{', being resized' if status.resizing else ''}")]
                if status.pods_placed is not None
                else []
            ),
            ("GPUs", spec.gpus),
            ("If cut off", status.effective_policy or spec.disconnect_policy),
            ("Attempts", status.attempts),
        ]
    )
    roles = [["ROLE", "COUNT", "GPUS", "CPU", "MEMORY", "PRODUCTS"]]
    for role in spec.roles:
        parts = role.mig_profile or (f"{role.gpu_milli}m" if role.gpu_milli else str(role.gpus))
        size = [str(role.count), parts, f"{role.cpu_milli}m", f"{role.memory_mib}Mi"]
        roles.append([role.name, *size, ",".join(role.products) or "any"])
    text += f"\n{aligned(roles)}"
    if status.children:
        children = [["CHILD", "PHASE", "CLUSTER", "BOUND", "REASON"]]
        for child in status.children:
            bound = f"{child.pods_bound}/{child.replicas}"
            why = reason_text(child.reasons) or NONE
            children.append([child.name, child.phase, child.cluster or NONE, bound, why])
        text += f"\n{aligned(children)}"
    if status.conditions:
        conditions = [["CONDITION", "STATUS", "REASON", "MESSAGE"]]
        conditions += [[item.type, item.status, item.reason, item.message or NONE] for item in status.conditions]
        text += f"\n{aligned(conditions)}"
    if decisions:
        text += f"\n{_log(decisions)}"
    return text


def _log(decisions: Sequence[Decision]) -> str:
    shown = decisions[-LAST_DECISIONS:]
    lines = [["POSITION", "TIME", "KIND", "ACTOR", "SUMMARY"]]
    lines += [[str(item.position), clock(item.at_ms), item.kind, item.actor or NONE, item.summary] for item in shown]
    left_out = len(decisions) - len(shown)
    more = f"({left_out} earlier ones: muster history)\n" if left_out else ""
    return aligned(lines) + more


def cluster_page(view: ClusterView) -> str:
    status = view.status
    text = _facts(
        [
            ("Name", view.metadata.name),
            ("Labels", pairs(view.metadata.labels)),
            ("State", status.state),
            ("Mode", mode(view)),
            ("Reason", view.spec.cordon_reason),
            ("Message", status.message),
            ("Lease", f"{view.spec.lease_class}, epoch {status.lease_epoch}"),
            ("Fence", status.fence_strength),
            ("Unguarded", "accepted" if view.spec.accept_unguarded else "not accepted"),
            ("Nodes", status.nodes),
            ("Groups", status.groups),
            ("Last report", duration(status.report_age_s)),
            ("Last heard of", duration(status.silence_s)),
        ]
    )
    if status.gpus:
        lines = [["PRODUCT", "TOTAL", "FREE", "UNHEALTHY"]]
        for product, count in sorted(status.gpus.items()):
            lines.append([product, str(count.total), str(count.free), str(count.unhealthy)])
        text += f"\n{aligned(lines)}"
    return text


def queue_page(view: QueueView) -> str:
    return _facts(
        [
            ("Name", view.metadata.name),
            ("Weight", view.spec.weight),
            ("Quota", pairs(view.spec.gpu_quota) or "none: unlimited"),
            ("In use", pairs(view.status.gpus_used)),
            ("Pending", view.status.pending),
            ("Running", view.status.running),
            ("If cut off", view.spec.disconnect_policy or "as each group says"),
        ]
    )


def _facts(facts: Facts) -> str:
    return aligned([[f"{name}:", NONE if value in (None, "") else str(value)] for name, value in facts])
