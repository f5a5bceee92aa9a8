"""What follows when a cluster goes silent and when it comes back: fence, wait, end homes, admit again (DESIGN §11).

Level-triggered: every step is derived anew from the state, the leases and the views, so a new leader continues where
the old one stopped. Only the leader asks for anything here. Where the ended groups go is the placer's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from federation.core import recovering
from federation.core.brake import Brake, brake_for
from federation.core.claims import ClaimBook
from federation.core.events import Instant
from federation.core.leases import Leases, Look
from federation.core.records import AnyRecord, ClusterAdmitted, ClusterFenced, FenceDone
from federation.core.recovering import Heard
from federation.core.rows import ClusterRow, GroupRow, ends_with_fence
from federation.core.state import State
from federation.core.views import Views
from federation.protocol.lease import TTL_S_MAX, LeaseState, Timings
from federation.protocol.messages import CLAIMS_MAX, COUNT_MAX, LIVE_TOKENS_MAX, Claims, ClaimsAnswer, LeaseBody
from placement.model import ClusterName, FenceStrength
from storage.blob import BlobEffect

SWEEP_EVERY_S: Final = 1.0  # all waits here are tens of seconds; a second more is no matter
ORDERED_FENCE_S: Final = 30.0  # how long an operator's fence order stands: a few lease reads
UNGUARDED_PODS_PER_S: Final = 10.0  # how fast an API server stops pods where no guard does (DESIGN §11, K)
ACTOR: Final = "muster:failover"


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether groups may be placed into a cluster now, and if not, why; as the engine's filters see it."""

    admitted: bool
    fenced: bool
    silent: bool
    stale: bool
    view_age_s: float


class Failover:
    """One replica's share in failover. Knows no clusters but those of the state it is shown."""

    def __init__(self, timings: Timings, leases: Leases, views: Views) -> None:
        self.claims = ClaimBook()
        self._heard = Heard(leases, views, self.claims)
        self._timings = timings
        self._leases = leases
        self._views = views
        self._leading = False
        self._fence_seen_s: dict[ClusterName, float] = {}  # the leader's own sight of the present fence's record
        self._ordered_until_s: dict[ClusterName, float] = {}
        self.proposals_due = False
        self.brake = Brake.OFF
        self.due_s = float("inf")  # next sweep

    # --- what happened ---

    def lead(self, state: State, now_s: float) -> None:
        """A take-over restarts K: this leader has waited for nothing yet."""
        self._leading = True
        self._fence_seen_s = {row.name: now_s for row in state.clusters.values() if not row.admitted}
        self.due_s = now_s

    def follow(self) -> None:
        self._leading = False
        self._ordered_until_s.clear()
        self.claims.clear()
        self.proposals_due = False
        self.due_s = float("inf")

    def fence_folded(self, cluster: str, now_s: float) -> None:
        """The record of a fence is in the state: K counts from here."""
        self._fence_seen_s[ClusterName(cluster)] = now_s
        self.poke(now_s)

    def poke(self, now_s: float) -> None:
        """Something changed that may matter: sweep now."""
        if self._leading:
            self.due_s = min(self.due_s, now_s)

    def order_fence(self, cluster: ClusterName, now_s: float) -> None:
        """An operator vouches that the cluster is dead: fence it without waiting for its whole window."""
        if cluster not in self._ordered_until_s:  # the request is judged again at every event until the fence stands
            self._ordered_until_s[cluster] = now_s + ORDERED_FENCE_S
            self.poke(now_s)

    def order_expired(self, cluster: ClusterName, now_s: float) -> bool:
        return now_s >= self._ordered_until_s.get(cluster, float("inf"))

    def forget(self, cluster: str) -> None:
        """It is no part of the fleet any more."""
        self.forget_order(cluster)
        self._fence_seen_s.pop(ClusterName(cluster), None)

    def forget_order(self, cluster: str) -> None:
        self._ordered_until_s.pop(ClusterName(cluster), None)

    # --- gates ---

    def gate(self, row: ClusterRow, now_s: float) -> Gate:
        """Nothing is placed before the swap that follows `ClusterAdmitted` is known done, nor where nobody listens."""
        view = self._views.get(row.name)
        body = self._leases.body(row.name)
        opened = (
            row.admitted
            and body is not None
            and body.state == LeaseState.ACTIVE
            and body.epoch == row.admitted_epoch
            and body.floor == row.admitted_at
        )
        listening = view is not None and view.live and view.epoch == row.admitted_epoch
        return Gate(
            admitted=opened and listening,
            fenced=row.fenced_epoch > row.admitted_epoch > 0,
            silent=self._views.silent(row.name, now_s),
            stale=self._views.stale(row.name, now_s),
            view_age_s=self._views.age_s(row.name, now_s),
        )

    def still_heard(self, cluster: ClusterName, now_s: float) -> bool:
        """Whether there are signs of life: heartbeats, or renewals of an Active lease."""
        body = self._leases.body(cluster)
        renewed = (
            body is not None
            and body.state == LeaseState.ACTIVE
            and self._leases.silence_s(cluster) < self._timings.silent_after_s
        )
        return renewed or not self._views.silent(cluster, now_s)

    # --- the leader's sweep: leases ---

    def sweep(self, state: State, now_s: float) -> list[BlobEffect]:
        """Set the brake, then bring every lease one step on; the records are `proposals`."""
        if not self._leading or now_s < self.due_s:
            return []
        self.due_s = now_s + SWEEP_EVERY_S
        self.proposals_due = True
        self.brake = self._brake(state, now_s)
        lost = {lease.cluster for lease in self._leases.lost()}
        effects: list[BlobEffect] = []
        for row in state.clusters.values():
            if not self._leases.busy(row.name):
                effects += self._advance_lease(row, now_s, lost=row.name in lost)
        return effects

    def _advance_lease(self, row: ClusterRow, now_s: float, *, lost: bool) -> list[BlobEffect]:
        body = self._leases.body(row.name)
        if body is None:
            return self._create_lease(row, now_s) if self._leases.look(row.name) is Look.ABSENT else []
        if self._fence_ordered(row, now_s):
            return self._leases.fence(row.name, now_s)
        if body.state == LeaseState.ACTIVE:
            return self._leases.fence(row.name, now_s) if lost and self.brake < Brake.STOP else []
        if row.admitted and body.epoch == row.admitted_epoch:  # the record landed, its swap did not (or is not known)
            return self._leases.admit(row.name, row.admitted_at, now_s)
        if _of_another(row, body):
            return self._leases.vacate(row.name, now_s)
        if (epoch := self._known_to_agent(row, body, now_s)) > body.epoch:
            return self._leases.fence_above(row.name, epoch, now_s)
        return []

    def _known_to_agent(self, row: ClusterRow, body: LeaseBody, now_s: float) -> int:
        """The epoch that the agent of a fenced cluster has seen. A later one than its lease's is from a store that was
        lost, or from another fleet: it would never be admitted in an earlier one."""
        view = self._views.get(row.name)
        fenced = body.state == LeaseState.FENCED and body.epoch == row.fenced_epoch
        if not fenced or view is None or view.live or self._views.stale(row.name, now_s):
            return 0
        return view.epoch if view.epoch < COUNT_MAX else 0

    def _create_lease(self, row: ClusterRow, now_s: float) -> list[BlobEffect]:
        """The first lease of a cluster at once. One that vanished (which no store may do, A3) may still be counted on
        by its agent: a new one, Fenced, stands in its place no sooner than after the longest window there is."""
        if row.recovering:
            epoch = max(1, row.fenced_epoch, row.admitted_epoch)
            return self._leases.create_recovering(row.name, epoch, TTL_S_MAX, now_s)
        vanished = row.admitted
        if vanished and self._leases.absent_s(row.name) < self._timings.window_s(TTL_S_MAX):
            return []
        return self._leases.create_fenced(row.name, row.fenced_epoch + 1, self._timings.ttl_s, now_s)

    def _fence_ordered(self, row: ClusterRow, now_s: float) -> bool:
        """Also where the lease is Fenced but its admission is on record: a swap may be under way."""
        until_s = self._ordered_until_s.get(row.name)
        body = self._leases.body(row.name)
        if until_s is None or now_s >= until_s or body is None:
            return False
        return body.state == LeaseState.RECOVERING if row.recovering else body.epoch == row.admitted_epoch

    def _brake(self, state: State, now_s: float) -> Brake:
        members = [row for row in state.clusters.values() if row.admitted_epoch and not row.dead_at]
        silent_since_s = {
            row.name: now_s - self._views.silence_s(row.name, now_s)
            for row in members
            if self._views.silent(row.name, now_s)
        }
        return brake_for(
            silent_since_s,
            members=len(members),
            window_s=self._timings.window_s(self._timings.ttl_s),
            in_doubt=self._leases.mostly_unreadable(),
        )

    # --- the leader's sweep: records ---

    def proposals(self, state: State, now_s: float, *, at_ms: int) -> list[AnyRecord]:
        """The next record of each cluster that has one due, at most one each; looks once per sweep. O(clusters)."""
        if not self.proposals_due:
            return []
        self.proposals_due = False
        if state.recovering_since:
            fenced = [self._fenced(row, at_ms) for row in state.clusters.values()]
            news: list[AnyRecord] = [record for record in fenced if record is not None]
            return news or recovering.proposals(state, self._heard, now_s, at_ms=at_ms)
        found = (self._proposal(state, row, now_s, at_ms) for row in state.clusters.values())
        return [record for record in found if record is not None]

    def _proposal(self, state: State, row: ClusterRow, now_s: float, at_ms: int) -> AnyRecord | None:
        fenced = self._fenced(row, at_ms)
        if fenced is not None:
            return fenced
        if row.admitted or row.fenced_epoch == 0:
            return None
        waiting = [group for group in state.homes_in(row) if ends_with_fence(group)] if self._stops(row) else []
        if not waiting:
            return self._admission(state, row, now_s, at_ms)
        if self.brake is Brake.STOP:
            return None
        grace_s = min(group.grace_s for group in waiting)
        if now_s < self._fence_seen_s.setdefault(row.name, now_s) + self._fence_wait_s(row, grace_s, waiting):
            return None
        return FenceDone(actor=ACTOR, at_ms=at_ms, cluster=row.name, epoch=row.fenced_epoch, grace_s=grace_s)

    def _fenced(self, row: ClusterRow, at_ms: int) -> ClusterFenced | None:
        """A fence that is not on record yet."""
        body = self._leases.body(row.name)
        if body is not None and body.state == LeaseState.FENCED and body.epoch > row.fenced_epoch:
            return ClusterFenced(actor=ACTOR, at_ms=at_ms, cluster=row.name, epoch=body.epoch)
        return None

    def waiting_for(self, state: State, now_s: float) -> list[ClusterName]:
        """Clusters that a restored fleet waits for."""
        return recovering.waiting_for(state, self._heard, now_s)

    def claimed(self, state: State, ask: Claims, now: Instant) -> ClaimsAnswer:
        """Take what a cluster says of groups that a restored fleet lacks; the groups that it is asked for next."""
        cluster = ClusterName(ask.cluster)
        wanted = recovering.wanted_of(state, self._heard, cluster, limit=LIVE_TOKENS_MAX)
        self.claims.take(ask, frozenset(wanted), at_ms=now.wall_ms)
        if ask.groups:
            self.poke(now.mono_s)
        missing = recovering.wanted_of(state, self._heard, cluster, limit=CLAIMS_MAX)
        return ClaimsAnswer(ask_id=ask.ask_id, wanted=tuple(missing))

    def _stops(self, row: ClusterRow) -> bool:
        """Whether its pods surely stop by themselves. Of a cluster that nobody heard since the last restart only what
        its placements say is known: the effective policies, which were written when it was strong enough."""
        view = self._views.get(row.name)
        return view is None or view.fence_strength is FenceStrength.GUARD or row.accept_unguarded

    def _fence_wait_s(self, row: ClusterRow, grace_s: int, waiting: list[GroupRow]) -> float:
        """K for this grace."""
        wait_s = self._timings.fence_wait_s(grace_s)
        view = self._views.get(row.name)
        if view is not None and view.fence_strength is not FenceStrength.GUARD:
            wait_s += sum(group.request.pods for group in waiting) / UNGUARDED_PODS_PER_S
        return wait_s

    def _admission(self, state: State, row: ClusterRow, now_s: float, at_ms: int) -> AnyRecord | None:
        """(Re-)admit once the fence is complete and the agent, knowing it is fenced, shows only what is homed there."""
        view = self._views.get(row.name)
        body = self._leases.body(row.name)
        if view is None or body is None or self._views.stale(row.name, now_s):
            return None
        fenced_alike = body.state == LeaseState.FENCED and body.epoch == row.fenced_epoch == view.epoch
        if not fenced_alike or view.live or view.tokens is None or _of_another(row, body):
            return None
        if not view.tokens <= {str(group.home.token) for group in state.homes_in(row) if group.home is not None}:
            return None
        return ClusterAdmitted(actor=ACTOR, at_ms=at_ms, cluster=row.name, epoch=row.fenced_epoch)


def _of_another(row: ClusterRow, body: LeaseBody) -> bool:
    """Whether the lease was left by a cluster that was removed: who joined under its name may be another one, and would
    be refused as not the holder."""
    return row.admitted_epoch == 0 and body.state == LeaseState.FENCED and bool(body.holder_uid)
