"""What only the leader does with its inputs: queue them, judge them in order, form batches, answer what landed.

State holds committed records only, so every input is judged anew when its batch is formed; one that touches what the
batch changes already waits for the next (`docs/decisions/0003`). Nothing is answered before its record landed, and what
needs no record (a refusal, a repeat) not before it is known that nobody else led when it was judged.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, assert_never

from federation.core.admission import FenceFirst, admit
from federation.core.archiver import Archiver
from federation.core.batch import AgentWaits, Batch, PersonWaits, Waiter
from federation.core.brake import Bucket
from federation.core.events import (
    Accepted,
    AnswerAgent,
    AnswerPerson,
    ConfirmDead,
    Declined,
    Instant,
    PersonRequest,
    Refused,
    ResizeGroup,
)
from federation.core.failover import Failover
from federation.core.formats import QUARANTINE, RESIZING
from federation.core.placer import Placer
from federation.core.records import (
    AnyRecord,
    ClusterCordoned,
    IntentSet,
    Placed,
    Quarantined,
    Resized,
    Sized,
    Submitted,
    SubmittedChild,
)
from federation.core.rows import Intent
from federation.core.spreads import spread_uid
from federation.core.state import State
from federation.core.verdicts import NotTaken, judge, landed, not_taken
from federation.protocol.messages import Verdict, VerdictAnswer
from placement.model import Phase, Position, group_uid
from storage.root import FORMAT

QUEUE_MAX: Final = 16_384  # four full batches of people's requests: more would wait longer than they are worth
VERDICTS_QUEUED_MAX: Final = 2 * QUEUE_MAX  # agents repeat what is dropped
CONFIRM_RETRY_S: Final = 0.5  # between looks at the journal's end that brought nothing
DRAINS_PER_S: Final = 5.0  # moves that a planned drain begins; they take capacity elsewhere at once
DRAIN_EVERY_S: Final = 1.0
NAMES_SHOWN_MAX: Final = 5  # of clusters, in a line for people
ACTOR: Final = "muster:drain"
QUARANTINER: Final = "muster:quarantine"

Answer = AnswerPerson | AnswerAgent


@dataclass(frozen=True, slots=True)
class _Asked:
    ticket: int
    request: PersonRequest


@dataclass(frozen=True, slots=True)
class _Told:
    ticket: int
    verdict: Verdict


class Leader:
    """Inputs and the batch in flight during one time of leadership."""

    def __init__(self, failover: Failover, placer: Placer, archiver: Archiver) -> None:
        self._archiver = archiver
        self._failover = failover
        self._placer = placer
        self._asked: deque[_Asked] = deque()
        self._told: deque[_Told] = deque()
        self._in_flight: Batch | None = None
        self._riding: list[Answer] = []  # answers without a record that the batch in flight will confirm
        self._unconfirmed: list[Answer] = []  # those that wait for a batch, or for a look at the journal's end
        self._confirming: list[Answer] = []  # those whose look is under way
        self.confirm_due_s = float("-inf")  # no look before this: the one before brought nothing
        self._drains = Bucket(DRAINS_PER_S, DRAINS_PER_S)
        self.drain_due_s = float("-inf")

    def has_work(self, state: State, now_s: float) -> bool:
        """Whether `form` could find anything to record or answer now."""
        return (
            bool(self._asked or self._told)
            or self._failover.proposals_due
            or self._archiver.has_news(state)
            or now_s >= self.drain_due_s
            or (bool(state.pending or state.small) and now_s >= self._placer.due_s)
        )

    # --- inputs ---

    def ask(self, ticket: int, request: PersonRequest) -> list[Answer]:
        """Queue a person's request; its answer follows, or comes at once when the queue is full."""
        if len(self._asked) >= QUEUE_MAX:
            return [AnswerPerson(ticket, Declined(Refused.QUEUE_FULL, f"{QUEUE_MAX} requests are waiting"))]
        self._asked.append(_Asked(ticket, request))
        return []

    def tell(self, ticket: int, verdict: Verdict) -> None:
        """Queue an agent's verdict; beyond the limit it is dropped, and its agent sends it again."""
        if len(self._told) < VERDICTS_QUEUED_MAX:
            self._told.append(_Told(ticket, verdict))

    # --- batches ---

    def form(self, state: State, now: Instant, *, store_format: int = FORMAT) -> Batch:
        """The next batch, possibly empty. Nothing may be in flight.

        Fences first, verdicts before people's requests (they free capacity), placements on what is left.
        """
        assert self._in_flight is None
        batch = Batch()
        for record in self._failover.proposals(state, now.mono_s, at_ms=now.wall_ms):
            batch.add(state, record)
            if batch.full:
                break  # what comes next must not overtake it: a recovery takes up tokens in their order
        archived = self._archiver.proposal(state, at_ms=now.wall_ms)
        if archived is not None:
            batch.add(state, archived)
        self._unconfirmed += self._judge_verdicts(state, batch, now, store_format)
        self._unconfirmed += self._judge_requests(state, batch, now, store_format)
        for record in (*self._quarantines(state, now, store_format), *self._drain(state, now)):
            batch.add(state, record)
        self._placer.may_resize = store_format >= RESIZING
        for bundle in self._placer.place(state, batch, now.mono_s, at_ms=now.wall_ms):
            if not batch.add_all(state, bundle):
                for one in bundle:
                    if isinstance(one, Placed | Resized):
                        self._placer.not_taken(one, now.mono_s)
        if batch.records:
            self._in_flight = batch
            self._riding, self._unconfirmed = self._unconfirmed, []
        return batch

    def landed(self, state: State, first_position: int) -> list[Answer]:
        """The batch in flight landed and was folded: answer those who wait for its records."""
        batch, self._in_flight = self._in_flight, None
        assert batch is not None
        if any(isinstance(record, ClusterCordoned) and record.drain for record in batch.records):
            self.drain_due_s = float("-inf")
        riding, self._riding = self._riding, []
        return riding + [
            _landed(state, record, waiter, Position(first_position + index))
            for index, (record, waiter) in enumerate(zip(batch.records, batch.waiters, strict=True))
            if waiter is not None
        ]

    # --- answers without a record ---

    def wants_look(self, now_s: float) -> bool:
        """Whether to look for an entry beyond our last: if there is none, what was judged before still holds."""
        return bool(self._unconfirmed) and not self._confirming and now_s >= self.confirm_due_s

    @property
    def look_due_s(self) -> float:
        return self.confirm_due_s if self._unconfirmed and not self._confirming else float("inf")

    def look_begins(self) -> None:
        self._confirming, self._unconfirmed = self._unconfirmed, []

    def looked(self, now_s: float, *, alone: bool) -> list[Answer]:
        """`alone`: there was no entry beyond our last one. Else (or if unknown) the answers wait on: for another look,
        our next batch, or the news that somebody else leads."""
        answers, self._confirming = self._confirming, []
        if alone:
            return answers
        self._unconfirmed = answers + self._unconfirmed
        self.confirm_due_s = now_s + CONFIRM_RETRY_S
        return []

    def step_down(self) -> list[Answer]:
        """Leadership is lost, and this object done with: people are told; agents ask the next leader again."""
        in_flight = self._in_flight.waiters if self._in_flight is not None else []
        answers: list[Answer] = [
            AnswerPerson(waiter.ticket, Declined(Refused.UNAVAILABLE, "leadership was lost; ask again"))
            for waiter in in_flight
            if isinstance(waiter, PersonWaits)
        ]
        unheard = [one.ticket for one in self._unsaid() if isinstance(one, AnswerPerson)]
        answers += [
            AnswerPerson(ticket, Declined(Refused.NOT_LEADER, "leadership was lost before this was recorded"))
            for ticket in (*unheard, *(asked.ticket for asked in self._asked))
        ]
        return answers

    def _unsaid(self) -> list[Answer]:
        return [*self._riding, *self._confirming, *self._unconfirmed]

    # --- judging ---

    def _judge_verdicts(self, state: State, batch: Batch, now: Instant, store_format: int) -> list[Answer]:
        answers: list[Answer] = []
        later: deque[_Told] = deque()
        while self._told and not batch.full:
            told = self._told.popleft()
            outcome = judge(state, told.verdict, at_ms=now.wall_ms)
            if isinstance(outcome, Sized) and store_format < RESIZING:
                outcome = not_taken(told.verdict, NotTaken.OLDER_FORMAT)
            if isinstance(outcome, VerdictAnswer):
                answers.append(AnswerAgent(told.ticket, outcome))
            elif outcome is not None and not batch.add(state, outcome, AgentWaits(told.ticket, told.verdict)):
                later.append(told)
        self._told.extendleft(reversed(later))
        return answers

    def _judge_requests(self, state: State, batch: Batch, now: Instant, store_format: int) -> list[Answer]:
        answers: list[Answer] = []
        later: deque[_Asked] = deque()
        while self._asked and not batch.full:
            asked = self._asked.popleft()
            if state.recovering_since and not isinstance(asked.request, ConfirmDead):
                answers.append(AnswerPerson(asked.ticket, self._recovering(state, now)))
                continue
            if isinstance(asked.request, ResizeGroup) and store_format < RESIZING:
                answers.append(AnswerPerson(asked.ticket, _older_format(store_format)))
                continue
            extra = batch.submitted_count
            outcome = admit(state, asked.request, at_ms=now.wall_ms, pending_extra=extra, store_format=store_format)
            if isinstance(outcome, FenceFirst):
                declined = self._fence_first(outcome, now)
                if declined is None:
                    later.append(asked)
                else:
                    answers.append(AnswerPerson(asked.ticket, declined))
            elif isinstance(outcome, Accepted | Declined):
                answers.append(AnswerPerson(asked.ticket, outcome))
            elif not batch.add_all(state, outcome, PersonWaits(asked.ticket)):
                later.append(asked)
        self._asked.extendleft(reversed(later))
        return answers

    def _recovering(self, state: State, now: Instant) -> Declined:
        """Nothing is taken before it is known what runs: names and quota may be in use by what the backup lacks."""
        names = self._failover.waiting_for(state, now.mono_s)
        waits = f"waiting for {', '.join(names[:NAMES_SHOWN_MAX])}" if names else "nearly done"
        return Declined(Refused.UNAVAILABLE, f"the fleet recovers from a backup: {waits}")

    def _fence_first(self, wanted: FenceFirst, now: Instant) -> Declined | None:
        """A cluster that may still act is fenced before it is recorded as dead; None: wait for that."""
        cluster = wanted.cluster
        if self._failover.still_heard(cluster, now.mono_s):
            self._failover.forget_order(cluster)
            return Declined(Refused.INVALID, f"{cluster} is still heard from: drain it, or cut it off first", "cluster")
        if self._failover.order_expired(cluster, now.mono_s):
            self._failover.forget_order(cluster)
            return Declined(Refused.UNAVAILABLE, f"the lease of {cluster} could not be fenced in time; ask again")
        self._failover.order_fence(cluster, now.mono_s)
        return None

    def _quarantines(self, state: State, now: Instant, store_format: int) -> list[AnyRecord]:
        """Groups that lost too many homes by themselves, before anything is placed."""
        poison = self._placer.poison
        for uid in [uid for uid in poison if (row := state.group(uid)) is None or row.phase is not Phase.PENDING]:
            del poison[uid]
        if store_format < QUARANTINE:
            return []
        return [
            Quarantined(
                actor=QUARANTINER,
                at_ms=now.wall_ms,
                uid=uid,
                losses=losses.count,
                clusters=losses.clusters,
                reasons=losses.reasons,
            )
            for uid, losses in poison.items()
        ]

    def _drain(self, state: State, now: Instant) -> list[AnyRecord]:
        """Begin the move of groups out of drained clusters, oldest placement first, at a rate."""
        if now.mono_s < self.drain_due_s:
            return []
        self.drain_due_s = now.mono_s + DRAIN_EVERY_S
        if state.recovering_since:  # where groups are is not known yet
            return []
        drained = [row for row in state.clusters.values() if row.drain]
        if not drained:
            self.drain_due_s = float("inf")  # until a drain lands
            return []
        staying = [(row, group) for row in drained for group in state.homes_in(row) if group.intent is Intent.RUN][
            : self._drains.available(now.mono_s)
        ]
        self._drains.spend(len(staying))
        return [
            IntentSet(
                actor=ACTOR, at_ms=now.wall_ms, uid=group.uid, intent=Intent.MOVE, reason=f"{row.name} is drained"
            )
            for row, group in staying
        ]


def _landed(state: State, record: AnyRecord, waiter: Waiter, position: Position) -> Answer:
    match waiter:
        case PersonWaits(ticket):
            return AnswerPerson(ticket, Accepted(position, _uid_of(state, record, position)))
        case AgentWaits(ticket, verdict):
            return AnswerAgent(ticket, landed(verdict, position))
        case _:
            assert_never(waiter)


def _uid_of(state: State, record: AnyRecord, position: Position) -> str:
    """What the submitter, or whoever acts, knows the group by."""
    match record:
        case SubmittedChild(child=child):
            return spread_uid(group_uid(state.lineage, position), child.of)
        case Submitted():
            return group_uid(state.lineage, position)
        case _:
            return str(getattr(record, "uid", ""))


def _older_format(store_format: int) -> Declined:
    why = f"the store has format {store_format}, sizes change from {RESIZING} on: see `muster store upgrade`"
    return Declined(Refused.NOT_RESIZABLE, why, "name")
