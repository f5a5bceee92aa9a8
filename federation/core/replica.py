"""One federation server's whole core: events in, effects out. Composes the journal, the state and all that reads it.

The shell and the deterministic world drive the very same `handle`. Routing only: what is decided, is decided in
`admission`, `verdicts`, `failover` and `placer`.
"""

from __future__ import annotations

from typing import Final, assert_never

from federation.core.config import ReplicaConfig
from federation.core.desired import desired_of, spec_of
from federation.core.events import (
    AgentAsked,
    AnswerAgent,
    AnswerPerson,
    CallStore,
    Declined,
    HintArrived,
    Instant,
    PersonAsked,
    Refused,
    ReplicaEffect,
    ReplicaEvent,
    ReportArrived,
    Started,
    StoreAnswered,
    TellAgent,
    Tick,
)
from federation.core.formats import RECREATION, SPREAD, newest
from federation.core.ids import OWN_OPS_FROM
from federation.core.leases import lease_name
from federation.core.records import (
    UnreadableRecordError,
)
from federation.core.relay import RelayAnswer, RelayEffect, Sighting
from federation.core.replica_journal import JournalFollower
from federation.core.replica_parts import NEVER
from federation.core.shards import UnreadableShardError
from federation.core.snapshots import Written, told
from federation.core.state import FoldError
from federation.core.views import Taken
from federation.protocol.lease import RenewalResult
from federation.protocol.messages import (
    AgentAsk,
    Claims,
    DesiredAsk,
    Renewal,
    RenewalAnswer,
    Report,
    ReportWanted,
    SpecAsk,
    Verdict,
)
from storage.blob import BlobEvent, BlobGet, BlobRead
from storage.entry import batch_length, entry_name
from storage.errors import CorruptError, UnsupportedFormatError

PAUSE_S: Final = 2.0  # a wake-up this late means that the process stood still: what it did not see proves nothing

__all__ = ["Replica", "ReplicaConfig"]


class Replica(JournalFollower):
    """Attributes to read: `name`, `state`, `journal`, `role`, `leading`, `caught_up`, `wake_at_s`."""

    def _next_due_s(self) -> float:
        if self._halted:
            return NEVER
        due_s = min(self.journal.wake_at_s or NEVER, self.leases.due_s, self.failover.due_s, self.snapshots.due_s)
        due_s = min(due_s, self.tape.due_s)
        if self._restoring is not None:
            due_s = min(due_s, self._restoring.due_s)
        if self._leader is not None and self.journal.can_append:
            due_s = min(due_s, self._leader.drain_due_s, self._leader.look_due_s, self.snapshots.look_due_s)
            if self.state.pending or self.state.small:
                due_s = min(due_s, self.placer.due_s)
        return due_s

    def handle(self, event: ReplicaEvent, now: Instant) -> list[ReplicaEffect]:
        """Take one event. `Halt` as last effect: the journal cannot be followed further, and nothing more happens."""
        if self._halted:
            return []
        self._out = []
        self._notice_pause(now)
        self._now = now
        try:
            self._dispatch(event)
            if self._only_queued(event):
                return self._out
            self._proceed()
        except (CorruptError, UnsupportedFormatError, FoldError, UnreadableRecordError, UnreadableShardError) as error:
            self._halt(str(error))
        self._woken_by_s = self._next_due_s()
        return self._out

    def _only_queued(self, event: ReplicaEvent) -> bool:
        """Whether the event made nothing due: a request or verdict waits for the batch in flight, as most events of a
        busy leader do, and what time makes due is not due yet."""
        match event:
            case PersonAsked() | AgentAsked(ask=Verdict()):
                return self._now.mono_s < self._woken_by_s and not self.journal.can_append
            case _:
                return False

    # --- events ---

    def _dispatch(self, event: ReplicaEvent) -> None:  # noqa: PLR0912  one arm per kind of event
        now_s = self._now.mono_s
        match event:  # what most events are comes first: each pattern that fails costs
            case ReportArrived(principal, report):
                self._report(principal, report)
            case PersonAsked(ticket, request):
                if self._leader is None:
                    self._out.append(AnswerPerson(ticket, Declined(Refused.NOT_LEADER, self._leader_name)))
                else:
                    self._out += self._leader.ask(ticket, request)
            case AgentAsked(ticket, principal, ask):
                if principal != ask.cluster:
                    self._note("ask.wrong_principal", principal=principal, cluster=ask.cluster)
                else:
                    self._agent_asked(ticket, ask)
            case Started():
                self.journal = self._new_journal(wall_ms=self._now.wall_ms)
                self._follow_journal(self.journal.start(now_s))
            case Tick():
                pass
            case StoreAnswered(event=answer) if answer.op < OWN_OPS_FROM:
                self._follow_journal(self.journal.handle(answer, now_s))
            case StoreAnswered(event=answer) if self._relay.owns(answer.op):
                self._relayed(self._relay.handle(answer, now_s))
            case StoreAnswered(event=answer) if answer.op in self._looks:
                self._looked(answer)
            case StoreAnswered(event=answer) if self._restoring is not None and self._restoring.owns(answer.op):
                self._restore(self._restoring.handle(answer, now_s))
            case StoreAnswered(event=answer) if self.snapshots.owns(answer.op):
                self._call_store(self.snapshots.handle(answer, now_s), background=True)
                self._tell_of_snapshots()
            case StoreAnswered(event=answer) if self.tape.owns(answer.op):
                self._call_store(self.tape.handle(answer, now_s), background=True)
            case StoreAnswered(event=answer) if self.archiver.owns(answer.op):
                self._call_store(self.archiver.handle(answer, now_s), background=True)
                if self.archiver.trouble:
                    self._note("archive.trouble", why=self.archiver.trouble)
            case StoreAnswered(event=answer):
                effects, _, news = self.leases.handle(answer, now_s)
                self._call_store(effects)
                if news:
                    self._lease_news()
            case HintArrived(hint):
                self._follow_journal(self.journal.hint(hint.seq, now_s))
            case _:
                assert_never(event)

    def _agent_asked(self, ticket: int, ask: AgentAsk) -> None:
        match ask:
            case Renewal():
                if not self.state.lineage:
                    answer = RenewalAnswer(ask_id=ask.ask_id, result=RenewalResult.UNAVAILABLE)
                    self._out.append(AnswerAgent(ticket, answer))
                    return
                name = lease_name(self.state.lineage, ask.cluster)
                self._relayed(self._relay.ask(ticket, ask, name, self._now.mono_s))
            case DesiredAsk():
                if self.caught_up and not self.state.recovering_since:  # it is not known what should run
                    self._out += [AnswerAgent(ticket, part) for part in desired_of(self.state, ask)]
            case SpecAsk():
                if self.caught_up:
                    self._out.append(AnswerAgent(ticket, spec_of(self.state, ask)))
            case Verdict():
                if self._leader is not None and not self.state.recovering_since:
                    self._leader.tell(ticket, ask)
            case Claims():
                if self._leader is not None:
                    self._out.append(AnswerAgent(ticket, self.failover.claimed(self.state, ask, self._now)))
            case _:
                assert_never(ask)

    def _report(self, principal: str, report: Report) -> None:
        row = self.state.cluster(report.cluster)
        told_before = bool(self.state.recovering_since) and report.lineage < self.state.lineage  # of what it holds
        if principal != report.cluster or row is None or not (report.lineage == self.state.lineage or told_before):
            self._note("report.set_aside", principal=principal, cluster=report.cluster, lineage=report.lineage)
            return
        now_s = self._now.mono_s
        before = self.failover.gate(row, now_s) if self._leader is not None else None
        taken = self.views.take(report, now_s)
        if taken is Taken.MALFORMED:
            self._note("report.malformed", cluster=report.cluster)
        if taken in {Taken.MALFORMED, Taken.NOT_FOLLOWING} and self.views.wants_full(row.name, now_s):
            self._out.append(TellAgent(row.name, ReportWanted(cluster=row.name)))
        view = self.views.get(row.name)
        if taken is not Taken.ACCEPTED or view is None or before is None:
            return
        if not view.live:
            self.failover.poke(now_s)
        after = self.failover.gate(row, now_s)
        if (before.admitted, before.silent, before.stale) != (after.admitted, after.silent, after.stale):
            self.placer.poke(now_s)
        elif view.rows_stamp == report.stamp or view.roomy:
            self.placer.poke_soon(now_s)

    def _relayed(self, effects: list[RelayEffect]) -> None:
        for effect in effects:
            match effect:
                case RelayAnswer(ticket, answer):
                    self._out.append(AnswerAgent(ticket, answer))
                case Sighting(body, version, asked_at_s):
                    now_s = self._now.mono_s
                    if self.leases.saw(body, version, asked_at_s=asked_at_s, now_s=now_s):
                        self._lease_news()
                case _:
                    self._out.append(CallStore(effect))

    def _lease_news(self) -> None:
        self.failover.poke(self._now.mono_s)
        self.placer.poke(self._now.mono_s)

    def _notice_pause(self, now: Instant) -> None:
        if now.mono_s > self._woken_by_s + PAUSE_S:
            self.leases.was_paused(now.mono_s)
            self.views.was_paused(now.mono_s)

    # --- what is due ---

    def _proceed(self) -> None:
        """After each event: what time has made due, and the next batch if there is something for it."""
        now_s = self._now.mono_s
        if self._restoring is not None:
            self._restore(self._restoring.tick(now_s))
        self._follow_journal(self.journal.tick(now_s))
        if self._halted:
            return
        if self.journal.format > self._format:
            self._format = self.journal.format
            self._note("format.raised", format=str(self._format))
        if now_s >= self.leases.due_s:
            self._call_store(self.leases.read_due(self.state.clusters, now_s))
        self.failover.claims.open = self.leading and self.journal.format >= RECREATION
        self.failover.claims.children_open = self.journal.format >= SPREAD
        if now_s >= self.failover.due_s:
            self._call_store(self.failover.sweep(self.state, now_s))
        if self.failover.brake is not self._brake:
            self._brake = self.failover.brake
            self._note("brake.set", level=self._brake.name.lower())
            self.placer.poke(now_s)
        if self._leader is not None and self.journal.can_append and self._leader.has_work(self.state, now_s):
            batch = self._leader.form(self.state, self._now, store_format=self.journal.format)
            if batch.records:
                assert batch_length(batch.encoded) == len(batch.encoded)
                assert newest(batch.records) <= self.journal.format
                self._follow_journal(self.journal.append(batch.encoded, now_s))
        self._take_snapshot(now_s)
        self._call_store(self.archiver.tick(self.state, now_s, store_format=self.journal.format), background=True)
        if self._leader is not None and self.journal.can_append and self._leader.wants_look(now_s):
            self._leader.look_begins()
            look = self._ids.op()
            self._looks[look] = self._leader
            self._call_store([BlobGet(look, entry_name(self.journal.next_seq))])
        self._out += self.tape.tick(now_s)

    def _take_snapshot(self, now_s: float) -> None:
        """Begin one where it is due and no entry is in flight, and take the one under way a step on."""
        if self.journal.can_append:
            if not self.state.recovering_since and self.snapshots.wants(self.state, now_s):
                begun = self.snapshots.begin(self.state, self.journal.tail, now_s, store_format=self.journal.format)
                self._call_store(begun, background=True)
            self.snapshots.look_again(now_s)
        if now_s >= self.snapshots.due_s:
            self._call_store(self.snapshots.tick(now_s), background=True)
            self._tell_of_snapshots()

    def _tell_of_snapshots(self) -> None:
        outcomes, self.snapshots.outcomes = self.snapshots.outcomes, []
        for outcome in outcomes:
            event, fields = told(outcome)
            self._note(event, **fields)
            if isinstance(outcome, Written):
                now = self._now
                taped = self.tape.snapshot_taken(outcome.pointer, outcome.refs, now.mono_s, now.wall_ms)
                self._call_store(taped, background=True)

    def _looked(self, answer: BlobEvent) -> None:
        """Nobody has written beyond our last entry: at the time of the look nobody else had led."""
        asker = self._looks.pop(answer.op)
        if asker is self._leader:
            alone = isinstance(answer, BlobRead) and answer.blob is None
            self._out += asker.looked(self._now.mono_s, alone=alone)
