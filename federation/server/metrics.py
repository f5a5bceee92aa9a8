"""Prometheus metrics of one server: HTTP, loop, journal and fleet. Series grow with clusters, never with groups."""

from __future__ import annotations

from collections import Counter as Tally
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from federation.core.breaker import Breaker
from federation.server.feed import Feed
from federation.server.loop import ReplicaLoop
from placement.model import ClusterName

SECONDS_BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


@dataclass(slots=True)
class Metrics:
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    requests: Histogram = field(init=False)
    statuses: Counter = field(init=False)
    gauges: dict[str, Gauge] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.requests = Histogram(
            "muster_http_seconds",
            "Time to answer",
            ["method", "route"],
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self.statuses = Counter("muster_http_total", "Answers by status", ["route", "status"], registry=self.registry)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        self.requests.labels(method, route).observe(seconds)
        self.statuses.labels(route, str(status)).inc()

    def render(self, loop: ReplicaLoop, feed: Feed) -> tuple[bytes, str]:
        """Everything as of now."""
        state = loop.replica.state
        self._set("muster_journal_position", "Newest committed position", state.head)
        self._set("muster_leader", "1 while this server leads", int(loop.leading))
        self._set("muster_events_total", "Events handled by the loop", loop.counters.events)
        self._set(
            "muster_messages_set_aside_total", "Messages that could not be read", loop.counters.messages_set_aside
        )
        self._set("muster_requests_shed_total", "Requests refused because the queue was full", loop.counters.shed)
        self._set("muster_watchers", "Watch streams connected", feed.watchers)
        tape = loop.replica.tape
        self._set("muster_tape_cycles_total", "Engine cycles written on tape", tape.cycles_count)
        self._set(
            "muster_tape_cycles_left_out_total",
            "Engine cycles that no replay will see: the store did not keep up, or did not take them",
            tape.missed_count + tape.lost_count,
        )
        for kind, count in sorted(feed.by_kind.items()):
            self._set("muster_records_total", "Committed records by kind since start", count, kind=kind)
        for event, count in sorted(loop.counters.notes.items()):
            self._set("muster_notes_total", "Log events by name", count, event=event)
        phases = Tally(row.phase.value for row in state.groups.values())
        for phase, count in sorted(phases.items()):
            self._set("muster_podgroups", "PodGroups by phase", count, phase=phase)
        for name in sorted(state.clusters):
            self._cluster(loop, name)
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    def _cluster(self, loop: ReplicaLoop, name: ClusterName) -> None:
        status = loop.cluster_status(name)
        age_s = status["report_age_s"]
        self._set(
            "muster_cluster_report_age_seconds",
            "Age of the newest report; -1 without one",
            -1.0 if age_s is None else age_s,
            cluster=name,
        )
        self._set(
            "muster_cluster_active", "1 while placements may go there", int(status["state"] == "Active"), cluster=name
        )
        breaker = list(Breaker).index(Breaker(status["breaker"]))
        self._set("muster_cluster_breaker", "0 closed, 1 open, 2 half open", breaker, cluster=name)
        for product, gpus in status["gpus"].items():
            for key in ("total", "free", "unhealthy"):
                self._set(
                    "muster_gpus", "GPUs by product and state", gpus[key], cluster=name, product=product, state=key
                )

    def _set(self, name: str, text: str, value: float, **labels: str) -> None:
        gauge = self.gauges.get(name)
        if gauge is None:
            gauge = self.gauges[name] = Gauge(name, text, sorted(labels), registry=self.registry)
        (gauge.labels(**labels) if labels else gauge).set(value)
