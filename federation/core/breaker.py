"""Each cluster's circuit breaker: one where most groups fail gets nothing but a probe now and then (DESIGN §11.5).

Soft state that every replica keeps from what it folds, by its own clock: a new leader knows what the last one did, and
any server can show it. A restart forgets it. What is placed is the placer's; groups are not judged here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto, unique
from itertools import islice, takewhile
from statistics import median_low
from typing import Final, NamedTuple

from federation.core.records import AnyRecord, Bound, ClusterCordoned, ClusterRemoved, GaveUp, Placed
from federation.core.rows import GiveUp
from federation.core.state import State
from placement.model import ClusterName, GroupUid, Reason

ATTEMPTS_MIN: Final = 10  # fewer say nothing: two refusals of three are an ordinary minute
ATTEMPTS_KEPT: Final = 20  # the newest: a cluster that was well for a year is judged by what it does now
WINDOW_S: Final = 300.0  # what happened before says nothing of today
LIVES_S: Final = 20.0  # who lived so long was bound well: a cluster that kills its gangs does so within seconds
OPEN_FIRST_S: Final = 60.0  # with one placement a second, one probe a minute is less than 2 % of them
OPEN_MAX_S: Final = 960.0  # a cluster that was repaired waits no longer; an operator ends it at once
DOUBLINGS_MAX: Final = 4  # from the one to the other
SUSPECTED_S: Final = 960.0  # by then who fails by itself is quarantined: its waits in one cluster are 600 s together
YOUNG_MAX: Final = 10_000  # gangs of one cluster that were bound lately: as many as may be at home there

NEVER: Final = float("inf")
OTHERS_FIRST_S: Final = 60.0  # who failed there is no probe for so long: a poison group would keep it open for ever
PROBER: Final = "muster:probe"
"""Who places a probe, in its record: that is how all servers know it, and the decision log shows it."""


@unique
class Breaker(StrEnum):
    """Stable words: they stand in the API and in metrics."""

    CLOSED = "Closed"
    OPEN = "Open"
    HALF_OPEN = "HalfOpen"


class Stand(NamedTuple):
    """How a breaker stands. `probing`: its one probe is under way. `again_s`: time until the next one may start."""

    breaker: Breaker
    probing: bool = False
    again_s: float = 0.0


CLOSED: Final = Stand(Breaker.CLOSED)


class Fate(Enum):
    """What an attempt says of the cluster."""

    WELL = auto()
    FAILED = auto()
    DOUBTFUL = auto()  # it failed, perhaps by itself: that counts unless groups fail alike elsewhere


BINDING_FAILED: Final = frozenset(
    reason.code for reason in (Reason.KUBELET_REJECTED, Reason.API_ERROR, Reason.BIND_CONFLICT, Reason.BIND_DEADLINE)
)
"""An agent's reasons for a gang that it could not bind, whoever's fault it is."""

# An agent's reasons that are its cluster's. A lack of room is nobody's fault; what people or fences stop says nothing.
_OF_THE_CLUSTER: Final = BINDING_FAILED | {Reason.VICTIM_STILL_RUNNING.code}


class _Attempt(NamedTuple):
    at_s: float
    fate: Fate
    lived_s: float  # after it was bound


@dataclass(slots=True)
class _Book:
    """One cluster's newest attempts, one for each group, and its breaker."""

    attempts: OrderedDict[str, _Attempt] = field(default_factory=OrderedDict)  # oldest first
    doubtful: int = 0  # of those
    young: OrderedDict[str, float] = field(default_factory=OrderedDict)  # bound less than `LIVES_S` ago, and when
    suspects: dict[str, float] = field(
        default_factory=dict
    )  # whose failures say nothing of the cluster, and until when
    tripped: bool = False
    trips: int = 0  # with no good time between them, by groups that had not failed here before
    tries: int = 0  # since the last of those, with it
    had_turns: set[str] = field(default_factory=set)  # who failed here before, was tried again, and failed again
    until_s: float = 0.0  # no probe before
    again_s: float = 0.0  # and none by those
    probe: str = ""
    closed_at_s: float = -NEVER

    def settle(self, now_s: float) -> None:
        """Who lived long enough was bound well; if that was the probe, the breaker closes."""
        young = self.young
        while young:
            uid, bound_at_s = next(iter(young.items()))
            if now_s < bound_at_s + LIVES_S and len(young) <= YOUNG_MAX:
                return
            del young[uid]
            self.note(uid, _Attempt(now_s, Fate.WELL, LIVES_S))
            if uid == self.probe:
                self.proven(now_s)

    def note(self, uid: str, attempt: _Attempt) -> None:
        """A group counts once, with its newest attempt: who fails everywhere opens no breaker."""
        if attempt.fate is Fate.WELL:
            self.suspects.pop(uid, None)
        gone = [self.attempts.pop(uid)] if uid in self.attempts else []
        self.attempts[uid] = attempt
        if len(self.attempts) > ATTEMPTS_KEPT:
            gone.append(self.attempts.popitem(last=False)[1])
        self.doubtful += (attempt.fate is Fate.DOUBTFUL) - sum(one.fate is Fate.DOUBTFUL for one in gone)

    def failed(self, uid: str, now_s: float) -> bool:
        attempt = self.attempts.get(uid)
        return self.suspected(uid, now_s) or (attempt is not None and attempt.fate is not Fate.WELL)

    def suspected(self, uid: str, now_s: float) -> bool:
        return now_s < self.suspects.get(uid, -NEVER)

    def spares(self, uid: str, now_s: float) -> bool:
        """Whether it is to be tried after others: those that never failed here, and before it is tried a third time all
        that failed once. Else the first of them in the queue, whatever ails it, would be every probe."""
        from_s = self.again_s if uid in self.had_turns else self.until_s + OTHERS_FIRST_S
        return now_s < from_s and self.failed(uid, now_s)

    def again_at_s(self) -> tuple[float, ...]:
        """When others may be the probe: who never failed here, who did, and who was tried again."""
        again = (self.again_s,) if self.had_turns else ()
        return (self.until_s, self.until_s + OTHERS_FIRST_S, *again)

    def recent(self, now_s: float) -> Iterator[_Attempt]:
        return (one for one in self.attempts.values() if now_s - one.at_s <= WINDOW_S)

    def fails(self, now_s: float, *, doubted: bool) -> bool:
        """Under half of at least `ATTEMPTS_MIN` went well. Of those bound lately count who outlived most that failed:
        in a cluster that kills within five seconds, who was bound a second ago is no success."""
        known = [one for one in self.recent(now_s) if doubted or one.fate is not Fate.DOUBTFUL]
        lived_s = [one.lived_s for one in known if one.fate is not Fate.WELL]
        if not lived_s:
            return False
        outlived = takewhile(lambda bound_at_s: now_s - bound_at_s >= median_low(lived_s), self.young.values())
        total = len(known) + len(list(islice(outlived, ATTEMPTS_KEPT)))
        return total >= ATTEMPTS_MIN and 2 * len(lived_s) > total

    def trip(self, now_s: float, *, known: str) -> None:
        """`known`: by this one, which had failed here before. Then others wait no longer for it than they did, and
        those that were tried again, as it was, ever longer."""
        if not self.tripped:
            self.had_turns.clear()
            if now_s - self.closed_at_s > WINDOW_S:
                self.trips = 0
        if known:
            begin_anew = known in self.had_turns
            still_known = self.attempts.keys() | self.suspects.keys()
            self.had_turns = {known} if begin_anew else (self.had_turns & still_known) | {known}
        if not (known and self.trips):
            self.trips += 1
        self.tries = self.tries + 1 if known else self.trips
        self.until_s = now_s + _open_s(self.trips)
        self.again_s = max(self.until_s + 2 * OTHERS_FIRST_S, now_s + _open_s(self.tries))
        self.tripped, self.probe = True, ""

    def proven(self, now_s: float) -> None:
        """A probe lives where others failed: should those fail again, it is by themselves."""
        self.suspects = {uid: until_s for uid, until_s in self.suspects.items() if now_s < until_s}
        self.suspects |= {uid: now_s + SUSPECTED_S for uid, one in self.attempts.items() if one.fate is not Fate.WELL}
        self.close(now_s)

    def close(self, now_s: float) -> None:
        self.tripped, self.probe, self.closed_at_s = False, "", now_s
        self.attempts.clear()
        self.doubtful = 0


def _open_s(trips: int) -> float:
    return min(OPEN_FIRST_S * 2.0 ** min(trips - 1, DOUBLINGS_MAX), OPEN_MAX_S)


class Breakers:
    """The breakers of all clusters."""

    def __init__(self) -> None:
        self._books: dict[ClusterName, _Book] = {}
        self._tripped: set[ClusterName] = set()
        self._anew: set[ClusterName] = set()  # tripped since somebody asked whom that spares

    # --- what happened ---

    def folded(self, state: State, record: AnyRecord, now_s: float) -> None:
        """Learn from one record that landed just now; `state` has it already. O(1); O(clusters) for a failure."""
        if isinstance(record, Bound):
            book = self._book(record.cluster)
            book.settle(now_s)
            book.young[record.uid] = now_s
        elif isinstance(record, GaveUp):
            if not record.late:
                self._gave_up(state, record, now_s)
        elif isinstance(record, Placed):
            if record.actor == PROBER:
                self._book(record.cluster).probe = record.uid
        elif isinstance(record, ClusterRemoved) or (isinstance(record, ClusterCordoned) and not record.cordoned):
            self.forget(record.cluster)  # gone, or an operator says that it is well

    def forget(self, cluster: str) -> None:
        """What happened there says nothing of what will."""
        self._books.pop(ClusterName(cluster), None)
        self._tripped.discard(ClusterName(cluster))

    def _gave_up(self, state: State, record: GaveUp, now_s: float) -> None:
        book, uid = self._book(record.cluster), record.uid
        book.settle(now_s)
        bound_at_s = book.young.pop(uid, None)
        probed = uid == book.probe
        fate = _fate_of(record, died_young=bound_at_s is not None)
        if probed:
            book.probe = ""  # one that proves nothing is followed by the next
        known = book.failed(uid, now_s)
        if fate is None or (fate is not Fate.WELL and not probed and book.suspected(uid, now_s)):
            return
        book.note(uid, _Attempt(now_s, fate, now_s - bound_at_s if bound_at_s is not None else 0.0))
        if fate is Fate.WELL:  # most are: nobody else is looked at
            if probed:
                book.proven(now_s)
            return
        doubted = len(state.clusters) > 1 and not self._fail_elsewhere(record.cluster, now_s)
        if fate is Fate.DOUBTFUL and not doubted:
            if probed:
                book.close(now_s)
        elif probed or (not book.tripped and book.fails(now_s, doubted=doubted)):
            book.trip(now_s, known=uid if probed and known else "")
            self._tripped.add(ClusterName(record.cluster))
            self._anew.add(ClusterName(record.cluster))

    def _fail_elsewhere(self, cluster: str, now_s: float) -> bool:
        """Whether in another cluster as well groups fail in a way that may be their own: then it most likely is."""
        for name, book in self._books.items():
            if name != cluster and 2 * book.doubtful >= ATTEMPTS_MIN:
                fates = [one.fate for one in book.recent(now_s)]
                doubtful = fates.count(Fate.DOUBTFUL)
                if 2 * doubtful >= max(ATTEMPTS_MIN, len(fates)):
                    return True
        return False

    def _book(self, cluster: str) -> _Book:
        name = ClusterName(cluster)
        book = self._books.get(name)
        if book is None:
            book = self._books[name] = _Book()
        return book

    # --- questions ---

    def stand(self, state: State, cluster: ClusterName, now_s: float) -> Stand:
        """How the cluster's breaker stands now."""
        if cluster not in self._tripped:
            return CLOSED
        book = self._books[cluster]
        book.settle(now_s)
        if not book.tripped:
            self._tripped.discard(cluster)
            return CLOSED
        if book.probe:
            self._look_at_probe(state, cluster, book, now_s)
        if book.probe:
            return Stand(Breaker.HALF_OPEN, probing=True)
        if now_s < book.until_s:
            return Stand(Breaker.OPEN, again_s=book.until_s - now_s)
        return Stand(Breaker.HALF_OPEN)

    def _look_at_probe(self, state: State, cluster: ClusterName, book: _Book, now_s: float) -> None:
        """What no record told this server."""
        row = state.group(book.probe)
        if row is None or row.home is None or row.home.cluster != cluster:
            book.probe = ""  # its home ended without its agent's word
        elif row.bound_at and book.probe not in book.young:
            book.young[book.probe] = now_s  # since when is not known: it has to live for as long from now on

    def spared(self, uid: GroupUid, now_s: float) -> frozenset[ClusterName]:
        """Clusters to be tried with others first, since this group failed there."""
        if not self._tripped:
            return frozenset()
        books = ((name, self._books[name]) for name in self._tripped)
        return frozenset(name for name, book in books if book.spares(uid, now_s))

    def spared_anew(self) -> list[GroupUid]:
        """Those of whom `spared` says something else since this was asked last, though nothing happened to them."""
        anew, self._anew = self._anew, set()
        books = [self._books[name] for name in sorted(anew) if name in self._books]
        return [GroupUid(uid) for book in books for uid in (*book.attempts, *book.suspects)]

    def due_s(self, now_s: float) -> float:
        """When time alone will change how one of them stands, or for whom; infinite if it will not."""
        books = [self._books[name] for name in self._tripped]
        lived = [book.young[book.probe] + LIVES_S for book in books if book.probe in book.young]
        again = [at_s for book in books if not book.probe for at_s in book.again_at_s()]
        return min((at_s for at_s in (*lived, *again) if at_s > now_s), default=NEVER)


def _fate_of(record: GaveUp, *, died_young: bool) -> Fate | None:
    """None: it says nothing of the cluster."""
    match record.verdict:
        case GiveUp.REFUSED if _OF_THE_CLUSTER.intersection(record.reasons):
            return Fate.FAILED
        case GiveUp.REFUSED if Reason.TEMPLATE_REFUSED.code in record.reasons:
            return Fate.DOUBTFUL
        case GiveUp.RELEASED if died_young and Reason.MEMBER_LOST.code in record.reasons:
            return Fate.FAILED
        case GiveUp.FINISHED if record.succeeded:
            return Fate.WELL
        case GiveUp.FINISHED if died_young:
            return Fate.DOUBTFUL
        case _:
            return None
