"""How a whole gang grows and shrinks under its token. Every step stands in the intent before it is taken, written over
the version that was read, and what the intent says is what goes on: also after a restart, and whoever wrote it.

    ordered    by desired state that counts: nodes are chosen for pods that join, as many as there is room for, and why
               there are no more, or none, is noted
    joining    their pods are made, then bound; what is not bound in time leaves again, all of it
    leaving    pods are deleted with the gang's grace, until nothing of them is left
    sized      the outcome is told until it is answered

The members that ran are never touched. A give-up may come at any time, and undoes the pods of both sizes.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Final

from cluster_agents.core import errands
from cluster_agents.core.assigning import devices_of
from cluster_agents.core.calls import Outcome, Request, Step, unauthorized
from cluster_agents.core.config import ATTEMPTS_MAX, STARTS_IN_FLIGHT_MAX
from cluster_agents.core.events import KubeObject
from cluster_agents.core.hands import Hands
from cluster_agents.core.members import BAD, Member
from cluster_agents.core.objects import text
from cluster_agents.core.plan import Intent, Plan
from cluster_agents.core.pod_places import within_pod_places
from cluster_agents.core.pods import NOTHING, Amounts, PodKey
from cluster_agents.core.sizes import given_back, grown, joined, kept, parted, shrunk
from cluster_agents.core.spec import Spec
from cluster_agents.core.stages import Stage
from cluster_agents.core.undoing import Undoing
from federation.protocol.messages import VerdictAnswer
from placement.assignment import Assignment
from placement.elastic import counts_of, grows_freely, joining, largest_growth, with_counts
from placement.joining import assign_joining
from placement.model import GangRequest, Reason

STARTS_QUEUED_MAX: Final = 2 * STARTS_IN_FLIGHT_MAX  # of one gang: keeps the pipe full without holding 10,000 bodies

RECALL_S: Final = 60.0  # between two asks: it may be unreadable here, and nothing waits for it

ON_NODES: Final = (Member.BOUND, Member.RUNNING, Member.SUCCEEDED)
PAST_GROWING: Final = (*BAD, Member.SUCCEEDED)  # with such a member nobody joins any more
STARTING: Final = frozenset({Step.CREATE_POD, Step.BIND_POD})
Why = tuple[str, str]  # a reason's code, and words

ADDED_REASONS: Final = (Reason.INSUFFICIENT_CPU, Reason.INSUFFICIENT_MEMORY, Reason.INSUFFICIENT_GPUS)
ADDED_UNITS: Final = ("milli CPUs", "MiB", "GPUs")


class Resizing(Undoing):
    """A gang's size. `order`: pods of each role as desired state says, and the position at which it was made so."""

    def __init__(self, uid: str, token: str, plan: Plan | None, *, now_s: float) -> None:
        super().__init__(uid, token, plan, now_s=now_s)
        self.order: tuple[tuple[int, ...], int] | None = None
        self._next: Plan | None = None  # to be written into the intent
        self._since_s: float | None = None  # pods join since then
        self._followed: Intent | None = None  # the one that `plan` is known to agree with, or not
        self._size_told = 0  # the resize whose outcome was answered
        self._size_doubted = False  # the journal may not know how many pods there are
        self._recall_at_s = 0.0

    @property
    def undecided_at(self) -> float:
        """The position of a resize for which no nodes are held yet, and that was not declined."""
        if self.order is None or self.plan is None or self.entry is not None:
            return float("inf")
        decided = self._next.resized_at if self._next is not None else self.plan.resized_at
        return self.order[1] if self.order[1] > decided else float("inf")

    @property
    def wants_spec(self) -> bool:
        """It cannot go on, or say whether it could grow, without what the group was made from."""
        if self.spec is not None or self.entry is not None:
            return False
        ordered = self.undecided_at < float("inf") or (self.plan is not None and bool(self.plan.joining))
        return self.stage is Stage.BUILDING or ordered or self._forgot

    @property
    def _forgot(self) -> bool:
        """Nobody knows what it was made from, and so whether it could grow."""
        growable = self.plan is not None and self.plan.growable
        return growable and self.spec is None and self.entry is None and self.stage is Stage.WHOLE

    def recall(self, hands: Hands) -> bool:
        """Ask what it was made from where nothing waits for that; False: it is known, or was asked a moment ago."""
        if not self._forgot or hands.now_s < self._recall_at_s:
            return False
        self._recall_at_s = hands.now_s + RECALL_S
        hands.ask_spec(self.uid)
        return True

    @property
    def lacks(self) -> tuple[Plan, GangRequest] | None:
        """Its plan, and the pods that it lacks to be all that it may be, if those may not stand just anywhere. None
        while it is being resized, while nobody knows, and where no order to grow would be followed."""
        plan = self.plan
        if self.stage is not Stage.WHOLE or self.entry is not None or plan is None or not plan.growable:
            return None
        if self.spec is None or plan.joining or plan.leaving or self._next is not None:
            return None
        if self._members.count(*PAST_GROWING):
            return None
        request = self.spec.request
        more = joining(request, plan.counts, counts_of(request)) if not grows_freely(request) else None
        return (plan, request) if more is not None else None

    def ordered(self, counts: tuple[int, ...], resized_at: int) -> None:
        """Desired state that counts says so; older orders are nothing new."""
        if resized_at and (self.order is None or resized_at > self.order[1]):
            self.order = (counts, resized_at)

    # --- the steps, while it is whole ---------------------------------------------------------------------------------

    def _resize(self, hands: Hands) -> None:
        """Take every step that is possible now."""
        assert self.plan is not None
        if self.plan.workload == "job":
            return
        self._follow_intent(hands)
        self._sweep(hands)
        if self._next is None:
            self._decide(hands, self.plan)
        if self._next is not None:
            self._write_next(hands, self._next)

    def _decide(self, hands: Hands, plan: Plan) -> None:
        """What the intent should say next, if anything."""
        if plan.leaving:
            if self._gone(hands):
                self._next = parted(plan)
        elif plan.joining:
            self._judge_joining(hands, plan)
        elif self.order is not None and self.order[1] > plan.resized_at:
            self._begin(hands, plan, *self.order)

    def _follow_intent(self, hands: Hands) -> None:
        """The newest intent that was shown is the plan."""
        stands = hands.intent(self.token)
        if stands is None or stands[0] is self._followed:
            return
        self._followed = stands[0]
        if stands[0].plan != self.plan:
            self._adopt(stands[0].plan, hands)

    def _adopt(self, plan: Plan, hands: Hands) -> None:
        self.plan, self._next = plan, None
        self._since_s = hands.now_s if plan.joining else None
        if plan.leaving:
            hands.calls.cancel_starts(self.token)
        self._rehold(plan.holdings(), hands)
        self._members.reseat(plan)
        for key, view in sorted(hands.pods.of(self.token).items()):
            self._members.changed(key, view, None, hands.inventory, ghost_until_s=hands.now_s)
        self._hot = deque(dict.fromkeys((*self._members.apart(), *sorted(hands.pods.of(self.token)))))
        self._teller.anew()

    def _write_next(self, hands: Hands, plan: Plan) -> None:
        """Replace the intent, unless another one stands by now. Pods join only with the right to start."""
        if plan.joining and self._too_late(hands, plan):
            plan = self._decline(hands, (Reason.BIND_DEADLINE.code, "its intent was not written in time"))
        stands = hands.intent(self.token)
        if stands is None:
            self._ask(hands, errands.read_intent(self.token, hands.config.namespace))
        elif not plan.joining or (self.accepted and hands.may_start):
            self._ask(hands, errands.replace_intent(plan, stands[1], hands.config.namespace))

    # --- an order -----------------------------------------------------------------------------------------------------

    def _begin(self, hands: Hands, plan: Plan, counts: tuple[int, ...], resized_at: int) -> None:
        now = plan.counts
        pairs = list(zip(counts, now, strict=False))
        if counts == now:
            self._next = kept(plan, resized_at)
        elif len(counts) == len(now) and all(new <= old for new, old in pairs):
            self._shrink(plan, counts, resized_at)
        elif len(counts) == len(now) and all(new >= old for new, old in pairs):
            self._grow(hands, plan, counts, resized_at)
        else:
            why = f"{counts} pods by role are neither more nor fewer than {now}"
            self._next = kept(plan, resized_at, (Reason.TEMPLATE_REFUSED.code, why))

    def _shrink(self, plan: Plan, counts: tuple[int, ...], resized_at: int) -> None:
        """Not where fewer than the gang needs would be left of those that live."""
        after = shrunk(plan, counts, resized_at)
        staying = frozenset(range(plan.pods)) - frozenset(after.leaving)
        if self._members.well(staying) < plan.min_count:
            why = (Reason.MEMBER_LOST.code, "of those that would stay, members are gone")
            after = kept(plan, resized_at, why)
        self._next = after

    def _grow(self, hands: Hands, plan: Plan, counts: tuple[int, ...], resized_at: int) -> None:
        if self._members.count(*PAST_GROWING):
            why = (Reason.MEMBER_LOST.code, "members are gone or done")
            self._next = kept(plan, resized_at, why)
            return
        if not self.accepted or not hands.may_start:
            return
        if self.spec is None:
            self._ask_spec(hands)
            return
        found = self._nodes_for(hands, plan, self.spec, counts, resized_at)
        if isinstance(found, Plan):
            self._next, self._since_s = found, hands.now_s
            self._rehold(found.holdings(), hands)
        else:
            self._next = kept(plan, resized_at, found)

    def _nodes_for(self, hands: Hands, plan: Plan, spec: Spec, counts: tuple[int, ...], resized_at: int) -> Plan | Why:
        """As many of the pods as there is room for near, or apart from, those that run; `declined` says why no more."""
        whole = joining(spec.request, plan.counts, counts)
        if whole is None or with_counts(spec.request, counts) is None:
            return Reason.TEMPLATE_REFUSED.code, f"pods cannot join it so that it has {counts} by role"
        table, standing = hands.inventory.table(), plan.standing()
        near = partial(assign_joining, standing=standing)

        def fits(more: GangRequest) -> Assignment | None:
            answer = within_pod_places(hands.inventory, more, near)
            return answer if isinstance(answer, Assignment) else None

        found = largest_growth(spec.request, plan.counts, counts, fits)
        if found is not None and found[0] == counts:
            return grown(plan, found[1], devices_of(found[1], table, hands.inventory), resized_at)
        because = within_pod_places(hands.inventory, whole, near)
        assert not isinstance(because, Assignment), "the whole was asked for first"
        why = because[0].reason.code, "; ".join(map(str, because))
        if found is None:
            return why
        return grown(plan, found[1], devices_of(found[1], table, hands.inventory), resized_at, why)

    # --- pods that join, leave, or belong to no size ------------------------------------------------------------------

    def _sweep(self, hands: Hands) -> None:
        """Look at the pods that changed."""
        assert self.plan is not None
        if not self._hot:
            return
        joining, leaving = frozenset(self.plan.joining), frozenset(self.plan.leaving)
        waiting: deque[PodKey] = deque()
        while self._hot:
            key = self._hot.popleft()
            seat, view = self._members.rank(key), hands.pods.get(key)
            if seat in joining:
                if not self._join(hands, self.plan, key, seat):
                    waiting.append(key)
            elif (seat is None or seat in leaving) and view is not None and view.token == self.token:
                self._undo_pod(hands, view)
        self._hot = waiting

    def _join(self, hands: Hands, plan: Plan, key: PodKey, seat: int | None) -> bool:
        """Make the pod, or bind it once all who join were made; False: look again."""
        assert seat is not None
        if self._next is not None or not self.accepted or not hands.may_start:
            return False
        if self.spec is None:
            self._ask_spec(hands)
            return False
        if hands.calls.busy(self.token, Step.READ_POD, str(key)):
            return True
        if hands.calls.starts_of(self.token) >= STARTS_QUEUED_MAX:
            return False
        state, view = self._members.state(key), hands.pods.get(key)
        if state is None:
            self._ask(hands, errands.create_pod(plan, self.spec.group, key, seat))
        elif state is Member.OPEN and view is not None:
            if self._members.made_apart < len(plan.joining):
                return False
            why = self._no_room_for_added(hands)
            if why is not None:
                self._give_back(hands, why)
                return True
            self._ask(hands, errands.bind_pod(plan, view, seat))
        return True

    def _judge_joining(self, hands: Hands, plan: Plan) -> None:
        members = self._members
        for bad in BAD:
            if members.count_apart(bad):
                reason = Reason.KUBELET_REJECTED if bad is Member.REJECTED else Reason.BIND_CONFLICT
                self._give_back(hands, (reason.code, members.named(bad, apart=True)))
                return
        if self._stripped in {key.name for key in members.apart()}:
            self._give_back(
                hands, (Reason.TEMPLATE_REFUSED.code, f"admission took the labels off pod {self._stripped}")
            )
            return
        if self._given_away in {key.name for key in members.apart()}:
            why = f"admission gave pod {self._given_away} to another scheduler"
            self._give_back(hands, (Reason.TEMPLATE_REFUSED.code, why))
            return
        on_nodes = members.count_apart(*ON_NODES)
        if on_nodes == len(plan.joining):
            self._next = joined(plan)
        elif self._too_late(hands, plan):
            self._give_back(hands, (Reason.BIND_DEADLINE.code, f"{on_nodes} of {len(plan.joining)} bound in time"))

    def _too_late(self, hands: Hands, plan: Plan) -> bool:
        if self._since_s is None:
            self._since_s = hands.now_s
        over_budget_s = max(0, 2 * len(plan.joining) - hands.config.api_burst) / hands.config.api_per_s
        by_s = self._since_s + hands.config.half_bound_s + over_budget_s
        self._wake(by_s)
        return hands.now_s >= by_s

    def _give_back(self, hands: Hands, why: Why) -> None:
        """Those who join leave again; the others never notice."""
        assert self.plan is not None
        if self.plan.joining:
            hands.calls.cancel_starts(self.token)
            self._next = given_back(self.plan, why)

    def _decline(self, hands: Hands, why: Why) -> Plan:
        assert self.plan is not None
        assert self._next is not None
        hands.calls.cancel_starts(self.token)
        self._next = kept(self.plan, self._next.resized_at, why)
        self._rehold(self.plan.holdings(), hands)
        return self._next

    def _gone(self, hands: Hands) -> bool:
        """Nothing of those who leave is left: no container, no object, no write that may still make one."""
        again_s = self._members.forget_ghosts(hands.now_s, hands.inventory)
        if again_s is not None:
            self._wake(again_s)
        keys = self._members.apart()
        there = any((view := hands.pods.get(key)) is not None and view.token == self.token for key in keys)
        return not there and self._members.silent_of(keys) and not hands.calls.starts_of(self.token)

    def _rehold(self, holdings: dict[str, Amounts], hands: Hands) -> None:
        hands.inventory.release(self.holdings)
        for node, more in self._added.values():
            holdings[node] = holdings.get(node, NOTHING).plus(more)
        self.holdings = holdings
        hands.inventory.hold(holdings)

    def _no_room_for_added(self, hands: Hands) -> Why | None:
        """What admission added has to fit as well: the kubelet would turn pods away when others run already."""
        for node, more in sorted(self._added.values()):
            lacking = hands.inventory.overdrawn(node)
            for reason, unit, added, lacks in zip(ADDED_REASONS, ADDED_UNITS, more, lacking, strict=False):
                if added and lacks:
                    why = (
                        f"{node} lacks {lacks} {unit}: admission made a pod ask for {added} more than its manifest says"
                    )
                    return reason.code, why
        return None

    # --- answers ------------------------------------------------------------------------------------------------------

    def _joining_answered(self, request: Request, result: Outcome, body: KubeObject, hands: Hands) -> None:
        """Of a call for a pod that joins or leaves."""
        key = PodKey.parse(request.key)
        self._hot.append(key)
        slot = (request.step, request.key)
        match result:
            case Outcome.DONE if request.step is Step.BIND_POD:
                self._patience.worked(slot)
                uid, node = text(request.body, "metadata", "uid"), text(request.body, "target", "name")
                change = hands.pods.mark_bound(key, uid, node)
                if change is not None:
                    self.pod_changed(key, change.before, hands)
            case Outcome.DONE:
                self._patience.worked(slot)
            case Outcome.REFUSED if request.step in STARTING and not unauthorized(message_of(body)):
                self._give_back(hands, (Reason.TEMPLATE_REFUSED.code, message_of(body)))
            case Outcome.MISSING if request.step is Step.BIND_POD:
                self._give_back(hands, (Reason.BIND_CONFLICT.code, f"pod {request.key} is gone"))
            case _ if request.step in STARTING:
                if result in {Outcome.CONFLICT, Outcome.UNKNOWN}:
                    self._ask(hands, errands.read_pod(self.token, key))
                tries = self._start_failed_by(request, result, body, hands)
                if tries >= ATTEMPTS_MAX:
                    self._give_back(hands, (Reason.API_ERROR.code, f"{request.step} {request.key} failed"))
            case Outcome.MISSING:
                self._patience.worked(slot)
            case _:
                self._patience.failed(slot, hands.now_s)

    def _intent_replaced(self, result: Outcome, hands: Hands) -> None:
        """What stands is in the books, or is read."""
        slot = (Step.REPLACE_INTENT, "")
        if result is Outcome.DONE:
            self._patience.worked(slot)
            return
        self._patience.failed(slot, hands.now_s)
        if result in {Outcome.CONFLICT, Outcome.UNKNOWN}:
            self._ask(hands, errands.read_intent(self.token, hands.config.namespace))

    def _intent_kept(self, step: Step, result: Outcome, hands: Hands) -> None:
        if step is Step.READ_INTENT:
            self._intent_reread(result, hands)
        else:
            self._intent_rewritten(result, hands)

    def _intent_reread(self, result: Outcome, hands: Hands) -> None:
        """What was found is in the books; where nothing is, it is written again."""
        if result is Outcome.DONE and hands.intent(self.token) is not None:
            self._patience.worked((Step.READ_INTENT, ""))
        elif result is Outcome.DONE and self.plan is not None:  # somebody, or admission, took its labels off
            self._patience.failed((Step.READ_INTENT, ""), hands.now_s)
            self._ask(hands, errands.label_intent(self.plan, hands.config.namespace))
        else:
            self._intent_written = result is not Outcome.MISSING
            self._patience.failed((Step.READ_INTENT, ""), hands.now_s)

    def _intent_rewritten(self, result: Outcome, hands: Hands) -> None:
        """It is tried for as long as the gang runs: nothing else waits for it."""
        if result is Outcome.DONE:
            self._intent_marked = False
            self._patience.worked((Step.WRITE_INTENT, ""))
        else:
            self._patience.failed((Step.WRITE_INTENT, ""), hands.now_s)
        self._intent_written = result in {Outcome.DONE, Outcome.CONFLICT, Outcome.UNKNOWN}

    # --- the outcome --------------------------------------------------------------------------------------------------

    @property
    def _size_news(self) -> bool:
        """The journal is to hear how many pods there are."""
        plan = self.plan
        if plan is None or plan.joining or plan.leaving or self._next is not None:
            return False
        return self._size_told < plan.resized_at or self._size_doubted

    def _size_answered(self, answer: VerdictAnswer) -> bool:
        if self.plan is None or not self._size_news or answer.resized_at != self.plan.resized_at:
            return False
        self._size_told, self._size_doubted = answer.resized_at, False
        return True


def message_of(body: KubeObject) -> str:
    return text(body, "message") or "refused by the API server"
