"""From desired tokens to gangs: specs are fetched, nodes assigned in journal order, what does not fit is refused.

Only called while the desired state may be acted on. Which tokens are desired is `desired`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from cluster_agents.core.assigning import devices_of
from cluster_agents.core.binding import Gang
from cluster_agents.core.hands import Hands
from cluster_agents.core.plan import plan_for
from cluster_agents.core.pod_places import within_pod_places
from cluster_agents.core.spec import Spec, read_spec
from federation.protocol.messages import DesiredGroup, SpecAnswer
from placement.assign import assign
from placement.assignment import Assignment
from placement.elastic import with_counts
from placement.model import Because, FenceStrength, Reason, Token
from placement.node_order import LearntWorth

SPEC_HOLDS_S: Final = 5.0
"""How long a missing spec keeps later groups waiting: journal order matters, one unreadable spec must not stop all."""

ONE_NAME: Final = (
    "the pods of a Job are alike, and the nodes that have room call their parts of GPUs by different names"
)

SPECS_AHEAD: Final = 256  # specs asked for at once, so that a burst does not wait a round trip per group
SPECS_MAX: Final = 4_096  # specs fetched and not yet used


class _Waiting:
    """A desired token without a gang."""

    __slots__ = ("ask_at_s", "group", "noted", "patience_s", "position", "since_s")

    def __init__(self, group: DesiredGroup, now_s: float) -> None:
        self.group = group
        self.position = Token.parse(group.token).position
        self.since_s = now_s
        self.ask_at_s = 0.0
        self.noted = False  # waits for what it displaces; their resources are promised to it
        self.patience_s = 0.0


class Intake:
    """Desired tokens that were not decided yet."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}
        self._uids: dict[str, str] = {}  # group -> the newest token of it that waits
        self._specs: dict[str, Spec | Because] = {}
        self._worth = LearntWorth()  # of what came to this cluster since the agent started
        self.due_s = float("inf")

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, token: str) -> bool:
        return token in self._waiting

    def add(self, group: DesiredGroup, now_s: float) -> None:
        """A token is desired and has no gang."""
        known = self._waiting.get(group.token)
        if known is None:
            self._waiting[group.token] = _Waiting(group, now_s)
            self._uids[group.uid] = group.token
        else:
            known.group = group
        self.due_s = 0.0

    def drop(self, token: str) -> None:
        """It is not desired any more, or was decided."""
        waiting = self._waiting.pop(token, None)
        if waiting is not None and self._uids.get(waiting.group.uid) == token:
            del self._uids[waiting.group.uid]
            self._specs.pop(waiting.group.uid, None)

    @property
    def applied_before(self) -> float:
        """The rows show no group at or above this position: the first that is undecided and not promised."""
        return min((one.position for one in self._waiting.values() if not one.noted), default=float("inf"))

    def spec_answered(self, answer: SpecAnswer, *, wanted: bool) -> Spec | None:
        """Take a spec in; None when there is none, when it is a bad one (then the group is refused in turn), or when
        nobody waits for it (`wanted`: a gang found in the cluster does), as for the second path's answer."""
        if answer.spec is None or answer.uid in self._specs or not (wanted or answer.uid in self._uids):
            return None
        spec = read_spec(answer.spec, answer.origin)
        if answer.uid in self._uids and len(self._specs) < SPECS_MAX:
            self._specs[answer.uid] = spec
            self.due_s = 0.0
        return spec if isinstance(spec, Spec) else None

    def decide(self, hands: Hands, gangs: Mapping[str, Gang]) -> list[Gang]:
        """The gangs of all tokens that can be decided now, in journal order; their resources are held at once."""
        self.due_s = float("inf")
        if not self._waiting:
            return []
        order = sorted(self._waiting.values(), key=lambda one: (one.position, one.group.token))
        for waiting in order[:SPECS_AHEAD]:
            self._spec(waiting, hands)
        living = sum(gang.entry is None for gang in gangs.values())
        running = _by_group(gangs)
        decided: list[Gang] = []
        for waiting in order:
            if not hands.ledger.room_for(living + len(decided)):
                break
            gang, stop = self._decide(waiting, hands, gangs, running.get(waiting.group.uid, []))
            if gang is not None:
                gang.hold(hands)
                self.drop(gang.token)
                decided.append(gang)
            if stop:
                break
        return decided

    def _decide(
        self, waiting: _Waiting, hands: Hands, gangs: Mapping[str, Gang], own: list[Gang]
    ) -> tuple[Gang | None, bool]:
        """The gang of one token, or None; and whether later tokens must wait for it."""
        group = waiting.group
        if group.bound:  # it was whole here once, and nothing of it is left
            return Gang.stopped(group.uid, group.token, Reason.MEMBER_LOST.code, now_s=hands.now_s), False
        victims = [gangs[token] for token in group.after if token in gangs and not gangs[token].over]
        displaced = victims or [gang for gang in own if gang.token != group.token]
        if displaced:
            self._note(waiting, displaced, hands)
            if hands.now_s < waiting.since_s + waiting.patience_s:
                self._wake(waiting.since_s + waiting.patience_s)
                return None, False
            because = (Because(Reason.VICTIM_STILL_RUNNING, detail=displaced[0].token),)
            return Gang.refused(group.uid, group.token, because, now_s=hands.now_s), False
        spec = self._spec(waiting, hands)
        if spec is not None:
            return self._assigned(group, spec, hands), False
        holds_s = waiting.since_s + SPEC_HOLDS_S
        if hands.now_s < holds_s:
            self._wake(holds_s)
        return None, hands.now_s < holds_s

    def _note(self, waiting: _Waiting, displaced: list[Gang], hands: Hands) -> None:
        """Its nodes are promised to it; from now on it counts as decided, for as long as its victims may take."""
        if not waiting.noted:
            waiting.noted = True
            waiting.since_s = hands.now_s
            waiting.patience_s = max(gang.grace_s for gang in displaced) + hands.config.timings.undo_s

    def _spec(self, waiting: _Waiting, hands: Hands) -> Spec | Because | None:
        spec = self._specs.get(waiting.group.uid)
        if spec is None:
            if hands.now_s >= waiting.ask_at_s:
                waiting.ask_at_s = hands.now_s + hands.config.timings.ask_timeout_s
                hands.ask_spec(waiting.group.uid)
            self._wake(waiting.ask_at_s)
        return spec

    def _assigned(self, group: DesiredGroup, spec: Spec | Because, hands: Hands) -> Gang:
        if isinstance(spec, Because):
            return Gang.refused(group.uid, group.token, (spec,), now_s=hands.now_s)
        request = with_counts(spec.request, group.counts)
        if request is None:
            because = Because(Reason.TEMPLATE_REFUSED, detail=f"no size of this group has {group.counts} pods by role")
            return Gang.refused(group.uid, group.token, (because,), now_s=hands.now_s)
        self._worth.asked(request)
        table = hands.inventory.table()
        self._worth.look((table,))
        chosen = within_pod_places(hands.inventory, request, partial(assign, worth=self._worth.now))
        if not isinstance(chosen, Assignment):
            return Gang.refused(group.uid, group.token, chosen, now_s=hands.now_s)
        devices = devices_of(chosen, table, hands.inventory)
        if spec.group.workload == "job" and len(set(devices)) > 1:
            unlike = Because(Reason.NO_SUITABLE_NODE, detail=ONE_NAME)
            return Gang.refused(group.uid, group.token, (unlike,), now_s=hands.now_s)
        guarded = hands.config.fence_strength is FenceStrength.GUARD
        return Gang.decided(plan_for(group, spec.group, chosen, devices, guarded=guarded), spec, now_s=hands.now_s)

    def _wake(self, at_s: float) -> None:
        self.due_s = min(self.due_s, at_s)


def _by_group(gangs: Mapping[str, Gang]) -> dict[str, list[Gang]]:
    """The gangs of which a container may run, by group, in the order of tokens."""
    found: dict[str, list[Gang]] = {}
    for token in sorted(gangs):
        if not gangs[token].over:
            found.setdefault(gangs[token].uid, []).append(gangs[token])
    return found
