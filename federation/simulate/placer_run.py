"""One run of the placer's benchmark on one fleet: set up, fill, measure the rate, then measure waiting times.

What is printed and compared is `bench_placer`'s.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from federation.core.events import (
    Accepted,
    AgentAsked,
    AnswerAgent,
    AnswerPerson,
    EntryFolded,
    Instant,
    JoinCluster,
    PersonAsked,
    ReplicaEffect,
    ReplicaEvent,
    ReportArrived,
    Started,
    SubmitGroup,
)
from federation.core.records import Placed, Submitted
from federation.core.replica import Replica, ReplicaConfig
from federation.core.stored import request_of
from federation.protocol.lease import Timings
from federation.protocol.messages import RenewalAnswer, Report, decode_message, encode_message
from federation.simulate.machine import cpu_wait_s
from federation.simulate.member import Member
from federation.simulate.server_clock import WALL_MS, Costs, ServerClock
from federation.simulate.workload import GPUS_PER_NODE, Workload, node_rows, oversized_group
from placement.model import GangRequest, Lineage, PodGroup, Position, Token, group_uid
from storage.blob import BlobStore

LOAD_MAX: Final = 0.9  # share of all GPUs in use while it is measured ...
FREE_GPUS_MIN: Final = (
    240_000  # ... unless so few are free then that the rate is that of GPUs coming back, not the server's
)
FREE_SHARE_MAX: Final = 0.6
OWN_SHARE_MAX: Final = 0.5  # of the GPUs in use, held by the run's own groups
CLUSTER_SHARE_MAX: Final = 1 / 16  # of a cluster's GPUs, for one group: small fleets get no gangs that fit nowhere
BACKLOG_MAX: Final = 1_000  # submissions not yet decided while the rate is measured: a batch or two
PENDING_AT_ONCE: Final = 1_000  # submissions of groups that will wait for ever: a server declines more than it queues
REPORT_EVERY_S: Final = 1.0
AGENT_DELAY_S: Final = 0.05  # from a landed placement to the agent's choice of nodes
TTL_S: Final = 60.0
SETTLE_S: Final = 3.0  # what can be decided without new room is decided by then
JOINED_WITHIN_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class RunSettings:
    """`live` groups of the run's own at any time: every further placement ends the oldest."""

    clusters: int
    nodes_per_cluster: int
    groups: int
    shapes: int
    pending: int
    live: int
    seed: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What one phase of a run came to."""

    decisions: int
    seconds: float
    costs: Costs
    evaluations: int
    changed_rows: int
    departures: int
    cpu_wait_share: float  # of the wall time of the phase: others had the cores
    waits_s: tuple[float, ...]  # submission to landed decision, sorted


@dataclass(slots=True)
class _Counts:
    began_s: float = 0.0
    decisions: int = 0
    changed_rows: int = 0
    departures: int = 0
    waits_s: list[float] = field(default_factory=list)


class PlacerRun:
    """A federation server, its members and its submitters, all in one process."""

    def __init__(self, settings: RunSettings, store: BlobStore, *, event_takes_s: float | None = None) -> None:
        self.settings = settings
        timings = Timings(ttl_s=TTL_S)
        self.replica = Replica(ReplicaConfig(name="bench", seed=settings.seed, timings=timings))
        self.clock = ServerClock(self.replica, store, self._on_effect, event_takes_s)
        largest = max(1, int(settings.nodes_per_cluster * GPUS_PER_NODE * CLUSTER_SHARE_MAX))
        self.workload = Workload(settings.seed, settings.shapes, gpus_max=largest)
        self.members: dict[str, Member] = {}
        self.decisions_count = 0
        self._timings = timings
        self._counts = _Counts()
        self._ticket = 0
        self._submitted_at_s: dict[str, float] = {}  # by name
        self._outstanding: dict[str, tuple[float, GangRequest]] = {}  # by uid: submitted, not decided
        self._live: deque[tuple[str, str, str]] = deque()  # (uid, token, cluster), oldest first
        self._renewing: dict[int, Member] = {}
        self._backlog = 0  # submissions that are kept undecided

    # --- phases ---

    def set_up(self) -> None:
        """Clusters join, report all their nodes, and are admitted."""
        settings = self.settings
        own = self.live * self.workload.gpus_mean / self.gpus
        self.clock.feed(Started())
        self.clock.run(lambda: self.replica.leading)
        for number in range(settings.clusters):
            name = f"c{number:03}"
            rows = node_rows(
                number,
                settings.clusters,
                settings.nodes_per_cluster,
                used=max(0.0, self.used_share - own),
                seed=settings.seed,
            )
            self.members[name] = Member(name, rows, ttl_s=TTL_S, now_s=self.clock.now_s)
            self._ask(
                JoinCluster(
                    cluster=name,
                    lease_class="default",
                    labels=(),
                    accept_unguarded=False,
                    request_id=f"join-{name}",
                    actor="bench",
                )
            )
            self._renew(self.members[name])
            self.clock.at(self.clock.now_s + REPORT_EVERY_S * number / settings.clusters, self._reporter(name))
        self.clock.run(self._all_open, limit_s=JOINED_WITHIN_S)
        for number in range(settings.pending):
            self._submit(oversized_group(number))
            if len(self._submitted_at_s) >= PENDING_AT_ONCE:
                self.clock.run(lambda: not self._submitted_at_s)
        self.clock.run(lambda: not self._submitted_at_s)  # else they would count as a backlog

    @property
    def gpus(self) -> int:
        return self.settings.clusters * self.settings.nodes_per_cluster * GPUS_PER_NODE

    @property
    def used_share(self) -> float:
        """Of all GPUs, in use while it is measured."""
        return 1.0 - max(1.0 - LOAD_MAX, min(FREE_SHARE_MAX, FREE_GPUS_MIN / self.gpus))

    @property
    def live(self) -> int:
        """Groups of the run's own; fewer than asked for in fleets that they would fill."""
        return max(
            1, min(self.settings.live, int(OWN_SHARE_MAX * self.used_share * self.gpus / self.workload.gpus_mean))
        )

    def fill(self) -> None:
        """Place groups until as many live as are wanted: from then on one ends with each that is placed."""
        self._fill_backlog()
        self.clock.run(lambda: len(self._live) >= self.live)

    def full_speed(self) -> Measured:
        """Decide as many groups as are asked for with others always waiting."""
        self._fill_backlog()
        return self._measure()

    def at_rate(self, per_s: float) -> Measured:
        """Decide as many groups again, submitted at a steady rate."""
        self.pause(SETTLE_S)
        began_s = self.clock.now_s
        for number in range(self.settings.groups):
            self.clock.at(began_s + number / per_s, lambda: self._submit(self.workload.next()))
        return self._measure(last_s=began_s + self.settings.groups / per_s + SETTLE_S)

    def pause(self, seconds: float) -> None:
        """Nobody submits anything for a while."""
        self._backlog = 0
        until_s = self.clock.now_s + seconds
        self.clock.run(lambda: self.clock.now_s >= until_s)

    def _measure(self, last_s: float = float("inf")) -> Measured:
        """Until enough is decided; what has found no room by `last_s` is not waited for."""
        counts = self._counts = _Counts(began_s=self.clock.now_s)
        began_s, before = self.clock.now_s, self.clock.costs.since(Costs())
        evaluations = self.replica.placer.evaluations_count
        wall_s, waited_s = time.perf_counter(), cpu_wait_s()
        self.clock.run(lambda: counts.decisions >= self.settings.groups or self.clock.now_s >= last_s)
        return Measured(
            decisions=counts.decisions,
            seconds=self.clock.now_s - began_s,
            costs=self.clock.costs.since(before),
            evaluations=self.replica.placer.evaluations_count - evaluations,
            changed_rows=counts.changed_rows,
            departures=counts.departures,
            cpu_wait_share=(cpu_wait_s() - waited_s) / (time.perf_counter() - wall_s),
            waits_s=tuple(sorted(counts.waits_s)),
        )

    def why_pending_s(self) -> float:
        """How long one explanation takes, for the last group in order that waits; 0 if none does."""
        state = self.replica.state
        if not state.pending:
            return 0.0
        began_s = time.perf_counter()
        self.replica.why(state.pending[-1][2], Instant(self.clock.now_s, WALL_MS))
        return time.perf_counter() - began_s

    # --- people ---

    def _ask(self, request: SubmitGroup | JoinCluster) -> None:
        self._ticket += 1
        self.clock.feed(PersonAsked(self._ticket, request))

    def _submit(self, group: PodGroup) -> None:
        self._submitted_at_s[group.name] = self.clock.now_s
        self._ask(SubmitGroup(group, f"r-{group.name}", "bench"))

    def _fill_backlog(self) -> None:
        self._backlog = min(BACKLOG_MAX, 1 + self.settings.groups // 5)
        self._top_up()

    def _top_up(self) -> None:
        waiting = len(self._submitted_at_s) + len(self._outstanding)
        for _ in range(self._backlog - waiting):
            self._submit(self.workload.next())

    # --- the server's effects ---

    def _on_effect(self, effect: ReplicaEffect) -> None:
        match effect:
            case EntryFolded():
                for position, record in effect.lines():
                    if isinstance(record, Submitted):
                        self._submitted(Position(position), record)
                    elif isinstance(record, Placed):
                        self._placed(Position(position), record)
            case AnswerPerson(_, answer) if not isinstance(answer, Accepted):
                raise AssertionError(f"the server declined: {answer}")
            case AnswerAgent(ticket, RenewalAnswer() as answer):
                self._renewing.pop(ticket).answered(answer)
            case _:
                pass

    def _submitted(self, position: Position, record: Submitted) -> None:
        uid = group_uid(Lineage(self.replica.state.lineage), position)
        submitted_at_s = self._submitted_at_s.pop(record.name)
        if record.name.startswith("g-"):
            self._outstanding[uid] = (submitted_at_s, request_of(record))

    def _placed(self, position: Position, record: Placed) -> None:
        submitted_at_s, request = self._outstanding.pop(record.uid)
        self.decisions_count += 1
        self._counts.decisions += 1
        if submitted_at_s >= self._counts.began_s:
            self._counts.waits_s.append(self.clock.now_s - submitted_at_s)
        token = str(Token(Lineage(self.replica.state.lineage), position))
        self.clock.at(
            self.clock.now_s + AGENT_DELAY_S, lambda: self._chosen(record.uid, token, record.cluster, position, request)
        )
        self._top_up()

    # --- agents ---

    def _chosen(self, uid: str, token: str, cluster: str, position: Position, request: GangRequest) -> None:
        member = self.members[cluster]
        if not member.place(token, position, request):
            self._outstanding[uid] = (self.clock.now_s, request)
            self._tell(member, uid, token, "Refused")
            return
        self._live.append((uid, token, cluster))
        if len(self._live) > self.live:
            self._finish(*self._live.popleft())

    def _finish(self, uid: str, token: str, cluster: str) -> None:
        self._counts.departures += 1
        self.members[cluster].finish(token)
        self._tell(self.members[cluster], uid, token, "Finished")

    def _tell(self, member: Member, uid: str, token: str, verdict: str) -> None:
        self._ticket += 1
        self.clock.feed(AgentAsked(self._ticket, member.name, member.verdict(uid, token, verdict)))

    def _renew(self, member: Member) -> None:
        self._ticket += 1
        self._renewing[self._ticket] = member
        self.clock.feed(AgentAsked(self._ticket, member.name, member.renewal(self.clock.now_s)))
        unadmitted = not self.replica.state.clusters or not self._open(member.name)
        again_s = REPORT_EVERY_S if unadmitted else self._timings.renew_s
        self.clock.at(self.clock.now_s + again_s, lambda: self._renew(member))

    def _reporter(self, name: str, *, full: bool = True) -> Callable[[], None]:
        def report() -> None:
            if self.replica.state.cluster(name) is None:
                self.clock.at(self.clock.now_s + REPORT_EVERY_S, self._reporter(name))
                return
            made = self.members[name].report(self.clock.now_s, self.replica.state.lineage, full=full)
            self._counts.changed_rows += len(made.rows.name)
            self.clock.feed_read(_arrival(name, made))
            self.clock.at(self.clock.now_s + REPORT_EVERY_S, self._reporter(name, full=False))

        return report

    def _open(self, name: str) -> bool:
        row = self.replica.state.cluster(name)
        if row is None:
            return False
        gate = self.replica.failover.gate(row, self.clock.now_s)
        return gate.admitted and not gate.stale and not gate.silent

    def _all_open(self) -> bool:
        return all(self._open(name) for name in self.members)


def _arrival(name: str, report: Report) -> Callable[[], ReplicaEvent]:
    """Deltas are decoded on arrival; a full report is handed over as it is, since it is larger than one message."""
    if report.follows is None:
        return lambda: ReportArrived(name, report)
    data = encode_message(report)

    def read() -> ReplicaEvent:
        message = decode_message(data)
        assert isinstance(message, Report)
        return ReportArrived(name, message)

    return read
