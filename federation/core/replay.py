"""Cycles on tape run again by the same engine, and what they decide held against the journal. Pure.

One state is folded along the journal; each leader on tape has a `Run` of its own, which keeps what that leader's placer
kept from cycle to cycle. Why a decision is not covered is counted, never guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np

from federation.core.lineup import Lineup
from federation.core.placing import SeenView, groups_left, placed_of, quotas_of
from federation.core.records import AnyRecord, Placed, encode_record
from federation.core.state import State
from federation.core.taped import Changes, Cycle, Gate, Nodes, crc_of
from placement.engine import Bounds, Plan, Policy, plan_cycle
from placement.fleet import KINDS_FROM, ClusterView, Fleet, NodeTable
from placement.layout import Ints, NodeLayout
from placement.memory import Memory
from placement.model import ClusterName, FenceStrength, GroupUid, Position
from placement.node_order import NodeWorth
from placement.waiting import Pass

NOTHING: Final = NodeTable.build(())


class TapeError(Exception):
    """The tape does not fit the journal, or itself: its cycles cannot be run again."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class TapedCycle:
    """One cycle of a term with the nodes that changed before it."""

    term: int
    nodes: tuple[Nodes | Changes, ...]
    cycle: Cycle


@dataclass(frozen=True, slots=True)
class Again:
    """A cycle that was run again. The tables of `fleet` are those it looked at, until the next cycle of the term."""

    cycle: Cycle
    fleet: Fleet
    avoid: dict[GroupUid, frozenset[ClusterName]]
    policy: Policy
    worth: NodeWorth | None  # by what had been asked for until then
    plan: Plan
    placed: tuple[Placed, ...]  # in order, without those that the batch had no room for
    as_taped: bool  # whether it looked at as many clusters, and chose the same nodes


class Run:
    """One leader's cycles. `policy` replaces the one on tape: to see what another one would have decided."""

    def __init__(self, policy: Policy | None = None) -> None:
        self._other_policy = policy
        self._tables: dict[ClusterName, NodeTable] = {}
        self._coming: dict[ClusterName, list[Nodes]] = {}  # of clusters that are not told whole yet
        self.begun = False  # whether there was a base

    def folded(self, state: State, position: Position, record: AnyRecord) -> None:
        """A record after the first cycle was applied to the state."""
        if self.begun:
            self._lineup.folded(state, position, record)

    def run(self, state: State, taped: TapedCycle) -> Again:
        """The next cycle on `state`, which must be at its head. TapeError where the tape contradicts the state."""
        cycle = taped.cycle
        if state.head != cycle.head:
            raise TapeError(f"a cycle looked at position {cycle.head}, where the journal has no entry's end")
        try:
            for item in taped.nodes:
                self._take_nodes(item)
            self._take_cycle(state, cycle)
            return self._decide(state, cycle)
        except (LookupError, ValueError) as error:
            raise TapeError(f"the cycle at position {cycle.head} does not fit: {error!r}") from error

    # --- what it was given ---

    def _take_nodes(self, item: Nodes | Changes) -> None:
        name = ClusterName(item.cluster)
        if isinstance(item, Changes):
            self._tables[name] = _changed(self._tables[name], item)
            return
        self._coming.setdefault(name, []).append(item)
        if not item.more:
            self._tables[name] = _whole(self._coming.pop(name))

    def _take_cycle(self, state: State, cycle: Cycle) -> None:
        base = cycle.base
        if base is not None:
            self.begun = True
            self._lineup, self._memory = Lineup(), Memory()
            self._gates: dict[ClusterName, tuple[Gate, float]] = {}
            self._avoid: dict[GroupUid, frozenset[ClusterName]] = {}
            self._policy = self._other_policy or base.policy
            self._decided: tuple[GroupUid, ...] = ()
        elif not self.begun:
            raise TapeError(f"the cycle at position {cycle.head} goes on from one that is not there")
        for cluster, (gate, age_s) in cycle.gates.items():
            self._gates[ClusterName(cluster)] = (Gate(gate), age_s)
        for group, names in cycle.avoid.items():
            self._avoid[GroupUid(group)] = frozenset(map(ClusterName, names))
        for group, names in cycle.avoid_but.items():
            self._avoid[GroupUid(group)] = frozenset(state.clusters).difference(map(ClusterName, names))
        for uid in self._decided:  # what was not recorded waits again
            self._lineup.touch(uid)
        self._lineup.update(state, lambda uid: self._avoid.get(uid, frozenset()))
        if base is not None:
            blocked = tuple((GroupUid(uid), by_room) for uid, by_room in base.pass_blocked)
            self._lineup.waiting.go_on(Pass(base.pass_open, base.pass_gains, blocked))
            self._lineup.worth.recall(base.learnt)

    def _fleet(self, state: State) -> Fleet:
        return Fleet(
            _view(state, name, self._tables.get(name, NOTHING), gate, age_s)
            for name, (gate, age_s) in self._gates.items()
            if Gate.SEEN in gate
        )

    # --- what it decides ---

    def _decide(self, state: State, cycle: Cycle) -> Again:
        fleet, held = self._fleet(state), frozenset(cycle.held)
        bounds = Bounds(
            budget=cycle.budget,
            gains=cycle.gains,
            places_max=cycle.places_max,
            moves_max=cycle.moves_max,
            held=lambda item: item.uid in held,
        )
        self._lineup.worth.look(view.table for view in fleet.values())
        self._memory.follow(self._lineup.worth.now)
        plan = plan_cycle(
            fleet,
            self._lineup.waiting,
            self._memory,
            policy=self._policy,
            bounds=bounds,
            quotas=quotas_of(state),
            beside=state.beside,
        )
        self._decided = tuple(place.uid for place in plan.decisions)
        unseen = (0, 0, FenceStrength.NONE.value)  # of a cluster that the tape says was not chosen
        placed: list[Placed] = []
        for place in plan.decisions:
            boot, seq, strength = cycle.views.get(place.cluster, unseen)
            seen = SeenView(boot, seq, FenceStrength(strength), fleet[place.cluster].half_open)
            if place.uid not in cycle.not_taken:
                placed.append(placed_of(state, place, seen, bounds, plan, cycle.at_ms))
        crc = crc_of((place.uid, place.assignment.parts) for place in plan.decisions)
        as_taped = (plan.evaluations, len(plan.decisions), crc) == (cycle.evaluations, cycle.decisions, cycle.nodes_crc)
        return Again(
            cycle, fleet, dict(self._avoid), self._policy, self._lineup.worth.now, plan, tuple(placed), as_taped
        )


def _view(state: State, name: ClusterName, table: NodeTable, gate: Gate, age_s: float) -> ClusterView:
    row = state.clusters[name]
    return ClusterView(
        name=name,
        table=table,
        labels=row.labels,
        lease_class=row.lease_class,
        admitted=Gate.ADMITTED in gate,
        cordoned=row.cordoned,
        silent=Gate.SILENT in gate,
        fenced=Gate.FENCED in gate,
        stale=Gate.STALE in gate,
        view_age_s=age_s,
        tripped=Gate.TRIPPED in gate,
        half_open=Gate.HALF_OPEN in gate,
        groups_left=groups_left(row, half_open=Gate.HALF_OPEN in gate),
    )


def _whole(items: Sequence[Nodes]) -> NodeTable:
    """A table that is told in one or more items. ValueError where their columns do not agree."""
    free = [_columns(item.gpus_free, item.cpu_milli, item.memory_mib, *item.devices_free) for item in items]
    total = [_columns(item.gpus, item.cpu_milli_total, item.memory_mib_total, *item.devices) for item in items]
    usable = [np.array(item.usable or (True,) * len(item.places), dtype=np.bool_) for item in items]
    layout = NodeLayout([place for item in items for place in item.places], items[0].kinds)
    table = NodeTable(layout, np.hstack(free), np.hstack(total), np.concatenate(usable))
    resources = KINDS_FROM + len(layout.kinds)
    if not table.free.shape == table.total.shape == (resources, len(layout)) or len(table.usable) != len(layout):
        raise ValueError(f"columns of {table.free.shape} and {table.total.shape} beside {len(layout)} nodes")
    return table


def _changed(table: NodeTable, item: Changes) -> NodeTable:
    """The same nodes with the amounts that the tape says. ValueError or IndexError where it does not fit."""
    nodes = np.array(item.nodes, dtype=np.int64)
    free = _columns(item.gpus_free, item.cpu_milli, item.memory_mib, *item.devices_free)
    table.free[:, nodes] = free
    table.version += 1
    if not item.gpus and not item.usable:
        return table
    total, usable = table.total, table.usable
    if item.gpus:
        total = total.copy()
        total[:, nodes] = _columns(item.gpus, item.cpu_milli_total, item.memory_mib_total, *item.devices)
    if item.usable:
        usable = usable.copy()
        usable[nodes] = item.usable
    return NodeTable(table.layout, table.free, total, usable, table.clamped)


def _columns(*amounts: tuple[int, ...]) -> Ints:
    return np.array(amounts, dtype=np.int64).reshape(len(amounts), -1)


# --- held against the journal ----------------------------------------------------------------------------------------


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One decision that came out otherwise. A side is None where it decided nothing about the group."""

    position: int
    uid: str
    recorded: Placed | None
    replayed: Placed | None
    why: str = ""


class ReplayReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the decisions between two positions, inclusive."""

    kind: str = "Replay"
    lineage: str
    from_position: int
    to_position: int
    terms: int
    cycles: int
    decisions: int  # in the journal: equal, different or not covered
    equal: int
    different: int
    not_covered: dict[str, int]  # by reason
    not_landed: int  # decided by a leader whose batch never landed
    first_difference: Difference | None


@dataclass(frozen=True, slots=True)
class NextEntry:
    """The entry after a cycle's head, as far as it matters: who wrote it, and the decisions in it."""

    term: int
    placed: tuple[tuple[Position, Placed], ...]


@dataclass(slots=True)
class Tally:
    """Counts the decisions between two positions, inclusive."""

    from_position: int
    to_position: int
    cycles: int = 0
    equal: int = 0
    different: int = 0
    not_landed: int = 0
    not_covered: Counter[str] = field(default_factory=Counter)
    first: Difference | None = None
    terms: set[int] = field(default_factory=set)

    def covers(self, position: int) -> bool:
        return self.from_position <= position <= self.to_position

    def compare(self, taped: TapedCycle, again: Again, entry: NextEntry | None) -> bool:
        """Hold a cycle's decisions against the entry after its head; whether that entry is its outcome."""
        cycle = again.cycle
        self.terms.add(taped.term)
        self.cycles += 1
        expects = cycle.decisions > len(cycle.not_taken)
        if expects and (entry is None or entry.term != taped.term):
            self.not_landed += cycle.decisions - len(cycle.not_taken)
            return False
        recorded = entry.placed if expects and entry is not None else ()
        self._compare(cycle, recorded, again.placed)
        if not again.as_taped and self.first is None:
            self._differs(Difference(position=cycle.head, uid="", recorded=None, replayed=None, why=_otherwise(again)))
        return expects

    def _compare(self, cycle: Cycle, recorded: Sequence[tuple[Position, Placed]], replayed: Sequence[Placed]) -> None:
        answers = {placed.uid: placed for placed in replayed}
        for position, placed in recorded:
            answer = answers.pop(GroupUid(placed.uid), None)
            if answer is not None and encode_record(answer) == encode_record(placed):
                self.equal += self.covers(position)
            elif self.covers(position):
                self._differs(Difference(position=position, uid=placed.uid, recorded=placed, replayed=answer))
        for uid, answer in answers.items():
            self._differs(Difference(position=cycle.head, uid=uid, recorded=None, replayed=answer))

    def _differs(self, difference: Difference) -> None:
        self.different += 1
        self.first = self.first or difference

    def report(self, lineage: str) -> ReplayReport:
        recorded = self.equal + self.different + self.not_covered.total()
        return ReplayReport(
            lineage=lineage,
            from_position=self.from_position,
            to_position=self.to_position,
            terms=len(self.terms),
            cycles=self.cycles,
            decisions=recorded,
            equal=self.equal,
            different=self.different,
            not_covered=dict(sorted(self.not_covered.items())),
            not_landed=self.not_landed,
            first_difference=self.first,
        )


def _otherwise(again: Again) -> str:
    cycle, plan = again.cycle, again.plan
    return (
        f"the cycle at position {cycle.head} looked at {cycle.evaluations} clusters for {cycle.decisions} decisions on "
        f"tape, at {plan.evaluations} for {len(plan.decisions)} when run again, or chose other nodes"
    )
