"""How a gang ends in this cluster: the give-up into the ledger, pods deleted until the last container has ended, the
verdict told until it landed, then the traces. What every stage of a gang works on is kept here.

When a gang is given up, and what comes before, is `binding`'s.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from cluster_agents.core import errands
from cluster_agents.core.calls import Outcome, Request, Step, unauthorized
from cluster_agents.core.config import SCHEDULER_NAME
from cluster_agents.core.endings import Ending
from cluster_agents.core.errands import Patience, Slot
from cluster_agents.core.events import KubeObject
from cluster_agents.core.hands import Hands
from cluster_agents.core.ledger import Entry
from cluster_agents.core.members import GHOST_MARGIN_S, Members
from cluster_agents.core.objects import text
from cluster_agents.core.plan import Plan
from cluster_agents.core.pods import NOTHING, Amounts, PodKey, PodView
from cluster_agents.core.spec import Spec
from cluster_agents.core.stages import CONTAINERS_OVER, GROWING, LIVING, Stage
from cluster_agents.core.telling import Teller
from placement.model import Token

NO_ANSWER: Final = frozenset({Outcome.UNKNOWN, Outcome.BUSY})


class Undoing:
    """One token's gang as far as it can be ended. `plan` is None when nothing is known but pods or a ledger entry."""

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
        self._added: dict[PodKey, tuple[str, Amounts]] = {}  # to what pods ask for, by admission: on which node
        self._released = False
        self._began_s = now_s
        self._binding_since_s: float | None = None
        self._job_asked_s: float | None = None  # since then it has made too few pods
        self._lost_since_s: float | None = None  # a Job's pods are gone, and it does not say why
        self._intent_written = False
        self._intent_marked = False
        self._service_made = False
        self._ran = False  # at least min_count ran at once: it gets its full grace
        self._found = False  # not decided by this process: what it did before is not known
        self._bound_answered = False
        self._running_answered = False
        self._members = Members(plan)
        self._stripped = ""  # a pod of it that has lost its labels
        self._given_away = ""  # a pod of it that another scheduler may bind
        self._hot: deque[PodKey] = deque()  # pods that need a call
        self._patience = Patience()
        self._failing: tuple[Slot, str] | None = None  # what failed last and has not worked since, and how
        self._ask_spec_at_s = 0.0
        self._teller = Teller(uid, token)
        self._cleaned: set[Step] = set()
        self._hot.extend(self._members.seats())

    # --- what others ask ----------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """No container of it runs, and none can start."""
        return self.stage in CONTAINERS_OVER

    def may_run(self, hands: Hands) -> bool:
        """Does a container of it run, or could a write under way start one? Asked by a cluster that is re-admitted."""
        return not self.over and (not self._members.silent or hands.calls.starts_of(self.token) > 0)

    @property
    def grace_s(self) -> int:
        return self.plan.grace_s if self.plan else 0

    def pod_changed(self, key: PodKey, before: PodView | None, hands: Hands) -> None:
        """A pod of the token came, changed or went. O(1)."""
        view = hands.pods.get(key)
        if view is not None and view.token != self.token:
            view = None
        grace_s = max(self.grace_s, before.grace_s if before else 0)
        until_s = hands.now_s + grace_s + GHOST_MARGIN_S
        self._members.changed(key, view, before, hands.inventory, ghost_until_s=until_s)
        if view is not None or self.stage in GROWING:
            self._hot.append(key)
        if view is not None and not view.labelled:
            self._stripped = key.name
        if view is not None and view.scheduler != SCHEDULER_NAME:
            self._given_away = key.name
        if self.plan is None:
            self._hold_what_pods_use(hands)
        else:
            self._hold_what_was_added(self.plan, key, view, hands)

    def _ask_spec(self, hands: Hands) -> None:
        if hands.now_s >= self._ask_spec_at_s:
            self._ask_spec_at_s = hands.now_s + hands.config.timings.ask_timeout_s
            hands.ask_spec(self.uid)
        self._wake(self._ask_spec_at_s)

    # --- 4. giving up -------------------------------------------------------------------------------------------------

    def _end(self, ending: Ending) -> None:
        if self.entry is None:
            self._give_up(ending.entry(self.uid, self.token))

    def _give_up(self, entry: Entry) -> None:
        """Final. Nothing is undone before the ledger has it, so that no restart can take it back."""
        assert self.entry is None
        self.entry = entry
        self.stage = Stage.GIVING_UP
        self._patience.clear()
        self._hot.clear()
        self._teller.anew()
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
        again_s = self._members.forget_ghosts(hands.now_s, hands.inventory)
        if again_s is not None:
            self._wake(again_s)
        if hands.jobs.moving(self.token) is None and self._members.silent and not hands.calls.starts_of(self.token):
            self.stage = Stage.ENDED
            self._release_holdings(hands)

    def _undo_pods(self, hands: Hands) -> None:
        job = hands.jobs.moving(self.token)
        if job is not None:
            self._ask(hands, errands.suspend_job(job))
            return
        while self._hot:
            view = hands.pods.get(self._hot.popleft())
            if view is not None and view.token == self.token:
                self._undo_pod(hands, view)

    def _undo_pod(self, hands: Hands, view: PodView) -> None:
        dead = bool(view.node) and hands.inventory.proven_dead(view.node)
        if not view.deleting or (dead and view.grace_s):
            grace_s = 0 if dead or view.ended else self._undo_grace_s(hands)
            self._ask(hands, errands.delete_pod(view, grace_s=grace_s))
        elif (view.quiet or dead) and view.kept:
            self._ask(hands, errands.free_pod(view))

    def _undo_grace_s(self, hands: Hands) -> int:
        """A gang that never ran whole has nothing to save."""
        never_ran = int(hands.config.timings.undo_grace_s)
        if self.plan is None:
            return never_ran
        may_have_run = self._found and self._members.placed == self.plan.settled
        return self.plan.grace_s if self._ran or may_have_run else min(never_ran, self.plan.grace_s)

    # --- 6. ended, landed ---------------------------------------------------------------------------------------------

    def _tell_the_end(self, hands: Hands) -> None:
        assert self.entry is not None
        self._undo_pods(hands)
        if self.landed_at:
            self.stage = Stage.LANDED
            return
        self._wake(self._teller.tell(hands, self.entry.verdict, entry=self.entry))

    def _drop_entry(self, hands: Hands) -> None:
        self._undo_pods(hands)
        if hands.ledger.has(self.token):
            lineage = hands.lineage or self.parsed.lineage
            hands.ledger.drop(self.token, lineage, self.landed_at, hands.now_s)
        else:
            self.stage = Stage.CLEANING
            self._hot = deque(sorted(hands.pods.of(self.token)))

    # --- 7. cleaning --------------------------------------------------------------------------------------------------

    def _clean(self, hands: Hands) -> None:
        """Delete what is left: pods, then the Job and the Service, the intent last."""
        self._undo_pods(hands)
        if hands.pods.of(self.token):
            return
        job = hands.jobs.get(self.token)
        if job is not None:
            self._ask(hands, errands.delete_job(job))
        elif self.plan is None:
            self.stage = Stage.GONE
        elif self.plan.has_service and Step.DELETE_SERVICE not in self._cleaned:
            self._ask(hands, errands.delete_service(self.plan))
        elif Step.DELETE_INTENT not in self._cleaned:
            self._ask(hands, errands.delete_intent(self.token, hands.config.namespace))
        else:
            self.stage = Stage.GONE

    def _undo_answered(self, request: Request, result: Outcome, hands: Hands) -> None:
        """Undoing is repeated until it is done."""
        settled = result in {Outcome.DONE, Outcome.MISSING}
        match request.step:
            case Step.DELETE_INTENT | Step.DELETE_SERVICE if settled:
                self._cleaned.add(request.step)
            case _ if settled:
                self._patience.worked((request.step, request.key))
            case _:
                self._patience.failed((request.step, request.key), hands.now_s)
        if request.key:
            self._hot.append(PodKey.parse(request.key))

    def _start_failed_by(self, request: Request, result: Outcome, body: KubeObject, hands: Hands) -> int:
        """Try again a little later; how often it failed by its own fault. A server that has too much to do, or does not
        do either what this process asks of it for itself, is no reason to go elsewhere before the time is over."""
        slot = (request.step, request.key)
        before_s = self._patience.failed_before_s(slot)
        no_answer = result in NO_ANSWER or (result is Outcome.REFUSED and unauthorized(text(body, "message")))
        its_own = not no_answer or before_s is None or hands.calls.well_since(before_s)
        return self._patience.failed(slot, hands.now_s, put_off=result is Outcome.THROTTLED or not its_own)

    def _ask(self, hands: Hands, request: Request) -> None:
        """Want a call, unless it failed a moment ago."""
        again_s = self._patience.ask(request, hands.calls, hands.now_s)
        if again_s is not None:
            self._wake(again_s)

    def _wake(self, at_s: float) -> None:
        self.due_s = min(self.due_s, at_s)

    # --- holdings -----------------------------------------------------------------------------------------------------

    def hold(self, hands: Hands) -> None:
        """Its resources count from now on."""
        hands.inventory.hold(self.holdings)

    def _release_holdings(self, hands: Hands) -> None:
        if not self._released:
            self._released = True
            hands.inventory.release(self.holdings)

    def _hold_what_was_added(self, plan: Plan, key: PodKey, view: PodView | None, hands: Hands) -> None:
        """A limit range, a runtime class or a webhook may make a pod ask for more than its manifest does."""
        seat = self._members.rank(key)
        if self._released or (seat is None and key not in self._added):
            return
        more = view.amounts.beyond(plan.asks(seat)) if view is not None and seat is not None else NOTHING
        node, before = self._added.pop(key, ("", NOTHING))
        if before != NOTHING:
            hands.inventory.release({node: before})
            self.holdings[node] = self.holdings[node].minus(before)
        if more != NOTHING and seat is not None:
            node = plan.nodes[seat]
            self._added[key] = node, more
            hands.inventory.hold({node: more})
            self.holdings[node] = self.holdings.get(node, NOTHING).plus(more)

    def _hold_what_pods_use(self, hands: Hands) -> None:
        """Without a plan only the pods say what is held."""
        if self._released:
            return
        hands.inventory.release(self.holdings)
        self.holdings = hands.pods.held_by(self.token)
        hands.inventory.hold(self.holdings)

    def check_invariants(self, hands: Hands) -> None:
        """AssertionError unless stage, entry and counts agree."""
        assert (self.entry is None) == (self.stage in LIVING)
        self._members.check_invariants()
        if self.stage in {Stage.UNDOING, Stage.ENDED}:
            assert hands.ledger.has(self.token), "undone before the ledger had it"
        if self.over:
            assert not hands.calls.starts_of(self.token)
            assert self._released
