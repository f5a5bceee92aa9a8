"""What people read at the end: the summary, each promise with its verdict, and the history of a group that was wronged.

Pure texts. Files are written by `perform`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from federation.cli.demo.checks import Broken, Promise
from federation.cli.demo.evidence import Run
from federation.cli.demo.facts import CutFacts, Facts

if TYPE_CHECKING:
    from muster.results import Decision

LABEL: Final = 20
BROKEN_SHOWN_MAX: Final = 3  # of one promise; all are in summary.json


def summary(facts: Facts) -> str:
    """What happened, a line each."""
    answered = f"{facts.acknowledged} acknowledged, p99 {facts.answer_p99_ms:.0f} ms"
    bound = f"submitted to bound p50 {facts.bound_p50_s:.1f} s, p99 {facts.bound_p99_s:.1f} s"
    rows = [
        ("fleet", f"{facts.clusters} clusters, {facts.nodes} nodes, {facts.gpus:,} GPUs"),
        ("work", f"{facts.jobs} jobs of the Philly trace: {facts.pods} pods, {facts.gpus_asked:,} GPUs; {answered}"),
        ("placed", f"{facts.placements} placements, up to {facts.decisions_per_s_max:.0f}/s; {bound}"),
        ("waiting", f"up to {facts.pending_max} groups at once"),
        *_cut_rows(facts.cut),
    ]
    if facts.drained:
        rows.append((f"{facts.drained} drained", f"{facts.drained_groups} groups handed over in {facts.drained_s} s"))
    if not facts.finished:
        rows.append(("NOT FINISHED", f"groups were still under way after {facts.play_s:.0f} s; see the logs"))
    return "".join(f"  {label:<{LABEL}} {text}\n" for label, text in rows)


def _cut_rows(cut: CutFacts) -> list[tuple[str, str]]:
    if not cut.cluster:
        return []
    fenced = f"fenced after {cut.fenced_after_s} s, free to start elsewhere {cut.wait_s} s later"
    rows = [(f"{cut.cluster} cut", f"{cut.groups} groups struck; {fenced}")]
    if cut.ran_elsewhere:
        first = f"{cut.ran_elsewhere} ran elsewhere, the first {cut.first_elsewhere_s} s after the cut"
        apart = f"{cut.gap_s_min} s or more from old to new"
        rows.append(("", f"{first}; {apart if cut.gap_s_min > 0 else 'old and new OVERLAPPED'}"))
    if cut.admitted_after_s:
        rows.append((f"{cut.cluster} back", f"in use {cut.admitted_after_s} s after its network was back"))
    return rows


def verdicts(found: Mapping[Promise, Sequence[Broken]]) -> str:
    """Each promise, kept or broken."""
    return "".join(
        f"  {promise.code}  {promise.text:<78} {'BROKEN' if broken else 'kept'}\n" for promise, broken in found.items()
    )


def accusation(broken: Broken, history: Sequence[Decision], runs: Sequence[Run], began_s: float) -> str:
    """One broken promise: which, for which group, and everything known about that group."""
    whose = f"podgroup/{broken.name or '?'} (uid {broken.uid}): " if broken.uid else ""
    lines = [f"{broken.promise.code} BROKEN: {whose}{broken.what}"]
    if broken.at_s:
        lines[0] += f", {broken.at_s - began_s:.1f} s into the demo"
    if history:
        lines.append("  decisions about it:")
        lines += [f"    {one.position:>10}  {one.kind:<14} {one.cluster or '':<10} {one.summary}" for one in history]
    if runs:
        lines.append("  containers of it, by the kubelets' run logs:")
        lines += [
            f"    {_span(run, began_s):>24}  {run.cluster:<10} {run.node} {run.pod} {run.why}".rstrip() for run in runs
        ]
    return "\n".join(lines) + "\n"


def _span(run: Run, began_s: float) -> str:
    end = "still running" if run.ended_s is None else f"{run.ended_s - began_s:.1f} s"
    return f"{run.started_s - began_s:.1f} s to {end}"
