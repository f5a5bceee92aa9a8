"""Lease rules, pure, for the three who touch a lease: the agent that holds it, the relay that writes its renewals and
the observer that measures silence (DESIGN §9 "Fence", §11.1). Who may fence or admit is decided elsewhere.

The one inequality behind it: the agent's deadline counts from *before* a renewal was sent, the observer's window from
*after* it saw that renewal, and windows are longer than deadlines by the assumed clock rate error (A1).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum, unique
from typing import Final

import msgspec

from federation.protocol.messages import LeaseBody, Renewal, RenewalAnswer

CLOCK_RATE_FACTOR: Final = 1.04  # A1: two clocks of < 2 % error each drift apart by at most 4 %
FORMAT_UNDERSTOOD: Final = 5  # of a store: agents of this version know what came with it, and say so
RENEWALS_PENDING_MAX: Final = 16  # unanswered renewals an agent remembers; older answers are ignored
TTL_S_MAX: Final = 3_600.0  # `muster hold` may lengthen up to this


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Every duration of the failure protocol, so that drills and demos may scale them together (DESIGN §11)."""

    ttl_s: float = 60.0
    renewals_per_ttl: int = 6
    heartbeat_s: float = 5.0
    silent_after_s: float = 15.0
    view_stale_s: float = 30.0
    fence_margin_s: float = 10.0  # the constant part of K with guard
    undo_s: float = 60.0  # T_undo
    undo_grace_s: float = 20.0
    desired_poll_s: float = 10.0
    ask_timeout_s: float = 4.0
    report_full_s: float = 60.0
    local_lease_s: float = 10.0  # the agent's lease in its own cluster: who of several replicas acts
    bind_deadline_s: float = 120.0  # from intent to all bound
    lease_read_s: float = 5.0  # how often replicas read leases

    @property
    def renew_s(self) -> float:
        """R."""
        return self.ttl_s / self.renewals_per_ttl

    def window_s(self, ttl_s: float) -> float:
        """W for a lease of this TTL."""
        return ttl_s * CLOCK_RATE_FACTOR + ttl_s / self.renewals_per_ttl

    def fence_wait_s(self, grace_s: float) -> float:
        """K for groups of this grace in a guarded cluster."""
        return CLOCK_RATE_FACTOR * grace_s + self.fence_margin_s


@unique
class LeaseState(StrEnum):
    ACTIVE = "Active"
    FENCED = "Fenced"
    RECOVERING = "Recovering"  # after a restore: what runs may go on, nothing may start


@unique
class RenewalResult(StrEnum):
    RENEWED = "renewed"
    STALE = "stale"
    FENCED = "fenced"
    UNAVAILABLE = "unavailable"
    WRONG_HOLDER = "wrong-holder"


# --- relay -----------------------------------------------------------------------------------------------------------


def apply_renewal(body: LeaseBody, renewal: Renewal, *, nonce: str) -> LeaseBody | RenewalResult:
    """The body a relay has to write for this renewal, or the answer that needs no write.

    Never turns Fenced into Active: only the leader admits.
    """
    if body.holder_uid and body.holder_uid != renewal.holder_uid:
        return RenewalResult.WRONG_HOLDER
    if body.state not in {LeaseState.ACTIVE, LeaseState.RECOVERING}:
        return RenewalResult.FENCED
    if body.state == LeaseState.RECOVERING and renewal.epoch > body.epoch:
        body = msgspec.structs.replace(body, epoch=renewal.epoch, renew_seq=-1)  # the agent knows what the backup lacks
    if renewal.epoch != body.epoch or renewal.renew_seq < body.renew_seq:
        return RenewalResult.STALE
    if renewal.renew_seq == body.renew_seq:
        same = renewal.nonce == body.renewal_nonce
        return RenewalResult.RENEWED if same else RenewalResult.STALE
    return msgspec.structs.replace(
        body,
        renew_seq=renewal.renew_seq,
        ttl_s=min(renewal.ttl_s, TTL_S_MAX),
        holder_uid=renewal.holder_uid,
        holder_boot=renewal.holder_boot,
        renewal_nonce=renewal.nonce,
        nonce=nonce,
        understands=renewal.understands,
    )


# --- agent -----------------------------------------------------------------------------------------------------------


@unique
class LeaseNews(Enum):
    """What an answer meant to the agent."""

    NOTHING = "nothing"
    RENEWED = "renewed"
    FENCED = "fenced"
    WRONG_HOLDER = "wrong-holder"


@dataclass(slots=True)
class AgentLease:
    """The agent's side of its cluster's lease. Starts with no deadline: it may start nothing."""

    cluster: str
    holder_uid: str
    holder_boot: str
    ttl_s: float
    started_at_s: float
    epoch: int = 0
    floor: int = 0
    renew_seq: int = 0
    deadline_s: float | None = None
    recovering: bool = False  # the fleet was restored from a backup: start nothing until it has heard what is here
    recovers: str = ""  # and its lineage; empty where a server of an older version renewed
    _active_seq: int = -1  # the last of ours that an Active lease took
    _sent_at_s: dict[int, float] = field(default_factory=dict)
    _remainder_until_s: float = 0.0  # what an earlier boot may still hold or have told a guard

    def live(self, now_s: float) -> bool:
        return self.deadline_s is not None and now_s < self.deadline_s

    def remaining_s(self, now_s: float) -> float:
        """Time until the deadline; 0 when there is none or it has passed."""
        return max(0.0, self.deadline_s - now_s) if self.deadline_s is not None else 0.0

    def renew(self, now_s: float, *, nonce: str, ask_id: int) -> Renewal:
        """The next renewal; the deadline it may bring counts from `now_s`, before it is sent."""
        self.renew_seq += 1
        self._sent_at_s[ask_id] = now_s
        while len(self._sent_at_s) > RENEWALS_PENDING_MAX:
            del self._sent_at_s[min(self._sent_at_s)]
        longest = max(self.remaining_s(now_s), self._remainder_until_s - now_s)
        return Renewal(
            ask_id=ask_id,
            cluster=self.cluster,
            epoch=self.epoch,
            renew_seq=self.renew_seq,
            ttl_s=max(self.ttl_s, longest),
            holder_uid=self.holder_uid,
            holder_boot=self.holder_boot,
            nonce=nonce,
            understands=FORMAT_UNDERSTOOD,
        )

    def answered(self, answer: RenewalAnswer) -> LeaseNews:
        """Take an answer from either path; repeats and late ones are harmless."""
        sent_at_s = self._sent_at_s.get(answer.ask_id)
        if sent_at_s is None or answer.body is None:
            return LeaseNews.NOTHING
        body = answer.body
        match answer.result:
            case RenewalResult.WRONG_HOLDER:
                self.deadline_s = None
                return LeaseNews.WRONG_HOLDER
            case RenewalResult.FENCED if body.epoch >= self.epoch:
                return self._fenced(body)
            case RenewalResult.STALE if body.epoch >= self.epoch:
                self._follow(body)
                return LeaseNews.NOTHING
            case RenewalResult.RENEWED if body.epoch == self.epoch and self._counts(body):
                return self._renewed(body, sent_at_s)
            case _:
                return LeaseNews.NOTHING

    def _counts(self, body: LeaseBody) -> bool:
        """Not a late answer from before the admission; and while the fleet recovers, not that of a server from before
        the restore: only the admission raises the floor."""
        if body.state == LeaseState.RECOVERING:
            return body.renew_seq > self._active_seq
        return not self.recovering or body.floor > self.floor

    def _renewed(self, body: LeaseBody, sent_at_s: float) -> LeaseNews:
        self.recovering = body.state == LeaseState.RECOVERING
        self.recovers = body.lineage if self.recovering else ""
        if not self.recovering:
            self._active_seq = max(self._active_seq, body.renew_seq)
        self.floor = max(self.floor, body.floor)
        deadline_s = sent_at_s + self.ttl_s
        self.deadline_s = max(self.deadline_s or deadline_s, deadline_s)
        return LeaseNews.RENEWED

    def _fenced(self, body: LeaseBody) -> LeaseNews:
        news = LeaseNews.FENCED if self.deadline_s is not None or body.epoch > self.epoch else LeaseNews.NOTHING
        self.recovering, self.recovers = False, ""
        self.epoch = body.epoch
        self.renew_seq = max(self.renew_seq, body.renew_seq)
        self.deadline_s = None
        return news

    def _follow(self, body: LeaseBody) -> None:
        """Continue another boot's numbers, or a new epoch's after an admission that this boot has not seen."""
        if body.epoch > self.epoch:
            self.deadline_s = None
        self.epoch = body.epoch
        self.renew_seq = max(self.renew_seq, body.renew_seq)
        if body.holder_boot and body.holder_boot != self.holder_boot:
            self._remainder_until_s = max(self._remainder_until_s, self.started_at_s + body.ttl_s)


# --- observer --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LostLease:
    """An Active lease whose silence was measured against exactly this version of it."""

    cluster: str
    version: str
    body: LeaseBody


@dataclass(slots=True)
class _Sighting:
    body: LeaseBody
    version: str
    since_s: float  # when this renew_seq was first seen here, after the read completed
    confirmed_s: float  # when the latest read that still showed it was sent


@dataclass(slots=True)
class LeaseObserver:
    """Counts only locally observed changes of `renew_seq` (as client-go's leader election does) and starts its window
    anew whenever it could not look itself."""

    timings: Timings
    _seen: dict[str, _Sighting] = field(default_factory=dict)

    def saw(self, body: LeaseBody, version: str, *, asked_at_s: float, now_s: float) -> None:
        before = self._seen.get(body.cluster)
        if before is None or (before.body.renew_seq, before.body.epoch, before.body.state) != (
            body.renew_seq,
            body.epoch,
            body.state,
        ):
            self._seen[body.cluster] = _Sighting(body, version, now_s, now_s)
            return
        before.body = body
        before.version = version
        before.confirmed_s = max(before.confirmed_s, asked_at_s)

    def could_not_look(self, cluster: str, now_s: float) -> None:
        """A read of this lease failed: its window starts anew."""
        if (sighting := self._seen.get(cluster)) is not None:
            sighting.since_s = sighting.confirmed_s = now_s

    def was_paused(self, now_s: float) -> None:
        """This process did not run for a while: all windows start anew."""
        for sighting in self._seen.values():
            sighting.since_s = sighting.confirmed_s = now_s

    def forget(self, cluster: str) -> None:
        self._seen.pop(cluster, None)

    def body(self, cluster: str) -> LeaseBody | None:
        sighting = self._seen.get(cluster)
        return sighting.body if sighting else None

    def version(self, cluster: str) -> str | None:
        sighting = self._seen.get(cluster)
        return sighting.version if sighting else None

    def lost(self) -> list[LostLease]:
        """Active leases silent for their whole window W, by name."""
        return [
            LostLease(cluster, sighting.version, sighting.body)
            for cluster, sighting in sorted(self._seen.items())
            if sighting.body.state == LeaseState.ACTIVE
            and sighting.confirmed_s - sighting.since_s >= self.timings.window_s(sighting.body.ttl_s)
        ]

    def silence_s(self, cluster: str) -> float:
        """How long no renewal was seen, as far as looks confirm it."""
        sighting = self._seen.get(cluster)
        return sighting.confirmed_s - sighting.since_s if sighting else 0.0
