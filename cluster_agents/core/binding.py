"""One gang's life in this cluster, from its decided plan to the last trace of it. Reads from top to bottom.

    BUILDING   intent, headless Service, then every pod (or the Job that makes them), unbound
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

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto, unique
from typing import Any, Final

from cluster_agents.core import manifests
from cluster_agents.core.calls import Outcome, Request, Step, outcome
from cluster_agents.core.config import (
    ATTEMPTS_MAX,
    BACKOFF_S,
    BACKOFF_S_MAX,
    LABEL_TOKEN,
    STARTS_IN_FLIGHT_MAX,
    VERDICT_RESEND_S,
    VERDICT_RESEND_S_MAX,
)
from cluster_agents.core.events import KubeObject, WriteClass
from cluster_agents.core.hands import Hands
from cluster_agents.core.ledger import DETAIL_CHARS_MAX, Entry
from cluster_agents.core.objects import text
from cluster_agents.core.plan import BOUND, Intent, Plan, intent_configmap, intent_name, read_intent
from cluster_agents.core.pods import Amounts, PodKey, PodView
from cluster_agents.core.spec import Spec
from federation.protocol.messages import Verdict, VerdictAnswer
from placement.model import Because, DisconnectPolicy, DisruptionMode, Reason, Token

OVER: Final = float("-inf")  # of a wait that has been noticed
MERGE_PATCH: Final = "application/merge-patch+json"
STARTS_QUEUED_MAX: Final = 2 * STARTS_IN_FLIGHT_MAX  # of one gang: keeps the pipe full without holding 10,000 bodies
GHOST_MARGIN_S: Final = 10.0  # beyond its grace, for the kubelet of a pod whose object somebody tore away
HOLDABLE: Final = frozenset({DisconnectPolicy.HOLD_IN_PLACE.value, DisconnectPolicy.MOVE_ANYWAY.value})

# The kubelet's own reasons for ending a started pod that did nothing wrong.
TAKEN_AWAY: Final = frozenset(
    {"GuardFenced", "Evicted", "NodeShutdown", "Shutdown", "Terminated", "Preempting", "NodeLost"}
)


@unique
class Stage(StrEnum):
    BUILDING = "building"
    BINDING = "binding"
    WHOLE = "whole"
    GIVING_UP = "giving-up"
    UNDOING = "undoing"
    ENDED = "ended"
    LANDED = "landed"
    CLEANING = "cleaning"
    GONE = "gone"


GROWING: Final = frozenset({Stage.BUILDING, Stage.BINDING})
LIVING: Final = GROWING | {Stage.WHOLE}
CONTAINERS_OVER: Final = frozenset({Stage.ENDED, Stage.LANDED, Stage.CLEANING, Stage.GONE})


class Member(Enum):
    """How one pod stands in its gang."""

    OPEN = auto()  # exists, unbound
    BOUND = auto()  # on its node
    RUNNING = auto()
    SUCCEEDED = auto()
    FAILED = auto()  # its containers did
    REJECTED = auto()  # its kubelet did not take it
    LOST = auto()  # deleted by somebody, evicted, or its node is gone
    MISPLACED = auto()  # bound to a node that is not its own
    SPARE = auto()  # a Job's pod without a seat; never bound


BAD: Final = (Member.REJECTED, Member.MISPLACED, Member.LOST, Member.FAILED)


@dataclass(frozen=True, slots=True)
class _Wait:
    """A call that failed `tries` times and may go again at `until_s`."""

    tries: int
    until_s: float


@dataclass(frozen=True, slots=True)
class _Ghost:
    """A pod whose object vanished before its containers were known to have ended."""

    node: str
    until_s: float


class Gang:
    """One token's gang. `plan` is None when nothing is known of it but pods or a ledger entry."""

    def __init__(self, uid: str, token: str, plan: Plan | None, *, now_s: float) -> None:
        self.uid = uid
        self.token = token
        self.plan = plan
        self.parsed = Token.parse(token)
        self.stage = Stage.BUILDING
        self.spec: Spec | None = None
        self.accepted = False  # the desired state homes it here: it may be built
        self.bound_landed = False  # the journal knows it as bound: it may be held past the deadline
        self.entry: Entry | None = None
        self.landed_at = 0
        self.due_s = now_s  # when `advance` has something to do by time alone
        self.holdings: dict[str, Amounts] = plan.holdings() if plan else {}
        self._released = False
        self._began_s = now_s
        self._binding_since_s: float | None = None
        self._intent_written = False
        self._intent_marked = False
        self._service_made = False
        self._ran = False  # at least min_count ran at once: it gets its full grace
        self._bound_answered = False
        self._running_answered = False
        self._rank: dict[PodKey, int] = {}
        self._seats_free: deque[int] = deque()
        self._members: dict[PodKey, Member] = {}
        self._count: Counter[Member] = Counter()
        self._loud: set[PodKey] = set()  # pods of which a container may run
        self._ghosts: dict[PodKey, _Ghost] = {}
        self._hot: deque[PodKey] = deque()  # pods that need a call
        self._waits: dict[tuple[Step, str], _Wait] = {}
        self._ask_spec_at_s = 0.0
        self._say_at_s = 0.0
        self._say_every_s = VERDICT_RESEND_S
        self._cleaned: set[Step] = set()
        if plan is not None and plan.workload == "job":
            self._seats_free.extend(range(plan.pods))
        elif plan is not None:
            self._rank = {PodKey(plan.namespace, plan.pod(rank)): rank for rank in range(plan.pods)}
            self._hot.extend(self._rank)

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
        gang._intent_written = True
        gang._intent_marked = gang.bound_landed = intent.bound
        return gang

    @classmethod
    def given_up(cls, entry: Entry, intent: Intent | None, *, now_s: float) -> Gang:
        """A ledger entry was found: a give-up is final, whatever else there is."""
        gang = cls(entry.uid, entry.token, intent.plan if intent else None, now_s=now_s)
        gang._intent_written = intent is not None
        gang._give_up(entry)
        return gang

    @classmethod
    def orphan(cls, uid: str, token: str, *, now_s: float) -> Gang:
        """Objects of a token that nobody wants and no intent explains."""
        gang = cls(uid, token, None, now_s=now_s)
        gang.release(Reason.NOT_DESIRED.code)
        return gang

    # --- what others ask ----------------------------------------------------------------------------------------------

    @property
    def may_be_held(self) -> bool:
        """May run on past the lease's deadline: its policy says so and the journal knows it as bound."""
        holds = self.plan is not None and self.plan.policy in HOLDABLE
        return holds and self.bound_landed and self.entry is None

    @property
    def over(self) -> bool:
        """No container of it runs, and none can start."""
        return self.stage in CONTAINERS_OVER

    def may_run(self, hands: Hands) -> bool:
        """Does a container of it run, or could a write under way start one? Asked by a cluster that is re-admitted."""
        return not self.over and bool(self._loud or self._ghosts or hands.calls.starts_of(self.token))

    @property
    def grace_s(self) -> int:
        return self.plan.grace_s if self.plan else 0

    # --- what others tell ---------------------------------------------------------------------------------------------

    def release(self, reason: str, detail: str = "") -> None:
        """Stop it and give it up: not wanted here any more, or not allowed to run on."""
        self._end("Released", (reason,), detail)

    def accept(self, *, bound: bool) -> None:
        """The desired state homes it here."""
        self.accepted = True
        self.bound_landed = self.bound_landed or bound

    def pod_changed(self, key: PodKey, before: PodView | None, hands: Hands) -> None:
        """A pod of the token came, changed or went. O(1)."""
        view = hands.pods.get(key)
        if view is not None and view.token != self.token:
            view = None
        self._take_seat(key, view)
        self._recount(key, self._member(key, view, hands))
        quiet = view is None or view.quiet or (bool(view.node) and hands.inventory.proven_dead(view.node))
        if quiet:
            self._loud.discard(key)
        else:
            self._loud.add(key)
        if view is None and before is not None and not before.quiet and before.node:
            wait_s = max(self.grace_s, before.grace_s) + GHOST_MARGIN_S
            self._ghosts[key] = _Ghost(before.node, hands.now_s + wait_s)
        if view is not None or self.stage in GROWING:
            self._hot.append(key)
        if self.plan is None:
            self._hold_what_pods_use(hands)

    def spec_arrived(self, spec: Spec) -> None:
        self.spec = spec

    # --- 1. building --------------------------------------------------------------------------------------------------

    def advance(self, hands: Hands) -> None:
        """Take every step that is possible now. Afterwards `due_s` says when to come back though nothing happens."""
        while True:
            self.due_s = float("inf")
            before = self.stage
            self._rewarm(hands)
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

    def _build(self, hands: Hands) -> None:
        """Intent, then Service, then all pods. Each is written only with the right to start."""
        assert self.plan is not None
        if self._spoilt(hands):
            return
        if self._seated == self.plan.pods:
            self.stage = Stage.BINDING
            self._hot.extend(sorted(self._rank))
            return
        if not self.accepted or not hands.may_start:
            return
        if not self._intent_written:
            self._write_intent(hands)
        elif self.spec is None:
            self._ask_spec(hands)
        elif not self._service_made:
            body = manifests.service(self.plan)
            self._start(hands, Step.CREATE_SERVICE, "", "POST", _core(self.plan.namespace, "services"), body)
        elif self.plan.workload == "job":
            self._create_job(hands)
        else:
            self._create_pods(hands)

    def _write_intent(self, hands: Hands) -> None:
        assert self.plan is not None
        namespace = hands.config.namespace
        body = intent_configmap(self.plan, namespace)
        self._start(hands, Step.WRITE_INTENT, "", "POST", _core(namespace, "configmaps"), body)

    def _ask_spec(self, hands: Hands) -> None:
        if hands.now_s >= self._ask_spec_at_s:
            self._ask_spec_at_s = hands.now_s + hands.config.timings.ask_timeout_s
            hands.ask_spec(self.uid)
        self._wake(self._ask_spec_at_s)

    def _create_job(self, hands: Hands) -> None:
        assert self.plan is not None
        assert self.spec is not None
        if hands.jobs.get(self.token) is None:
            body = manifests.job(self.plan, self.spec.group)
            self._start(hands, Step.CREATE_JOB, "", "POST", _jobs(self.plan.namespace), body)

    def _create_pods(self, hands: Hands) -> None:
        assert self.plan is not None
        assert self.spec is not None
        path = _core(self.plan.namespace, "pods")
        while self._hot and hands.calls.starts_of(self.token) < STARTS_QUEUED_MAX:
            key = self._hot.popleft()
            rank = self._rank.get(key)
            if rank is None or key in self._members or hands.calls.busy(self.token, Step.READ_POD, str(key)):
                continue
            self._start(hands, Step.CREATE_POD, str(key), "POST", path, manifests.pod(self.plan, self.spec.group, rank))

    # --- 2. binding ---------------------------------------------------------------------------------------------------

    def _bind(self, hands: Hands) -> None:
        """Every pod to its node. What cannot be finished in time is undone whole."""
        assert self.plan is not None
        if self._spoilt(hands):
            return
        if self._seated == self.plan.pods and not self._count[Member.OPEN]:
            self.stage = Stage.WHOLE
            self._say_at_s = 0.0
            return
        if not self.accepted or not hands.may_start:
            return
        if self._binding_since_s is None:
            self._binding_since_s = hands.now_s
        while self._hot and hands.calls.starts_of(self.token) < STARTS_QUEUED_MAX:
            key = self._hot.popleft()
            view = hands.pods.get(key)
            if self._members.get(key) is not Member.OPEN or view is None:
                continue
            if hands.calls.busy(self.token, Step.READ_POD, str(key)):
                continue
            path = f"{_core(key.namespace, 'pods')}/{key.name}/binding"
            self._start(
                hands, Step.BIND_POD, str(key), "POST", path, manifests.binding(self.plan, view, self._rank[key])
            )

    def _spoilt(self, hands: Hands) -> bool:
        """A gang that grows is given up as soon as a member went bad or its time is over."""
        assert self.plan is not None
        if self._judge_members():
            return True
        over_budget = max(0, 2 * self.plan.pods - hands.config.api_burst) / hands.config.api_per_s
        by_s = self._began_s + hands.config.timings.bind_deadline_s + over_budget
        half = self._binding_since_s
        if half is None and self._count[Member.BOUND] + self._count[Member.RUNNING]:
            half = self._binding_since_s = hands.now_s  # found half-bound after a restart
        if half is not None:
            by_s = min(by_s, half + hands.config.half_bound_s + over_budget)
        if hands.now_s < by_s:
            self._wake(by_s)
            return False
        bound = self._seated - self._count[Member.OPEN]
        self._end("Refused", (Reason.BIND_DEADLINE.code,), f"{bound} of {self.plan.pods} pods bound in time")
        return True

    # --- 3. whole -----------------------------------------------------------------------------------------------------

    def _watch_over(self, hands: Hands) -> None:
        """Say that it is bound and that it runs; give it up when a member is lost or all are done."""
        assert self.plan is not None
        running = self._count[Member.RUNNING] + self._count[Member.SUCCEEDED]
        self._ran = self._ran or running >= self.plan.min_count
        if self._judge_members():
            return
        if self.bound_landed and not self._intent_marked and self.plan.policy in HOLDABLE:
            self._mark_bound(hands)
        if not self._bound_answered and not self.bound_landed:
            self._say(hands, "Bound", pods=self.plan.pods)
        elif self._ran and not self._running_answered:
            self._say(hands, "Running", pods=running)

    def _mark_bound(self, hands: Hands) -> None:
        """Note in the intent that `Bound` landed, so that a restarted agent may hold the gang without any server."""
        namespace = hands.config.namespace
        path = f"{_core(namespace, 'configmaps')}/{intent_name(self.token)}"
        body = {"data": {BOUND: "true"}}
        self._always(hands, Step.MARK_BOUND, "", "PATCH", path, body, content_type=MERGE_PATCH)

    def _judge_members(self) -> bool:
        """Give the gang up if its members demand it; True when it was."""
        assert self.plan is not None
        bad = sum(self._count[member] for member in BAD)
        done = self._count[Member.SUCCEEDED]
        if bad and not self._survives(bad):
            self._end_for(next(member for member in BAD if self._count[member]))
            return True
        if done and done + bad == self.plan.pods:
            self._end(
                "Finished", (), f"{done} of {self.plan.pods} pods succeeded", succeeded=done >= self.plan.min_count
            )
            return True
        return False

    def _survives(self, bad: int) -> bool:
        assert self.plan is not None
        single = self.plan.disruption_mode == DisruptionMode.SINGLE.value
        return single and self.stage is Stage.WHOLE and self.plan.pods - bad >= self.plan.min_count

    def _end_for(self, member: Member) -> None:
        names = ", ".join(key.name for key in sorted(self._members) if self._members[key] is member)
        match member:
            case Member.FAILED:
                self._end("Finished", (), f"failed: {names}")
            case Member.REJECTED if not self._ran:
                self._end("Refused", (Reason.KUBELET_REJECTED.code,), names)
            case _ if self.stage in GROWING:
                self._end("Refused", (Reason.BIND_CONFLICT.code,), names)
            case _:
                self._end("Released", (Reason.MEMBER_LOST.code,), names)

    # --- 4. giving up -------------------------------------------------------------------------------------------------

    def _end(self, verdict: str, reasons: tuple[str, ...], detail: str = "", *, succeeded: bool = False) -> None:
        if self.entry is None:
            self._give_up(
                Entry(
                    uid=self.uid,
                    token=self.token,
                    verdict=verdict,
                    reasons=reasons,
                    detail=detail[:DETAIL_CHARS_MAX],
                    succeeded=succeeded,
                )
            )

    def _give_up(self, entry: Entry) -> None:
        """Final. Nothing is undone before the ledger has it, so that no restart can take it back."""
        assert self.entry is None
        self.entry = entry
        self.stage = Stage.GIVING_UP
        self._waits.clear()
        self._hot.clear()
        self._say_at_s = 0.0
        self._say_every_s = VERDICT_RESEND_S
        self.due_s = 0.0

    def _record(self, hands: Hands) -> None:
        assert self.entry is not None
        hands.calls.cancel_starts(self.token)
        if not hands.ledger.has(self.token):
            hands.ledger.add(self.entry)
            return
        self.stage = Stage.UNDOING
        self._hot = deque(sorted(hands.pods.of(self.token)))

    # --- 5. undoing ---------------------------------------------------------------------------------------------------

    def _undo(self, hands: Hands) -> None:
        """Stop the Job, delete the pods, and wait until every container ended. "Deleted" is not "stopped"."""
        self._undo_pods(hands)
        self._forget_ghosts(hands)
        job = hands.jobs.get(self.token)
        still = job is None or job.still
        if still and not self._loud and not self._ghosts and not hands.calls.starts_of(self.token):
            self.stage = Stage.ENDED
            self._release_holdings(hands)

    def _undo_pods(self, hands: Hands) -> None:
        job = hands.jobs.get(self.token)
        if job is not None and not job.still:
            path = f"{_jobs(job.namespace)}/{job.name}"
            body = {"metadata": {"uid": job.uid}, "spec": {"suspend": True}}
            self._always(hands, Step.SUSPEND_JOB, "", "PATCH", path, body, content_type=MERGE_PATCH)
            return
        while self._hot:
            view = hands.pods.get(self._hot.popleft())
            if view is not None and view.token == self.token:
                self._undo_pod(hands, view)

    def _undo_pod(self, hands: Hands, view: PodView) -> None:
        path = f"{_core(view.key.namespace, 'pods')}/{view.key.name}"
        dead = bool(view.node) and hands.inventory.proven_dead(view.node)
        if not view.deleting or (dead and view.grace_s):
            grace_s = 0 if dead or view.ended else self._undo_grace_s(hands)
            self._always(
                hands,
                Step.DELETE_POD,
                str(view.key),
                "DELETE",
                path,
                manifests.delete_options(view.uid, grace_s=grace_s),
            )
        elif (view.quiet or dead) and view.kept:
            self._always(
                hands, Step.FREE_POD, str(view.key), "PATCH", path, manifests.freed(view), content_type=MERGE_PATCH
            )

    def _undo_grace_s(self, hands: Hands) -> int:
        """A gang that never ran whole has nothing to save."""
        never_ran = int(hands.config.timings.undo_grace_s)
        if self.plan is None:
            return never_ran
        return self.plan.grace_s if self._ran else min(never_ran, self.plan.grace_s)

    def _forget_ghosts(self, hands: Hands) -> None:
        for key in sorted(self._ghosts):
            ghost = self._ghosts[key]
            gone = hands.inventory.proven_dead(ghost.node)
            if gone or (hands.now_s >= ghost.until_s and hands.inventory.ready(ghost.node)):
                del self._ghosts[key]
            else:
                self._wake(max(ghost.until_s, hands.now_s + BACKOFF_S_MAX))

    # --- 6. ended, landed ---------------------------------------------------------------------------------------------

    def _tell_the_end(self, hands: Hands) -> None:
        assert self.entry is not None
        self._undo_pods(hands)
        if self.landed_at:
            self.stage = Stage.LANDED
            return
        self._say(hands, self.entry.verdict)

    def _drop_entry(self, hands: Hands) -> None:
        self._undo_pods(hands)
        if hands.ledger.has(self.token):
            hands.ledger.drop(self.token, hands.lineage or self.parsed.lineage, self.landed_at)
        else:
            self.stage = Stage.CLEANING
            self._hot = deque(sorted(hands.pods.of(self.token)))

    def _say(self, hands: Hands, verdict: str, *, pods: int = 0) -> None:
        """Send a verdict, again and again until it is answered."""
        if hands.now_s < self._say_at_s:
            self._wake(self._say_at_s)
            return
        entry = self.entry
        hands.say(
            Verdict(
                ask_id=hands.ask_id(),
                cluster=hands.config.cluster,
                uid=self.uid,
                token=self.token,
                verdict=verdict,
                pods=pods,
                reasons=entry.reasons if entry else (),
                detail=entry.detail if entry else "",
                succeeded=entry.succeeded if entry else False,
            )
        )
        self._say_at_s = hands.now_s + self._say_every_s
        self._say_every_s = min(VERDICT_RESEND_S_MAX, self._say_every_s * 1.5)
        self._wake(self._say_at_s)

    def verdict_answered(self, answer: VerdictAnswer, hands: Hands) -> None:
        """A leader took the verdict. For give-ups `landed_at` may be where the token had ended before."""
        if answer.landed_at <= 0:
            return
        ours = self.entry.verdict if self.entry is not None else ""
        match answer.verdict:
            case "Bound" if self.entry is None:
                # Only the desired state says whether it landed or the home had ended: look there.
                self._bound_answered = True
                hands.look_again = True
            case "Running" if self.entry is None:
                self._running_answered = True
            case verdict if verdict == ours and self.stage is Stage.ENDED:
                self.landed_at = answer.landed_at
            case _:
                return
        self._say_at_s, self._say_every_s = 0.0, VERDICT_RESEND_S
        self.due_s = 0.0

    # --- 7. cleaning --------------------------------------------------------------------------------------------------

    def _clean(self, hands: Hands) -> None:
        """Delete what is left: pods, then the Job and the Service, the intent last."""
        self._undo_pods(hands)
        if hands.pods.of(self.token):
            return
        job = hands.jobs.get(self.token)
        if job is not None:
            body = manifests.delete_options(job.uid, propagation="Background")
            self._always(hands, Step.DELETE_JOB, "", "DELETE", f"{_jobs(job.namespace)}/{job.name}", body)
        if self.plan is None:
            if job is None:
                self.stage = Stage.GONE
            return
        if Step.DELETE_SERVICE not in self._cleaned:
            path = f"{_core(self.plan.namespace, 'services')}/{self.plan.service}"
            self._always(hands, Step.DELETE_SERVICE, "", "DELETE", path, manifests.delete_options(""))
        elif job is None and Step.DELETE_INTENT not in self._cleaned:
            path = f"{_core(hands.config.namespace, 'configmaps')}/{intent_name(self.token)}"
            self._always(hands, Step.DELETE_INTENT, "", "DELETE", path, manifests.delete_options(""))
        elif job is None:
            self.stage = Stage.GONE

    # --- answers of the API server ------------------------------------------------------------------------------------

    def answered(self, request: Request, status: int, body: KubeObject, hands: Hands) -> None:
        """Take an answer to one of our calls in. Objects in answers are in the books already."""
        result = outcome(status)
        step, name = request.step, request.key
        slot = (step, name)
        key = PodKey.parse(name) if name else None
        self.due_s = 0.0
        if self.stage not in LIVING:
            self._answered_undo(request, result, hands)
            return
        match step:
            case Step.WRITE_INTENT:
                self._intent_answered(slot, result, hands)
            case Step.READ_INTENT:
                self._intent_read(result, body, hands)
            case Step.CREATE_SERVICE if result in {Outcome.DONE, Outcome.CONFLICT}:
                self._service_made = True
            case Step.MARK_BOUND if result in {Outcome.DONE, Outcome.MISSING, Outcome.REFUSED}:
                self._intent_marked = True
            case Step.MARK_BOUND:
                self._delay(slot, hands)
            case Step.READ_POD:
                self._pod_read(key, result, body)
            case Step.CREATE_SERVICE | Step.CREATE_JOB | Step.CREATE_POD | Step.BIND_POD:
                self._start_answered(request, key, result, body, hands)
            case _:
                pass

    def _intent_answered(self, slot: tuple[Step, str], result: Outcome, hands: Hands) -> None:
        match result:
            case Outcome.DONE:
                self._intent_written = True
            case Outcome.CONFLICT | Outcome.UNKNOWN:
                path = f"{_core(hands.config.namespace, 'configmaps')}/{intent_name(self.token)}"
                self._read(hands, Step.READ_INTENT, "", path)
                self._failed_start(slot, result, hands)
            case _:
                self._failed_start(slot, result, hands)

    def _intent_read(self, result: Outcome, body: KubeObject, hands: Hands) -> None:
        """Ours, by an answer that was lost; or not written, then it is written again."""
        if result is not Outcome.DONE:
            return
        intent = read_intent(body)
        if intent is not None and intent.plan == self.plan:
            self._intent_written = True
        else:
            self._end("Refused", (Reason.BIND_CONFLICT.code,), "another intent stands for this token")
        self._waits.pop((Step.WRITE_INTENT, ""), None)
        hands.note("intent.read", group=self.uid, token=self.token)

    def _start_answered(
        self, request: Request, key: PodKey | None, result: Outcome, body: KubeObject, hands: Hands
    ) -> None:
        step, name = request.step, request.key
        match result:
            case Outcome.DONE:
                self._waits.pop((step, name), None)
                if step is Step.BIND_POD and key is not None:
                    self._pod_bound(key, request, hands)
            case Outcome.CONFLICT | Outcome.UNKNOWN if key is not None:
                # Exists already, is bound already, or nobody knows: the pod itself says which.
                self._read(hands, Step.READ_POD, name, f"{_core(key.namespace, 'pods')}/{key.name}")
                self._failed_start((step, name), result, hands)
            case Outcome.CONFLICT:  # the Job exists: its watch event is on the way
                self._waits[(step, name)] = _Wait(0, hands.now_s + BACKOFF_S_MAX)
            case Outcome.MISSING if step is Step.BIND_POD:
                self._end("Refused", (Reason.BIND_CONFLICT.code,), f"pod {name} is gone")
            case Outcome.REFUSED if step in {Step.CREATE_POD, Step.CREATE_JOB}:
                self._end("Refused", (Reason.TEMPLATE_REFUSED.code,), _message(body))
            case Outcome.REFUSED | Outcome.MISSING:
                self._end("Refused", (Reason.API_ERROR.code,), _message(body))
            case _:
                self._failed_start((step, name), result, hands)

    def _pod_bound(self, key: PodKey, request: Request, hands: Hands) -> None:
        target = text(request.body, "target", "name")
        change = hands.pods.mark_bound(key, text(request.body, "metadata", "uid"), target)
        if change is not None:
            self.pod_changed(key, change.before, hands)

    def _pod_read(self, key: PodKey | None, result: Outcome, body: KubeObject) -> None:
        """After a conflict or an unknown outcome. What was found is in the books; here only who it belongs to."""
        if key is None:
            return
        found = result is Outcome.DONE
        if found and text(body, "metadata", "labels", LABEL_TOKEN) != self.token:
            self._end("Refused", (Reason.BIND_CONFLICT.code,), f"{key.name} belongs to somebody else")
        self._hot.append(key)

    def _answered_undo(self, request: Request, result: Outcome, hands: Hands) -> None:
        """Undoing is repeated until it is done; a write that had started something ends the wait for it."""
        step, name = request.step, request.key
        settled = result in {Outcome.DONE, Outcome.MISSING}
        match step:
            case Step.DELETE_INTENT | Step.DELETE_SERVICE if settled:
                self._cleaned.add(step)
            case Step.DELETE_POD | Step.FREE_POD | Step.SUSPEND_JOB | Step.DELETE_JOB if settled:
                self._waits.pop((step, name), None)
            case Step.DELETE_POD | Step.FREE_POD | Step.SUSPEND_JOB | Step.DELETE_JOB:
                self._delay((step, name), hands)
            case Step.DELETE_INTENT | Step.DELETE_SERVICE:
                self._delay((step, name), hands)
            case _:
                pass
        if name:
            self._hot.append(PodKey.parse(name))

    # --- calls --------------------------------------------------------------------------------------------------------

    def _start(self, hands: Hands, step: Step, name: str, method: str, path: str, body: KubeObject) -> None:
        assert self.entry is None
        self._call(hands, Request(self.token, step, name, method, path, body, WriteClass.STARTS))

    def _always(
        self,
        hands: Hands,
        step: Step,
        name: str,
        method: str,
        path: str,
        body: KubeObject,
        *,
        content_type: str = "application/json",
    ) -> None:
        self._call(hands, Request(self.token, step, name, method, path, body, content_type=content_type))

    def _read(self, hands: Hands, step: Step, name: str, path: str) -> None:
        self._call(hands, Request(self.token, step, name, "GET", path, write_class=WriteClass.READ))

    def _call(self, hands: Hands, request: Request) -> None:
        wait = self._waits.get((request.step, request.key))
        if wait is not None and hands.now_s < wait.until_s:
            self._wake(wait.until_s)
            return
        hands.calls.want(request)

    def _failed_start(self, slot: tuple[Step, str], result: Outcome, hands: Hands) -> None:
        """Try again a little later; a gang that grows is not tried for ever."""
        tries = self._delay(slot, hands)
        if tries >= ATTEMPTS_MAX:
            detail = f"{slot[0]} {slot[1]}: {result.name.lower()} {tries} times"
            self._end("Refused", (Reason.API_ERROR.code,), detail)

    def _delay(self, slot: tuple[Step, str], hands: Hands) -> int:
        wait = self._waits.get(slot)
        tries = wait.tries + 1 if wait else 1
        until_s = hands.now_s + min(BACKOFF_S_MAX, BACKOFF_S * 2 ** min(tries, 8))
        self._waits[slot] = _Wait(tries, until_s)
        self._wake(until_s)
        return tries

    def _rewarm(self, hands: Hands) -> None:
        """Waits that are over: their pods need a call again."""
        for slot, wait in self._waits.items():
            if wait.until_s > hands.now_s:
                self._wake(wait.until_s)
            elif wait.until_s > OVER:
                self._waits[slot] = _Wait(wait.tries, OVER)
                if slot[1]:
                    self._hot.append(PodKey.parse(slot[1]))

    def _wake(self, at_s: float) -> None:
        self.due_s = min(self.due_s, at_s)

    # --- members ------------------------------------------------------------------------------------------------------

    @property
    def _seated(self) -> int:
        """Pods of the gang that exist, or did."""
        return len(self._members) - self._count[Member.SPARE]

    def _take_seat(self, key: PodKey, view: PodView | None) -> None:
        """A Job's pods get their ranks as they appear: by completion index, by the node they are on, or the next."""
        if view is None or key in self._rank or self.plan is None or not self._seats_free:
            return
        rank = self._seats_free[0]
        if view.completion_index in self._seats_free:
            rank = view.completion_index
        elif view.rank in self._seats_free:
            rank = view.rank
        elif view.node:
            rank = next((seat for seat in self._seats_free if self.plan.nodes[seat] == view.node), rank)
        self._seats_free.remove(rank)
        self._rank[key] = rank

    def _member(self, key: PodKey, view: PodView | None, hands: Hands) -> Member | None:
        if self.plan is None:
            return None
        if view is None:
            return Member.LOST if key in self._members and self._members[key] is not Member.SPARE else None
        rank = self._rank.get(key)
        if rank is None:
            return Member.SPARE
        if view.phase == "Succeeded":
            return Member.SUCCEEDED
        if view.deleting or (view.node and hands.inventory.proven_dead(view.node)):
            return Member.LOST
        if view.phase == "Failed":
            if view.started:
                return Member.LOST if view.reason in TAKEN_AWAY else Member.FAILED
            return Member.REJECTED
        if not view.node:
            return Member.OPEN
        if view.node != self.plan.nodes[rank]:
            return Member.MISPLACED
        return Member.RUNNING if view.phase == "Running" else Member.BOUND

    def _recount(self, key: PodKey, member: Member | None) -> None:
        before = self._members.pop(key, None)
        if before is not None:
            self._count[before] -= 1
        if member is not None:
            self._members[key] = member
            self._count[member] += 1

    # --- holdings -----------------------------------------------------------------------------------------------------

    def hold(self, hands: Hands) -> None:
        """Its resources count from now on."""
        hands.inventory.hold(self.holdings)

    def _release_holdings(self, hands: Hands) -> None:
        if not self._released:
            self._released = True
            hands.inventory.release(self.holdings)

    def _hold_what_pods_use(self, hands: Hands) -> None:
        """Without a plan only the pods say what is held."""
        if self._released:
            return
        hands.inventory.release(self.holdings)
        self.holdings = held_by(hands.pods.of(self.token))
        hands.inventory.hold(self.holdings)

    def check_invariants(self, hands: Hands) -> None:
        """AssertionError unless stage, entry and counts agree."""
        assert (self.entry is None) == (self.stage in LIVING)
        assert sum(self._count.values()) == len(self._members)
        assert min(self._count.values(), default=0) >= 0
        if self.stage in {Stage.UNDOING, Stage.ENDED}:
            assert hands.ledger.has(self.token), "undone before the ledger had it"
        if self.over:
            assert not hands.calls.starts_of(self.token)
            assert self._released


def held_by(pods: Mapping[PodKey, PodView]) -> dict[str, Amounts]:
    """What bound pods that have not ended use, by node."""
    held: dict[str, Amounts] = {}
    for key in sorted(pods):
        view = pods[key]
        if view.node and not view.ended:
            held[view.node] = held.get(view.node, Amounts()).plus(view.amounts)
    return held


def _core(namespace: str, plural: str) -> str:
    return f"/api/v1/namespaces/{namespace}/{plural}"


def _jobs(namespace: str) -> str:
    return f"/apis/batch/v1/namespaces/{namespace}/jobs"


def _message(body: Mapping[str, Any]) -> str:
    return text(body, "message") or "refused by the API server"
