"""The script of the demo: fill the fleet, cut a cluster half-way, see its gangs start elsewhere, take it back, drain
another, run to the end. Watches through the API like any client; judges nothing (see `checks`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, unique
from typing import Final, Protocol

import muster
from federation.cli.demo.checks import Acknowledged, Returned
from federation.cli.demo.evidence import Evidence, Run, ask_acts, ask_nodes, read_run_log, runs_of
from federation.cli.demo.members import DemoFleet
from federation.cli.demo.progress import News, Progress, Scene
from federation.cli.demo.submitter import Submitter
from federation.cli.demo.workload import Job
from federation.cli.errors import CliError
from federation.cli.local import commands
from muster.results import ClusterView, Decision, Explanation

TICK_S: Final = 0.5
EXPLAIN_S: Final = 2.0
PLAY_S_MAX: Final = 300.0  # several times what two busy cores need
SETTLE_S_MAX: Final = 30.0  # from the last verdict until every container has ended
UNBOUND_MAX: Final = 40  # groups being bound at once, before more are submitted
CUT_SHARE: Final = 0.5  # of the groups have been bound once
MOVE_S: Final = 6.0  # after FenceDone; struck gangs for which there is no room wait longer than this
BACK_S: Final = 3.0  # in use again for a while before the next act
REASONS_TOLD_MAX: Final = 4
NOTHING_NEEDED: Final = "none:"  # how an explanation begins that needs no change
DECISIONS_PER_ASK: Final = 1_000


@unique
class Act(Enum):
    """Where the script is; the value is shown."""

    FILLING = "submitting"
    CUT = "cut: waiting for the fence"
    FENCED = "fenced: waiting until its pods have surely stopped"
    MOVING = "its gangs start elsewhere"
    RETURNING = "its network is back: re-admission"
    BACK = "back in use"
    DRAINING = "draining another cluster"
    FINISHING = "running to the end"
    OVER = "over"


class Screen(Protocol):
    """Where the play is seen."""

    def note(self, news: News) -> None: ...

    def show(self, scene: Scene) -> None: ...


@dataclass(slots=True)
class Marks:
    """When what happened, in the machine's monotonic seconds; 0 for what did not."""

    began_s: float = 0.0
    cut_s: float = 0.0
    fenced_s: float = 0.0
    fence_done_s: float = 0.0
    healed_s: float = 0.0
    admitted_s: float = 0.0
    drain_s: float = 0.0
    drained_s: float = 0.0
    over_s: float = 0.0


@dataclass(slots=True)
class Story:
    """What the play leaves behind."""

    marks: Marks = field(default_factory=Marks)
    progress: Progress = field(default_factory=Progress)
    acknowledged: Sequence[Acknowledged] = ()
    answer_s: Sequence[float] = ()
    cut: str = ""
    struck: frozenset[str] = frozenset()  # groups at home in the cluster when it was cut
    drained: str = ""
    drained_groups: int = 0
    decisions_per_s_max: float = 0.0
    pending: list[tuple[float, int]] = field(default_factory=list)  # (seconds of the play, groups waiting)
    finished: bool = False  # within PLAY_S_MAX

    @property
    def returned(self) -> Returned | None:
        marks = self.marks
        return Returned(self.cut, marks.cut_s, marks.admitted_s) if marks.admitted_s else None


@dataclass(slots=True)
class Play:
    """One performance. `run` it once."""

    fleet: DemoFleet
    jobs: Sequence[Job]
    screen: Screen
    story: Story = field(default_factory=Story)
    _act: Act = Act.FILLING
    _act_since_s: float = 0.0
    _head: Explanation | None = None
    _head_at_s: float = 0.0
    _reasons_told: set[str] = field(default_factory=set)
    _unbound: int = 0
    _wall_offset_s: float = field(default_factory=lambda: time.time() - time.monotonic())

    def run(self) -> Story:
        """All acts, or as far as they come in PLAY_S_MAX. The fleet is left up."""
        local = self.fleet.local
        submitter = Submitter(local.server_url, local.token, self.jobs, may_go_on=self._keeping_up)
        self.story.acknowledged, self.story.answer_s = submitter.acknowledged, submitter.answer_s
        self.story.marks.began_s = self._act_since_s = time.monotonic()
        submitter.start()
        try:
            with self.fleet.client() as client:
                while self._act is not Act.OVER and self._elapsed_s() < PLAY_S_MAX:
                    self._tick(client, submitter)
                self.story.finished = self._act is Act.OVER
                self._settle()
        finally:
            submitter.stop()
        self.story.marks.over_s = time.monotonic()
        return self.story

    def _keeping_up(self) -> bool:
        """Whether the machine binds what is placed; a slow one gets the jobs later, and the same jobs."""
        return self._unbound < UNBOUND_MAX

    def _elapsed_s(self) -> float:
        return time.monotonic() - self.story.marks.began_s

    # --- one tick ---

    def _tick(self, client: muster.Client, submitter: Submitter) -> None:
        tick_s = time.monotonic()
        submitter.check()
        self._check_processes()
        for decision in self._read_log(client):
            self._heard(decision)
        clusters = client.list_clusters().items
        self._explain(client, tick_s)
        self._show(client, clusters)
        self._advance(client, clusters, submitter)
        time.sleep(max(0.0, tick_s + TICK_S - time.monotonic()))

    def _check_processes(self) -> None:
        for role in self.fleet.local.roles:
            if not self.fleet.local.alive(role):
                raise CliError(f"{role} ended by itself", f"see {self.fleet.local.folder.log(role)}")

    def _read_log(self, client: muster.Client) -> list[Decision]:
        progress, found = self.story.progress, list[Decision]()
        while True:
            more = client.list_decisions(since=progress.position, limit=DECISIONS_PER_ASK).items
            progress.take(more)
            found += more
            if len(more) < DECISIONS_PER_ASK:
                return found

    def _explain(self, client: muster.Client, now_s: float) -> None:
        """Why the head of the queue waits, asked now and then: always on the picture, each kind of reason told once."""
        head = self.story.progress.head()
        if head is None:
            self._head = None
            return
        if now_s - self._head_at_s < EXPLAIN_S:
            return
        self._head_at_s = now_s
        answer = client.explain(head)
        self._head = answer if answer.phase == "Pending" and answer.change else None  # it may have moved on meanwhile
        if self._head is None or (self._head.change or "").startswith(NOTHING_NEEDED):
            return
        reason = self._head.summary.partition(":")[0].partition(" ")[0]
        if reason not in self._reasons_told and len(self._reasons_told) < REASONS_TOLD_MAX:
            self._reasons_told.add(reason)
            self._say(f"head of the queue: {self._head.name} waits: {self._head.summary}")
            self._say(f"what would let it start: {self._head.change}")

    def _show(self, client: muster.Client, clusters: Sequence[ClusterView]) -> None:
        progress = self.story.progress
        counts, rate = progress.counts(), progress.rate(round(time.time() * 1000))
        self.story.decisions_per_s_max = max(self.story.decisions_per_s_max, rate)
        self._unbound = counts.placed
        self.story.pending.append((self._elapsed_s(), counts.pending))
        self.screen.show(
            Scene(
                at_s=self._elapsed_s(),
                act=self._act.value,
                expected=len(self.jobs),
                clusters=clusters,
                queues=client.list_queues().items,
                counts=counts,
                decisions_per_s=rate,
                latency=progress.latency(),
                head=self._head,
            )
        )

    def _say(self, text: str, *, grave: bool = False) -> None:
        news = News(self._elapsed_s(), text, grave)
        self.screen.note(news)

    # --- the acts ---

    def _heard(self, decision: Decision) -> None:
        """What the log says of the cluster that was cut."""
        marks, at_s = self.story.marks, decision.at_ms / 1000 - self._wall_offset_s
        if not self.story.cut or decision.cluster != self.story.cut or at_s < marks.cut_s:
            return
        match decision.kind:
            case "ClusterFenced" if not marks.fenced_s:
                marks.fenced_s = at_s
            case "FenceDone" if not marks.fence_done_s:
                marks.fence_done_s = at_s
            case "ClusterAdmitted" if not marks.admitted_s:
                marks.admitted_s = at_s
            case _:
                pass

    def _advance(self, client: muster.Client, clusters: Sequence[ClusterView], submitter: Submitter) -> None:
        """Go to the next act when its time has come. One step at most, so that each is seen."""
        marks, progress, counts = self.story.marks, self.story.progress, self.story.progress.counts()
        steps: dict[Act, tuple[bool, Callable[[], Act]]] = {
            Act.FILLING: (progress.bound_once() >= CUT_SHARE * len(self.jobs), self._cut),
            Act.CUT: (marks.fenced_s > 0, self._fenced),
            Act.FENCED: (marks.fence_done_s > 0, self._fence_done),
            Act.MOVING: (not self._waiting_struck() or self._act_s() > MOVE_S, self._heal),
            Act.RETURNING: (marks.admitted_s > 0 and _active(clusters, self.story.cut), self._returned),
            Act.BACK: (self._act_s() > BACK_S, lambda: self._drain(client)),
            Act.DRAINING: (not progress.homes(self.story.drained), lambda: self._empty(client)),
            Act.FINISHING: (submitter.all_in and counts.done + counts.failed == len(self.jobs), lambda: Act.OVER),
        }
        due, go = steps[self._act]
        if due:
            self._act, self._act_since_s = go(), time.monotonic()

    def _act_s(self) -> float:
        return time.monotonic() - self._act_since_s

    def _cut(self) -> Act:
        homes = {name: self.story.progress.homes(name) for name in self.fleet.local.state.clusters}
        self.story.cut = max(homes, key=lambda name: (len(homes[name]), name))
        self.story.struck = frozenset(homes[self.story.cut])
        self.story.marks.cut_s = time.monotonic()
        self.fleet.cut(self.story.cut)
        self._say(
            f"{self.story.cut} is cut from bus and server; {len(self.story.struck)} groups have it as their home. "
            "Its API server and kubelets run on.",
            grave=True,
        )
        return Act.CUT

    def _fenced(self) -> Act:
        marks = self.story.marks
        self._say(f"{self.story.cut} is Fenced {marks.fenced_s - marks.cut_s:.1f} s after the cut; nothing moves yet")
        return Act.FENCED

    def _fence_done(self) -> Act:
        marks = self.story.marks
        self._say(
            f"its pods have surely stopped {marks.fence_done_s - marks.fenced_s:.1f} s later: "
            f"its groups may start elsewhere"
        )
        return Act.MOVING

    def _waiting_struck(self) -> int:
        """Struck groups that neither run elsewhere nor are done."""
        groups = self.story.progress.groups
        return sum(groups[uid].phase not in {"running", "done"} for uid in self.story.struck)

    def _heal(self) -> Act:
        waiting = self._waiting_struck()
        moved = len(self.story.struck) - waiting
        self.fleet.heal(self.story.cut)
        self.story.marks.healed_s = time.monotonic()
        still = f"; {waiting} wait for room" if waiting else ""
        self._say(
            f"{moved} of {len(self.story.struck)} groups run elsewhere{still}. {self.story.cut} gets its network back"
        )
        return Act.RETURNING

    def _returned(self) -> Act:
        marks = self.story.marks
        self._say(
            f"{self.story.cut} is admitted again {marks.admitted_s - marks.healed_s:.1f} s after its network was back"
        )
        return Act.BACK

    def _drain(self, client: muster.Client) -> Act:
        others = {name: len(self.story.progress.homes(name)) for name in self.fleet.local.state.clusters}
        others.pop(self.story.cut)
        self.story.drained = max(others, key=lambda name: (others[name], name))
        self.story.drained_groups = others[self.story.drained]
        client.act_on_cluster(self.story.drained, "drain", "the demo drains it")
        self.story.marks.drain_s = time.monotonic()
        self._say(
            f"muster cluster drain {self.story.drained}: {self.story.drained_groups} groups are handed over", grave=True
        )
        return Act.DRAINING

    def _empty(self, client: muster.Client) -> Act:
        """It takes work again: some of what waits may run nowhere else."""
        self.story.marks.drained_s = time.monotonic()
        took_s = self.story.marks.drained_s - self.story.marks.drain_s
        client.act_on_cluster(self.story.drained, "uncordon", "the demo is done with it")
        self._say(
            f"{self.story.drained} is empty {took_s:.1f} s later and takes work again (muster cluster uncordon); "
            "the rest runs to its end"
        )
        return Act.FINISHING

    # --- afterwards ---

    def _settle(self) -> None:
        """Until the run logs show no container, or patience ends: the checks then say what still runs."""
        deadline_s = time.monotonic() + SETTLE_S_MAX
        while any(run.ended_s is None for run in read_runs(self.fleet)) and time.monotonic() < deadline_s:
            time.sleep(TICK_S)


def read_runs(fleet: DemoFleet) -> list[Run]:
    """What the kubelets wrote so far."""
    files = [fleet.run_log(member.name) for member in fleet.members]
    return runs_of([line for file in files if file.exists() for line in read_run_log(file.read_bytes())])


def gather(fleet: DemoFleet) -> Evidence:
    """What the clusters wrote down so far."""
    urls = {member.name: commands.url(fleet.local.state, f"apiserver/{member.name}") for member in fleet.members}
    return Evidence(
        runs=tuple(read_runs(fleet)),
        acts={name: ask_acts(url) for name, url in urls.items()},
        nodes={name: ask_nodes(url) for name, url in urls.items()},
    )


def _active(clusters: Sequence[ClusterView], name: str) -> bool:
    return any(view.metadata.name == name and view.status.state == "Active" for view in clusters)
