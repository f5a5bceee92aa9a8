"""All gangs of this cluster: which of them to look at, in which order, and objects that no gang explains.

One gang's own steps are `binding`'s; who may act, and what is desired, is `reconcile`'s.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from cluster_agents.core.binding import Gang
from cluster_agents.core.books import Books, Touched
from cluster_agents.core.hands import Hands
from cluster_agents.core.plan import Plan
from cluster_agents.core.pods import Amounts
from cluster_agents.core.stages import LIVING, Stage
from placement.model import GangRequest, Reason, Token

RECALLS_MAX: Final = 64  # at once, that is with a report: a server answers as many in a few milliseconds
ROUNDS_MAX: Final = 1_000  # a gang that moves makes at most a few others move; more would be a loop


class Roster:
    """Gangs by token."""

    def __init__(self, books: Books, hands: Hands) -> None:
        self._books = books
        self._hands = hands
        self.gangs: dict[str, Gang] = {}
        self._dirty: set[str] = set()
        self._strays: set[str] = set()  # tokens with objects but without a gang
        self._held: set[str] = set()
        self._ledger_waiters: set[str] = set()
        self._undecided: set[str] = set()  # with a resize that no report may show yet
        self._due: list[tuple[float, str]] = []

    def __iter__(self) -> Iterator[Gang]:
        """In the order of tokens."""
        for token in sorted(self.gangs):
            yield self.gangs[token]

    def get(self, token: str) -> Gang | None:
        return self.gangs.get(token)

    def lives(self, token: str) -> bool:
        """It has not been given up, so that nothing of it was deleted by us."""
        gang = self.gangs.get(token)
        return gang is not None and gang.entry is None

    def group_of(self, token: str) -> str:
        """The group of this token; empty where nobody here knows."""
        gang = self.gangs.get(token)
        return gang.uid if gang is not None else ""

    def lacking(self) -> Iterator[tuple[str, Plan, GangRequest]]:
        """Gangs that lack pods which may not stand just anywhere; see `Resizing.lacks`."""
        for token, gang in self.gangs.items():
            lacks = gang.lacks
            if lacks is not None:
                yield token, *lacks

    def recall(self) -> None:
        """Gangs that a process before this one made ask what they were made from, a few at a time: thousands at once
        would leave verdicts no way out."""
        left = RECALLS_MAX
        for gang in self.gangs.values():
            left -= gang.recall(self._hands)
            if not left:
                return

    # --- coming and going ---------------------------------------------------------------------------------------------

    def rebuild(self, *, now_s: float) -> None:
        """From what is in the cluster: ledger entries first (a give-up is final), then intents; the rest are strays."""
        for entry in self._hands.ledger.entries():
            self.add(Gang.given_up(entry, self._books.intents.get(entry.token), now_s=now_s))
        for token in sorted(self._books.intents.keys() - self.gangs.keys()):
            self.add(Gang.restored(self._books.intents[token], now_s=now_s))
        known = {*self._books.pods.tokens(), *self._books.jobs.tokens()}
        self._strays = known - self.gangs.keys()

    def clear(self) -> None:
        """Forget all gangs and what they hold; the books stay."""
        for gang in self:
            if not gang.over:
                self._books.inventory.release(gang.holdings)
        self.gangs.clear()
        self._dirty.clear()
        self._strays.clear()
        self._held.clear()
        self._ledger_waiters.clear()
        self._undecided.clear()
        self._due.clear()

    def add(self, gang: Gang, *, held: bool = False) -> None:
        """A gang joins, which must be new; `held`: its resources count already."""
        assert gang.token not in self.gangs
        self.gangs[gang.token] = gang
        if not held:
            gang.hold(self._hands)
        pods = self._books.pods.of(gang.token)
        for key in sorted(pods, key=lambda key: (not pods[key].node, key)):  # seats are first theirs who sit already
            gang.pod_changed(key, None, self._hands)
        self._strays.discard(gang.token)
        self._dirty.add(gang.token)

    def adopt_strays(self, covers: Callable[[Token], bool]) -> list[str]:
        """Gangs for objects that have none: an intent is a gang's; anything else is an orphan, once the desired state
        is known not to be just older than it. The tokens that joined."""
        joined: list[str] = []
        if not self._strays:
            return joined
        for token in sorted(self._strays):
            gang = self._gang_of_stray(token, covers)
            if token in self.gangs or (gang is None and not self._has_objects(token)):
                self._strays.discard(token)
            elif gang is not None:
                self.add(gang)
                joined.append(token)
        return joined

    def _gang_of_stray(self, token: str, covers: Callable[[Token], bool]) -> Gang | None:
        now_s = self._hands.now_s
        intent = self._books.intents.get(token)
        if intent is not None:
            return Gang.restored(intent, now_s=now_s)
        if not self._has_objects(token) or not covers(Token.parse(token)):
            return None
        job = self._books.jobs.get(token)
        groups = (job.group,) if job is not None else (view.group for view in self._books.pods.of(token).values())
        uid = next(filter(None, groups), "")
        if not uid:
            return None  # without labels, and without the intent that would tell: people have to look after it
        return Gang.stopped(uid, token, Reason.NOT_DESIRED.code, now_s=now_s)

    def _has_objects(self, token: str) -> bool:
        return bool(self._books.pods.of(token)) or self._books.jobs.get(token) is not None

    # --- what happened ------------------------------------------------------------------------------------------------

    def touch(self, touched: Iterable[Touched]) -> None:
        """Objects changed: their gangs are looked at again; objects without a gang are strays."""
        for token, key, before in touched:
            gang = self.gangs.get(token)
            if gang is None:
                self._strays.add(token)
                continue
            if key is not None:
                gang.pod_changed(key, before, self._hands)
            self._dirty.add(token)

    def look_at(self, token: str) -> None:
        self._dirty.add(token)

    def tell_again(self) -> None:
        """Another journal than the one that was told what runs."""
        for gang in self:
            gang.tell_again()
            self._dirty.add(gang.token)

    def look_at_growing(self) -> None:
        """Whoever waited for the right to start."""
        self._dirty.update(token for token, gang in self.gangs.items() if gang.entry is None)

    def ledger_changed(self) -> None:
        """Those who wait for a write look again; what the ledger says was given up, by whomever, is given up."""
        self._dirty |= self._ledger_waiters
        for gang in self:
            if gang.entry is None and self._hands.ledger.has(gang.token):
                gang.release(Reason.NOT_DESIRED.code)
                self._dirty.add(gang.token)

    def stop_what_may_not_run(self) -> None:
        """Only groups that may be held run on without a lease; what we stop ourselves we give up."""
        for gang in self:
            if gang.entry is None and not gang.may_be_held:
                gang.release(Reason.LEASE_LOST.code)
                self._dirty.add(gang.token)

    # --- looking ------------------------------------------------------------------------------------------------------

    def due_s(self) -> float:
        return self._due[0][0] if self._due else float("inf")

    def advance(self, now_s: float) -> list[Gang]:
        """Every gang that something happened to, or whose time has come, in the order of tokens, until all are at
        rest. Those that changed their stage; the ones GONE have left."""
        while self._due and self._due[0][0] <= now_s:
            _, token = heapq.heappop(self._due)
            gang = self.gangs.get(token)
            if gang is not None and gang.due_s <= now_s:
                self._dirty.add(token)
        moved: list[Gang] = []
        if not self._dirty:
            return moved
        for _ in range(ROUNDS_MAX):
            if not self._dirty:
                return moved
            dirty, self._dirty = sorted(self._dirty), set()
            for token in dirty:
                gang = self.gangs.get(token)
                if gang is not None and self._advance(gang):
                    moved.append(gang)
        raise AssertionError("gangs never came to rest")

    def _advance(self, gang: Gang) -> bool:
        before, was_due_s = gang.stage, gang.due_s
        gang.advance(self._hands)
        token = gang.token
        _keep(self._held, token, when=gang.may_be_held)
        _keep(self._undecided, token, when=gang.undecided_at < float("inf"))
        _keep(self._ledger_waiters, token, when=gang.stage in {Stage.GIVING_UP, Stage.LANDED})
        if gang.stage is not before:
            self._note(gang, before)
        if gang.stage is Stage.GONE:
            del self.gangs[token]
            if self._has_objects(token):
                self._strays.add(token)
        elif gang.due_s < float("inf") and gang.due_s != was_due_s:
            heapq.heappush(self._due, (gang.due_s, token))
        return gang.stage is not before

    def _note(self, gang: Gang, before: Stage) -> None:
        fields = {"group": gang.uid, "token": gang.token, "stage": gang.stage.value, "was": before.value}
        if before in LIVING and gang.entry is not None:
            fields |= {"verdict": gang.entry.verdict, "reasons": ",".join(gang.entry.reasons)}
        self._hands.note("gang.moved", **fields)

    # --- what it says -------------------------------------------------------------------------------------------------

    def held(self) -> tuple[str, ...]:
        """The tokens that may run on past the lease's deadline, in order."""
        return tuple(sorted(token for token in self._held if self.gangs[token].may_be_held))

    def undecided_at(self) -> float:
        """The lowest position of a resize that was not decided yet."""
        return min((self.gangs[token].undecided_at for token in self._undecided), default=float("inf"))

    def may_run(self) -> tuple[str, ...]:
        """The tokens of which a container may run or start, with or without a gang, in order. O(gangs)."""
        strays = {token for token in self._strays if self._has_objects(token)}
        return tuple(sorted(strays | {gang.token for gang in self if gang.may_run(self._hands)}))

    def uids(self, tokens: tuple[str, ...]) -> tuple[str, ...]:
        """The group of each of these tokens; empty where nothing here says it."""
        return tuple(map(self.group_of, tokens))

    def check_invariants(self) -> None:
        """AssertionError unless every gang is sound and the inventory holds exactly what they hold."""
        held: dict[str, Amounts] = {}
        for gang in self:
            gang.check_invariants(self._hands)
            if not gang.over:
                for node, amounts in gang.holdings.items():
                    held[node] = held.get(node, Amounts()).plus(amounts)
        assert held == self._books.inventory.held(), "the inventory holds something else than the gangs"


def _keep(tokens: set[str], token: str, *, when: bool) -> None:
    if when:
        tokens.add(token)
    else:
        tokens.discard(token)
