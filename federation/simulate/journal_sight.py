"""What the engine saw of each cluster when it decided something long ago: from a cycle on tape that was run again."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from federation.core.decisions import uid_of
from federation.core.lineup import ahead_of, pending_of
from federation.core.placing import quotas_of
from federation.core.poison import LostHomes
from federation.core.records import AnyRecord, decode_record
from federation.core.replay import Again, TapedCycle
from federation.core.state import State
from federation.simulate.journal import Stretch, replay
from placement.engine import Candidate, Place
from placement.explain import Explanation, why
from placement.filters import Pending, cluster_refusal
from placement.fleet import ClusterView, Fleet
from placement.model import NOWHERE, Because, GangRequest, GroupUid, Lineage, Phase, Position
from storage.archive import kept_entry
from storage.blob import BlobStore
from storage.entry import decode_entry, position, seq_of
from storage.reading import read_root

CHOSEN: Final = "chosen"
FITS: Final = "fits"
OPEN: Final = "open"
_NOBODY: Final = Pending(GroupUid(""), NOWHERE, 0, GangRequest((), 0))


class SeenCluster(msgspec.Struct, frozen=True, kw_only=True):
    """One cluster in the eyes of the engine. `answer`: chosen, fits, open (nobody asked), or the reason against it."""

    cluster: str
    answer: str
    why: str
    nodes: int
    gpus_free: int
    gpus: int
    score: int | None = None
    terms: dict[str, int] = {}


class SeenKind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of pods that had been asked for, and how many of a thousand were of it."""

    cpu_milli: int
    gpus: int
    gpu_milli: int
    products: tuple[str, ...]
    per_mille: int


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """One cycle, as far as it is about the record at `position`. `uid` is empty where that is about no waiting group.

    What earlier decisions of the same cycle took is no longer free here.
    """

    kind: str = "Sight"
    position: int
    record: str
    head: int  # the state it was decided on
    at_ms: int
    term: int
    uid: str = ""
    name: str = ""
    decided_before: int = 0  # in the same cycle
    summary: str = ""
    clusters: tuple[SeenCluster, ...] = ()
    mix: tuple[SeenKind, ...] = ()  # the commonest first: what nodes were worth something for


@dataclass(frozen=True, slots=True)
class _Wanted:
    position: Position
    record: AnyRecord | None
    uid: str


def sight(store: BlobStore, at: int, *, say: Callable[[str], None] = lambda _line: None) -> Sight | None:
    """What the cycle saw that decided the record at `at`, or the last cycle before it; None if no tape tells."""
    lineage = Lineage(read_root(store).lineage)
    record = _record_at(store, at)
    wanted = _Wanted(Position(at), record, uid_of(lineage, at, record) if record is not None else "")
    decides: list[bool] = []  # of each cycle, whether its decisions are those of the entry

    def look_for(_state: State, _taped: TapedCycle, again: Again) -> None:
        at_once = seq_of(again.cycle.head) + 1 == seq_of(at)
        decides.append(at_once and any(place.uid == wanted.uid for place in again.plan.decisions))

    replay(store, Stretch(at, at), say=say, on_cycle=look_for)
    if not decides:
        return None
    number = decides.index(True) if True in decides else len(decides) - 1
    found: list[Sight] = []
    counter = itertools.count()

    def look_at(state: State, taped: TapedCycle, again: Again) -> None:
        if next(counter) == number:
            found.append(_seen(wanted, state, taped, again))

    replay(store, Stretch(at, at), on_cycle=look_at)
    return found[0]


def _record_at(store: BlobStore, at: int) -> AnyRecord | None:
    found = kept_entry(store, seq_of(at), gc_floor=seq_of(at))
    if found is None:
        return None
    records = decode_entry(found[1].data, seq_of(at)).records
    index = at - position(seq_of(at))
    return decode_record(records[index], Position(at)) if index < len(records) else None


def _seen(wanted: _Wanted, state: State, taped: TapedCycle, again: Again) -> Sight:
    row = state.group(wanted.uid)
    decisions = again.plan.decisions
    index = next((at for at, place in enumerate(decisions) if place.uid == wanted.uid), None)
    before = decisions[:index] if index is not None else decisions
    fleet = _after(again.fleet, before)
    waits = row is not None and row.phase is Phase.PENDING
    item = None
    if row is not None and waits:
        children = state.siblings(row) if row.child is not None else ()
        item = pending_of(row, again.avoid.get(row.uid, frozenset()), LostHomes().of(row), children)
    told: Explanation | None = None
    if row is not None and item is not None:
        ahead = ahead_of(state, row)
        told = why(fleet, item, ahead, quotas_of(state), again.policy, worth=again.worth, beside=state.beside)
    chosen = decisions[index] if index is not None else None
    return Sight(
        position=wanted.position,
        record=type(wanted.record).__name__ if wanted.record is not None else "",
        head=again.cycle.head,
        at_ms=again.cycle.at_ms,
        term=taped.term,
        uid=wanted.uid if item is not None else "",
        name=f"{row.namespace}/{row.name}" if row is not None and item is not None else "",
        decided_before=len(before) if index is not None else 0,
        summary=told.summary if told is not None and chosen is None else "",
        clusters=tuple(_cluster(view, item, told, chosen) for view in fleet.values()),
        mix=tuple(SeenKind(**kind._asdict(), per_mille=share) for kind, share in told.mix) if told else (),
    )


def _after(fleet: Fleet, places: tuple[Place, ...]) -> Fleet:
    """The fleet once these have their places; the given one is left as it is."""
    tables = {name: view.table.copy() for name, view in fleet.items()}
    taken = Counter(place.cluster for place in places)
    for place in places:
        tables[place.cluster].take(place.assignment)
    return Fleet(
        replace(view, table=tables[view.name], groups_left=view.groups_left - taken[view.name])
        for view in fleet.values()
    )


def _cluster(view: ClusterView, item: Pending | None, told: Explanation | None, chosen: Place | None) -> SeenCluster:
    because = _because(view, item, told)
    candidate = _candidate(view, chosen)
    answer = because.reason.code if because is not None else OPEN if item is None else FITS
    if chosen is not None and chosen.cluster == view.name:
        answer = CHOSEN
    return SeenCluster(
        cluster=view.name,
        answer=answer,
        why=str(because) if because is not None else "",
        nodes=len(view.table),
        gpus_free=int(view.table.gpus_free[view.table.usable].sum()),
        gpus=int(view.table.gpus_total.sum()),
        score=candidate.score if candidate is not None else None,
        terms=dict(candidate.terms) if candidate is not None else {},
    )


def _because(view: ClusterView, item: Pending | None, told: Explanation | None) -> Because | None:
    """The first reason against the cluster; for nobody in particular, that of its gates."""
    if item is None or told is None:
        return cluster_refusal(view, _NOBODY)
    answer = next(one for one in told.clusters if one.cluster == view.name)
    return answer.because[0] if answer.because else None


def _candidate(view: ClusterView, chosen: Place | None) -> Candidate | None:
    candidates = chosen.candidates if chosen is not None else ()
    return next((one for one in candidates if one.cluster == view.name), None)
