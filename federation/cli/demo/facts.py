"""What the play came to, in numbers. Pure: from the story and the evidence; the report and the plot show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from federation.cli.demo.checks import by_group
from federation.cli.demo.evidence import Evidence, Run
from federation.cli.demo.play import Story
from federation.cli.demo.progress import percentile
from federation.cli.demo.timeline import Mark, Picture
from federation.cli.demo.workload import Job


@dataclass(frozen=True, slots=True)
class CutFacts:
    """How the loss of a cluster went. Seconds; those not reached are 0."""

    cluster: str
    groups: int  # at home there when it was cut
    fenced_after_s: float
    wait_s: float  # from the fence until groups might start elsewhere
    first_elsewhere_s: float  # from the cut, by the run logs
    ran_elsewhere: int
    gap_s_min: float  # between a group's last container there and its first elsewhere
    admitted_after_s: float  # from when its network was back


@dataclass(frozen=True, slots=True)
class Facts:
    clusters: int
    nodes: int
    gpus: int
    jobs: int
    gpus_asked: int
    pods: int
    acknowledged: int
    answer_p99_ms: float
    placements: int
    decisions_per_s_max: float
    bound_p50_s: float
    bound_p99_s: float
    pending_max: int
    runs: int
    acts: int
    play_s: float
    cut: CutFacts
    drained: str
    drained_groups: int
    drained_s: float
    finished: bool


def facts_of(story: Story, evidence: Evidence, jobs: Sequence[Job]) -> Facts:
    latency, marks = story.progress.latency(), story.marks
    answers = sorted(story.answer_s)
    nodes = [node for of_cluster in evidence.nodes.values() for node in of_cluster.values()]
    return Facts(
        clusters=len(evidence.nodes),
        nodes=len(nodes),
        gpus=sum(node.gpus for node in nodes),
        jobs=len(jobs),
        gpus_asked=sum(job.gpus for job in jobs),
        pods=sum(job.pods for job in jobs),
        acknowledged=len(story.acknowledged),
        answer_p99_ms=round(percentile(answers, 0.99) * 1000, 1) if answers else 0.0,
        placements=story.progress.placed_count,
        decisions_per_s_max=story.decisions_per_s_max,
        bound_p50_s=latency.p50_s if latency else 0.0,
        bound_p99_s=latency.p99_s if latency else 0.0,
        pending_max=max((count for _, count in story.pending), default=0),
        runs=len(evidence.runs),
        acts=sum(len(acts) for acts in evidence.acts.values()),
        play_s=round(marks.over_s - marks.began_s, 1),
        cut=_cut(story, evidence),
        drained=story.drained,
        drained_groups=story.drained_groups,
        drained_s=_between(marks.drain_s, marks.drained_s),
        finished=story.finished,
    )


def _cut(story: Story, evidence: Evidence) -> CutFacts:
    marks = story.marks
    own = by_group(evidence.runs)
    firsts: list[float] = []
    gaps: list[float] = []
    for uid in story.struck:
        elsewhere = [run for run in own.get(uid, ()) if _moved(run, story)]
        if elsewhere:
            first_s = min(run.started_s for run in elsewhere)
            firsts.append(first_s)
            gaps += [first_s - run.ended_s for run in own[uid] if _was_there(run, story) and run.ended_s is not None]
    return CutFacts(
        cluster=story.cut,
        groups=len(story.struck),
        fenced_after_s=_between(marks.cut_s, marks.fenced_s),
        wait_s=_between(marks.fenced_s, marks.fence_done_s),
        first_elsewhere_s=_between(marks.cut_s, min(firsts, default=0.0)),
        ran_elsewhere=len(firsts),
        gap_s_min=round(min(gaps, default=0.0), 1),
        admitted_after_s=_between(marks.healed_s, marks.admitted_s),
    )


def _moved(run: Run, story: Story) -> bool:
    return run.cluster != story.cut and run.started_s > story.marks.cut_s


def _was_there(run: Run, story: Story) -> bool:
    back_s = story.marks.admitted_s or float("inf")
    return run.cluster == story.cut and run.started_s < back_s


def _between(from_s: float, to_s: float) -> float:
    return round(to_s - from_s, 1) if from_s and to_s else 0.0


def picture_of(story: Story, evidence: Evidence, title: str) -> Picture:
    """The timeline plot's content."""
    marks, began_s = story.marks, story.marks.began_s
    said = (
        (marks.cut_s, f"{story.cut} cut", True),
        (marks.fenced_s, "fenced", False),
        (marks.fence_done_s, "may start elsewhere", False),
        (marks.healed_s, "network back", False),
        (marks.admitted_s, "admitted", False),
        (marks.drain_s, f"{story.drained} drained", True),
        (marks.drained_s, "empty", False),
    )
    return Picture(
        title=title,
        began_s=began_s,
        length_s=max(1.0, marks.over_s - began_s),
        gpus={name: sum(node.gpus for node in nodes.values()) for name, nodes in evidence.nodes.items()},
        runs=evidence.runs,
        pending=story.pending,
        marks=[Mark(at_s - began_s, text, grave) for at_s, text, grave in said if at_s],
        struck=sorted(story.struck),
        names={one.uid: one.job.name for one in story.acknowledged},
    )
