"""How a replica follows its journal: from the root or a snapshot, entry by entry; what leading begins and ends with.

What an entry's records mean is `state`'s; what a leader decides is `leader`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, assert_never, cast

from federation.core.doorbells import doorbells
from federation.core.events import (
    CallStore,
    EntryFolded,
    Halt,
    StateLoaded,
    TellReplicas,
)
from federation.core.leader import Leader
from federation.core.records import (
    AnyRecord,
    Bound,
    ClusterFenced,
    ClusterJoined,
    ClusterRemoved,
    GaveUp,
    IntentSet,
    Placed,
    Recovered,
    Running,
    Sized,
    Submitted,
    SubmittedChild,
    decode_records,
)
from federation.core.replica_parts import ReplicaParts
from federation.core.restoring import Gone, Restored, Restoring
from federation.core.rows import GiveUp
from federation.core.state import FoldError, State
from federation.protocol.messages import (
    JournalHint,
)
from placement.model import ClusterName, GroupUid, Position
from storage.blob import BlobEffect
from storage.journal import (
    Entry,
    EntryLanded,
    FellBehind,
    JournalEffect,
    JournalOpened,
    LeadershipLost,
    LeadershipWon,
    LineageChanged,
)
from storage.root import SnapshotPointer

_REFUSED: Final = GiveUp.REFUSED.value
_OF_NO_NOTE: Final = frozenset({Submitted, SubmittedChild, Placed, Running})  # most of all records


class JournalFollower(ReplicaParts):
    """A replica's share in the journal. Whoever calls `_follow_journal` catches what a bad entry raises."""

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
                for name in _gone(self.state, state):
                    self._cluster_gone(name)
                self.state = state
                self.placer = self._new_placer()  # the old one knew groups and refusals of the state before
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
        apply, leads, live = self.state.apply, self._leader is not None, self.caught_up
        first = entry.first_position
        records = decode_records(entry.records, Position(first))
        positions = cast("Iterable[Position]", range(first, first + len(records)))
        for position, record, data in zip(positions, records, entry.records, strict=True):
            try:
                apply(position, record, data)
            except ValueError as error:  # a value of a newer version, such as an unknown policy
                raise FoldError(position, record, str(error)) from error
            if live:  # what happened before the start of this process happened who knows when
                self.breakers.folded(self.state, record, self._now.mono_s)
            if leads:
                self.placer.folded(self.state, position, record, self._now.mono_s)
                self._poke(record)
            if type(record) not in _OF_NO_NOTE:
                self._took_note(record)
        if records:
            self._out.append(EntryFolded(first, records))
        return records

    def _took_note(self, record: AnyRecord) -> None:
        """Keep soft state beside the fold in step with it."""
        now_s = self._now.mono_s
        if type(record) is Bound:  # by type, since most are of these two, and a pattern that fails costs more
            self.placer.settled(GroupUid(record.uid))
            self.placer.breakers_change(now_s)
            return
        if type(record) is GaveUp:
            if record.verdict == _REFUSED and not record.late:
                self.placer.refused(GroupUid(record.uid), ClusterName(record.cluster), now_s)
            return
        match record:
            case ClusterJoined(cluster=cluster):
                self.views.expect(cluster, now_s)
                if self.caught_up:
                    self._call_store(self.leases.read(ClusterName(cluster), now_s))
            case ClusterRemoved(cluster=cluster):
                self._cluster_gone(cluster)
            case ClusterFenced(cluster=cluster):
                self.failover.fence_folded(cluster, now_s)
                self.failover.forget_order(cluster)
            case Sized(uid=uid, cluster=cluster):
                declined = bool(record.reasons) or self._stayed(record)
                self.placer.sized(GroupUid(uid), ClusterName(cluster), now_s, declined=declined)
            case Recovered():
                self.failover.claims.clear()
                if self.leading:
                    self._note("recovery.done", recreated=str(record.recreated), stopped=str(record.stopped))
            case _:
                pass

    def _cluster_gone(self, cluster: str) -> None:
        """It is no part of the fleet any more: what this server knew of it is not of who joins under its name next."""
        self.views.forget(cluster)
        self.leases.forget(cluster)
        self.failover.forget(cluster)
        self.breakers.forget(cluster)

    def _stayed(self, record: Sized) -> bool:
        """Whether the size is the one before, whether or not it says why: asked at once, it would be asked for ever."""
        row = self.state.group(record.uid)
        return row is not None and row.sizing is not None and row.sizing.before == record.counts

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
        self.placer.lead(self.state, now_s)
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


def _gone(before: State, now: State) -> list[ClusterName]:
    """Clusters that left between the two, though others may have joined under their names."""
    return [row.name for row in before.clusters.values() if _joined_at(now, row.name) != row.joined_at]


def _joined_at(state: State, cluster: ClusterName) -> Position | None:
    row = state.cluster(cluster)
    return row.joined_at if row is not None else None
