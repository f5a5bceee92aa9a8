"""One gang's life in this cluster, from its decided plan to the last trace of it. Reads from top to bottom.

    BUILDING   intent, headless Service (of several pods), then every pod (or the Job that makes them), unbound
    BINDING    every pod to its node; nothing is bound before all exist
    WHOLE      bound: verdicts Bound and Running, watching over the members
    GIVING_UP  the give-up is being written into the ledger; from then on nothing of the token is created or bound
    UNDOING    pods deleted, until the last container has ended
    ENDED      the verdict is sent until a leader says where it landed
    LANDED     the ledger entry is being dropped, `landed` raised with it
    CLEANING   what is left of its objects is deleted
    GONE

`advance` may be called at any time and takes every step that is possible now. It knows its own gang only: which groups
are wanted, and who may start anything, is decided in `reconcile`.
"""

from __future__ import annotations

from typing import Final

from cluster_agents.core import errands
from cluster_agents.core.calls import Outcome, Request, Step, outcome, unauthorized
from cluster_agents.core.config import ATTEMPTS_MAX, LABEL_TOKEN
from cluster_agents.core.endings import Ending, ending_by_job, ending_of, job_may_be_over, refused, released
from cluster_agents.core.events import KubeObject, WriteClass
from cluster_agents.core.hands import Hands
from cluster_agents.core.ledger import Entry
from cluster_agents.core.members import Member
from cluster_agents.core.objects import text
from cluster_agents.core.plan import Intent, Plan, read_intent
from cluster_agents.core.pods import PodKey
from cluster_agents.core.resizing import STARTS_QUEUED_MAX, Resizing, message_of
from cluster_agents.core.spec import Spec
from cluster_agents.core.stages import LIVING, Stage
from federation.protocol.messages import DesiredGroup, VerdictAnswer
from placement.model import Because, DisconnectPolicy, Reason

JOB_SAYS_S: Final = 5.0
JOB_PODS_PER_S: Final = 10
"""How long a Job may take to make its pods, or to say that it is over after it began to delete them: one round of its
controller, whose client has a budget of 20 requests a second."""

STRIPPED: Final = "admission took the labels off {}, by which guards and agents know it"

TURN_S: Final = 1.0  # between looks whether gangs that are half bound have left budget for another one

NOT_ADMITTED: Final = frozenset({403, 422})

TOKEN_LABEL: Final = ("metadata", "labels", LABEL_TOKEN)
MADE: Final = {Step.WRITE_INTENT: "its intent", Step.CREATE_JOB: "its Job"}
"""What is known by its labels from then on; pods are known by more."""

HOLDABLE: Final = frozenset({DisconnectPolicy.HOLD_IN_PLACE.value, DisconnectPolicy.MOVE_ANYWAY.value})


class Gang(Resizing):
    """One token's gang."""

    # --- how a gang comes to be ---------------------------------------------------------------------------------------

    @classmethod
    def decided(cls, plan: Plan, spec: Spec, *, now_s: float) -> Gang:
        """A new group was assigned nodes; its resources count from now on."""
        gang = cls(plan.uid, plan.token, plan, now_s=now_s)
        gang.spec, gang.accepted = spec, True
        return gang

    @classmethod
    def refused(cls, uid: str, token: str, because: tuple[Because, ...], *, now_s: float) -> Gang:
        """A new group does not fit: a give-up like any other, with nothing to undo."""
        gang = cls(uid, token, None, now_s=now_s)
        reasons = tuple(dict.fromkeys(one.reason.code for one in because))
        gang._give_up(
            Entry(uid=uid, token=token, verdict="Refused", reasons=reasons, detail="; ".join(map(str, because)))
        )
        return gang

    @classmethod
    def restored(cls, intent: Intent, *, now_s: float) -> Gang:
        """An intent was found: the gang is finished once the desired state confirms it, supervised if it is whole."""
        gang = cls(intent.plan.uid, intent.plan.token, intent.plan, now_s=now_s)
        gang._intent_written = gang._found = True
        gang._intent_marked, gang._followed = intent.bound, intent
        gang.bound_landed = intent.bound or intent.plan.resized_at > 0
        return gang

    @classmethod
    def given_up(cls, entry: Entry, intent: Intent | None, *, now_s: float) -> Gang:
        """A ledger entry was found: a give-up is final, whatever else there is."""
        gang = cls(entry.uid, entry.token, intent.plan if intent else None, now_s=now_s)
        gang._found = True
        gang._give_up(entry)
        return gang

    @classmethod
    def stopped(cls, uid: str, token: str, reason: str, *, now_s: float) -> Gang:
        """To stop before anything of it began here, or (an orphan) with objects that no intent explains."""
        gang = cls(uid, token, None, now_s=now_s)
        gang.release(reason)
        return gang

    # --- what others ask ----------------------------------------------------------------------------------------------

    @property
    def may_be_held(self) -> bool:
        """May run on past the lease's deadline: its policy says so and the journal knows it as bound."""
        holds = self.plan is not None and self.plan.policy in HOLDABLE
        return holds and self.bound_landed and self.entry is None

    # --- what others tell ---------------------------------------------------------------------------------------------

    def release(self, reason: str, detail: str = "") -> None:
        """Stop it and give it up: not wanted here any more, or not allowed to run on."""
        self._end(released(reason, detail))

    def accept(self, group: DesiredGroup) -> None:
        """The desired state homes it here, and says how many pods it should have."""
        self.accepted = True
        self.bound_landed = self.bound_landed or group.bound
        self.ordered(group.counts, group.resized_at)

    def tell_again(self) -> None:
        """The journal that knew that it runs is lost."""
        self._running_answered = False
        self.order = None
        self._size_doubted = self.plan is not None and self.plan.growable
        if self.entry is None:
            self._teller.anew()

    # --- its steps ----------------------------------------------------------------------------------------------------

    def advance(self, hands: Hands) -> None:
        """Take every step that is possible now. Afterwards `due_s` says when to come back though nothing happens."""
        while True:
            before = self.stage
            self._hot.extend(map(PodKey.parse, self._patience.over(hands.now_s)))
            self.due_s = self._patience.next_s()
            match self.stage:
                case Stage.BUILDING:
                    self._build(hands)
                case Stage.BINDING:
                    self._bind(hands)
                case Stage.WHOLE:
                    self._watch_over(hands)
                case Stage.GIVING_UP:
                    self._record(hands)
                case Stage.UNDOING:
                    self._undo(hands)
                case Stage.ENDED:
                    self._tell_the_end(hands)
                case Stage.LANDED:
                    self._drop_entry(hands)
                case Stage.CLEANING:
                    self._clean(hands)
                case Stage.GONE:
                    pass
            if self.stage is before:
                return

    # --- 1. building --------------------------------------------------------------------------------------------------

    def _build(self, hands: Hands) -> None:
        """Intent, then Service, then all pods. Each is written only with the right to start."""
        assert self.plan is not None
        if self._found_whole(hands) or self._spoilt(hands):
            return
        if self._members.seated == self.plan.settled:
            self.stage = Stage.BINDING
            self._hot.extend(sorted(self._members.seats()))
            return
        if not self.accepted or not hands.may_start:
            return
        if not self._intent_written:
            self._ask(hands, errands.write_intent(self.plan, self.spec, hands.config.namespace))
        elif self.spec is None:
            self._ask_spec(hands)
        elif self.plan.has_service and not self._service_made:
            self._ask(hands, errands.create_service(self.plan))
        elif self.plan.workload != "job":
            self._create_pods(hands, self.plan, self.spec)
        elif hands.jobs.get(self.token) is None:
            self._ask(hands, errands.create_job(self.plan, self.spec.group))
        else:
            self._doubt_job(hands, self.plan, self.spec)

    def _doubt_job(self, hands: Hands, plan: Plan, spec: Spec) -> None:
        """What the API server refuses to a Job's controller stands in events, which nobody here reads: it is asked."""
        if self._job_asked_s is None:
            self._job_asked_s = hands.now_s
        again_s = self._job_asked_s + JOB_SAYS_S + plan.pods / JOB_PODS_PER_S
        if hands.now_s < again_s:
            self._wake(again_s)
            return
        self._job_asked_s = hands.now_s
        self._ask(hands, errands.try_pod(plan, spec.group))

    def _create_pods(self, hands: Hands, plan: Plan, spec: Spec) -> None:
        while self._hot and hands.calls.starts_of(self.token) < STARTS_QUEUED_MAX:
            key = self._hot.popleft()
            rank = self._members.rank(key)
            reading = hands.calls.busy(self.token, Step.READ_POD, str(key))
            if rank is not None and self._members.state(key) is None and not reading:
                self._ask(hands, errands.create_pod(plan, spec.group, key, rank))

    # --- 2. binding ---------------------------------------------------------------------------------------------------

    def _bind(self, hands: Hands) -> None:
        """Every pod to its node. What cannot be finished in time is undone whole."""
        assert self.plan is not None
        if self._found_whole(hands) or self._spoilt(hands):
            return
        if not self.accepted or not hands.may_start:
            return
        if self._binding_since_s is None:
            gone = next(filter(hands.inventory.proven_dead, self.plan.nodes), None)
            if gone is not None:
                self._end(refused(Reason.BIND_CONFLICT, f"node {gone} is gone"))
                return
            why = self._no_room_for_added(hands)
            if why is not None:
                self._end(Ending("Refused", (why[0],), why[1]))
                return
            if not hands.calls.may_bind(self.token, self.plan.pods, hands.config.half_bound_s / 2):
                self._wake(hands.now_s + TURN_S)
                return
            self._binding_since_s = hands.now_s
        while self._hot and hands.calls.starts_of(self.token) < STARTS_QUEUED_MAX:
            key = self._hot.popleft()
            view, rank = hands.pods.get(key), self._members.rank(key)
            reading = hands.calls.busy(self.token, Step.READ_POD, str(key))
            if view is not None and rank is not None and self._members.state(key) is Member.OPEN and not reading:
                self._ask(hands, errands.bind_pod(self.plan, view, rank))

    def _found_whole(self, hands: Hands) -> bool:
        """Every pod is on its node (or was, before something befell it): from here on a loss is a loss of a member."""
        assert self.plan is not None
        whole = self._members.placed == self.plan.settled and not self._members.count(Member.MISPLACED)
        if whole:
            hands.calls.settled(self.token)
            self.stage = Stage.WHOLE
            self._teller.anew()
        return whole

    def _spoilt(self, hands: Hands) -> bool:
        """A gang that grows is given up as soon as a member went bad or its time is over."""
        assert self.plan is not None
        if self._judge_members(hands):
            return True
        if self._stripped:
            self._end(refused(Reason.TEMPLATE_REFUSED, STRIPPED.format(f"pod {self._stripped}")))
            return True
        if self._given_away:
            why = f"admission gave pod {self._given_away} to another scheduler, which would start it before its gang"
            self._end(refused(Reason.TEMPLATE_REFUSED, why))
            return True
        if self.bound_landed:  # it was whole once, and what it lost is never built again under this token
            self._end(released(Reason.MEMBER_LOST.code, "members are gone"))
            return True
        if hands.may_start and hands.calls.waits_its_turn(self.token, hands.now_s):
            self._began_s = hands.now_s  # nothing of it is there yet: it is the others that take their time
        by_s = self._whole_by_s(self.plan, hands)
        if hands.now_s < by_s:
            self._wake(by_s)
            return False
        detail = f"{self._members.placed} of {self.plan.pods} pods bound in time"
        if self.plan.workload == "job" and self._members.seated < self.plan.pods:
            detail = f"its Job's controller made {self._members.seated} of {self.plan.pods} pods in time"
        if self._failing is not None:
            detail = f"{detail}; {self._failing[1]}"
        self._end(refused(Reason.BIND_DEADLINE, detail))
        return True

    def _whole_by_s(self, plan: Plan, hands: Hands) -> float:
        """When it has to be whole: soon once it is half bound, and a little later where the request budget is small."""
        if self._binding_since_s is None and self._members.placed:
            self._binding_since_s = hands.now_s  # found half-bound after a restart
        over_budget_s = max(0, 2 * plan.pods - hands.config.api_burst) / hands.config.api_per_s
        by_s = self._began_s + hands.config.timings.bind_deadline_s
        if self._binding_since_s is not None:
            by_s = min(by_s, self._binding_since_s + hands.config.half_bound_s)
        return by_s + over_budget_s

    # --- 3. whole -----------------------------------------------------------------------------------------------------

    def _watch_over(self, hands: Hands) -> None:
        """Say that it is bound and that it runs; give it up when a member is lost or all are done."""
        assert self.plan is not None
        running = self._members.count(Member.RUNNING, Member.SUCCEEDED)
        self._ran = self._ran or running >= self.plan.min_count
        if self._judge_members(hands):
            return
        self._keep_intent(self.plan, hands)
        self._resize(hands)
        if self.bound_landed and not self._intent_marked and self.plan.policy in HOLDABLE:
            self._ask(hands, errands.mark_bound(self.token, hands.config.namespace))
        if not self._bound_answered and not self.bound_landed:
            self._wake(self._teller.tell(hands, "Bound", pods=self.plan.settled))
        elif self._ran and not self._running_answered:
            self._wake(self._teller.tell(hands, "Running", pods=running))
        elif self._size_news:
            self._wake(self._teller.tell(hands, "Sized", size=self.plan))

    def _keep_intent(self, plan: Plan, hands: Hands) -> None:
        """Somebody may delete it: without it the next process would take the gang for a stranger's, and stop it."""
        if hands.intent(self.token) is not None:
            self._intent_written = True
        elif self._intent_written:
            self._ask(hands, errands.read_intent(self.token, hands.config.namespace))
        elif self.accepted and hands.may_start:
            self._ask(hands, errands.write_intent_again(plan, self.spec, hands.config.namespace))

    def _judge_members(self, hands: Hands) -> bool:
        """Give the gang up if its members, or its Job, demand it; True when it was, or will be in a moment."""
        assert self.plan is not None
        ending = ending_of(self.plan, self._members, self.stage, ran=self._ran)
        if self.plan.workload == "job" and (ending is None or ending.verdict != "Finished"):
            return self._judge_job(self.plan, ending, hands)
        if ending is not None:
            self._end(ending)
        return ending is not None

    def _judge_job(self, plan: Plan, ending: Ending | None, hands: Hands) -> bool:
        """The same where a Job makes the pods: it is waited for, since it may be what took them away."""
        job = hands.jobs.get(self.token)
        taken = ending is not None and self._members.taken(hands.pods.of(self.token), hands.inventory)
        fenced = ending is not None and self._members.fenced(hands.pods.of(self.token))
        by_job = ending_by_job(job, self._members, taken=taken, fenced=fenced) if job is not None else None
        if by_job is not None:
            self._end(by_job)
            return True
        if ending is None:
            self._lost_since_s = None
            return False
        if self._lost_since_s is None:
            self._lost_since_s = hands.now_s
        by_s = self._lost_since_s + JOB_SAYS_S + plan.pods / JOB_PODS_PER_S
        if hands.now_s < by_s and job_may_be_over(job, self._members, taken=taken):
            self._wake(by_s)
        else:
            self._end(ending)
        return True

    # --- verdicts that landed ----------------------------------------------------------------------------------------

    def verdict_answered(self, answer: VerdictAnswer, hands: Hands) -> bool:
        """A leader took the verdict; False when that is no news. For give-ups `landed_at` may be where the token had
        ended before."""
        if answer.landed_at <= 0:
            return False
        ours = self.entry.verdict if self.entry is not None else ""
        match answer.verdict:
            case "Bound" if self.entry is None and not self._bound_answered:
                # Only the desired state says whether it landed or the home had ended: look there.
                self._bound_answered = True
                hands.look_again = True
            case "Running" if self.entry is None and not self._running_answered:
                self._running_answered = True
            case "Sized" if self.entry is None and self._size_answered(answer):
                pass
            case verdict if verdict == ours and self.stage is Stage.ENDED and not self.landed_at:
                self.landed_at = answer.landed_at
            case _:
                return False
        self._teller.anew()
        return True

    # --- answers of the API server ------------------------------------------------------------------------------------

    def answered(self, request: Request, status: int, body: KubeObject, hands: Hands) -> None:
        """Take an answer to one of our calls in. Objects in answers are in the books already."""
        result = outcome(status)
        self.due_s = 0.0
        if self.stage not in LIVING:
            self._undo_answered(request, result, hands)
            return
        if request.key and PodKey.parse(request.key) in self._members.apart():
            self._joining_answered(request, result, body, hands)
            return
        if result is Outcome.DONE and request.write_class is WriteClass.READ:
            self._failing = None
        match request.step:
            case Step.REPLACE_INTENT:
                self._intent_replaced(result, hands)
            case Step.READ_INTENT | Step.WRITE_INTENT if self.stage is Stage.WHOLE:
                self._intent_kept(request.step, result, hands)
            case Step.READ_INTENT:
                self._intent_read(result, body)
            case Step.TRY_POD:
                self._pod_tried(status, body)
            case Step.READ_SERVICE | Step.READ_JOB | Step.READ_POD:
                self._was_read(request, result, body, hands)
            case Step.MARK_BOUND:
                self._bound_marked(result, hands)
            case Step.WRITE_INTENT | Step.CREATE_SERVICE | Step.CREATE_JOB | Step.CREATE_POD | Step.BIND_POD:
                self._start_answered(request, result, body, hands)
            case _:
                pass

    def _pod_tried(self, status: int, body: KubeObject) -> None:
        """Not what a proxy or a webhook that cannot be asked so says."""
        if self.stage is not Stage.BUILDING:
            return
        if status in NOT_ADMITTED and not unauthorized(message_of(body)):
            self._end(refused(Reason.TEMPLATE_REFUSED, message_of(body)))
        elif 200 <= status < 300 and not text(body, *TOKEN_LABEL):
            self._end(refused(Reason.TEMPLATE_REFUSED, STRIPPED.format("its Job's pods")))

    def _bound_marked(self, result: Outcome, hands: Hands) -> None:
        self._intent_marked = result in {Outcome.DONE, Outcome.MISSING, Outcome.REFUSED}
        if not self._intent_marked:
            self._patience.failed((Step.MARK_BOUND, ""), hands.now_s)

    def _start_answered(self, request: Request, result: Outcome, body: KubeObject, hands: Hands) -> None:
        step = request.step
        if step is Step.WRITE_INTENT and result is Outcome.DONE and not text(body, "metadata", "resourceVersion"):
            result = Outcome.UNKNOWN  # no API server's answer: nothing may be made before the intent surely stands
        match result:
            case Outcome.DONE if step in MADE and not text(body, *TOKEN_LABEL):
                self._end(refused(Reason.TEMPLATE_REFUSED, STRIPPED.format(MADE[step])))
            case Outcome.DONE:
                self._start_worked(request, hands)
            case Outcome.CONFLICT | Outcome.UNKNOWN:
                self._read_back(request, hands)
                self._start_failed(request, result, body, hands)
            case Outcome.BUSY | Outcome.THROTTLED:
                self._start_failed(request, result, body, hands)
            case Outcome.REFUSED if unauthorized(message_of(body)):
                self._start_failed(request, result, body, hands)
            case Outcome.MISSING if step is Step.BIND_POD:
                self._end(refused(Reason.BIND_CONFLICT, f"pod {request.key} is gone"))
            case Outcome.REFUSED if step in {Step.CREATE_POD, Step.CREATE_JOB}:
                self._end(refused(Reason.TEMPLATE_REFUSED, message_of(body)))
            case Outcome.REFUSED | Outcome.MISSING:
                self._end(refused(Reason.API_ERROR, message_of(body)))

    def _read_back(self, request: Request, hands: Hands) -> None:
        """Exists already, is bound already, or nobody knows: the object itself says which."""
        if request.key:
            self._ask(hands, errands.read_pod(self.token, PodKey.parse(request.key)))
        elif request.step is Step.CREATE_SERVICE and self.plan is not None:
            self._ask(hands, errands.read_service(self.plan))
        elif request.step is Step.CREATE_JOB and self.plan is not None:
            self._ask(hands, errands.read_job(self.plan))
        elif request.step is Step.WRITE_INTENT:
            self._ask(hands, errands.read_intent(self.token, hands.config.namespace))

    def _start_worked(self, request: Request, hands: Hands) -> None:
        self._patience.worked((request.step, request.key))
        if self._failing is not None and self._failing[0] == (request.step, request.key):
            self._failing = None
        match request.step:
            case Step.WRITE_INTENT:
                self._intent_written = True
                self._began_s = hands.now_s  # before, it may have waited its turn
            case Step.CREATE_SERVICE:
                self._service_made = True
            case Step.BIND_POD:
                key, uid = PodKey.parse(request.key), text(request.body, "metadata", "uid")
                change = hands.pods.mark_bound(key, uid, text(request.body, "target", "name"))
                if change is not None:
                    self.pod_changed(key, change.before, hands)
            case _:
                pass

    def _start_failed(self, request: Request, result: Outcome, body: KubeObject, hands: Hands) -> None:
        """A gang that grows is not tried for ever."""
        tries = self._start_failed_by(request, result, body, hands)
        what, why = f"{request.step} {request.key}".rstrip(), text(body, "message") or result.name.lower()
        self._failing = (request.step, request.key), f"{what}: {why}"
        if tries >= ATTEMPTS_MAX:
            self._end(refused(Reason.API_ERROR, f"{what}: {tries} times: {why}"))

    def _intent_read(self, result: Outcome, body: KubeObject) -> None:
        """After a conflict or an unknown outcome: ours, or somebody's. If there is none, it is written again."""
        if result is not Outcome.DONE:
            return
        intent = read_intent(body)
        if intent is not None and intent.plan == self.plan:
            self._intent_written = True
            self._patience.worked((Step.WRITE_INTENT, ""))
        else:
            self._end(refused(Reason.BIND_CONFLICT, "another intent stands for this token"))

    def _was_read(self, request: Request, result: Outcome, body: KubeObject, hands: Hands) -> None:
        match request.step:
            case Step.READ_POD:
                self._pod_read(PodKey.parse(request.key), result, hands)
            case Step.READ_SERVICE:
                self._service_made = self._service_made or result is Outcome.DONE
            case _ if result is Outcome.DONE and hands.jobs.get(self.token) and not text(body, *TOKEN_LABEL):
                self._end(refused(Reason.TEMPLATE_REFUSED, STRIPPED.format(MADE[Step.CREATE_JOB])))
            case _:
                pass

    def _pod_read(self, key: PodKey, result: Outcome, hands: Hands) -> None:
        """After a conflict or an unknown outcome. What was found is in the books; here only whose it is."""
        view = hands.pods.get(key)
        if result is Outcome.DONE and (view is None or view.token != self.token):
            self._end(refused(Reason.BIND_CONFLICT, f"{key.name} belongs to somebody else"))
        self._hot.append(key)
