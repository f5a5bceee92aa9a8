"""One federation server's whole core: events in, effects out. Composes the journal, the state and all that reads it.

The shell and the deterministic world drive the very same `handle`. Routing only: what is decided, is decided in
`admission`, `verdicts`, `failover` and `placer`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final, assert_never

from federation.core.archiver import Archiver
from federation.core.brake import Brake
from federation.core.config import ReplicaConfig
from federation.core.desired import desired_of, spec_of
from federation.core.doorbells import doorbells
from federation.core.events import (
    AgentAsked,
    AnswerAgent,
    AnswerPerson,
    CallStore,
    Declined,
    EntryFolded,
    Halt,
    HintArrived,
    Instant,
    Note,
    PersonAsked,
    Refused,
    ReplicaEffect,
    ReplicaEvent,
    ReportArrived,
    Started,
    StateLoaded,
    StoreAnswered,
    TellAgent,
    TellReplicas,
    Tick,
)
from federation.core.failover import Failover
from federation.core.formats import RECREATION, SPREAD, newest
from federation.core.ids import OWN_OPS_FROM, Ids
from federation.core.leader import Leader
from federation.core.leases import Leases, lease_name
from federation.core.lineup import ahead_of
from federation.core.placer import Placer
from federation.core.placing import quotas_of
from federation.core.records import (
    AnyRecord,
    Bound,
    ClusterFenced,
    ClusterJoined,
    GaveUp,
    IntentSet,
    Placed,
    Recovered,
    Running,
    Sized,
    Submitted,
    SubmittedChild,
    UnreadableRecordError,
    decode_records,
)
from federation.core.relay import Relay, RelayAnswer, RelayEffect, Sighting
from federation.core.restoring import Gone, Restored, Restoring
from federation.core.rows import GiveUp
from federation.core.shards import UnreadableShardError
from federation.core.snapshots import Snapshots, Written, told
from federation.core.state import FoldError, State
from federation.core.status import cluster_status
from federation.core.tape import Tape
from federation.core.views import Taken, Views
from federation.protocol.lease import RenewalResult
from federation.protocol.messages import (
    AgentAsk,
    Claims,
    DesiredAsk,
    JournalHint,
    Renewal,
    RenewalAnswer,
    Report,
    ReportWanted,
    SpecAsk,
    Verdict,
)
from placement.explain import Explanation
from placement.explain import why as explain
from placement.model import ClusterName, GroupUid, Position
from storage.blob import BlobEffect, BlobEvent, BlobGet, BlobRead, OpId
from storage.election import Role
from storage.entry import batch_length, entry_name
from storage.errors import CorruptError, UnsupportedFormatError
from storage.journal import (
    Entry,
    EntryLanded,
    FellBehind,
    Journal,
    JournalEffect,
    JournalOpened,
    LeadershipLost,
    LeadershipWon,
    LineageChanged,
)
from storage.root import SnapshotPointer, new_lineage

PAUSE_S: Final = 2.0  # a wake-up this late means that the process stood still: what it did not see proves nothing
LINEAGE_NONCE_CHARS: Final = 10  # tokens hold the lineage and must fit into a label value of 63 characters

__all__ = ["Replica", "ReplicaConfig"]

_NEVER: Final = float("inf")
_OF_NO_NOTE: Final = frozenset({Submitted, SubmittedChild, Placed, Running})  # most of all records


class Replica:
    """Attributes to read: `name`, `state`, `journal`, `role`, `leading`, `caught_up`, `wake_at_s`."""

    def __init__(self, config: ReplicaConfig) -> None:
        self.name = config.name
        self.state = State()
        self._config = config
        self._boot_nonce = f"{config.name}-{config.seed}"
        self._journals_count = 0
        self.journal = self._new_journal(wall_ms=0)
        self._ids = ids = Ids(self._boot_nonce)
        self._looks: dict[OpId, Leader] = {}  # looks at the journal's end under way, and for whom
        self._relay = Relay(ids.op, ids.nonce)
        self._restoring: Restoring | None = None  # while the state is read from a snapshot
        self.snapshots = Snapshots(ids, config.snapshots, config.journal_timings)
        self.archiver = Archiver(ids)
        self.views = Views(config.timings)
        self.leases = Leases(config.timings, ids)
        self.failover = Failover(config.timings, self.leases, self.views)
        self.tape = Tape(ids, config.tape, config.policy)
        self.placer = self._new_placer()
        self._leader: Leader | None = None
        self._leader_name = ""  # writer of the newest term, as far as this replica knows
        self._brake = Brake.OFF
        self._format = self.journal.format
        self._halted = False
        self._now = Instant(0.0, 0)
        self._woken_by_s = _NEVER  # when the shell was asked to come back at the latest
        self._out: list[ReplicaEffect] = []

    @property
    def role(self) -> Role:
        return self.journal.role

    @property
    def leading(self) -> bool:
        return self._leader is not None

    @property
    def leader_name(self) -> str:
        """Writer of the newest term, as far as this replica has read; empty before the first."""
        return self._leader_name

    @property
    def format_max(self) -> int:
        """The newest format of a store that this replica reads."""
        return self._config.format_max

    def waiting_for(self, now: Instant) -> list[ClusterName]:
        """Clusters that a restored fleet has to hear before it goes on."""
        return self.failover.waiting_for(self.state, now.mono_s)

    @property
    def caught_up(self) -> bool:
        """Whether the journal was read to its end once: before, this replica answers nothing."""
        return self.journal.role not in {Role.STARTING, Role.STOPPED} and not self._halted

    @property
    def wake_at_s(self) -> float | None:
        """When `Tick` is due at the latest; None when only an answer can change anything."""
        return self._woken_by_s if self._woken_by_s < _NEVER else None

    def _next_due_s(self) -> float:
        if self._halted:
            return _NEVER
        due_s = min(self.journal.wake_at_s or _NEVER, self.leases.due_s, self.failover.due_s, self.snapshots.due_s)
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
            self._proceed()
        except (CorruptError, UnsupportedFormatError, FoldError, UnreadableRecordError, UnreadableShardError) as error:
            self._halt(str(error))
        self._woken_by_s = self._next_due_s()
        return self._out

    # --- events ---

    def _dispatch(self, event: ReplicaEvent) -> None:  # noqa: PLR0912  one arm per kind of event
        now_s = self._now.mono_s
        match event:
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
        elif view.rows_stamp == report.stamp:
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

    # --- the journal ---

    def _follow_journal(self, effects: list[JournalEffect]) -> None:
        for effect in effects:
            match effect:
                case JournalOpened(lineage, snapshot):
                    self._opened(lineage, snapshot)
                case EntryLanded(entry):
                    self._landed(entry)
                case LeadershipWon():
                    self._lead()
                case LeadershipLost(term=term, lost_records=lost_records):
                    self._note("leadership.lost", term=str(term), lost_records=str(lost_records))
                    self._step_down()
                case LineageChanged(before, after):
                    self._halt(f"the store was restored: lineage {before} became {after}")
                    return
                case FellBehind(next_seq, gc_floor):
                    self._note("journal.fell_behind", next_seq=str(next_seq), gc_floor=str(gc_floor))
                    self._begin_again()
                    return
                case _ if self._restoring is not None:
                    self._restoring.held.append(effect)
                case _:
                    self._out.append(CallStore(effect))

    def _opened(self, lineage: str, snapshot: SnapshotPointer | None) -> None:
        """The journal is found: from its first entry on, or from a snapshot that is read before anything else."""
        self.leases.begin(lineage, self._now.mono_s)
        self._format = self.journal.format
        if snapshot is None:
            self.state = State(lineage)
            return
        self._leader_name = snapshot.term_writer
        self._restoring = Restoring.of(self._ids, lineage, snapshot)
        self._call_store(self._restoring.start(), background=True)

    def _restore(self, effects: list[BlobEffect]) -> None:
        """Go on reading the snapshot; once it is read, the journal goes on from there."""
        restoring = self._restoring
        assert restoring is not None
        self._call_store(effects, background=True)
        match restoring.outcome:
            case None:
                pass
            case Gone():
                self._restoring = None
                self._begin_again()
            case Restored(state, shards):
                self._restoring = None
                self.state = state
                for name in state.clusters:
                    self.views.expect(name, self._now.mono_s)
                self.snapshots.loaded()
                self._note("snapshot.loaded", position=str(state.head), shards=str(shards))
                self._out.append(StateLoaded(state.head))
                self._call_store(restoring.held)
            case _:
                assert_never(restoring.outcome)

    def _begin_again(self) -> None:
        """A new journal, from the root on: what this one needs next is gone, and a snapshot covers it."""
        self._step_down()
        self.journal = self._new_journal(wall_ms=self._now.wall_ms)
        self._follow_journal(self.journal.start(self._now.mono_s))

    def _landed(self, entry: Entry) -> None:
        """Fold one entry; if it is our own batch, answer and ring."""
        self.snapshots.landed(len(entry.records))
        records: list[AnyRecord] = []
        if not entry.void:
            if entry.kind.value == "term":
                self._leader_name = entry.writer
            records = self._fold(entry)
        self.state.reached(Position(entry.first_position + max(len(entry.records) - 1, 0)))
        if not entry.own:
            return
        self._out.append(TellReplicas(JournalHint(seq=entry.seq)))
        if entry.records and self._leader is not None:
            self._out += self._leader.landed(self.state, entry.first_position)
            self._out += doorbells(self.state, records)

    def _fold(self, entry: Entry) -> list[AnyRecord]:
        apply, leads = self.state.apply, self._leader is not None
        first = entry.first_position
        records = decode_records(entry.records, Position(first))
        for number, (record, data) in enumerate(zip(records, entry.records, strict=True), first):
            position = Position(number)
            try:
                apply(position, record, data)
            except ValueError as error:  # a value of a newer version, such as an unknown policy
                raise FoldError(position, record, str(error)) from error
            if leads:
                self.placer.folded(self.state, position, record)
                self._poke(record)
            if type(record) not in _OF_NO_NOTE:
                self._took_note(record)
        if records:
            self._out.append(EntryFolded(first, records))
        return records

    def _took_note(self, record: AnyRecord) -> None:
        """Keep soft state beside the fold in step with it."""
        now_s = self._now.mono_s
        match record:
            case Bound(uid=uid):
                self.placer.settled(GroupUid(uid))
            case GaveUp(uid=uid, cluster=cluster, verdict=GiveUp.REFUSED, late=False):
                self.placer.refused(GroupUid(uid), ClusterName(cluster), now_s)
            case ClusterJoined(cluster=cluster):
                self.views.expect(cluster, now_s)
                if self.caught_up:
                    self._call_store(self.leases.read(ClusterName(cluster), now_s))
            case ClusterFenced(cluster=cluster):
                self.failover.fence_folded(cluster, now_s)
                self.failover.forget_order(cluster)
            case Sized(uid=uid, cluster=cluster):
                self.placer.sized(GroupUid(uid), ClusterName(cluster), now_s, declined=bool(record.reasons))
            case Recovered():
                self.failover.claims.clear()
                if self.leading:
                    self._note("recovery.done", recreated=str(record.recreated), stopped=str(record.stopped))
            case _:
                pass

    def _poke(self, record: AnyRecord) -> None:
        """Only a leader decides anything on what has landed; a new one begins afresh."""
        match record:
            case Placed() | Running() | Bound():
                pass
            case Submitted() | SubmittedChild() | IntentSet():
                self.placer.poke(self._now.mono_s)
            case _:
                self.placer.reconsider(self._now.mono_s)
                self.failover.poke(self._now.mono_s)

    # --- leadership ---

    def _lead(self) -> None:
        now_s = self._now.mono_s
        self._note("leadership.won", term=str(self.journal.term))
        self.tape.lead(self.state.lineage, self.journal.term)
        self.placer = self._new_placer()
        self.placer.poke(now_s)
        self.failover.lead(self.state, now_s)
        self.snapshots.lead(now_s)
        self.archiver.lead(now_s)
        self._leader = Leader(self.failover, self.placer, self.archiver)

    def _step_down(self) -> None:
        if self._leader is not None:
            self._out += self._leader.step_down()
        self._leader = None
        self.failover.follow()
        self.snapshots.follow()
        self.archiver.follow()
        self.tape.follow()

    def _halt(self, why: str) -> None:
        self._step_down()
        self._halted = True
        self._out.append(Halt(why))

    # --- questions ---

    def why(self, uid: str, now: Instant | None = None) -> Explanation | None:
        """Why a group has no home yet, from this replica's own views; None for a group it does not know."""
        row = self.state.group(uid)
        if row is None:
            return None
        now_s = (now or self._now).mono_s
        return explain(
            self.placer.fleet(self.state, now_s),
            self.placer.pending(self.state, row, now_s),
            ahead_of(self.state, row),
            quotas_of(self.state),
            self._config.policy,
            worth=self.placer.worth,
        )

    def cluster_status(self, name: str, now: Instant) -> dict[str, Any]:
        """What people are shown of a cluster beside its row. KeyError for one that never joined."""
        row = self.state.clusters[ClusterName(name)]
        return cluster_status(row, self.failover.gate(row, now.mono_s), self.views, self.leases, now.mono_s)

    # --- small parts ---

    def _new_journal(self, *, wall_ms: int) -> Journal:
        """Each counts its writes anew, so each has a nonce of its own."""
        self._journals_count += 1
        short = hashlib.sha256(self._boot_nonce.encode()).hexdigest()[:LINEAGE_NONCE_CHARS]
        return Journal(
            writer=self._config.name,
            nonce=f"{self._boot_nonce}.{self._journals_count}",
            lineage_candidate=new_lineage(wall_ms, short),
            timings=self._config.journal_timings,
            format_max=self._config.format_max,
        )

    def _new_placer(self) -> Placer:
        config = self._config
        return Placer(
            policy=config.policy, budget=config.budget, views=self.views, failover=self.failover, tape=self.tape
        )

    def _call_store(self, effects: Sequence[BlobEffect], *, background: bool = False) -> None:
        self._out += [CallStore(effect, background) for effect in effects]

    def _note(self, event: str, **fields: str) -> None:
        self._out.append(Note(event, tuple(sorted(fields.items()))))
