"""`explain`: why a PodGroup is where it is, or why it waits and what would let it start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from federation.cli.completion import group_names
from federation.cli.errors import ExitCode
from federation.cli.options import PODGROUP_KINDS, formatted, named
from federation.cli.output import NONE, Format, aligned, as_json, as_yaml, plain
from federation.cli.session import Session, connected, namespaced

if TYPE_CHECKING:
    from muster.results import ClusterReason, Explanation


@click.command()
@click.argument("name", shell_complete=group_names)
@click.option("--exit-code", is_flag=True, help="Exit with 5 while it does not fit, for scripts.")
@formatted
@namespaced
@connected
def explain(session: Session, *, name: str, exit_code: bool, form: Format) -> int:
    """Say why a PodGroup waits, or is where it is.

    Cluster by cluster, with the smallest change that would let it start. NAME is a name or a uid.
    """
    ref = named(name, *PODGROUP_KINDS)
    found = session.client.explain(ref, namespace=session.namespace)
    match form:
        case Format.JSON:
            click.echo(as_json(plain(found)), nl=False)
        case Format.YAML:
            click.echo(as_yaml(plain(found)), nl=False)
        case Format.NAME:
            click.echo(f"podgroup/{ref}")
        case Format.TABLE | Format.WIDE:
            click.echo(text_of(ref, found), nl=False)
    return ExitCode.DOES_NOT_FIT_NOW if exit_code and found.phase == "Pending" else ExitCode.OK


def text_of(ref: str, found: Explanation) -> str:
    """The explanation as people read it."""
    lines = [f"podgroup/{ref} {found.phase}\n"]
    if found.summary:
        lines.append(f"{found.summary}\n")
    if found.queue:
        lines.append(f"Queue: {_flat(found.queue)}\n")
    lines += [f"Quota: {_quota(line)}\n" for line in found.quota]
    if found.clusters:
        rows = [[reason.cluster or NONE, reason.reason or NONE, _why(reason) or NONE] for reason in found.clusters]
        lines.append("\n" + aligned([["CLUSTER", "REASON", "WHY"], *rows]))
    if found.would_fit and found.phase == "Pending":
        lines.append(f"\nIt would fit on {found.would_fit}\n")
        lines += [f"  {one.get('cluster')}: {_flat(one.get('terms', {}))}\n" for one in found.candidates]
    if found.change:
        lines.append(f"\nTo let it start: {found.change}\n")
    return "".join(lines)


def _why(reason: ClusterReason) -> str:
    amount = f"needs {reason.needs} {reason.unit}, best is {reason.best}" if reason.unit else ""
    return ", ".join(part for part in (amount, reason.detail) if part)


def _quota(line: dict[str, Any]) -> str:
    product = line.get("product", "*")
    gpus = "GPUs" if product in {"", "*"} else product
    return f"{line.get('used', 0)} of {line.get('limit', 0)} {gpus} in use, needs {line.get('needs', 0)}"


def _flat(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_short(value)}" for key, value in values.items() if value not in (None, "", {}, []))


def _short(value: Any) -> str:
    return f"({_flat(value)})" if isinstance(value, dict) else str(value)
