"""How the pods of one gang stand: seats by rank, states, and of which pods a container may still run.

Counts only, O(1) per changed pod; what follows from them is decided in `binding`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from cluster_agents.core.inventory import Inventory
from cluster_agents.core.plan import Plan
from cluster_agents.core.pods import GUARD_FENCED, PodKey, PodView

GHOST_MARGIN_S: Final = 10.0  # beyond its grace, for the kubelet of a pod whose object somebody tore away

# The kubelet's and the guard's own reasons for ending a started pod that did nothing wrong.
TAKEN_AWAY: Final = frozenset(
    {GUARD_FENCED, "Evicted", "NodeShutdown", "Shutdown", "Terminated", "Preempting", "NodeLost"}
)


class Member(Enum):
    """How one pod stands in its gang."""

    OPEN = auto()  # exists, unbound
    BOUND = auto()  # on its node
    RUNNING = auto()
    SUCCEEDED = auto()
    FAILED = auto()  # its containers did
    REJECTED = auto()  # its kubelet did not take it
    LOST = auto()  # deleted by somebody, evicted, stopped by a guard, or its node is gone
    MISPLACED = auto()  # bound to a node that is not its own
    SPARE = auto()  # a Job's pod without a seat; never bound


BAD: Final = (Member.REJECTED, Member.MISPLACED, Member.LOST, Member.FAILED)


@dataclass(frozen=True, slots=True)
class _Ghost:
    """A pod whose object vanished before its containers were known to have ended."""

    node: str
    until_s: float


class Members:
    """The pods of one token. Without a plan there are no seats, only pods that may run."""

    def __init__(self, plan: Plan | None) -> None:
        self._plan = plan
        self._rank: dict[PodKey, int] = {}
        self._seats_free: deque[int] = deque()
        self._states: dict[PodKey, Member] = {}
        self._count: Counter[Member] = Counter()  # without those apart
        self._apart: set[PodKey] = set()  # with a seat that joins or leaves
        self._count_apart: Counter[Member] = Counter()
        self._placed: set[PodKey] = set()  # seated pods that were seen on a node
        self._loud: set[PodKey] = set()
        self._ghosts: dict[PodKey, _Ghost] = {}
        if plan is not None and plan.workload == "job":
            self._seats_free.extend(range(plan.pods))
        elif plan is not None:
            self.reseat(plan)

    # --- what it says -------------------------------------------------------------------------------------------------

    def seats(self) -> list[PodKey]:
        """The pods with a seat, whether they exist or not."""
        return list(self._rank)

    def rank(self, key: PodKey) -> int | None:
        return self._rank.get(key)

    def state(self, key: PodKey) -> Member | None:
        return self._states.get(key)

    def named(self, state: Member, *, apart: bool = False) -> str:
        """The names of the pods in this state, of those that count or of those that do not."""
        found = (key for key in sorted(self._states) if self._states[key] is state)
        return ", ".join(key.name for key in found if (key in self._apart) is apart)

    def count(self, *states: Member) -> int:
        return sum(self._count[state] for state in states)

    def count_apart(self, *states: Member) -> int:
        """The same of those that join or leave, which no other count has."""
        return sum(self._count_apart[state] for state in states)

    def apart(self) -> list[PodKey]:
        """Those that join or leave, whether they exist or not, in order."""
        return sorted(self._apart)

    @property
    def made_apart(self) -> int:
        """Of these, how many exist, or did."""
        return self._count_apart.total()

    def well(self, seats: frozenset[int]) -> int:
        """How many of these seats have a pod that nothing befell. O(pods)."""
        states = (self._states.get(key) for key, seat in self._rank.items() if seat in seats)
        return sum(state is not None and state not in BAD for state in states)

    @property
    def seated(self) -> int:
        """Pods of the gang that exist, or did."""
        return self._count.total() - self._count[Member.SPARE]

    @property
    def placed(self) -> int:
        """Pods of the gang that are, or were, on a node."""
        return len(self._placed) - len(self._placed & self._apart)

    @property
    def silent(self) -> bool:
        """No container of the token runs, as far as pods tell."""
        return not self._loud and not self._ghosts

    def taken(self, pods: Mapping[PodKey, PodView], inventory: Inventory) -> bool:
        """Whether one of these that is lost was evicted, or stopped by its kubelet or a guard, or lost with its node.
        O(pods)."""
        return any(
            one.disrupted or one.reason in TAKEN_AWAY or (bool(one.node) and inventory.proven_dead(one.node))
            for key, one in pods.items()
            if self._states.get(key) is Member.LOST
        )

    def fenced(self, pods: Mapping[PodKey, PodView]) -> bool:
        """Whether a guard stopped one of these that is lost. O(pods)."""
        return any(one.reason == GUARD_FENCED for key, one in pods.items() if self._states.get(key) is Member.LOST)

    def silent_of(self, keys: Iterable[PodKey]) -> bool:
        """No container of these runs."""
        return not any(key in self._loud or key in self._ghosts for key in keys)

    # --- changes ------------------------------------------------------------------------------------------------------

    def reseat(self, plan: Plan) -> None:
        """Another plan of the token, of no Job: who has a seat in it stands as before, who has none any more is
        forgotten. O(pods)."""
        self._plan = plan
        moving = {*plan.joining, *plan.leaving}
        self._rank = {PodKey(plan.namespace, plan.pod(seat)): seat for seat in range(plan.pods)}
        self._apart = {key for key, seat in self._rank.items() if seat in moving}
        self._states = {key: state for key, state in self._states.items() if key in self._rank}
        self._placed &= self._rank.keys()
        self._count = Counter(state for key, state in self._states.items() if key not in self._apart)
        self._count_apart = Counter(state for key, state in self._states.items() if key in self._apart)

    def changed(
        self, key: PodKey, view: PodView | None, before: PodView | None, inventory: Inventory, *, ghost_until_s: float
    ) -> None:
        """A pod of the token came, changed or went."""
        self._take_seat(key, view)
        self._recount(key, self._state_of(key, view, inventory))
        if view is not None and view.node and key in self._rank:
            self._placed.add(key)
        if view is None or view.quiet or (bool(view.node) and inventory.proven_dead(view.node)):
            self._loud.discard(key)
        else:
            self._loud.add(key)
        if view is None and before is not None and not before.quiet and before.node:
            self._ghosts[key] = _Ghost(before.node, ghost_until_s)

    def forget_ghosts(self, now_s: float, inventory: Inventory) -> float | None:
        """Drop those whose node is dead or whose kubelet has had its time; when to look again (None: none is left)."""
        again_s: float | None = None
        for key in sorted(self._ghosts):
            ghost = self._ghosts[key]
            its_time_is_over = now_s >= ghost.until_s and inventory.ready(ghost.node)
            if inventory.proven_dead(ghost.node) or its_time_is_over:
                del self._ghosts[key]
            else:
                look_s = max(ghost.until_s, now_s + GHOST_MARGIN_S)
                again_s = look_s if again_s is None else min(again_s, look_s)
        return again_s

    def _take_seat(self, key: PodKey, view: PodView | None) -> None:
        """A Job's pods get their ranks as they appear: by completion index, by the node they are on, or the next."""
        if view is None or key in self._rank or self._plan is None or not self._seats_free:
            return
        rank = self._seats_free[0]
        if view.completion_index in self._seats_free:
            rank = view.completion_index
        elif view.rank in self._seats_free:
            rank = view.rank
        elif view.node:
            rank = next((seat for seat in self._seats_free if self._plan.nodes[seat] == view.node), rank)
        self._seats_free.remove(rank)
        self._rank[key] = rank

    def _state_of(self, key: PodKey, view: PodView | None, inventory: Inventory) -> Member | None:
        if self._plan is None:
            return None
        if view is None:
            return Member.LOST if self._states.get(key, Member.SPARE) is not Member.SPARE else None
        rank = self._rank.get(key)
        if rank is None:
            return Member.SPARE
        if view.phase == "Succeeded":
            return Member.LOST if view.reason == GUARD_FENCED else Member.SUCCEEDED  # it may end well when asked to end
        if view.deleting or (view.node and inventory.proven_dead(view.node)):
            return Member.LOST
        if view.phase == "Failed":
            if view.started:
                return Member.LOST if view.reason in TAKEN_AWAY else Member.FAILED
            return Member.REJECTED
        if not view.node:
            return Member.OPEN
        if view.node != self._plan.nodes[rank]:
            return Member.MISPLACED
        return Member.RUNNING if view.phase == "Running" else Member.BOUND

    def _recount(self, key: PodKey, state: Member | None) -> None:
        count = self._count_apart if key in self._apart else self._count
        before = self._states.pop(key, None)
        if before is not None:
            count[before] -= 1
        if state is not None:
            self._states[key] = state
            count[state] += 1

    def check_invariants(self) -> None:
        """AssertionError unless counts and seats agree."""
        assert self._count.total() + self._count_apart.total() == len(self._states)
        assert min((*self._count.values(), *self._count_apart.values()), default=0) >= 0
        assert len(set(self._rank.values())) == len(self._rank), "two pods on one seat"
