"""Clusters that fail whatever they get, groups that fail wherever they go, and L5: neither draws more than its share.

Written against `DESIGN.md` §11.5 and Appendix A alone: from the records and where they lie, not from the product's own
counts. What a seed has of both is drawn in `draw`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from federation.core.records import (
    AnyRecord,
    Bound,
    ClusterCordoned,
    ClusterJoined,
    ClusterRemoved,
    GaveUp,
    IntentSet,
    Placed,
    Quarantined,
)
from storage.entry import decode_entry, entry_name, seq_of
from tests.world.violation import ViolationError

if TYPE_CHECKING:
    from tests.world.world import World

PLANT_EVERY_S: Final = 2.0  # other faults clear an API server's errors when they end
MANY: Final = 1_000_000
PROBER: Final = "muster:probe"
FAILED_IN_A_ROW: Final = 11  # different groups, nothing good between them: most of any twenty, and ten are half of them
FAILED_MIN: Final = 6  # of ten, the fewest that open a breaker
WITHIN_S: Final = 280.0  # of five minutes, on any clock
RESTARTS_MAX: Final = 5
CLUSTERS_MAX: Final = 3
WAIT_S_MAX: Final = 300.0
OF_THE_CLUSTER: Final = frozenset({"KubeletRejected", "ApiError", "BindConflict", "BindDeadline", "VictimStillRunning"})
OF_EITHER: Final = (OF_THE_CLUSTER - {"VictimStillRunning"}) | {"TemplateRefused"}

Term = tuple[str, int]  # who led, and its number: soft state lives as long


@dataclass(slots=True)
class _Group:
    losses: int = 0
    clusters: set[str] = field(default_factory=set)
    lost_at_s: float = 0.0
    probe: bool = False  # its present home is one


@dataclass(slots=True)
class _Cluster:
    failed: dict[str, tuple[int, float, Term]] = field(default_factory=dict)  # in a row: where, when, under whom
    ever: set[str] = field(default_factory=set)  # groups that failed there
    suspects: set[str] = field(default_factory=set)  # and after whom another one was bound

    def served(self) -> None:
        """Somebody was bound there: who failed before, and fails again, fails by itself."""
        self.suspects.update(self.failed)
        self.failed.clear()


class Failing:
    """Carries out what the seed has of it, and holds every placement against L5."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._groups: dict[str, _Group] = {}
        self._clusters: dict[str, _Cluster] = {}
        self._terms: dict[int, Term] = {}
        self._gone: set[str] = set()  # clusters that have left the fleet

    # --- the cluster that fails everything ---

    def schedule(self) -> None:
        plan = self._world.setting.failing
        if plan is not None:
            self._world.scheduler.at(plan.from_s, self._plant, plan.cluster)

    def _plant(self, name: str) -> None:
        """An admission webhook that refuses every pod, say; until the heal."""
        if self._world.healed:
            return
        faults = self._world.clusters[name].api.faults
        if not any(rule.status == 422 and rule.times for rule in faults.rules):
            for label in ("pods", "jobs"):
                faults.fail("create", label, 422, times=MANY)
            self._world.trace.note(self._world.scheduler.now_s, "fault", "fails everything", name)
        self._world.scheduler.after(PLANT_EVERY_S, self._plant, name)

    # --- L5 ---

    def restored(self) -> None:
        """The journal goes on from what is left of it."""
        self._groups.clear()
        self._clusters.clear()
        self._gone.clear()
        for position, record, at_s in self._world.history.records:
            self._learn(position, record, at_s)

    def folded(self, position: int, record: AnyRecord, now_s: float) -> None:
        """A record that nobody had folded before."""
        if isinstance(record, Placed):
            self._judge(position, record, now_s)
        self._learn(position, record, now_s)

    def waits_for(self, uid: str, cluster: str, now_s: float) -> bool:
        """Whether the group may have to wait though the cluster has room: it lost too much."""
        group = self._groups.get(uid, _Group())
        return self._barred(group, cluster) or (group.losses > 1 and now_s - group.lost_at_s <= WAIT_S_MAX)

    def may_be_tripped(self, cluster: str) -> bool:
        """Whether enough groups ever failed there."""
        return len(self._clusters.get(cluster, _Cluster()).ever) >= FAILED_MIN

    def _barred(self, group: _Group, cluster: str) -> bool:
        """Whether it was lost in as many others as there may be, and these have not all left the fleet."""
        some_are_there = not group.clusters <= self._gone
        return some_are_there and len(group.clusters) >= CLUSTERS_MAX and cluster not in group.clusters

    def _judge(self, position: int, record: Placed, now_s: float) -> None:
        probe = record.actor == PROBER
        group = self._groups.setdefault(record.uid, _Group())
        if group.losses > RESTARTS_MAX:
            raise ViolationError("L5", f"{record.uid} is placed again after {group.losses} losses", (record.uid,))
        if not probe and self._barred(group, record.cluster):
            why = f"{record.uid} goes to {record.cluster} after it was lost in {sorted(group.clusters)}"
            raise ViolationError("L5", why, (record.uid,))
        term = self._term(position)
        failed = [
            uid
            for uid, (at, at_s, under) in self._clusters.get(record.cluster, _Cluster()).failed.items()
            if under == term and seq_of(at) < seq_of(position) and now_s - at_s <= WITHIN_S
        ]
        if not probe and len(failed) >= FAILED_IN_A_ROW:
            why = f"{record.uid} goes to {record.cluster}, where the last {len(failed)} groups all failed"
            raise ViolationError("L5", why, (record.uid, record.cluster))

    def _learn(self, position: int, record: AnyRecord, now_s: float) -> None:
        match record:
            case Placed(uid=uid, actor=actor):
                self._groups.setdefault(uid, _Group()).probe = actor == PROBER
            case IntentSet(uid=uid, intent="run") | Quarantined(uid=uid):
                self._groups.pop(uid, None)
            case GaveUp(late=False):
                self._gave_up(position, record, now_s)
            case Bound(cluster=cluster):
                self._clusters.setdefault(cluster, _Cluster()).served()
            case ClusterCordoned(cluster=cluster, cordoned=False):
                self._clusters.pop(cluster, None)
            case ClusterRemoved(cluster=cluster):
                self._clusters.pop(cluster, None)
                self._gone.add(cluster)
            case ClusterJoined(cluster=cluster):
                self._gone.discard(cluster)
            case _:
                pass

    def _gave_up(self, position: int, record: GaveUp, now_s: float) -> None:
        cluster, reasons = self._clusters.setdefault(record.cluster, _Cluster()), set(record.reasons)
        if record.verdict == "Finished" and record.succeeded:
            cluster.served()
        elif record.verdict == "Finished" or "MemberLost" in reasons or reasons & (OF_THE_CLUSTER | OF_EITHER):
            cluster.ever.add(record.uid)
        of_cluster = record.verdict == "Refused" and reasons & (OF_THE_CLUSTER | {"TemplateRefused"})
        if of_cluster and record.uid not in cluster.suspects:
            cluster.failed[record.uid] = (position, now_s, self._term(position))
        group = self._groups.setdefault(record.uid, _Group())
        lost = (
            reasons & OF_EITHER
            if record.verdict == "Refused"
            else record.verdict == "Released" and "MemberLost" in reasons
        )
        if lost and not group.probe:
            group.losses += 1
            group.clusters.add(record.cluster)
            group.lost_at_s = now_s

    def _term(self, position: int) -> Term:
        """Under whom the entry was written."""
        seq = seq_of(position)
        if seq not in self._terms:
            data = self._world.store.journal_landed.get(entry_name(seq))
            header = decode_entry(data, seq).header if data is not None else None
            self._terms[seq] = (header.writer, header.term) if header is not None else ("", 0)
        return self._terms[seq]
