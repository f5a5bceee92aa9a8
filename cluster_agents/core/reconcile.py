"""The agent's core: events in, effects out. Composes lease, fence, desired state, gangs, ledger and reports.

Every rule about one gang is in `binding`; here is who may act at all, which groups are wanted, and in what order things
are looked at. Level-triggered: any event may be lost, late or repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, assert_never

from cluster_agents.core import calls
from cluster_agents.core.binding import Gang
from cluster_agents.core.books import Books, Touched
from cluster_agents.core.calls import Calls, Flight, Outcome, Request, Step, outcome
from cluster_agents.core.claiming import Claiming
from cluster_agents.core.config import BACKOFF_S_MAX, NEVER, AgentConfig
from cluster_agents.core.desired import Desired, DesiredNews
from cluster_agents.core.events import (
    AgentEffect,
    AgentEvent,
    AnswerGuard,
    AskServers,
    Changed,
    GuardAsked,
    Kind,
    KubeAnswered,
    KubeObject,
    Listed,
    SendReport,
    ServerAnswered,
    Shown,
    Started,
    Stop,
    Tick,
    Told,
    WriteClass,
)
from cluster_agents.core.fence import Fence, Standing
from cluster_agents.core.hands import Hands
from cluster_agents.core.inquiries import Doubts, Identity
from cluster_agents.core.intake import Intake
from cluster_agents.core.jobs import labelled
from cluster_agents.core.ledger import Ledger
from cluster_agents.core.obeying import Obedience
from cluster_agents.core.objects import text
from cluster_agents.core.pods import PodKey
from cluster_agents.core.replicas import LocalLease
from cluster_agents.core.reports import Facts, Reporter
from cluster_agents.core.roomy import Roomy
from cluster_agents.core.roster import Roster
from cluster_agents.core.stages import Stage
from cluster_agents.core.takeover import Takeover
from federation.protocol.lease import LeaseNews
from federation.protocol.messages import (
    ClaimsAnswer,
    DesiredAnswer,
    Doorbell,
    GuardAnswer,
    RenewalAnswer,
    ReportWanted,
    ServerAnswer,
    SpecAnswer,
    ToAgent,
    VerdictAnswer,
)

NOT_ALLOWED: Final = frozenset({401, 403})  # a credential that ran out or was revoked; or one object that is refused

LOOKS_TOGETHER_S: Final = 0.5  # looks that nothing waits for share an ask: many groups begin and end within this


class Reconciler:
    """One agent process. `handle` never blocks, draws or reads a clock; `now_s` never falls."""

    def __init__(self, config: AgentConfig) -> None:
        first = config.first_id
        self.config = config
        self._books = Books(config)
        self._ledger = Ledger(config)
        self._calls = Calls(config, first_id=first)
        self._hands = Hands(
            config=config,
            calls=self._calls,
            ledger=self._ledger,
            pods=self._books.pods,
            jobs=self._books.jobs,
            inventory=self._books.inventory,
            intent=self._books.intent,
            next_ask_id=first,
        )
        self._local = LocalLease(config)
        self._takeover: Takeover | None = None
        self._fence: Fence | None = None  # from the moment this process acts
        self._desired = Desired(config)
        self._intake = Intake()
        self._reporter = Reporter(config)
        self._roster = Roster(self._books, self._hands)
        self._obedience = Obedience(self._desired, self._intake, self._roster, self._hands)
        self._claiming = Claiming(config)
        self._acceptable = False
        self._standing: tuple[Standing, int, bool, str] | None = None
        self._identity = Identity()
        self._listed: set[Kind] = set()
        self._roomy = Roomy()
        self._doubts = Doubts(self._books, self._calls)
        self._stopped = False
        self._refused: dict[Step, str] = {}  # of what every agent has to be allowed, as it was told last
        self._wake_s = 0.0
        self._rest_wake_s = 0.0  # without the local lease, whose renewal concerns nothing else
        self._until_s: float | None = None  # the end of the right to start, as of this event

    # --- what others see ----------------------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """This process is the one that acts, as far as it knows."""
        return self._fence is not None

    @property
    def gangs(self) -> dict[str, Gang]:
        """By token; for tests and the simulation's checkers."""
        return self._roster.gangs

    @property
    def ledger(self) -> Ledger:
        return self._ledger

    def wake_at_s(self, now_s: float) -> float:
        """When a `Tick` is due at the latest."""
        return NEVER if self._stopped else max(self._wake_s, now_s)

    def handle(self, event: AgentEvent, now_s: float) -> list[AgentEffect]:
        """Take one event in; the effects are to be carried out at once, in order."""
        if self._stopped or (isinstance(event, Tick) and now_s < self._wake_s):
            return []
        return self._handle((event,), now_s)

    def handle_shown(self, events: Sequence[Shown], now_s: float) -> list[AgentEffect]:
        """As `handle` of each; what follows is worked out once, from all that the API server said."""
        return [] if self._stopped else self._handle(events, now_s)

    def _handle(self, events: Sequence[AgentEvent], now_s: float) -> list[AgentEffect]:
        effects: list[AgentEffect] = []
        self._hands.now_s = self._books.now_s = now_s
        self._hands.effects = effects
        news = self._pass_time(now_s)
        for event in events:
            news = self._take(event, now_s) or news
        if news or now_s >= self._rest_wake_s or not self._local.sure(now_s):
            self._settle(now_s)
            self._rest_wake_s = self._next_wake_s(now_s)
        else:
            self._ask_local_lease(now_s)
        self._wake_s = min(self._rest_wake_s, self._local.wake_at_s())
        return effects

    def _take(self, event: AgentEvent, now_s: float) -> bool:
        """Note what the event says; False when nothing can follow from it (most events of a quiet cluster)."""
        match event:
            case Listed(kind, items):
                self._listed.add(kind)
                self._touch(self._books.listed(kind, items))
            case Changed(kind, item, deleted):
                return self._touch(self._books.changed(kind, item, deleted=deleted))
            case KubeAnswered(call_id, status, body):
                return self._kube_answered(call_id, status, body, now_s)
            case ServerAnswered(answer):
                return self._server_answered(answer, now_s)
            case Told(message):
                self._told(message)
            case GuardAsked(ticket, ask):
                self._answer_guard(ticket, ask.ask_id, now_s)
                return self._hands.guard_asked(ask)
            case Tick() | Started():
                return False
            case _:
                assert_never(event)
        return True

    # --- time ---------------------------------------------------------------------------------------------------------

    def _pass_time(self, now_s: float) -> bool:
        """Deadlines come before anything an event might say. True when something may follow beside what they do."""
        for call_id in self._calls.expired(now_s):
            self._kube_answered(call_id, 0, {}, now_s)
        if self._fence is not None and self._fence.pass_time(now_s):
            self._fence_now("deadline")
        return self._fence is not None and self._books.inventory.pass_time(now_s)

    def _next_wake_s(self, now_s: float) -> float:
        sure = self._local.sure(now_s)
        wakes = [self._calls.wake_at_s(now_s, self._until_s, may_send=sure)]
        wakes.append(self._identity.wake_at_s(self._calls))
        if self._takeover is not None and sure:
            wakes.append(self._takeover.wake_at_s() if self._ledger.claimed else self._ledger.wake_at_s())
        if self._fence is not None:
            wakes += (self._fence.wake_at_s(), self._desired.wake_at_s(), self._intake_due_s(), self._roster.due_s())
            if self._desired.complete and self._fence.renewing(now_s):
                wakes.append(self._reporter.due_s(self._books.inventory))
            if self._fence.lease.recovering and self._fence.renewing(now_s):
                wakes.append(self._claiming.due_s)
            if sure:
                wakes.append(self._ledger.wake_at_s())
            wakes.append(self._doubts.wake_at_s())
            wakes.append(self._books.inventory.guards_due_s)
        return min(wakes)

    def _intake_due_s(self) -> float:
        return self._intake.due_s if self._acceptable and self._hands.may_start else NEVER

    # --- who acts -----------------------------------------------------------------------------------------------------

    def _settle(self, now_s: float) -> None:
        """All that follows from what is known now."""
        if self._identity.due(self._calls, now_s):
            self._hands.effects.append(self._calls.send(self._identity.ask(now_s), now_s, BACKOFF_S_MAX))
        if not self._local.holding and (self._fence is not None or self._takeover is not None):
            self._stand_down()  # before anything is asked: it forgets what is under way
        self._ask_local_lease(now_s)
        if self._fence is None:
            self._take_over(now_s)
        self._until_s = self._starts_until_s(now_s)
        if self._fence is not None:
            self._act(self._fence, now_s)
        if self._local.sure(now_s):
            request = self._ledger.next_request(now_s)
            if request is not None:
                self._calls.want(request)
            self._hands.effects += self._calls.drain(now_s, self._until_s)

    def _ask_local_lease(self, now_s: float) -> None:
        request = self._local.next_request(now_s)
        if request is not None:
            self._hands.effects.append(self._calls.send(request, now_s, self._local.call_timeout_s))

    def _take_over(self, now_s: float) -> None:
        """With the local lease and all kinds listed: claim the ledger, read the cluster, then act."""
        if not self._local.sure(now_s) or not self._identity.uid or len(self._listed) < len(Kind):
            return
        if self._takeover is None:
            self._takeover = Takeover(self.config)
            boot_min = max(self._local.boot, self.config.boot_min)
            boot = f"{self.config.boot_nonce}/{self._local.boot}"
            self._ledger.begin(boot, boot_min=boot_min, landed_min=self._local.landed)
        if not self._ledger.claimed:
            return
        if self._takeover.done:
            self._takeover = None
            self._begin_to_act(now_s)
            return
        request = self._takeover.next_request(now_s)
        if request is not None:
            self._calls.want(request)

    def _begin_to_act(self, now_s: float) -> None:
        boot = f"{self.config.boot_nonce}/{self._local.boot}"
        self._fence = Fence(self.config, holder_uid=self._identity.uid, holder_boot=boot, now_s=now_s)
        self._desired, self._intake = Desired(self.config), Intake()
        self._obedience = Obedience(self._desired, self._intake, self._roster, self._hands)
        self._reporter.begin(self._ledger.boot)
        self._books.inventory.begin_to_hear_guards(now_s)
        self._standing = None
        self._roster.rebuild(now_s=now_s)
        self._hands.note("agent.acts", cluster=self.config.cluster, gangs=str(len(self._roster.gangs)))

    def _stand_down(self) -> None:
        """Another process acts. Nothing of ours stays under way; the books are kept up for our return."""
        self._calls.clear()
        self._ledger.stop()
        self._roster.clear()
        self._fence, self._takeover = None, None
        self._acceptable = self._hands.may_start = False
        self._hands.note("agent.stands-by", cluster=self.config.cluster)

    # --- acting -------------------------------------------------------------------------------------------------------

    def _starts_until_s(self, now_s: float) -> float | None:
        """The end of the right to start: both leases must last."""
        if self._fence is None or not self._fence.live(now_s) or not self._local.sure(now_s):
            return None
        if self._fence.lease.recovering:
            return None
        ends = (self._fence.deadline_s, self._local.deadline_s)
        assert ends[0] is not None
        assert ends[1] is not None
        return min(ends[0], ends[1])

    def _act(self, fence: Fence, now_s: float) -> None:
        if now_s >= fence.renew_due_s:
            self._renew(fence, now_s)
        if now_s >= self._desired.wake_at_s():
            ask = self._desired.ask(now_s, ask_id=self._hands.ask_id())
            self._hands.effects.append(AskServers(ask))
        self._note_rights(fence, now_s)
        for token in self._roster.adopt_strays(self._desired.covers):
            self._intake.drop(token)
            self._accept(token)
        self._take_in(now_s)
        self._advance(now_s)
        self._doubts.confirm(now_s)
        self._report(fence, now_s)
        self._claim(fence, now_s)

    def _renew(self, fence: Fence, now_s: float) -> None:
        renewal = fence.renew(now_s, ask_id=self._hands.ask_id())
        if renewal is not None:
            self._hands.effects.append(AskServers(renewal))

    def _note_rights(self, fence: Fence, now_s: float) -> None:
        """What we may do now; whoever waited for a right that came is looked at again."""
        standing = (fence.standing(now_s), fence.lease.epoch, fence.lease.recovering, fence.lease.recovers)
        if standing != self._standing:
            self._standing = standing
            self._reporter.touch()
            self._desired.look()
        may_start = self._until_s is not None
        acceptable = may_start and self._answers_count()
        if may_start and not self._hands.may_start:
            self._roster.look_at_growing()
        newly = acceptable and not self._acceptable
        self._hands.may_start, self._acceptable = may_start, acceptable
        if newly:
            self._intake.due_s = 0.0
            for token in list(self._roster.gangs):
                self._accept(token)
        self._hands.lineage = self._desired.lineage

    def _answers_count(self) -> bool:
        """The home rule: an answer is acted on only if it is not older than our admission and all that landed here."""
        assert self._fence is not None
        landed = self._ledger.landed_in(self._desired.lineage)
        return self._desired.complete and self._desired.as_of >= max(self._fence.lease.floor, landed)

    def _accept(self, token: str) -> None:
        """A gang found in the cluster may be finished once the desired state, which counts, homes it here."""
        gang, group = self._roster.get(token), self._desired.group(token)
        if self._acceptable and gang is not None and group is not None and group.intent == "run":
            gang.accept(group)
            self._roster.look_at(token)

    def _fence_now(self, why: str) -> None:
        self._roster.stop_what_may_not_run()
        self._reporter.touch()
        self._hands.note("agent.fences", cluster=self.config.cluster, why=why)

    # --- gangs --------------------------------------------------------------------------------------------------------

    def _take_in(self, now_s: float) -> None:
        """Decide what can be decided of the groups that are new here."""
        if self._intake_due_s() > now_s:
            return
        for gang in self._intake.decide(self._hands, self._roster.gangs):
            self._roster.add(gang, held=True)
            self._reporter.touch()

    def _advance(self, now_s: float) -> None:
        for gang in self._roster.advance(now_s):
            self._reporter.touch()
            self._intake.due_s = 0.0  # something may have become free, or a victim ended
            if gang.stage is Stage.GONE:
                self._desired.forget(gang.token)
        self._take_in(now_s)
        self._roster.advance(now_s)
        if self._hands.look_again:
            self._hands.look_again = False
            self._desired.look(by_s=now_s + LOOKS_TOGETHER_S)

    def _touch(self, touched: list[Touched]) -> bool:
        """Hand on whom a change touches; True when anything follows from it."""
        if touched and self._fence is not None:
            self._roster.touch(touched)
        return bool(touched) or self._books.inventory.unreported or bool(self._books.doubted)

    # --- reports ------------------------------------------------------------------------------------------------------

    def _report(self, fence: Fence, now_s: float) -> None:
        """Not before the first whole desired answer: without it no position could be given. A fleet that recovers gives
        none, and asks for just this."""
        recovering, recovers = fence.lease.recovering, fence.lease.recovers
        if not (self._desired.complete or recovering) or not fence.renewing(now_s):
            return
        if now_s < self._reporter.due_s(self._books.inventory):
            return
        live = fence.live(now_s) and not recovering
        if live:
            self._roster.recall()
        tokens = None if live else self._roster.may_run()
        uids = self._roster.uids(tokens) if tokens and recovering else ()
        epoch = fence.lease.epoch
        roomy = self._roomy.of(self._roster.lacking(), self._books.inventory) if live else ()
        facts = Facts(self._desired.lineage, self._applied(), epoch, live, tokens, uids, recovering, recovers, roomy)
        parts = self._reporter.make(now_s, facts, self._books.inventory)
        self._hands.effects.extend(SendReport(part) for part in parts)

    def _claim(self, fence: Fence, now_s: float) -> None:
        """A fleet that recovers is told what it asks for of the groups that run here."""
        if fence.lease.recovering and fence.renewing(now_s) and now_s >= self._claiming.due_s:
            claims = self._claiming.ask(now_s, self._hands.ask_id(), self._books.intents.values())
            self._hands.effects.append(AskServers(claims))

    def _applied(self) -> int:
        """The highest position such that the rows show the effect of every desired record up to it."""
        undecided_at = min(self._intake.applied_before, self._roster.undecided_at())
        return int(min(self._desired.as_of, undecided_at - 1))

    # --- answers of the API server ------------------------------------------------------------------------------------

    def _kube_answered(self, call_id: int, status: int, body: KubeObject, now_s: float) -> bool:
        """Hand the answer to who asked; False for repeats and strangers."""
        flight = self._calls.answered(call_id)
        if flight is None:
            return False
        self._note_api(flight, status, now_s)
        self._note_refused(flight.request, status, body)
        request = flight.request
        if outcome(status) is Outcome.THROTTLED:
            self._calls.throttled(body, now_s)
        if request.owner in calls.EVERYTHING_WAITS:
            self._calls.own_answered(outcome(status), now_s)
        match request.owner:
            case calls.AGENT:
                self._own_answered(flight, status, body)
            case calls.REPLICA:
                was_sure, boot = self._local.sure(now_s), self._local.boot
                self._local.answered(request.step, status, body, now_s)
                return not (was_sure and self._local.sure(now_s) and self._local.boot == boot)
            case calls.LEDGER:
                self._ledger_answered(request.step, status, body, now_s)
            case calls.TAKEOVER:
                if self._takeover is not None:
                    self._touch(self._takeover.answered(status, body, self._books, now_s))
            case token:
                self._gang_answered(token, flight, status, body)
        return True

    def _note_api(self, flight: Flight, status: int, now_s: float) -> None:
        """Who may not write (401, 403) cannot stop anything either, whatever else answers."""
        written = flight.request.write_class is not WriteClass.READ
        if self._fence is not None and written and 200 <= status < 429 and status not in NOT_ALLOWED:
            self._fence.api_answered(now_s)

    def _note_refused(self, request: Request, status: int, body: KubeObject) -> None:
        """What keeps this agent from acting at all is told once, however often it is tried again."""
        if request.owner not in calls.EVERYTHING_WAITS:
            return
        refused = outcome(status) is Outcome.REFUSED or status in NOT_ALLOWED
        why = f"{status} {text(body, 'message')}" if refused else ""
        if why and self._refused.get(request.step) != why:
            self._hands.note("api.refused", cluster=self.config.cluster, step=request.step.value, why=why)
        if refused or 200 <= status < 300:
            self._refused[request.step] = why

    def _own_answered(self, flight: Flight, status: int, body: KubeObject) -> None:
        match flight.request.step:
            case Step.IDENTITY if status == 200:
                self._identity.uid = text(body, "metadata", "uid")
            case Step.CONFIRM_GONE:
                self._pod_answered(flight, status, body)
            case _:
                pass

    def _ledger_answered(self, step: Step, status: int, body: KubeObject, now_s: float) -> None:
        if not self._ledger.answered(step, status, body, now_s):
            if self._ledger.unreadable:
                self._hands.note("ledger.unreadable", cluster=self.config.cluster, why=self._ledger.unreadable)
            return
        self._local.note(self._ledger.landed)
        self._roster.ledger_changed()
        self._intake.due_s = 0.0
        by_s = 0.0 if self._intake else now_s + LOOKS_TOGETHER_S
        self._desired.look(self._ledger.landed_in(self._desired.lineage), by_s=by_s)

    def _pod_answered(self, flight: Flight, status: int, body: KubeObject) -> None:
        if outcome(status) is Outcome.DONE:
            self._touch(self._books.put_pod(body))
            if flight.request.step is Step.FREE_POD:
                self._books.pods.mark_freed(PodKey.parse(flight.request.key), text(body, "metadata", "uid"))
        elif outcome(status) is Outcome.MISSING and flight.request.step in calls.POD_ABSENT_STEPS:
            self._touch(self._books.pod_missing(PodKey.parse(flight.request.key), asked_at_s=flight.sent_at_s))

    def _gang_answered(self, token: str, flight: Flight, status: int, body: KubeObject) -> None:
        request = flight.request
        if request.step in calls.POD_STEPS:
            self._pod_answered(flight, status, body)
        elif request.step in calls.JOB_STEPS and outcome(status) is Outcome.DONE:
            self._touch(self._books.put_job(labelled(body, token, self._roster.group_of(token))))
        elif request.step in calls.INTENT_STEPS and outcome(status) is Outcome.DONE:
            again = request.step is Step.LABEL_INTENT and self._roster.lives(token)
            self._touch(self._books.put_intent(body, again=again))
        elif request.step is Step.DELETE_INTENT and outcome(status) in {Outcome.DONE, Outcome.MISSING}:
            self._books.intent_missing(token)
        elif request.step in {Step.SUSPEND_JOB, Step.DELETE_JOB} and outcome(status) is Outcome.MISSING:
            self._touch(self._books.job_missing(token, request.path))
        gang = self._roster.get(token)
        if gang is not None:
            gang.answered(request, status, body, self._hands)
            self._roster.look_at(token)

    # --- answers of the servers ---------------------------------------------------------------------------------------

    def _server_answered(self, answer: ServerAnswer, now_s: float) -> bool:
        """Take a server's answer in; False when it says nothing new (every answer may come by two paths)."""
        if self._fence is None:
            return False
        match answer:
            case RenewalAnswer():
                return self._renewal_answered(self._fence, answer, now_s)
            case DesiredAnswer():
                news = self._desired.take(answer, now_s)
                if news is None:
                    return self._desired.wake_at_s() < self._wake_s
                self._obey(news)
                for uid, spec in sorted(answer.specs.items()):
                    origin = answer.origins.get(uid, b"")
                    one = SpecAnswer(ask_id=answer.ask_id, uid=uid, spec=spec, origin=origin)
                    self._intake.spec_answered(one, wanted=False)
            case SpecAnswer():
                return self._spec_answered(answer)
            case VerdictAnswer():
                gang = self._roster.get(answer.token)
                if gang is None or gang.uid != answer.uid or not gang.verdict_answered(answer, self._hands):
                    return False
                self._roster.look_at(answer.token)
            case ClaimsAnswer():
                return self._claiming.answered(answer)
            case _:
                assert_never(answer)
        return True

    def _renewal_answered(self, fence: Fence, answer: RenewalAnswer, now_s: float) -> bool:
        """False when it only prolongs what we have."""
        lease = fence.lease
        before = (fence.standing(now_s), lease.epoch, lease.floor, lease.recovering)
        match fence.answered(answer, now_s):
            case LeaseNews.FENCED:
                self._fence_now("fenced")
            case LeaseNews.WRONG_HOLDER:
                self._stopped = True
                why = f"the lease of {self.config.cluster} belongs to another cluster than {self._identity.uid}"
                self._hands.effects.append(Stop(why))
            case LeaseNews.RENEWED | LeaseNews.NOTHING:
                pass
        after = (fence.standing(now_s), lease.epoch, lease.floor, lease.recovering)
        return before != after or fence.wake_at_s() <= now_s

    def _spec_answered(self, answer: SpecAnswer) -> bool:
        gangs = [gang for gang in self._roster.gangs.values() if gang.uid == answer.uid]
        lacking = next((gang for gang in gangs if gang.wants_spec), None)
        spec = self._intake.spec_answered(answer, wanted=lacking is not None)
        if spec is not None and lacking is not None:
            lacking.spec = spec
            self._roster.look_at(lacking.token)
            return True
        return self._intake.due_s <= self._hands.now_s

    def _obey(self, news: DesiredNews) -> None:
        self._reporter.touch()
        self._hands.lineage = self._desired.lineage
        self._obedience.obey(news, counts=self._answers_count())

    def _told(self, message: ToAgent) -> None:
        match message:
            case Doorbell(cluster=cluster, position=position):
                if cluster == self.config.cluster and self._fence is not None:
                    self._desired.look(position)
            case ReportWanted(cluster=cluster):
                if cluster == self.config.cluster:
                    self._reporter.want_full()
            case _:
                assert_never(message)

    # --- guards -------------------------------------------------------------------------------------------------------

    def _answer_guard(self, ticket: int, ask_id: int, now_s: float) -> None:
        """What remains of the cluster's lease. A starting agent knows nothing that a guard could rely on."""
        remaining_s = self._fence.remaining_s(now_s) if self._fence is not None else None
        if self._fence is not None and remaining_s is not None:
            starts = not self._fence.lease.recovering
            answer = GuardAnswer(ask_id=ask_id, remaining_s=remaining_s, hold=self._roster.held(), starts=starts)
            self._hands.effects.append(AnswerGuard(ticket, answer))

    # --- invariants ---------------------------------------------------------------------------------------------------

    def check_invariants(self) -> None:
        """AssertionError when the state contradicts itself; tests and the simulation call it after every event."""
        self._calls.check_invariants()
        self._ledger.check_invariants()
        self._books.inventory.check_invariants()
        self._roster.check_invariants()
