"""Groups that wait, in order, and which of them need not be looked at: those equal to one that found no place.

A *pass* goes once through all groups, over as many cycles as the work budget asks for: what was found blocked is not
looked at again in the same pass, so that nothing behind it starves. Who fits is not known here.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from placement.filters import Pending
from placement.model import ClusterName, GangRequest, GroupUid, Position, QueueName
from placement.request_class import RequestClass, request_class
from placement.spread import SpreadAsk

CLASSES_KEPT_MAX: Final = 20_000  # requests taken apart: as many different ones as a fleet sees in days

OrderKey = tuple[int, Position, int, int, Position, GroupUid]

Room = Callable[[RequestClass], bool]
"""Whether any cluster could hold such a gang now, gates and labels aside."""


def order_key(item: Pending) -> OrderKey:
    """Higher priority first, then older; of equally old ones the one with more GPUs, and in larger pods, first.

    Large ones first because small ones find room beside them, and not the other way round (Graham, SIAM Journal on
    Applied Mathematics 17, 1969). Nobody waits longer for it than for those of its own journal entry. Ties by position.
    """
    roles = item.request.roles
    largest = roles[0].gpus if len(roles) == 1 else max(role.gpus for role in roles)
    gpus = roles[0].count * largest if len(roles) == 1 else item.request.gpus
    return -item.priority, item.age_at, -gpus, -largest, item.submitted_at, item.uid


_KindKey = tuple[
    RequestClass,
    QueueName,
    frozenset[ClusterName],
    SpreadAsk | GroupUid | None,
    frozenset[ClusterName],
    bool,  # whether it stays away from others: then nobody moves over for it
]


@dataclass(frozen=True, slots=True)
class Pass:
    """Where a pass stands between two cycles: what it takes to go on with it elsewhere, with the same groups.

    `blocked` names one waiting group of each kind that was found blocked, and whether only more room can help it.
    """

    open: bool
    gains: int
    blocked: tuple[tuple[GroupUid, bool], ...]


@dataclass(slots=True, eq=False)
class _Kind:
    """Groups that are alike to the engine: where one finds no place, none does. `line` is a heap of them in order."""

    key: _KindKey
    known: RequestClass
    number: int
    line: list[OrderKey] = field(default_factory=list)
    ready_at: OrderKey | None = None  # where its valid entry stands among the heads of kinds
    blocked: bool = False
    by_room: bool = False  # blocked, and only more room can help
    aside_count: int = 0  # passed over in this cycle: waiting, but not in line


class Waiting:
    """All waiting groups. `first` and what follows it cost O(log groups), whatever is blocked."""

    def __init__(self, items: Iterable[Pending] = ()) -> None:
        self._items: dict[GroupUid, tuple[Pending, _Kind, OrderKey]] = {}
        self._kinds: dict[_KindKey, _Kind] = {}
        self._classes: dict[GangRequest, RequestClass] = {}
        self._numbers = 0
        self._ready: list[tuple[OrderKey, int, _Kind]] = []  # heads of kinds; entries may be out of date
        self._passed_over: list[tuple[Pending, _Kind]] = []
        self._blocked: dict[_Kind, None] = {}
        self._pass_open = False
        self._gains = -1  # as of the present pass
        for item in items:
            self.put(item)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, uid: GroupUid) -> bool:
        return uid in self._items

    # --- who waits ---

    def put(self, item: Pending) -> None:
        """The group waits, as `item` says; what was said of it before is forgotten."""
        known = self._items.get(item.uid)
        if known is not None:
            if known[0] == item:
                return
            self.remove(item.uid)
        kind = self._kind_of(item)
        key = order_key(item)
        self._items[item.uid] = (item, kind, key)
        self._line_up(kind, key)

    def remove(self, uid: GroupUid) -> None:
        """The group waits no longer; nothing if it did not."""
        known = self._items.pop(uid, None)
        if known is not None:
            self._retire_if_empty(known[1])

    def class_of(self, item: Pending) -> RequestClass:
        return self._items[item.uid][1].known

    def alike(self, item: Pending) -> Iterator[Pending]:
        """All waiting groups of the item's kind, in order."""
        kind = self._items[item.uid][1]
        for key in sorted(set(kind.line)):
            known = self._items.get(key[-1])
            if known is not None and known[1] is kind and known[2] == key:
                yield known[0]

    def kinds(self) -> Iterator[Pending]:
        """One waiting group of each kind, the first of its line. O(kinds)."""
        for kind in self._kinds.values():
            head = self._head(kind)
            if head is not None:
                yield self._items[head[-1]][0]

    # --- a cycle, and the pass it is part of ---

    @property
    def gains(self) -> int:
        """As of the present pass, or of the last one: what came since is not looked at yet."""
        return self._gains

    def start_cycle(self, gains: int, has_room: Room) -> None:
        """Go on with the pass that the cycle before left open, or begin a new one if `gains` have grown since the last.

        In a new pass everything is looked at again, except kinds that only room can help while there is none. O(blocked
        kinds).
        """
        if self._pass_open or gains == self._gains:
            return
        self._gains = gains
        for kind in [kind for kind in self._blocked if not kind.by_room or has_room(kind.known)]:
            del self._blocked[kind]
            kind.blocked = False
            self._make_ready(kind)

    def end_cycle(self) -> bool:
        """Groups that were passed over wait as before. Whether some were not reached: then the pass stays open."""
        self._pass_open = self.first() is not None
        for item, kind in self._passed_over:
            kind.aside_count -= 1
            known = self._items.get(item.uid)
            if known is not None and known[1] is kind:
                self._line_up(kind, known[2])
            self._retire_if_empty(kind)
        self._passed_over.clear()
        return self._pass_open

    def standing(self) -> Pass:
        """Where the pass stands; only between cycles. O(blocked kinds)."""
        assert not self._passed_over, "between cycles nobody is passed over"
        heads = [(self._head(kind), kind) for kind in self._blocked]
        blocked = tuple((head[-1], kind.by_room) for head, kind in heads if head is not None)
        return Pass(self._pass_open, self._gains, blocked)

    def go_on(self, standing: Pass) -> None:
        """Go on with a pass that was begun elsewhere. LookupError where a group that it names does not wait here."""
        self._pass_open, self._gains = standing.open, standing.gains
        for uid, by_room in standing.blocked:
            kind = self._items[uid][1]
            kind.blocked, kind.by_room = True, by_room
            self._blocked[kind] = None

    def first(self) -> Pending | None:
        """The first group in order that is not blocked and was not passed over."""
        while self._ready:
            key, _, kind = self._ready[0]
            if kind.ready_at == key and not kind.blocked and self._head(kind) == key:
                return self._items[key[-1]][0]
            heapq.heappop(self._ready)
            if kind.ready_at == key:  # its head has changed
                kind.ready_at = None
                self._make_ready(kind)
        return None

    def placed(self, item: Pending) -> None:
        """The first group has found a place: it waits no longer."""
        kind = self._pop_ready(item)
        self.remove(item.uid)
        self._make_ready(kind)

    def block(self, item: Pending, *, by_room: bool) -> None:
        """The first group found no place, so nobody of its kind does in this pass."""
        kind = self._pop_ready(item)
        kind.blocked, kind.by_room = True, by_room
        self._blocked[kind] = None

    def pass_over(self, item: Pending) -> None:
        """The first group is not to be looked at in this cycle."""
        kind = self._pop_ready(item)
        heapq.heappop(kind.line)
        kind.aside_count += 1
        self._passed_over.append((item, kind))
        self._make_ready(kind)

    # --- kinds ---

    def _kind_of(self, item: Pending) -> _Kind:
        known = self._classes.get(item.request)
        if known is None:
            if len(self._classes) >= CLASSES_KEPT_MAX:
                self._classes.clear()  # kinds that still wait keep theirs
            known = self._classes[item.request] = request_class(item.request)
        key = (known, item.queue, item.avoid, item.spread or item.siblings, item.apart, item.beside != "")
        kind = self._kinds.get(key)
        if kind is None:
            self._numbers += 1
            kind = self._kinds[key] = _Kind(key, known, self._numbers)
        return kind

    def _line_up(self, kind: _Kind, key: OrderKey) -> None:
        heapq.heappush(kind.line, key)
        self._make_ready(kind)

    def _make_ready(self, kind: _Kind) -> None:
        """See to it that the kind is found by its head, or by an earlier group that was its head."""
        head = None if kind.blocked else self._head(kind)
        if head is not None and (kind.ready_at is None or head < kind.ready_at):
            kind.ready_at = head
            heapq.heappush(self._ready, (head, kind.number, kind))

    def _pop_ready(self, item: Pending) -> _Kind:
        """Takes the first group's kind out of the heads."""
        _, _, kind = heapq.heappop(self._ready)
        assert self._items[item.uid][1] is kind, "only the first group can be dealt with"
        kind.ready_at = None
        return kind

    def _head(self, kind: _Kind) -> OrderKey | None:
        """The first of the kind that still waits as it did when it was put into the line."""
        line = kind.line
        while line:
            known = self._items.get(line[0][-1])
            if known is not None and known[1] is kind and known[2] == line[0]:
                return line[0]
            heapq.heappop(line)
        return None

    def _retire_if_empty(self, kind: _Kind) -> None:
        if self._head(kind) is None and not kind.aside_count:
            self._kinds.pop(kind.key, None)
            self._blocked.pop(kind, None)
