"""The journal's protocol in a few lines, small enough to try every order of events; one and two entries in flight.

Two writers, elections by TERM entry, calls that land whenever they like, restarts, snapshots and deletion; with time
also the shortcut by which a leader does not read the root after each entry. It knows nothing of the product's code: it
shows that the rules are right, and that none of them can be left out. Pure.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple


class Rule(enum.Enum):
    """What keeps the journal right. Removing one must break a promise."""

    FLOOR_OF_RECORDS = "an own record counts only above the floor read afterwards"
    FLOOR_OF_TERMS = "an own TERM entry counts only above the floor read afterwards"
    FLOOR_OF_SEALS = "a seal counts only above the floor read afterwards"
    FLOOR_OF_LOSSES = "a record is called lost only above the floor read after what took its number"
    FLOOR_OF_READERS = "what a reader saw counts only above the floor read afterwards"
    SEAL = "a new leader fills the numbers at which its predecessor may have calls under way"
    TERM = "an entry of a term older than the newest before it is void"
    NONCE = "an entry at the own number is one's own only if its nonce is"
    RESOLVE = "an unanswered write is read back before it is called lost"
    IN_ORDER = "a record is acknowledged only after all before it"
    AGE = "an entry is deleted only long after it was seen"
    SHORTLY = "the root is left unread only shortly after the own entry before was sent"


LONG: Final = 2
"""Ticks between seeing an entry and deleting it."""
SHORT: Final = 1
"""Ticks within which the floor cannot have passed what follows an own entry. Less than LONG."""


ALL_RULES: Final = frozenset(Rule)


class Entry(NamedTuple):
    """`what` is TERM, SEAL or the name of a record; `nonce` is (writer, its start)."""

    term: int
    what: str
    nonce: tuple[int, int]


TERM: Final = "term"
SEAL: Final = "seal"


class Slot(NamedTuple):
    """An own entry under way: sent, in doubt (unanswered or refused), or known to be there."""

    seq: int
    entry: Entry
    status: str
    sent: int = 0
    """Tick at which it was first sent."""


class Call(NamedTuple):
    """A create that may land at any time from now on."""

    seq: int
    entry: Entry


class Writer(NamedTuple):
    start: int
    role: str
    """follow, campaign or lead"""
    term: int
    next_seq: int
    landed: tuple[str, ...]
    seen: tuple[Entry, ...]
    """Read, and waiting for the root to be read after it."""
    window: tuple[Slot, ...]
    submitted: int
    given_up: tuple[str, ...] = ()
    """Own records to be called lost once the entries that took their numbers have been seen to count."""
    tail_seen: int = 0
    """Tick at which the newest entry was seen to count."""
    tail_sent: int = -1
    """Tick at which it was sent, if it is an own one."""


class State(NamedTuple):
    store: tuple[Entry | None, ...]
    """By number, from 1 on."""
    floor: int
    """Also the number up to which the snapshot goes."""
    snapshot_term: int
    snapshot: tuple[str, ...]
    calls: frozenset[Call]
    writers: tuple[Writer, ...]
    acknowledged: frozenset[str]
    lost: frozenset[str]
    """Records whose submitters were told that they are not in the journal."""
    collections: int
    restarts: int
    clock: int = 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far the search goes."""

    depth: int
    numbers: int
    terms: int
    records: int
    """Per writer."""
    collections: int
    restarts: int
    ticks: int = 0
    """0: time is left out, entries are deleted at any age, and the root is read after every entry."""


def first_state(bounds: Bounds) -> State:
    writer = Writer(0, "follow", 0, 1, (), (), (), 0)
    return State((None,) * bounds.numbers, 0, 0, (), frozenset(), (writer, writer), frozenset(), frozenset(), 0, 0)


def next_states(state: State, bounds: Bounds, rules: frozenset[Rule]) -> Iterator[State]:
    """Every state that one event can lead to."""
    for call in sorted(state.calls):
        yield _landed(state, call)
    for me, writer in enumerate(state.writers):
        yield from _read(state, me, writer, rules)
        yield from _lead(state, me, writer, bounds)
        for place, slot in enumerate(writer.window):
            if slot.status == "sent":
                yield _with_slot(state, me, place, slot._replace(status="doubt"))
            elif slot.status == "doubt":
                yield _resolved(state, me, place, bounds, rules)
            elif place == 0 or Rule.IN_ORDER not in rules:
                yield _counted(state, me, place, bounds, rules)
        if state.restarts < bounds.restarts:
            yield _restarted(state, me)._replace(restarts=state.restarts + 1)
        if state.collections < bounds.collections and _may_collect(state, writer, bounds, rules):
            yield state._replace(
                floor=writer.next_seq - 1,
                snapshot=writer.landed,
                snapshot_term=writer.term,
                collections=state.collections + 1,
            )
    if state.clock < bounds.ticks:
        yield state._replace(clock=state.clock + 1)
    if any(entry is not None for entry in state.store[: state.floor]):
        yield state._replace(store=(None,) * state.floor + state.store[state.floor :])


def violation(state: State, rules: frozenset[Rule]) -> str | None:
    """The promise that this state breaks, if any. The journal is what a reader that starts now would find."""
    journal, _, _ = _fold(state.snapshot, state.snapshot_term, _readable(state, state.floor + 1), rules)
    if journal is None:
        return "an entry is of a term that nobody has won"
    if len(set(journal)) != len(journal):
        return f"a record is in the journal twice: {journal}"
    for record in sorted(state.acknowledged):
        if record not in journal:
            return f"{record} was acknowledged and is not in the journal {journal}"
    for record in sorted(state.lost):
        if record in journal:
            return f"{record} was called lost and is in the journal {journal}"
    for writer in state.writers:
        if journal[: len(writer.landed)] != writer.landed:
            return f"a server has seen {writer.landed} and the journal is {journal}"
    for earlier, later in itertools.pairwise(journal):
        if earlier[:2] == later[:2] and earlier > later:
            return f"two records of one leader have changed places: {journal}"
    return None


# --- events ---


def _landed(state: State, call: Call) -> State:
    """A create reaches the store. Its caller learns of it only if it still waits."""
    free = state.store[call.seq - 1] is None
    store = (*state.store[: call.seq - 1], call.entry, *state.store[call.seq :]) if free else state.store
    after = state._replace(store=store, calls=state.calls - {call})
    me = call.entry.nonce[0]
    for place, slot in enumerate(state.writers[me].window):
        if slot[:3] == (call.seq, call.entry, "sent"):
            return _with_slot(after, me, place, slot._replace(status="there" if free else "doubt"))
    return after


def _read(state: State, me: int, writer: Writer, rules: frozenset[Rule]) -> Iterator[State]:
    """A follower reads on to the first free number, or takes what it read once it has read the root after it."""
    if writer.role != "follow":
        return
    if not writer.seen:
        seen = _readable(state, writer.next_seq)
        if seen:
            yield _with_writer(state, me, writer._replace(seen=seen))
        return
    if writer.next_seq <= state.floor and Rule.FLOOR_OF_READERS in rules:
        yield _restarted(state, me)
        return
    landed, term, count = _fold(writer.landed, writer.term, writer.seen, rules)
    if landed is not None:
        lost = state.lost | (set(writer.given_up) - set(landed))
        after = writer._replace(seen=(), landed=landed, term=term, next_seq=writer.next_seq + count, given_up=())
        after = after._replace(tail_seen=state.clock, tail_sent=-1)
        yield _with_writer(state._replace(lost=lost), me, after)


def _lead(state: State, me: int, writer: Writer, bounds: Bounds) -> Iterator[State]:
    """Run for leadership, or append one more record."""
    nonce = (me, writer.start)
    if writer.role == "follow" and not writer.seen and not writer.given_up and writer.term < bounds.terms:
        entry = Entry(writer.term + 1, TERM, nonce)
        yield _sent(state, me, writer._replace(role="campaign"), writer.next_seq, entry, bounds)
    sealing = any(slot.entry.what == SEAL for slot in writer.window)
    if (
        writer.role == "lead"
        and not sealing
        and len(writer.window) < bounds.depth
        and writer.submitted < bounds.records
    ):
        record = f"{'ab'[me]}{writer.term}{writer.submitted}"
        after = writer._replace(submitted=writer.submitted + 1)
        seq = writer.window[-1].seq + 1 if writer.window else writer.next_seq
        yield _sent(state, me, after, seq, Entry(writer.term, record, nonce), bounds)


def _resolved(state: State, me: int, place: int, bounds: Bounds, rules: frozenset[Rule]) -> State:
    """A writer in doubt reads its own number."""
    writer = state.writers[me]
    slot = writer.window[place]
    if Rule.RESOLVE not in rules:
        return _deposed(state, me, at_once=True)
    found = state.store[slot.seq - 1]
    if found is None:
        again = _with_slot(state, me, place, slot._replace(status="sent"))
        return again._replace(calls=again.calls | {Call(slot.seq, slot.entry)})
    if found == slot.entry or Rule.NONCE not in rules:
        return _with_slot(state, me, place, slot._replace(status="there"))
    if writer.role != "lead" or bounds.depth == 1 or found.term >= slot.entry.term:
        return _deposed(state, me, at_once=Rule.FLOOR_OF_LOSSES not in rules)
    # A predecessor's call has landed late on this number: void, so the own entry goes behind those under way.
    filled = _with_slot(state, me, place, Slot(slot.seq, found, "there", slot.sent))
    if slot.entry.what == SEAL:
        return filled
    return _sent(filled, me, filled.writers[me], writer.window[-1].seq + 1, slot.entry, bounds)


def _counted(state: State, me: int, place: int, bounds: Bounds, rules: frozenset[Rule]) -> State:
    """The root is read after an own entry is known to be there: it counts, or this server was asleep too long."""
    writer = state.writers[me]
    slot = writer.window[place]
    what = slot.entry.what
    rule = {TERM: Rule.FLOOR_OF_TERMS, SEAL: Rule.FLOOR_OF_SEALS}.get(what, Rule.FLOOR_OF_RECORDS)
    own = slot.entry.nonce == (me, writer.start)
    unread = bounds.ticks > 0 and what not in {TERM, SEAL} and own and place == 0 and _shortly(state, writer, rules)
    if slot.seq <= state.floor and rule in rules and not unread:
        return _restarted(state, me)
    window = (*writer.window[:place], *writer.window[place + 1 :])
    after = writer._replace(window=window, next_seq=max(writer.next_seq, slot.seq + 1))
    after = after._replace(tail_seen=state.clock, tail_sent=slot.sent if own else -1)
    if what == TERM and own:
        after = after._replace(role="lead", term=slot.entry.term)
        if Rule.SEAL in rules and bounds.depth > 1:
            seal = Entry(after.term, SEAL, slot.entry.nonce)
            return _sent(state, me, after, after.next_seq, seal, bounds)
    elif what not in {TERM, SEAL} and (own or Rule.NONCE not in rules):
        acknowledged = state.acknowledged | {what}
        after = after._replace(landed=(*after.landed, what))
        return _with_writer(state._replace(acknowledged=acknowledged), me, after)
    return _with_writer(state, me, after)


# --- parts of events ---


def _may_collect(state: State, writer: Writer, bounds: Bounds, rules: frozenset[Rule]) -> bool:
    """There is something to collect, and it is old enough."""
    old = not bounds.ticks or Rule.AGE not in rules or state.clock - writer.tail_seen >= LONG
    return writer.next_seq - 1 > state.floor and old


def _shortly(state: State, writer: Writer, rules: frozenset[Rule]) -> bool:
    """What follows the own entry before cannot have been written, seen, kept long and deleted since that was sent."""
    return writer.tail_sent >= 0 and (Rule.SHORTLY not in rules or state.clock - writer.tail_sent < SHORT)


def _sent(state: State, me: int, writer: Writer, seq: int, entry: Entry, bounds: Bounds) -> State:
    """Begin to create an entry; beyond the last number nothing happens any more."""
    if seq > bounds.numbers:
        return state
    after = writer._replace(window=(*writer.window, Slot(seq, entry, "sent", state.clock)))
    return _with_writer(state, me, after)._replace(calls=state.calls | {Call(seq, entry)})


def _deposed(state: State, me: int, *, at_once: bool) -> State:
    """Follow, and give up all that is under way; its submitters are told at once or when what took its place counts."""
    writer = state.writers[me]
    records = tuple(slot.entry.what for slot in writer.window if slot.entry.what not in {TERM, SEAL})
    after = writer._replace(role="follow", window=(), given_up=() if at_once else records)
    return _with_writer(state._replace(lost=state.lost | set(records if at_once else ())), me, after)


def _restarted(state: State, me: int) -> State:
    """Begin anew from the snapshot, with a fresh nonce; what was under way stays unclear to its submitters."""
    writer = state.writers[me]
    anew = Writer(
        writer.start + 1, "follow", state.snapshot_term, state.floor + 1, state.snapshot, (), (), writer.submitted
    )._replace(tail_seen=state.clock)
    return _with_writer(state, me, anew)


def _readable(state: State, seq: int) -> tuple[Entry, ...]:
    """The entries from `seq` on to the first free number."""
    found: list[Entry] = []
    for entry in state.store[seq - 1 :]:
        if entry is None:
            break
        found.append(entry)
    return tuple(found)


def _fold(
    landed: tuple[str, ...], term: int, entries: tuple[Entry, ...], rules: frozenset[Rule]
) -> tuple[tuple[str, ...] | None, int, int]:
    """What a reader makes of entries: records, newest term, how many. None if one is of a term nobody won."""
    for entry in entries:
        if entry.what == TERM:
            term = max(term, entry.term)
        elif entry.term > term:
            return None, term, 0
        elif entry.what != SEAL and (entry.term == term or Rule.TERM not in rules):
            landed = (*landed, entry.what)
    return landed, term, len(entries)


def _with_writer(state: State, me: int, writer: Writer) -> State:
    return state._replace(writers=(*state.writers[:me], writer, *state.writers[me + 1 :]))


def _with_slot(state: State, me: int, place: int, slot: Slot) -> State:
    writer = state.writers[me]
    window = (*writer.window[:place], slot, *writer.window[place + 1 :])
    return _with_writer(state, me, writer._replace(window=window))
