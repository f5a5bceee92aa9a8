"""Planted bugs: each breaks one rule of the product by replacing one function while a seed runs.

The product ships none of this. A mutant that is not caught says that the world is too mild, never that the bug is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from cluster_agents.core import intake
from cluster_agents.core.binding import Gang
from cluster_agents.core.desired import Desired
from cluster_agents.core.fence import Fence
from cluster_agents.core.guard import Guard
from cluster_agents.core.hands import Hands
from cluster_agents.core.ledger import Ledger, Page
from cluster_agents.core.reconcile import Reconciler
from cluster_agents.core.resizing import Resizing
from cluster_agents.core.stages import Stage
from federation.cli.store import restoring
from federation.core import poison, recovering, relay
from federation.core.breaker import CLOSED, Breakers
from federation.core.claims import Unfit, Why
from federation.core.dump import Dump
from federation.core.leader import Leader
from federation.core.placer import Placer
from federation.core.records import ChildOf, Placed
from federation.core.recovering import Heard
from federation.core.rows import ClusterRow, GroupRow, Intent
from federation.core.state import State
from federation.core.views import Taken, Views
from federation.protocol.lease import AgentLease, LeaseNews, LeaseState, RenewalResult, Timings, apply_renewal
from federation.protocol.messages import LeaseBody, Renewal, RenewalAnswer, Report
from placement import trial
from placement.filters import refused_lately
from placement.spread import sized
from storage.blob import Outcome
from storage.journal import Journal, JournalEffect

Patch = tuple[Any, str, Any]  # where, name, what stands there instead
Mutant = Callable[[], list[Patch]]

MUTANTS: Final[dict[str, Mutant]] = {}


def mutant(make: Mutant) -> Mutant:
    MUTANTS[make.__name__] = make
    return make


AFTER_A_RESTORE: Final = frozenset(
    {
        "late_recovering_answer_counts",
        "later_groups_are_stopped",
        "recovery_hears_nobody_out",
        "report_from_before_counts",
        "restore_repeats_numbers",
    }
)
"""Those that show in no seed without a restore."""


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The product with this bug ("" for none) inside the block, and without it afterwards."""
    patches = MUTANTS[name]() if name else []
    before = [(where, attribute, getattr(where, attribute)) for where, attribute, _ in patches]
    for where, attribute, instead in patches:
        setattr(where, attribute, instead)
    try:
        yield
    finally:
        for where, attribute, original in before:
            setattr(where, attribute, original)


# --- leases and fences -----------------------------------------------------------------------------------------------


@mutant
def no_fence_wait() -> list[Patch]:
    """Homes in a fenced cluster end at once, while its containers still stop."""
    return [(Timings, "fence_wait_s", lambda self, grace_s: 0.0)]


@mutant
def no_guard() -> list[Patch]:
    """The guard never stops anything: a dead or paused agent's containers run on."""
    return [
        (Guard, "fences_at_s", property(lambda self: float("inf"))),
        (Guard, "may_start", lambda self, token, now_s: True),
    ]


@mutant
def relay_readmits() -> list[Patch]:
    """A relay turns a Fenced lease into an Active one when the agent renews it."""

    def readmits(body: LeaseBody, renewal: Renewal, *, nonce: str) -> LeaseBody | RenewalResult:
        if body.state == LeaseState.FENCED and body.renew_seq:
            body = msgspec.structs.replace(body, state=LeaseState.ACTIVE)
        return apply_renewal(body, renewal, nonce=nonce)

    return [(relay, "apply_renewal", readmits)]


@mutant
def deadline_from_reply() -> list[Patch]:
    """The agent's deadline counts from the answer to a renewal, and an answer may take as long as it likes."""
    original = Fence.answered

    def answered(self: Fence, answer: RenewalAnswer, now_s: float) -> LeaseNews:
        sent_at_s = self.lease._sent_at_s
        if answer.ask_id in sent_at_s:
            sent_at_s[answer.ask_id] = now_s
        return original(self, answer, now_s)

    return [(Fence, "answered", answered)]


@mutant
def restart_gives_ttl() -> list[Patch]:
    """A restarted agent gives itself now + TTL."""
    original = Fence.__init__

    def init(self: Fence, *args: Any, now_s: float, **more: Any) -> None:
        original(self, *args, now_s=now_s, **more)
        self.lease.deadline_s = now_s + self.lease.ttl_s

    return [(Fence, "__init__", init)]


@mutant
def move_when_silent() -> list[Patch]:
    """Nobody checks that a group has no home: what is homed in a silent cluster is placed again at once."""
    place, placed = Placer.place, State._placed

    def place_again(self: Placer, state: State, batch: Any, now_s: float, *, at_ms: int) -> list[Any]:
        records = place(self, state, batch, now_s, at_ms=at_ms)
        silent = [row for row in state.clusters.values() if self._views.silent(row.name, now_s)]
        opened = [row for row in state.clusters.values() if row.admitted and row not in silent]
        targets = [(row.name, view) for row in opened if (view := self._views.get(row.name)) is not None and view.live]
        for home in [home for row in silent for home in state.homes_in(row)]:
            free = home.intent is Intent.RUN and not batch.changes("group", home.uid)
            if targets and home.effective_policy is not None and free:
                target, stamp = targets[0][0], targets[0][1].stamp
                again = Placed(
                    at_ms=at_ms,
                    uid=home.uid,
                    cluster=target,
                    effective_policy=home.effective_policy,
                    stamp=(target, stamp.boot, stamp.seq),
                )
                records.append((again,))
        return records

    def forgets(self: State, position: Any, record: Placed) -> None:
        row = self.group(record.uid)
        if row is not None and row.home is not None:
            self._displace(position, row, record)
        placed(self, position, record)

    return [(Placer, "place", place_again), (State, "_placed", forgets)]


# --- the home rule in the agent --------------------------------------------------------------------------------------


@mutant
def floor_ignored() -> list[Patch]:
    """The agent acts on answers from before its re-admission."""

    def counts(self: Reconciler) -> bool:
        landed = self._ledger.landed_in(self._desired.lineage)
        return self._desired.complete and self._desired.as_of >= landed

    return [(Reconciler, "_answers_count", counts)]


@mutant
def ledger_drop_without_landed() -> list[Patch]:
    """The write that drops a give-up from the ledger leaves `landed` as it was."""
    original = Ledger._next_page

    def next_page(self: Ledger) -> Page:
        return msgspec.structs.replace(original(self), landed=self._page.landed, lineage=self._page.lineage)

    return [(Ledger, "_next_page", next_page)]


@mutant
def verdict_not_final() -> list[Patch]:
    """A give-up is forgotten once it was sent: while it has not landed, the token is accepted again."""

    def tell_the_end(self: Gang, hands: Hands) -> None:
        assert self.entry is not None
        self._teller.tell(hands, self.entry.verdict, entry=self.entry)
        hands.ledger.drop(self.token, self.parsed.lineage, 0, hands.now_s)
        self.stage = Stage.CLEANING

    def forget(self: Desired, token: str) -> None:
        self.complete = False
        self.look()

    return [(Gang, "_tell_the_end", tell_the_end), (Desired, "forget", forget)]


@mutant
def verdict_before_containers_end() -> list[Patch]:
    """The give-up is sent as soon as the pods are being deleted."""

    def undo(self: Gang, hands: Hands) -> None:
        self._undo_pods(hands)
        self.stage = Stage.ENDED
        self._release_holdings(hands)

    return [(Gang, "_undo", undo)]


@mutant
def no_undo() -> list[Patch]:
    """A gang that could not be bound whole is reported as refused and left as it is."""

    def undo(self: Gang, hands: Hands) -> None:
        self.stage = Stage.ENDED
        self._release_holdings(hands)

    return [(Gang, "_undo", undo), (Gang, "_undo_pods", lambda self, hands: None)]


@mutant
def unknown_is_failed() -> list[Patch]:
    """A journal write of unknown outcome counts as failed: its records are written again under the next number."""
    original = Journal._written

    def written(self: Journal, outcome: Outcome, now_s: float) -> list[JournalEffect]:
        own = self._own
        if outcome is not Outcome.UNKNOWN or own is None:
            return original(self, outcome, now_s)
        self._next_seq += 1
        return [self._write(own.decoded.header.kind, own.decoded.header.term, own.decoded.records, now_s)]

    return [(Journal, "_written", written)]


# --- capacity --------------------------------------------------------------------------------------------------------


@mutant
def applied_early() -> list[Patch]:
    """Reports claim to show groups that the agent has not decided yet."""
    return [(Reconciler, "_applied", lambda self: int(self._desired.as_of))]


@mutant
def stale_report_accepted() -> list[Patch]:
    """A report counts whatever came before it."""
    original = Views.take

    def take(self: Views, report: Report, now_s: float) -> Taken:
        heard = self._heard.get(report.cluster)  # type: ignore[call-overload]
        if heard is not None:
            heard.stamp = None
        return original(self, report, now_s)

    return [(Views, "take", take)]


@mutant
def nodes_free_before_pods_have_left() -> list[Patch]:
    """S6, S4: what leaves a gang is forgotten, and its nodes given away, while its containers still stop."""
    return [(Resizing, "_gone", lambda self, hands: True)]


@mutant
def resize_holds_and_frees_nothing() -> list[Patch]:
    """S4, L2: nodes of pods that join are not held, and those of pods that left are never free again."""

    def hold_nothing(self: Resizing, holdings: Any, hands: Hands) -> None:
        del self, holdings, hands

    return [(Resizing, "_rehold", hold_nothing)]


# --- after a restore -------------------------------------------------------------------------------------------------


@mutant
def recovery_hears_nobody_out() -> list[Patch]:
    """A cluster counts as heard as soon as its agent has renewed: what it has not told yet, it does not hold."""

    def told(row: ClusterRow, heard: Heard, lineage: str, now_s: float) -> Mapping[str, str] | None:
        body, view = heard.leases.body(row.name), heard.views.get(row.name)
        if body is None or body.state != LeaseState.RECOVERING or not body.renewal_nonce:
            return None
        return view.groups if view is not None and view.tokens is not None else {}

    return [(recovering, "_told", told)]


@mutant
def report_from_before_counts() -> list[Patch]:
    """What an agent said when its old lease had run out is taken for its word to the fleet that recovers."""
    return [(recovering, "_made_under", lambda view, lineage: True)]


@mutant
def later_groups_are_stopped() -> list[Patch]:
    """Groups that the backup lacks are not made again from what their clusters kept."""

    def recreated(*_: Any, **__: Any) -> Unfit:
        return Unfit(Why.NO_RECORD, "planted")

    return [(recovering, "recreated", recreated)]


@mutant
def late_recovering_answer_counts() -> list[Patch]:
    """An agent that was admitted goes back to recovering by a late answer, for ever."""

    def counts(self: AgentLease, body: LeaseBody) -> bool:
        return body.state == LeaseState.RECOVERING or not self.recovering or body.floor > self.floor

    return [(AgentLease, "_counts", counts)]


@mutant
def restore_repeats_numbers() -> list[Patch]:
    """The restored journal goes on with the numbers that were lost."""
    return [(restoring, "SEQ_JUMP", 0), (restoring, "SEQ_PER_MS", 0)]


# --- sizes ------------------------------------------------------------------------------------------------------------


@mutant
def agent_takes_all_pods_whatever_was_placed() -> list[Patch]:
    """S6: an elastic group that was placed with some of its pods is bound with all of them where they fit."""
    return [(intake, "with_counts", lambda request, _counts: request)]


# --- what fails again and again --------------------------------------------------------------------------------------


@mutant
def breaker_never_opens() -> list[Patch]:
    """L5: a cluster that fails whatever it gets goes on getting it."""
    return [(Breakers, "stand", lambda self, state, cluster, now_s: CLOSED)]


@mutant
def poison_is_tried_for_ever() -> list[Patch]:
    """L5: nobody counts what a group lost."""
    return [(Leader, "_quarantines", lambda self, state, now, store_format: [])]


@mutant
def poison_goes_everywhere() -> list[Patch]:
    """L5: a group that failed in three clusters goes to a fourth."""
    return [(poison, "CLUSTERS_MAX", 1_000)]


# --- spread groups ----------------------------------------------------------------------------------------------------


@mutant
def beside_a_sibling() -> list[Patch]:
    """S1 for a service: nobody keeps the children of a spread group apart, not even the fold."""

    def settled(self: State, _position: Any, record: Placed, row: GroupRow, child: ChildOf) -> None:
        if not child.share:
            share = record.counts[0] if record.counts else row.request.pods
            row.child = msgspec.structs.replace(child, share=share)
            row.request, row.charge = self.class_of(sized(row.request, share))

    return [(trial, "OF_THE_GROUP", (refused_lately,)), (State, "_place_child", settled)]


# --- snapshots --------------------------------------------------------------------------------------------------------


@mutant
def torn_snapshot() -> list[Patch]:
    """S12: a snapshot holds groups as they are when their turn comes, not as they were when it was begun."""
    return [(Dump, "group_changes", lambda self, row: None)]
